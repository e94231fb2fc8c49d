"""GGUF files: the metadata that quantizing adds, and the exact size of a file before it is written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from edgequant import _core

if TYPE_CHECKING:
    from edgequant.importance import Importance
    from edgequant.plan import TensorPlan
    from edgequant.presets import Preset

_QUANTIZATION_VERSION = 2  # GGML's number for the current layout of its blocks
_SPLIT_KEYS = ("split.no", "split.count", "split.tensors.count")  # the output is one file


def output_metadata(metadata: _core.GgufMetadata, preset: Preset, importance: Importance | None) -> _core.GgufMetadata:
    """The model's metadata with what llama.cpp adds: file type, version, origin of the importance."""
    added: dict[str, Any] = {
        "general.quantization_version": _QUANTIZATION_VERSION,
        "general.file_type": preset.file_type,
    }
    if importance is not None:
        if importance.path:
            added["quantize.imatrix.file"] = importance.path
        if importance.datasets:
            added["quantize.imatrix.dataset"] = importance.datasets[0]
        added["quantize.imatrix.entries_count"] = len(importance)
        if importance.chunks > 0:
            added["quantize.imatrix.chunks_count"] = importance.chunks
    return metadata.updated(added, _SPLIT_KEYS)


def entries(plans: Sequence[TensorPlan]) -> list[tuple[str, tuple[int, ...], str]]:
    """The tensors as a GgufWriter wants them."""
    return [(p.name, p.shape, p.target) for p in plans]


def file_size(metadata: _core.GgufMetadata, plans: Sequence[TensorPlan]) -> int:
    """Bytes of the GGUF file with this metadata and these tensors."""
    return _core.gguf_size(metadata, entries(plans))


def data_size(metadata: _core.GgufMetadata, plans: Sequence[TensorPlan]) -> int:
    """Bytes of the tensors in the file, each padded to the alignment."""
    alignment = int(metadata.get("general.alignment", 32))
    return sum(-(-p.nbytes // alignment) * alignment for p in plans)
