"""Hugging Face tokenizer files -> a GGUF vocabulary with which llama.cpp finds the same token ids.

tokenizer.json and tokenizer.model are read as what they are, JSON and a message: no tokenizer package is needed.
"""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

from edgequant._core import Error

from . import pretokenizers, special_tokens
from .files import read_json
from .sentencepiece import read_sentencepiece
from .vocabulary import BYTE, CONTROL, NORMAL, SPACE, UNKNOWN, UNUSED, USER_DEFINED, Vocabulary

_BERT = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}


def read_vocabulary(path: Path, config: dict[str, Any], rows: int) -> Vocabulary:
    """Reads the tokenizer of a model directory.

    Args:
        path: the directory.
        config: the complete config.json of the text model.
        rows: rows of the embedding: the vocabulary gets that many tokens, unused ones are invented.
    Raises:
        Error: no tokenizer, or one that llama.cpp cannot follow.
    """
    tokenizer = read_json(path / "tokenizer.json") or {}
    settings = {
        **(read_json(path / "special_tokens_map.json") or {}),
        **(read_json(path / "tokenizer_config.json") or {}),
    }
    model = tokenizer.get("model", {})
    byte_fallback = bool(model.get("byte_fallback")) or _kind(model) == "Unigram"
    if (path / "tokenizer.model").is_file() and (not model or byte_fallback):
        words = _from_sentencepiece(path / "tokenizer.model")
    elif _kind(model) == "WordPiece":
        words = _from_wordpiece(model["vocab"], tokenizer)
    elif _kind(model) == "BPE" and byte_fallback:
        words = _from_sentencepiece_json(tokenizer)
    elif _kind(model) == "BPE":
        words = _from_bytelevel(tokenizer, str(path / "tokenizer.json"))
    elif _kind(model) == "Unigram":
        words = _from_unigram(tokenizer)
    elif (path / "vocab.txt").is_file():
        lines = (path / "vocab.txt").read_text("utf-8").splitlines()
        words = _from_wordpiece({token: index for index, token in enumerate(lines)}, {})
        words.flags["normalizer.lowercase"] = bool(settings.get("do_lower_case", True))
        settings = {**_BERT, **settings}
        for name in _BERT:
            words.types[words.tokens.index(settings[name])] = CONTROL
    elif model:
        raise Error(f"{path}: llama.cpp has no tokenizer of the kind {_kind(model)}")
    else:
        raise Error(f"{path}: no tokenizer (none of tokenizer.json, tokenizer.model, vocab.txt)")

    special_tokens.overlay_added_tokens(words, path, tokenizer, settings, rows)
    words.resize(rows)
    if words.model == "t5" and BYTE in words.types:
        words.notes.append("llama.cpp's unigram tokenizer knows no byte fallback: rare characters become unknown")
    if words.model == "bert":
        words.tokens = [_phantom(t, kind) for t, kind in zip(words.tokens, words.types, strict=True)]
    ids = {token: index for index, token in enumerate(words.tokens)}
    if len(ids) != len(words.tokens):
        twice = next(t for i, t in enumerate(words.tokens) if ids[t] != i)
        raise Error(f"{path}: the token {twice!r} is in the vocabulary twice, which llama.cpp does not take")
    first, last = special_tokens.template(tokenizer.get("post_processor"))
    named = {"bos": first, "cls": first, "eos": last, "sep": last, "unk": model.get("unk_token")}
    if words.model != "bert":
        del named["cls"], named["sep"]
    words.special = special_tokens.special_ids(path, words, ids, settings, config, named)
    special_tokens.set_flags(words, tokenizer, settings, ids)
    words.chat_templates = special_tokens.read_chat_templates(path, settings)
    special_tokens.set_end_of_turn(words, path)
    return words


def _from_sentencepiece(path: Path) -> Vocabulary:
    source = read_sentencepiece(path)
    tokens = [
        piece.replace(SPACE, " ") if kind == USER_DEFINED else piece
        for piece, kind in zip(source.pieces, source.types, strict=True)
    ]
    words = Vocabulary("t5" if source.unigram else "llama", tokens=tokens, types=source.types, scores=source.scores)
    words.flags["add_space_prefix"] = source.add_dummy_prefix
    if source.unigram:
        words.flags["remove_extra_whitespaces"] = source.remove_extra_whitespaces
        words.charsmap = source.charsmap
    return words


def _from_sentencepiece_json(tokenizer: dict[str, Any]) -> Vocabulary:
    """SentencePiece merges the neighbours whose union has the best score: the rank of its merge, negative."""
    model = tokenizer["model"]
    tokens, types = _by_index(model["vocab"])
    ranks: dict[str, int] = {}
    for left, right in _pairs(model.get("merges", [])):
        ranks.setdefault(left + right, len(ranks))
    last = len(ranks)
    scores = [-float(ranks.get(token, last)) for token in tokens]
    types = [BYTE if re.fullmatch(r"<0x[0-9A-F]{2}>", t) else kind for t, kind in zip(tokens, types, strict=True)]
    unknown = model.get("unk_token")
    if unknown in model["vocab"]:
        types[model["vocab"][unknown]] = UNKNOWN
    words = Vocabulary("llama", tokens=tokens, types=types, scores=scores)
    words.flags["add_space_prefix"] = _adds_space(tokenizer)
    return words


def _from_unigram(tokenizer: dict[str, Any]) -> Vocabulary:
    model = tokenizer["model"]
    tokens = [token for token, _ in model["vocab"]]
    types = [BYTE if model.get("byte_fallback") and re.fullmatch(r"<0x[0-9A-F]{2}>", t) else NORMAL for t in tokens]
    if model.get("unk_id") is not None:
        types[model["unk_id"]] = UNKNOWN
    words = Vocabulary("t5", tokens=tokens, types=types, scores=[float(score) for _, score in model["vocab"]])
    words.flags["add_space_prefix"] = _adds_space(tokenizer)
    kinds = _normalizers(tokenizer.get("normalizer"))
    words.flags["remove_extra_whitespaces"] = any(item["type"] in ("Replace", "Strip") for item in kinds)
    for item in kinds:
        if item["type"] == "Precompiled":
            words.charsmap = base64.b64decode(item["precompiled_charsmap"])
    return words


def _from_bytelevel(tokenizer: dict[str, Any], where: str) -> Vocabulary:
    model = tokenizer["model"]
    pre = pretokenizers.find_name(tokenizer.get("pre_tokenizer"), bool(model.get("ignore_merges")), where)
    # A merge is "left right" in GGUF: a space inside a part is written as byte-level BPE writes the byte.
    merges = [f"{left} {right}" for left, right in _pairs(model.get("merges", []))]
    return Vocabulary("gpt2", pre, *_by_index(model["vocab"]), merges=merges)


def _from_wordpiece(vocab: dict[str, int], tokenizer: dict[str, Any]) -> Vocabulary:
    words = Vocabulary("bert", "default", *_by_index(vocab))
    for item in _normalizers(tokenizer.get("normalizer")):
        if item["type"] == "BertNormalizer":
            words.flags["normalizer.lowercase"] = bool(item.get("lowercase", True))
            if item.get("strip_accents") is not None:
                words.flags["normalizer.strip_accents"] = bool(item["strip_accents"])
        elif item["type"] == "Lowercase":
            words.flags["normalizer.lowercase"] = True
        elif item["type"] == "StripAccents":
            words.flags["normalizer.strip_accents"] = True
    return words


def _phantom(token: str, kind: int) -> str:
    """llama.cpp marks where a word begins, WordPiece where it goes on."""
    if kind in (CONTROL, UNUSED):
        return token
    return token[2:] if token.startswith("##") else SPACE + token


def _adds_space(tokenizer: dict[str, Any]) -> bool:
    """Whether a SentencePiece-like tokenizer.json puts a space before the text."""
    for item in _normalizers(tokenizer.get("normalizer")):
        if item["type"] == "Prepend":
            return True
    pre = tokenizer.get("pre_tokenizer") or {}
    for item in pre.get("pretokenizers", [pre]):
        if item.get("type") == "Metaspace":
            return item.get("prepend_scheme", "always" if item.get("add_prefix_space", True) else "never") != "never"
    return False


def _normalizers(item: dict[str, Any] | None) -> list[dict[str, Any]]:
    if item is None:
        return []
    return [leaf for child in item["normalizers"] for leaf in _normalizers(child)] if "normalizers" in item else [item]


def _pairs(merges: list[Any]) -> list[tuple[str, str]]:
    """Merges, which tokenizer.json has as "left right" or as a list of two."""
    result = []
    for merge in merges:
        left, right = merge.split(" ", 1) if isinstance(merge, str) else merge
        result.append((left.replace(" ", "\u0120"), right.replace(" ", "\u0120")))
    return result


def _by_index(vocab: dict[str, int]) -> tuple[list[str], list[int]]:
    """Tokens in the order of their ids, and types; ids that nothing has become unused tokens."""
    size = max(vocab.values(), default=-1) + 1
    if min(vocab.values(), default=0) < 0 or size > 2 * len(vocab) + 65536:
        raise Error(f"a vocabulary of {len(vocab)} tokens has ids from {min(vocab.values())} to {size - 1}")
    tokens, types = [f"[PAD{index}]" for index in range(size)], [UNUSED] * size
    for token, index in vocab.items():
        tokens[index], types[index] = token, NORMAL
    return tokens, types


def _kind(model: dict[str, Any]) -> str:
    """The kind of a tokenizer.json's model; old files do not say it."""
    kind = model.get("type")
    if kind is None and model:
        return "BPE" if "merges" in model else "WordPiece"
    return str(kind)
