"""Fake-quantized layers: what they compute, learn and become."""

from __future__ import annotations

import copy

import edgequant as eq
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from edgequant.torch import FakeQuantLinear, QuantLinear, fake_quantize_module, finish_fake_quantized  # noqa: E402
from torch import nn  # noqa: E402

LEARNED = ["q1_0", "q2_0", "tq2_0", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0"]
ENCODED = ["q3_k", "q4_k", "iq4_nl", "mxfp4", "tq1_0", "iq2_s"]


@pytest.mark.parametrize("format", LEARNED + ENCODED)
def test_becomes_what_it_computed(format: str) -> None:
    torch.manual_seed(0)
    layer = FakeQuantLinear.from_linear(nn.Linear(512, 24), format)
    assert (layer.scale is not None) == (format in LEARNED)
    if layer.scale is not None:  # as after some training
        layer.scale.data *= torch.rand_like(layer.scale) + 0.5
    q = layer.to_quantized(compute="exact")
    assert q.format == format and torch.equal(q.dequantize(), layer.fake_weight())
    x = torch.randn(5, 512)
    torch.testing.assert_close(q(x), layer(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("format", LEARNED)
def test_begins_near_the_encoder(format: str) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(256, 64)
    w = linear.weight.detach()
    layer = FakeQuantLinear.from_linear(linear, format)
    error = (layer.fake_weight() - w).norm() / w.norm()
    assert error <= 1.02 * eq.quantize(w, format).error(w) + 1e-6


def test_gradients() -> None:
    torch.manual_seed(0)
    layer = FakeQuantLinear.from_linear(nn.Linear(64, 4, bias=False), "q4_0")
    layer.weight.data[0, 0] = 100 * layer.scale.data[0, 0]  # far outside of what the block can hold
    layer.fake_weight().sum().backward()
    assert layer.weight.grad[0, 0] == 0 and (layer.weight.grad == 1).float().mean() > 0.9
    v = layer.weight.detach().reshape(4, 2, 32) / layer.scale.detach().half().float()[..., None]
    inside = (v >= -8.5) & (v <= 7.5)
    want = torch.where(inside, v.round().clamp(-8, 7) - v, v.round().clamp(-8, 7)).sum(-1) / (32 * 7) ** 0.5
    torch.testing.assert_close(layer.scale.grad, want, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("bits", [1, 1.58, 2, 3, 4])
def test_training_beats_rounding_afterwards(bits: float) -> None:
    torch.manual_seed(0)
    teacher = nn.Sequential(nn.Linear(256, 128), nn.Tanh(), nn.Linear(128, 256), nn.Tanh(), nn.Linear(256, 4))
    x = torch.randn(128, 256) @ (torch.randn(256, 256) * 0.1)
    with torch.no_grad():
        y = teacher(x)

    def student() -> nn.Sequential:
        model = copy.deepcopy(teacher)
        for i in (0, 4):
            model[i] = FakeQuantLinear.from_linear(model[i], bits=bits)
        return model

    def loss_of(model: nn.Module) -> torch.Tensor:
        return (model(x) - y).square().mean()

    model = student()
    before = loss_of(model).item()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3 if bits < 3 else 2e-4)
    for _ in range(100):
        optimizer.zero_grad()
        loss_of(model).backward()
        optimizer.step()
    finished = finish_fake_quantized(model, compute="exact")
    assert isinstance(finished[0], QuantLinear) and isinstance(finished[4], QuantLinear)
    with torch.no_grad():
        assert loss_of(finished).item() < (0.5 if bits < 3 else 0.85) * before


def test_whole_models() -> None:
    model = nn.Sequential(nn.Embedding(10, 64), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
    assert fake_quantize_module(model, "q4_0") == ["1", "3"]
    y = model(torch.tensor([1, 2]))
    state = model.state_dict()
    assert state["1.scale"].shape == (64, 2)
    model.load_state_dict(state)
    finish_fake_quantized(model, compute="exact")
    torch.testing.assert_close(model(torch.tensor([1, 2])), y, rtol=1e-4, atol=1e-4)


def test_zero_scales_are_safe() -> None:
    layer = FakeQuantLinear.from_linear(nn.Linear(64, 4), "q4_0")
    layer.scale.data.zero_()
    layer.fake_weight().sum().backward()
    assert torch.equal(layer.fake_weight(), torch.zeros(4, 64)) and torch.isfinite(layer.scale.grad).all()
    assert np.isfinite(layer.to_quantized().dequantize().numpy()).all()


def test_errors() -> None:
    with pytest.raises(eq.Error, match="either a format or a number of bits"):
        FakeQuantLinear(64, 4)
    with pytest.raises(eq.Error, match=r"bits=5: expected one of 1, 1\.58, 2, 3, 4; or give a format"):
        FakeQuantLinear(64, 4, bits=5)
    with pytest.raises(eq.Error, match="not a multiple of the block of 256 of q3_k"):
        FakeQuantLinear(64, 4, bits=3)
