"""Generation without the cost of PyTorch's small operations: one call of the core per token, for all layers.

A decoder of the Llama kind (Llama, Mistral, Qwen2, Qwen3) spends most of a token's time between its products once
these are quantized. `speed_up` gives such a model of transformers a forward method that takes the core's way for single
tokens, wherever this computes the same, and the model's own for everything else.
"""

from __future__ import annotations

import operator
import types
from typing import Any

import torch
from torch import nn

from edgequant import _core
from edgequant._core import Error
from edgequant.torch import ops
from edgequant.torch.modules import QuantLinear

_CLASSES = ("LlamaModel", "MistralModel", "Qwen2Model", "Qwen3Model")
_PANELS = {
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
    "output": "self_attn.o_proj",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}
_NORMS = {"input_norm": "input_layernorm", "post_norm": "post_attention_layernorm"}
_HEAD_NORMS = {"query_norm": "self_attn.q_norm", "key_norm": "self_attn.k_norm"}


def speed_up(model: nn.Module) -> bool:
    """Lets a model of transformers generate through the core; returns whether it is one that can.

    It can if it is a Llama, Mistral, Qwen2 or Qwen3 whose layers are all QuantLinear. Taken are steps of one token per
    sequence in float32, without padding, gradients, hooks, adapters or requests for attentions and hidden states;
    whenever one of these appears, the model's own forward runs. Undone by `del model.model.forward`.
    """
    base = getattr(model, getattr(model, "base_model_prefix", ""), model)
    if type(base).__name__ not in _CLASSES or not _is_plain(base):
        return False
    base.forward = types.MethodType(forward, base)
    return True


def forward(
    self: Any,
    input_ids: torch.Tensor | None = None,
    attention_mask: torch.Tensor | None = None,
    position_ids: torch.Tensor | None = None,
    past_key_values: Any = None,
    inputs_embeds: torch.Tensor | None = None,
    use_cache: bool | None = None,
    **kwargs: Any,
) -> Any:
    """The forward method of the decoder, by way of the core where that computes the same."""
    given = input_ids if inputs_embeds is None else inputs_embeds
    if (
        given is not None
        and (input_ids is None or inputs_embeds is None)
        and given.shape[1] == 1
        and not torch.is_grad_enabled()
        and ops.runs_plainly(given)
        and not kwargs.get("output_attentions", self.config.output_attentions)
        and not kwargs.get("output_hidden_states", self.config.output_hidden_states)
    ):
        state = _cache_of(self, given.shape[0], attention_mask, position_ids, past_key_values)
        plan = _plan_of(self) if state is not None else None
        if state is not None and plan is not None:
            from transformers.modeling_outputs import BaseModelOutputWithPast

            x = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds.clone()
            if x.dtype == torch.float32 and x.is_contiguous():
                position = torch.full((1, 1), state.length)
                cos, sin = self.rotary_emb(x, position_ids=position)
                plan.step(x, cos, sin, state)
                return BaseModelOutputWithPast(last_hidden_state=x, past_key_values=past_key_values)
    return type(self).forward(
        self,
        input_ids=input_ids,
        attention_mask=attention_mask,
        position_ids=position_ids,
        past_key_values=past_key_values,
        inputs_embeds=inputs_embeds,
        use_cache=use_cache,
        **kwargs,
    )


def _plan_of(base: Any) -> Plan | None:
    """The plan that fits the modules as they are now."""
    plan = base.__dict__.get("_edgequant_plan")
    if plan is None or not plan.fits():
        plan = base.__dict__["_edgequant_plan"] = Plan.of(base)
    return plan if plan is not None and not base.training and plan.has_no_hooks() else None


class Plan:
    """What the core knows of a decoder's modules: panels, and addresses of norms and biases."""

    def __init__(self, base: Any) -> None:
        config = base.config
        self._places: list[tuple[dict[str, Any], str]] = []  # where modules, packed weights and vectors are found
        self._found: list[Any] = []
        self._packed: list[torch.Tensor] = []
        self._vectors: list[torch.Tensor] = []
        layers = [self._layer(layer) for layer in base.layers]
        attention = base.layers[0].self_attn
        self.core = _core.Decoder(
            config.hidden_size,
            config.num_attention_heads,
            config.num_key_value_heads,
            attention.head_dim,
            base.norm.variance_epsilon,
            attention.scaling,
            base.layers[0].mlp.up_proj.compute == "exact",
            layers,
            self._address(base.norm, "weight"),
        )
        self._versions = [data._version for data in self._packed]
        self._addresses = [vector.data_ptr() for vector in self._vectors]
        modules = [base.norm, *base.layers.modules()]
        self._hooks = [h for m in modules for h in (m._forward_hooks, m._forward_pre_hooks)]

    @classmethod
    def of(cls, base: Any) -> Plan | None:
        """None if the modules are not what the core can do."""
        try:
            return cls(base) if _is_plain(base) else None
        except Error:  # widths that are no multiples of 16
            return None

    def _layer(self, layer: Any) -> dict[str, Any]:
        entries: dict[str, Any] = {}
        for key, path in _PANELS.items():
            module = self._module(layer, path)
            data = module.qweight
            entries[key] = ops.panel_of(data, module.format, module.out_features, module.in_features)
            self._remember(module._buffers, "qweight", data)
            if not data.is_inference():  # those do not count their changes
                self._packed.append(data)
            if module.bias is not None:
                entries[f"{key}_bias"] = self._address(module, "bias")
        for key, path in {**_NORMS, **_HEAD_NORMS}.items():
            if path in _NORMS.values() or hasattr(layer.self_attn, path.rpartition(".")[2]):
                entries[key] = self._address(self._module(layer, path), "weight")
        return entries

    def _module(self, layer: Any, path: str) -> Any:
        owner, _, name = path.rpartition(".")
        parent = layer.get_submodule(owner)
        module = getattr(parent, name)
        self._remember(parent._modules, name, module)
        return module

    def _remember(self, place: dict[str, Any], name: str, what: Any) -> None:
        self._places.append((place, name))
        self._found.append(what)

    def _address(self, module: nn.Module, name: str) -> int:
        tensor = module._parameters[name]
        if tensor is None or tensor.dtype != torch.float32 or not tensor.is_contiguous() or not tensor.is_cpu:
            raise Error(f"{type(module).__name__}.{name} is not a float32 vector in memory")
        self._remember(module._parameters, name, tensor)
        self._vectors.append(tensor)
        return tensor.data_ptr()

    def fits(self) -> bool:
        """Whether nothing was replaced, moved or written to since. Asked for every token, hence in few, long steps."""
        return (
            all(map(operator.is_, [place.get(name) for place, name in self._places], self._found))
            and [data._version for data in self._packed] == self._versions
            and [vector.data_ptr() for vector in self._vectors] == self._addresses
        )

    def has_no_hooks(self) -> bool:
        if not any(self._hooks):
            return True
        # transformers leaves its own behind after a request for hidden states; without one they do nothing
        hooks = [hook for group in self._hooks for hook in group.values()]
        return all(getattr(hook, "__module__", "").startswith("transformers.") for hook in hooks)

    def step(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, state: _Cache) -> None:
        """One token per row: x (rows, 1, hidden) becomes the last hidden states, the cache grows by one."""
        state.reserve()
        cos, sin = cos.float().contiguous(), sin.float().contiguous()
        self.core.step(
            x.data_ptr(),
            x.shape[0],
            cos.data_ptr(),
            sin.data_ptr(),
            state.data.data_ptr(),
            state.capacity,
            state.length,
        )
        state.grow()

    def __deepcopy__(self, memo: Any) -> None:  # made again when needed
        return None

    def __reduce__(self) -> Any:
        return type(None), ()


def _is_plain(base: Any) -> bool:
    """Whether the modules are the ones that the core's arithmetic stands for."""
    if "sliding_attention" in (getattr(base.config, "layer_types", None) or ()):
        return False
    computes: set[str] = set()
    for layer in base.layers:
        for key, path in _PANELS.items():
            module = layer.get_submodule(path)
            if type(module) is not QuantLinear or module.scale is not None or not ops.has_panel(module.format):
                return False
            if module.bias is not None and key in ("gate", "up", "down"):
                return False
            computes.add(module.compute)
        if type(layer.mlp.act_fn).__name__ not in ("SiLU", "SiLUActivation"):
            return False
    return len(computes) == 1


class _Cache:
    """Keys and values of all layers in one tensor with room to grow; the cache's own tensors are views of it."""

    def __init__(self, layers: list[Any]) -> None:
        self.layers = layers
        self.length = layers[0].keys.shape[-2]
        self.capacity = 0
        self.views: list[torch.Tensor] = []
        self.data = torch.empty(0)
        self._copy(self.length + 64)

    def _copy(self, capacity: int) -> None:
        rows, heads, _, width = self.layers[0].keys.shape
        data = torch.empty((len(self.layers), 2, rows, heads, capacity, width))
        for i, layer in enumerate(self.layers):
            data[i, 0, :, :, : self.length] = layer.keys
            data[i, 1, :, :, : self.length] = layer.values
        self.data, self.capacity = data, capacity
        self._show()

    def _show(self) -> None:
        self.views = list(self.data[..., : self.length, :].flatten(0, 1).unbind(0))
        for i, layer in enumerate(self.layers):
            layer.keys, layer.values = self.views[2 * i], self.views[2 * i + 1]

    def is_current(self, layers: list[Any]) -> bool:
        """Whether the cache still has the tensors that it was given here."""
        return len(layers) == len(self.layers) and all(
            layer.keys is self.views[2 * i] and layer.values is self.views[2 * i + 1] for i, layer in enumerate(layers)
        )

    def reserve(self) -> None:
        """Makes room for one position more."""
        if self.length == self.capacity:
            self._copy(self.capacity * 3 // 2)

    def grow(self) -> None:
        self.length += 1
        self._show()


def _cache_of(base: Any, rows: int, mask: Any, positions: Any, cache: Any) -> _Cache | None:
    """The cache's state, if it is of the growing kind, filled, in float32, and nothing is masked or shifted."""
    from transformers.cache_utils import DynamicCache, DynamicLayer

    if type(cache) is not DynamicCache or len(cache.layers) != len(base.layers):
        return None
    state: _Cache | None = cache.__dict__.get("_edgequant_state")
    if state is None or not state.is_current(cache.layers):
        layers: list[Any] = cache.layers
        for layer in layers:
            if type(layer) is not DynamicLayer or not layer.is_initialized:
                return None
            keys: Any = layer.keys
            if keys.dtype != torch.float32 or not keys.is_cpu or keys.dim() != 4 or keys.shape != layers[0].keys.shape:
                return None
        if layers[0].keys.shape[-2] == 0:
            return None
        state = _Cache(layers)
        cache.__dict__["_edgequant_state"] = state
    if state.data.shape[2] != rows:
        return None
    if mask is not None and (mask.dim() != 2 or mask.shape[1] != state.length + 1 or not bool(mask.all())):
        return None
    if positions is not None and not bool((positions == state.length).all()):
        return None
    return state
