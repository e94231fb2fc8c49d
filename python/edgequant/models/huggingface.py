"""Hugging Face directories as sources: config.json, safetensors shards and tokenizer files."""

from __future__ import annotations

import functools
import math
import re
from pathlib import Path
from typing import Any

import numpy as np

from edgequant import _core

from . import hyperparameters
from .architectures import Architecture, Rule
from .files import read_json
from .model import FLOATS, Model, ModelTensor, malformed, rope_permutation
from .tokenizer import read_vocabulary

_COPIED = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "modules.json",
    "sentence_bert_config.json",
    "1_Pooling/config.json",
)


class HuggingFaceModel(Model):
    """A directory as `save_pretrained` writes it."""

    kind = "huggingface"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        where = str(path)
        raw = read_json(path / "config.json")
        if not isinstance(raw, dict):
            raise _core.Error(f"{path}: no config.json, so this is not a Hugging Face model directory")
        with malformed(where, "config.json is"):
            architecture = hyperparameters.find_architecture(raw, where)
            self._config = hyperparameters.complete(raw, architecture, where)
            self._own_metadata, computed = hyperparameters.to_gguf(self._config, architecture, where)
        self.architecture = architecture.name
        with malformed(where, "model.safetensors.index.json is"):
            self._stored = _stored_tensors(path)
        self._metadata: dict[str, Any] | None = None
        for name, values in computed.items():
            self.tensors.append(ModelTensor(name, "config.json", values.shape, "f32", values.view(np.uint8)))
        self._match(architecture)
        self._add_notes(architecture)

    def gguf_metadata(self) -> dict[str, Any]:
        if self._metadata is None:
            rows = int(self._config["vocab_size"])
            with malformed(str(self.path), "the tokenizer's files are"):
                words = read_vocabulary(self.path, self._config, rows)
                pooling = _pooling_type(self.path) if self.architecture == "bert" else None
            prefix = self.architecture + "."
            weights = sum(math.prod(tensor.shape) for tensor in self.tensors)
            self._metadata = {
                **_general(self.path, self.architecture, weights, str(self._config.get("_name_or_path", ""))),
                **{prefix + key: value for key, value in self._own_metadata.items()},
                **words.metadata(),
            }
            if self.architecture == "bert":
                self._metadata["tokenizer.ggml.token_type_count"] = np.uint32(self._config["type_vocab_size"])
            if pooling is not None:
                self._metadata["bert.pooling_type"] = np.uint32(pooling)
            self.notes += words.notes
        return dict(self._metadata)

    def hf_tensors(self) -> list[ModelTensor]:
        return [ModelTensor(s.name, s.name, tuple(s.shape), s.type, s) for s in self._stored.values()]

    def hf_files(self) -> dict[str, bytes]:
        return {name: (self.path / name).read_bytes() for name in _COPIED if (self.path / name).is_file()}

    def _match(self, architecture: Architecture) -> None:
        """Finds each tensor of the table; what is left over must be known to be useless."""
        stored = {_modern(name): tensor for name, tensor in self._stored.items()}
        anchors = [name for name in stored if name == architecture.anchor or name.endswith("." + architecture.anchor)]
        if len(anchors) != 1:
            raise _core.Error(
                f"{self.path}: one tensor named {architecture.anchor} is needed, found {anchors or 'none'}"
            )
        base = anchors[0].removesuffix(architecture.anchor)
        sizes = hyperparameters.dimensions(self._config)
        tied = bool(self._config.get("tie_word_embeddings"))
        used, missing = set(), []
        blocks = int(self._config["num_hidden_layers"])
        if blocks > len(stored):
            raise _core.Error(f"{self.path}: config.json has {blocks} layers, but there are {len(stored)} tensors")
        for rule, gguf, hf in architecture.expand(blocks):
            name = base + hf
            if hf.startswith("/"):
                name = next((n for n in stored if n == hf[1:] or n.endswith("." + hf[1:])), hf[1:])
            tensor = stored.get(name)
            if tensor is None:
                if rule.required or (rule.gguf == "output.weight" and not tied):
                    missing.append(name)
                continue
            used.add(name)
            if rule.gguf == "output.weight" and tied:
                self.ignored.append(tensor.name)  # transformers ignores it as well
                continue
            self.tensors.append(self._tensor(rule, gguf, tensor, sizes))
        if missing:
            raise _core.Error(f"{self.path}: {_some(missing)} missing from the safetensors files")
        extra = [name for name in stored if name not in used]
        useless = [name for name in extra if hyperparameters.matches(architecture.ignored, name)]
        unknown = [name for name in extra if name not in useless]
        if unknown:
            raise _core.Error(f"{self.path}: {_some(unknown)} not known in a {architecture.name} model")
        self.ignored += [stored[name].name for name in useless]

    def _tensor(self, rule: Rule, gguf: str, stored: Any, sizes: dict[str, int]) -> ModelTensor:
        shape = tuple(int(n) for n in stored.shape)
        expected = tuple(sizes[letter] for letter in rule.shape)
        if shape != expected:
            raise _core.Error(f"{self.path}: {stored.name} has shape {shape}, config.json implies {expected}")
        if stored.type not in FLOATS:
            raise _core.Error(f"{self.path}: {stored.name} has type {stored.type}; {', '.join(FLOATS)} can be read")
        tensor = ModelTensor(gguf, stored.name, shape, stored.type, stored)
        if rule.change == "plus_one":
            tensor.transform = _plus_one
        elif rule.change:
            key = "num_attention_heads" if rule.change == "rope_q" else "num_key_value_heads"
            permutation = rope_permutation(shape[0], self._config[key])
            if len(shape) == 1:
                tensor.transform = functools.partial(np.take, indices=permutation, axis=-1)
            else:
                tensor.row_permutation = permutation
        return tensor

    def _add_notes(self, architecture: Architecture) -> None:
        windowed = self._config.get("sliding_window") and self._config.get("use_sliding_window", True)
        if architecture.name in ("llama", "qwen2", "qwen3", "phi3") and windowed:
            window = self._config["sliding_window"]
            self.notes.append(f"llama.cpp attends to the whole context, not to a window of {window} tokens")
        if self.ignored:
            self.notes.append(f"{len(self.ignored)} tensors have no place in the GGUF: {_some(self.ignored)}")


def _plus_one(values: np.ndarray) -> np.ndarray:
    return values + np.float32(1)


def _stored_tensors(path: Path) -> dict[str, Any]:
    """Every tensor of the directory's safetensors by name, in the files' order; nothing is read yet."""
    index = read_json(path / "model.safetensors.index.json")
    if (path / "model.safetensors").is_file():
        names = ["model.safetensors"]
    elif index is not None:
        names = sorted(set(index.get("weight_map", {}).values()))
    elif list(path.glob("*.bin")) + list(path.glob("*.pt")) + list(path.glob("*.pth")):
        raise _core.Error(f"{path}: only pickled weights, which can run code and are not read; save as safetensors")
    else:
        raise _core.Error(f"{path}: neither model.safetensors nor model.safetensors.index.json")
    result: dict[str, Any] = {}
    for name in names:
        if Path(name).name != name or not (path / name).is_file():
            raise _core.Error(f"{path}: the index names the shard {name!r}, which is not there")
        for tensor in _core.SafetensorsFile(str(path / name)).tensors:
            if tensor.name in result:
                raise _core.Error(f"{path}: {tensor.name} is in more than one shard")
            result[tensor.name] = tensor
    lost = [name for name in (index or {}).get("weight_map", {}) if name not in result]
    if lost and names != ["model.safetensors"]:
        raise _core.Error(f"{path}: the index names {_some(lost)}, which no shard holds")
    return result


def _modern(name: str) -> str:
    """BERT checkpoints from TensorFlow's days call weight and bias of a norm gamma and beta."""
    return re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name))


def _some(names: list[str], count: int = 4) -> str:
    return ", ".join(names[:count]) + (f" and {len(names) - count} more" if len(names) > count else "")


def _general(path: Path, architecture: str, weights: int, given: str) -> dict[str, Any]:
    """The general.* keys: name, and what the model card's header says."""
    folder = path.absolute().name
    hub = re.search(r"models--[^/]+--([^/]+)/snapshots/", path.absolute().as_posix())
    folder = hub.group(1) if hub else Path(given).name if given and folder in ("model", "snapshot", "") else folder
    name = re.sub(r"[-_]+", " ", folder).strip() or architecture
    scale, unit = next((s, u) for s, u in ((1e9, "B"), (1e6, "M"), (1e3, "K"), (1, "")) if weights >= s or s == 1)
    size = weights / scale
    result: dict[str, Any] = {
        "general.architecture": architecture,
        "general.type": "model",
        "general.name": name,
        "general.size_label": f"{size:.1f}".rstrip("0").rstrip(".") + unit if size < 10 else f"{size:.0f}{unit}",
    }
    card = path / "README.md"
    if card.is_file():
        header = re.match(r"---\n(.*?)\n---", card.read_text("utf-8", "replace"), re.DOTALL)
        licence = re.search(r"^license:[ \t]*(\S+)", header.group(1), re.MULTILINE) if header else None
        if licence:
            result["general.license"] = licence.group(1).strip("'\"")
    return result


def _pooling_type(path: Path) -> int | None:
    """llama.cpp's number of the pooling that sentence-transformers' modules.json describes; None if there is none."""
    for module in read_json(path / "modules.json") or []:
        if not str(module.get("type", "")).endswith("Pooling"):
            continue
        config = read_json(path / module.get("path", "") / "config.json") or {}
        for key, mode, number in (("mean_tokens", "mean", 1), ("cls_token", "cls", 2), ("lasttoken", "lasttoken", 3)):
            if config.get(f"pooling_mode_{key}") or config.get("pooling_mode") == mode:
                return number
        raise _core.Error(f"{path}: of sentence-transformers' poolings, llama.cpp knows mean, cls and lasttoken")
    return None
