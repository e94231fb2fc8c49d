"""The catalogue of weight formats, derived from the descriptions that the C++ decoder is compiled from.

`formats` maps names to `BlockFormat`; `lookup` accepts any case and says which names are near when there is no such
format.

Example:
  >>> from edgequant.formats import formats, lookup
  >>> formats["q4_k"].bits_per_weight
  4.5
  >>> lookup("Q4_K") is formats["q4_k"]
  True
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any

from edgequant import _core
from edgequant._core import Error

__all__ = ["BlockFormat", "Error", "FormatCatalogue", "formats", "lookup"]

FieldDict = Mapping[str, Any]


@dataclass(frozen=True, eq=False, repr=False)
class BlockFormat:
    """One block format: `block` weights in `bytes` bytes.

    Attributes:
      name: its name, lower case, such as "q4_k".
      block: weights of one block; rows must be a multiple of it.
      bytes: bytes of one block.
      bits_per_weight: 8 * bytes / block.
      gguf_type: its number in GGUF files, or None.
      codes: the bit fields that, OR-ed together, make the code of a weight (or of a group of weights).
      map: what a code stands for: {"kind": "affine" | "table" | "grid", ...}.
      scale, offset: a weight is value * scale + offset; None where there is no offset.
    """

    name: str
    block: int
    bytes: int
    bits_per_weight: float
    gguf_type: int | None
    codes: tuple[FieldDict, ...] = field(default=())
    map: FieldDict = field(default_factory=dict)
    scale: FieldDict = field(default_factory=dict)
    offset: FieldDict | None = None

    def __repr__(self) -> str:
        gguf = "" if self.gguf_type is None else f", GGUF type {self.gguf_type}"
        return f"<Format {self.name}: {self._sizes()}{gguf}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return lookup, (self.name,)

    def row_bytes(self, cols: int) -> int:
        """Bytes of one row of `cols` weights; Error if they are not a multiple of the block."""
        return int(_core.row_bytes(self.name, cols))

    def describe(self) -> str:
        """Several lines of text: sizes, the formula, the bytes of a block and every field."""
        gguf = "" if self.gguf_type is None else f" (type {self.gguf_type} in GGUF files)"
        lines = [
            f"{self.name}{gguf}: {self._sizes()}",
            f"  weight   {self._formula()}",
            f"  bytes    {self._byte_picture()}",
        ]
        lines += [f"  code     {_field_text(f)}" for f in self.codes]
        lines += [f"  value    {line}" for line in self._value_lines()]
        lines += [f"  scale    {line}" for line in _level_lines(self.scale)]
        if self.offset is not None:
            lines += [f"  offset   {line}" for line in _level_lines(self.offset)]
        return "\n".join(lines)

    def _sizes(self) -> str:
        weights = "1 weight" if self.block == 1 else f"{self.block} weights"
        return f"{weights} in {self.bytes} bytes, {self.bits_per_weight:g} bits per weight"

    def _formula(self) -> str:
        if not self.codes:
            return f"the {self.scale['type']} number itself"
        return "value(code) * scale" + ("" if self.offset is None else " + offset")

    def _value_lines(self) -> list[str]:
        m = self.map
        if not self.codes:
            return []
        if m["kind"] == "affine":
            return [f"code - {m['zero']}" if m["zero"] else "code"]
        if m["kind"] == "table":
            return ["table: " + " ".join(f"{v:g}" for v in m["values"])]
        lines = [f"grid: {m['rows']} rows of {m['dim']} weights, each one of {' '.join(map(str, m['levels']))}"]
        if m["signs"] is not None:
            parity = "; the 8th makes the number of minuses even" if m["signs"]["bits"] == 7 else ""
            lines.append(f"signs of 8 weights: {_field_text(m['signs'])}{parity}")
        if m["shift"]:
            lines.append(f"8 weights move by +-{m['shift']:g}, down where set: {_field_text(m['shift_sign'])}")
        return lines

    def _byte_picture(self) -> str:
        """What each byte holds, as ranges, found by walking through all elements of all fields."""
        holds: list[list[str]] = [[] for _ in range(self.bytes)]

        def mark(first_bit: int, bits: int, what: str) -> None:
            for byte in range(first_bit // 8, (first_bit + bits - 1) // 8 + 1):
                if what not in holds[byte]:
                    holds[byte].append(what)

        def mark_field(f: FieldDict, count: int, what: str) -> None:
            for i in range(f["begin"], count if f["end"] is None else min(count, f["end"])):
                mark(first_bit(f, i), f["bits"], what)

        for name, level in (("scale", self.scale), ("offset", self.offset)):
            if level is None:
                continue
            size = _NUMBER_BYTES[level["type"]]
            if level["pieces"] is None:
                for k in range(self.block // level["group"] if level["group"] else 1):
                    mark((level["byte"] + k * size) * 8, size * 8, f"{name} {level['type']}")
            else:
                mark_field(level["pieces"], size * 8 // level["pieces"]["bits"], f"{name} {level['type']} in pieces")
            for f in level["sub"]:
                mark_field(f, self.block // level["sub_group"], f"sub-{name}s")
        for f in self.codes:
            mark_field(f, self.block // self.map.get("dim", 1), "codes")
        for name in ("signs", "shift_sign"):
            if self.map.get(name) is not None:
                mark_field(self.map[name], self.block // 8, name.replace("_", " "))

        ranges: list[tuple[int, int, str]] = []
        for byte, names in enumerate(holds):
            what = " and ".join(names) or "unused"
            if ranges and ranges[-1][2] == what:
                ranges[-1] = (ranges[-1][0], byte, what)
            else:
                ranges.append((byte, byte, what))
        if len(ranges) > 8:  # alternating parts: say where they begin
            ranges = ranges[:4]
            tail = " | ..."
        else:
            tail = ""
        return " | ".join(f"{a}: {what}" if a == b else f"{a}-{b}: {what}" for a, b, what in ranges) + tail

    @cached_property
    def code_bits(self) -> int:
        """Bits of one code (which a grid format has per group of weights); 0 for plain numbers."""
        return max((f["up"] + f["bits"] for f in self.codes), default=0)


_NUMBER_BYTES = {"f32": 4, "f16": 2, "bf16": 2, "e8m0": 1, "e8m0/2": 1, "ue4m3": 1}


def first_bit(f: FieldDict, i: int) -> int:
    """The first bit of element i of a field, counted from the start of the block."""
    i -= f["begin"]
    lane, slot, chunk = i % f["lanes"], i // f["lanes"] % f["slots"], i // (f["lanes"] * f["slots"])
    return int(f["start_bit"] + lane * f["lane_step"] + slot * f["slot_step"] + chunk * f["chunk_step"])


def _field_text(f: FieldDict, of: str = "code") -> str:
    if f["kind"] == "trits":
        return (
            f"base-3 digits, {f['slots']} per byte from byte {f['start_bit'] // 8}, {f['lanes']} weights per digit; "
            f"weights {f['begin']} to {f['end'] - 1}"
        )
    text = f"{f['bits']} bit{'s' if f['bits'] > 1 else ''}{' signed' if f['signed'] else ''} from bit {f['start_bit']}"
    for count, step in ((f["lanes"], f["lane_step"]), (f["slots"], f["slot_step"])):
        if count > 1:
            text += f", {count} of them {step} apart" if step else f", the same for {count}"
    if f["chunk_step"]:
        text += f", {'then ' if f['lanes'] * f['slots'] > 1 else ''}every {f['chunk_step']}"
    return text + (f" -> {of} bit {f['up']} and up" if f["up"] else "")


def _level_lines(level: FieldDict) -> list[str]:
    every = f" per {level['group']} weights" if level["group"] else ""
    place = f"at byte {level['byte']}" if level["pieces"] is None else f"in pieces: {_field_text(level['pieces'])}"
    factor = "" if level["factor"] == 1 else f"{level['factor']:g} times "
    lines = [f"{factor}{level['type']}{every} {place}"]
    if level["sub_group"]:
        zero = level["sub_zero"]
        integer = f"(integer {'-' if zero > 0 else '+'} {abs(zero):g})" if zero else "an integer"
        lines[0] += f", times {integer} per {level['sub_group']} weights"
        lines += [f"integer: {_field_text(f, 'integer')}" for f in level["sub"]]
    return lines


def _freeze(value: Any) -> Any:
    if isinstance(value, dict):
        return MappingProxyType({k: _freeze(v) for k, v in value.items()})
    return tuple(_freeze(v) for v in value) if isinstance(value, list) else value


class FormatCatalogue(Mapping[str, BlockFormat]):
    """All formats by name, read-only, in the order of their definition."""

    def __init__(self, entries: list[dict[str, Any]]) -> None:
        self._formats = {e["name"]: BlockFormat(**{k: _freeze(v) for k, v in e.items()}) for e in entries}

    def __getitem__(self, name: str) -> BlockFormat:
        return self._formats[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._formats)

    def __len__(self) -> int:
        return len(self._formats)

    def __repr__(self) -> str:
        return f"<edgequant.formats: {', '.join(self._formats)}>"

    def _ipython_key_completions_(self) -> list[str]:
        return list(self._formats)


formats = FormatCatalogue(_core.formats())


def lookup(name: str | BlockFormat) -> BlockFormat:
    """The format of that name, in upper or lower case.

    Args:
      name: such as "q4_k" or "Q4_K"; a BlockFormat is returned as it is.

    Returns:
      The entry of the catalogue.

    Raises:
      Error: there is no such format; the message lists the nearest names.

    Example:
      >>> lookup("Q8_0").bytes
      34
    """
    if isinstance(name, BlockFormat):
        return name
    key = str(name).strip().lower()
    if key in formats:
        return formats[key]
    import difflib

    near = difflib.get_close_matches(key, formats, n=4, cutoff=0.5)
    hint = f"did you mean {', '.join(near)}?" if near else f"there are {', '.join(formats)}"
    raise Error(f"there is no format named '{name}'; {hint}")
