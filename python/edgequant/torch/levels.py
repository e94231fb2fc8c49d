"""Packed weights taken apart: a small integer per weight, a scale and perhaps an offset per group."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from edgequant._core import Error
from edgequant.block_parts import read_codes, read_level
from edgequant.formats import BlockFormat, lookup
from edgequant.tensor import QuantizedTensor


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
    blocks = q.data.reshape(-1, f.bytes)
    codes = read_codes(f, blocks)
    values, low, high, unit = _values(f)
    integers = codes - f.map["zero"] if values is None else values[codes]
    scale, group = read_level(f.scale, blocks, f.block)
    offset, offset_group = (None, group) if f.offset is None else read_level(f.offset, blocks, f.block)
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
