"""Hugging Face tokenizer files -> GGUF's tokenizer.* metadata, so that llama.cpp finds the same token ids.

Four kinds: "gpt2" (byte-level BPE), "llama" (SentencePiece's BPE), "bert" (WordPiece), "t5" (SentencePiece's unigram).
tokenizer.json is read as the JSON that it is; no tokenizer package is needed.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgequant._core import Error

from . import pretokenizers
from .sentencepiece import read_sentencepiece

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
SPACE = "\u2581"
"""SentencePiece's visible space."""

SPECIAL = {
    "bos": "bos_token_id",
    "eos": "eos_token_id",
    "unk": "unknown_token_id",
    "sep": "seperator_token_id",  # llama.cpp's spelling
    "pad": "padding_token_id",
    "cls": "cls_token_id",
    "mask": "mask_token_id",
    "eot": "eot_token_id",
}
"""Names of special tokens: Hugging Face's (without _token) -> GGUF's (below tokenizer.ggml)."""


@dataclass
class Vocabulary:
    """GGUF's view of a tokenizer."""

    model: str
    pre: str = "default"
    tokens: list[str] = field(default_factory=list)
    types: list[int] = field(default_factory=list)
    scores: list[float] | None = None
    merges: list[str] | None = None
    special: dict[str, int] = field(default_factory=dict)
    flags: dict[str, bool] = field(default_factory=dict)
    charsmap: bytes = b""
    chat_templates: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def metadata(self) -> dict[str, Any]:
        """The tokenizer.* entries of a GGUF file."""
        ggml: dict[str, Any] = {"model": self.model, "pre": self.pre, "tokens": self.tokens}
        if self.scores is not None:
            ggml["scores"] = np.array(self.scores, np.float32)
        ggml["token_type"] = np.array(self.types, np.int32)
        if self.merges is not None:
            ggml["merges"] = self.merges
        ggml.update({SPECIAL[name]: np.uint32(index) for name, index in self.special.items()})
        ggml.update(self.flags)
        if self.charsmap:
            ggml["precompiled_charsmap"] = np.frombuffer(self.charsmap, np.uint8)
        result = {f"tokenizer.ggml.{key}": value for key, value in ggml.items()}
        for name, template in self.chat_templates.items():
            result["tokenizer.chat_template" + ("" if name == "default" else "." + name)] = template
        others = [name for name in self.chat_templates if name != "default"]
        if others:
            result["tokenizer.chat_templates"] = others
        return result


def read_vocabulary(path: Path, config: dict[str, Any], rows: int) -> Vocabulary:
    """Reads the tokenizer of a model directory.

    Args:
        path: the directory.
        config: the complete config.json of the text model.
        rows: rows of the embedding: the vocabulary gets that many tokens, unused ones are invented.
    Raises:
        Error: no tokenizer, or one that llama.cpp cannot follow.
    """
    tokenizer = _read(path / "tokenizer.json") or {}
    settings = {**(_read(path / "special_tokens_map.json") or {}), **(_read(path / "tokenizer_config.json") or {})}
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
    elif model:
        raise Error(f"{path}: llama.cpp has no tokenizer of the kind {_kind(model)}")
    else:
        raise Error(f"{path}: no tokenizer (none of tokenizer.json, tokenizer.model, vocab.txt)")

    _overlay_added_tokens(words, path, tokenizer, settings)
    _fit(words, rows)
    if words.model == "t5" and BYTE in words.types:
        words.notes.append("llama.cpp's unigram tokenizer knows no byte fallback: rare characters become unknown")
    if words.model == "bert":
        words.tokens = [_phantom(t, kind) for t, kind in zip(words.tokens, words.types, strict=True)]
    ids = {token: index for index, token in enumerate(words.tokens)}
    if len(ids) != len(words.tokens):
        twice = next(t for i, t in enumerate(words.tokens) if ids[t] != i)
        raise Error(f"{path}: the token {twice!r} is in the vocabulary twice, which llama.cpp does not take")
    first, last = _template(tokenizer.get("post_processor"))
    named = {"bos": first, "cls": first, "eos": last, "sep": last, "unk": model.get("unk_token")}
    if words.model != "bert":
        del named["cls"], named["sep"]
    words.special = _special_ids(path, words, ids, settings, config, named)
    _set_flags(words, tokenizer, settings)
    words.chat_templates = _chat_templates(path, settings)
    _set_end_of_turn(words, path)
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
            import base64

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


def _overlay_added_tokens(words: Vocabulary, path: Path, tokenizer: dict[str, Any], settings: dict[str, Any]) -> None:
    """Tokens that are matched before anything else: control tokens, or text that users defined."""
    added: dict[int, dict[str, Any]] = {}
    for text, index in (_read(path / "added_tokens.json") or {}).items():
        added[int(index)] = {"content": text}
    for index, item in (settings.get("added_tokens_decoder") or {}).items():
        added[int(index)] = item
    for item in tokenizer.get("added_tokens") or []:
        added[int(item["id"])] = item
    for index, item in sorted(added.items()):
        text = item["content"]
        special = item.get("special") or _looks_special(text)
        while len(words.tokens) <= index:
            _append_unused(words)
        if words.model in ("llama", "t5") and words.types[index] == UNKNOWN:
            continue
        words.tokens[index] = text if special else text.replace(SPACE, " ")
        words.types[index] = CONTROL if special else USER_DEFINED
        if words.scores is not None:
            words.scores[index] = -1000.0 if words.model == "llama" else 0.0


def _looks_special(text: str) -> bool:
    """Tokens that many models add without calling them special, though they stand for no text."""
    return text in ("<pad>", "<mask>", "<2mass>", "[@BOS@]") or any(
        text.startswith(begin) and text.endswith(end)
        for begin, end in (("<|", "|>"), ("<\uff5c", "\uff5c>"), ("<unused", ">"))
    )


def _append_unused(words: Vocabulary) -> None:
    words.tokens.append(f"[PAD{len(words.tokens)}]")
    words.types.append(UNUSED)
    if words.scores is not None:
        words.scores.append(-10000.0)


def _fit(words: Vocabulary, rows: int) -> None:
    """As many tokens as the embedding has rows."""
    if len(words.tokens) > rows:
        lost = words.tokens[rows:]
        words.notes.append(f"{len(lost)} tokens have no row in the embedding and are left out: {', '.join(lost[:4])}")
        del words.tokens[rows:], words.types[rows:]
        if words.scores is not None:
            del words.scores[rows:]
    while len(words.tokens) < rows:
        _append_unused(words)


def _special_ids(
    path: Path,
    words: Vocabulary,
    ids: dict[str, int],
    settings: dict[str, Any],
    config: dict[str, Any],
    named: dict[str, str | None],
) -> dict[str, int]:
    """Ids of the special tokens: as the tokenizer's settings say, else tokenizer.json, else config.json."""
    result: dict[str, int] = {}
    for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"):
        given = settings.get(f"{name}_token")
        text = given.get("content") if isinstance(given, dict) else given
        text = named.get(name) if text is None else text
        index = ids.get(text) if isinstance(text, str) else None
        if index is None:
            index = config.get(f"{name}_token_id")
            index = index[0] if isinstance(index, list) and index else index
        if isinstance(index, int) and 0 <= index < len(words.tokens):
            result[name] = index
    if UNKNOWN in words.types:
        result.setdefault("unk", words.types.index(UNKNOWN))
    if words.model == "bert":  # llama.cpp puts bos before and sep after a text
        for name, other in (("bos", "cls"), ("eos", "sep")):
            result.update({name: result[other]} if other in result else {})
        if "bos" not in result or "sep" not in result:
            raise Error(f"{path}: a WordPiece tokenizer without [CLS] or [SEP], which llama.cpp puts around a text")
    return result


def _set_flags(words: Vocabulary, tokenizer: dict[str, Any], settings: dict[str, Any]) -> None:
    """Whether bos and eos are added by themselves: the post-processor decides, else the settings."""
    sentencepiece = words.model in ("llama", "t5")
    if tokenizer:
        first, last = _template(tokenizer.get("post_processor"))
        bos, eos = first is not None, last is not None and words.model != "bert"
    else:
        bos = bool(settings.get("add_bos_token", sentencepiece or words.model == "bert"))
        eos = bool(settings.get("add_eos_token", False))
    words.flags["add_bos_token"] = bos
    words.flags["add_eos_token"] = eos
    if words.model == "gpt2" and settings.get("add_prefix_space") is not None:
        words.flags["add_space_prefix"] = bool(settings["add_prefix_space"])


def _template(processor: dict[str, Any] | None) -> tuple[str | None, str | None]:
    """The special tokens that a post-processor puts before and after one text."""
    first = last = None
    for item in (processor or {}).get("processors", [processor] if processor else []):
        if item["type"] == "TemplateProcessing":
            single = item.get("single") or []
            first = single[0].get("SpecialToken", {}).get("id", first) if single else first
            last = single[-1].get("SpecialToken", {}).get("id", last) if len(single) > 1 else last
        elif item["type"] in ("BertProcessing", "RobertaProcessing"):
            first, last = item["cls"][0], item["sep"][0]
    return first, last


def _chat_templates(path: Path, settings: dict[str, Any]) -> dict[str, str]:
    """Chat templates by name, from a file of their own or from the settings."""
    result: dict[str, str] = {}
    given = settings.get("chat_template") or (_read(path / "chat_template.json") or {}).get("chat_template")
    if isinstance(given, str):
        result["default"] = given
    elif isinstance(given, list):
        result.update({item["name"]: item["template"] for item in given})
    if (path / "chat_template.jinja").is_file():
        result["default"] = (path / "chat_template.jinja").read_text("utf-8")
    for extra in sorted((path / "additional_chat_templates").glob("*.jinja")):
        result[extra.stem] = extra.read_text("utf-8")
    return result


def _set_end_of_turn(words: Vocabulary, path: Path) -> None:
    """The token that ends a turn, where it is not eos: it ends generation and the chat template writes it."""
    ends = (_read(path / "generation_config.json") or {}).get("eos_token_id")
    for index in ends if isinstance(ends, list) else []:
        template = words.chat_templates.get("default", "")
        known = index < len(words.tokens) and index != words.special.get("eos")
        if known and words.types[index] == CONTROL and words.tokens[index] in template:
            words.special["eot"] = index
            return


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


def _read(path: Path) -> Any | None:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise Error(f"{path}: not valid JSON ({error})") from None
