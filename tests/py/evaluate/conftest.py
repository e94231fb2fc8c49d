"""Tiny models made from a transformers configuration, and their tokenizers: nothing is downloaded."""

from __future__ import annotations

from pathlib import Path

import pytest

WORDS = (
    "the a cat dog sat ran on under mat house and then it was very old but nobody knew why so they all went home "
    "again in spring when rain fell over hills rivers fields of green barley where birds sing early every morning"
).split()


def text_of(count: int, seed: int = 0) -> str:
    """A text of `count` known words."""
    import numpy as np

    return " ".join(np.random.default_rng(seed).choice(WORDS, count))


def save_bpe_tokenizer(directory: Path, bos: bool = False) -> int:
    """Writes a byte-level BPE tokenizer trained on the words; returns the size of its vocabulary."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<s>", "</s>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator([text_of(2000)], trainer)
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    fast.save_pretrained(directory)
    return tokenizer.get_vocab_size()


def save_llama(directory: Path, seed: int = 0, bos: bool = False) -> Path:
    """A random Llama with tied embeddings: hidden 64, 2 layers, 4 heads of which 2 hold keys."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    directory.mkdir(parents=True, exist_ok=True)
    vocabulary = save_bpe_tokenizer(directory, bos)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, tie_word_embeddings=True, bos_token_id=0, eos_token_id=1,
        initializer_range=0.2,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(directory)
    return directory


def save_bert(directory: Path, seed: int = 0) -> Path:
    """A random BERT encoder with a WordPiece vocabulary of the words and all letters."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    directory.mkdir(parents=True, exist_ok=True)
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *("##" + c for c in letters), *WORDS]
    pieces = list(dict.fromkeys(pieces))
    (directory / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    BertTokenizerFast.from_pretrained(directory).save_pretrained(directory)
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(pieces), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=64, initializer_range=0.2,
    )  # fmt: skip
    BertModel(config, add_pooling_layer=False).save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    return save_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="session")
def other_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    return save_llama(tmp_path_factory.mktemp("other"), seed=1)


@pytest.fixture(scope="session")
def bos_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    return save_llama(tmp_path_factory.mktemp("bos"), bos=True)


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    return save_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 600 words."""
    path = tmp_path_factory.mktemp("text") / "words.txt"
    path.write_text(text_of(600), encoding="utf-8")
    return path


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Models this small lose more by waking threads than they gain."""
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
