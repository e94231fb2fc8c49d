"""GGUF files: the metadata that quantizing adds, and the exact size of a file before it is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgequant.importance import Importance
from edgequant.plan import TensorPlan
from edgequant.presets import Preset

_QUANTIZATION_VERSION = 2  # GGML's number for the current layout of its blocks
_SPLIT_KEYS = ("split.no", "split.count", "split.tensors.count")  # the output is one file


def output_metadata(metadata: Mapping[str, Any], preset: Preset, importance: Importance | None) -> dict[str, Any]:
    """The model's metadata with what llama.cpp adds: file type, version, origin of the importance."""
    out = {k: v for k, v in metadata.items() if k not in _SPLIT_KEYS}
    out["general.quantization_version"] = np.uint32(_QUANTIZATION_VERSION)
    out["general.file_type"] = np.uint32(preset.file_type)
    if importance is not None:
        if importance.path:
            out["quantize.imatrix.file"] = importance.path
        if importance.datasets:
            out["quantize.imatrix.dataset"] = importance.datasets[0]
        out["quantize.imatrix.entries_count"] = np.uint32(len(importance))
        if importance.chunks > 0:
            out["quantize.imatrix.chunks_count"] = np.uint32(importance.chunks)
    return out


def file_size(metadata: Mapping[str, Any], plans: Sequence[TensorPlan]) -> int:
    """Bytes of the GGUF file with this metadata and these tensors."""
    header = 24 + sum(8 + len(k.encode()) + 4 + _value_size(v) for k, v in metadata.items())
    header += sum(8 + len(p.name.encode()) + 4 + 8 * len(p.shape) + 4 + 8 for p in plans)
    alignment = _alignment(metadata)
    return -(-header // alignment) * alignment + data_size(metadata, plans)


def data_size(metadata: Mapping[str, Any], plans: Sequence[TensorPlan]) -> int:
    """Bytes of the tensors in the file, each padded to the alignment."""
    alignment = _alignment(metadata)
    return sum(-(-p.nbytes // alignment) * alignment for p in plans)


def _alignment(metadata: Mapping[str, Any]) -> int:
    return int(metadata.get("general.alignment", 32))


def _value_size(value: Any) -> int:
    """Bytes of a metadata value, without the number of its type."""
    if isinstance(value, str):
        return 8 + len(value.encode())
    if isinstance(value, bool | np.bool_):
        return 1
    if isinstance(value, np.ndarray):
        return 12 + value.nbytes
    if isinstance(value, np.generic):
        return value.nbytes
    if isinstance(value, list | tuple):
        return 12 + sum(_value_size(v) for v in value)
    if isinstance(value, int):
        return 4 if -(2**31) <= value < 2**32 else 8
    return 4  # a plain float is stored as f32
