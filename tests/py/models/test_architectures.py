"""Every architecture: a tiny random transformers model, read, written as GGUF, run by llama.cpp, and turned back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from edgequant.models import export_huggingface, open_model

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")

SMALL = {
    "hidden_size": 128,
    "intermediate_size": 192,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
LONGROPE = {
    "rope_type": "longrope",
    "long_factor": [1.0 + 0.5 * i for i in range(12)],
    "short_factor": [1.0 + 0.05 * i for i in range(12)],
}

# case: (configuration class, model class, configuration, tokenizer)
CASES = {
    "llama": ("LlamaConfig", "LlamaForCausalLM", {**SMALL, "rope_theta": 50000.0}, "sentencepiece"),
    "llama-tied": ("LlamaConfig", "LlamaForCausalLM", {**SMALL, "tie_word_embeddings": True}, "bytelevel"),
    "llama-bias": ("LlamaConfig", "LlamaForCausalLM", {**SMALL, "attention_bias": True, "mlp_bias": True}, "bytelevel"),
    "llama-head": ("LlamaConfig", "LlamaForCausalLM", {**SMALL, "head_dim": 64}, "bytelevel"),
    "llama3": ("LlamaConfig", "LlamaForCausalLM", {**SMALL, "rope_scaling": LLAMA3}, "bytelevel"),
    "llama-linear": (
        "LlamaConfig",
        "LlamaForCausalLM",
        {**SMALL, "rope_scaling": {"rope_type": "linear", "factor": 4.0}},
        "bytelevel",
    ),
    "llama-yarn": (
        "LlamaConfig",
        "LlamaForCausalLM",
        {
            **SMALL,
            "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128},
        },
        "bytelevel",
    ),
    "mistral": ("MistralConfig", "MistralForCausalLM", {**SMALL, "sliding_window": None}, "sentencepiece"),
    "qwen2": ("Qwen2Config", "Qwen2ForCausalLM", SMALL, "bytelevel"),
    "qwen3": ("Qwen3Config", "Qwen3ForCausalLM", {**SMALL, "head_dim": 64}, "bytelevel"),
    "gemma3": (
        "Gemma3TextConfig",
        "Gemma3ForCausalLM",
        {
            **SMALL,
            "num_hidden_layers": 7,
            "head_dim": 32,
            "query_pre_attn_scalar": 32,
            "sliding_window": 16,
            "tie_word_embeddings": True,
        },
        "sentencepiece",
    ),
    "gemma3-pattern": (
        "Gemma3TextConfig",
        "Gemma3ForCausalLM",
        {
            **SMALL,
            "num_hidden_layers": 4,
            "head_dim": 64,
            "query_pre_attn_scalar": 64,
            "sliding_window": 8,
            "sliding_window_pattern": 2,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
        },
        "sentencepiece",
    ),
    "phi3": ("Phi3Config", "Phi3ForCausalLM", {**SMALL, "pad_token_id": 0}, "sentencepiece"),
    "phi4-mini": (
        "Phi3Config",
        "Phi3ForCausalLM",
        {
            **SMALL,
            "pad_token_id": 0,
            "tie_word_embeddings": True,
            "partial_rotary_factor": 0.75,
            "original_max_position_embeddings": 256,
            "rope_scaling": LONGROPE,
        },
        "bytelevel",
    ),
    "bert": ("BertConfig", "BertModel", {**SMALL, "num_key_value_heads": None}, "wordpiece"),
}


@pytest.fixture(scope="module")
def zoo(tmp_path_factory, train_tokenizer):
    """Builds a case's model directory on demand: (directory, the model in float32)."""
    made: dict[str, tuple[Path, object]] = {}

    def build(case: str):
        if case not in made:
            config_class, model_class, settings, kind = CASES[case]
            # Not the case's name: llama.cpp expects Phi-3's own tokens where a model's name has "phi3" in it.
            path = tmp_path_factory.mktemp("zoo") / "tiny"
            path.mkdir()
            tokenizer = train_tokenizer(kind)
            rows = 1 + max(item for item in tokenizer["model"]["vocab"].values())
            settings = {key: value for key, value in settings.items() if value is not None}
            config = getattr(transformers, config_class)(
                vocab_size=rows + 5, bos_token_id=1, eos_token_id=2, **settings
            )
            torch.manual_seed(len(made))
            model = getattr(transformers, model_class)(config).eval()
            with torch.no_grad():
                for name, weight in model.named_parameters():
                    # Large enough for confident tokens; norms and biases away from their initial 0 and 1.
                    weight.add_(torch.randn_like(weight) * (0.3 if weight.dim() == 1 else 0.08))
                    assert torch.isfinite(weight).all(), name
            model.save_pretrained(path, max_shard_size="200KB" if case in ("llama", "bert") else "5GB")
            (path / "tokenizer.json").write_text(json.dumps(tokenizer))
            made[case] = path, model
        return made[case]

    return build


def logits_of(model, ids: list[int]) -> np.ndarray:
    """(tokens, vocabulary) logits, or an encoder's (tokens, width) states."""
    with torch.no_grad():
        output = model(torch.tensor([ids]))
    return (output.logits if hasattr(output, "logits") else output.last_hidden_state)[0].float().numpy()


def ids_for(model) -> list[int]:
    """Enough tokens to leave every window."""
    return np.random.default_rng(5).integers(3, model.config.vocab_size - 5, 60).tolist()


@pytest.mark.parametrize("case", CASES)
def test_llama_cpp_computes_the_same_logits(case, zoo, write_gguf, tmp_path) -> None:
    llama_cpp = pytest.importorskip("llama_cpp")
    path, model = zoo(case)
    gguf = write_gguf(open_model(path), tmp_path / "model.gguf")
    ids = ids_for(model)
    if case == "bert":
        expected = logits_of(model, ids).mean(0)
        runtime = llama_cpp.Llama(str(gguf), embedding=True, pooling_type=1, verbose=False, n_threads=2)
        text = runtime.detokenize(ids).decode()
        ids = runtime.tokenize(text.encode())
        found = np.array(runtime.embed(text))
        expected = logits_of(model, ids).mean(0)
        assert found @ expected / np.linalg.norm(found) / np.linalg.norm(expected) > 0.9999
        return
    runtime = llama_cpp.Llama(
        str(gguf),
        n_ctx=128,
        logits_all=True,
        verbose=False,
        n_threads=2,
        type_k=llama_cpp.GGML_TYPE_F32,
        type_v=llama_cpp.GGML_TYPE_F32,
        flash_attn=False,
    )
    runtime.eval(ids)
    found = np.array(runtime.scores[: len(ids)])
    expected = logits_of(model, ids)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 1e-3 * np.abs(expected).max()
    assert (found.argmax(-1) == expected.argmax(-1)).mean() > 0.95


@pytest.mark.parametrize("case", CASES)
def test_round_trip_through_gguf_keeps_the_logits(case, zoo, write_gguf, tmp_path) -> None:
    path, model = zoo(case)
    gguf = open_model(write_gguf(open_model(path), tmp_path / "model.gguf"))
    export_huggingface(gguf, tmp_path / "again")
    again = getattr(transformers, CASES[case][1]).from_pretrained(tmp_path / "again", dtype=torch.float32).eval()
    ids = ids_for(model)
    expected = logits_of(model, ids)
    np.testing.assert_allclose(logits_of(again, ids), expected, atol=2e-5 * np.abs(expected).max())
    # And GGUF once more, tensor for tensor.
    twice = open_model(tmp_path / "again")
    originals = {tensor.name: tensor for tensor in gguf.tensors}
    assert [t.name for t in twice.tensors] == [t.name for t in gguf.tensors]
    for tensor in twice.tensors:
        np.testing.assert_allclose(
            tensor.f32(), originals[tensor.name].f32(), rtol=1e-4 * ("rope" in tensor.name), atol=2e-7
        )
    before, after = gguf.gguf_metadata(), twice.gguf_metadata()
    assert {key for key in before if key.startswith(gguf.architecture + ".")} == {
        key for key in after if key.startswith(gguf.architecture + ".")
    }
    for key, value in before.items():
        if key.startswith((gguf.architecture + ".", "tokenizer.")):
            assert np.array_equal(np.asarray(value), np.asarray(after[key])), key
