"""Special and added tokens of a Hugging Face tokenizer: which there are, and when llama.cpp is to add them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgequant._core import Error

from .files import read_json
from .vocabulary import CONTROL, SPACE, UNKNOWN, USER_DEFINED, Vocabulary


def overlay_added_tokens(
    words: Vocabulary, path: Path, tokenizer: dict[str, Any], settings: dict[str, Any], rows: int
) -> None:
    """Tokens that are matched before anything else: control tokens, or text that users defined."""
    added: dict[int, dict[str, Any]] = {}
    for text, index in (read_json(path / "added_tokens.json") or {}).items():
        added[int(index)] = {"content": text}
    for index, item in (settings.get("added_tokens_decoder") or {}).items():
        added[int(index)] = item
    for item in tokenizer.get("added_tokens") or []:
        added[int(item["id"])] = item
    for index, item in sorted(added.items()):
        text = item["content"]
        special = item.get("special") or _looks_special(text)
        if not 0 <= index < rows:
            words.notes.append(f"the token {text!r} has no row in the embedding and is left out")
            continue
        while len(words.tokens) <= index:
            words.append_unused()
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


def special_ids(
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


def set_flags(words: Vocabulary, tokenizer: dict[str, Any], settings: dict[str, Any], ids: dict[str, int]) -> None:
    """Whether bos and eos are added by themselves: the post-processor decides, else the settings.

    llama.cpp adds no other tokens than these two, so what the post-processor adds takes their places.
    """
    sentencepiece = words.model in ("llama", "t5")
    if tokenizer:
        first, last = template(tokenizer.get("post_processor"))
        bos, eos = first is not None, last is not None and words.model != "bert"
        if words.model != "bert":
            if first in ids:
                words.special["bos"] = ids[first]
            if last in ids and ids[last] != words.special.get("eos"):
                words.special.update({"eot": words.special["eos"]} if "eos" in words.special else {})
                words.special["eos"] = ids[last]
    else:
        bos = bool(settings.get("add_bos_token", sentencepiece or words.model == "bert"))
        eos = bool(settings.get("add_eos_token", False))
    words.flags["add_bos_token"] = bos
    words.flags["add_eos_token"] = eos
    if (words.model == "gpt2" or not tokenizer) and settings.get("add_prefix_space") is not None:
        words.flags["add_space_prefix"] = bool(settings["add_prefix_space"])


def template(processor: dict[str, Any] | None) -> tuple[str | None, str | None]:
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


def read_chat_templates(path: Path, settings: dict[str, Any]) -> dict[str, str]:
    """Chat templates by name, from a file of their own or from the settings."""
    result: dict[str, str] = {}
    given = settings.get("chat_template") or (read_json(path / "chat_template.json") or {}).get("chat_template")
    if isinstance(given, str):
        result["default"] = given
    elif isinstance(given, list):
        result.update({item["name"]: item["template"] for item in given})
    if (path / "chat_template.jinja").is_file():
        result["default"] = (path / "chat_template.jinja").read_text("utf-8")
    for extra in sorted((path / "additional_chat_templates").glob("*.jinja")):
        result[extra.stem] = extra.read_text("utf-8")
    return result


def set_end_of_turn(words: Vocabulary, path: Path) -> None:
    """The token that ends a turn, where it is not eos: it ends generation and the chat template writes it."""
    ends = (read_json(path / "generation_config.json") or {}).get("eos_token_id")
    for index in ends if isinstance(ends, list) else []:
        template = words.chat_templates.get("default", "")
        known = index < len(words.tokens) and index != words.special.get("eos")
        if known and words.types[index] == CONTROL and words.tokens[index] in template:
            words.special["eot"] = index
            return
