"""GGUF files as sources: passed through for requantizing, or turned back into Hugging Face's terms."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgequant import _core

from .model import Model, ModelTensor, malformed, rope_permutation

if TYPE_CHECKING:  # requantizing, whose time counts from the start of the process, needs neither
    import numpy as np

    from .architectures import Architecture

# The target writes its own.
_OF_THE_TARGET = ("general.file_type", "general.quantization_version", "split.no", "split.count", "split.tensors.count")
_POOLING = {1: "mean_tokens", 2: "cls_token", 3: "lasttoken"}


class GgufModel(Model):
    """One GGUF file, or the first of a split one."""

    kind = "gguf"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        files = [_core.GgufFile(str(path))]
        self._file = files[0]
        self._plain = self._file.plain_metadata()
        architecture = self._plain.get("general.architecture")
        if not isinstance(architecture, str):
            raise _core.Error(f"{path}: no general.architecture, so this GGUF file does not hold a model")
        self.architecture = architecture
        self.files = [path, *self._other_parts()]
        files += [_core.GgufFile(str(part)) for part in self.files[1:]]
        for stored in (tensor for file in files for tensor in file.tensors):
            self.tensors.append(ModelTensor(stored.name, stored.name, stored.shape, stored.type, stored))

    @property
    def _metadata(self) -> dict[str, Any]:
        return self._file.metadata

    def target_metadata(self) -> _core.GgufMetadata:
        return self._plain

    def gguf_metadata(self) -> dict[str, Any]:
        return {key: value for key, value in self._metadata.items() if key not in _OF_THE_TARGET}

    def hf_tensors(self) -> list[ModelTensor]:
        architecture = self._table()
        prefix = architecture.name + "."
        heads = self._metadata.get(prefix + "attention.head_count", 0)
        with malformed(str(self.path), "the metadata are"):
            blocks = int(self._metadata[prefix + "block_count"])
            counts = {
                "rope_q": int(heads),
                "rope_k": int(self._metadata.get(prefix + "attention.head_count_kv", heads)),
            }
        if blocks > len(self.tensors):
            raise _core.Error(
                f"{self.path}: {prefix}block_count is {blocks}, but there are {len(self.tensors)} tensors"
            )
        stored = {tensor.name: tensor for tensor in self.tensors}
        result, missing = [], []
        for rule, gguf, hf in architecture.expand(blocks):
            source = stored.pop(gguf, None)
            if source is None:
                if rule.required:
                    missing.append(gguf)
                continue
            name = hf[1:] if hf.startswith("/") else ("" if architecture.name == "bert" else "model.") + hf
            tensor = ModelTensor(name, gguf, source.shape, source.format, source.stored)
            if rule.change == "plus_one":
                tensor.transform = _minus_one
            elif rule.change:
                count = counts[rule.change]
                if count <= 0 or source.shape[0] % (2 * count):
                    raise _core.Error(f"{self.path}: {gguf} has {source.shape[0]} rows for {count} heads")
                permutation = rope_permutation(source.shape[0], count, inverse=True)
                if len(source.shape) == 1:
                    tensor.transform = functools.partial(_take, order=permutation)
                else:
                    tensor.row_permutation = permutation
            result.append(tensor)
        if missing:
            raise _core.Error(f"{self.path}: {', '.join(missing[:4])} missing")
        unknown = [name for name in stored if name not in architecture.extra_tensors]
        if unknown:
            raise _core.Error(f"{self.path}: {', '.join(unknown[:4])} not known in a {architecture.name} model")
        return result

    def hf_files(self) -> dict[str, bytes]:
        with malformed(str(self.path), "the metadata are"):
            return self._files(self._table())

    def _files(self, architecture: Architecture) -> dict[str, bytes]:
        from . import hyperparameters
        from .tokenizer_export import tokenizer_files

        computed = {t.name: t.f32() for t in self.tensors if t.name in architecture.extra_tensors}
        config = hyperparameters.from_gguf(self._metadata, computed, architecture, str(self.path))
        if architecture.name != "bert":
            config["tie_word_embeddings"] = all(tensor.name != "output.weight" for tensor in self.tensors)
        files, ids = tokenizer_files(self._metadata, str(self.path), config["max_position_embeddings"])
        config.update(ids)
        by_name = {tensor.name: tensor for tensor in self.tensors}
        for rule in architecture.tensors:  # transformers makes a bias only where the configuration asks for one
            key = "mlp_bias" if "ffn" in rule.gguf else "attention_bias"
            if key in config and rule.gguf.endswith(".bias") and rule.gguf.replace("*", "0") in by_name:
                config[key] = True
        files = {"config.json": _json(config), **files}
        pooling = _POOLING.get(int(self._metadata.get(f"{architecture.name}.pooling_type", 0)))
        if pooling:
            files.update(_sentence_transformers_files(pooling, config["hidden_size"]))
        return files

    def _table(self) -> Architecture:
        from .architectures import ARCHITECTURES

        if self.architecture not in ARCHITECTURES:
            known = ", ".join(ARCHITECTURES)
            raise _core.Error(
                f"{self.path}: a {self.architecture} model cannot be turned into a Hugging Face directory; {known} can"
            )
        return ARCHITECTURES[self.architecture]

    def _other_parts(self) -> list[Path]:
        """The other files of a model that llama.cpp's gguf-split cut into several."""
        count = int(self._plain.get("split.count", 0))
        if count <= 1:
            return []
        match = re.fullmatch(r"(.*)-00001-of-(\d{5})\.gguf", self.path.name)
        if match is None or int(match.group(2)) != count:
            first = f"...-00001-of-{count:05}.gguf"
            raise _core.Error(f"{self.path}: part of a model in {count} files; give the one named {first}")
        parts = [self.path.with_name(f"{match.group(1)}-{n:05}-of-{count:05}.gguf") for n in range(2, count + 1)]
        for part in parts:
            if not part.is_file():
                raise _core.Error(f"{part}: no such file, but {self.path.name} says that the model is in {count} files")
        return parts


def _minus_one(values: np.ndarray) -> np.ndarray:
    return values - values.dtype.type(1)


def _take(values: np.ndarray, order: np.ndarray) -> np.ndarray:
    return values[..., order]


def _json(value: Any) -> bytes:
    import json

    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def _sentence_transformers_files(pooling: str, width: int) -> dict[str, bytes]:
    """What sentence-transformers needs to pool as the GGUF's pooling_type says."""
    modes = {f"pooling_mode_{mode}": mode == pooling for mode in _POOLING.values()}
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    return {
        "modules.json": _json(modules),
        "1_Pooling/config.json": _json({"word_embedding_dimension": width, **modes}),
    }
