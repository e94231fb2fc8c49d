"""What the core knows of a decoder's modules, and whether they are still what it knows."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from edgequant import _core
from edgequant._core import Error
from edgequant.torch import ops
from edgequant.torch.decoder_cache import CacheState
from edgequant.torch.modules import QuantLinear
from edgequant.torch.schemes import SchemeLinear

CLASSES = ("LlamaModel", "MistralModel", "Qwen2Model", "Qwen3Model", "Phi3Model", "Gemma3TextModel")
"""Names of the classes of transformers that the core's arithmetic stands for."""

_SEPARATE = {
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
    "output": "self_attn.o_proj",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}
_JOINED = {
    **dict.fromkeys(("query", "key", "value"), "self_attn.qkv_proj"),
    "output": "self_attn.o_proj",
    **dict.fromkeys(("gate", "up"), "mlp.gate_up_proj"),
    "down": "mlp.down_proj",
}
_NORMS = {"input_norm": "input_layernorm", "post_norm": "post_attention_layernorm"}
_GEMMA_NORMS = {
    "input_norm": "input_layernorm",
    "attention_norm": "post_attention_layernorm",
    "post_norm": "pre_feedforward_layernorm",
    "feed_norm": "post_feedforward_layernorm",
}
_HEAD_NORMS = {"query_norm": "self_attn.q_norm", "key_norm": "self_attn.k_norm"}
_ACTIVATIONS = {"SiLU": False, "SiLUActivation": False, "GELUTanh": True}  # whether the core's is GELU
_STEADY = ("default", "linear", "llama3", "yarn")  # kinds of rotations that depend on nothing but the position


class Plan:
    """Panels, and addresses of norms and biases."""

    def __init__(self, base: Any) -> None:
        config = base.config
        self._dicts: list[dict[str, Any]] = []  # where modules, packed weights and vectors are found
        self._names: list[str] = []
        self._found: list[Any] = []
        self._packed: list[torch.Tensor] = []
        self._vectors: list[torch.Tensor] = []
        self._base = base
        attention = base.layers[0].self_attn
        self.heads, self.head_dim = config.num_key_value_heads, attention.head_dim
        kinds: list[str] = getattr(config, "layer_types", None) or ["full_attention"] * len(base.layers)
        self._tables = _Tables(base.rotary_emb, kinds)
        layers = [self._layer(layer, kind) for layer, kind in zip(base.layers, kinds, strict=True)]
        gemma = _is_gemma(base)
        final_norm = self._address(base.norm, "weight")
        (vectors,) = {vector.dtype for vector in self._vectors}
        self.core = _core.Decoder(
            config.hidden_size,
            config.num_attention_heads,
            self.heads,
            self.head_dim,
            self._tables.width,
            base.norm.eps if gemma else base.norm.variance_epsilon,
            attention.scaling,
            _ACTIVATIONS[type(_activation(base.layers[0].mlp)).__name__],
            next(iter(_computes(base))) == "exact",
            ops.TYPES[vectors],
            1.0 if gemma else 0.0,
            layers,
            final_norm,
        )
        self._versions = [data._version for data in self._packed]
        self._addresses = [vector.data_ptr() for vector in self._vectors]
        modules = [base.norm, *base.layers.modules()]
        self._hooks = [h for m in modules for h in (m._forward_hooks, m._forward_pre_hooks)]

    @classmethod
    def of(cls, base: Any) -> Plan | None:
        """None if the modules are not what the core can do."""
        try:
            return cls(base) if is_plain(base) else None
        except Error:  # widths that are no multiples of 16
            return None

    def _layer(self, layer: Any, kind: str) -> dict[str, Any]:
        config = self._base.config
        sliding = kind == "sliding_attention" or (type(self._base).__name__ == "Phi3Model" and config.sliding_window)
        entries: dict[str, Any] = {"window": config.sliding_window if sliding else 0}
        entries["rotation"] = self._tables.kinds.index(self._tables.kind_of(kind))
        first: dict[str, int] = {}
        width = {"query": config.num_attention_heads * self.head_dim, "key": self.heads * self.head_dim}
        for key, path in _paths(layer).items():
            module = self._module(layer, path)
            at = first.setdefault(path, 0)
            entries[key] = (module.panel(), at)
            first[path] += width.get(key, module.out_features // 2)
            self._remember(module._parameters, "scale", None)
            self._remember(module.__dict__, "compute", module.compute)
            buffers, names = module.packed()
            for name in names:
                self._remember(buffers, name, buffers[name])
                if not buffers[name].is_inference():  # those do not count their changes
                    self._packed.append(buffers[name])
            if module.bias is not None:
                address = self._address(module, "bias")
                entries[f"{key}_bias"] = address + at * module.bias.element_size()
        for key, path in {**_norms(layer), **_HEAD_NORMS}.items():
            if hasattr(layer.get_submodule(path.rpartition(".")[0]), path.rpartition(".")[2]):
                entries[key] = self._address(self._module(layer, path), "weight")
        return entries

    def _module(self, layer: Any, path: str) -> Any:
        owner, _, name = path.rpartition(".")
        parent = layer.get_submodule(owner)
        module = getattr(parent, name)
        self._remember(parent._modules, name, module)
        return module

    def _remember(self, place: dict[str, Any], name: str, what: Any) -> None:
        self._dicts.append(place)
        self._names.append(name)
        self._found.append(what)

    def _address(self, module: nn.Module, name: str) -> int:
        tensor = module._parameters[name]
        if tensor is None or not tensor.is_contiguous() or not tensor.is_cpu or tensor.dtype not in _VECTORS:
            raise Error(f"{type(module).__name__}.{name} is not a float32 or bfloat16 vector in memory")
        if self._vectors and self._vectors[0].dtype != tensor.dtype:
            raise Error(f"{type(module).__name__}.{name} is of another type than the vectors before it")
        self._remember(module._parameters, name, tensor)
        self._vectors.append(tensor)
        return tensor.data_ptr()

    def fits(self) -> bool:
        """Whether nothing was replaced, moved or written to since. Asked for every token, hence in few, long steps."""
        return (
            _core.are_in_place(self._dicts, self._names, self._found)
            and [data._version for data in self._packed] == self._versions
            and [vector.data_ptr() for vector in self._vectors] == self._addresses
            and self._tables.fit(self._base.rotary_emb)
        )

    def has_no_hooks(self) -> bool:
        if not any(self._hooks):
            return True
        # transformers leaves its own behind after a request for hidden states; without one they do nothing
        hooks = [hook for group in self._hooks for hook in group.values()]
        return all(getattr(hook, "__module__", "").startswith("transformers.") for hook in hooks)

    def cache_state(self, cache: Any, x: torch.Tensor) -> CacheState | None:
        """The state of a cache for embeddings x (rows, count, hidden); None if the core cannot use it."""
        return CacheState.of(cache, (x.shape[0], self.heads, self.head_dim), x.dtype, len(self._base.layers))

    def step(
        self, x: torch.Tensor, positions: torch.Tensor | None, starts: torch.Tensor | None, state: CacheState
    ) -> torch.Tensor:
        """The last hidden states for embeddings x (rows, count, hidden), in their type; the cache grows by `count`.

        positions: (rows or 1, count) int64; None if they follow those of the cache. starts: (rows) int64, the first
        position of each row in the cache that is no padding; None if there is none.
        """
        rows, count, _ = x.shape
        y = x.to(torch.float32, copy=True).contiguous()
        state.reserve(count)
        if positions is None:
            positions = torch.arange(state.length, state.length + count)[None]
        positions, tables = self._tables.at(positions.expand(rows, count).contiguous())
        self.core.step(
            y.data_ptr(),
            rows,
            count,
            positions.data_ptr(),
            0 if starts is None else starts.data_ptr(),
            [(cos.data_ptr(), sin.data_ptr()) for cos, sin in tables],
            ops.TYPES[state.dtype],
            state.data.data_ptr(),
            state.capacity,
            state.length,
        )
        state.grow(count)
        return y.to(x.dtype)

    def __deepcopy__(self, memo: Any) -> None:  # made again when needed
        return None

    def __reduce__(self) -> Any:
        return type(None), ()


_VECTORS = (torch.float32, torch.bfloat16)


class _Tables:
    """cos and sin of positions, one pair per kind of layer if the model has several kinds of rotations."""

    def __init__(self, rotary: Any, kinds: list[str]) -> None:
        types = rotary.rope_type
        self._by_kind = isinstance(types, dict)
        self.kinds = sorted(set(kinds)) if self._by_kind else [""]
        self._steady = set(types.values() if isinstance(types, dict) else [types]) <= set(_STEADY)
        self._rotary = rotary
        self._state = self._read()
        self._made: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._count = 0
        self.width = self._compute(torch.zeros((1, 1), dtype=torch.int64))[0][0].shape[-1]

    def kind_of(self, kind: str) -> str:
        return kind if self._by_kind else ""

    def _read(self) -> list[tuple[int, int]]:
        return [(data.data_ptr(), ops.version_of(data)) for data in self._rotary._buffers.values() if data is not None]

    def fit(self, rotary: Any) -> bool:
        """Whether the frequencies are still those that the tables were made from."""
        return rotary is self._rotary and (not self._steady or self._read() == self._state)

    def _compute(self, positions: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        x = torch.empty(0)  # says type and device
        pairs = [self._rotary(x, positions, *([kind] if kind else [])) for kind in self.kinds]
        return [(cos.float().contiguous(), sin.float().contiguous()) for cos, sin in pairs]

    def at(self, positions: torch.Tensor) -> tuple[torch.Tensor, list[tuple[torch.Tensor, torch.Tensor]]]:
        """Rows of tables for positions (rows, count), and the tables."""
        if not self._steady:
            return torch.arange(positions.numel()), self._compute(positions)
        last = int(positions.max())
        if last >= self._count:
            self._count = max(256, 1 << (last + 1).bit_length())
            self._made = self._compute(torch.arange(self._count)[None])
        return positions, self._made


def is_plain(base: Any) -> bool:
    """Whether the modules are the ones that the core's arithmetic stands for."""
    if type(base).__name__ not in CLASSES:
        return False
    config = base.config
    if getattr(config, "attn_logit_softcapping", None) is not None:
        return False
    if getattr(config, "use_bidirectional_attention", False):
        return False
    for layer in base.layers:
        for key, path in _paths(layer).items():
            module = layer.get_submodule(path)
            if type(module) not in (QuantLinear, SchemeLinear) or module.scale is not None:
                return False
            if module.bias is not None and key in ("gate", "up", "down"):
                return False
        if type(_activation(layer.mlp)).__name__ not in _ACTIVATIONS:
            return False
    return len(_computes(base)) == 1


def _computes(base: Any) -> set[str]:
    return {layer.get_submodule(path).compute for layer in base.layers for path in _paths(layer).values()}


def _activation(mlp: Any) -> Any:
    return mlp.activation_fn if hasattr(mlp, "activation_fn") else mlp.act_fn


def _is_gemma(base: Any) -> bool:
    return type(base).__name__ == "Gemma3TextModel"


def _paths(layer: Any) -> dict[str, str]:
    return _JOINED if hasattr(layer.self_attn, "qkv_proj") else _SEPARATE


def _norms(layer: Any) -> dict[str, str]:
    return _GEMMA_NORMS if hasattr(layer, "pre_feedforward_layernorm") else _NORMS
