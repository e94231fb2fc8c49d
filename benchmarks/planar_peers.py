"""The quantizers of other projects, one matrix at a time. Each function yields what its package can do here."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass
class Peer:
    """One scheme of one project.

    Attributes:
      format: edgequant's name of the same scheme.
      label: project and, where it has several, which of its ways.
      prepare: brings (N, K) float32 weights into the project's own tensor; not timed.
      quantize: what is timed; its result goes to `decode`.
      decode: (N, K) float32.
      share: rows to quantize, as a share of the matrix, for ways that take seconds.
    """

    format: str
    label: str
    prepare: Callable[[np.ndarray], Any]
    quantize: Callable[[Any], Any]
    decode: Callable[[Any], np.ndarray]
    share: float = 1.0


def onnxruntime(threads: int) -> Iterator[Peer]:
    import onnxruntime
    from onnxruntime.capi import _pybind_state as native

    del onnxruntime, threads  # the quantizer has no setting: it uses all cores

    def peer(bits: int, block: int, zero_points: bool) -> Peer:
        kernel = getattr(native, f"quantize_matmul_{bits}bits")

        def quantize(x: np.ndarray) -> Any:
            k, n = x.shape
            blocks = math.ceil(k / block)
            b = np.zeros((n, blocks, block * bits // 8), np.uint8)
            scales, zeros = np.zeros((n, blocks), np.float32), np.zeros((n, math.ceil(blocks * bits / 8)), np.uint8)
            kernel(b, x, scales.reshape(-1), zeros.reshape(-1), block, n, k, not zero_points)
            return b, scales, zeros, k

        def decode(result: Any) -> np.ndarray:
            b, scales, zeros, k = result
            n, blocks = scales.shape

            def unpack(bytes_: np.ndarray, count: int) -> np.ndarray:
                each = np.unpackbits(bytes_, axis=-1, bitorder="little").reshape(*bytes_.shape[:-1], -1, bits)
                return (each @ (1 << np.arange(bits)).astype(np.float32))[..., :count]

            zero = unpack(zeros, blocks)[..., None] if zero_points else 1 << (bits - 1)
            return ((unpack(b, block) - zero) * scales[..., None]).reshape(n, -1)[:, :k]

        name = f"onnx.nbits{bits}.g{block}{'.zp' if zero_points else ''}"
        return Peer(name, "onnxruntime", lambda x: np.ascontiguousarray(x.T), quantize, decode)

    for bits, block, zero_points in (
        (4, 32, False),
        (4, 32, True),
        (4, 128, False),
        (4, 128, True),
        (8, 32, True),
        (8, 128, False),
        (2, 32, True),
    ):
        yield peer(bits, block, zero_points)


def mlx(threads: int) -> Iterator[Peer]:
    import mlx.core as mx

    del threads  # its CPU backend quantizes on one thread

    def peer(name: str, group: int, bits: int, mode: str) -> Peer:
        def quantize(x: Any) -> Any:
            q = mx.quantize(x, group, bits, mode)
            mx.eval(*q)
            return q

        def decode(q: Any) -> np.ndarray:
            biases = q[2] if len(q) > 2 else None
            return np.array(mx.dequantize(q[0], q[1], biases, group, bits, mode, dtype=mx.float32))

        return Peer(name, "mlx", lambda x: mx.array(x), quantize, decode)

    for bits in (2, 3, 4, 5, 6, 8):
        yield peer(f"mlx.affine{bits}.g64", 64, bits, "affine")
    yield peer("mlx.affine4.g32", 32, 4, "affine")
    for mode, group, bits in (("mxfp4", 32, 4), ("mxfp8", 32, 8), ("nvfp4", 16, 4)):
        yield peer(f"mlx.{mode}", group, bits, mode)


def bitsandbytes(threads: int) -> Iterator[Peer]:
    import bitsandbytes.functional as f
    import torch

    torch.set_num_threads(threads)
    for kind, block, double in (("nf4", 64, False), ("fp4", 64, False), ("nf4", 64, True)):
        name = f"bnb.{kind}.g{block}{'.dq' if double else ''}"

        def quantize(x: Any, kind: str = kind, block: int = block, double: bool = double) -> Any:
            return f.quantize_4bit(x, None, None, block, double, kind)

        yield Peer(name, "bitsandbytes", torch.from_numpy, quantize, lambda q: f.dequantize_4bit(*q).numpy())


def hqq(threads: int) -> Iterator[Peer]:
    import torch
    from hqq.core.quantize import Quantizer

    torch.set_num_threads(threads)
    options = {"device": "cpu", "compute_dtype": torch.float32, "axis": 1}
    for bits, group, search in ((4, 64, True), (4, 64, False), (3, 64, True), (2, 64, True), (8, 64, True)):

        def quantize(x: Any, bits: int = bits, group: int = group, search: bool = search) -> Any:
            return Quantizer.quantize(x, nbits=bits, group_size=group, optimize=search, **options)

        label = "hqq" if search else "hqq, no search"
        share = 0.125 if search else 1.0
        decode = lambda q: Quantizer.dequantize(*q).numpy()  # noqa: E731
        yield Peer(f"hqq.int{bits}.g{group}", label, torch.from_numpy, quantize, decode, share)


def torchao(threads: int) -> Iterator[Peer]:
    import torch
    from torchao.quantization import quant_primitives as p

    torch.set_num_threads(threads)
    limits = (torch.int32, 0, 15)

    def peer(group: int) -> Peer:
        def quantize(x: Any) -> Any:
            block = [1, group]
            s, z = p._choose_qparams_affine_tinygemm(
                x, p.MappingType.ASYMMETRIC, block, *limits, 1e-6, None, torch.bfloat16
            )
            q = p._quantize_affine_tinygemm(x, block, s, z, *limits)
            return torch.ops.aten._convert_weight_to_int4pack_for_cpu(q, 1), q, s, z

        def decode(result: Any) -> np.ndarray:
            _, q, s, z = result
            w = (q.reshape(-1, group).float() - 8) * s.float().reshape(-1, 1) + z.float().reshape(-1, 1)
            return w.reshape(q.shape).numpy()

        return Peer(f"torchao.int4.g{group}", "torchao", lambda x: torch.from_numpy(x).bfloat16(), quantize, decode)

    yield peer(32)
    yield peer(128)


def compressed_tensors(threads: int) -> Iterator[Peer]:
    import torch
    from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32
    from compressed_tensors.quantization import QuantizationArgs
    from compressed_tensors.quantization.lifecycle.forward import dequantize, quantize
    from compressed_tensors.quantization.utils import calculate_qparams

    torch.set_num_threads(threads)

    def peer(bits: int, group: int) -> Peer:
        args = QuantizationArgs(num_bits=bits, type="int", symmetric=True, strategy="group", group_size=group)

        def run(x: Any) -> Any:
            parts = x.reshape(x.shape[0], -1, group)
            s, z = calculate_qparams(parts.amin(-1), parts.amax(-1), args)
            q = quantize(x, s, z, args, dtype=torch.int8)
            return pack_to_int32(q, bits), q, s, z

        return Peer(
            f"ct.int{bits}.g{group}",
            "compressed-tensors",
            torch.from_numpy,
            run,
            lambda r: dequantize(r[1], r[2], r[3], args).numpy(),
        )

    yield peer(4, 32)
    yield peer(8, 32)


def nncf(threads: int) -> Iterator[Peer]:
    import nncf
    import openvino as ov
    from openvino import opset15 as op

    del threads
    nncf.set_log_level(40)

    def peer(name: str, mode: str, group: int) -> Peer:
        def prepare(x: np.ndarray) -> Any:
            p = op.parameter([-1, x.shape[1]], ov.Type.f32)
            return ov.Model([op.matmul(p, op.constant(x), False, True)], [p])

        def quantize(model: Any) -> Any:
            options = {} if mode.startswith("INT8") else {"group_size": group, "all_layers": True, "ratio": 1.0}
            return nncf.compress_weights(model.clone(), mode=getattr(nncf.CompressWeightsMode, mode), **options)

        def decode(model: Any) -> np.ndarray:
            precise = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}
            k = model.inputs[0].partial_shape[1].get_length()
            compiled = ov.Core().compile_model(model, "CPU", precise)
            return compiled([np.eye(k, dtype=np.float32)])[0].T

        return Peer(name, "nncf", prepare, quantize, decode)

    yield peer("openvino.u4.g32", "INT4_ASYM", 32)
    yield peer("openvino.i4.g32", "INT4_SYM", 32)
    yield peer("openvino.u8", "INT8_ASYM", 0)
    yield peer("openvino.i8", "INT8_SYM", 0)
    yield peer("openvino.nf4.g64", "NF4", 64)


def fp8(threads: int) -> Iterator[Peer]:
    import torch

    torch.set_num_threads(threads)
    for kind, dtype in (("e4m3", torch.float8_e4m3fn), ("e5m2", torch.float8_e5m2)):
        highest = torch.finfo(dtype).max

        def quantize(x: Any, dtype: Any = dtype, highest: float = highest) -> Any:
            scale = x.abs().amax(1, keepdim=True) / highest
            return (x / scale).to(dtype), scale

        yield Peer(f"fp8.{kind}.channel", "torch", torch.from_numpy, quantize, lambda q: (q[0].float() * q[1]).numpy())


PROJECTS: dict[str, Callable[[int], Iterator[Peer]]] = {
    "onnxruntime": onnxruntime,
    "mlx": mlx,
    "bitsandbytes": bitsandbytes,
    "hqq": hqq,
    "torchao": torchao,
    "compressed-tensors": compressed_tensors,
    "nncf": nncf,
    "fp8": fp8,
}
