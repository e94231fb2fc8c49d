"""Generation through the core equals the model's own."""

from __future__ import annotations

import copy
import itertools
import pickle
from typing import Any

import edgequant as eq
import numpy as np
import pytest
from edgequant import _core

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers", minversion="5.10")

from edgequant.torch import QuantConfig, QuantLinear, quantize_module  # noqa: E402
from edgequant.torch.decoder import speed_up  # noqa: E402
from edgequant.torch.decoder_plan import Plan  # noqa: E402
from transformers import DynamicCache  # noqa: E402

KINDS = ["Llama", "Mistral", "Qwen2", "Qwen3", "Phi3", "Gemma3"]


def small(kind: str = "Llama", compute: str = "exact", **options: Any) -> Any:
    torch.manual_seed(0)
    settings = dict(
        vocab_size=100, hidden_size=96, intermediate_size=160, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=48, max_position_embeddings=256, pad_token_id=0,
    )  # fmt: skip
    if kind == "Mistral":
        settings["sliding_window"] = None
    if kind in ("Qwen2", "Phi3"):
        del settings["head_dim"]
        settings["hidden_size"] = 192
    if kind == "Phi3":
        rope = {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 2 / 3}
        settings |= {"rope_parameters": rope, "bos_token_id": 1, "eos_token_id": 2}
    if kind == "Gemma3":
        settings |= {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 16}
    name = "Gemma3TextConfig" if kind == "Gemma3" else f"{kind}Config"
    config = getattr(transformers, name)(**{**settings, **options})
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


def steps(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Collects the rows and tokens of every step that the core takes."""
    taken: list[tuple[int, ...]] = []
    original = Plan.step

    def step(self: Plan, x: torch.Tensor, *rest: Any) -> torch.Tensor:
        taken.append(tuple(x.shape[:2]))
        return original(self, x, *rest)

    monkeypatch.setattr(Plan, "step", step)
    return taken


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [1, 3])
def test_equals_the_models_own_forward(kind: str, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, taken = small(kind), steps(monkeypatch)
    tokens = torch.randint(1, 100, (rows, 90))  # more than the cache has room for at first, and than any window
    want = logits(model, tokens)
    assert not taken and speed_up(model)
    torch.testing.assert_close(logits(model, tokens), want, rtol=1e-3, atol=1e-4)
    assert taken == [(rows, 3), *[(rows, 1)] * 87]


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_is_nearer_to_float32_than_the_models_own(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, taken = small(kind).to(torch.bfloat16), steps(monkeypatch)
    tokens = torch.randint(1, 100, (2, 40))
    exact = logits(copy.deepcopy(model).float(), tokens)
    own = logits(model, tokens)
    speed_up(model)
    cache = DynamicCache(config=model.config)
    got = logits(model, tokens, cache=cache)
    assert len(taken) == 38 and got.dtype == torch.bfloat16 and cache.layers[1].keys.dtype == torch.bfloat16
    assert (got - exact).square().mean() < 1.1 * (own - exact).square().mean()
    assert (got - own).abs().max() < 0.06


def test_int8_and_mixed_formats_at_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    model, taken = small("Qwen3", "int8", hidden_size=256, intermediate_size=512), steps(monkeypatch)
    linear = torch.nn.Linear(256, 96, bias=False)
    model.model.layers[0].self_attn.v_proj = QuantLinear.from_linear(linear, "q6_k")
    model.model.layers[1].mlp.up_proj = QuantLinear.from_linear(torch.nn.Linear(256, 512, bias=False), "q5_1")
    tokens = torch.randint(1, 100, (1, 40))
    want = logits(model, tokens)
    speed_up(model)
    found = []
    try:
        for threads in (1, 2, 3):
            eq.set_num_threads(threads)
            found.append(logits(model, tokens))
    finally:
        eq.set_num_threads(0)
    assert len(taken) == 3 * 38
    for prompt in (5, 16, 30):  # in a few goes, and in one
        assert (logits(model, tokens, prompt) - want).square().mean() < 1e-3 * want.square().mean()
    assert (found[0] - want).square().mean() < 1e-4 * want.square().mean()  # roundings to int8 that fall otherwise
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


@pytest.mark.parametrize("kind", ["Llama", "Gemma3"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_padded_batches(kind: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    model, taken = small(kind).to(dtype), steps(monkeypatch)
    tokens = torch.randint(3, 100, (3, 9))
    mask = torch.ones_like(tokens)
    for row, padding in enumerate((4, 0, 7)):
        tokens[row, :padding], mask[row, :padding] = 0, 0
    options = {"attention_mask": mask, "max_new_tokens": 20, "do_sample": False, "output_logits": True}
    options |= {"return_dict_in_generate": True, "eos_token_id": None}
    want = model.generate(tokens, **options)
    speed_up(model)
    got = model.generate(tokens, **options)
    assert taken == [(3, 1)] * 19  # the prompt goes the model's own way
    for a, b in zip(got.logits, want.logits, strict=True):
        assert (a - b).abs().max() < (1e-4 if dtype == torch.float32 else 0.06)
        if not torch.equal(a.argmax(1), b.argmax(1)):
            break  # from here on other tokens follow
    assert dtype == torch.bfloat16 or torch.equal(got.sequences, want.sequences)


def test_rotations_that_depend_on_the_length() -> None:
    rope = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}
    model = small(max_position_embeddings=32, rope_parameters=rope)
    tokens = torch.randint(1, 100, (2, 60))
    want = logits(copy.deepcopy(model), tokens)  # the frequencies are a state, which older versions do not reset
    speed_up(model)
    torch.testing.assert_close(logits(model, tokens), want, rtol=1e-3, atol=1e-4)


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
    assert torch.equal(got.sequences, want.sequences) and len(taken) == 12
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
    assert taken == [(1, 3), *[(1, 1)] * 11, *[(1, 1)] * 10]


def test_whatever_the_core_does_not_do_goes_the_models_way(monkeypatch: pytest.MonkeyPatch) -> None:
    model, taken = small(), steps(monkeypatch)
    tokens = torch.randint(1, 100, (1, 6))
    speed_up(model)
    plain = logits(model, tokens)
    assert len(taken) == 4
    cache = DynamicCache(config=model.config)
    model(tokens[:, :3], past_key_values=cache)
    out = model(tokens[:, 3:4], past_key_values=cache)  # gradients are on
    assert out.logits.requires_grad and len(taken) == 4
    taken.clear()
    with torch.inference_mode():
        cache = DynamicCache(config=model.config)
        hole = torch.tensor([[1, 0, 1]])
        model(tokens[:, :3], past_key_values=cache, attention_mask=hole)
        assert len(model(tokens[:, 3:4], past_key_values=cache, output_hidden_states=True).hidden_states) == 3
        model(tokens[:, 4:5], past_key_values=cache, attention_mask=torch.tensor([[1, 0, 1, 1, 1]]))
        model(torch.randint(1, 100, (1, 65)), past_key_values=cache)
        apart = torch.tensor([[3, 0, 1]])  # two texts after one another
        model(tokens[:, :3], position_ids=apart, past_key_values=DynamicCache(config=model.config))
        model(tokens[:, :3], use_cache=False)
    assert not taken
    seen: list[Any] = []
    handle = model.model.layers[1].mlp.down_proj.register_forward_hook(lambda *a: seen.append(a))
    torch.testing.assert_close(logits(model, tokens), plain, rtol=1e-3, atol=1e-4)
    assert not taken and len(seen) == 4
    handle.remove()
    logits(model, tokens)
    assert len(taken) == 4


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
    model.model.rotary_emb.inv_freq.mul_(0.5)
    turned = logits(model, tokens)
    model.model.layers[0].mlp.gate_proj.add_scale()
    model.model.layers[0].mlp.gate_proj.scale.data.fill_(2.0)
    scaled = logits(model, tokens)
    del model.model.forward
    torch.testing.assert_close(scaled, logits(model, tokens), rtol=1e-3, atol=1e-4)
    for a, b in itertools.pairwise((before, changed, again, last, turned, scaled)):
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
    with pytest.raises(eq.Error, match=r"width 8 with 1 heads of 8 \(8 rotated\) over 1 is not supported"):
        _core.Decoder(8, 1, 1, 8, 8, 1e-5, 1.0, False, True, "f32", 0.0, [], 0)


def test_weights_that_need_transformed_inputs() -> None:
    f = eq.Format("turned", block=32, codes=4, transform="hadamard")
    q = eq.quantize(np.ones((32, 32), np.float32), f)
    panel, _ = q.scheme.core.repack(q.scheme.core_arrays(q.planes), 32, 32)
    names = ("query", "key", "value", "output", "gate", "up", "down")
    layer = {**{name: (panel, 0) for name in names}, "window": 0, "rotation": 0}
    with pytest.raises(eq.Error, match="does not transform the inputs of a matrix, as weights in turned need"):
        _core.Decoder(32, 2, 2, 16, 16, 1e-5, 1.0, False, True, "f32", 0.0, [layer], 0)
