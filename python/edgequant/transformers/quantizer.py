"""The quantization method: its configuration, and the hooks that transformers calls while it loads a model."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn
from transformers import __version__ as _version
from transformers.utils import logging

from edgequant._core import Error

if tuple(int(part) for part in _version.split(".")[:2]) < (5, 10):
    raise Error(f"edgequant.transformers needs transformers 5.10 or newer; this is {_version}")

from transformers.core_model_loading import ConversionOps
from transformers.quantizers import HfQuantizer, register_quantization_config, register_quantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from edgequant.planar import find_scheme
from edgequant.torch.decoder import speed_up
from edgequant.torch.experts import PARTS, QuantExperts, owner_of
from edgequant.torch.memory import drop_pages
from edgequant.torch.modules import QuantEmbedding, QuantLinear
from edgequant.torch.plan import ExpertsPlan, LayerPlan, QuantConfig, embedding_scale, plan_module, shared_layers
from edgequant.torch.quantize import (
    ModuleReport,
    quantize_experts,
    quantize_layer,
    quantize_module,
    replace_layers,
)

_METHOD = "edgequant"
_logger = logging.get_logger(__name__)


@register_quantization_config(_METHOD)
class EdgeQuantConfig(QuantizationConfigMixin):
    """How to quantize a model while it is loaded, and in config.json: how it is packed.

    Args:
      format: a preset such as "q4_k_m", which chooses as for a GGUF file, or a format such as "q4_k" for all layers;
        see `edgequant.torch.QuantConfig`, also for the other arguments.
      rules: mapping of regular expressions to formats (or "keep"), or 'REGEX=FORMAT' strings.
      skip: expressions of layers that stay as they are.
      modules: of a packed model, the format of each layer; written by `save_pretrained`.
    """

    def __init__(
        self,
        format: str = "q4_k_m",
        rules: Mapping[str, str] | Iterable[str] | None = None,
        skip: Iterable[str] = (),
        embeddings: bool = True,
        compute: str = "int8",
        effort: str = "default",
        objective: str = "ggml",
        importance: Mapping[str, Any] | None = None,
        modules: Mapping[str, str] | None = None,
        **unknown: Any,
    ) -> None:
        unknown.pop("quant_method", None)
        if unknown:
            raise Error(f"EdgeQuantConfig: unknown {', '.join(map(repr, unknown))}")
        self.quant_method = _METHOD  # type: ignore[assignment]
        self.format, self.embeddings, self.compute = format, embeddings, compute
        self.rules = dict(rules) if isinstance(rules, Mapping) else list(rules or ())
        self.skip, self.effort, self.objective = list(skip), effort, objective
        self.importance, self.modules = importance, None if modules is None else dict(modules)

    def to_dict(self) -> dict[str, Any]:
        """For config.json: all but the importance, which is not needed any more."""
        return copy.deepcopy({key: value for key, value in self.__dict__.items() if key != "importance"})

    def to_quant_config(self) -> QuantConfig:
        """The same for `edgequant.torch.quantize_module`. Raises Error for formats that config.json cannot name."""
        rules = self.rules.values() if isinstance(self.rules, dict) else [r.rpartition("=")[2] for r in self.rules]
        scheme = next(filter(None, map(find_scheme, [self.format, *rules])), None)
        if scheme is not None:
            raise Error(
                f"'{scheme}' is a planar format or one of your own, in which models of transformers are not saved: "
                "load the model without it, then edgequant.torch.quantize_module(model, ...)"
            )
        return QuantConfig(
            self.format,
            self.rules,
            self.skip,
            self.embeddings,
            self.compute,
            self.effort,
            self.objective,
            self.importance,
        )


@register_quantizer(_METHOD)
class EdgeQuantizer(HfQuantizer):
    """transformers' hooks. `report` says what became of every layer of a model that was quantized while loading."""

    requires_calibration = False
    quantization_config: EdgeQuantConfig

    def __init__(self, quantization_config: EdgeQuantConfig, **kwargs: Any) -> None:
        super().__init__(quantization_config, **kwargs)
        self.report = ModuleReport()
        self._layers: dict[str, LayerPlan] = {}
        self._experts: list[ExpertsPlan] = []
        self._tied: list[tuple[str, str]] = []
        self._failure: Error | None = None

    def validate_environment(self, *args: Any, **kwargs: Any) -> None:
        device_map = kwargs.get("device_map")
        devices = device_map.values() if isinstance(device_map, dict) else [device_map]
        if any(d is not None and str(d) not in ("cpu", "auto") for d in devices):
            raise Error(f"edgequant's layers run on the CPU: device_map='cpu', not {device_map!r}")

    def update_device_map(self, device_map: Any) -> Any:
        return {"": "cpu"} if device_map == "auto" else device_map

    def is_serializable(self) -> bool:
        return True

    @property
    def is_trainable(self) -> bool:  # adapters on top, the packed weights being frozen
        return True

    @property
    def is_compileable(self) -> bool:
        return True

    # ---- before loading ----

    def _process_model_before_weight_loading(self, model: Any, **kwargs: Any) -> None:
        if self.pre_quantized:
            self._place_layers(model)
            return
        plan = plan_module(model, self.quantization_config.to_quant_config())
        self.report = ModuleReport(kept=plan.kept, unsupported=plan.unsupported)
        self._layers = {name: layer for layer in plan.layers for name in layer.names}
        self._experts = plan.experts
        self._untie(model)

    def _place_layers(self, model: Any) -> None:
        """Quantized layers on the meta device where config.json says so; weights follow."""
        if self.quantization_config.modules is None:
            raise Error("quantization_config in config.json lists no modules: this is no model that edgequant saved")
        formats = dict(self.quantization_config.modules)
        inside = {name: formats.pop(name) for name in list(formats) if owner_of(model, name) is not None}
        for owner in sorted({name.rsplit(".", 2)[0] for name in inside}):
            model.set_submodule(owner, _empty_experts(owner, model.get_submodule(owner), inside, self._compute))
        groups = [names for names in shared_layers(model) if not formats.keys().isdisjoint(names)]
        lost = formats.keys() - {name for names in groups for name in names}
        if lost:
            raise Error(f"config.json has quantized layers that the model has not: {', '.join(sorted(lost)[:4])}")
        for names in groups:
            first = next(name for name in names if name in formats)
            others = [name for name in names if name != first]
            for name in names:
                model.set_submodule(name, _empty_layer(model.get_submodule(name), formats[first], self._compute))
            self._tied += [(name, first) for name in others]
            for name in others:  # not loaded, but tied in the end
                del model.get_submodule(name)._buffers["qweight"], model.get_submodule(name)._buffers["qformat"]
        self._layers = {name: LayerPlan((name,), (0, 0), f, None, None) for name, f in formats.items()}
        self._untie(model)

    @property
    def _compute(self) -> str:
        return self.quantization_config.compute

    def _untie(self, model: Any) -> None:
        """transformers ties parameters named weight; quantized layers have none, so they are tied here."""
        for target, source in list(model.all_tied_weights_keys.items()):
            if target.removesuffix(".weight") in self._layers or source.removesuffix(".weight") in self._layers:
                del model.all_tied_weights_keys[target]

    # ---- while loading ----

    def param_needs_quantization(self, model: Any, param_name: str, **kwargs: Any) -> bool:
        name, _, kind = param_name.rpartition(".")
        return not self.pre_quantized and kind == "weight" and name in self._layers

    def get_quantize_ops(self) -> ConversionOps:
        return _Quantize(self)

    def quantize(self, model: Any, name: str, weight: torch.Tensor, missing_keys: set[str]) -> None:
        """Replaces the layer, and those tied to it. Errors wait until loading is over: transformers hides them."""
        layer = self._layers[name]
        missing_keys.difference_update(f"{other}.weight" for other in layer.names)
        if self._failure or not isinstance(model.get_submodule(name), nn.Linear | nn.Embedding):
            return  # a second copy of tied weights
        try:
            q, entry = quantize_layer(layer, weight, self.quantization_config.to_quant_config())
        except Error as e:
            self._failure = e
            return
        replace_layers(model, layer.names, q, self._compute)
        self.report.layers.append(entry)
        self._tied += [(other, layer.names[0]) for other in layer.names[1:]]
        drop_pages(weight)

    # ---- after loading ----

    def _process_model_after_weight_loading(self, model: Any, **kwargs: Any) -> Any:
        if self._failure:
            raise self._failure
        for experts in self._experts:
            self.report.layers += quantize_experts(model, experts, self.quantization_config.to_quant_config())
        for target, source in self._tied if self.pre_quantized else ():
            layer, other = model.get_submodule(target), model.get_submodule(source)
            layer.register_buffer("qweight", other.qweight)
            layer.register_buffer("qformat", other.qformat)
        self._finish(model)
        speed_up(model)
        return model

    def _finish(self, model: Any) -> None:
        """Notes the formats for config.json, and the names of tied weights for saving."""
        found = {}
        for name, module in model.named_modules(remove_duplicate=False):
            if isinstance(module, QuantLinear | QuantEmbedding):
                module.check_format(name)
                found[name] = module.format
        if not found:
            raise Error(f"no layer of {type(model).__name__} was quantized: {self.report}")
        self.quantization_config.modules = found
        for prefix, module in model.named_modules():
            keys = getattr(module, "_tied_weights_keys", None)
            if keys:
                module._tied_weights_keys = _tied_names(dict(keys), f"{prefix}." if prefix else "", found)
        model.all_tied_weights_keys = model.get_expanded_tied_weights_keys(all_submodels=True)
        if self.report.unsupported:
            lines = "\n".join(f"  {name}: {why}" for name, why in self.report.unsupported.items())
            _logger.warning(f"edgequant left these as they are, since it cannot quantize them:\n{lines}")


class _Quantize(ConversionOps):
    """Called with each weight of the checkpoint that is to be quantized; puts the layer in place itself."""

    def __init__(self, quantizer: EdgeQuantizer) -> None:
        self.quantizer = quantizer

    def convert(self, input_dict: dict[str, Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
        ((name, weight),) = input_dict.items()
        name = kwargs.get("full_layer_name") or name
        weight = weight[0] if isinstance(weight, list) else weight
        self.quantizer.quantize(kwargs["model"], name.removesuffix(".weight"), weight, kwargs["missing_keys"])
        return {}


def _empty_layer(old: nn.Module, format: str, compute: str) -> QuantLinear | QuantEmbedding:
    if isinstance(old, nn.Embedding):
        scale, dtype = embedding_scale(old) or 1.0, old.weight.dtype
        n, k = old.num_embeddings, old.embedding_dim
        return QuantEmbedding(n, k, format, old.padding_idx, dtype, device="meta", scale=scale)
    assert isinstance(old, nn.Linear)
    layer = QuantLinear(old.in_features, old.out_features, format, bias=False, compute=compute, device="meta")
    layer.bias = old.bias
    return layer


def _empty_experts(name: str, old: Any, formats: Mapping[str, str], compute: str) -> QuantExperts:
    made: dict[str, list[QuantLinear]] = {}
    for part, parameter in PARTS.items():
        count, rows, cols = getattr(old, parameter).shape
        made[part] = []
        for i in range(count):
            if (format := formats.get(f"{name}.{part}.{i}")) is None:
                raise Error(f"config.json lists no format for {name}.{part}.{i}")
            layer = QuantLinear(cols, rows, format, bias=False, compute=compute, device="meta")
            made[part].append(layer)
    return QuantExperts(made["up"], made["down"], old.act_fn)


def _tied_names(keys: dict[str, str], prefix: str, quantized: Mapping[str, str]) -> dict[str, str]:
    """transformers' tied weights with the names that quantized layers give to theirs."""
    result = {}
    for target, source in keys.items():
        if prefix + source.removesuffix(".weight") in quantized:
            for name in ("qweight", "qformat"):
                result[target.removesuffix("weight") + name] = source.removesuffix("weight") + name
        else:
            result[target] = source
    return result


def quantize_pretrained(model: Any, config: EdgeQuantConfig | str) -> ModuleReport:
    """Quantizes a model of transformers that is in memory, in place, so that `save_pretrained` writes it packed.

    Args:
      model: a PreTrainedModel on the CPU.
      config: EdgeQuantConfig, or the name of a format or preset.

    Returns: the report of `edgequant.torch.quantize_module`, whose errors are raised.
    """
    config = EdgeQuantConfig(config) if isinstance(config, str) else config
    quantizer = EdgeQuantizer(config, pre_quantized=False)
    quantizer.report = quantize_module(model, config.to_quant_config())
    quantizer._finish(model)
    speed_up(model)
    model.hf_quantizer, model.is_quantized, model.quantization_method = quantizer, True, _METHOD
    model.config.quantization_config = config
    return quantizer.report
