"""quantize_module: choices and the report."""

from __future__ import annotations

import edgequant as eq
import pytest

torch = pytest.importorskip("torch")

from edgequant.torch import QuantConfig, QuantEmbedding, QuantLinear, quantize_module  # noqa: E402
from torch import nn  # noqa: E402


def model() -> nn.Module:
    return nn.ModuleDict({
        "embed": nn.Embedding(40, 256),
        "up": nn.Linear(256, 96),
        "down": nn.Linear(96, 256),
        "odd": nn.Linear(7, 5),
        "conv": nn.Conv1d(4, 4, 3),
        "attention": nn.MultiheadAttention(64, 2),
        "norm": nn.LayerNorm(256),
    })  # fmt: skip


def test_everything_is_quantized_or_named() -> None:
    m = model()
    report = quantize_module(m, QuantConfig("q4_k", rules={"^up": "q6_k"}))
    assert {r.names[0]: (r.format, r.wanted) for r in report.layers} == {
        "embed": ("q4_k", None),
        "up": ("q6_k", None),
        "down": ("q5_0", "q4_k"),
    }
    assert isinstance(m["embed"], QuantEmbedding) and isinstance(m["up"], QuantLinear)
    assert set(report.unsupported) == {"odd", "conv", "attention", "attention.out_proj"}
    assert "Conv1d with weight (4, 4, 3)" in report.unsupported["conv"]
    assert "neither q4_k nor its fallback" in report.unsupported["odd"]
    assert not report.kept and type(m["attention"].out_proj) is not QuantLinear
    text = str(report)
    for part in ("3 layers quantized", "unsupported: conv", "rows do not divide the blocks of q4_k"):
        assert part in text
    assert all(0 < r.error.relative_rmse < 0.2 for r in report.layers)


def test_skip_keep_and_embeddings() -> None:
    m = model()
    config = QuantConfig("q8_0", rules=["down=keep"], skip=["^odd$"], embeddings=False)
    assert quantize_module(m, config).kept == {
        "embed": "embeddings are kept",
        "down": "rule down=keep",
        "odd": "skipped",
    }
    assert type(m["down"]) is nn.Linear


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("q4_x", "did you mean"),
        (QuantConfig("q4_0", rules={"dwon": "q6_k"}), "rule 'dwon=q6_k' decides no layer"),
        (QuantConfig("q4_0", skip=["dwon"]), "skip 'dwon' decides no layer"),
        (QuantConfig("q4_0", skip=["("]), "in the regular expression"),
    ],
)
def test_errors(config: QuantConfig | str, message: str) -> None:
    with pytest.raises(eq.Error, match=message):
        quantize_module(nn.Sequential(nn.Linear(64, 64)), config)


def test_names_the_layer_with_bad_weights() -> None:
    m = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))
    m[1].weight.data[3, 3] = float("nan")
    with pytest.raises(eq.Error, match=r"^1: .*NaN"):
        quantize_module(m, "q4_0")
    with pytest.raises(eq.Error, match="move the model first"):
        quantize_module(nn.Sequential(nn.Linear(64, 64, device="meta")), "q4_0")


def test_importance_is_used() -> None:
    torch.manual_seed(0)
    weight, importance = torch.randn(32, 256), torch.ones(256)
    importance[::32] = 1e4
    errors = []
    for given in (None, {"0": importance.numpy()}):
        m = nn.Sequential(nn.Linear(256, 32))
        m[0].weight.data = weight.clone()
        quantize_module(m, QuantConfig("q4_0", importance=given))
        errors.append((m[0].dequantize() - weight)[:, ::32].square().mean().item())
    assert errors[1] < 0.9 * errors[0]
