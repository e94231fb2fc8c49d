"""The planar formats of other ecosystems: codes, scales and zeros as arrays of their own. Each is a few lines of data.

Example:
  >>> edgequant.planar_formats["mlx.affine4.g64"].bits_per_weight
  4.5
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from edgequant.scheme import Array, Format


def _mlx_affine(bits: int, group: int, number: str) -> Format:
    """MLX's affine mode: weight U32 (N, K * bits / 32), scales and biases (N, K / group); w = q * scale + bias."""
    return Format.planar(
        f"mlx.affine{bits}.g{group}" + ("" if number == "f16" else f".{number}"),
        bits=bits, group=group, zeros="minimum", rule="edge", divide=True,
        arrays={
            "code": Array("weight", "uint32", bits=bits),
            "scale": Array("scales", number),
            "shift": Array("biases", number),
        },
    )  # fmt: skip


def _onnx_nbits(bits: int, group: int, number: str, zero_points: bool) -> Format:
    """com.microsoft MatMulNBits: B U8 (N, groups, bytes), scales (N, groups), zero_points U8, rows of whole bytes."""
    name = f"onnx.nbits{bits}.g{group}" + (".zp" if zero_points else "") + ("" if number == "f32" else f".{number}")
    arrays = {"code": Array("B", "uint8", "N G -1", bits=bits), "scale": Array("scales", number)}
    kind: dict[str, Any] = {"zero": 1 << (bits - 1), "rule": "extreme"}
    if zero_points:
        arrays["shift"] = Array("zero_points", "uint8", bits=bits, fill=1 << (bits - 1))
        kind = {"zeros": "integer", "rule": "range_zero"}
    return Format.planar(name, bits=bits, group=group, pad_cols=True, rounding="away", arrays=arrays, **kind)


@cache
def _all() -> dict[str, Format]:
    made = [_mlx_affine(b, g, t) for b in (2, 3, 4, 5, 6, 8) for g in (32, 64, 128) for t in ("f16", "bf16", "f32")]
    made += [
        _onnx_nbits(b, g, t, z)
        for b in (2, 4, 8)
        for g in (16, 32, 64, 128, 256)
        for t in ("f32", "f16")
        for z in (False, True)
    ]
    return {f.name: f for f in made}


class PlanarFormats(Mapping[str, Format]):
    """All planar formats by name, read-only; made when first asked for."""

    def __getitem__(self, name: str) -> Format:
        return _all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(_all())

    def __len__(self) -> int:
        return len(_all())

    def __repr__(self) -> str:
        return f"<edgequant.planar_formats: {', '.join(self)}>"


planar_formats = PlanarFormats()


def find_scheme(format: Any) -> Format | None:
    """The run-time format that is meant: a Format, or a planar name in any case; None for all others."""
    if isinstance(format, Format):
        return format
    name = str(format).strip().lower()
    return planar_formats[name] if "." in name and name in planar_formats else None
