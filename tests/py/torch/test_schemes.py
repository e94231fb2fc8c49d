"""SchemeLinear: layers in planar formats and in formats of your own."""

from __future__ import annotations

import copy
import gc
from pathlib import Path

import edgequant as eq
import pytest

torch = pytest.importorskip("torch")

from edgequant.torch import (  # noqa: E402
    QuantConfig,
    QuantLinear,
    SchemeLinear,
    fake_quantize_module,
    for_onnx,
    quantize_module,
    schemes,
    speed_up,
)
from edgequant.torch.decoder_plan import Plan  # noqa: E402
from torch import nn  # noqa: E402

MINE = eq.Format("mine", block=32, codes=2, table="learned")
FORMATS = [MINE, "mlx.affine4.g64", "gptq.int4.g128.act", "bnb.nf4.g64.dq", "onebit.rank1", "quip.e8p"]


def layer(format: eq.Format | str = MINE, n: int = 128, k: int = 256, **options: object) -> SchemeLinear:
    return SchemeLinear.from_linear(nn.Linear(k, n), format, **options)


@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_products_gradients_state_and_moves(format: eq.Format | str, tmp_path: Path) -> None:
    m, x = layer(format, compute="exact"), torch.randn(3, 5, 256, requires_grad=True)
    y, w = m(x), m.dequantize()
    torch.testing.assert_close(y, x @ w.T + m.bias, rtol=1e-4, atol=1e-4)
    y.sum().backward()
    torch.testing.assert_close(x.grad, torch.ones(3, 5, 128) @ w, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(m.bias.grad, torch.full((128,), 15.0))
    torch.save(m.state_dict(), tmp_path / "m.pt")
    other = SchemeLinear(256, 128, "mlx.affine8.g32", compute="exact")
    other.load_state_dict(torch.load(tmp_path / "m.pt"))  # takes over what it is given
    assert other.quantized() == m.quantized() and torch.equal(other(x), y)
    half = copy.deepcopy(m).to(torch.bfloat16)  # the arrays keep their types
    assert half.quantized() == m.quantized() and half.bias.dtype == torch.bfloat16
    torch.testing.assert_close(half(x.bfloat16()).float(), y, rtol=2e-2, atol=2e-2)


def test_the_way_without_gradients_is_the_same() -> None:
    m, x = layer(), torch.randn(4, 256)
    with torch.inference_mode():
        assert torch.equal(m(x), m._product(x, m.bias))
    m.add_scale()
    assert torch.equal(m(x), m._product(x, None) + m.bias)


def test_int8_products_are_those_of_matmul() -> None:
    m, x = layer(), torch.randn(4, 256)
    assert torch.equal(m(x), eq.matmul(x, m.quantized(), bias=m.bias))


def test_compiled_exported_and_by_the_rules_of_operators() -> None:
    m, x = layer(), torch.randn(3, 256, requires_grad=True)
    assert torch.equal(torch.compile(m, fullgraph=True, backend="aot_eager")(x), m(x))
    assert torch.equal(torch.export.export(m, (x.detach(),)).module()(x), m(x))
    arguments = (x, list(m.planes.buffers()), MINE.to_json(), 128, 256, m.bias, "exact")
    torch.library.opcheck(torch.ops.edgequant.scheme_matmul.default, arguments)


@torch.no_grad()
def test_panels_follow_changes_and_are_freed() -> None:
    m, x = layer("mlx.affine4.g64"), torch.randn(2, 256)
    y = m(x)
    m.planes.scales.mul_(2)
    m.planes.biases.mul_(2)
    torch.testing.assert_close(m(x) - m.bias, 2 * (y - m.bias))
    gc.collect()
    count = len(schemes._tensors)
    del m
    gc.collect()
    assert len(schemes._tensors) == count - 1


def test_a_whole_model() -> None:
    model = nn.Sequential(nn.Embedding(50, 96), nn.Linear(96, 64), nn.GELU(), nn.Linear(64, 64), nn.Linear(64, 8))
    tokens = torch.arange(12).reshape(3, 4)
    rules = {"^3": "q8_0", "^4": eq.Format("wide", block=32, codes=8, zero=128)}
    report = quantize_module(model, QuantConfig(MINE, rules))
    assert [type(m) for m in model] == [nn.Embedding, SchemeLinear, nn.GELU, QuantLinear, SchemeLinear]
    assert [entry.format for entry in report.layers] == ["mine", "q8_0", "wide"]
    assert report.kept == {"0": "embeddings stay as they are: mine is for products"}
    assert model(tokens).shape == (3, 4, 8)
    tall = nn.Sequential(nn.Linear(48, 64))
    assert "48" in quantize_module(tall, MINE).unsupported["0"]
    by_text = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))
    quantize_module(by_text, QuantConfig("q8_0", ["1=mlx.affine4.g32"]))
    assert [m.format if isinstance(m, QuantLinear) else m.format.name for m in by_text] == ["q8_0", "mlx.affine4.g32"]


def test_generation_of_one_token_goes_through_the_core() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, vocab_size=100
    )
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config).eval()
    quantize_module(model, QuantConfig(eq.Format("even", block=32, codes=4, zero=7.5), compute="exact"))
    prompt = torch.arange(1, 9)[None]
    slow = model.generate(prompt, max_new_tokens=12, do_sample=False)
    speed_up(model)
    assert Plan.of(model.model) is not None
    assert torch.equal(model.generate(prompt, max_new_tokens=12, do_sample=False), slow)


def test_shared_weights_stay_shared() -> None:
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))
    model[1].weight = model[0].weight
    quantize_module(model, MINE)
    assert model[0].planes.data.data_ptr() == model[1].planes.data.data_ptr()


def test_errors_name_what_is_wrong() -> None:
    m = layer()
    with pytest.raises(eq.Error, match="expected an input of shape"):
        m(torch.randn(2, 255))
    with pytest.raises(eq.Error, match="planar format or a Format"):
        SchemeLinear.from_linear(nn.Linear(64, 64), "q8_0")
    with pytest.raises(eq.Error, match="compute is"):
        layer(compute="int4")
    state = m.state_dict()
    state["planes.data"] = state["planes.data"][:-1]
    with pytest.raises(RuntimeError, match=r"take .* bytes, not"):
        layer().load_state_dict(state)
    model = nn.Sequential(m)
    with pytest.raises(eq.Error, match="ONNX: 0 \\(mine\\)"):
        for_onnx(model)
    with pytest.raises(eq.Error, match="nothing is trained"):
        fake_quantize_module(nn.Sequential(nn.Linear(64, 64)), QuantConfig(MINE))
