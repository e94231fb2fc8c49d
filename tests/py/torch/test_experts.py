"""Experts that are multiplied with at once, and one after another."""

from __future__ import annotations

import edgequant as eq
import pytest

pytest.importorskip("torch")

import torch
from edgequant import _core
from edgequant.torch.experts import QuantExperts
from edgequant.torch.modules import QuantLinear

COUNT, WIDTH, INNER = 6, 64, 32


def make(compute: str) -> QuantExperts:
    torch.manual_seed(1)

    def layer(n: int, k: int, format: str) -> QuantLinear:
        return QuantLinear.from_quantized(eq.quantize(torch.randn(n, k), format), compute=compute)

    up = [layer(2 * INNER, WIDTH, "q4_0" if e % 2 else "q8_0") for e in range(COUNT)]
    return QuantExperts(up, [layer(WIDTH, INNER, "q5_0") for _ in range(COUNT)], torch.nn.functional.silu)


def route(tokens: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    weights, index = torch.softmax(torch.randn(tokens, COUNT - 1), -1).topk(2)  # the last is not asked for
    return torch.randn(tokens, WIDTH).to(dtype), index, weights.to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("tokens", [1, 9])
@pytest.mark.parametrize("compute", ["int8", "exact"])
def test_at_once_is_one_after_another(
    compute: str, tokens: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    experts, (x, index, weights) = make(compute), route(tokens, dtype)
    want = experts(x.clone().requires_grad_(), index, weights)
    assert want.requires_grad
    calls = []
    multiply = _core.matmul_grouped
    monkeypatch.setattr(_core, "matmul_grouped", lambda *args: (calls.append(args), multiply(*args))[1])
    with torch.no_grad():
        got = experts(x, index, weights)
    assert len(calls) == 2 and got.dtype == dtype
    torch.testing.assert_close(got, want.detach(), rtol=4 * torch.finfo(dtype).eps, atol=80 * torch.finfo(dtype).eps)
    assert experts.up[COUNT - 1]._bound is None  # nothing is repacked before it is asked for


def test_numbers_behind_the_last_expert_stand_for_none() -> None:
    experts, (x, index, weights) = make("exact"), route(4, torch.float32)
    with torch.no_grad():
        alone = experts(x, index[:, :1], weights[:, :1])
        index[:, 1] = COUNT
        torch.testing.assert_close(experts(x, index, weights), alone)


def test_routers_can_learn() -> None:
    experts, (x, index, weights) = make("exact"), route(3, torch.float32)
    weights.requires_grad_()
    experts(x, index, weights).sum().backward()
    own = weights.grad
    weights.grad = None
    experts(x.requires_grad_(), index, weights).sum().backward()
    assert own is not None and weights.grad is not None and x.grad is not None
    torch.testing.assert_close(own, weights.grad)
