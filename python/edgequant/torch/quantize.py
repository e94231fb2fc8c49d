"""Quantizing the layers of a PyTorch model in place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from edgequant._core import Error
from edgequant.importance import Importance
from edgequant.quantize import quantize
from edgequant.scheme import Format
from edgequant.scheme_tensor import SchemeTensor
from edgequant.tensor import Comparison, QuantizedTensor
from edgequant.torch.experts import PARTS, QuantExperts
from edgequant.torch.modules import QuantEmbedding, QuantLinear
from edgequant.torch.plan import ExpertsPlan, LayerPlan, QuantConfig, embedding_scale, plan_module
from edgequant.torch.schemes import SchemeLinear


@dataclass(frozen=True)
class LayerReport:
    """One quantized weight (N, K).

    Attributes:
      names: all layers that share it.
      format, wanted: what it got, and the format that its rows do not divide, if that was chosen.
      nbytes: of the packed weights.
      error: against the original ones.
    """

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
      kept: layers that stay as they are on purpose: name -> why.
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
def quantize_module(model: nn.Module, config: QuantConfig | Format | str) -> ModuleReport:
    """Replaces the Linear and Embedding layers of a model, and experts of mixtures, by quantized ones, in place.

    One layer is quantized at a time, so memory grows by one layer at most. Layers that share their weights go on
    sharing the packed ones. The model must be on the CPU.

    Args:
      model: any module; of a layer itself use `QuantLinear.from_linear`.
      config: QuantConfig, or the name of a format or preset, or a Format.

    Returns: ModuleReport: every layer's format and error, what was kept, and all that could not be quantized.

    Raises Error for bad formats or rules, rules that match nothing, weights with NaN or Inf or on another device.

    Example:
      >>> model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 8))
      >>> quantize_module(model, QuantConfig("q4_0", skip=["2"])).kept
      {'2': 'skipped'}
    """
    config = config if isinstance(config, QuantConfig) else QuantConfig(config)
    plan = plan_module(model, config)
    report = ModuleReport(kept=plan.kept, unsupported=plan.unsupported)
    for layer in plan.layers:
        weight = model.get_submodule(layer.names[0]).weight
        assert isinstance(weight, torch.Tensor)
        q, entry = quantize_layer(layer, weight, config)
        report.layers.append(entry)
        replace_layers(model, layer.names, q, config.compute)
    for experts in plan.experts:
        report.layers += quantize_experts(model, experts, config)
    return report


@torch.no_grad()
def quantize_experts(model: nn.Module, plan: ExpertsPlan, config: QuantConfig) -> list[LayerReport]:
    """Replaces a module with the weights of several experts by QuantExperts; what became of each weight."""
    old: Any = model.get_submodule(plan.name)
    entries: list[LayerReport] = []
    made: dict[str, list[QuantLinear]] = {}
    for part, parameter in PARTS.items():
        made[part] = []
        for layer, weight in zip(plan.parts[part], getattr(old, parameter), strict=True):
            q, entry = quantize_layer(layer, weight, config)
            entries.append(entry)
            made[part].append(QuantLinear.from_quantized(q, compute=config.compute))
    model.set_submodule(plan.name, QuantExperts(made["up"], made["down"], old.act_fn).train(old.training))
    return entries


def quantize_layer(layer: LayerPlan, weight: torch.Tensor, config: QuantConfig) -> tuple[QuantizedTensor, LayerReport]:
    """The weights of one layer in the format that is planned for it. Raises Error with the layer's name."""
    name = layer.names[0]
    if weight.device.type != "cpu":
        raise Error(f"{name}: its weights are on {weight.device}; move the model first: model.to('cpu')")
    try:
        importance = _importance_of(layer, config.importance)
        q = quantize(weight, layer.format, importance, effort=config.effort, objective=config.objective)
    except Error as e:
        raise Error(f"{name}: {e}") from None
    error = q.compare(weight)
    return q, LayerReport(layer.names, layer.shape, q.format, layer.wanted, q.nbytes, error)


def _importance_of(layer: LayerPlan, given: Mapping[str, Any] | None) -> Any:
    if isinstance(given, Importance):
        vectors = given.of(layer.gguf_name or "", layer.shape)
        return None if vectors is None else vectors[0]
    keys = (*layer.names, layer.gguf_name or "")
    return next((given[key] for key in keys if key in given), None) if given else None


def replace_layers(model: nn.Module, names: tuple[str, ...], q: QuantizedTensor, compute: str) -> None:
    """Puts quantized layers over one packed buffer in the place of those that shared a weight."""
    made: dict[int, Any] = {}
    first: Any = None
    for name in names:
        old = model.get_submodule(name)
        new = made.get(id(old))
        if new is None and isinstance(q, SchemeTensor):
            assert isinstance(old, nn.Linear)
            new = made[id(old)] = SchemeLinear.from_quantized(q, old.bias, compute=compute).train(old.training)
        elif new is None:
            new = made[id(old)] = layer_like(old, q if first is None else first.qweight, q.format, compute)
            first = first or new
            new.qformat = first.qformat
        model.set_submodule(name, new)


def layer_like(old: nn.Module, data: QuantizedTensor | torch.Tensor, format: str, compute: str) -> Any:
    """The quantized counterpart of a Linear or Embedding layer over packed weights."""
    new: QuantLinear | QuantEmbedding
    if isinstance(old, nn.Embedding):
        k, dtype, scale = old.embedding_dim, old.weight.dtype, embedding_scale(old) or 1.0
        new = QuantEmbedding.from_quantized(data, old.padding_idx, format=format, k=k, dtype=dtype, scale=scale)
    else:
        assert isinstance(old, nn.Linear)
        new = QuantLinear.from_quantized(data, old.bias, format=format, k=old.in_features, compute=compute)
    return new.train(old.training)
