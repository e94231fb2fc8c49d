"""From one format to another without a search: what two descriptions say about the loss, and the conversion itself.

Example:
  >>> edgequant.transcode_loss("q4_0", "onnx.nbits4.g32")
  TranscodeLoss(kind='exact', db=None)
  >>> edgequant.quantize(np.eye(32, dtype="float32"), "q4_0").to("onnx.nbits4.g32")
  SchemeTensor(onnx.nbits4.g32, shape=(32, 32), 5 bits per weight)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np

from edgequant._core import Error
from edgequant.arrays import split_shape
from edgequant.block_parts import read_codes, read_level, read_numbers
from edgequant.formats import BlockFormat, first_bit, lookup
from edgequant.planar import find_scheme
from edgequant.scheme import Format
from edgequant.scheme_tensor import SchemeTensor
from edgequant.tensor import QuantizedTensor, check_rows

# Numbers that each type holds all of; products (of a scale and an integer) fit f32 only.
HOLDS = {
    "f32": {"f32", "f16", "bf16", "e8m0", "e4m3", "product"}, "f16": {"f16", "e4m3"}, "bf16": {"bf16", "e8m0", "e4m3"},
    "e8m0": {"e8m0"}, "e4m3": {"e4m3"}, "product": set(),
}  # fmt: skip


# What the printed table shows: formats that hold one another's values, or nearly.
SHOWN = [
    "q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_0", "tq2_0", "q4_k", "q5_k", "q6_k", "iq4_nl", "mxfp4",
    "mlx.affine4.g32", "mlx.affine4.g32.f32", "mlx.affine8.g32", "onnx.nbits4.g32", "onnx.nbits4.g32.zp",
    "onnx.nbits4.g128.zp", "onnx.nbits8.g32", "gptq.int4.g128", "awq.int4.g128",
]  # fmt: skip


@dataclass(frozen=True)
class TranscodeLoss:
    """What is lost on the way from one format to another.

    Attributes:
      kind: "exact": every matrix keeps its very values. "widened": it would, if the target's scales (or minima) were
        float32; with those that it has it depends on the numbers. "lossy": values change.
      db: of lossy ways, the signal to noise ratio on normal weights, from the decoded source to the decoded target.
    """

    kind: Literal["exact", "widened", "lossy"]
    db: float | None = None

    def __str__(self) -> str:
        return self.kind if self.db is None else f"lossy, {self.db:.1f} dB"


@dataclass(frozen=True)
class Algebra:
    """A format as weight = (value(code) - zero) * scale + minimum, in groups along a row."""

    values: tuple[float, ...]
    group: int  # 0: a row
    scale: str | None  # None: 1
    scale_factor: float = 1
    zero: int | None = None  # the largest zero point
    minimum: str | None = None
    minimum_factor: float = 1
    levels: int = 1
    transform: tuple[Any, ...] = ()  # what rows go through before that

    @property
    def whole(self) -> bool:
        return all(b - a == 1 for a, b in zip(self.values, self.values[1:], strict=False))


def _of_block(f: BlockFormat) -> Algebra | None:
    if not f.codes or f.map["kind"] == "grid" or f.scale["pieces"] is not None:
        return None
    if f.map["kind"] == "table":
        values = tuple(f.map["values"])
    else:
        bits = max(2 if c["kind"] == "trits" else c["up"] + c["bits"] for c in f.codes)
        trits = any(c["kind"] == "trits" for c in f.codes)
        raw = np.arange(3 if trits else 1 << bits)
        if f.codes[0]["signed"]:
            raw = np.where(raw >> (bits - 1), raw - (1 << bits), raw)
        values = tuple(float(v) for v in raw - f.map["zero"])
    names = {"ue4m3": "e4m3", "e8m0/2": "e8m0"}
    level = 2 if f.scale["sub_group"] else 1
    kind = "product" if level == 2 else names.get(f.scale["type"], f.scale["type"])
    group = f.scale["sub_group"] or f.scale["group"] or f.block
    factor = f.scale["factor"] * (0.5 if f.scale["type"] == "e8m0/2" else 1)
    minimum = None if f.offset is None else "product" if level == 2 else f.offset["type"]
    offset_factor = 1 if f.offset is None else f.offset["factor"]
    return Algebra(values, group, kind, 1 if level == 2 else factor, None, minimum, offset_factor, level)


def _of_scheme(f: Format) -> Algebra | None:
    d = f.description
    if d.get("codec") or d.get("learned") or d.get("values", "affine") in ("codebook", "group_table", "minifloat"):
        return None
    if d.get("group_rows", 1) != 1 or ("super_plane" in d and "scale_plane" not in d):
        return None
    codes = d.get("codes", 1 << d["bits"])
    values = tuple(d["table"]) if "table" in d else tuple(c - d.get("zero", 0.0) for c in range(codes))
    two = "super_plane" in d
    scale = "product" if two else d["scale_plane"]["cell"] if "scale_plane" in d else None
    zeros = d.get("zeros", "none")
    if zeros == "float":
        return None
    zero = (1 << d["shift_plane"]["bits"]) - 1 if zeros == "integer" else None
    minimum = ("product" if two else d["shift_plane"]["cell"]) if zeros == "minimum" else None
    transform = tuple(sorted(d.get("transform", {}).items()))
    return Algebra(values, d.get("group", 32), scale, 1, zero, minimum, 1, 2 if two else 1, transform)


def _algebra(f: BlockFormat | Format) -> Algebra | None:
    return _of_scheme(f) if isinstance(f, Format) else _of_block(f)


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


def _way(a: Algebra, b: Algebra) -> Way | None:
    """How every value of a is one of b; None if there is no way."""
    if a.transform != b.transform or b.levels > 1 or ((b.group == 0) != (a.group == 0) and b.group == 0):
        return None
    if a.group and b.group and a.group % b.group:
        return None
    if (a.minimum and not b.minimum) or (a.zero is not None and b.zero is None and b.minimum is None):
        return None
    where = {v: c for c, v in reversed(list(enumerate(b.values)))}
    powers = [2.0**k for k in (0, 1, 2, -1, -2, 3, -3)] if b.scale is not None and a.scale is not None else [1.0]
    for by in powers:
        for shift in _shifts(a, b, by):
            try:
                codes = tuple(where[v * by + shift] for v in a.values)
            except KeyError:
                continue
            rounds = _rounds(a, b, shift)
            if not rounds or b.scale == b.minimum == "f32":
                return Way(codes, by, shift, _numbers_fit(a, b, by, shift) and not rounds, rounds)
    return None


def _rounds(a: Algebra, b: Algebra, shift: float) -> bool:
    """Whether code * scale + minimum takes the place of (code - zero) * scale with a scale of many bits: both are
    rounded, but to different numbers. A minimum of 0 changes nothing."""
    return bool(b.minimum and not a.minimum and a.scale in ("f32", "product") and (shift != 0 or a.zero is not None))


def _shifts(a: Algebra, b: Algebra, by: float) -> list[float]:
    if a.minimum:
        return [0.0]
    if a.zero is not None:
        return [0.0] if b.minimum or (by == 1 and (b.zero or 0) >= a.zero) else []
    if b.minimum:
        return [0.0, min(b.values) - min(a.values) * by]
    if b.zero is not None:
        middle = -min(a.values) * by
        return [middle] if 0 <= middle <= b.zero and middle == int(middle) else []
    return [0.0]


def _numbers_fit(a: Algebra, b: Algebra, by: float, shift: float) -> bool:
    if b.scale is None:
        return a.scale is None
    scale = a.scale or "e8m0"
    fits = scale in HOLDS[b.scale] and (b.scale == "f32" or a.scale_factor == by * b.scale_factor)
    if not b.minimum:
        return fits
    if a.minimum:
        same = b.minimum == "f32" or a.minimum_factor == b.minimum_factor
        return fits and same and a.minimum in HOLDS[b.minimum]
    return fits and (b.minimum == "f32" or (shift == 0 and a.zero is None))


def _find(format: Any) -> BlockFormat | Format:
    return find_scheme(format) or lookup(format)


def transcode_loss(a: Any, b: Any) -> TranscodeLoss:
    """What the way from format a to format b loses, by their descriptions.

    Args:
      a, b: names of formats, in `edgequant.formats` or `edgequant.planar_formats`, or Formats.

    Returns: TranscodeLoss. Only formats whose codes stand for one weight each, and whose scales belong to groups of a
      row, are compared by description; all others are lossy (but to float32, and to themselves).

    Raises Error for unknown formats.
    """
    return _loss(_find(a), _find(b))


@cache
def _loss(a: BlockFormat | Format, b: BlockFormat | Format) -> TranscodeLoss:
    if a == b or b.name == "f32" or (a.name, b.name) == ("f16", "f32"):
        return TranscodeLoss("exact")
    x, y = _algebra(a), _algebra(b)
    way = _way(x, y) if x and y else None
    if way is not None and not way.rounds:
        return TranscodeLoss("exact" if way.exact else "widened")
    return TranscodeLoss("lossy", _measure(a, b))


def _measure(a: BlockFormat | Format, b: BlockFormat | Format) -> float:
    from edgequant.quantize import quantize

    w = np.random.default_rng(0).standard_normal((64, 1024)).astype(np.float32)
    try:
        q = quantize(w, a)
        return float(transcode(q, b, lossy=True).compare(q).sqnr_db)
    except Error:  # one of them cannot be written
        return float("nan")


def transcode(q: QuantizedTensor, format: Any, lossy: bool = False) -> QuantizedTensor:
    """The same weights in another format; see `QuantizedTensor.to`."""
    from edgequant.quantize import quantize

    source = q.scheme if isinstance(q, SchemeTensor) else lookup(q.format)
    target = _find(format)
    if source == target:
        return q
    a, b = _algebra(source), _algebra(target)
    way = _way(a, b) if a and b else None
    if way is not None and a and b:
        found = _convert(q, a, target, b, way)
        if (lossy and way.rounds) or np.array_equal(found.dequantize(), q.dequantize()):
            return found
    if target.name == "f32":
        return quantize(q, "f32")
    if lossy:
        return quantize(q, target)
    loss = transcode_loss(source, target)
    why = "these scales need a wider type than it has" if loss.kind == "widened" else f"{loss} on normal weights"
    raise Error(f"{source.name} to {target.name} would change the weights ({why}); lossy=True does it all the same")


def _convert(q: QuantizedTensor, a: Algebra, target: BlockFormat | Format, b: Algebra, way: Way) -> QuantizedTensor:
    codes, scale, shift = _read(q, a)
    cols = q.shape[-1]
    if not isinstance(target, Format):
        check_rows(target.name, q.shape)
    groups = (np.arange(0, cols, b.group) // (a.group or cols)) if b.group else np.zeros(1, np.int64)
    table = np.zeros(256, np.uint8)
    table[: len(way.codes)] = way.codes
    unit = np.float32(way.by)
    new_scale = (scale / unit)[:, groups]
    if b.minimum:
        minimum = shift if a.minimum else -(shift if a.zero is not None else np.float32(0)) * scale
        new_shift = (minimum - np.float32(way.shift) * (scale / unit))[:, groups]
    else:
        new_shift = (shift if a.zero is not None else np.full_like(scale, way.shift))[:, groups]
    new_codes = table[codes]
    if isinstance(target, Format):
        words = target.core.write(new_codes, new_scale, new_shift)
        return SchemeTensor(target.named_arrays(words, q.shape), target, q.shape)
    return QuantizedTensor(_write_blocks(target, new_codes, new_scale, new_shift), target.name, q.shape)


def _read(q: QuantizedTensor, a: Algebra) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes (rows, cols), and scale and zero or minimum (rows, groups), float32."""
    rows, cols = split_shape(q.shape)
    if isinstance(q, SchemeTensor):
        return q.scheme.core.read(q.scheme.core_arrays(q.planes), rows, cols)
    f = lookup(q.format)
    blocks = q.data.reshape(-1, f.bytes)
    codes = (read_codes(f, blocks) & (1 << f.code_bits) - 1).astype(np.uint8)

    def groups(level: Any) -> np.ndarray:
        numbers, group = read_level(level, blocks, f.block)
        return np.repeat(numbers, group // a.group, axis=1)

    scale = groups(f.scale)
    shift = np.zeros_like(scale) if f.offset is None else groups(f.offset)
    return codes.reshape(rows, cols), scale.reshape(rows, -1), shift.reshape(rows, -1)


def _write_blocks(f: BlockFormat, codes: np.ndarray, scale: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Blocks of a format whose scales have a single level."""
    rows, codes = len(codes), codes.reshape(-1, f.block)
    bits = np.zeros((len(codes), f.bytes * 8), np.uint8)
    digits = np.zeros((len(codes), f.bytes), np.int32)
    for field in f.codes:
        for i in range(field["begin"], f.block if field["end"] is None else min(f.block, field["end"])):
            at = first_bit(field, i)
            if field["kind"] == "trits":
                slot = (i - field["begin"]) // field["lanes"] % field["slots"]
                digits[:, at // 8] += codes[:, i].astype(np.int32) * 3 ** (4 - slot)
                continue
            for b in range(field["bits"]):
                bits[:, at + b] |= codes[:, i] >> (field["up"] + b) & 1
    blocks = np.packbits(bits, axis=1, bitorder="little") | ((digits * 256 + 242) // 243).astype(np.uint8)
    for level, numbers in ((f.scale, scale), (f.offset, shift)):
        if level is not None:
            stored = _stored(level["type"], numbers.reshape(len(blocks), -1) / np.float32(level["factor"])).view(
                np.uint8
            )
            blocks[:, level["byte"] : level["byte"] + stored.shape[1]] = stored
    return blocks.reshape(rows, -1)


def _stored(kind: str, numbers: np.ndarray) -> np.ndarray:
    if kind == "f16":
        with np.errstate(over="ignore"):
            return np.ascontiguousarray(numbers.astype("<f2"))
    every = read_numbers(kind, np.arange(256, dtype=np.uint8))
    order = np.argsort(every, kind="stable")
    found = np.searchsorted(every[order], numbers)
    return order[np.minimum(found, 255)].astype(np.uint8)
