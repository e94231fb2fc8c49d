"""Golden data of the table formats and floats: OpenVINO, bitsandbytes, FP8."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.metadata import version

import numpy as np

from planar.golden import Golden, bit_stream, codes, errors_of, generator, maker, scales


@maker("openvino")
def openvino() -> Iterator[Golden]:
    import openvino as ov
    from openvino import opset15 as op

    source = f"openvino {version('openvino')}"
    core = ov.Core()

    def evaluate(planes: dict[str, np.ndarray], kind: str, shape: tuple[int, ...]) -> np.ndarray:
        """The subgraph Convert - [Subtract] - Multiply in float32, as the CPU plugin computes it."""
        stored = getattr(ov.Type, kind)
        w = op.convert(op.constant(ov.Tensor(planes["weight"], list(shape), stored)), "f32")
        if "zero_point" in planes:
            zero = op.constant(ov.Tensor(planes["zero_point"], [*shape[:-1], 1], stored))
            w = op.subtract(w, op.convert(zero, "f32"))
        planes["scale"] = planes["scale"].reshape(*shape[:-1], 1)
        w = op.multiply(w, op.constant(planes["scale"].astype(np.float32)))
        # A parameter keeps the graph from being folded into a constant before it is run.
        one = op.parameter([1], ov.Type.f32)
        model = ov.Model([op.multiply(w, one)], [one])
        compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        return compiled([np.ones(1, np.float32)])[0].reshape(shape[0], -1)

    cases = (
        ("u4", 32, True, "INT4_ASYM"),
        ("i4", 32, False, "INT4_SYM"),
        ("u4", 128, True, "INT4_ASYM"),
        ("i4", 64, False, "INT4_SYM"),
        ("u8", 0, True, "INT8_ASYM"),
        ("i8", 0, False, "INT8_SYM"),
        ("nf4", 64, False, "NF4"),
        ("u8", 64, True, ""),
        ("i8", 128, False, ""),
    )
    for kind, group, zero_points, mode in cases:
        name = f"openvino.{kind}" + (f".g{group}" if group else "")
        rng = generator(name)
        n, k = 10, 256
        bits = 8 if kind.endswith("8") else 4
        shape = (n, k // group, group) if group else (n, k)
        packed = bit_stream(codes(rng, (n, k), bits), bits)
        planes = {"weight": packed if bits == 8 else packed.reshape(-1), "scale": scales(rng, (n, k // (group or k)))}
        if not zero_points and kind != "nf4":
            planes["scale"] = scales(rng, planes["scale"].shape, signed=True)
        if zero_points:  # OpenVINO packs sub-byte constants without regard to rows
            planes["zero_point"] = bit_stream(codes(rng, (planes["scale"].size,), bits), bits)
        if bits == 8 and group:  # NNCF has no mode for it
            planes["weight"] = planes["weight"].reshape(n, -1, group)
        errors = errors_of(lambda x, mode=mode, group=group: _nncf(x, mode, group)) if mode else {}
        yield Golden(name, evaluate(planes, kind, shape), planes, source, errors=errors)

    for name, kind, bits, mode in (("mxfp4", "f4e2m1", 4, "MXFP4"), ("mxfp8", "f8e4m3", 8, "MXFP8_E4M3")):
        rng = generator(f"openvino.{name}")
        c = codes(rng, (10, 128), bits)
        if bits == 8:
            c[(c & 127) == 127] -= 1  # not a number
        weight = bit_stream(c, bits)
        planes = {"weight": weight.reshape(-1) if bits == 4 else weight.reshape(10, 4, 32)}
        planes["scale"] = rng.integers(110, 135, (10, 4, 1), dtype=np.uint8)
        w = op.convert(op.constant(ov.Tensor(planes["weight"], [10, 4, 32], getattr(ov.Type, kind))), "f32")
        s = op.convert(op.constant(ov.Tensor(planes["scale"], [10, 4, 1], ov.Type.f8e8m0)), "f32")
        one = op.parameter([1], ov.Type.f32)
        model = ov.Model([op.multiply(op.multiply(w, s), one)], [one])
        decoded = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([np.ones(1, np.float32)])[0]
        errors = errors_of(lambda x, mode=mode: _nncf(x, mode, 32))
        yield Golden(f"openvino.{name}", decoded.reshape(10, -1), planes, source, errors=errors)


def _nncf(x: np.ndarray, mode: str, group: int) -> np.ndarray:
    """What NNCF's data-free weight compression makes of the weights of one linear layer."""
    import nncf
    import openvino as ov
    from openvino import opset15 as op

    nncf.set_log_level(40)
    k = x.shape[1]
    p = op.parameter([k, k], ov.Type.f32)
    model = ov.Model([op.matmul(p, op.constant(x), False, True)], [p])
    options = {} if mode.startswith("INT8") else {"group_size": group, "all_layers": True, "ratio": 1.0}
    model = nncf.compress_weights(model, mode=getattr(nncf.CompressWeightsMode, mode), **options)
    precise = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}
    return ov.Core().compile_model(model, "CPU", precise)([np.eye(k, dtype=np.float32)])[0].T


@maker("bitsandbytes")
def bitsandbytes() -> Iterator[Golden]:
    import bitsandbytes.functional as f
    import torch

    source = f"bitsandbytes {version('bitsandbytes')}"
    for kind, block, double in (("nf4", 64, False), ("fp4", 64, False), ("nf4", 128, False), ("nf4", 64, True)):
        name = f"bnb.{kind}.g{block}{'.dq' if double else ''}"
        rng = generator(name)
        n, k = 24, 192 if block == 64 else 256
        blocks = n * k // block
        q = codes(rng, (n * k // 2, 2), 4)
        weight = torch.from_numpy((q[:, 0] << 4 | q[:, 1]).astype(np.uint8).reshape(-1, 1))
        absmax = torch.from_numpy(rng.uniform(0.01, 0.2, blocks).astype(np.float32))
        state = f.QuantState(absmax, torch.Size((n, k)), f.get_4bit_type(kind, "cpu"), block, kind, torch.float32)
        options = {"blocksize": block}
        if double:
            offset = absmax.mean()
            state.absmax, state.state2 = f.quantize_blockwise(absmax - offset, blocksize=256)
            state.nested, state.offset = True, offset
            state.absmax = torch.from_numpy(codes(rng, (blocks,), 8).astype(np.uint8))
        saved = state.as_dict(packed=True)
        planes = {"weight": weight.numpy()}
        for key, value in saved.items():
            if key.startswith("quant_state."):
                options = json.loads(bytes(value.numpy()).decode())
                if double:
                    planes["nested_offset"] = np.array([options["nested_offset"]], np.float32)
            else:
                planes[f"weight.{key}"] = value.numpy()
        w = f.dequantize_4bit(weight, state)

        def quantize(x: np.ndarray, kind: str = kind, block: int = block, double: bool = double) -> np.ndarray:
            q, state = f.quantize_4bit(torch.from_numpy(x), None, None, block, double, kind)
            return f.dequantize_4bit(q, state).numpy()

        yield Golden(name, w.numpy(), planes, source, {}, options, errors_of(quantize))


@maker("fp8")
def fp8() -> Iterator[Golden]:
    import torch

    source = f"torch {torch.__version__}"
    types = {"e4m3": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2}
    for kind, dtype in types.items():
        for scope in ("tensor", "channel", "block128"):
            name = f"fp8.{kind}.{scope}"
            rng = generator(name)
            n, k = (140, 200) if scope == "block128" else (16, 96)
            c = codes(rng, (n, k), 8).astype(np.uint8)
            magnitude = c & 127
            c[magnitude > (126 if kind == "e4m3" else 123)] = 0  # not numbers
            q = torch.from_numpy(c).view(dtype).float()
            shape = {"tensor": (1,), "channel": (n, 1), "block128": (-(-n // 128), -(-k // 128))}[scope]
            s = rng.uniform(0.001, 0.01, shape).astype(np.float32)
            spread = np.repeat(np.repeat(s, 128, 0), 128, 1)[:n, :k] if scope == "block128" else s
            w = q * torch.from_numpy(spread)
            # DeepSeek's name for block scales, which multiply in spite of it; compressed-tensors' name for the others.
            planes = {"weight": c, "weight_scale_inv" if scope == "block128" else "weight_scale": s}

            def quantize(x: np.ndarray, dtype: torch.dtype = dtype, scope: str = scope) -> np.ndarray:
                t = torch.from_numpy(x)
                parts = {"tensor": t.reshape(1, -1), "channel": t, "block128": t.reshape(16, -1, 128).transpose(0, 1)}
                p = parts[scope].reshape(-1, 16 * 128) if scope == "block128" else parts[scope]
                scale = p.abs().amax(1, keepdim=True) / torch.finfo(dtype).max
                out = (p / scale).to(dtype).float() * scale
                if scope == "block128":
                    out = out.reshape(-1, 16, 128).transpose(0, 1)
                return out.reshape(x.shape).numpy()

            golden = Golden(name, w.numpy(), planes, source, errors=errors_of(quantize))
            golden.dtypes["weight"] = str(dtype).removeprefix("torch.")
            yield golden


@maker("compressed-tensors-fp4")
def compressed_tensors_fp4() -> Iterator[Golden]:
    import torch
    from compressed_tensors.compressors.mx_utils import decompress_mx_scale
    from compressed_tensors.compressors.nvfp4.helpers import unpack_fp4_from_uint8
    from compressed_tensors.quantization import QuantizationArgs
    from compressed_tensors.quantization.lifecycle.forward import dequantize

    source = f"compressed-tensors {version('compressed-tensors')}"
    for kind, group in (("nvfp4", 16), ("mxfp4", 32)):
        name = f"ct.{kind}"
        rng = generator(name)
        n, k = 20, 192
        packed = torch.from_numpy(bit_stream(codes(rng, (n, k), 4), 4))
        x = unpack_fp4_from_uint8(packed, n, k, torch.float32)
        planes = {"weight_packed": packed.numpy()}
        dtypes = {}
        if kind == "nvfp4":
            stored = torch.from_numpy(codes(rng, (n, k // group), 7).astype(np.uint8) % 127)
            total = torch.tensor([rng.uniform(1000, 3000)], dtype=torch.float32)
            planes["weight_global_scale"] = total.numpy()
            dtypes["weight_scale"] = "float8_e4m3fn"
            scale, strategy = stored.view(torch.float8_e4m3fn).float(), "tensor_group"
        else:
            stored = torch.from_numpy(rng.integers(100, 140, (n, k // group), dtype=np.uint8))
            scale, total, strategy = decompress_mx_scale(stored).float(), None, "group"
        planes["weight_scale"] = stored.numpy()
        args = QuantizationArgs(num_bits=4, type="float", strategy=strategy, group_size=group, symmetric=True)
        w = dequantize(x, scale, None, args, torch.float32, total)
        yield Golden(name, w.numpy(), planes, source, dtypes)
