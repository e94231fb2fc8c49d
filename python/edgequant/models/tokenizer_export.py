"""GGUF's tokenizer.* metadata -> the tokenizer files of a Hugging Face directory."""

from __future__ import annotations

import base64
import json
from typing import Any

from edgequant._core import Error

from . import pretokenizers
from .vocabulary import BYTE, CONTROL, SPACE, SPECIAL, UNKNOWN, UNUSED, USER_DEFINED

# What llama.cpp takes where a file names no special tokens.
_DEFAULTS = {
    "llama": {"bos": 1, "eos": 2, "unk": 0},
    "bert": {"bos": 101, "unk": 100, "sep": 102, "pad": 0, "mask": 103},
    "t5": {"eos": 1, "unk": 2, "pad": 0},
}


def tokenizer_files(metadata: dict[str, Any], where: str, max_length: int) -> tuple[dict[str, bytes], dict[str, int]]:
    """tokenizer.json, tokenizer_config.json and generation_config.json, and config.json's *_token_id entries.

    Args:
        metadata: of the whole GGUF file.
        where: what messages call the file.
        max_length: longest text in tokens.
    Raises:
        Error: there is no vocabulary, or one of a kind that tokenizer.json cannot say.
    """
    own = {key.removeprefix("tokenizer.ggml."): value for key, value in metadata.items()}
    tokens, kind = own.get("tokens"), own.get("model")
    if not isinstance(tokens, list) or not tokens:
        raise Error(f"{where}: no tokenizer.ggml.tokens")
    types = [int(t) for t in own.get("token_type", [1] * len(tokens))]
    if len(types) != len(tokens):
        raise Error(f"{where}: {len(tokens)} tokens, but {len(types)} token types")
    makers = {"gpt2": _bytelevel, "llama": _sentencepiece, "t5": _unigram, "bert": _wordpiece}
    if kind not in makers:
        raise Error(f"{where}: the tokenizer kind {kind!r} is not known; known are {', '.join(makers)}")
    special = {name: int(own[key]) for name, key in SPECIAL.items() if int(own.get(key, -1)) in range(len(tokens))}
    special = {**{k: v for k, v in _DEFAULTS.get(kind, {}).items() if v < len(tokens)}, **special}
    if kind == "bert":
        special.setdefault("cls", special.get("bos", 0))
    tokenizer = makers[kind](own, tokens, types, where)
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": _added_tokens(tokens, types, special, kind),
        **tokenizer,
        "post_processor": _post_processor(own, tokens, special, kind),
    }
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_length,
        "clean_up_tokenization_spaces": False,
        **{f"{name}_token": tokens[index] for name, index in special.items() if name != "eot"},
    }
    if "tokenizer.chat_template" in metadata:
        settings["chat_template"] = metadata["tokenizer.chat_template"]
    named = {
        name: metadata.get(f"tokenizer.chat_template.{name}") for name in metadata.get("tokenizer.chat_templates", ())
    }
    if any(named.values()):
        named = {"default": settings.get("chat_template"), **named}
        settings["chat_template"] = [{"name": name, "template": text} for name, text in named.items() if text]
    ids = {f"{name}_token_id": special[name] for name in ("bos", "eos", "pad") if name in special}
    ends = [special[name] for name in ("eos", "eot") if name in special]
    generation = {**ids, "eos_token_id": ends} if len(ends) > 1 else ids
    files = {"tokenizer.json": tokenizer, "tokenizer_config.json": settings, "generation_config.json": generation}
    texts = {name: json.dumps(value, indent=2, ensure_ascii=False) + "\n" for name, value in files.items()}
    return {name: text.encode() for name, text in texts.items()}, ids


def _bytelevel(own: dict[str, Any], tokens: list[str], types: list[int], where: str) -> dict[str, Any]:
    pre, ignore_merges = pretokenizers.pre_tokenizer(str(own.get("pre", "default")), where)
    merges = own.get("merges")
    if merges is None:
        raise Error(f"{where}: no tokenizer.ggml.merges")
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": ignore_merges,
        "vocab": _used(tokens, types),
        "merges": [merge.split(" ", 1) for merge in merges],
    }
    decoder = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    return {"normalizer": None, "pre_tokenizer": pre, "decoder": decoder, "model": model}


def _sentencepiece(own: dict[str, Any], tokens: list[str], types: list[int], where: str) -> dict[str, Any]:
    """Any two pieces whose union is a piece may merge; the better the union's score, the earlier."""
    scores = _scores(own, tokens, where)
    vocab = _used(tokens, types)
    merges = []
    for token, index in vocab.items():
        if types[index] in (BYTE, UNKNOWN):
            continue
        splits = [(token[:cut], token[cut:]) for cut in range(1, len(token))]
        splits = [(left, right) for left, right in splits if left in vocab and right in vocab]
        merges += [(scores[index], vocab[left], vocab[right], left, right) for left, right in splits]
    merges.sort(key=lambda merge: (-merge[0], merge[1], merge[2]))
    prefix = own.get("add_space_prefix", True)
    unknown = next((token for token, kind in zip(tokens, types, strict=True) if kind == UNKNOWN), None)
    replace = [{"type": "Replace", "pattern": {"String": " "}, "content": SPACE}]
    prepend = [{"type": "Prepend", "prepend": SPACE}]
    decoders: list[dict[str, Any]] = [
        {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if prefix:
        decoders.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return {
        "normalizer": {"type": "Sequence", "normalizers": prepend + replace if prefix else replace},
        "pre_tokenizer": None,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": unknown,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": BYTE in types,
            "ignore_merges": False,
            "vocab": vocab,
            "merges": [[left, right] for _, _, _, left, right in merges],
        },
    }


def _unigram(own: dict[str, Any], tokens: list[str], types: list[int], where: str) -> dict[str, Any]:
    while types and types[-1] == UNUSED:  # these only fill the embedding up
        tokens, types = tokens[:-1], types[:-1]
    scores = _scores(own, own["tokens"], where)[: len(tokens)]
    normalizers: list[dict[str, Any]] = []
    if "precompiled_charsmap" in own:
        charsmap = base64.b64encode(bytes(bytearray(own["precompiled_charsmap"].astype("u1")))).decode()
        normalizers.append({"type": "Precompiled", "precompiled_charsmap": charsmap})
    if own.get("remove_extra_whitespaces"):
        normalizers.append({"type": "Strip", "strip_left": False, "strip_right": True})
        normalizers.append({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": SPACE})
    scheme = "always" if own.get("add_space_prefix", True) else "never"
    metaspace = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": scheme, "split": True}
    return {
        "normalizer": {"type": "Sequence", "normalizers": normalizers} if normalizers else None,
        "pre_tokenizer": metaspace,
        "decoder": metaspace,
        "model": {
            "type": "Unigram",
            "unk_id": types.index(UNKNOWN) if UNKNOWN in types else None,
            "vocab": [[token, score] for token, score in zip(tokens, scores, strict=True)],
            "byte_fallback": BYTE in types,
        },
    }


def _wordpiece(own: dict[str, Any], tokens: list[str], types: list[int], where: str) -> dict[str, Any]:
    """llama.cpp marks where a word begins, WordPiece where it goes on."""
    vocab: dict[str, int] = {}
    for index, (token, kind) in enumerate(zip(tokens, types, strict=True)):
        if kind == UNUSED:
            continue
        plain = kind in (CONTROL, UNKNOWN)
        vocab[token if plain else token[1:] if token.startswith(SPACE) else "##" + token] = index
    unknown = own.get("unknown_token_id")
    return {
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": own.get("normalizer.strip_accents"),
            "lowercase": bool(own.get("normalizer.lowercase", True)),
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]" if unknown is None else tokens[int(unknown)],
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": vocab,
        },
    }


def _used(tokens: list[str], types: list[int]) -> dict[str, int]:
    """Ids by token, without those that only fill the embedding up."""
    return {token: index for index, token in enumerate(tokens) if types[index] != UNUSED}


def _scores(own: dict[str, Any], tokens: list[str], where: str) -> list[float]:
    scores = own.get("scores")
    if scores is None or len(scores) != len(tokens):
        found = "none" if scores is None else len(scores)
        raise Error(f"{where}: {len(tokens)} tokens need as many tokenizer.ggml.scores, found {found}")
    return [float(score) for score in scores]


def _added_tokens(tokens: list[str], types: list[int], special: dict[str, int], kind: str) -> list[dict[str, Any]]:
    """Tokens that are matched in the text before it is split."""
    named = set(special.values())
    result = []
    for index, (token, type_) in enumerate(zip(tokens, types, strict=True)):
        if type_ not in (CONTROL, USER_DEFINED, UNKNOWN) and not (kind != "bert" and index in named):
            continue
        flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
        result.append({"id": index, "content": token, **flags, "special": type_ != USER_DEFINED})
    return result


def _post_processor(own: dict[str, Any], tokens: list[str], special: dict[str, int], kind: str) -> dict[str, Any]:
    """Adds bos and eos where llama.cpp does."""
    bert = kind == "bert"
    # Where a file says nothing, llama.cpp adds bos to SentencePiece's and Llama 3's texts and eos to T5's.
    llama3 = ("llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral", "tekken")
    adds_bos = kind == "llama" or (kind == "gpt2" and own.get("pre") in llama3)
    first = special.get("bos") if bert or own.get("add_bos_token", adds_bos) else None
    last = special.get("sep") if bert else special.get("eos") if own.get("add_eos_token", kind == "t5") else None
    used = {index: tokens[index] for index in (first, last) if index is not None}

    def pieces(index: int | None, type_id: int) -> list[dict[str, Any]]:
        return [] if index is None else [{"SpecialToken": {"id": tokens[index], "type_id": type_id}}]

    one = [*pieces(first, 0), {"Sequence": {"id": "A", "type_id": 0}}, *pieces(last, 0)]
    two = [*([] if bert else pieces(first, 1)), {"Sequence": {"id": "B", "type_id": 1}}, *pieces(last, 1)]
    template = {
        "type": "TemplateProcessing",
        "single": one,
        "pair": one + two,
        "special_tokens": {text: {"id": text, "ids": [index], "tokens": [text]} for index, text in used.items()},
    }
    byte_level = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}
    if kind != "gpt2":
        return template
    return {"type": "Sequence", "processors": [byte_level, template]} if used else byte_level
