"""Golden data of the affine formats: MLX, ONNX, GPTQ, AWQ, compressed-tensors, HQQ, torchao."""

from __future__ import annotations

import math
from collections.abc import Iterator
from importlib.metadata import version

import numpy as np

from planar.golden import Golden, bit_stream, codes, errors_of, generator, maker, scales


@maker("mlx")
def mlx() -> Iterator[Golden]:
    import mlx.core as mx

    source = f"mlx {version('mlx')}"
    cases = [(b, 64) for b in (2, 3, 4, 5, 6, 8)] + [(4, 32), (3, 128)]
    for bits, group in cases:
        name = f"mlx.affine{bits}.g{group}"
        rng = generator(name)
        n, k = 12, 128 if group < 128 else 256
        weight = bit_stream(codes(rng, (n, k), bits), bits).view(np.uint32)
        s, b = scales(rng, (n, k // group), signed=True), scales(rng, (n, k // group), signed=True) * np.float16(4)
        # With float32 scales MLX multiplies and adds in float32: the exact values, without a rounding to float16.
        w = mx.dequantize(mx.array(weight), mx.array(s, mx.float32), mx.array(b, mx.float32), group, bits)

        def quantize(x: np.ndarray, group: int = group, bits: int = bits) -> np.ndarray:
            q = mx.quantize(mx.array(x).astype(mx.float16), group, bits)
            q = (q[0], q[1].astype(mx.float32), q[2].astype(mx.float32))
            return np.array(mx.dequantize(*q, group, bits))

        planes = {"weight": weight, "scales": s, "biases": b}
        yield Golden(name, np.array(w), planes, source, errors=errors_of(quantize))

    name = "mlx.affine4.g64.bf16"
    rng = generator(name)
    weight = bit_stream(codes(rng, (12, 128), 4), 4).view(np.uint32)
    s, b = (mx.array(scales(rng, (12, 2), signed=True)).astype(mx.bfloat16) for _ in range(2))
    w = mx.dequantize(mx.array(weight), s.astype(mx.float32), b.astype(mx.float32), 64, 4)
    planes = {"weight": weight, "scales": np.array(s.view(mx.uint16)), "biases": np.array(b.view(mx.uint16))}
    yield Golden(name, np.array(w), planes, source, dtypes={"scales": "bfloat16", "biases": "bfloat16"})

    for mode, group, bits in (("mxfp4", 32, 4), ("mxfp8", 32, 8), ("nvfp4", 16, 4)):
        name = f"mlx.{mode}"
        rng = generator(name)
        n, k = 12, 128
        c = codes(rng, (n, k), bits)
        if bits == 8:
            c[(c & 127) == 127] -= 1  # not a number
        weight = bit_stream(c, bits).view(np.uint32)
        s = rng.integers(100, 140, (n, k // group), dtype=np.uint8)
        if mode == "nvfp4":
            s = codes(rng, (n, k // group), 7).astype(np.uint8) % 127  # any positive E4M3 number
        w = mx.dequantize(mx.array(weight), mx.array(s), None, group, bits, mode, dtype=mx.float32)

        def quantize_fp(x: np.ndarray, mode: str = mode, group: int = group, bits: int = bits) -> np.ndarray:
            q = mx.quantize(mx.array(x), group, bits, mode)
            return np.array(mx.dequantize(*q, None, group, bits, mode, dtype=mx.float32))

        yield Golden(name, np.array(w), {"weight": weight, "scales": s}, source, errors=errors_of(quantize_fp))


@maker("onnxruntime")
def onnx() -> Iterator[Golden]:
    from planar import ort

    source = f"onnxruntime {version('onnxruntime')}"
    cases = [(b, 32, z, 96) for b in (2, 4, 8) for z in (False, True)]
    cases += [(4, 16, False, 96), (4, 64, True, 96), (4, 128, True, 200), (2, 128, True, 200), (8, 256, False, 512)]
    for bits, block, zero_points, k in cases:
        name = f"onnx.nbits{bits}.g{block}{'.zp' if zero_points else ''}"
        rng = generator(name)
        n, blocks = 9, math.ceil(k / block)
        b = bit_stream(codes(rng, (n, blocks, block), bits), bits)
        planes = {"B": b, "scales": scales(rng, (n, blocks), signed=True).astype(np.float32)}
        if zero_points:
            planes["zero_points"] = bit_stream(codes(rng, (n, blocks), bits), bits)
        w = ort.run_identity(planes, n, k, bits, block)

        def quantize(x: np.ndarray, bits: int = bits, block: int = block, zp: bool = zero_points) -> np.ndarray:
            return ort.run_identity(ort.quantize(x, bits, block, zp), *x.shape, bits, block)

        yield Golden(name, w, planes, source, errors=errors_of(quantize))


@maker("gptqmodel")
def gptq() -> Iterator[Golden]:
    import torch
    from gptqmodel.nn_modules.qlinear.torch import TorchLinear
    from gptqmodel.quantization.awq.utils.packing_utils import dequantize_gemm, pack_awq

    source = f"gptqmodel {version('gptqmodel')}"
    for bits, group, act_order, v1 in (
        (2, 32, False, False),
        (3, 32, False, False),
        (4, 32, False, False),
        (8, 32, False, False),
        (4, 64, True, False),
        (4, 32, False, True),
        (8, 64, False, True),
    ):
        name = f"gptq{'' if v1 else '_v2'}.int{bits}.g{group}"
        rng = generator(f"{name} {act_order}")
        n, k = 64, 128
        groups = k // group
        q = TorchLinear(bits, group, sym=False, desc_act=act_order, in_features=k, out_features=n)
        zeros = codes(rng, (groups, n), bits)
        if v1:  # stored minus one, so the highest pattern is never written
            zeros = np.minimum(zeros, (1 << bits) - 2)
        q.qweight = torch.from_numpy(bit_stream(codes(rng, (n, k), bits), bits).view(np.int32).T.copy())
        q.qzeros = torch.from_numpy(bit_stream(zeros + v1, bits).view(np.int32))  # the module works on v2
        s = scales(rng, (groups, n))
        q.scales = torch.from_numpy(s.astype(np.float32))
        g_idx = np.arange(k) // group
        q.g_idx = torch.from_numpy((rng.permutation(g_idx) if act_order else g_idx).astype(np.int32))
        q.post_init()
        planes = {"qweight": q.qweight.numpy(), "qzeros": bit_stream(zeros, bits).view(np.int32), "scales": s}
        golden = Golden(name, q.dequantize_weight().T.numpy(), planes, source)
        if act_order:
            golden.name += ".act"
            golden.planes["g_idx"] = q.g_idx.numpy()
        elif not v1:
            golden.errors = errors_of(lambda x, bits=bits, group=group: _gptq_nearest(x, bits, group))
        yield golden

    for group in (32, 128):
        name = f"awq.int4.g{group}"
        rng = generator(name)
        n, k = 48, 256
        qw, qz = codes(rng, (k, n), 4), codes(rng, (k // group, n), 4)
        qweight, qzeros = pack_awq(torch.from_numpy(qw), torch.from_numpy(qz), 4)
        s = scales(rng, (k // group, n))
        w = dequantize_gemm(qweight, qzeros, torch.from_numpy(s.astype(np.float32)), 4, group).T
        planes = {"qweight": qweight.numpy(), "qzeros": qzeros.numpy(), "scales": s}
        yield Golden(name, w.numpy(), planes, source, errors=errors_of(lambda x, g=group: _awq_nearest(x, g)))


def _gptq_nearest(x: np.ndarray, bits: int, group: int) -> np.ndarray:
    """GPTQ's rule for scale and zero point (asymmetric, minimum and maximum), without its error feedback."""
    import torch
    from gptqmodel.quantization.config import QuantizeConfig
    from gptqmodel.quantization.quantizer import Quantizer, quantize

    q = Quantizer(QuantizeConfig(bits=bits, group_size=group, sym=False))
    q.configure(perchannel=True, bits=bits, sym=False)
    w = torch.from_numpy(x.reshape(-1, group))
    q.find_params(w, weight=True)
    scale = q.scale.half().float()
    return quantize(w, scale, q.zero, q.maxq, False).numpy().reshape(x.shape)


def _awq_nearest(x: np.ndarray, group: int) -> np.ndarray:
    """AWQ's rule for scale and zero point (minimum and maximum, zero point rounded), without its rescaling."""
    w = x.reshape(-1, group)
    low, high = w.min(1, keepdims=True), w.max(1, keepdims=True)
    scale = np.maximum(high - low, 1e-5) / 15
    zero = np.clip(-np.round(low / scale), 0, 15)
    scale = scale.astype(np.float16).astype(np.float32)
    return ((np.clip(np.round(w / scale) + zero, 0, 15) - zero) * scale).reshape(x.shape)


@maker("compressed-tensors")
def compressed_tensors() -> Iterator[Golden]:
    import torch
    from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32
    from compressed_tensors.quantization import QuantizationArgs
    from compressed_tensors.quantization.lifecycle.forward import dequantize, quantize
    from compressed_tensors.quantization.utils import calculate_qparams

    source = f"compressed-tensors {version('compressed-tensors')}"
    for bits, group, symmetric in (
        (2, 32, True),
        (3, 32, True),
        (4, 32, True),
        (5, 32, True),
        (6, 32, True),
        (8, 32, True),
        (4, 0, True),
        (2, 64, False),
        (3, 64, False),
        (4, 64, False),
        (8, 64, False),
    ):
        name = f"ct.int{bits}.{f'g{group}' if group else 'channel'}{'' if symmetric else '.zp'}"
        rng = generator(name)
        n, k = 16, 192
        strategy = {"strategy": "group", "group_size": group} if group else {"strategy": "channel"}
        args = QuantizationArgs(num_bits=bits, type="int", symmetric=symmetric, **strategy)
        groups = k // group if group else 1
        half = 1 << (bits - 1)
        q = torch.from_numpy((codes(rng, (n, k), bits) - half).astype(np.int8))
        s = torch.from_numpy(scales(rng, (n, groups)))
        planes = {"weight_packed": pack_to_int32(q, bits).numpy(), "weight_scale": s.numpy()}
        zero = None
        if not symmetric:
            zero = torch.from_numpy((codes(rng, (n, groups), bits) - half).astype(np.int8))
            planes["weight_zero_point"] = pack_to_int32(zero, bits, packed_dim=0).numpy()
        w = dequantize(q, s.float(), zero, args)

        def nearest(x: np.ndarray, args: QuantizationArgs = args, group: int = group) -> np.ndarray:
            t = torch.from_numpy(x)
            parts = t.reshape(x.shape[0], -1, group or x.shape[1])
            scale, zero = calculate_qparams(parts.amin(-1), parts.amax(-1), args)
            scale = scale.half().float()
            return dequantize(quantize(t, scale, zero, args), scale, zero, args).numpy()

        yield Golden(name, w.float().numpy(), planes, source, errors=errors_of(nearest))

    rng = generator("ct.int8")
    q = (codes(rng, (24, 64), 8) - 128).astype(np.int8)
    s = scales(rng, (24, 1))
    args = QuantizationArgs(num_bits=8, type="int", symmetric=True, strategy="channel")
    w = dequantize(torch.from_numpy(q), torch.from_numpy(s.astype(np.float32)), None, args)
    yield Golden("ct.int8", w.numpy(), {"weight": q, "weight_scale": s}, source)


@maker("hqq")
def hqq() -> Iterator[Golden]:
    import torch
    from hqq.core.quantize import Quantizer

    source = f"hqq {version('hqq')}"
    for bits, group in ((1, 64), (2, 64), (3, 64), (4, 64), (8, 64), (4, 32)):
        name = f"hqq.int{bits}.g{group}"
        rng = generator(name)
        n, k = 24, 192
        groups = n * k // group
        q = torch.from_numpy(codes(rng, (groups, group), bits).astype(np.uint8))
        packing = Quantizer.bit_to_packing[bits]
        packed = Quantizer.pack[packing](q)
        s, z = scales(rng, (groups, 1)), (rng.uniform(0, 1 << bits, (groups, 1))).astype(np.float16)
        meta = {
            "nbits": bits,
            "group_size": group,
            "shape": torch.Size((n, k)),
            "scale": torch.from_numpy(s.astype(np.float32)),
            "zero": torch.from_numpy(z.astype(np.float32)),
            "axis": 1,
            "packing": packing,
            "compute_dtype": torch.float32,
            "view_as_float": False,
            "unpack_view_dtype": Quantizer.unpack_view_dtype[packing],
        }
        w = Quantizer.dequantize(packed, meta)

        def nearest(x: np.ndarray, bits: int = bits, group: int = group) -> np.ndarray:
            t, options = torch.from_numpy(x), {"device": "cpu", "compute_dtype": torch.float32, "axis": 1}
            q, meta = Quantizer.quantize(t, nbits=bits, group_size=group, **options)
            meta["scale"], meta["zero"] = meta["scale"].half().float(), meta["zero"].half().float()
            return Quantizer.dequantize(q, meta).numpy()

        planes = {"W_q": packed.numpy(), "scale": s, "zero": z}
        yield Golden(name, w.numpy(), planes, source, errors=errors_of(nearest))


@maker("torchao")
def torchao() -> Iterator[Golden]:
    import torch

    for group in (32, 128):
        name = f"torchao.int4.g{group}"
        rng = generator(name)
        n, k = 64, 256
        q = torch.from_numpy(codes(rng, (n, k), 4).astype(np.int32))
        # The product decides what the kernel reads, so the weights are its product with the identity.
        packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(q, 1)
        sz = np.stack([scales(rng, (k // group, n)), scales(rng, (k // group, n), signed=True)], -1)
        sz = torch.from_numpy(sz.astype(np.float32)).bfloat16()
        eye = torch.eye(k)
        w = torch.ops.aten._weight_int4pack_mm_for_cpu(eye, packed, group, sz.float()).T
        planes = {"qdata": packed.numpy(), "scale_and_zero": sz.view(torch.uint16).numpy()}
        golden = Golden(name, w.numpy(), planes, f"torch {torch.__version__} on a CPU with AVX-512")
        golden.dtypes["scale_and_zero"] = "bfloat16"
        golden.errors = errors_of(lambda x, group=group: _tinygemm_nearest(x, group))
        yield golden


def _tinygemm_nearest(x: np.ndarray, group: int) -> np.ndarray:
    import torch
    from torchao.quantization import quant_primitives as p

    t, block = torch.from_numpy(x).bfloat16(), [1, group]
    limits = (torch.int32, 0, 15)
    scale, zero = p._choose_qparams_affine_tinygemm(
        t, p.MappingType.ASYMMETRIC, block, *limits, 1e-6, None, torch.bfloat16
    )
    q = p._quantize_affine_tinygemm(t, block, scale, zero, *limits).reshape(-1, group).float()
    return ((q - 8) * scale.float().reshape(-1, 1) + zero.float().reshape(-1, 1)).numpy().reshape(x.shape)
