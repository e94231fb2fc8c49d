"""Formats described at run time: your own, and the planar formats of other ecosystems.

Example:
  >>> mine = edgequant.Format("mine", block=64, codes=2, table=[-1, -0.3, 0.3, 1], scale="f16")
  >>> mine.bits_per_weight
  2.25
  >>> q = edgequant.quantize(np.random.default_rng(0).standard_normal((8, 128)), mine)
  >>> q.data.shape, q.dequantize().shape
  ((8, 36), (8, 128))
"""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from edgequant import _core
from edgequant._core import Error

NUMBERS = {"f32": 32, "f16": 16, "bf16": 16, "e8m0": 8, "e4m3": 8}
PARTS = ("super", "super_shift", "scale", "shift", "entries", "code")


class Format:
    """A format that is described at run time.

    A weight is value(code) * scale; with a zero point (code - zero) * scale, with a minimum value(code) * scale +
    minimum.
    Blocks lie one after another, each with its scale first and its codes last, as a stream from the lowest bit up. The
    planar formats of the ecosystems (`edgequant.planar_formats`) are of this class, too.

    Args:
      name: what messages and files call it.
      block: weights along a row that share a scale; rows must be a multiple of it (and of the second level's block).
      codes: bits of a code, 1 to 8.
      table: what the codes stand for, 2^codes numbers; or "learned", which is `learned="tensor"`. Without a table codes
        are whole numbers, less `zero`.
      learned: "tensor" finds the table (or codebook) that is best for each tensor; "group" a table for each block,
        which then stores its numbers in place of a scale.
      codebook: codes that stand for 2, 4 or 8 weights: (codes, weights per code) to learn it, or an array of that
        shape. Up to 65536 codes; they take an even number of bits if that is more than 8. The search looks at every row
        for every vector, so that time grows with the codes: 4096 rows of 8 take about 2 s for a million weights.
      zero: a number, also a half (the default is the middle of the codes); "int" stores a zero point of the codes'
        width with each scale; the name of a number type stores that.
      minimum: the number type of minima, which are added.
      scale: the number type of the scales: f32, f16, bf16, e8m0 (powers of two), e4m3; None stores none.
      sub_scale: scales as integers of (bits, groups): each `groups` blocks share one number of type `scale`, and their
        own scales (and minima) are integers times that; signed ones from 6 bits on, where there is no minimum.
      minifloat: (exponent bits, mantissa bits): codes are small floats, a sign in the highest bit; (3, 2) is FP6 E3M2.
        All codes are finite, but for (4, 3) and (5, 2), which are OCP's E4M3 and E5M2. It gives the bits of a code.
      base3: three codes, -1, 0 and 1 times the scale, or the three of `table`; five share a byte.
      transform: "hadamard" quantizes rows that went through random signs and a Hadamard transform, which spreads
        outliers over the columns; decoding goes back, products transform the activations instead. ("hadamard",
        columns, seed): how many columns are mixed, a power of two from 16 up (0, the default: the largest that divides
        the row), and the seed of the signs (default 1; 0: no signs).

    Raises Error, in one sentence, for descriptions that contradict themselves.

    Example:
      >>> edgequant.Format("ternary", block=64, base3=True).bits_per_weight
      1.875
    """

    def __init__(
        self,
        name: str,
        block: int = 32,
        codes: int = 4,
        *,
        table: Sequence[float] | np.ndarray | str | None = None,
        learned: str | None = None,
        codebook: tuple[int, int] | np.ndarray | Sequence[Sequence[float]] | None = None,
        zero: float | str | None = None,
        minimum: str | None = None,
        scale: str | None = "f16",
        sub_scale: tuple[int, int] | None = None,
        minifloat: tuple[int, int] | None = None,
        base3: bool = False,
        transform: str | tuple[str, int] | tuple[str, int, int] | None = None,
    ) -> None:
        block, codes = (_whole(name, what, v) for what, v in (("block", block), ("codes", codes)))
        d: dict[str, Any] = {"name": str(name), "interleaved": True, "group": block, "block": block}
        if block < 1:
            raise Error(f"format '{name}': a block has at least one weight, not {block}")
        if not 1 <= codes <= 8:
            raise Error(f"format '{name}': codes have 1 to 8 bits, not {codes} (those of a codebook 1 to 16)")
        d["bits"] = int(codes) if not base3 else 2
        if base3:
            d["codes"] = 3
        if isinstance(table, str):
            if table != "learned":
                raise Error(f"format '{name}': the table is a list of numbers or 'learned', not '{table}'")
            table, learned = None, learned or "tensor"
        if learned not in (None, "tensor", "group"):
            raise Error(f"format '{name}': tables are learned per 'tensor' or per 'group', not per '{learned}'")
        if minifloat is not None:
            self._add_minifloat(d, minifloat, any(v is not None for v in (table, learned, codebook, zero)) or base3)
        code_plane: dict[str, Any] = {"trits": True} if base3 else {"bits": d["bits"]}
        if codebook is not None:
            self._add_codebook(d, codebook, learned, table is not None or base3)
            code_plane = {"bits": d["bits"] // _digits(d)}
        elif table is not None:
            d.update(values="table", table=_numbers(name, table))
        elif learned == "tensor":
            d.update(values="table", learned=True)
        elif learned == "group":
            d.update(values="group_table", entries_plane={"cell": _number(name, scale or "f16")})
            scale = None
        elif zero is None and minifloat is None:
            d["zero"] = 1 if base3 else 0.5 if codes == 1 else float(1 << (int(codes) - 1))
        if minimum is not None:
            d.update(zeros="minimum", zero=0, shift_plane={"cell": _number(name, minimum)})
        if isinstance(zero, str):
            if minimum is not None:
                raise Error(f"format '{name}': a zero point and a minimum say the same; give one")
            plane = {"bits": d["bits"]} if zero == "int" else {"cell": _number(name, zero)}
            d.update(zeros="integer" if zero == "int" else "float", zero=0, shift_plane=plane)
        elif zero is not None:
            d["zero"] = float(zero)
        if scale == "e4m3":
            d["negative_scale"] = False
        if scale is not None:
            d["scale_plane"] = {"cell": _number(name, scale)}
        if sub_scale is not None:
            self._add_levels(d, sub_scale, scale, minimum)
        d["code_plane"] = code_plane
        if transform is not None:
            d["transform"] = _transform(name, transform)
        self._description = d
        self._arrays: dict[str, tuple[str, str, str]] = {}
        self.core  # noqa: B018  (checks the description)

    @staticmethod
    def _add_codebook(d: dict[str, Any], codebook: Any, learned: str | None, other: bool) -> None:
        name = d["name"]
        if other:
            raise Error(f"format '{name}': a codebook takes the place of table and base3")
        book = np.asarray(codebook)
        if book.shape == (2,) and book.dtype.kind == "i":
            rows, dim = int(book[0]), int(book[1])
            d["learned"] = True
        elif book.ndim == 2 and book.dtype.kind in "fiu":
            rows, dim = book.shape
            d["table"] = [float(v) for v in book.reshape(-1)]
        else:
            raise Error(f"format '{name}': a codebook is (codes, weights per code) or an array of that shape")
        if learned == "group":
            raise Error(f"format '{name}': codebooks are learned per tensor")
        if not 2 <= rows <= 1 << 16:
            raise Error(f"format '{name}': a codebook has 2 to 65536 rows, not {rows}")
        bits = max(1, (rows - 1).bit_length())
        if bits > 8:  # of two integers of half as many
            bits += bits % 2
        d.update(values="codebook", codes=rows, dim=dim, bits=bits)

    @staticmethod
    def _add_minifloat(d: dict[str, Any], minifloat: Any, other: bool) -> None:
        name = d["name"]
        if other:
            raise Error(f"format '{name}': a small float takes the place of table, codebook, base3 and zero")
        try:
            exponent, mantissa = (int(n) for n in minifloat)
        except (TypeError, ValueError):
            raise Error(f"format '{name}': minifloat is (exponent bits, mantissa bits), not {minifloat}") from None
        if exponent < 1 or mantissa < 0 or not 2 <= 1 + exponent + mantissa <= 8:
            raise Error(f"format '{name}': a small float has 2 to 8 bits with its sign, not {1 + exponent + mantissa}")
        bias = (1 << (exponent - 1)) - 1
        highest = math.ldexp(2 - math.ldexp(1, -mantissa), (1 << exponent) - 1 - bias)
        d.update(values="minifloat", bits=1 + exponent + mantissa, exponent_bits=exponent, exponent_bias=bias)
        d["highest"] = {(4, 3): 448.0, (5, 2): 57344.0}.get((exponent, mantissa), highest)

    @staticmethod
    def _add_levels(d: dict[str, Any], sub_scale: Any, scale: str | None, minimum: str | None) -> None:
        name = d["name"]
        try:
            bits, groups = (int(n) for n in sub_scale)
        except (TypeError, ValueError):
            raise Error(f"format '{name}': sub_scale is (bits, groups), not {sub_scale}") from None
        if scale is None or not 1 <= bits <= 8 or groups < 1:
            raise Error(f"format '{name}': sub_scale needs a scale, 1 to 8 bits, and groups; it is {sub_scale}")
        d.update(
            block=d["group"] * groups, super_group=groups, super_plane=d["scale_plane"], scale_plane={"bits": bits}
        )
        if minimum is None and bits >= 6:
            d["sub_zero"] = 1 << (bits - 1)
        if minimum is not None:
            d.update(super_shift_plane=d["shift_plane"], shift_plane={"bits": bits})

    @classmethod
    def planar(cls, name: str, *, arrays: Mapping[str, Array], **description: Any) -> Format:
        """A format whose parts are separate arrays, as `edgequant.planar_formats` lists them.

        Args:
          name: its name.
          arrays: part of a weight ("code", "scale", "shift", "super", "super_shift") -> how it is stored.
          description: fields of the core's `Scheme` (cpp/format/scheme.h), such as group=32, bits=4, zeros="integer".
        """
        d = {"name": name, **description}
        for part, array in arrays.items():
            d[f"{part}_plane"] = dict(array.plane)
        return cls._of(d, {part: (a.name, a.dtype, a.shape) for part, a in arrays.items()})

    @classmethod
    def _of(cls, description: dict[str, Any], arrays: Mapping[str, Any]) -> Format:
        self = cls.__new__(cls)
        self._description = description
        self._arrays = {part: (str(a[0]), str(a[1]), str(a[2])) for part, a in arrays.items()}
        self.core  # noqa: B018
        return self

    @cached_property
    def core(self) -> Any:
        """The core's object. Private."""
        codec = self._description.get("codec")
        if codec is None:
            return _core.Scheme(self._description)
        from edgequant.planar_codecs import CODECS

        return CODECS[codec](self._description)

    @property
    def name(self) -> str:
        """Its name."""
        return str(self._description["name"])

    @property
    def description(self) -> dict[str, Any]:
        """The fields of the core's `Scheme` (cpp/format/scheme.h) that differ from its defaults."""
        return dict(self._description)

    @property
    def block(self) -> int:
        """Weights of a block: rows must be a multiple of it, where it is interleaved. 0: a whole row."""
        d = self._description
        return int(d["block"] if self.interleaved else d.get("group", 32))

    @property
    def group_rows(self) -> int:
        """Rows that share a scale; 0: all of them."""
        return int(self._description.get("group_rows", 1))

    @property
    def interleaved(self) -> bool:
        """True if all is in one array of blocks, False if codes and scales are arrays of their own."""
        return bool(self._description.get("interleaved", False))

    @property
    def learned(self) -> bool:
        """True if each tensor brings its own table or codebook."""
        return bool(self._description.get("learned", False))

    @property
    def follows_rule(self) -> bool:
        """True if effort "fast" is the rule of the ecosystem's own encoder."""
        return self._description.get("rule", "none") != "none"

    @property
    def bits_per_weight(self) -> float:
        """Bits of a weight with its share of scales and zeros; without what there is once per row or tensor."""
        d = self._description
        if "bits_per_weight" in d:
            return float(d["bits_per_weight"])
        group = d.get("group", 32) * max(d.get("group_rows", 1), 0)
        total = 0.0
        for part in PARTS:
            plane = d.get(f"{part}_plane")
            if plane is None:
                continue
            bits = 1.6 if plane.get("trits") else NUMBERS.get(plane.get("cell", ""), plane.get("bits", 0))
            if not plane.get("trits") and plane.get("slots"):
                bits = plane.get("word", 8) / plane["slots"]
            if part == "code":
                bits *= _digits(d)
                count = d.get("dim", 1)
            elif part.startswith("super"):
                count = group * d.get("super_group", 0)
            else:
                count = group
            entries = d.get("codes", 1 << d.get("bits", 4)) if part == "entries" else 1
            if count and self.interleaved:  # each part of a block is whole bytes
                total += math.ceil(entries * d["block"] / count * bits / 8 - 1e-9) * 8 / d["block"]
            elif count:
                total += entries * bits / count
        return total

    def describe(self) -> str:
        """Several lines of text: sizes, and the arrays of a planar format with their types and shapes."""
        block = f"{self.block} weights" if self.block else "a row or more"
        lines = [f"{self.name}: {self.bits_per_weight:g} bits per weight, scales for {block}"]
        if "transform" in self._description:
            t = self._description["transform"]
            lines.append(f"  a Hadamard transform of {t['block'] or 'all'} columns, with signs of seed {t['seed']}")
        for part, (name, dtype, dims) in self._arrays.items():
            plane = self._description.get(f"{part}_plane", {})
            what = plane.get("cell") or (f"{plane['bits']} bits in {dtype}" if plane.get("bits") else dtype)
            lines.append(f"  {part:12} {name}: {what}{f', ({dims})' if dims else ''}")
        return "\n".join(lines)

    @property
    def array_names(self) -> dict[str, str]:
        """Part ("code", "scale", ...) -> name of its array, of a planar format."""
        return {part: name for part, (name, _, _) in self._arrays.items()}

    def to_json(self) -> str:
        """The whole description, from which `from_json` makes an equal format."""
        return json.dumps({"format": self._description, "arrays": self._arrays}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Format:
        """The format of such a description; Error if it is not one."""
        try:
            d = json.loads(text)
            return cls._of(dict(d["format"]), dict(d["arrays"]))
        except Error:
            raise
        except (TypeError, ValueError, KeyError, IndexError, AttributeError) as e:
            raise Error(f"this is not the description of a format: {e}") from None

    def __eq__(self, other: object) -> bool:
        return self.to_json() == other.to_json() if isinstance(other, Format) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.to_json())

    def __reduce__(self) -> tuple[Any, ...]:
        return Format.from_json, (self.to_json(),)

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        kind = f"blocks of {self.block}" if self.interleaved else ", ".join(self.array_names.values())
        return f"<Format {self.name}: {kind}, {self.bits_per_weight:.4g} bits per weight>"

    # ---- arrays

    def named_arrays(self, words: Mapping[str, np.ndarray], shape: tuple[int, ...]) -> dict[str, np.ndarray]:
        """The core's words as the ecosystem's arrays: its names, types and shapes."""
        out = {}
        for part, array in words.items():
            part = "code" if part == "codes" else part
            name, dtype, dims = self._arrays.get(part, (part, "", ""))
            if part == "code" and self.interleaved:
                name = "data"
            out[name] = _shaped(array.view(dtype) if dtype else array, dims, shape, self._description)
        return out

    def core_arrays(self, planes: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The other way round: by the core's names, contiguous. Error for arrays that are missing or unknown."""
        parts = {name: part for part, (name, _, _) in self._arrays.items()}
        if self.interleaved:
            parts["data"] = "code"
        if self.learned:
            parts["table"] = "table"
        if set(planes) != set(parts):
            raise Error(
                f"format '{self.name}' has the arrays {', '.join(sorted(parts))}, not {', '.join(sorted(planes))}"
            )
        return {
            "codes" if parts[n] == "code" else parts[n]: np.ascontiguousarray(a, np.float32 if n == "table" else None)
            for n, a in planes.items()
        }


class Array:
    """How a part of a planar format is stored: the array's name, NumPy type and shape, and its plane.

    Args:
      name: in the ecosystem, such as "scales".
      dtype: NumPy's name of its type, such as "uint32"; of numbers, their type: "f16".
      shape: its shape in N (rows), K (columns), G (groups of a row) and -1, such as "N G -1"; default: as words lie.
      plane: fields of the core's `Plane` (cpp/format/scheme.h), such as bits=4, word=32.
    """

    def __init__(self, name: str, dtype: str, shape: str = "", **plane: Any) -> None:
        self.name, self.shape, self.plane = name, shape, plane
        if dtype in NUMBERS:
            self.plane = {"cell": dtype, **plane}
        self.dtype = {"f32": "float32", "f16": "float16", "bf16": "uint16", "e8m0": "uint8", "e4m3": "uint8"}.get(
            dtype, dtype
        )
        if dtype not in NUMBERS:
            self.plane.setdefault("word", np.dtype(dtype).itemsize * 8)


def _digits(d: Mapping[str, Any]) -> int:
    """Integers that a code consists of: two if it has more than 8 bits."""
    return 2 if d.get("bits", 4) > 8 else 1


def _transform(name: str, what: Any) -> dict[str, Any]:
    parts = (what,) if isinstance(what, str) else what if isinstance(what, tuple) else ()
    numbers = parts[1:]
    if parts[:1] != ("hadamard",) or len(numbers) > 2 or not all(isinstance(n, int) and n >= 0 for n in numbers):
        raise Error(f"format '{name}': a transform is 'hadamard' or ('hadamard', columns, seed), not {what!r}")
    return {"kind": "hadamard", **dict(zip(("block", "seed"), (*numbers, *(0, 1)[len(numbers) :]), strict=True))}


def _whole(name: str, what: str, value: Any) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise Error(f"format '{name}': {what} is a whole number, not {value!r}") from None


def _numbers(name: str, table: Any) -> list[float]:
    try:
        return [float(v) for v in np.asarray(table, np.float64).reshape(-1)]
    except (TypeError, ValueError):
        raise Error(f"format '{name}': the table is a list of numbers or 'learned', not {table!r}") from None


def _number(name: str, kind: str) -> str:
    if kind not in NUMBERS:
        raise Error(f"format '{name}': numbers are {', '.join(NUMBERS)}; there is no '{kind}'")
    return kind


def _shaped(a: np.ndarray, dims: str, shape: tuple[int, ...], d: Mapping[str, Any]) -> np.ndarray:
    if not dims:
        return a
    k = shape[-1]
    group = d.get("group", 32) or k
    sizes = {"N": math.prod(shape[:-1]), "K": k, "G": -(-k // group)}
    try:
        return a.reshape([sizes[n] if n in sizes else int(n) for n in dims.split()])
    except ValueError:
        raise Error(f"format '{d['name']}': {a.size} words do not have the shape {dims} for weights {shape}") from None
