"""Models into transformers modules: a HF directory by transformers itself, a GGUF by decoding it tensor by tensor.

Transformers loads the HF directory so that the reference side of a comparison shares no code with edgequant's readers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from edgequant._core import Error
from edgequant.evaluate import embedding
from edgequant.evaluate.dependencies import require
from edgequant.evaluate.language import Predict, predictor
from edgequant.evaluate.runtimes import RUNTIMES, open_runtime, runtime_of

# The last GGUF's module, by its configuration: quantizations of one model take turns in it, since building
# a module initializes every weight and costs more than filling it.
_slot: dict[str, Any] = {}


@dataclass
class Loaded:
    """A model ready to be measured."""

    path: Path  # or what to call it
    kind: str  # "causal" or "encoder"
    module: Any
    tokenizer: Any
    pooling: str = "mean"
    max_length: int = 256
    dtype: str = "f32"
    runtime: str = "torch"
    predictions: Predict | None = None  # of another runtime, in the module's place

    @property
    def article(self) -> str:
        return "a language model" if self.kind == "causal" else "an encoder"

    @property
    def max_positions(self) -> int | None:
        return getattr(self.module.config, "max_position_embeddings", None) if self.module is not None else None

    @property
    def predict(self) -> Predict:
        """A causal model's predictions."""
        return self.predictions or predictor(self.module)

    @property
    def longest(self) -> int:
        """Tokens that an encoder reads of a sentence."""
        return min(self.max_length, self.max_positions or self.max_length)

    def embed(self, sentences: Sequence[str], progress: Callable[[int], None] | None = None) -> np.ndarray:
        return embedding.embed(self.module, self.tokenizer, list(sentences), self.pooling, self.longest, progress)


def load(
    path: Any, dtype: str = "f32", tokenizer: Any = None, share: bool = True, runtime: str = "auto"
) -> Loaded:  # fmt: skip
    """Loads a model for measuring, in evaluation mode, on the CPU.

    Args:
        path: HF directory, or GGUF file of an architecture that edgequant knows; or a model of transformers, which is
            measured as it is: its device, its types, its quantization.
        dtype: "f32" or "bf16"; does not concern a model that is given.
        tokenizer: a fast tokenizer of transformers, or its directory; None: the one that lies beside the model.
        share: whether the next GGUF of the same configuration may take the module over.
        runtime: one of `runtimes.RUNTIMES`; "auto" takes that for which the file was made, and torch for a GGUF.

    Raises:
        Error: torch or transformers is absent; the file is absent, damaged, or neither kind; the model is neither a
            causal language model nor an encoder; weights are missing; a model is given and no tokenizer is found.
    """
    torch = require("torch", "hf")
    transformers = require("transformers", "hf")
    if isinstance(path, torch.nn.Module):
        return _given(path, tokenizer)
    path = Path(path)
    if runtime not in RUNTIMES:
        raise Error(f'runtime "{runtime}" is not known; {", ".join(RUNTIMES)} are')
    chosen = runtime_of(path) if runtime == "auto" else runtime
    if chosen != "torch":
        with _quiet(transformers):
            predictions, name = open_runtime(path, chosen)
            tokenizer = _gguf_tokenizer(path) if tokenizer is None and path.suffix == ".gguf" else tokenizer
            beside = path if path.is_dir() else path.parent
            tokenizer = _tokenizer(beside, path) if tokenizer is None else _given_tokenizer(tokenizer)
            return Loaded(path, "causal", None, tokenizer, dtype="its own types", runtime=name, predictions=predictions)
    types = {"f32": torch.float32, "bf16": torch.bfloat16}
    if dtype not in types:
        raise Error(f'dtype "{dtype}" is not known; f32 and bf16 are')
    with _quiet(transformers):
        if not share:
            _slot.clear()
        if path.is_dir():
            loaded = _load_directory(path, types[dtype])
        elif path.exists():
            loaded = _load_gguf(path, types[dtype])
        else:
            raise Error(f"{path}: there is no such file or directory")
        if not share:
            _slot.clear()
        loaded.dtype = dtype
        if tokenizer is not None:
            loaded.tokenizer = _given_tokenizer(tokenizer)
        return loaded


def _given(module: Any, tokenizer: Any) -> Loaded:
    """A model of transformers that the caller holds."""
    name = type(module).__name__
    if not hasattr(module, "config") or not hasattr(module, "get_output_embeddings"):
        raise Error(f"{name} is not a model of transformers")
    origin = Path(getattr(module, "name_or_path", "") or "")
    if tokenizer is None:
        if not (origin / "tokenizer.json").is_file():
            raise Error(f"{name}: no tokenizer lies beside the model; give one with tokenizer=")
        tokenizer = origin
    kind = "causal" if module.get_output_embeddings() is not None else "encoder"
    dtype = str(module.dtype).removeprefix("torch.").replace("float", "f")
    return Loaded(
        Path(name), kind, module.eval(), _given_tokenizer(tokenizer), *_sentence_settings(origin), dtype=dtype
    )


def _given_tokenizer(tokenizer: Any) -> Any:
    return _tokenizer(Path(tokenizer), Path(tokenizer)) if isinstance(tokenizer, str | Path) else tokenizer


def _load_directory(path: Path, dtype: Any) -> Loaded:
    from transformers import AutoModel, AutoModelForCausalLM

    if not (path / "config.json").is_file():
        raise Error(f"{path}: no config.json; this is not a Hugging Face model directory")
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
        kind = _kind(path, config)
        if (config.get("quantization_config") or {}).get("quant_method") == "edgequant":
            import_module("edgequant.transformers")  # registers the method
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


def _gguf_tokenizer(path: Path) -> Any:
    from edgequant.models import open_model

    with TemporaryDirectory() as folder:
        _write(open_model(path).hf_files(), folder)
        return _tokenizer(Path(folder), path)


def _write(files: Mapping[str, bytes], folder: str) -> None:
    for name, content in files.items():
        file = Path(folder, name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)


def _load_gguf(path: Path, dtype: Any) -> Loaded:
    from edgequant.models import open_model

    model = open_model(path)
    files = model.hf_files()
    config = json.loads(files["config.json"])
    kind = _kind(path, config)
    with TemporaryDirectory() as folder:
        _write(files, folder)
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
