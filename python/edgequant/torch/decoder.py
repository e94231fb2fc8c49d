"""Generation without the cost of PyTorch's small operations: one call of the core per token, for all layers.

A decoder of the Llama kind (Llama, Mistral, Qwen2, Qwen3, Phi-3 and -4, Gemma 3) spends most of a token's time
between its products once these are quantized. `speed_up` gives such a model of transformers a forward method that
takes the core's way for single tokens and short prompts, wherever this computes the same, and the model's own for
everything else.
"""

from __future__ import annotations

import types
from typing import Any

import torch
from torch import nn

from edgequant.torch import ops
from edgequant.torch.decoder_plan import Plan, is_plain

_LONGEST = 64
"""Tokens at a time that the core takes; PyTorch's attention is better for more."""


def speed_up(model: nn.Module) -> bool:
    """Lets a model of transformers generate through the core; returns whether it is one that can.

    It can if it is a Llama, Mistral, Qwen2, Qwen3, Phi-3 (or 4) or Gemma 3 (text) whose layers are all QuantLinear.
    Taken are steps of up to 64 tokens per sequence in float32 or bfloat16 with a cache, without gradients, hooks,
    adapters or requests for attentions and hidden states; of padding, only what stands on the left of single tokens.
    Whenever something else appears, the model's own forward runs. In bfloat16 the core rounds what is cached and the
    result, and nothing between. Undone by `del model.model.forward`.
    """
    base = getattr(model, getattr(model, "base_model_prefix", ""), model)
    if not is_plain(base):
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
        and past_key_values is not None
        and given.shape[1] <= _LONGEST
        and not torch.is_grad_enabled()
        and ops.runs_plainly(given)
        and not kwargs.get("output_attentions", self.config.output_attentions)
        and not kwargs.get("output_hidden_states", self.config.output_hidden_states)
        and (plan := _plan_of(self)) is not None
    ):
        x: torch.Tensor = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        state = plan.cache_state(past_key_values, x) if x.dtype in (torch.float32, torch.bfloat16) else None
        if state is not None and _are_usual(position_ids, state.length, x):
            fits, starts = _padding(attention_mask, state.length, x)
            if fits:
                from transformers.modeling_outputs import BaseModelOutputWithPast

                last = plan.step(x, position_ids, starts, state)
                return BaseModelOutputWithPast(last_hidden_state=last, past_key_values=past_key_values)
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
    plan: Plan | None = base.__dict__.get("_edgequant_plan")
    if plan is None or not plan.fits():
        plan = base.__dict__["_edgequant_plan"] = Plan.of(base)
    return plan if plan is not None and not base.training and plan.has_no_hooks() else None


def _are_usual(positions: torch.Tensor | None, past: int, x: torch.Tensor) -> bool:
    """Whether a causal mask is all that these positions ask for."""
    if positions is None:
        return True
    rows, count, _ = x.shape
    if positions.dim() != 2 or positions.shape[0] not in (1, rows) or positions.shape[1] != count:
        return False
    if count == 1:
        return int(positions.min()) >= 0
    return bool((positions == torch.arange(past, past + count)).all())


def _padding(mask: Any, past: int, x: torch.Tensor) -> tuple[bool, torch.Tensor | None]:
    """Whether a mask hides nothing, or only the left of single tokens; and where each row begins if it does."""
    rows, count, _ = x.shape
    if mask is None:
        return True, None
    if type(mask) is not torch.Tensor or mask.dim() != 2 or mask.shape != (rows, past + count):
        return False, None
    if bool(mask.all()):
        return True, None
    shown = (mask != 0).to(torch.int64)
    starts = shown.argmax(1)
    fits = count == 1 and bool((shown.sum(1) == past + 1 - starts).all())
    return fits, starts
