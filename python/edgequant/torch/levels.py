"""Packed weights taken apart: a small integer per weight, a scale and perhaps an offset per group."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from edgequant._core import Error
from edgequant.formats import BlockFormat, first_bit, lookup
from edgequant.tensor import QuantizedTensor

_LEVEL_BYTES = {"f32": 4, "f16": 2, "bf16": 2, "e8m0/2": 1, "ue4m3": 1}


class Levels(NamedTuple):
    """weight = integer * scale + offset, exactly in float32; groups of K / G weights share scale and offset.

    Attributes:
      integers: (N, G, K / G) int16, from `low` to `high` in every tensor of the format.
      scale: (N, G) float32.
      offset: (N, G) float32, or None.
    """

    integers: np.ndarray
    scale: np.ndarray
    offset: np.ndarray | None
    low: int
    high: int


def has_levels(format: str) -> bool:
    """Whether weights of the format are integers times a scale; those of a grid of vectors, or floats, are not."""
    f = lookup(format)
    return bool(f.codes) and f.map["kind"] != "grid"


def split_levels(q: QuantizedTensor) -> Levels:
    """Takes a tensor (N, K) apart, as the description of its format says. Raises Error without `has_levels`."""
    f = lookup(q.format)
    if not has_levels(f.name):
        raise Error(f"weights in {f.name} are not integers times a scale per group")
    blocks = q.data.reshape(q.shape[0], -1, f.bytes)
    codes = np.zeros((*blocks.shape[:2], f.block), np.int16)
    for field in f.codes:
        codes |= _field(blocks, field, f.block)
    values, low, high, unit = _values(f)
    integers = codes - f.map["zero"] if values is None else values[codes]
    scale, group = _level(blocks, f.scale, f.block)
    offset, offset_group = (None, group) if f.offset is None else _level(blocks, f.offset, f.block)
    if offset_group != group:
        raise Error(f"{f.name}: scales and offsets have groups of their own")
    rows = (q.shape[0], -1)
    return Levels(
        integers.astype(np.int16).reshape(*rows, group),
        (scale * np.float32(unit)).reshape(rows),
        None if offset is None else offset.reshape(rows),
        low,
        high,
    )


def _values(f: BlockFormat) -> tuple[np.ndarray | None, int, int, float]:
    """The table of integers that codes stand for (None: code - zero), their range, and what 1 stands for."""
    if f.map["kind"] == "affine":
        signed = any(c["signed"] for c in f.codes)
        trits = any(c["kind"] == "trits" for c in f.codes)
        count = 3 if trits else 1 << f.code_bits
        low = -(count // 2) if signed else -f.map["zero"]
        return None, low, low + count - 1, 1.0
    table = np.array(f.map["values"], np.float64)
    unit = 1.0 if np.all(table == np.round(table)) else 0.5
    values = np.round(table / unit).astype(np.int16)
    return values, int(values.min()), int(values.max()), unit


def _field(blocks: np.ndarray, field: Any, count: int) -> np.ndarray:
    """The integers of all elements of a field: (N, blocks, count) int16."""
    out = np.zeros((*blocks.shape[:2], count), np.int16)
    for i in range(field["begin"], count if field["end"] is None else min(count, field["end"])):
        at = first_bit(field, i)
        byte, shift = at // 8, at % 8
        v = blocks[..., byte].astype(np.int32)
        if field["kind"] == "trits":  # a byte holds five digits as ceil(number * 256 / 243)
            slot = (i - field["begin"]) // field["lanes"] % field["slots"]
            out[..., i] = (v * 3**slot % 256) * 3 >> 8
            continue
        if shift + field["bits"] > 8:
            v |= blocks[..., byte + 1].astype(np.int32) << 8
        v = v >> shift & (1 << field["bits"]) - 1
        if field["signed"]:
            v -= (v >> field["bits"] - 1) << field["bits"]
        out[..., i] = v << field["up"]
    return out


def _level(blocks: np.ndarray, level: Any, block: int) -> tuple[np.ndarray, int]:
    """Scales or offsets (N, blocks, groups) float32, and the size of their groups."""
    count = block // level["group"] if level["group"] else 1
    size = _LEVEL_BYTES[level["type"]]
    raw = np.ascontiguousarray(blocks[..., level["byte"] : level["byte"] + count * size])
    numbers = _numbers(raw, level["type"]) * np.float32(level["factor"])
    if not level["sub_group"]:
        return numbers, block // count
    subs = block // level["sub_group"]
    integers = sum(_field(blocks, field, subs) for field in level["sub"]) - np.float32(level["sub_zero"])
    return np.repeat(numbers, subs // count, -1) * integers.astype(np.float32), level["sub_group"]


def _numbers(raw: np.ndarray, type: str) -> np.ndarray:
    if type == "f16":
        return raw.view(np.float16).astype(np.float32)
    if type == "f32":
        return raw.view(np.float32)
    if type == "bf16":
        return (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    if type == "e8m0/2":
        return np.ldexp(np.float32(1), raw.astype(np.int32) - 128)
    exponent, mantissa = (raw >> 3 & 15).astype(np.int32), raw & 7
    return np.ldexp((mantissa + 8 * (exponent > 0)).astype(np.float32), np.maximum(exponent, 1) - 10)
