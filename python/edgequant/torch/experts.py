"""Mixtures of experts whose weights transformers holds as one three-dimensional parameter for all experts."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

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
        result = torch.zeros_like(hidden_states)
        for expert in top_k_index.unique().tolist():
            if expert >= self.num_experts:  # stands for none
                continue
            token, place = torch.where(top_k_index == expert)
            gate, up = self.up[expert](hidden_states[token]).chunk(2, dim=-1)
            y = self.down[expert](self.act_fn(gate) * up) * top_k_weights[token, place, None]
            result.index_add_(0, token, y.to(result.dtype))
        return result


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
