"""The descriptions of the planar formats, project by project: what `edgequant.planar_formats` holds.

Names are project.kind.group, with further words where a choice is left: the type of the scales where it is not the
usual one, "zp" for stored zero points, "act" for columns in the order of their importance, "dq" for scales that are
quantized themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from edgequant.planar_codecs import dynamic_map
from edgequant.planar_low_bit import PER_TENSOR, bitnet, low_bit, vectors
from edgequant.scheme import Array, Format

E2M1 = [0, 0.5, 1, 1.5, 2, 3, 4, 6]
FP4 = [*E2M1, *(-v for v in E2M1)]
# bitsandbytes' quantiles of the normal distribution; OpenVINO has the same.
NF4 = [
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
]  # fmt: skip
# bitsandbytes' own four-bit float, in units of its highest value.
BNB_FP4 = [0, 0.0625 / 12, 8 / 12, 1, 4 / 12, 6 / 12, 2 / 12, 3 / 12]
E4M3: dict[str, Any] = {"values": "minifloat", "bits": 8, "exponent_bits": 4, "exponent_bias": 7, "highest": 448}
MXFP4: dict[str, Any] = {"values": "table", "table": FP4, "bits": 4, "rule": "power_of_two"}
# Scales round to the nearest power of two, from 1.5 up: this reach makes them the next power that does not clip.
MXFP8: dict[str, Any] = {**E4M3, "rule": "absmax", "rule_reach": 448 / 1.5, "rounded_scale": True}
E5M2: dict[str, Any] = {"values": "minifloat", "bits": 8, "exponent_bits": 5, "exponent_bias": 15, "highest": 57344}


def _suffix(number: str, usual: str) -> str:
    return "" if number == usual else f".{number}"


def mlx() -> Iterator[Format]:
    """MLX: weight U32 (N, K * bits / 32), a stream of bits. Affine: w = code * scale + bias."""
    for bits in (2, 3, 4, 5, 6, 8):
        for group in (32, 64, 128):
            for number in ("f16", "bf16", "f32"):
                yield Format.planar(
                    f"mlx.affine{bits}.g{group}{_suffix(number, 'f16')}",
                    bits=bits, group=group, zeros="minimum", rule="edge", divide=True,
                    arrays={
                        "code": Array("weight", "uint32", bits=bits),
                        "scale": Array("scales", number),
                        "shift": Array("biases", number),
                    },
                )  # fmt: skip
    fp: Any = partial(Format.planar, divide=True, negative_scale=False)
    four, eight = Array("weight", "uint32", bits=4), Array("weight", "uint32", bits=8)
    yield fp("mlx.mxfp4", group=32, arrays={"code": four, "scale": Array("scales", "e8m0")}, **MXFP4)
    yield fp("mlx.mxfp8", group=32, arrays={"code": eight, "scale": Array("scales", "e8m0")}, **MXFP8)
    nv = {**MXFP4, "rule": "absmax", "rounded_scale": True}
    yield fp("mlx.nvfp4", group=16, arrays={"code": four, "scale": Array("scales", "e4m3")}, **nv)


def onnx() -> Iterator[Format]:
    """com.microsoft MatMulNBits: B U8 (N, groups, bytes), scales (N, groups), zero_points U8, rows of whole bytes."""
    for bits in (2, 4, 8):
        for group in (16, 32, 64, 128, 256):
            for number in ("f32", "f16"):
                for zero_points in (False, True):
                    arrays = {"code": Array("B", "uint8", "N G -1", bits=bits), "scale": Array("scales", number)}
                    kind: dict[str, Any] = {"zero": 1 << (bits - 1), "rule": "extreme"}
                    if zero_points:
                        arrays["shift"] = Array("zero_points", "uint8", bits=bits, fill=1 << (bits - 1))
                        kind = {"zeros": "integer", "rule": "range_zero"}
                    yield Format.planar(
                        f"onnx.nbits{bits}.g{group}{'.zp' if zero_points else ''}{_suffix(number, 'f32')}",
                        bits=bits, group=group, pad_cols=True, rounding="away", arrays=arrays, **kind,
                    )  # fmt: skip


def gptq() -> Iterator[Format]:
    """GPTQ: qweight I32 (K * bits / 32, N), words along K; qzeros I32 (groups, N * bits / 32); scales (groups, N).

    Version 1 ("gptq") stores zero points less one, version 2 ("gptq_v2") as they are. With "act" columns belong to the
    groups that g_idx I32 (K) names.
    """
    for version, offset in (("gptq", -1), ("gptq_v2", 0)):
        for bits in (2, 3, 4, 8):
            for group in (32, 64, 128, 0):
                for act in (False, True) if group else (False,):
                    arrays = {
                        "code": Array("qweight", "int32", bits=bits, cols_first=True),
                        "shift": Array("qzeros", "int32", bits=bits, down=True, cols_first=True, offset=offset),
                        "scale": Array("scales", "f16", cols_first=True),
                    }
                    kind: dict[str, Any] = {"zeros": "integer", "rule": "range_zero", "rounded_scale": True}
                    if act:
                        arrays["order"] = Array("g_idx", "int32", "K")
                        kind["codec"] = "act_order"
                    name = f"{version}.int{bits}.{f'g{group}' if group else 'channel'}{'.act' if act else ''}"
                    yield Format.planar(name, bits=bits, group=group, negative_scale=False, arrays=arrays, **kind)


def awq() -> Iterator[Format]:
    """AWQ gemm: qweight I32 (K, N / 8), columns 0, 2, 4, 6, 1, 3, 5, 7 in a word; qzeros I32 (groups, N / 8)."""
    plane: dict[str, Any] = {"bits": 4, "slots": 8, "order": [0, 2, 4, 6, 1, 3, 5, 7], "down": True, "cols_first": True}
    for group in (32, 64, 128):
        yield Format.planar(
            f"awq.int4.g{group}",
            bits=4, group=group, zeros="integer", rule="range_zero", rounded_scale=True, negative_scale=False,
            arrays={
                "code": Array("qweight", "int32", **plane),
                "shift": Array("qzeros", "int32", **plane),
                "scale": Array("scales", "f16", cols_first=True),
            },
        )  # fmt: skip


def compressed_tensors() -> Iterator[Format]:
    """compressed-tensors: weight_packed I32 (N, words), a stream of bits of codes + 2^(bits-1); scales (N, groups).

    Zero points are packed down the rows: I32 (words, groups). "ct.int8" is int-quantized: weight I8, a scale per row.
    FP4: weight_packed U8 (N, K / 2); the scales of nvfp4 are E4M3 and are divided by weight_global_scale.
    """
    for bits in range(1, 9):
        for group in (32, 64, 128, 0):
            for number in ("f16", "bf16"):
                for zero_points in (False, True):
                    arrays = {
                        "code": Array("weight_packed", "int32", bits=bits),
                        "scale": Array("weight_scale", number),
                    }
                    reach = ((1 << bits) - 1) / 2
                    kind: dict[str, Any] = {"zero": 1 << (bits - 1), "rule": "absmax", "rule_reach": reach}
                    if zero_points:
                        arrays["shift"] = Array("weight_zero_point", "int32", bits=bits, down=True)
                        kind = {"zeros": "integer", "rule": "range_zero"}
                    name = f"ct.int{bits}.{f'g{group}' if group else 'channel'}{'.zp' if zero_points else ''}"
                    yield Format.planar(
                        name + _suffix(number, "f16"),
                        bits=bits, group=group, divide=True, rounded_scale=True, negative_scale=False,
                        arrays=arrays, **kind,
                    )  # fmt: skip
    for number in ("f16", "bf16", "f32"):
        yield Format.planar(
            f"ct.int8{_suffix(number, 'f16')}",
            bits=8, group=0, zero=128, rule="absmax", rule_reach=127.5, divide=True, negative_scale=False,
            arrays={"code": Array("weight", "int8", bits=8, offset=128), "scale": Array("weight_scale", number)},
        )  # fmt: skip


    four = Array("weight_packed", "uint8", bits=4)
    e2m1: dict[str, Any] = {"values": "table", "table": FP4, "bits": 4, "divide": True, "negative_scale": False}
    yield Format.planar(
        "ct.mxfp4", group=32, rule="power_of_two", arrays={"code": four, "scale": Array("weight_scale", "e8m0")}, **e2m1
    )
    total = Array("weight_global_scale", "f32", "1")
    yield Format.planar(
        "ct.nvfp4", group=16, rule="absmax", rounded_scale=True, super_group=0, divides=True,
        arrays={"code": four, "scale": Array("weight_scale", "e4m3"), "super": total}, **e2m1,
    )  # fmt: skip


def openvino() -> Iterator[Format]:
    """OpenVINO: constants (N, groups, group), low nibble first, rows without padding; scales (N, groups, 1).

    Integers and nf4 have f16 scales; f4e2m1 and f8e4m3 in "mxfp4" and "mxfp8" have f8e8m0 scales, in groups of 32.
    """
    nibbles: dict[str, Any] = {"bits": 4, "flat": True}
    four, signed_four = Array("weight", "uint8", "-1", **nibbles), Array("weight", "uint8", "-1", offset=8, **nibbles)
    for group in (32, 64, 128, 0):
        name, dims = f".g{group}" if group else "", "N G -1" if group else "N K"
        scale = Array("scale", "f16", "N G 1" if group else "N 1")
        for bits, code in ((4, four), (8, Array("weight", "uint8", dims, bits=8))):
            zero = Array("zero_point", "uint8", "-1" if bits == 4 else scale.shape, bits=bits, flat=True)
            yield Format.planar(
                f"openvino.u{bits}{name}",
                bits=bits, group=group, zeros="integer", rule="range_zero", negative_scale=False,
                arrays={"code": code, "scale": scale, "shift": zero},
            )  # fmt: skip
        for bits, code in ((4, signed_four), (8, Array("weight", "int8", dims, bits=8, offset=128))):
            yield Format.planar(
                f"openvino.i{bits}{name}", bits=bits, group=group, zero=1 << (bits - 1), rule="extreme",
                arrays={"code": code, "scale": scale},
            )  # fmt: skip
        yield Format.planar(
            f"openvino.nf4{name}", values="table", table=NF4, bits=4, group=group, rule="absmax", negative_scale=False,
            arrays={"code": four, "scale": scale},
        )  # fmt: skip
    powers = Array("scale", "e8m0", "N G 1")
    mx: Any = partial(Format.planar, group=32, divide=True, negative_scale=False)
    yield mx("openvino.mxfp4", arrays={"code": four, "scale": powers}, **MXFP4)
    yield mx("openvino.mxfp8", arrays={"code": Array("weight", "uint8", "N G -1", bits=8), "scale": powers}, **MXFP8)


def bitsandbytes() -> Iterator[Format]:
    """bitsandbytes 4-bit: weight U8 (bytes, 1), high nibble first, blocks of the flattened matrix; absmax F32.

    "dq": absmax U8, indices of a table of 256, times nested_absmax F32 per 256 of them, plus one offset.
    """
    weight = Array("weight", "uint8", "-1 1", bits=4, slots=2, high_first=True, flat=True)
    fp4 = [*BNB_FP4, *(-v for v in BNB_FP4)]
    for kind, table in (("nf4", NF4), ("fp4", fp4)):
        for group in (32, 64, 128, 256):
            make: Any = partial(
                Format.planar, values="table", table=table, bits=4, group=group, rule="absmax", negative_scale=False
            )
            single = {"code": weight, "scale": Array("weight.absmax", "f32", "-1")}
            yield make(f"bnb.{kind}.g{group}", arrays=single)
            double = {
                "code": weight,
                "scale": Array("weight.absmax", "uint8", "-1", bits=8, flat=True),
                "super": Array("weight.nested_absmax", "f32", "-1", flat=True),
                "super_shift": Array("nested_offset", "f32", "1"),
            }
            yield make(f"bnb.{kind}.g{group}.dq", super_group=256, sub_table=dynamic_map(), arrays=double)


def fp8() -> Iterator[Format]:
    """FP8 as transformers, vLLM and compressed-tensors store it: weight (N, K), scales F32 that multiply."""
    weight = Array("weight", "uint8", bits=8)
    scopes: dict[str, tuple[dict[str, Any], Array]] = {
        "tensor": (PER_TENSOR, Array("weight_scale", "f32", "1")),
        "channel": ({"group": 0}, Array("weight_scale", "f32", "N 1")),
        "block128": ({"group": 128, "group_rows": 128}, Array("weight_scale_inv", "f32")),
    }
    for kind, values in (("e4m3", E4M3), ("e5m2", E5M2)):
        for scope, (group, scale) in scopes.items():
            yield Format.planar(
                f"fp8.{kind}.{scope}", rule="absmax", divide=True, negative_scale=False,
                arrays={"code": weight, "scale": scale}, **values, **group,
            )  # fmt: skip


def hqq() -> Iterator[Format]:
    """HQQ, axis 1: groups are rows of a matrix whose halves (quarters, eighths, tenths) share a word; float zeros."""
    for bits in (1, 2, 3, 4, 8):
        plane: dict[str, Any] = {"bits": bits, "slots": 8 // bits, "high_first": True, "lanes": 0, "flat": True}
        if bits == 3:
            plane |= {"slots": 10, "high_first": False, "order": [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]}
        for group in (32, 64, 128):
            yield Format.planar(
                f"hqq.int{bits}.g{group}",
                bits=bits, group=group, zeros="float",
                arrays={
                    "code": Array("W_q", "int32" if bits == 3 else "uint8", f"-1 {group}", lane_unit=group, **plane),
                    "scale": Array("scale", "f16", "-1 1"),
                    "shift": Array("zero", "f16", "-1 1"),
                },
            )  # fmt: skip


def torchao() -> Iterator[Format]:
    """torchao int4 for AVX-512 CPUs: qdata U8 (N, K / 2) in tiles of 64 rows, scale_and_zero BF16 (groups, N, 2)."""
    plane: dict[str, Any] = {"bits": 4, "slots": 2, "lanes": 32, "down": True, "cols_first": True, "chunks_first": True}
    both: dict[str, Any] = {"cols_first": True, "every": 2}
    for group in (32, 64, 128):
        yield Format.planar(
            f"torchao.int4.g{group}",
            bits=4, group=group, zero=8, zeros="minimum", rule="range",
            arrays={
                "code": Array("qdata", "uint8", "N -1", **plane),
                "scale": Array("scale_and_zero", "bf16", "G N 2", **both),
            },
            shift_plane={"cell": "bf16", "at": 1, **both},
        )  # fmt: skip


PROJECTS = (
    mlx,
    onnx,
    gptq,
    awq,
    compressed_tensors,
    openvino,
    bitsandbytes,
    fp8,
    hqq,
    torchao,
    bitnet,
    low_bit,
    vectors,
)
