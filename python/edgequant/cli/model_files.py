"""Model files as they stand, for the verbs that look into them: GGUF, safetensors, Hugging Face directories."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgequant import _core
from edgequant._core import Error, StoredTensor

if TYPE_CHECKING:
    from edgequant.models import ModelTensor

# Types of plain numbers that have no weight format but a NumPy type.
NUMPY_TYPES = {
    "bool": "|b1", "u8": "|u1", "i8": "|i1", "u16": "<u2", "i16": "<i2", "u32": "<u4", "i32": "<i4",
    "u64": "<u8", "i64": "<i8", "f64": "<f8",
}  # fmt: skip
SLICE = 1 << 22  # weights decoded at once


@dataclass
class FileTensor:
    """A tensor and the file that it lies in."""

    stored: StoredTensor
    file: Path

    @property
    def name(self) -> str:
        return self.stored.name

    @property
    def type(self) -> str:
        return self.stored.type

    @property
    def shape(self) -> tuple[int, ...]:
        return self.stored.shape

    @property
    def count(self) -> int:
        """Weights."""
        return math.prod(self.shape)

    @property
    def matrix(self) -> tuple[int, int]:
        """(rows, columns): all dimensions but the last are rows."""
        return math.prod(self.shape[:-1]), self.shape[-1] if self.shape else 1

    def rows(self, begin: int, end: int) -> tuple[np.ndarray, str]:
        """The bytes of some rows, not copied, and their format."""
        return self.stored.data.reshape(self.matrix[0], -1)[begin:end], self.type

    def values(self) -> Iterator[np.ndarray] | None:
        """The numbers in slices of whole rows, flat; float32 for weight formats. None: a type that is not decoded."""
        rows, columns = self.matrix
        dtype = NUMPY_TYPES.get(self.type)
        if dtype is None and self.type not in format_names():
            return None
        if not self.count:
            return iter(())
        data = self.stored.data.reshape(rows, -1)
        step = max(1, SLICE // columns)
        parts = (data[i : i + step] for i in range(0, rows, step))
        if dtype is not None:
            return (part.reshape(-1).view(dtype) for part in parts)
        return (_core.dequantize(part, self.type, len(part), columns).reshape(-1) for part in parts)


@dataclass
class RenamedTensor:
    """A tensor of a Hugging Face model as it would stand in a GGUF file: by name, order of rows and values."""

    source: ModelTensor

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def type(self) -> str:
        return self.source.format

    @property
    def shape(self) -> tuple[int, ...]:
        return self.source.shape

    @property
    def count(self) -> int:
        return math.prod(self.shape)

    @property
    def matrix(self) -> tuple[int, int]:
        return self.source.row_count, self.source.columns

    def rows(self, begin: int, end: int) -> tuple[np.ndarray, str]:
        """The bytes of some rows and their format, which is f32 where values differ from the stored ones."""
        if self.source.transform is not None:
            return self.source.f32_rows(begin, end), "f32"
        order = self.source.row_permutation
        return self.source.rows(begin, end) if order is None else self.source.rows()[order[begin:end]], self.type

    def values(self) -> Iterator[np.ndarray] | None:
        """float32 slices of whole rows, flat."""
        rows, columns = self.matrix
        step = max(1, SLICE // max(1, columns))
        return (self.source.f32_rows(i, min(rows, i + step)).reshape(-1) for i in range(0, rows, step))


def as_gguf(model: ModelFiles) -> tuple[dict[str, Any], list[RenamedTensor]]:
    """Metadata and tensors of a Hugging Face directory in GGUF's terms.

    Raises:
        Error: an architecture without such terms.
    """
    from edgequant.models import open_model

    opened = open_model(model.path)
    return opened.gguf_metadata(), [RenamedTensor(t) for t in opened.tensors]


@dataclass
class ModelFiles:
    """What `inspect` and `diff` know of their argument: `facts` of the container, metadata and tensors."""

    path: Path
    kind: str  # "gguf", "safetensors" or "huggingface"
    facts: dict[str, Any]
    metadata: dict[str, Any]
    tensors: list[FileTensor] = field(default_factory=list)


_names: frozenset[str] | None = None


def format_names() -> frozenset[str]:
    """The formats that can be decoded."""
    global _names
    if _names is None:
        _names = frozenset(f["name"] for f in _core.formats())
    return _names


def open_files(path: str | Path) -> ModelFiles:
    """Opens a GGUF file, a safetensors file or a directory of safetensors files; only headers are read.

    Raises:
        Error: it is none of them, or damaged.
    """
    path = Path(path)
    if path.is_dir():
        return _open_directory(path)
    if not path.exists():
        raise Error(f"{path}: no such file or directory")
    if not path.is_file():
        raise Error(f"{path}: is not a regular file")
    with path.open("rb") as file:
        magic = file.read(9)
    if magic[:4] == b"GGUF" or path.suffix == ".gguf":
        gguf = _core.GgufFile(path)
        facts = {"version": gguf.version, "alignment": gguf.alignment, "file_size": path.stat().st_size}
        return ModelFiles(path, "gguf", facts, gguf.metadata, [FileTensor(t, path) for t in gguf.tensors])
    if magic[8:] == b"{" or path.suffix == ".safetensors":
        return _open_safetensors(path)
    raise Error(f"{path}: neither GGUF nor safetensors: it begins with {magic[:4]!r}")


def _open_safetensors(path: Path) -> ModelFiles:
    file = _core.SafetensorsFile(path)
    facts = {"file_size": path.stat().st_size}
    return ModelFiles(path, "safetensors", facts, dict(file.metadata), [FileTensor(t, path) for t in file.tensors])


def _open_directory(path: Path) -> ModelFiles:
    shards = _shards(path)
    if not shards:
        raise Error(f"{path}: a directory without safetensors files")
    model = ModelFiles(path, "huggingface", {"files": [], "file_size": 0}, {})
    config = path / "config.json"
    if config.exists():
        model.metadata.update(_flatten(_read_json(config), "config"))
    names: dict[str, Path] = {}
    for shard in shards:
        one = _open_safetensors(shard)
        model.facts["files"].append(shard.name)
        model.facts["file_size"] += one.facts["file_size"]
        for tensor in one.tensors:
            if tensor.name in names:
                raise Error(f"{path}: tensor {tensor.name!r} is in {names[tensor.name].name} and in {shard.name}")
            names[tensor.name] = shard
            model.tensors.append(tensor)
    return model


def _shards(path: Path) -> list[Path]:
    index = path / "model.safetensors.index.json"
    if not index.exists():
        return sorted(path.glob("*.safetensors"))
    files = _read_json(index).get("weight_map")
    if not isinstance(files, dict) or not all(isinstance(f, str) for f in files.values()):
        raise Error(f"{index}: weight_map is missing or not a map of names to files")
    names = sorted(set(files.values()))
    if any(Path(name).name != name for name in names):
        raise Error(f"{index}: weight_map names a file outside the directory")
    return [path / name for name in names]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as e:
        raise Error(f"{path}: not valid JSON: {e}") from None
    if not isinstance(value, dict):
        raise Error(f"{path}: not a JSON object")
    return value


def _flatten(value: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """Nested objects as dotted keys."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flatten(inner, f"{prefix}.{key}")
    else:
        yield prefix, value
