"""ONNX Runtime's MatMulNBits and OpenVINO's compressed MatMul as peers of products with quantized weights.

Each is one model with `copies` products of the same activations, every one with weights of its own, so that they do not
stay in a cache. Weights are random codes: speed does not depend on them.
"""

from __future__ import annotations

import numpy as np


class OrtProducts:
    """com.microsoft MatMulNBits, symmetric, accuracy level 4 (activations in int8), its fastest."""

    name = "ort"

    def __init__(self, bits: int, group: int, n: int, k: int, m: int, copies: int, threads: int) -> None:
        import onnxruntime as ort
        from onnx import TensorProto, helper, numpy_helper

        rng = np.random.default_rng(0)
        codes = rng.integers(0, 256, (n, k // group, group * bits // 8), np.uint8)
        scales = rng.uniform(0.01, 0.02, n * (k // group)).astype(np.float32)
        shape = {"K": k, "N": n, "bits": bits, "block_size": group, "accuracy_level": 4}
        nodes, weights, outputs = [], [], []
        for i in range(copies):
            weights += [
                numpy_helper.from_array(np.roll(codes, i, 0), f"b{i}"),
                numpy_helper.from_array(scales, f"s{i}"),
            ]
            inputs = ["x", f"b{i}", f"s{i}"]
            nodes.append(helper.make_node("MatMulNBits", inputs, [f"y{i}"], domain="com.microsoft", **shape))
            outputs.append(helper.make_tensor_value_info(f"y{i}", TensorProto.FLOAT, [m, n]))
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [m, k])
        graph = helper.make_graph(nodes, "products", [x], outputs, weights)
        versions = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=versions, ir_version=10)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        self._binding = self._session.io_binding()
        self._binding.bind_cpu_input("x", rng.standard_normal((m, k), dtype=np.float32))
        self._results = [ort.OrtValue.ortvalue_from_shape_and_type((m, n), np.float32) for _ in range(copies)]
        for i, result in enumerate(self._results):
            self._binding.bind_ortvalue_output(f"y{i}", result)

    def run(self) -> None:
        self._session.run_with_iobinding(self._binding)


class OpenVinoProducts:
    """i4 or i8 weights, symmetric, decompressed inside the fully connected layer; activations as it does by default."""

    name = "openvino"

    def __init__(self, bits: int, group: int, n: int, k: int, m: int, copies: int, threads: int) -> None:
        import openvino as ov
        from openvino import opset13 as op

        rng = np.random.default_rng(0)
        x = op.parameter([m, k], np.float32)
        results = []
        for _ in range(copies):
            packed = rng.integers(0, 256, n * k * bits // 8, np.uint8)
            type_ = ov.Type.i4 if bits == 4 else ov.Type.i8
            tensor = ov.Tensor(packed.view(np.int8) if bits == 8 else packed, ov.Shape([n, k // group, group]), type_)
            w = op.convert(op.constant(tensor), np.float16)
            scale = rng.uniform(0.01, 0.02, (n, k // group, 1)).astype(np.float16)
            w = op.reshape(op.multiply(w, op.constant(scale)), op.constant(np.array([n, k])), False)
            results.append(op.matmul(x, op.convert(w, np.float32), False, True))
        compiled = ov.Core().compile_model(
            ov.Model(results, [x]), "CPU", {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
        )
        self._request = compiled.create_infer_request()
        self._request.set_input_tensor(ov.Tensor(rng.standard_normal((m, k), dtype=np.float32)))

    def run(self) -> None:
        self._request.infer()


# The schemes of GGML's formats that the runtimes have as well: (bits, group).
SCHEMES = {"q4_0": (4, 32), "q8_0": (8, 32)}
RUNTIMES = (OrtProducts, OpenVinoProducts)
