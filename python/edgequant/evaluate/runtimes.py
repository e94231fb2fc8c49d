"""Causal language models of other runtimes, each run by its own: ONNX Runtime, OpenVINO, MLX, llama.cpp.

Every runtime is used with its defaults, so the numbers are those that its users get. A model needs its tokenizer.json
beside it, or a tokenizer that is named.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgequant._core import Error
from edgequant.evaluate.dependencies import require
from edgequant.evaluate.language import Predict

RUNTIMES = ("auto", "torch", "onnxruntime", "openvino", "mlx", "llama.cpp")


def runtime_of(path: Path) -> str:
    """The runtime that a file or directory is made for."""
    if path.is_dir():
        if (path / "openvino_model.xml").is_file():
            return "openvino"
        if (path / "genai_config.json").is_file() or (path / "model.onnx").is_file():
            return "onnxruntime"
        config = path / "config.json"
        if config.is_file():
            stored = _json(config).get("quantization")
            return "mlx" if isinstance(stored, dict) and "group_size" in stored else "torch"
    return {".onnx": "onnxruntime", ".xml": "openvino"}.get(path.suffix, "torch")


def open_runtime(path: Path, runtime: str) -> tuple[Predict, str]:
    """What predicts, and the runtime's name with its version.

    Raises:
        Error: the runtime is not installed; it cannot load the file; the model is not a causal language model.
    """
    if not path.exists():
        raise Error(f"{path}: there is no such file or directory")
    opener: Callable[[Path], tuple[Predict, str]] = {
        "onnxruntime": _onnx, "openvino": _openvino, "mlx": _mlx, "llama.cpp": _llama_cpp
    }[runtime]  # fmt: skip
    try:
        return opener(path)
    except Error:
        raise
    except Exception as error:  # each runtime has exceptions of its own
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise Error(f"{path}: {runtime} cannot load this model: {first}") from error


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Error(f"{path}: not readable as JSON ({error})") from error
    return content if isinstance(content, dict) else {}


def _tensor(logits: Any, path: Path, window: np.ndarray) -> Any:
    """Logits as a torch tensor, float32 (context, vocabulary)."""
    import torch

    array = np.asarray(logits)
    if array.dtype.name == "bfloat16":
        array = array.astype(np.float32)
    if array.ndim != 3 or array.shape[:2] != (1, len(window)):
        raise Error(f"{path}: logits of shape {array.shape} for {len(window)} tokens; one prediction each is needed")
    return torch.from_numpy(array[0].astype(np.float32))


def _feed(path: Path, inputs: dict[str, tuple[str, list[Any]]], window: np.ndarray) -> dict[str, np.ndarray]:
    """Arguments of a graph by the names that exporters use. `inputs`: NumPy type and shape (None or a name: open)."""
    count = len(window)
    feeds = {}
    for name, (dtype, shape) in inputs.items():
        if name == "input_ids":
            value = window[None]
        elif name == "attention_mask":
            value = np.ones((1, count))
        elif name in ("position_ids", "cache_position"):
            value = np.arange(count).reshape([1, count] if len(shape) == 2 else [count])
        elif name == "beam_idx":
            value = np.zeros(1)
        elif name == "use_cache_branch":
            value = np.zeros(1)
        elif name.startswith("past"):  # nothing came before: batch 1, no tokens
            value = np.zeros([1 if i == 0 else d if isinstance(d, int) and d > 0 else 0 for i, d in enumerate(shape)])
        else:
            raise Error(f"{path}: the graph has an input {name}; a causal language model has none of that name")
        feeds[name] = np.ascontiguousarray(value, dtype)
    if "input_ids" not in feeds:
        raise Error(f"{path}: the graph has no input input_ids; this is not a causal language model")
    return feeds


_ONNX_TYPES = {"tensor(int64)": "int64", "tensor(int32)": "int32", "tensor(float)": "float32",
               "tensor(float16)": "float16", "tensor(bool)": "bool"}  # fmt: skip


def _onnx(path: Path) -> tuple[Predict, str]:
    onnxruntime = require("onnxruntime", "onnxruntime")
    file = path
    if path.is_dir():
        genai = path / "genai_config.json"
        named = _json(genai).get("model", {}).get("decoder", {}).get("filename") if genai.is_file() else None
        file = path / (named or "model.onnx")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    inputs = {i.name: (_ONNX_TYPES.get(i.type, "float32"), i.shape) for i in session.get_inputs()}
    if "logits" not in {output.name for output in session.get_outputs()}:
        raise Error(f"{file}: the graph has no output logits; this is not a causal language model")

    def predict(window: np.ndarray) -> Any:
        return _tensor(session.run(["logits"], _feed(file, inputs, window))[0], file, window)

    return predict, f"ONNX Runtime {onnxruntime.__version__}"


def _openvino(path: Path) -> tuple[Predict, str]:
    openvino = require("openvino", "openvino")
    file = path / "openvino_model.xml" if path.is_dir() else path
    model = openvino.Core().compile_model(str(file), "CPU")
    inputs = {}
    for port in model.inputs:
        shape = [None if d.is_dynamic else d.get_length() for d in port.get_partial_shape()]
        inputs[port.get_any_name()] = (port.get_element_type().to_dtype().name, shape)
    names = {name for port in model.outputs for name in port.get_names()}
    if "logits" not in names:
        raise Error(f"{file}: the graph has no output logits; this is not a causal language model")
    request = model.create_infer_request()

    def predict(window: np.ndarray) -> Any:
        request.reset_state()
        request.infer(_feed(file, inputs, window))
        return _tensor(request.get_tensor("logits").data, file, window)

    return predict, f"OpenVINO {openvino.__version__.partition('-')[0]}"


def _mlx(path: Path) -> tuple[Predict, str]:
    mlx = require("mlx.core", "mlx[cpu] mlx-lm")
    model, *_ = require("mlx_lm.utils", "mlx[cpu] mlx-lm").load_model(path)

    def predict(window: np.ndarray) -> Any:
        return _tensor(np.array(model(mlx.array(window)[None]).astype(mlx.float32)), path, window)

    return predict, f"MLX {mlx.__version__}"


def _llama_cpp(path: Path) -> tuple[Predict, str]:
    llama_cpp = require("llama_cpp", "llama-cpp-python")
    loaded: dict[int, Any] = {}

    def predict(window: np.ndarray) -> Any:
        count = len(window)
        if count not in loaded:
            loaded[count] = llama_cpp.Llama(
                str(path), n_ctx=count, n_batch=count, n_ubatch=count, logits_all=True, verbose=False
            )
        model = loaded[count]
        model.reset()
        model.eval(window.tolist())
        return _tensor(model.scores[None, :count], path, window)

    return predict, f"llama.cpp (llama-cpp-python {llama_cpp.__version__})"
