"""Models into transformers modules: a HF directory by transformers itself, a GGUF by decoding it tensor by tensor.

Transformers loads the HF directory so that the reference side of a comparison shares no code with edgequant's readers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from edgequant._core import Error
from edgequant.evaluate import embedding
from edgequant.evaluate.dependencies import require

# The last GGUF's module, by its configuration: quantizations of one model take turns in it, since building
# a module initializes every weight and costs more than filling it.
_slot: dict[str, Any] = {}


@dataclass
class Loaded:
    """A model ready to be measured."""

    path: Path
    kind: str  # "causal" or "encoder"
    module: Any
    tokenizer: Any
    pooling: str = "mean"
    max_length: int = 256

    @property
    def article(self) -> str:
        return "a language model" if self.kind == "causal" else "an encoder"

    @property
    def max_positions(self) -> int | None:
        return getattr(self.module.config, "max_position_embeddings", None)

    def take(self) -> Any:
        """The module, for good: the next model of this configuration gets another one."""
        for key in [key for key, module in _slot.items() if module is self.module]:
            del _slot[key]
        return self.module

    def embed(self, sentences: Sequence[str], progress: Callable[[int], None] | None = None) -> np.ndarray:
        length = min(self.max_length, self.max_positions or self.max_length)
        return embedding.embed(self.module, self.tokenizer, list(sentences), self.pooling, length, progress)


def load(path: str | Path, dtype: str = "f32") -> Loaded:
    """Loads a model for measuring, in evaluation mode, on the CPU.

    Args:
        path: HF directory, or GGUF file of an architecture that edgequant knows.
        dtype: "f32" or "bf16".

    Raises:
        Error: torch or transformers is absent; the file is absent, damaged, or neither kind; the model is neither a
            causal language model nor an encoder; weights are missing.
    """
    torch = require("torch", "hf")
    transformers = require("transformers", "hf")
    path = Path(path)
    types = {"f32": torch.float32, "bf16": torch.bfloat16}
    if dtype not in types:
        raise Error(f'dtype "{dtype}" is not known; f32 and bf16 are')
    with _quiet(transformers):
        if path.is_dir():
            return _load_directory(path, types[dtype])
        if not path.exists():
            raise Error(f"{path}: there is no such file or directory")
        return _load_gguf(path, types[dtype])


def _load_directory(path: Path, dtype: Any) -> Loaded:
    from transformers import AutoModel, AutoModelForCausalLM

    if not (path / "config.json").is_file():
        raise Error(f"{path}: no config.json; this is not a Hugging Face model directory")
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
        kind = _kind(path, config)
        auto, options = (AutoModelForCausalLM, {}) if kind == "causal" else (AutoModel, {"add_pooling_layer": False})
        module = auto.from_pretrained(path, dtype=dtype, local_files_only=True, **options)
    except (OSError, ValueError, KeyError) as error:
        if isinstance(error, Error):
            raise
        raise Error(f"{path}: transformers cannot load this model: {_first_line(error)}") from error
    pooling, max_length = _sentence_settings(path)
    return Loaded(path, kind, module.eval(), _tokenizer(path, path), pooling, max_length)


def _kind(path: Path, config: dict[str, Any]) -> str:
    classes = config.get("architectures") or [""]
    if classes[0].endswith("ForCausalLM"):
        return "causal"
    if config.get("model_type") in ("bert", "roberta", "xlm-roberta", "distilbert", "mpnet"):
        return "encoder"
    raise Error(f"{path}: {classes[0] or 'a model without an architecture'} is neither a causal model nor an encoder")


def _sentence_settings(path: Path) -> tuple[str, int]:
    """Pooling and longest sentence, from the files that sentence-transformers keeps beside a model."""
    pooling, length = "mean", 256
    config = path / "1_Pooling" / "config.json"
    if config.is_file() and json.loads(config.read_text(encoding="utf-8")).get("pooling_mode_cls_token"):
        pooling = "cls"
    config = path / "sentence_bert_config.json"
    if config.is_file():
        length = json.loads(config.read_text(encoding="utf-8")).get("max_seq_length") or length
    return pooling, length


def _tokenizer(directory: Path, named: Path) -> Any:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise Error(f"{named}: transformers cannot load the tokenizer: {_first_line(error)}") from error
    if not tokenizer.is_fast:
        raise Error(f"{named}: the tokenizer has no tokenizer.json, which is needed")
    return tokenizer


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


class _quiet:
    """Silences transformers' progress bars and advice while a model loads."""

    def __init__(self, transformers: Any):
        self._logging = transformers.utils.logging

    def __enter__(self) -> None:
        self._verbosity = self._logging.get_verbosity()
        self._bars = self._logging.is_progress_bar_enabled()
        self._logging.set_verbosity_error()
        self._logging.disable_progress_bar()

    def __exit__(self, *_: object) -> None:
        self._logging.set_verbosity(self._verbosity)
        if self._bars:
            self._logging.enable_progress_bar()


def _load_gguf(path: Path, dtype: Any) -> Loaded:
    from edgequant.models import open_model

    model = open_model(path)
    files = model.hf_files()
    config = json.loads(files["config.json"])
    kind = _kind(path, config)
    with TemporaryDirectory() as folder:
        for name, content in files.items():
            file = Path(folder, name)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        module = _module(kind, folder, config, dtype)
        _fill(module, model, path)
        pooling, max_length = _sentence_settings(Path(folder))
        return Loaded(path, kind, module, _tokenizer(Path(folder), path), pooling, max_length)


def _module(kind: str, folder: str, config: dict[str, Any], dtype: Any) -> Any:
    """A module of that configuration, its weights whatever they are: the last one again where it fits."""
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

    key = json.dumps([kind, str(dtype), config], sort_keys=True)
    if key not in _slot:
        _slot.clear()  # before the new one is made: two models never lie in memory together
        parsed = AutoConfig.from_pretrained(folder, local_files_only=True)
        if kind == "causal":
            module = AutoModelForCausalLM.from_config(parsed, dtype=dtype)
        else:
            module = AutoModel.from_config(parsed, dtype=dtype, add_pooling_layer=False)
        _slot[key] = module.eval()
    return _slot[key]


def _fill(module: Any, model: Any, path: Path) -> None:
    """Decodes a model's tensors into a module, one at a time.

    Raises:
        Error: a tensor has no place in the module or another shape, or a parameter of the module gets no tensor.
    """
    import torch

    # A causal model's names may or may not carry the trunk's prefix; parameters that are tied appear once.
    places = dict(module.named_parameters())
    aliases = dict(module.named_parameters(remove_duplicate=False))
    prefix = module.base_model_prefix + "."
    missing = set(places)
    with torch.no_grad():
        for tensor in model.hf_tensors():
            spellings = (tensor.name, prefix + tensor.name, tensor.name.removeprefix(prefix))
            name = next((spelling for spelling in spellings if spelling in aliases), None)
            if name is None:
                raise Error(f"{path}: tensor {tensor.name} has no place in {type(module).__name__}")
            place = aliases[name]
            shape, expected = tuple(tensor.shape), tuple(place.shape)
            if shape != expected:
                raise Error(f"{path}: tensor {tensor.name} has shape {shape}, the configuration says {expected}")
            place.copy_(torch.from_numpy(tensor.f32()))
            missing -= {n for n, p in places.items() if p is place}
    if missing:
        raise Error(f"{path}: no weights for {sorted(missing)[0]}, which {type(module).__name__} needs")
