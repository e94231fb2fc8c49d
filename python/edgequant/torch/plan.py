"""Which layers of a PyTorch model get which format, decided before any work is done."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import nn

from edgequant import presets
from edgequant._core import Error
from edgequant.formats import formats, lookup
from edgequant.models.architectures import ARCHITECTURES, Architecture
from edgequant.plan import FLOATS, Rule, make_plan, parse_rules
from edgequant.quantize import writable


@dataclass
class QuantConfig:
    """What `quantize_module` does.

    Attributes:
      format: a format for all layers, such as "q4_k"; or, for models of transformers whose architecture edgequant
        knows, a preset such as "q4_k_m", which chooses for each layer what it would in a GGUF file. Where a name is
        both, as q4_0 is, "gguf:q4_0" is the preset. Where a layer's rows do not divide a format's blocks, the
        fallback of the presets takes its place (q4_k -> q5_0 and so on).
      rules: 'REGEX=FORMAT' strings or a mapping; the first whose expression is found in a layer's name, or in its
        GGUF name where it has one, decides instead. FORMAT may be `keep`.
      skip: expressions; layers in whose name one is found stay as they are.
      embeddings: whether Embedding layers are quantized too.
      compute: "int8" or "exact"; see QuantLinear.
      effort, objective: as for `edgequant.quantize`.
      importance: mapping of layer names (or GGUF tensor names) to vectors (K,), or None.
    """

    format: str
    rules: Iterable[str | Rule] | Mapping[str, str] | None = None
    skip: Iterable[str] = ()
    embeddings: bool = True
    compute: str = "int8"
    effort: Any = "default"
    objective: Any = "ggml"
    importance: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class LayerPlan:
    """Layers that share one weight (N, K) and the format it gets; `wanted` is the one that its rows do not divide."""

    names: tuple[str, ...]
    shape: tuple[int, int]
    format: str
    wanted: str | None
    gguf_name: str | None


@dataclass
class ModulePlan:
    """The layers to quantize; names of those kept on purpose, and of those that cannot be quantized, with reasons."""

    layers: list[LayerPlan] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)
    unsupported: dict[str, str] = field(default_factory=dict)


def plan_module(model: nn.Module, config: QuantConfig) -> ModulePlan:
    """Plans all Linear and Embedding layers of a model, whose weights may be on any device.

    Raises Error for unknown formats and presets, bad rules, rules that decide nothing, presets without an architecture.
    """
    rules, skip = parse_rules(config.rules), [_compile(pattern) for pattern in config.skip]
    unused: set[Any] = {*rules, *skip}
    default, table = _choices(model, config.format, config.importance is not None)
    plan = ModulePlan()
    for names in shared_layers(model):
        layers = [model.get_submodule(name) for name in names]
        why = next(filter(None, map(unsuitable, layers)), None)
        if why:
            plan.unsupported.update(dict.fromkeys(names, why))
            continue
        rows, cols = layers[0].weight.shape  # type: ignore[misc]
        choice = next((table[name] for name in names if name in table), Choice(default, None, "not in the preset"))
        wanted, why = choice.format, choice.why
        known_as = [*names, *([choice.gguf_name] if choice.gguf_name else [])]
        rule = next((r for r in rules if any(r.pattern.search(name) for name in known_as)), None)
        skipped = next((p for p in skip if any(p.search(name) for name in known_as)), None)
        if skipped is not None:
            unused.discard(skipped)
            wanted, why = None, "skipped"
        elif rule is not None:
            unused.discard(rule)
            wanted, why = (None if rule.format == "keep" else lookup(rule.format).name), f"rule {rule}"
        elif not config.embeddings and any(isinstance(layer, nn.Embedding) for layer in layers):
            wanted, why = None, "embeddings are kept"
        if wanted is None or wanted in FLOATS:
            plan.kept.update(dict.fromkeys(names, why))
            continue
        format = presets.fallback(wanted, cols, lambda name: int(lookup(name).block))
        if format in FLOATS:
            reason = f"rows of {cols} divide the blocks of neither {wanted} nor its fallback"
            plan.unsupported.update(dict.fromkeys(names, reason))
            continue
        instead = choice.instead_of if rule is None and choice.instead_of else wanted
        plan.layers.append(
            LayerPlan(tuple(names), (rows, cols), format, instead if instead != format else None, choice.gguf_name)
        )
    useless = [f"rule '{r}'" for r in rules if r in unused] + [f"skip '{p.pattern}'" for p in skip if p in unused]
    if useless:
        raise Error(f"{useless[0]} decides no layer: none matches, or earlier ones did")
    plan.unsupported.update(_unsupported_modules(model))
    return plan


def _compile(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as e:
        raise Error(f"skip '{pattern}': {e} in the regular expression") from None


def shared_layers(model: nn.Module) -> Iterable[list[str]]:
    """The names of all Linear and Embedding layers below the model, those with one weight together.

    transformers ties weights after loading; until then it says in all_tied_weights_keys which ones it will.
    """
    tied = getattr(model, "all_tied_weights_keys", None) or {}
    groups: dict[Any, list[str]] = {}
    layers = {
        name: module
        for name, module in model.named_modules(remove_duplicate=False)
        if name and isinstance(module, nn.Linear | nn.Embedding) and isinstance(module.weight, torch.Tensor)
    }
    for name, module in layers.items():
        source = str(tied.get(f"{name}.weight", "")).removesuffix(".weight")
        groups.setdefault(id(layers.get(source, module).weight), []).append(name)
    return groups.values()


def unsuitable(layer: nn.Module) -> str | None:
    """Why a Linear or Embedding layer cannot be replaced, or None.

    A class derived from them may compute something else, or be read by its owner (torch.nn.MultiheadAttention does).
    """
    if type(layer) not in (nn.Linear, nn.Embedding) and embedding_scale(layer) is None:
        return f"{type(layer).__name__} is not supported"
    if isinstance(layer, nn.Embedding) and layer.max_norm is not None:
        return "max_norm changes its weights on use"
    if isinstance(layer, nn.Embedding) and layer.sparse:
        return "its gradients are sparse"
    weight = layer.weight
    if not isinstance(weight, torch.Tensor) or not weight.is_floating_point():
        return "its weights are no floating-point numbers"
    return None


def embedding_scale(layer: nn.Module) -> float | None:
    """The constant by which transformers' scaled embeddings multiply their rows; None for any other layer."""
    scale = getattr(layer, "scalar_embed_scale", None)
    return float(scale) if isinstance(layer, nn.Embedding) and scale is not None else None


def _unsupported_modules(model: nn.Module) -> dict[str, str]:
    """Modules other than Linear and Embedding that own float parameters of two or more dimensions."""
    result = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            continue
        shapes = [
            f"{key} {tuple(p.shape)}"
            for key, p in module.named_parameters(recurse=False)
            if p.dim() >= 2 and p.is_floating_point()
        ]
        if shapes:
            result[name or "(the model itself)"] = f"{type(module).__name__} with {', '.join(shapes)} is not supported"
    return result


# ---- presets ----


class Choice(NamedTuple):
    """What a preset says of a layer; `instead_of` is the format that its rows do not divide."""

    format: str | None
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


def _choices(model: nn.Module, format: str, importance: bool) -> tuple[str | None, dict[str, Choice]]:
    """The format of all layers, None for a preset, and what is known of layers that have a name in GGUF."""
    preset, known, config = _preset_of(format), _in_gguf(model), _text_config(model)
    if preset is None:
        default = writable(format)
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
