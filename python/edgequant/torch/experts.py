"""Mixtures of experts whose weights transformers holds as one three-dimensional parameter for all experts."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from edgequant import _core
from edgequant.torch import ops
from edgequant.torch.modules import QuantLinear

PARTS = {"up": "gate_up_proj", "down": "down_proj"}
"""Parts of QuantExperts -> the parameters (experts, N, K) of transformers' modules."""


class QuantExperts(nn.Module):
    """The experts of a layer, two QuantLinear each: `up[i]` (gate and up projection below each other) and `down[i]`.

    Shapes: hidden states (tokens, K), indices and weights of each token's experts (tokens, k) -> (tokens, K).
    """

    def __init__(self, up: list[QuantLinear], down: list[QuantLinear], act_fn: Any) -> None:
        super().__init__()
        self.num_experts = len(up)
        self.up, self.down = nn.ModuleList(up), nn.ModuleList(down)
        self.act_fn = act_fn

    def forward(
        self, hidden_states: torch.Tensor, top_k_index: torch.Tensor, top_k_weights: torch.Tensor
    ) -> torch.Tensor:
        plain = ops.runs_plainly(hidden_states) and hidden_states.dtype in ops.TYPES
        if plain and not (torch.is_grad_enabled() and hidden_states.requires_grad):
            used, index = top_k_index.unique(return_inverse=True)
            experts = used.tolist()
            if experts and experts[-1] < self.num_experts and self._are_plain(experts):
                return self._all_at_once(hidden_states, experts, index, top_k_weights)
        result = torch.zeros_like(hidden_states)
        for expert in top_k_index.unique().tolist():
            if expert >= self.num_experts:  # stands for none
                continue
            token, place = torch.where(top_k_index == expert)
            gate, up = self.up[expert](hidden_states[token]).chunk(2, dim=-1)
            y = self.down[expert](self.act_fn(gate) * up) * top_k_weights[token, place, None]
            result.index_add_(0, token, y.to(result.dtype))
        return result

    def _are_plain(self, experts: list[int]) -> bool:
        """Whether one call of the core multiplies with all of them."""
        layers: list[Any] = [part[e] for part in (self.up, self.down) for e in experts]
        return len({layer.compute for layer in layers}) == 1 and all(
            type(layer) is QuantLinear and layer.bias is None and layer.scale is None for layer in layers
        )

    def _all_at_once(
        self, hidden_states: torch.Tensor, experts: list[int], index: torch.Tensor, top_k_weights: torch.Tensor
    ) -> torch.Tensor:
        """forward with the experts that are asked for; index says which of them."""
        gate, up = _products(self.up, experts, hidden_states, index, index.shape[-1]).chunk(2, dim=-1)
        y = _products(self.down, experts, self.act_fn(gate) * up, index, 1)
        y = y.view(*index.shape, -1) * top_k_weights[..., None]
        return y.sum(-2).to(hidden_states.dtype)


def _products(
    layers: nn.ModuleList, experts: list[int], x: torch.Tensor, index: torch.Tensor, per_row: int
) -> torch.Tensor:
    """Row i of (index.numel(), N) is row i / per_row of x times the weights of layer experts[index[i]]."""
    chosen: list[Any] = [layers[e] for e in experts]
    panels = [layer.panel() for layer in chosen]
    y = x.new_empty((index.numel(), chosen[0].out_features))
    type = ops.check_input(x, chosen[0].in_features, "QuantExperts")
    rows, out = (t.view(torch.int16).numpy() if t.dtype == torch.bfloat16 else t.numpy() for t in (x.contiguous(), y))
    flat = index.reshape(-1).contiguous().numpy()
    _core.matmul_grouped(rows, type, panels, flat, per_row, out, type, chosen[0].compute)
    return y


def are_experts(module: nn.Module) -> bool:
    """Whether QuantExperts computes what this module of transformers does: gated, without biases, not transposed."""
    try:
        from transformers.integrations import moe
    except ImportError:
        return False
    shapes = [getattr(getattr(module, name, None), "shape", ()) for name in PARTS.values()]
    expected = {"has_gate": True, "has_bias": False, "is_transposed": False, "is_concatenated": True}
    return (
        all(len(shape) == 3 for shape in shapes)
        and all(getattr(module, key, None) is value for key, value in expected.items())
        and getattr(module, "has_post_expert_norm", False) is False
        and getattr(type(module), "_apply_gate", None) is getattr(moe, "_default_apply_gate", ())
        and len(list(module.parameters())) == len(PARTS)
    )


def owner_of(model: nn.Module, name: str) -> nn.Module | None:
    """The module of transformers that holds the expert of a name such as layers.0.mlp.experts.up.3; None for others."""
    path, part, number = ["", "", "", *name.rsplit(".", 2)][-3:]
    if part not in PARTS or not number.isdigit():
        return None
    try:
        owner = model.get_submodule(path)
    except AttributeError:
        return None
    return owner if are_experts(owner) else None
