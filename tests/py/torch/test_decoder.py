"""Generation through the core equals the model's own."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import edgequant as eq
import pytest
from edgequant import _core

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers", minversion="5.0")

from edgequant.torch import QuantConfig, QuantLinear, quantize_module  # noqa: E402
from edgequant.torch.decoder import Plan, speed_up  # noqa: E402
from transformers import DynamicCache  # noqa: E402

KINDS = ["Llama", "Mistral", "Qwen2", "Qwen3"]


def small(kind: str = "Llama", compute: str = "exact", **options: Any) -> Any:
    torch.manual_seed(0)
    settings = dict(
        vocab_size=100, hidden_size=96, intermediate_size=160, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=48, max_position_embeddings=256, pad_token_id=0,
    )  # fmt: skip
    if kind == "Mistral":
        settings["sliding_window"] = None
    if kind == "Qwen2":
        del settings["head_dim"]
        settings["hidden_size"] = 192
    config = getattr(transformers, f"{kind}Config")(**{**settings, **options})
    model = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    for p in model.parameters():
        p.data = p.data + torch.randn_like(p) * 0.05  # biases and norms that do something
    quantize_module(model, QuantConfig("q4_0", compute=compute))
    return model


def logits(model: Any, tokens: torch.Tensor, prefill: int = 3, cache: Any = None) -> torch.Tensor:
    cache = DynamicCache(config=model.config) if cache is None else cache
    with torch.inference_mode():
        out = [model(tokens[:, :prefill], past_key_values=cache).logits]
        for i in range(prefill, tokens.shape[1]):
            out.append(model(tokens[:, i : i + 1], past_key_values=cache).logits)
    return torch.cat(out, 1)


def steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Collects the rows of every step that the core takes."""
    taken: list[int] = []
    original = Plan.step

    def step(self: Plan, x: torch.Tensor, *rest: Any) -> None:
        taken.append(x.shape[0])
        original(self, x, *rest)

    monkeypatch.setattr(Plan, "step", step)
    return taken


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [1, 3])
def test_equals_the_models_own_forward(kind: str, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, taken = small(kind), steps(monkeypatch)
    tokens = torch.randint(1, 100, (rows, 90))  # more than the cache has room for at first
    want = logits(model, tokens)
    assert not taken and speed_up(model)
    torch.testing.assert_close(logits(model, tokens), want, rtol=1e-3, atol=1e-4)
    assert taken == [rows] * 87


def test_every_instruction_set() -> None:
    model = small()
    tokens = torch.randint(1, 100, (2, 20))
    want = logits(model, tokens)
    speed_up(model)
    try:
        for target in _core.simd_targets():
            _core.use_simd_target(target)
            assert (logits(model, tokens) - want).abs().max() < 1e-3, target
    finally:
        _core.use_simd_target("")


def test_generate_and_the_cache_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    model, taken = small(), steps(monkeypatch)
    tokens = torch.randint(1, 100, (2, 5))
    options = {"max_new_tokens": 12, "do_sample": False, "return_dict_in_generate": True, "pad_token_id": 0}
    mask = torch.ones_like(tokens)
    want = model.generate(tokens, attention_mask=mask, **options)
    speed_up(model)
    got = model.generate(tokens, attention_mask=mask, **options)
    assert torch.equal(got.sequences, want.sequences) and len(taken) == 11
    for a, b in zip(got.past_key_values.layers, want.past_key_values.layers, strict=True):
        torch.testing.assert_close(a.keys, b.keys, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(a.values, b.values, rtol=1e-3, atol=1e-4)
    beams = {**options, "num_beams": 3}
    fast = model.generate(tokens, attention_mask=mask, **beams)
    del model.model.forward
    assert torch.equal(fast.sequences, model.generate(tokens, attention_mask=mask, **beams).sequences)


def test_caches_that_are_cut_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    model, taken = small(), steps(monkeypatch)
    tokens = torch.randint(1, 100, (1, 20))
    want = logits(model, tokens)
    speed_up(model)
    cache = DynamicCache(config=model.config)
    logits(model, torch.cat([tokens[:, :10], tokens[:, :4]], 1), cache=cache)
    for layer in cache.layers:
        layer.crop(-4)
    rest = logits(model, tokens[:, 10:], prefill=1, cache=cache)
    torch.testing.assert_close(rest, want[:, 10:], rtol=1e-3, atol=1e-4)
    assert len(taken) == 11 + 10


def test_whatever_the_core_does_not_do_goes_the_models_way(monkeypatch: pytest.MonkeyPatch) -> None:
    model, taken = small(), steps(monkeypatch)
    tokens = torch.randint(1, 100, (1, 6))
    speed_up(model)
    plain = logits(model, tokens)
    assert len(taken) == 3
    cache = DynamicCache(config=model.config)
    model(tokens[:, :3], past_key_values=cache)
    out = model(tokens[:, 3:4], past_key_values=cache)  # gradients are on
    assert out.logits.requires_grad and len(taken) == 3
    with torch.inference_mode():
        cache = DynamicCache(config=model.config)
        model(tokens[:, :3], past_key_values=cache)
        assert len(model(tokens[:, 3:4], past_key_values=cache, output_hidden_states=True).hidden_states) == 3
        mask = torch.tensor([[0, 1, 1, 1, 1]])
        model(tokens[:, 4:5], past_key_values=cache, attention_mask=mask)
    assert len(taken) == 3
    seen: list[Any] = []
    handle = model.model.layers[1].mlp.down_proj.register_forward_hook(lambda *a: seen.append(a))
    torch.testing.assert_close(logits(model, tokens), plain, rtol=1e-3, atol=1e-4)
    assert len(taken) == 3 and len(seen) == 4
    handle.remove()
    logits(model, tokens)
    assert len(taken) == 6


def test_changes_of_the_model_are_noticed() -> None:
    model, tokens = small(), torch.randint(1, 100, (1, 6))
    speed_up(model)
    before = logits(model, tokens)
    other = QuantLinear.from_linear(torch.nn.Linear(160, 96, bias=False), "q8_0", compute="exact")
    model.model.layers[0].mlp.down_proj = other
    changed = logits(model, tokens)
    model.model.layers[0].input_layernorm.weight.data = torch.full((96,), 3.0)
    again = logits(model, tokens)
    model.model.layers[1].self_attn.q_proj.qweight.copy_(model.model.layers[0].self_attn.q_proj.qweight)
    last = logits(model, tokens)
    del model.model.forward
    torch.testing.assert_close(last, logits(model, tokens), rtol=1e-3, atol=1e-4)
    for a, b in ((before, changed), (changed, again), (again, last)):
        assert (a - b).abs().max() > 1e-3


def test_copies_and_pickles_work() -> None:
    model, tokens = small(), torch.randint(1, 100, (1, 6))
    speed_up(model)
    want = logits(model, tokens)
    twin = copy.deepcopy(model)
    model.model.norm.weight.data.zero_()
    assert torch.equal(logits(twin, tokens), want)
    torch.testing.assert_close(logits(pickle.loads(pickle.dumps(twin)), tokens), want, rtol=1e-3, atol=1e-4)


def test_models_that_cannot() -> None:
    model = small()
    model.model.layers[0].mlp.up_proj.add_scale()
    assert not speed_up(model)
    assert not speed_up(torch.nn.Linear(2, 2))
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=8
    )
    odd = transformers.LlamaForCausalLM(config).eval()  # heads of 8
    quantize_module(odd, QuantConfig("q4_0", compute="exact"))
    speed_up(odd)
    tokens = torch.randint(1, 60, (1, 6))
    got = logits(odd, tokens)
    del odd.model.forward
    assert torch.equal(got, logits(odd, tokens))
    with pytest.raises(eq.Error, match="a decoder of width 8 with 1 heads of 8 over 1 is not supported"):
        _core.Decoder(8, 1, 1, 8, 1e-5, 1.0, True, [], 0)
