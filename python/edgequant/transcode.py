"""From one format to another without a search: what two descriptions say about the loss, and the conversion itself.

Example:
  >>> edgequant.transcode_loss("q4_0", "onnx.nbits4.g32")
  TranscodeLoss(kind='exact', db=None)
  >>> edgequant.quantize(np.eye(32, dtype="float32"), "q4_0").to("onnx.nbits4.g32")
  SchemeTensor(onnx.nbits4.g32, shape=(32, 32), 5 bits per weight)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np

from edgequant._core import Error
from edgequant.algebra import Algebra, Way, algebra, find_way, loss_as_numbers
from edgequant.arrays import split_shape
from edgequant.block_parts import read_codes, read_level, read_numbers
from edgequant.formats import BlockFormat, first_bit, lookup
from edgequant.planar import find_scheme
from edgequant.scheme import Format
from edgequant.scheme_tensor import SchemeTensor
from edgequant.tensor import QuantizedTensor, check_rows

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


def _find(format: Any) -> BlockFormat | Format:
    return find_scheme(format) or lookup(format)


def transcode_loss(a: Any, b: Any) -> TranscodeLoss:
    """What the way from format a to format b loses, by their descriptions.

    Args:
      a, b: names of formats, in `edgequant.formats` or `edgequant.planar_formats`, or Formats.

    Returns: TranscodeLoss. Formats whose codes stand for one weight each, and the grids of GGML, are compared by
      description; all others (codebooks, tables of groups or tensors, act-order) are lossy, but to float32 and to
      themselves.

    Raises Error for unknown formats.
    """
    return _loss(_find(a), _find(b))


@cache
def _loss(a: BlockFormat | Format, b: BlockFormat | Format) -> TranscodeLoss:
    if a == b or b.name == "f32" or (a.name, b.name) == ("f16", "f32"):
        return TranscodeLoss("exact")
    x, y = algebra(a), algebra(b)
    if x and b.name in ("f16", "bf16") and (kind := loss_as_numbers(x, b.name)) != "lossy":
        return TranscodeLoss(kind)
    way = find_way(x, y) if x and y else None
    if way is not None and not way.rounds:
        return TranscodeLoss("exact" if way.exact else "widened")
    return TranscodeLoss("lossy", _measure(a, b))


def _measure(a: BlockFormat | Format, b: BlockFormat | Format) -> float:
    from edgequant.quantize import quantize

    whole = math.lcm(16, a.block or 1, b.block or 1)  # transforms mix 16 columns and more
    shapes = [(64, 1024), (1280, 768)]  # the second suits BitNet's tiles
    if whole <= 1 << 16:
        shapes.append((64, -(-1024 // whole) * whole))
    for shape in shapes:
        w = np.random.default_rng(0).standard_normal(shape, np.float32)
        try:
            q = quantize(w, a)
            return float(transcode(q, b, lossy=True).compare(q).sqnr_db)
        except Error:
            continue
    return float("nan")  # one of them cannot be written


def transcode(q: QuantizedTensor, format: Any, lossy: bool = False) -> QuantizedTensor:
    """The same weights in another format; see `QuantizedTensor.to`."""
    from edgequant.quantize import quantize

    source = q.scheme if isinstance(q, SchemeTensor) else lookup(q.format)
    target = _find(format)
    if source == target:
        return q
    a, b = algebra(source), algebra(target)
    way = find_way(a, b, all_codes=False) if a and b else None
    if way is not None and a and b:  # with another way than its own, a tensor may yet have only codes that fit
        found = _convert(q, a, target, b, way)
        if (lossy and way.rounds) or _same(found, q):
            return found
    if target.name in ("f32", "f16", "bf16"):
        numbers = quantize(q, target.name)
        if _same(numbers, q):
            return numbers
    if lossy:
        return quantize(q, target)
    loss = transcode_loss(source, target)
    why = "these scales need a wider type than it has" if loss.kind == "widened" else f"{loss} on normal weights"
    raise Error(f"{source.name} to {target.name} would change the weights ({why}); lossy=True does it all the same")


def _same(a: QuantizedTensor, b: QuantizedTensor) -> bool:
    return np.array_equal(a.dequantize(), b.dequantize(), equal_nan=True)


def _convert(q: QuantizedTensor, a: Algebra, target: BlockFormat | Format, b: Algebra, way: Way) -> QuantizedTensor:
    codes, scale, shift = _read(q, a)
    cols = q.shape[-1]
    if not isinstance(target, Format):
        check_rows(target.name, q.shape)
    groups = (np.arange(0, cols, b.group) // (a.group or cols)) if b.group else np.zeros(1, np.int64)
    table = np.zeros(256, np.uint8)
    table[: len(way.codes)] = np.maximum(way.codes, 0)
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

    def groups(level: Any) -> np.ndarray:
        numbers, group = read_level(level, blocks, f.block)
        return np.repeat(numbers, group // a.group, axis=1)

    scale = groups(f.scale)
    shift = np.zeros_like(scale) if f.offset is None else groups(f.offset)
    if f.map["kind"] == "grid":  # the rows are in the core: its weights over their scales are what the codes stand for
        unit = np.repeat(scale, a.group, axis=1)
        value = q.dequantize().reshape(unit.shape) / np.where(unit == 0, np.float32(1), unit)
        codes = np.searchsorted(np.array(a.values, np.float32), np.where(unit == 0, a.values[0], value))
    else:
        codes = read_codes(f, blocks) & (1 << f.code_bits) - 1
    return codes.astype(np.uint8).reshape(rows, cols), scale.reshape(rows, -1), shift.reshape(rows, -1)


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
