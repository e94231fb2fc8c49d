"""Reading directories: shards, prefixes, types, and one clear sentence for everything that is wrong."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from edgequant import _core
from edgequant._core import Error
from edgequant.models import export_huggingface, open_model

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "vocab_size": 264,
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
WIDTHS = {"F32": 4, "F16": 2, "BF16": 2, "I32": 4}


def weights() -> dict[str, np.ndarray]:
    """A Llama model's tensors, random."""
    random = np.random.default_rng(0)
    shapes = {"model.embed_tokens.weight": (264, 8), "model.norm.weight": (8,)}
    for block in range(2):
        shapes |= {
            f"model.layers.{block}.{name}.weight": shape
            for name, shape in {
                "input_layernorm": (8,),
                "post_attention_layernorm": (8,),
                "self_attn.q_proj": (8, 8),
                "self_attn.k_proj": (4, 8),
                "self_attn.v_proj": (4, 8),
                "self_attn.o_proj": (8, 8),
                "mlp.gate_proj": (12, 8),
                "mlp.up_proj": (12, 8),
                "mlp.down_proj": (8, 12),
            }.items()
        }
    return {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def save(path: Path, tensors: dict[str, np.ndarray], dtype: str = "F32") -> None:
    """Writes a safetensors file; BF16 takes the upper halves."""
    header, data = {}, b""
    for name, values in tensors.items():
        raw = {"F32": values, "F16": values.astype(np.float16), "I32": values.astype(np.int32)}.get(dtype)
        body = raw.tobytes() if raw is not None else (values.view(np.uint32) >> 16).astype(np.uint16).tobytes()
        header[name] = {"dtype": dtype, "shape": values.shape, "data_offsets": [len(data), len(data) + len(body)]}
        data += body
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def tokenizer() -> dict:
    """A SentencePiece-like tokenizer of single bytes."""
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2} | {f"<0x{byte:02X}>": 3 + byte for byte in range(256)}
    model = {"type": "BPE", "unk_token": "<unk>", "byte_fallback": True, "vocab": vocab, "merges": []}
    return {"added_tokens": [], "normalizer": None, "pre_tokenizer": None, "post_processor": None, "model": model}


@pytest.fixture
def directory(tmp_path):
    """Makes a model directory out of parts."""

    def make(tensors: dict | None = None, dtype: str = "F32", config: dict | None = None, **changes) -> Path:
        path = tmp_path / "my-model"
        path.mkdir(exist_ok=True)
        (path / "config.json").write_text(json.dumps({**(config or CONFIG), **changes}))
        (path / "tokenizer.json").write_text(json.dumps(tokenizer()))
        save(path / "model.safetensors", weights() if tensors is None else tensors, dtype)
        return path

    return make


def test_names_shapes_and_order(directory) -> None:
    model = open_model(directory())
    names = [tensor.name for tensor in model.tensors]
    assert names[:3] == ["token_embd.weight", "blk.0.attn_norm.weight", "blk.0.attn_q.weight"]
    assert names[-2:] == ["blk.1.ffn_down.weight", "output_norm.weight"]
    assert len(names) == len(set(names)) == 20
    metadata = model.gguf_metadata()
    assert metadata["general.name"] == "my model" and metadata["general.architecture"] == "llama"
    assert metadata["llama.attention.key_length"] == 4 and metadata["llama.rope.dimension_count"] == 4
    assert isinstance(metadata["llama.block_count"], np.uint32)
    assert isinstance(metadata["llama.attention.layer_norm_rms_epsilon"], np.float32)
    assert "general.file_type" not in metadata


def test_query_rows_are_permuted_and_values_are_not_touched(directory) -> None:
    tensors = {tensor.name: tensor for tensor in open_model(directory()).tensors}
    query, source = tensors["blk.1.attn_q.weight"], weights()["model.layers.1.self_attn.q_proj.weight"]
    assert query.row_permutation.tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    assert np.array_equal(query.rows().view(np.float32), source)
    assert np.array_equal(query.f32(), source[query.row_permutation])
    assert np.array_equal(query.f32_rows(3, 6), source[query.row_permutation[3:6]])
    assert tensors["blk.1.attn_v.weight"].row_permutation is None
    with pytest.raises(IndexError):
        query.rows(4, 9)


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_types(directory, dtype) -> None:
    model = open_model(directory(dtype=dtype))
    tensor = model.tensors[0]
    assert tensor.format == dtype.lower() and tensor.nbytes == math.prod(tensor.shape) * WIDTHS[dtype]
    expected = weights()["model.embed_tokens.weight"]
    np.testing.assert_allclose(tensor.f32(), expected, rtol=2.0**-7)


def test_shards_with_an_index(directory) -> None:
    path = directory()
    (path / "model.safetensors").unlink()
    tensors = list(weights().items())
    parts = {
        "model-00001-of-00002.safetensors": dict(tensors[:9]),
        "model-00002-of-00002.safetensors": dict(tensors[9:]),
    }
    for name, part in parts.items():
        save(path / name, part)
    index = {"weight_map": {key: name for name, part in parts.items() for key in part}}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    model = open_model(path)
    assert len(model.tensors) == 20
    found = {tensor.source_name: tensor for tensor in model.tensors}
    for name, values in tensors:
        assert np.array_equal(found[name].rows().view(np.float32).reshape(values.shape), values)
    (path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(Error, match=r"index names the shard 'model-00002-of-00002\.safetensors', which is not there"):
        open_model(path)
    index["weight_map"]["model.norm.weight"] = "../elsewhere.safetensors"
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(Error, match="elsewhere"):
        open_model(path)


def test_a_base_model_has_no_prefix(directory) -> None:
    tensors = {name.removeprefix("model."): values for name, values in weights().items()}
    assert len(open_model(directory(tensors, architectures=["LlamaModel"])).tensors) == 20


def test_buffers_are_ignored_and_named(directory) -> None:
    extra = {"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(2, np.float32)}
    model = open_model(directory(weights() | extra))
    assert model.ignored == list(extra) and "inv_freq" in model.notes[0]


def test_a_tied_head_is_left_out_and_an_untied_one_kept(directory) -> None:
    both = weights() | {"lm_head.weight": weights()["model.embed_tokens.weight"]}
    assert "output.weight" not in [t.name for t in open_model(directory(both)).tensors]
    assert open_model(directory(both, tie_word_embeddings=False)).tensors[-1].name == "output.weight"


def without(name: str) -> dict[str, np.ndarray]:
    return {key: values for key, values in weights().items() if key != name}


WRONG = {
    "missing": (without("model.layers.1.mlp.up_proj.weight"), {}, "model.layers.1.mlp.up_proj.weight missing"),
    "head missing": (weights(), {"tie_word_embeddings": False}, "lm_head.weight missing"),
    "extra": (weights() | {"model.layers.0.adapter.weight": np.ones(3, np.float32)}, {}, "adapter.weight not known"),
    "too many blocks": (weights(), {"num_hidden_layers": 1}, r"model.layers.1.* and 5 more not known"),
    "far too many layers": (weights(), {"num_hidden_layers": 10**9}, "has 1000000000 layers, but there are 20 tensors"),
    "shape": (weights(), {"intermediate_size": 16}, r"gate_proj.weight has shape \(12, 8\), .* implies \(16, 8\)"),
    "no embedding": (without("model.embed_tokens.weight"), {}, "embed_tokens.weight is needed, found none"),
    "architecture": (weights(), {"architectures": ["FooForCausalLM"]}, r"FooForCausalLM\) is not supported; .*Qwen2"),
    "no size": (weights(), {"hidden_size": None}, "no valid hidden_size"),
    "activation": (weights(), {"hidden_act": "gelu"}, "hidden_act = 'gelu' is not what llama.cpp computes"),
    "quantized": (weights(), {"quantization_config": {"quant_method": "gptq"}}, r"already quantized \(gptq\)"),
    "rope": (weights(), {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "scaling 'dynamic' is not known"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said_in_one_sentence(case, directory) -> None:
    tensors, changes, message = WRONG[case]
    with pytest.raises(Error, match=message) as caught:
        open_model(directory(tensors, **changes))
    assert "my-model" in str(caught.value) and "\n" not in str(caught.value)


def test_integers_are_refused(directory) -> None:
    with pytest.raises(Error, match="has type i32; f32, f16, bf16 can be read"):
        open_model(directory(dtype="I32"))


def test_files_that_are_no_model(tmp_path, directory) -> None:
    for name, content, message in (
        ("pytorch_model.bin", b"PK", "pickled checkpoints can run code"),
        ("model.safetensors", b"\0" * 20, "give the directory"),
        ("notes.txt", b"hello", "neither a Hugging Face directory nor a GGUF file"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(Error, match=message):
            open_model(tmp_path / name)
    with pytest.raises(Error, match="no such file"):
        open_model(tmp_path / "absent")
    with pytest.raises(Error, match=r"no config\.json"):
        open_model(tmp_path)
    path = directory()
    (path / "model.safetensors").unlink()
    with pytest.raises(Error, match=r"neither model\.safetensors nor"):
        open_model(path)
    (path / "pytorch_model.bin").write_bytes(b"PK")
    with pytest.raises(Error, match="only pickled weights"):
        open_model(path)
    (path / "config.json").write_text("{")
    with pytest.raises(Error, match="not valid JSON"):
        open_model(path)


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
def test_a_directory_can_be_written_again_in_another_type(directory, tmp_path, dtype) -> None:
    source = open_model(directory())
    calls = []
    export_huggingface(source, tmp_path / "out", dtype, lambda i, n, tensor: calls.append((i, n, tensor.name)))
    assert len(calls) == 20 and calls[0] == (0, 20, "model.embed_tokens.weight")
    again = open_model(tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] in ("float32", "float16", "bfloat16")
    assert {tensor.format for tensor in again.tensors} == {dtype}
    for ours, theirs in zip(again.tensors, source.tensors, strict=True):
        np.testing.assert_allclose(
            ours.f32(), theirs.f32(), rtol={"f32": 0, "f16": 2.0**-11, "bf16": 2.0**-8}[dtype], atol=1e-7
        )
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    with pytest.raises(Error, match="over itself"):
        export_huggingface(source, source.path)
    with pytest.raises(Error, match="none of"):
        export_huggingface(source, tmp_path / "out", "q4_0")


def test_multimodal_gemma_gives_its_text_model(directory) -> None:
    text = {
        "hidden_size": 8,
        "intermediate_size": 12,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 4,
        "query_pre_attn_scalar": 4,
        "vocab_size": 264,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
    }
    config = {"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "text_config": text}
    tensors = {"language_model." + name: values for name, values in weights().items()}
    for block in range(2):
        layer = f"language_model.model.layers.{block}."
        for name in ("pre_feedforward_layernorm", "post_feedforward_layernorm"):
            tensors[f"{layer}{name}.weight"] = np.full(8, 0.5, np.float32)
        for name in ("q_norm", "k_norm"):
            tensors[f"{layer}self_attn.{name}.weight"] = np.full(4, 0.25, np.float32)
    tensors["vision_tower.vision_model.embeddings.patch_embedding.weight"] = np.ones((2, 2), np.float32)
    tensors["multi_modal_projector.mm_soft_emb_norm.weight"] = np.ones(2, np.float32)
    model = open_model(directory(tensors, config=config))
    assert len(model.ignored) == 2 and model.architecture == "gemma3"
    found = {tensor.name: tensor for tensor in model.tensors}
    assert np.array_equal(found["blk.0.ffn_norm.weight"].f32(), np.full(8, 1.5, np.float32))
    assert np.array_equal(found["blk.0.attn_q_norm.weight"].f32(), np.full(4, 1.25, np.float32))
    assert found["blk.0.attn_q.weight"].row_permutation is None
    metadata = model.gguf_metadata()
    assert metadata["gemma3.rope.scaling.type"] == "linear" and metadata["gemma3.rope.scaling.factor"] == 8
    assert metadata["gemma3.rope.freq_base"] == 1e6 and metadata["gemma3.rope.freq_base_swa"] == 1e4
    assert metadata["gemma3.attention.sliding_window"] == 4096 and metadata["gemma3.context_length"] == 131072
    with pytest.raises(Error, match="query_pre_attn_scalar = 99"):
        open_model(directory(tensors, config={**config, "text_config": {**text, "query_pre_attn_scalar": 99}}))


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "tokenizer_config.json"])
def test_json_of_an_unexpected_structure(file, directory) -> None:
    """Whatever a value is replaced by: it does not matter, or there is one sentence."""
    path = directory()
    (path / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "added_tokens_decoder": {}}))
    original = json.loads((path / file).read_text())
    refused = 0
    for key in original:
        for value in (None, -1, 0, "x", [], [1], {}, {"a": {}}, True, 1e30):
            (path / file).write_text(json.dumps({**original, key: value}))
            try:
                open_model(path).gguf_metadata()
            except Error as error:
                assert str(error).startswith(str(path)) and "\n" not in str(error)
                refused += 1
    assert refused > len(original)


def write(path: Path, metadata: dict, tensors: dict[str, np.ndarray]) -> Path:
    entries = [(name, values.shape, "f32") for name, values in tensors.items()]
    with _core.GgufWriter(str(path), metadata, entries) as writer:
        for index, values in enumerate(tensors.values()):
            writer.write(index, values)
        writer.finish()
    return path


def test_a_split_gguf_is_one_model(directory, tmp_path) -> None:
    whole = open_model(directory())
    tensors = [(tensor.name, tensor.f32()) for tensor in whole.tensors]
    count = {"split.count": np.uint16(2)}
    first = write(tmp_path / "m-00001-of-00002.gguf", whole.gguf_metadata() | count, dict(tensors[:5]))
    with pytest.raises(Error, match=r"m-00002-of-00002\.gguf: no such file"):
        open_model(first)
    second = write(tmp_path / "m-00002-of-00002.gguf", count, dict(tensors[5:]))
    model = open_model(first)
    assert [tensor.name for tensor in model.tensors] == [name for name, _ in tensors]
    assert not any(key.startswith("split.") for key in model.gguf_metadata())
    with pytest.raises(Error, match=r"no general\.architecture"):
        open_model(second)
    assert len(model.hf_tensors()) == 20


def test_a_gguf_that_cannot_become_a_directory_says_why(directory, tmp_path) -> None:
    whole = open_model(directory())
    metadata, tensors = whole.gguf_metadata(), {tensor.name: tensor.f32() for tensor in whole.tensors}
    cases = {
        "cannot be turned into": ({"general.architecture": "mamba"}, tensors),
        "blk.1.ffn_up.weight missing": (metadata, {k: v for k, v in tensors.items() if k != "blk.1.ffn_up.weight"}),
        "odd.weight not known": (metadata, tensors | {"odd.weight": np.ones(4, np.float32)}),
        "given per layer": (metadata | {"llama.feed_forward_length": np.array([12, 12], np.uint32)}, tensors),
        "KeyError: 'llama.block_count'": ({k: v for k, v in metadata.items() if "block_count" not in k}, tensors),
        "block_count is 4000000000, but": (metadata | {"llama.block_count": np.uint32(4_000_000_000)}, tensors),
        "metadata are malformed": (metadata | {"llama.rope.freq_base": "fast"}, tensors),
        "context_length is missing": ({k: v for k, v in metadata.items() if "context_length" not in k}, tensors),
        "no tokenizer.ggml.tokens": ({k: v for k, v in metadata.items() if "ggml.tokens" not in k}, tensors),
        "'rwkv' is not known": (metadata | {"tokenizer.ggml.model": "rwkv"}, tensors),
        "8 rows for 3 heads": (metadata | {"llama.attention.head_count": np.uint32(3)}, tensors),
    }
    for message, (head, body) in cases.items():
        model = open_model(write(tmp_path / "x.gguf", head, body))
        with pytest.raises(Error, match=message):
            export_huggingface(model, tmp_path / "never")
        assert not (tmp_path / "never").exists()
