"""Which layers of a PyTorch model get which format, decided before any work is done."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from edgequant import presets
from edgequant._core import Error
from edgequant.formats import lookup
from edgequant.plan import FLOATS, Rule, parse_rules
from edgequant.planar import find_scheme
from edgequant.quantize import quantize
from edgequant.scheme import Format
from edgequant.torch.choices import Choice, choices
from edgequant.torch.experts import PARTS, are_experts


@dataclass
class QuantConfig:
    """What `quantize_module` does.

    Attributes:
      format: a format for all layers, such as "q4_k"; or, for models of transformers whose architecture edgequant
        knows, a preset such as "q4_k_m", which chooses for each layer what it would in a GGUF file. Where a name is
        both, as q4_0 is, "gguf:q4_0" is the preset. Where a layer's rows do not divide a format's blocks, the
        fallback of the presets takes its place (q4_k -> q5_0 and so on). Or a `Format` of your own, or the name of a
        planar one: Linear layers become SchemeLinear, if their shape suits it; embeddings stay.
      rules: 'REGEX=FORMAT' strings or a mapping; the first whose expression is found in a layer's name, or in its
        GGUF name where it has one, decides instead. FORMAT may be `keep`; in a mapping also a `Format`.
      skip: expressions; layers in whose name one is found stay as they are.
      embeddings: whether Embedding layers are quantized too.
      compute: "int8" or "exact"; see QuantLinear.
      effort, objective: as for `edgequant.quantize`.
      importance: mapping of layer names (or GGUF tensor names) to vectors (K,), or None.
    """

    format: str | Format
    rules: Iterable[str | Rule] | Mapping[str, str | Format] | None = None
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
    format: str | Format
    wanted: str | None
    gguf_name: str | None


@dataclass(frozen=True)
class ExpertsPlan:
    """A module with the weights of several experts, and the plan of each expert for each of its PARTS; names are those
    in QuantExperts."""

    name: str
    parts: dict[str, list[LayerPlan]]


@dataclass
class ModulePlan:
    """What to quantize; names of layers kept on purpose, and of those that cannot be quantized, with reasons."""

    layers: list[LayerPlan] = field(default_factory=list)
    experts: list[ExpertsPlan] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)
    unsupported: dict[str, str] = field(default_factory=dict)


def plan_module(model: nn.Module, config: QuantConfig) -> ModulePlan:
    """Plans all Linear and Embedding layers of a model, whose weights may be on any device.

    Raises Error for unknown formats and presets, bad rules, rules that decide nothing, presets without an architecture.
    """
    rules, skip = _rules(config.rules), [_compile(pattern, "skip") for pattern in config.skip]
    unused: set[Any] = {*rules, *skip}
    default, table = choices(model, config.format, config.importance is not None)
    plan = ModulePlan()

    def decide(known_as: list[str], choice: Choice, cols: int, keep: str | None) -> _Decision:
        rule = next((r for r in rules if any(r.pattern.search(name) for name in known_as)), None)
        skipped = next((p for p in skip if any(p.search(name) for name in known_as)), None)
        wanted, why = choice.format, choice.why
        if skipped is not None:
            unused.discard(skipped)
            wanted, why = None, "skipped"
        elif rule is not None:
            unused.discard(rule)
            wanted, why = None if rule.format == "keep" else rule.format, f"rule {rule}"
        elif keep is not None:
            wanted, why = None, keep
        if isinstance(wanted, Format):
            return _Decision(wanted, None, "", False)
        wanted = None if wanted is None else lookup(wanted).name
        if wanted is None or wanted in FLOATS:
            return _Decision(None, None, why, False)
        format = presets.fallback(wanted, cols, lambda name: int(lookup(name).block))
        if format in FLOATS:
            reason = f"rows of {cols} divide the blocks of neither {wanted} nor its fallback"
            return _Decision(None, None, reason, True)
        instead = choice.instead_of if rule is None and choice.instead_of else wanted
        return _Decision(format, instead if instead != format else None, "", False)

    for names in shared_layers(model):
        layers = [model.get_submodule(name) for name in names]
        why = next(filter(None, map(unsuitable, layers)), None)
        if why:
            plan.unsupported.update(dict.fromkeys(names, why))
            continue
        rows, cols = layers[0].weight.shape  # type: ignore[misc]
        choice = next((table[name] for name in names if name in table), Choice(default, None, "not in the preset"))
        known_as = [*names, *([choice.gguf_name] if choice.gguf_name else [])]
        embedded = any(isinstance(layer, nn.Embedding) for layer in layers)
        found = decide(known_as, choice, cols, "embeddings are kept" if embedded and not config.embeddings else None)
        if isinstance(found.format, Format):
            found = _suited(found.format, (rows, cols), embedded)
        if found.format is None:
            (plan.unsupported if found.failed else plan.kept).update(dict.fromkeys(names, found.why))
            continue
        plan.layers.append(LayerPlan(tuple(names), (rows, cols), found.format, found.wanted, choice.gguf_name))
    for name, module in model.named_modules():
        if are_experts(module):
            _plan_experts(plan, name, module, lambda names, cols: decide(names, Choice(default, None, ""), cols, None))
    useless = [f"rule '{r}'" for r in rules if r in unused] + [f"skip '{p.pattern}'" for p in skip if p in unused]
    if useless:
        raise Error(f"{useless[0]} decides no layer: none matches, or earlier ones did")
    known = {experts.name for experts in plan.experts} | plan.kept.keys()
    plan.unsupported.update({name: why for name, why in _unsupported_modules(model).items() if name not in known})
    return plan


class _Decision(NamedTuple):
    """The format of a layer, and the one that its rows do not divide; or None, why, and whether that is a failure."""

    format: str | Format | None
    wanted: str | None
    why: str
    failed: bool


@dataclass(frozen=True)
class _SchemeRule:
    """As Rule, for a planar format or one of your own."""

    pattern: re.Pattern[str]
    format: Format

    def __str__(self) -> str:
        return f"{self.pattern.pattern}={self.format}"


def _rules(rules: Iterable[str | Rule] | Mapping[str, str | Format] | None) -> list[Rule | _SchemeRule]:
    """As parse_rules, with planar formats, and in mappings formats of your own."""
    if isinstance(rules, str):
        rules = [rules]
    parsed: list[Rule | _SchemeRule] = []
    for rule in rules.items() if isinstance(rules, Mapping) else rules or ():
        if isinstance(rule, Rule):
            parsed.append(rule)
            continue
        pattern, format = rule if isinstance(rule, tuple) else rule.rpartition("=")[::2]
        scheme = find_scheme(format)
        if scheme is not None:
            parsed.append(_SchemeRule(_compile(pattern, "rule"), scheme))
        else:
            parsed += parse_rules([rule if isinstance(rule, str) else f"{pattern}={format}"])
    return parsed


def _suited(format: Format, shape: tuple[int, int], embedded: bool) -> _Decision:
    """Whether a layer can have a planar format or one of your own."""
    if embedded:
        return _Decision(None, None, f"embeddings stay as they are: {format} is for products", False)
    rows, cols = shape
    try:  # what it says to zeros, of as many rows as show whether they divide
        quantize(np.zeros((min(rows, rows % 256 + 256), cols), np.float32), format, effort="fast")
    except Error as e:
        return _Decision(None, None, str(e), True)
    return _Decision(format, None, "", False)


def _plan_experts(plan: ModulePlan, name: str, module: Any, decide: Callable[[list[str], int], _Decision]) -> None:
    """Adds a module with experts to the plan: all its parts are quantized, or none."""
    parts: dict[str, list[LayerPlan]] = {}
    for part, parameter in PARTS.items():
        count, rows, cols = getattr(module, parameter).shape
        found = decide([f"{name}.{parameter}"], cols)
        if isinstance(found.format, Format):
            plan.unsupported[name] = f"{parameter}: experts have no layers in the format {found.format}"
            return
        if found.format is None:
            (plan.unsupported if found.failed else plan.kept)[name] = f"{parameter}: {found.why or 'not in the preset'}"
            return
        parts[part] = [
            LayerPlan((f"{name}.{part}.{i}",), (rows, cols), found.format, found.wanted, None) for i in range(count)
        ]
    plan.experts.append(ExpertsPlan(name, parts))


def _compile(pattern: str, what: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as e:
        raise Error(f"{what} '{pattern}': {e} in the regular expression") from None


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
