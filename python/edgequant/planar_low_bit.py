"""The descriptions of the planar formats of 1 and 2 bits, and of the vector grids."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from edgequant.scheme import Array, Format

PER_TENSOR: dict[str, Any] = {"group": 0, "group_rows": 0}
TERNARY: dict[str, Any] = {"bits": 2, "codes": 3, "zero": 1, "rule": "absmean", "negative_scale": False}
# Rows, columns and rows of a run of the kernels that bitnet.cpp generates.
TILES = {
    "tl1": ((128, 64, 32), (128, 64, 64), (160, 64, 32), (256, 128, 32), (256, 128, 64), (320, 64, 32), (320, 128, 64)),
    "tl2": ((128, 96, 32), (128, 192, 32), (160, 96, 32), (256, 96, 32), (320, 96, 32)),
}


def bitnet() -> Iterator[Format]:
    """BitNet: ternary codes, one scale per tensor.

    "hf": weight U8 (N / 4, K), rows r, r + N/4, ... of a column in a byte; BitLinear divides by weight_scale, and
    AutoBitLinear ("hf_auto") multiplies. "i2_s": bytes of bitnet.cpp without the scale that follows them: the layouts
    of its x86 and ARM builds, and that of four rows in a byte. "tl1", "tl2": its look-up-table kernels, by their tile.
    """
    f32 = Array("weight_scale", "f32", "1")
    down: dict[str, Any] = {"bits": 2, "slots": 4, "down": True}
    hf = Array("weight", "uint8", lanes=0, **down)
    make: Any = partial(Format.planar, **PER_TENSOR, **TERNARY)
    yield make("bitnet.hf", arrays={"code": hf, "super": f32}, divides=True)
    yield make("bitnet.hf_auto", arrays={"code": hf, "scale": f32})
    for layout, lanes in (("x86", 32), ("arm", 16)):
        code = Array("weight", "uint8", "-1", bits=2, slots=4, lanes=lanes, high_first=True, flat=True)
        yield make(f"bitnet.i2_s.{layout}", arrays={"code": code, "scale": f32})
    code = Array("weight", "uint8", "-1", high_first=True, **down)
    yield make("bitnet.i2_s.rows4", arrays={"code": code, "scale": f32})
    for kind, each in TILES.items():
        for bm, bk, bmm in each:
            yield make(
                f"bitnet.{kind}.{bm}x{bk}x{bmm}", codec="tiles", tile=[kind, bm, bk, bmm],
                arrays={"code": Array("weight", "uint8", "-1", bits=2), "scale": f32},
            )  # fmt: skip


def low_bit() -> Iterator[Format]:
    """OneBit: weight I8 (N, K / 8), bit 1 is -1, and a factor per row and per column. 2-bit tables of four numbers per
    group (DB-LLM's a1, a2, a1 + a2 among them). ParetoQ: a scale per row; two bits have a zero of 1.5."""
    yield Format.planar(
        "onebit.rank1",
        codec="rank_one", bits=1, values="table", table=[1, -1], group=0,
        arrays={
            "code": Array("weight", "int8", bits=1),
            "scale": Array("weight_scale", "f16", "N"),
            "columns": Array("input_factor", "f16", "K"),
        },
    )  # fmt: skip
    for bits in (1, 2, 3, 4):
        for group in (64, 128):
            yield Format.planar(
                f"table{bits}.g{group}", values="group_table", bits=bits, group=group,
                arrays={"code": Array("codes", "uint8", bits=bits), "entries": Array("entries", "f16", "N G -1")},
            )  # fmt: skip
        zero = {1: 0.5, 2: 1.5, 3: 4, 4: 8}[bits]
        yield Format.planar(
            f"paretoq.int{bits}", bits=bits, zero=zero, group=0, negative_scale=False,
            arrays={"code": Array("codes", "uint8", bits=bits), "scale": Array("scale", "f32", "N 1")},
        )  # fmt: skip


def vectors() -> Iterator[Format]:
    """QuIP#'s E8P12: Qidxs I64 (N, K / 32) and Wscale; its rotations and their signs are not part of the format.
    AQLM: codes (N, K / 8, books) into codebooks (books, 2^bits, 1, 8), a scale per row; it can only be read."""
    yield Format.planar(
        "quip.e8p", codec="e8p", bits_per_weight=2, **PER_TENSOR,
        arrays={"code": Array("Qidxs", "int64", "N -1"), "scale": Array("Wscale", "f32", "1")},
    )  # fmt: skip
    for books, bits in ((1, 16), (2, 8)):
        yield Format.planar(
            f"aqlm.{books}x{bits}.g8", codec="aqlm", bits_per_weight=2, books=books, group=0,
            arrays={
                "code": Array("codes", f"int{bits}", f"N -1 {books}"),
                "entries": Array("codebooks", "f16", f"{books} -1 1 8"),
                "scale": Array("scales", "f16", "N 1 1 1"),
            },
        )  # fmt: skip
