"""Formats as formulas, so that two descriptions tell whether one format holds all values of another."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from edgequant import _core
from edgequant.formats import BlockFormat
from edgequant.scheme import Format

# Numbers that each type holds all of; products (of a scale and an integer), and inverses, fit f32 only.
HOLDS = {
    "f32": {"f32", "f16", "bf16", "e8m0", "e4m3", "ue4m3", "product"}, "f16": {"f16", "e4m3", "ue4m3"},
    "bf16": {"bf16", "e8m0", "e4m3", "ue4m3"}, "e8m0": {"e8m0"}, "e4m3": {"e4m3"}, "ue4m3": {"ue4m3"}, "product": set(),
}  # fmt: skip


@dataclass(frozen=True)
class Float:
    """A type of numbers: bits of a significand, the smallest number above 0, and the largest."""

    bits: int
    smallest: float
    largest: float


FLOATS = {
    "f16": Float(11, 2.0**-24, 65504), "bf16": Float(8, 2.0**-133, (2 - 2.0**-7) * 2.0**127),
    "e8m0": Float(1, 2.0**-127, 2.0**127), "e4m3": Float(4, 2.0**-9, 448),
    "ue4m3": Float(4, 2.0**-9, 480), "": Float(1, 1, 1),
}  # fmt: skip
MINIFLOAT = ("values", "bits", "exponent_bits", "exponent_bias", "highest")  # what a description says of its codes
ANY = math.inf  # the largest zero point, where it may be any number


@dataclass(frozen=True)
class Algebra:
    """A format as weight = (value(code) - zero) * scale + minimum, in groups along a row, or of several rows."""

    values: tuple[float, ...]
    group: int  # 0: a row
    scale: str | None  # None: 1
    scale_bits: int = 24  # of its significand
    rows: int = 1  # that share a scale; 0: all
    scale_factor: float = 1
    zero: float | None = None  # the largest zero point
    zero_type: str | None = None  # of zero points that are not whole
    minimum: str | None = None
    minimum_factor: float = 1
    levels: int = 1
    transform: tuple[Any, ...] = ()  # what rows go through before that
    written: bool = True  # from codes and scales; else it is only a source
    target_scale: str | None = None  # of two levels as a target: the tensor's own scale is 1


@dataclass(frozen=True)
class Way:
    """codes[code of a] is the code of b; the scale of b is that of a over `by`; `shift` is what b subtracts from
    values: its zero point, or, times the scale, its minimum. rounds: the results differ in their rounding to float32,
    since b multiplies and adds where a only multiplies."""

    codes: tuple[int, ...]
    by: float
    shift: float
    exact: bool
    rounds: bool = False


def algebra(f: BlockFormat | Format) -> Algebra | None:
    """None for formats whose codes do not stand for one weight each, or whose tables are each tensor's own."""
    return _of_scheme(f) if isinstance(f, Format) else _of_block(f)


def _of_block(f: BlockFormat) -> Algebra | None:
    if not f.codes:
        return None
    if f.map["kind"] == "grid":
        values = _grid_values(f)
    elif f.map["kind"] == "table":
        values = tuple(f.map["values"])
    else:
        bits = max(2 if c["kind"] == "trits" else c["up"] + c["bits"] for c in f.codes)
        trits = any(c["kind"] == "trits" for c in f.codes)
        raw = np.arange(3 if trits else 1 << bits)
        if f.codes[0]["signed"]:
            raw = np.where(raw >> (bits - 1), raw - (1 << bits), raw)
        values = tuple(float(v) for v in raw - f.map["zero"])
    level = 2 if f.scale["sub_group"] else 1
    kind = "product" if level == 2 else f.scale["type"].removesuffix("/2")
    group = f.scale["sub_group"] or f.scale["group"] or f.block
    factor = f.scale["factor"] * (0.5 if f.scale["type"] == "e8m0/2" else 1)
    sub_scales = np.arange(1 << sum(c["bits"] for c in f.scale["sub"])) - f.scale["sub_zero"] if level == 2 else [1]
    return Algebra(
        values, group, kind,
        scale_bits=FLOATS[f.scale["type"].removesuffix("/2")].bits + max(_bits_of(s) for s in sub_scales),
        scale_factor=1 if level == 2 else factor,
        minimum=None if f.offset is None else "product" if level == 2 else f.offset["type"],
        minimum_factor=1 if f.offset is None else f.offset["factor"],
        levels=level, written=f.map["kind"] != "grid",
    )  # fmt: skip


def _grid_values(f: BlockFormat) -> tuple[float, ...]:
    """What single weights of a grid's rows may be, signs and shifts included, in ascending order."""
    levels, shift = f.map["levels"], f.map["shift"]
    if f.map["signs"] is not None:
        levels = [s * v for v in levels for s in (-1, 1)]
    return tuple(sorted({float(v + s) for v in levels for s in (-shift, shift)}))


def _of_scheme(f: Format) -> Algebra | None:
    d = f.description
    kind = d.get("values", "affine")
    if d.get("learned") or kind in ("codebook", "group_table") or d.get("codec") not in (None, "tiles"):
        return None
    values = _values(f, kind)
    two = "super_plane" in d and "scale_plane" in d
    over_one = two and d.get("super_group") == 0 and "cell" in d["scale_plane"]
    inverse = d.get("divides", False)
    scale = None
    if "scale_plane" in d or inverse:
        scale = "product" if two else "f32" if inverse else d["scale_plane"]["cell"]
    zeros = d.get("zeros", "none")
    zero = {"integer": (1 << d.get("shift_plane", {}).get("bits", 0)) - 1, "float": ANY}.get(zeros)
    return Algebra(
        values, d.get("group", 32), scale,
        scale_bits=_bits_of_type(scale),
        rows=d.get("group_rows", 1),
        zero=zero, zero_type=d["shift_plane"]["cell"] if zero == ANY else None,
        minimum=("product" if two else d["shift_plane"]["cell"]) if zeros == "minimum" else None,
        levels=2 if two else 1,
        transform=tuple(sorted(d.get("transform", {}).items())),
        target_scale=d["scale_plane"]["cell"] if over_one else None,
        written=over_one or not (two or inverse),
    )  # fmt: skip


def _bits_of_type(kind: str | None) -> int:
    return FLOATS[kind or ""].bits if (kind or "") in FLOATS else 24


def _bits_of(factor: float) -> int:
    """How many bits longer a factor makes a significand: those of its own, but none for 0 and powers of two."""
    whole = int(math.frexp(abs(factor))[0] * 2**53)
    return (whole // ((whole & -whole) or 1)).bit_length() if whole & (whole - 1) else 0


def _values(f: Format, kind: str) -> tuple[float, ...]:
    d = f.description
    if "table" in d:
        return tuple(d["table"])
    codes = np.arange(d.get("codes", 1 << d["bits"]))
    if kind != "minifloat":
        return tuple((codes - d.get("zero", 0.0)).tolist())
    plane = {"code_plane": {"bits": d["bits"], "word": 8}, "scale_plane": {"cell": "f32"}}
    core = _core.Scheme({"name": f.name, "group": 0, **{k: d[k] for k in MINIFLOAT if k in d}, **plane})
    one: dict[str, np.ndarray] = {"codes": codes.astype(np.uint8), "scale": np.ones(1, np.float32)}
    return tuple(core.dequantize(one, 1, codes.size)[0].tolist())


def find_way(a: Algebra, b: Algebra, all_codes: bool = True) -> Way | None:
    """How every value of a is one of b; None if there is no way. Not all_codes: how most are; codes of a that have no
    counterpart are -1."""
    if b.target_scale:
        b = replace(b, scale=b.target_scale, levels=1)
    if not b.written or a.transform != b.transform or b.levels > 1 or b.rows not in (1, a.rows):
        return None
    if a.group and (not b.group or a.group % b.group):
        return None
    if (a.minimum and not b.minimum) or (a.zero is not None and b.zero is None and b.minimum is None):
        return None
    where = {_key(v): c for c, v in reversed(list(enumerate(b.values)))}
    ways = []
    for by in _factors(a, b):
        for shift in _shifts(a, b, by):
            codes = tuple(where.get(_key(v * by + shift), -1) for v in a.values)
            rounds = _rounds(a, b, by, shift)
            if not rounds or b.scale == b.minimum == "f32":
                way = Way(codes, by, shift, _numbers_fit(a, b, by, shift) and not rounds, rounds)
                if -1 not in codes:
                    return way
                ways.append(way)
    return None if all_codes or not ways else min(ways, key=lambda w: w.codes.count(-1))


def _factors(a: Algebra, b: Algebra) -> list[float]:
    """What scales may be divided by: powers of two, and -1, where the target's have a sign."""
    if b.scale is None or a.scale is None:
        return [1.0]
    powers = [2.0**k for k in (0, 1, 2, -1, -2, 3, -3)]
    return powers + [-p for p in powers] if b.scale in ("f32", "f16", "bf16") else powers


def _key(value: float) -> float | None:
    return None if math.isnan(value) else value


def _rounds(a: Algebra, b: Algebra, by: float, shift: float) -> bool:
    """Whether code * scale + minimum takes the place of (code - zero) * scale where these are no exact numbers: both
    are rounded, but to different ones. A minimum of 0 changes nothing."""
    if not b.minimum or a.minimum or (shift == 0 and a.zero is None):
        return False
    values = [v for v in a.values if math.isfinite(v)]
    if a.zero is not None:
        return a.zero == ANY or a.scale_bits + int(max(map(abs, values)) + a.zero).bit_length() > 24
    numbers = {shift, *(v * by for v in values), *(v * by + shift for v in values)}
    return any(a.scale_bits + _bits_of(n) > 24 for n in numbers)


def _shifts(a: Algebra, b: Algebra, by: float) -> list[float]:
    if a.minimum:
        return [0.0]
    if a.zero is not None:
        return [0.0] if b.minimum or (by == 1 and (b.zero or 0) >= a.zero) else []
    middle = min(filter(math.isfinite, b.values)) - min(filter(math.isfinite, a.values)) * by
    if b.minimum:
        return [0.0, middle]
    if b.zero is not None:
        part = 0.5 if b.zero == ANY else 1
        return [middle] if 0 <= middle <= b.zero and middle % part == 0 else []
    return [0.0]


def _numbers_fit(a: Algebra, b: Algebra, by: float, shift: float) -> bool:
    if b.scale is None:
        return a.scale is None
    scale = a.scale or "e8m0"
    fits = scale in HOLDS[b.scale] and (b.scale == "f32" or a.scale_factor == abs(by) * b.scale_factor)
    if b.zero == ANY:  # whole numbers and halves below 2^8 need nine bits
        fits = fits and b.zero_type in ("f32", "f16") and (a.zero_type or "f16") in HOLDS[b.zero_type]
    if not b.minimum:
        return fits
    if a.minimum:
        same = b.minimum == "f32" or a.minimum_factor == b.minimum_factor
        return fits and same and a.minimum in HOLDS[b.minimum]
    return fits and (b.minimum == "f32" or (shift == 0 and a.zero is None))


def loss_as_numbers(a: Algebra, kind: str) -> Literal["exact", "widened", "lossy"]:
    """Whether f16 or bf16 holds value * scale for all values and scales of a; "widened": but for its range."""
    scale, to = FLOATS.get(a.scale or ""), FLOATS[kind]
    if scale is None or a.minimum or a.zero_type or a.transform:
        return "lossy"
    zeros = range(int(a.zero or 0) + 1)
    values = {abs(v - z) for v in a.values for z in zeros if math.isfinite(v) and v != z}
    # A power of two and a number of n bits: n bits.
    if any((max(_bits_of(v), 1) if scale.bits == 1 else scale.bits + _bits_of(v)) > to.bits for v in values):
        return "lossy"
    lowest = min(math.ldexp(1, _lowest_bit(v)) for v in values) * scale.smallest * a.scale_factor
    fits = lowest >= to.smallest and max(values) * scale.largest * a.scale_factor <= to.largest
    return "exact" if fits else "widened"


def _lowest_bit(v: float) -> int:
    """The power of two of the last 1 bit of a number."""
    mantissa, exponent = math.frexp(v)
    whole = int(mantissa * 2**53)
    return (whole & -whole).bit_length() - 1 + exponent - 53
