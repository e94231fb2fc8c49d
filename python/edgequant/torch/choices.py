"""What a format or preset says of the layers of a model, by the names that these have in a GGUF file."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import nn

from edgequant import presets
from edgequant._core import Error
from edgequant.formats import formats
from edgequant.models.architectures import ARCHITECTURES, Architecture
from edgequant.plan import make_plan
from edgequant.planar import find_scheme
from edgequant.quantize import writable
from edgequant.scheme import Format


class Choice(NamedTuple):
    """What a preset says of a layer; `instead_of` is the format that its rows do not divide."""

    format: str | Format | None
    gguf_name: str | None
    why: str
    instead_of: str | None = None


class _Tensor(NamedTuple):
    name: str
    shape: tuple[int, ...]
    format: str = "f16"


def _preset_of(name: str) -> presets.Preset | None:
    key = name.lower()
    if key.startswith("gguf:"):
        return presets.find_preset(key.removeprefix("gguf:"))
    return None if key in formats or key not in presets.PRESETS else presets.find_preset(key)


class _InGguf(NamedTuple):
    """A model as it would stand in a GGUF file: its tensors, and the layer that each belongs to."""

    architecture: Architecture
    tensors: list[_Tensor]
    layers: dict[str, str]


def _in_gguf(model: nn.Module) -> _InGguf | None:
    """None for models that are not of transformers, or of an architecture that edgequant does not know."""
    config = _text_config(model)
    architecture = next((a for a in ARCHITECTURES.values() if config and config.model_type in a.model_types), None)
    if architecture is None:
        return None
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters(remove_duplicate=False)}
    anchor = next((name for name in shapes if f".{name}".endswith("." + architecture.anchor)), "")
    base = anchor.removesuffix(architecture.anchor)
    tied = bool(getattr(config, "tie_word_embeddings", False)) or architecture.name == "bert"
    found = _InGguf(architecture, [], {})
    for _, gguf, hf in architecture.expand(config.num_hidden_layers):
        name = hf[1:] if hf.startswith("/") else base + hf
        if gguf == "output.weight" and not tied:  # the file has it, even if this model has no head
            found.tensors.append(_Tensor(gguf, shapes.get(name, shapes.get(anchor, (1, 1)))))
        elif name in shapes and gguf != "output.weight":
            found.tensors.append(_Tensor(gguf, shapes[name]))
        else:
            continue
        found.layers[gguf] = name.removesuffix(".weight")
    return found


def _text_config(model: nn.Module) -> Any:
    config: Any = getattr(model, "config", None)
    return config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else None


def choices(
    model: nn.Module, format: str | Format, importance: bool
) -> tuple[str | Format | None, dict[str, Choice]]:
    """The format of all layers, None for a preset, and what is known of layers that have a name in GGUF."""
    scheme, known, config = find_scheme(format), _in_gguf(model), _text_config(model)
    preset = _preset_of(str(format)) if scheme is None else None
    if preset is None:
        default = scheme or writable(format)
        layers = known.layers if known else {}
        return default, {layer: Choice(default, gguf, "") for gguf, layer in layers.items()}
    if config is None:
        raise Error(f"{preset.name} is a preset for models of transformers; give a format, such as {preset.default}")
    if known is None:
        kinds = ", ".join(kind for a in ARCHITECTURES.values() for kind in a.model_types)
        raise Error(
            f"the preset {preset.name} knows the models {kinds}, not {config.model_type}; give a format, such as "
            f"{preset.default}, which is then used for all layers"
        )
    prefix, heads = known.architecture.name + ".", config.num_attention_heads
    metadata = {
        "general.architecture": known.architecture.name,
        prefix + "block_count": config.num_hidden_layers,
        prefix + "attention.head_count": heads,
        prefix + "attention.head_count_kv": getattr(config, "num_key_value_heads", None) or heads,
    }
    return None, {
        known.layers[p.name]: Choice(
            None if p.kept else p.target, p.name, "kept as in GGUF" if p.kept else p.reason, p.wanted
        )
        for p in make_plan(known.tensors, metadata, preset, importance=importance)
    }
