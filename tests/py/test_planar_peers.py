"""Our planes in the packages of the projects themselves: what they decode is what we decode.

The packages are no dependencies of edgequant: each test is skipped where its own is missing.
"""

from __future__ import annotations

import os
from typing import Any

import edgequant as eq
import numpy as np
import pytest

pytestmark = [pytest.mark.peer, pytest.mark.filterwarnings("ignore")]
os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")  # transformers compiles the unpacking of BitNet weights


def weights(rows: int = 64, cols: int = 256) -> np.ndarray:
    return (np.random.default_rng(7).standard_t(5, (rows, cols)) * 0.02).astype(np.float32)


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
@pytest.mark.parametrize("group", [32, 64, 128])
def test_mlx_affine(bits: int, group: int) -> None:
    mx = pytest.importorskip("mlx.core")
    q = eq.quantize(weights(), f"mlx.affine{bits}.g{group}.f32")
    p = {k: mx.array(v) for k, v in q.planes.items()}
    theirs = mx.dequantize(p["weight"], p["scales"], p["biases"], group, bits)
    np.testing.assert_array_equal(np.array(theirs), q.dequantize())


@pytest.mark.parametrize(("mode", "group", "bits"), [("mxfp4", 32, 4), ("mxfp8", 32, 8), ("nvfp4", 16, 4)])
def test_mlx_small_floats(mode: str, group: int, bits: int) -> None:
    mx = pytest.importorskip("mlx.core")
    q = eq.quantize(weights(), f"mlx.{mode}")
    p = {k: mx.array(v) for k, v in q.planes.items()}
    theirs = mx.dequantize(p["weight"], p["scales"], None, group, bits, mode, dtype=mx.float32)
    np.testing.assert_array_equal(np.array(theirs), q.dequantize())


@pytest.mark.parametrize("zero_points", ["", ".zp"])
@pytest.mark.parametrize(("bits", "group", "cols"), [(2, 32, 96), (4, 16, 96), (4, 128, 200), (8, 64, 100)])
def test_onnxruntime_matmul_nbits(bits: int, group: int, cols: int, zero_points: str) -> None:
    onnxruntime, onnx = pytest.importorskip("onnxruntime"), pytest.importorskip("onnx")
    q = eq.quantize(weights(24, cols), f"onnx.nbits{bits}.g{group}{zero_points}")
    names = ["A", "B", "scales"] + (["zero_points"] if zero_points else [])
    attributes: dict[str, Any] = {"K": cols, "N": 24, "bits": bits, "block_size": group}
    node = onnx.helper.make_node("MatMulNBits", names, ["Y"], domain="com.microsoft", **attributes)
    value = onnx.helper.make_tensor_value_info
    constants = [onnx.numpy_helper.from_array(q.planes[n], n) for n in names[1:]]
    graph = onnx.helper.make_graph([node], "g", [value("A", 1, [cols, cols])], [value("Y", 1, [cols, 24])], constants)
    opsets = [onnx.helper.make_opsetid("", 21), onnx.helper.make_opsetid("com.microsoft", 1)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    theirs = session.run(None, {"A": np.eye(cols, dtype=np.float32)})[0].T
    np.testing.assert_array_equal(theirs, q.dequantize())


@pytest.mark.parametrize(("bits", "act"), [(2, ""), (3, ""), (4, ""), (8, ""), (4, ".act")])
def test_gptqmodel(bits: int, act: str) -> None:
    module = pytest.importorskip("gptqmodel.nn_modules.qlinear.torch")
    import torch

    q = eq.quantize(weights(), f"gptq_v2.int{bits}.g64{act}")
    linear = module.TorchLinear(bits, 64, sym=False, desc_act=bool(act), in_features=256, out_features=64)
    p = {k: torch.from_numpy(v) for k, v in q.planes.items()}
    linear.qweight, linear.qzeros, linear.scales = p["qweight"], p["qzeros"], p["scales"].float()
    linear.g_idx = p.get("g_idx", torch.arange(256) // 64).int()
    linear.post_init()
    np.testing.assert_array_equal(linear.dequantize_weight().T.numpy(), q.dequantize())


def test_gptqmodel_awq() -> None:
    utils = pytest.importorskip("gptqmodel.quantization.awq.utils.packing_utils")
    import torch

    q = eq.quantize(weights(), "awq.int4.g64")
    p = {k: torch.from_numpy(v) for k, v in q.planes.items()}
    theirs = utils.dequantize_gemm(p["qweight"], p["qzeros"], p["scales"].float(), 4, 64)
    np.testing.assert_array_equal(theirs.T.numpy(), q.dequantize())


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize("zero_points", ["", ".zp"])
def test_compressed_tensors(bits: int, zero_points: str) -> None:
    helpers = pytest.importorskip("compressed_tensors.compressors.pack_quantized.helpers")
    import torch

    q = eq.quantize(weights(40, 192), f"ct.int{bits}.g64{zero_points}")
    p = {k: torch.from_numpy(v) for k, v in q.planes.items()}
    codes = helpers.unpack_from_int32(p["weight_packed"], bits, torch.Size((40, 192)))
    zero = torch.zeros(40, 3)
    if zero_points:
        zero = helpers.unpack_from_int32(p["weight_zero_point"], bits, torch.Size((40, 3)), packed_dim=0).float()
    theirs = (codes.reshape(40, 3, 64).float() - zero[..., None]) * p["weight_scale"].float()[..., None]
    np.testing.assert_array_equal(theirs.reshape(40, 192).numpy(), q.dequantize())


@pytest.mark.parametrize("kind", ["u4", "i4", "nf4", "u8", "i8"])
@pytest.mark.parametrize("group", [0, 32, 64])
def test_openvino_constants(kind: str, group: int) -> None:
    ov = pytest.importorskip("openvino")
    op = ov.opset15 if hasattr(ov, "opset15") else pytest.importorskip("openvino.opset15")
    q = eq.quantize(weights(), f"openvino.{kind}" + (f".g{group}" if group else ""))
    stored, shape = getattr(ov.Type, kind), [64, 256 // group, group] if group else [64, 256]
    w = op.convert(op.constant(ov.Tensor(q.planes["weight"], shape, stored)), "f32")
    if "zero_point" in q.planes:
        zero = op.constant(ov.Tensor(q.planes["zero_point"], [*shape[:-1], 1], stored))
        w = op.subtract(w, op.convert(zero, "f32"))
    w = op.multiply(w, op.constant(q.planes["scale"].astype(np.float32)))
    one = op.parameter([1], ov.Type.f32)
    model = ov.Core().compile_model(ov.Model([op.multiply(w, one)], [one]), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    theirs = model([np.ones(1, np.float32)])[0].reshape(64, 256)
    np.testing.assert_array_equal(theirs, q.dequantize())


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize("group", [64, 128])
def test_bitsandbytes(kind: str, group: int) -> None:
    f = pytest.importorskip("bitsandbytes.functional")
    import torch

    q = eq.quantize(weights(), f"bnb.{kind}.g{group}")
    absmax = torch.from_numpy(q.planes["weight.absmax"])
    table = f.get_4bit_type(kind, "cpu")
    state = f.QuantState(absmax, torch.Size((64, 256)), table, group, kind, torch.float32)
    theirs = f.dequantize_4bit(torch.from_numpy(q.planes["weight"]), state)
    np.testing.assert_array_equal(theirs.numpy(), q.dequantize())


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
def test_hqq(bits: int) -> None:
    Quantizer = pytest.importorskip("hqq.core.quantize").Quantizer
    import torch

    q = eq.quantize(weights(), f"hqq.int{bits}.g64")
    p = {k: torch.from_numpy(v) for k, v in q.planes.items()}
    packing = Quantizer.bit_to_packing[bits]
    meta = {"nbits": bits, "group_size": 64, "shape": torch.Size((64, 256)), "axis": 1, "packing": packing}
    meta |= {"scale": p["scale"].float(), "zero": p["zero"].float(), "compute_dtype": torch.float32}
    meta |= {"view_as_float": False, "unpack_view_dtype": Quantizer.unpack_view_dtype[packing]}
    np.testing.assert_array_equal(Quantizer.dequantize(p["W_q"], meta).numpy(), q.dequantize())


def test_torchs_int4_kernel() -> None:
    import torch

    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        pytest.skip("the order of the tiles is that of CPUs with AVX-512")
    q = eq.quantize(weights(), "torchao.int4.g64")
    both = torch.from_numpy(q.planes["scale_and_zero"]).view(torch.bfloat16).float()
    codes = torch.from_numpy(q.planes["qdata"])
    theirs = torch.ops.aten._weight_int4pack_mm_for_cpu(torch.eye(256), codes, 64, both).T
    np.testing.assert_array_equal(theirs.numpy(), q.dequantize())


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
def test_bitsandbytes_double_quantization(kind: str) -> None:
    f = pytest.importorskip("bitsandbytes.functional")
    import torch

    q = eq.quantize(weights(), f"bnb.{kind}.g64.dq")
    p = {k: torch.from_numpy(v) for k, v in q.planes.items()}
    nested = f.QuantState(p["weight.nested_absmax"], None, f.create_dynamic_map(), 256, None, torch.float32)
    options = {"offset": p["nested_offset"][0], "state2": nested}
    shape, table = torch.Size((64, 256)), f.get_4bit_type(kind, "cpu")
    state = f.QuantState(p["weight.absmax"], shape, table, 64, kind, torch.float32, **options)
    np.testing.assert_array_equal(f.dequantize_4bit(p["weight"], state).numpy(), q.dequantize())


@pytest.mark.parametrize("divides", [True, False])
def test_transformers_bitnet(divides: bool) -> None:
    bitnet = pytest.importorskip("transformers.integrations.bitnet")
    import torch

    q = eq.quantize(weights(), "bitnet.hf" if divides else "bitnet.hf_auto")
    p = {k: torch.from_numpy(v) for k, v in q.planes.items()}
    codes = bitnet.unpack_weights(p["weight"], torch.float32)
    theirs = codes / p["weight_scale"] if divides else codes * p["weight_scale"]
    np.testing.assert_array_equal(theirs.numpy(), q.dequantize())


@pytest.mark.parametrize("kind", ["e4m3", "e5m2"])
def test_torchs_float8(kind: str) -> None:
    import torch

    q = eq.quantize(weights(), f"fp8.{kind}.channel")
    dtype = torch.float8_e4m3fn if kind == "e4m3" else torch.float8_e5m2
    theirs = torch.from_numpy(q.planes["weight"]).view(dtype).float() * torch.from_numpy(q.planes["weight_scale"])
    np.testing.assert_array_equal(theirs.numpy(), q.dequantize())
