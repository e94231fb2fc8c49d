"""Writing a model as a Hugging Face directory, tensor by tensor."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

from edgequant import _core

from .files import replacing
from .model import FLOATS, Model, ModelTensor

_CHUNK = 1 << 24
"""Weights that are decoded at a time."""


def export_huggingface(
    model: Model,
    directory: str | Path,
    dtype: str = "f32",
    progress: Callable[[int, int, ModelTensor], None] | None = None,
) -> Path:
    """Writes a directory that transformers loads: config.json, one model.safetensors and the tokenizer's files.

    Quantized weights are decoded, so a model from a GGUF gives the same logits as the GGUF. Memory stays at the mapped
    source and one slice of a tensor; each file appears when it is complete.

    Args:
        model: from `open_model`, a GGUF of any quantization or a Hugging Face directory.
        directory: made where it does not exist; files of the same names are replaced.
        dtype: "f32", "f16" or "bf16", for all weights.
        progress: called before each tensor with its number, their count and the tensor.
    Returns:
        The directory.
    Raises:
        Error: an architecture or tokenizer that edgequant cannot turn back.
    Example:
        >>> export_huggingface(open_model("model.gguf"), "model-hf", dtype="bf16")
    """
    if dtype not in FLOATS:
        raise _core.Error(f"dtype {dtype!r} is none of {', '.join(FLOATS)}")
    directory = Path(directory)
    tensors, files = model.hf_tensors(), model.hf_files()
    if directory.resolve() == Path(model.path).resolve():
        raise _core.Error(f"{directory}: the model cannot be written over itself")
    config = json.loads(files["config.json"])
    name = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}[dtype]
    config["dtype"] = config["torch_dtype"] = name
    files["config.json"] = (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode()
    directory.mkdir(parents=True, exist_ok=True)
    _write_safetensors(directory / "model.safetensors", tensors, dtype, progress)
    for name, content in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        with replacing(directory / name) as file:
            file.write(content)
    return directory


def _write_safetensors(
    path: Path, tensors: list[ModelTensor], dtype: str, progress: Callable[[int, int, ModelTensor], None] | None
) -> None:
    """The format's header is known from shapes alone, so the weights stream behind it."""
    width = 4 if dtype == "f32" else 2
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for tensor in tensors:
        end = offset + math.prod(tensor.shape) * width
        header[tensor.name] = {"dtype": dtype.upper(), "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with replacing(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for index, tensor in enumerate(tensors):
            if progress is not None:
                progress(index, len(tensors), tensor)
            step = max(1, _CHUNK // max(1, tensor.columns))
            for begin in range(0, tensor.row_count, step):
                file.write(_encode(tensor, begin, min(begin + step, tensor.row_count), dtype))


def _encode(tensor: ModelTensor, begin: int, end: int, dtype: str) -> bytes:
    """Rows [begin, end) as little-endian values of the dtype."""
    if tensor.transform is not None:
        values = tensor.f32_rows(begin, end)
        data, source = values.view(np.uint8), "f32"
    else:
        order = tensor.row_permutation
        data = tensor.rows(begin, end) if order is None else tensor.rows()[order[begin:end]]
        source = tensor.format
    return _core.dequantize(data, source, end - begin, tensor.columns, to=dtype).tobytes()
