"""Packed blocks taken apart as their format's description says: codes, and the scales or offsets of a level."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgequant.formats import BlockFormat, FieldDict, first_bit

_DTYPES: dict[str, Any] = {"f32": "<f4", "f16": "<f2", "bf16": "<u2", "e8m0": "u1", "e8m0/2": "u1", "ue4m3": "u1"}


def read_codes(f: BlockFormat, blocks: np.ndarray) -> np.ndarray:
    """The codes of blocks (B, bytes) uint8: (B, block) int16; signed ones as the numbers that they are."""
    codes = np.zeros((len(blocks), f.block), np.int16)
    for field in f.codes:
        codes |= _read_field(field, blocks, f.block).astype(np.int16)
    return codes


def read_level(level: FieldDict, blocks: np.ndarray, block: int) -> tuple[np.ndarray, int]:
    """Scales or offsets of blocks (B, bytes) uint8: (B, groups) float32, and how many weights make a group."""
    dtype = np.dtype(_DTYPES[level["type"]])
    count = block // level["group"] if level["group"] else 1
    if level["pieces"] is not None:  # one number, in nibbles from the lowest on
        nibbles = _read_field(level["pieces"], blocks, 4) << 4 * np.arange(4)
        raw = nibbles.sum(axis=1, keepdims=True).astype("<u2").view(dtype)
    else:
        at = level["byte"]
        raw = np.ascontiguousarray(blocks[:, at : at + count * dtype.itemsize]).view(dtype)
    numbers = read_numbers(level["type"], raw) * np.float32(level["factor"])
    if not level["sub_group"]:
        return numbers, block // count
    subs = block // level["sub_group"]
    integers = sum(_read_field(field, blocks, subs).astype(np.float32) for field in level["sub"])
    return np.repeat(numbers, subs // count, axis=1) * (integers - np.float32(level["sub_zero"])), level["sub_group"]


def read_numbers(kind: str, raw: np.ndarray) -> np.ndarray:
    """Stored numbers as float32."""
    if kind == "bf16":
        return (raw.astype(np.uint32) << 16).view(np.float32)
    if kind in ("e8m0", "e8m0/2"):
        return np.ldexp(np.float32(1), raw.astype(np.int32) - (127 if kind == "e8m0" else 128)).astype(np.float32)
    if kind == "ue4m3":  # as GGML reads it: a set top bit is ignored, but only without it are seven ones 0
        code = raw.astype(np.int32) & 127
        value = np.where(code < 8, code / 512, np.ldexp(1 + (code & 7) / 8, (code >> 3) - 7))
        return np.where(raw == 127, 0, value).astype(np.float32)
    return raw.astype(np.float32)


def _read_field(f: FieldDict, blocks: np.ndarray, count: int) -> np.ndarray:
    """Elements of a field of each block, shifted up: (B, count) int32."""
    out = np.zeros((len(blocks), count), np.int32)
    begin, end = f["begin"], count if f["end"] is None else min(count, f["end"])
    at = np.array([first_bit(f, i) for i in range(begin, end)])
    if f["kind"] == "trits":  # a byte holds five digits as ceil(number * 256 / 243)
        power = 3 ** ((np.arange(end - begin) // f["lanes"]) % f["slots"])
        out[:, begin:end] = ((blocks[:, at // 8].astype(np.int32) * power & 255) * 3) >> 8
        return out
    wide = np.pad(blocks, ((0, 0), (0, 1))).astype(np.int32)
    raw = (wide[:, at // 8] | wide[:, at // 8 + 1] << 8) >> at % 8 & (1 << f["bits"]) - 1
    if f["signed"]:
        raw -= (raw >> f["bits"] - 1) << f["bits"]
    out[:, begin:end] = raw << f["up"]
    return out
