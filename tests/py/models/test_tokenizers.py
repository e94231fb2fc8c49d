"""Token ids: what llama.cpp makes of a text from our metadata is what the tokenizers package makes of it."""

from __future__ import annotations

import json
import unicodedata

import numpy as np
import pytest
from edgequant import _core
from edgequant._core import Error
from edgequant.models import pretokenizers
from edgequant.models.pretokenizers import NAMES
from edgequant.models.sentencepiece import read_sentencepiece
from edgequant.models.tokenizer import read_vocabulary
from edgequant.models.tokenizer_export import tokenizer_files
from edgequant.models.vocabulary import Vocabulary

tokenizers = pytest.importorskip("tokenizers")


@pytest.fixture
def vocabulary_only(tmp_path):
    """Loads tokenizer metadata into llama.cpp."""
    llama_cpp = pytest.importorskip("llama_cpp")

    def load(metadata: dict):
        path = tmp_path / "vocabulary.gguf"
        head = {"general.architecture": "llama", "general.name": "test"}
        with _core.GgufWriter(str(path), {**head, **metadata}, []) as writer:
            writer.finish()
        return llama_cpp.Llama(str(path), vocab_only=True, verbose=False)

    return load


def read(tmp_path, tokenizer: dict, rows: int | None = None, **settings) -> Vocabulary:
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    return read_vocabulary(tmp_path, {}, rows or 1 + max(tokenizer["model"]["vocab"].values()))


@pytest.mark.parametrize("name", NAMES)
def test_llama_cpp_splits_text_as_the_pre_tokenizer_does(name, train_tokenizer, vocabulary_only, tmp_path, nasty_text):
    pre_tokenizer, ignore_merges = pretokenizers.pre_tokenizer(name, "test")
    tokenizer = train_tokenizer("bytelevel", pre_tokenizer, ignore_merges, 700)
    words = read(tmp_path, tokenizer)
    assert NAMES[words.pre] == NAMES[name]
    words.pre = name
    runtime = vocabulary_only(words.metadata())
    reference = tokenizers.Tokenizer.from_str(json.dumps(tokenizer))
    lines = [nasty_text, *nasty_text.splitlines(), " a", "  a", "x\n\n\n  y", "١٢٣٤٥ ½ ²"]
    if name in ("gpt-4o", "llama4", "tekken"):  # llama.cpp's expression for these has no combining marks
        lines = [line for line in lines if not any(unicodedata.category(char).startswith("M") for char in line)]
    assert len(lines) > 5
    for line in lines:
        expected = reference.encode(line, add_special_tokens=False).ids
        assert runtime.tokenize(line.encode(), add_bos=False, special=False) == expected, line


@pytest.mark.parametrize("kind", ["bytelevel", "sentencepiece", "wordpiece"])
def test_ids_survive_the_way_to_gguf_and_back(kind, train_tokenizer, vocabulary_only, tmp_path, nasty_text) -> None:
    tokenizer = train_tokenizer(kind)
    metadata = read(tmp_path, tokenizer, chat_template="{{ messages }}").metadata()
    reference = tokenizers.Tokenizer.from_str(json.dumps(tokenizer))
    files, _ = tokenizer_files(metadata, "test", 512)
    again = tokenizers.Tokenizer.from_str(files["tokenizer.json"].decode())
    assert json.loads(files["tokenizer_config.json"])["chat_template"] == "{{ messages }}"
    runtime = vocabulary_only(metadata)
    texts = [nasty_text, *nasty_text.splitlines(), "a", " a", "Mittwoch, 3 Uhr"]
    if kind == "wordpiece":  # llama.cpp does not strip Devanagari's vowel signs from words it does not know
        texts = [text for text in texts if "हिन्दी" not in text]
    for text in texts:
        expected = reference.encode(text).ids
        assert again.encode(text).ids == expected, text
        assert runtime.tokenize(text.encode(), add_bos=True, special=False) == expected, text
        assert again.decode(expected) == reference.decode(expected)


def test_added_tokens_become_control_and_user_defined(train_tokenizer, vocabulary_only, tmp_path) -> None:
    tokenizer = train_tokenizer("bytelevel")
    size = len(tokenizer["model"]["vocab"])
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    for offset, (text, special) in enumerate((("<tool>", False), ("<|looks|>", False), ("<end>", True))):
        tokenizer["added_tokens"].append({"id": size + offset, "content": text, "special": special, **flags})
    words = read(tmp_path, tokenizer, rows=size + 8, eos_token="<end>", pad_token={"content": "<|looks|>"})
    assert words.types[size : size + 8] == [4, 3, 3, 5, 5, 5, 5, 5]
    assert words.special["eos"] == size + 2 and words.special["pad"] == size + 1
    assert words.tokens[-1] == f"[PAD{size + 7}]"
    runtime = vocabulary_only(words.metadata())
    reference = tokenizers.Tokenizer.from_str(json.dumps(tokenizer))
    text = "call <tool> now<end><|looks|>"
    assert runtime.tokenize(text.encode(), add_bos=False, special=True) == reference.encode(text).ids


def test_template_decides_whether_bos_and_eos_are_added(train_tokenizer, tmp_path) -> None:
    tokenizer = train_tokenizer("bytelevel")
    bos, eos = ({"SpecialToken": {"id": token, "type_id": 0}} for token in ("<|im_start|>", "<|im_end|>"))
    body = {"Sequence": {"id": "A", "type_id": 0}}
    for single, expected in (
        ([bos, body], (True, False)),
        ([body, eos], (False, True)),
        ([body], (False, False)),
        ([bos, body, eos], (True, True)),
    ):
        tokenizer["post_processor"] = {
            "type": "Sequence",
            "processors": [
                {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True},
                {"type": "TemplateProcessing", "single": single, "pair": [], "special_tokens": {}},
            ],
        }
        words = read(tmp_path, tokenizer, add_bos_token=not expected[0])
        assert (words.flags["add_bos_token"], words.flags["add_eos_token"]) == expected
        assert words.special.get("bos") == (1 if expected[0] else None)


def test_what_the_template_adds_becomes_bos_and_eos(train_tokenizer, tmp_path) -> None:
    tokenizer = train_tokenizer("bytelevel")
    ends = [{"SpecialToken": {"id": token, "type_id": 0}} for token in ("<|im_start|>", "<|endoftext|>")]
    single = [ends[0], {"Sequence": {"id": "A", "type_id": 0}}, ends[1]]
    tokenizer["post_processor"] = {"type": "TemplateProcessing", "single": single, "pair": [], "special_tokens": {}}
    words = read(tmp_path, tokenizer, bos_token="<|im_end|>", eos_token="<|im_end|>")
    assert words.special == {"bos": 1, "eos": 0, "eot": 2}


def test_vocab_txt_alone(train_tokenizer, vocabulary_only, tmp_path) -> None:
    tokenizer = train_tokenizer("wordpiece")
    vocab = tokenizer["model"]["vocab"]
    (tmp_path / "vocab.txt").write_text("\n".join(sorted(vocab, key=vocab.get)) + "\n")
    words = read_vocabulary(tmp_path, {}, len(vocab))
    assert words.special == {"unk": 1, "sep": 3, "pad": 0, "cls": 2, "mask": 4, "bos": 2, "eos": 3}
    reference = tokenizers.Tokenizer.from_str(json.dumps(tokenizer))
    text = "Once upon a time, déjà-vu!"
    assert vocabulary_only(words.metadata()).tokenize(text.encode()) == reference.encode(text).ids


def test_tokens_without_a_row_are_left_out(train_tokenizer, tmp_path) -> None:
    tokenizer = train_tokenizer("bytelevel")
    size = len(tokenizer["model"]["vocab"])
    for index, text in ((10**12, "<far>"), (-3, "<negative>"), (size, "<next>")):
        tokenizer["added_tokens"].append({"id": index, "content": text, "special": True})
    words = read(tmp_path, tokenizer, rows=size)
    assert len(words.tokens) == size and len(words.notes) == 3 and "<far>" in words.notes[2]
    tokenizer["model"]["vocab"]["far"] = 10**12
    with pytest.raises(Error, match="has ids from 0 to 1000000000000"):
        read(tmp_path, tokenizer, rows=size)


def test_end_of_turn_is_what_ends_generation_and_is_in_the_template(train_tokenizer, tmp_path) -> None:
    tokenizer = train_tokenizer("bytelevel")
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [0, 1, 2]}))
    words = read(tmp_path, tokenizer, eos_token="<|endoftext|>", chat_template="{{ x }}<|im_end|>")
    assert words.special["eos"] == 0 and words.special["eot"] == 2


def test_chat_templates_by_name(train_tokenizer, tmp_path) -> None:
    templates = [{"name": "default", "template": "a"}, {"name": "tool_use", "template": "b"}]
    metadata = read(tmp_path, train_tokenizer("bytelevel"), chat_template=templates).metadata()
    assert metadata["tokenizer.chat_template"] == "a" and metadata["tokenizer.chat_template.tool_use"] == "b"
    assert metadata["tokenizer.chat_templates"] == ["tool_use"]
    files, _ = tokenizer_files(metadata, "test", 512)
    assert json.loads(files["tokenizer_config.json"])["chat_template"] == templates
    (tmp_path / "chat_template.jinja").write_text("from its file")
    metadata = read(tmp_path, train_tokenizer("bytelevel")).metadata()
    assert metadata["tokenizer.chat_template"] == "from its file"


def test_what_a_gguf_does_not_say_is_llama_cpp_default(train_tokenizer, tmp_path) -> None:
    metadata = read(tmp_path, train_tokenizer("wordpiece")).metadata()
    cut = {key: value for key, value in metadata.items() if not key.endswith("_token_id")}
    cut["tokenizer.ggml.tokens"] = [f"▁w{index}" for index in range(100)] + ["[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    cut["tokenizer.ggml.token_type"] = np.array([1] * 100 + [3] * 4, np.int32)
    files, _ = tokenizer_files(cut, "test", 512)
    assert tokenizers.Tokenizer.from_str(files["tokenizer.json"].decode()).encode("w5 w7").ids == [101, 5, 7, 102]


def test_unknown_ways_to_split_are_refused(train_tokenizer, tmp_path) -> None:
    pre = {
        "type": "Sequence",
        "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": "x+"}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
        ],
    }
    with pytest.raises(Error, match=r"no name for this tokenizer's way to split text.*x\+"):
        read(tmp_path, train_tokenizer("bytelevel", pre))


def test_a_token_that_is_there_twice_is_refused(train_tokenizer, tmp_path) -> None:
    tokenizer = train_tokenizer("bytelevel")
    tokenizer["added_tokens"].append({"id": 300, "content": "<|im_end|>", "special": True})
    with pytest.raises(Error, match="twice"):
        read(tmp_path, tokenizer)


def test_a_directory_without_a_tokenizer_is_refused(tmp_path) -> None:
    with pytest.raises(Error, match="no tokenizer"):
        read_vocabulary(tmp_path, {}, 10)


@pytest.mark.parametrize("model_type", ["bpe", "unigram"])
def test_sentencepiece_model_without_its_package(model_type, tmp_path, nasty_text, vocabulary_only) -> None:
    spm = pytest.importorskip("sentencepiece")
    size = 400 if model_type == "bpe" else 160
    corpus = tmp_path / "corpus.txt"
    corpus.write_text(nasty_text * 3)
    spm.SentencePieceTrainer.train(
        input=str(corpus),
        model_prefix=str(tmp_path / "tokenizer"),
        vocab_size=size,
        model_type=model_type,
        byte_fallback=model_type == "bpe",  # llama.cpp's unigram tokenizer has none
        character_coverage=0.98,
        user_defined_symbols=["<tool>", "▁▁"],
        minloglevel=2,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
    )
    model = spm.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    found = read_sentencepiece(tmp_path / "tokenizer.model")
    assert found.pieces == [model.id_to_piece(i) for i in range(size)]
    assert np.array_equal(found.scores, [model.get_score(i) for i in range(size)])
    assert found.unigram == (model_type == "unigram") and found.add_dummy_prefix
    words = read_vocabulary(tmp_path, {}, size)
    assert [words.types[i] for i in (0, 1, 2, 3)] == [2, 3, 3, 4] and words.tokens[4] == "  "
    runtime = vocabulary_only(words.metadata())
    for text in ["Once upon a time", "wie 3 Uhr, a<tool>", *nasty_text.splitlines()]:
        if text.startswith(" ") or "  " in text:
            continue
        assert runtime.tokenize(text.encode(), add_bos=False, special=True) == model.encode(text), text


@pytest.mark.parametrize("data", [b"", b"\x0a\xff\xff", b"GGUF....", b"\x0a\x03\x0a\x05a", bytes(range(40))])
def test_a_damaged_sentencepiece_model_is_refused(data, tmp_path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(data)
    with pytest.raises(Error, match="SentencePiece"):
        read_sentencepiece(tmp_path / "tokenizer.model")
