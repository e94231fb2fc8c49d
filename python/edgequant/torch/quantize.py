"""Quantizing the layers of a PyTorch model in place."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from edgequant import presets
from edgequant._core import Error
from edgequant.formats import lookup
from edgequant.plan import FLOATS, Rule, parse_rules
from edgequant.quantize import quantize, writable
from edgequant.tensor import Comparison, QuantizedTensor
from edgequant.torch.modules import QuantEmbedding, QuantLinear


@dataclass
class QuantConfig:
    """What `quantize_module` does.

    Attributes:
      format: of all layers; where a layer's rows do not divide its blocks, the fallback of the presets takes its place
        (q4_k -> q5_0 and so on).
      rules: 'REGEX=FORMAT' strings or a mapping; the first whose expression is found in a module's name decides
        instead. FORMAT may be `keep`.
      skip: expressions; layers in whose name one is found stay as they are.
      embeddings: whether Embedding layers are quantized too.
      compute: "int8" or "exact"; see QuantLinear.
      effort, objective: as for `edgequant.quantize`.
      importance: mapping of module names to vectors (K,), or None.
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
class LayerReport:
    """One quantized layer; `names` are all that share its weights, `wanted` the format that its rows do not divide."""

    names: tuple[str, ...]
    shape: tuple[int, int]
    format: str
    wanted: str | None
    nbytes: int
    error: Comparison


@dataclass
class ModuleReport:
    """What became of a model.

    Attributes:
      layers: the quantized layers.
      kept: layers that a rule or `skip` left as they were: name -> why.
      unsupported: modules with weights of two or more dimensions that cannot be quantized: name -> why.
    """

    layers: list[LayerReport] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)
    unsupported: dict[str, str] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """Bytes of all packed weights."""
        return sum(layer.nbytes for layer in self.layers)

    @property
    def bits_per_weight(self) -> float:
        """Of the quantized layers."""
        count = sum(layer.shape[0] * layer.shape[1] for layer in self.layers)
        return self.nbytes * 8 / count if count else 0.0

    def __str__(self) -> str:
        lines = [f"{len(self.layers)} layers quantized, {self.bits_per_weight:.4g} bits per weight"]
        for layer in self.layers:
            wanted = f" (rows do not divide the blocks of {layer.wanted})" if layer.wanted else ""
            lines.append(
                f"  {' = '.join(layer.names)}  {layer.shape[0]} x {layer.shape[1]}  {layer.format}{wanted}, "
                f"error {layer.error.relative_rmse:.4f}"
            )
        lines += [f"  kept: {name}: {why}" for name, why in self.kept.items()]
        lines += [f"  unsupported: {name}: {why}" for name, why in self.unsupported.items()]
        return "\n".join(lines)


@torch.no_grad()
def quantize_module(model: nn.Module, config: QuantConfig | str) -> ModuleReport:
    """Replaces the Linear and Embedding layers of a model by quantized ones, in place.

    One layer is quantized at a time, so memory grows by one layer at most. Layers that share their weights go on
    sharing the packed ones. The model must be on the CPU.

    Args:
      model: any module; of a layer itself use `QuantLinear.from_linear`.
      config: QuantConfig, or the name of a format.

    Returns: ModuleReport: every layer's format and error, what was kept, and all that could not be quantized.

    Raises Error for bad formats or rules, rules that match nothing, weights with NaN or Inf or on another device.

    Example:
      >>> model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 8))
      >>> quantize_module(model, QuantConfig("q4_0", skip=["2"])).kept
      {'2': 'skipped'}
    """
    config = QuantConfig(config) if isinstance(config, str) else config
    report, chooser = ModuleReport(), Chooser(config)
    for names in shared_layers(model):
        first = model.get_submodule(names[0])
        weight = first.weight
        assert isinstance(weight, torch.Tensor)
        why = next(filter(None, (unsuitable(model.get_submodule(name)) for name in names)), None)
        if why:
            report.unsupported.update(dict.fromkeys(names, why))
            continue
        wanted = chooser.choose(names)
        if not config.embeddings and isinstance(first, nn.Embedding):
            wanted = None
        if wanted in FLOATS or wanted is None:
            report.kept.update(dict.fromkeys(names, "skipped" if wanted is None else f"rule says {wanted}"))
            continue
        format = presets.fallback(wanted, weight.shape[1], block_of)
        if format in FLOATS:
            reason = f"rows of {weight.shape[1]} divide the blocks of neither {wanted} nor its fallback"
            report.unsupported.update(dict.fromkeys(names, reason))
            continue
        if weight.device.type != "cpu":
            raise Error(f"{names[0]}: its weights are on {weight.device}; move the model first: model.to('cpu')")
        importance = None if config.importance is None else config.importance.get(names[0])
        try:
            q = quantize(weight, format, importance, effort=config.effort, objective=config.objective)
        except Error as e:
            raise Error(f"{names[0]}: {e}") from None
        error = q.compare(weight)
        report.layers.append(
            LayerReport(
                tuple(names), (q.shape[0], q.shape[1]), format, wanted if wanted != format else None, q.nbytes, error
            )
        )
        replace_layers(model, names, q, config.compute)
    chooser.check_used()
    report.unsupported.update(unsupported_modules(model, {n for n in report.kept} | set(report.unsupported)))
    return report


class Chooser:
    """The format that format, rules and skip give to a layer."""

    def __init__(self, config: QuantConfig) -> None:
        self.format = writable(config.format)
        self.rules = parse_rules(config.rules)
        self.skip = [_compile(pattern) for pattern in config.skip]
        self._unused: set[Any] = {*self.rules, *self.skip}

    def choose(self, names: list[str], other: str | None = None) -> str | None:
        """For a layer with these names: a format, or None to keep it. `other` is a choice instead of `format`."""
        for pattern in self.skip:
            if any(pattern.search(name) for name in names):
                self._unused.discard(pattern)
                return None
        for rule in self.rules:
            if any(rule.pattern.search(name) for name in names):
                self._unused.discard(rule)
                return None if rule.format == "keep" else lookup(rule.format).name
        return other or self.format

    def check_used(self) -> None:
        """Raises Error for a rule or expression that decided nothing: it is misspelt, or earlier ones did."""
        unused = [f"rule '{rule}'" for rule in self.rules if rule in self._unused]
        unused += [f"skip '{pattern.pattern}'" for pattern in self.skip if pattern in self._unused]
        if unused:
            raise Error(f"{unused[0]} decides no layer: none matches, or earlier ones did")


def _compile(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as e:
        raise Error(f"skip '{pattern}': {e} in the regular expression") from None


def block_of(format: str) -> int:
    return int(lookup(format).block)


def shared_layers(model: nn.Module) -> Iterator[list[str]]:
    """The names of all Linear and Embedding layers below the model, those with one weight together."""
    groups: dict[int, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if name and isinstance(module, nn.Linear | nn.Embedding) and isinstance(module.weight, torch.Tensor):
            groups.setdefault(id(module.weight), []).append(name)
    yield from groups.values()


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


def replace_layers(model: nn.Module, names: list[str], q: QuantizedTensor, compute: str) -> None:
    """Puts quantized layers over one packed buffer in the place of those that shared a weight."""
    made: dict[int, nn.Module] = {}
    data: torch.Tensor | None = None
    for name in names:
        old = model.get_submodule(name)
        new = made.get(id(old))
        if new is None:
            source: Any = q if data is None else data
            new = made[id(old)] = layer_like(old, source, q.format, compute)
            data = new.qweight if data is None else data
        model.set_submodule(name, new)


def layer_like(old: nn.Module, data: QuantizedTensor | torch.Tensor, format: str, compute: str) -> Any:
    """The quantized counterpart of a Linear or Embedding layer over packed weights."""
    new: QuantLinear | QuantEmbedding
    if isinstance(old, nn.Embedding):
        k, dtype = old.embedding_dim, old.weight.dtype
        new = QuantEmbedding.from_quantized(
            data, old.padding_idx, format=format, k=k, dtype=dtype, scale=embedding_scale(old) or 1.0
        )
    else:
        assert isinstance(old, nn.Linear)
        new = QuantLinear.from_quantized(data, old.bias, format=format, k=old.in_features, compute=compute)
    return new.train(old.training)


def unsupported_modules(model: nn.Module, known: set[str]) -> dict[str, str]:
    """Modules that own float parameters of two or more dimensions and were neither quantized nor kept on purpose."""
    result = {}
    for name, module in model.named_modules():
        if name in known or isinstance(module, nn.Linear | nn.Embedding):
            continue
        shapes = [
            f"{key} {tuple(p.shape)}"
            for key, p in module.named_parameters(recurse=False)
            if p.dim() >= 2 and p.is_floating_point()
        ]
        if shapes:
            result[name or "(the model itself)"] = f"{type(module).__name__} with {', '.join(shapes)} is not supported"
    return result
