"""GGUF files as models of transformers, kept quantized."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoTokenizer

from edgequant import _core
from edgequant._core import Error
from edgequant.models import Model, open_model
from edgequant.models.gguf import GgufModel
from edgequant.plan import FLOATS
from edgequant.torch.memory import mapped_bytes
from edgequant.torch.modules import spell
from edgequant.transformers.quantizer import EdgeQuantConfig


def load_gguf(path: str | os.PathLike[str], dtype: Any = torch.float32, compute: str = "int8", **options: Any) -> Any:
    """A GGUF file as a model of transformers whose weights stay as they are in the file.

    Weights are mapped, not read; query and key matrices whose rows GGUF orders differently are copied. Tensors that
    are f32, f16 or bf16 in the file become parameters of `dtype`.

    Args:
      path: a GGUF file of an architecture that edgequant knows.
      dtype: of parameters and activations: torch.float32 (fast on the CPU), bfloat16 or float16.
      compute: "int8" or "exact"; see `edgequant.torch.QuantLinear`.
      options: for `from_pretrained`, such as attn_implementation.

    Returns: the model in evaluation mode; `save_pretrained` writes it packed. Raises Error for damaged files and for
    architectures that edgequant does not know.
    """
    source = open_model(os.fspath(path))
    if not isinstance(source, GgufModel):
        raise Error(f"{path}: not a GGUF file; load directories with from_pretrained")
    with _directory_of(source) as directory:
        config = AutoConfig.from_pretrained(directory)
    state, modules = _packed_state(source, dtype)
    if modules:
        config.quantization_config = EdgeQuantConfig("q4_k_m", compute=compute, modules=modules).to_dict()
        config.quantization_config["format"] = "gguf"
    cls = getattr(transformers, config.architectures[0])
    return cls.from_pretrained(None, config=config, state_dict=state, dtype=dtype, **options).eval()


def load_gguf_tokenizer(path: str | os.PathLike[str]) -> Any:
    """The tokenizer of a GGUF file. Raises Error for kinds that edgequant cannot turn back."""
    with _directory_of(open_model(os.fspath(path))) as directory:
        return AutoTokenizer.from_pretrained(directory)


def _packed_state(source: GgufModel, dtype: torch.dtype) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """A state dict in transformers' names over the bytes of the file, and the formats of its quantized layers."""
    state: dict[str, torch.Tensor] = {}
    modules: dict[str, str] = {}
    places = {t.name: (path, t.offset) for path in source.files for t in _core.GgufFile(str(path)).tensors}
    for tensor in source.hf_tensors():
        if tensor.format in FLOATS or len(tensor.shape) != 2:
            state[tensor.name] = torch.from_numpy(tensor.f32()).to(dtype)
            continue
        name = tensor.name.removesuffix(".weight")
        shape = tensor.rows().shape
        if tensor.row_permutation is None:
            path, offset = places[tensor.source_name]
            with open(path, "rb") as file:
                data = mapped_bytes(file.fileno(), offset, (shape[0], shape[1]))
        else:
            data = torch.from_numpy(tensor.rows()[tensor.row_permutation])
        state[name + ".qweight"], state[name + ".qformat"] = data, spell(tensor.format)
        modules[name] = tensor.format
    return state, modules


@contextmanager
def _directory_of(source: Model) -> Iterator[str]:
    """The small files of the model as a Hugging Face directory."""
    with tempfile.TemporaryDirectory() as directory:
        for name, content in source.hf_files().items():
            file = Path(directory) / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        yield directory
