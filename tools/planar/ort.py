"""onnxruntime's MatMulNBits: its quantizer, and the weights it decodes."""

from __future__ import annotations

import math

import numpy as np


def run_identity(planes: dict[str, np.ndarray], n: int, k: int, bits: int, block: int) -> np.ndarray:
    """(n, k) float32: the product of the identity with the weights, so every sum has one term that is not zero."""
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    inputs = ["A", "B", "scales"] + (["zero_points"] if "zero_points" in planes else [])
    attributes = {"K": k, "N": n, "bits": bits, "block_size": block}
    node = helper.make_node("MatMulNBits", inputs, ["Y"], domain="com.microsoft", **attributes)
    shape = [helper.make_tensor_value_info(t, TensorProto.FLOAT, [k, c]) for t, c in (("A", k), ("Y", n))]
    constants = [numpy_helper.from_array(np.ascontiguousarray(planes[i]), i) for i in inputs[1:]]
    graph = helper.make_graph([node], "g", shape[:1], shape[1:], constants)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"A": np.eye(k, dtype=np.float32)})[0].T


def quantize(x: np.ndarray, bits: int, block: int, zero_points: bool) -> dict[str, np.ndarray]:
    """Planes that onnxruntime's own kernel makes of (N, K) weights."""
    from onnxruntime.capi import _pybind_state as native

    n, k = x.shape
    blocks = math.ceil(k / block)
    b = np.zeros((n, blocks, block * bits // 8), np.uint8)
    scales = np.zeros((n, blocks), np.float32)
    zeros = np.zeros((n, math.ceil(blocks * bits / 8)), np.uint8)
    kernel = getattr(native, f"quantize_matmul_{bits}bits")
    kernel(b, np.ascontiguousarray(x.T), scales.reshape(-1), zeros.reshape(-1), block, n, k, not zero_points)
    return {"B": b, "scales": scales} | ({"zero_points": zeros} if zero_points else {})
