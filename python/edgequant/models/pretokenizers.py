"""Pre-tokenizers of byte-level BPE: the stages in tokenizer.json <-> the names that llama.cpp knows.

llama.cpp has its own code per name and no way to take a regular expression from the file, so a name is right only
where the splitting is the same. `NAMES` lists what is known to be so; the tests compare token ids.
"""

from __future__ import annotations

from typing import Any

from edgequant._core import Error

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_REST_SLASH = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3 = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{_REST}"
_QWEN2 = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{_REST}"
_QWEN35 = (
    rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_GPT4O = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_CONTRACTIONS}?|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_CONTRACTIONS}?"
    rf"|\p{{N}}{{1,3}}|{_REST_SLASH}"
)
_TEKKEN = rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*|\p{{N}}|{_REST_SLASH}"
_CJK = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
_CJK_HANGUL = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
_DEEPSEEK3_WORDS = (
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*"""
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

# Name -> stages and whether the model looks whole words up before it merges. "gpt2" is the regular expression built
# into the ByteLevel stage, "digits" cuts every digit off, anything else is a regular expression to split by.
# Of names with equal stages, the first is written.
NAMES: dict[str, tuple[tuple[str, ...], bool]] = {
    "gpt-2": (("gpt2",), False),
    "smollm": (("digits", "gpt2"), False),
    "starcoder": (("digits", "gpt2"), False),
    "refact": (("digits", "gpt2"), False),
    "command-r": (("digits", "gpt2"), False),
    "mpt": (("gpt2",), False),
    "olmo": (("gpt2",), False),
    "phi-2": (("gpt2",), False),
    "llama-bpe": ((_LLAMA3,), True),
    "llama3": ((_LLAMA3,), True),
    "llama-v3": ((_LLAMA3,), True),
    "falcon3": ((_LLAMA3,), True),
    "pixtral": ((_LLAMA3,), True),
    "smaug-bpe": ((_LLAMA3,), False),
    "dbrx": ((_LLAMA3,), False),
    "qwen2": ((_QWEN2,), False),
    "deepseek-r1-qwen": ((_QWEN2,), False),
    "stablelm2": ((_QWEN2,), False),
    "megrez": ((_QWEN2,), False),
    "qwen35": ((_QWEN35,), False),
    "gpt-4o": ((_GPT4O,), False),
    "llama4": ((_GPT4O,), False),
    "tekken": ((_TEKKEN,), True),
    "deepseek-coder": ((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _CJK_HANGUL, "digits"), False),
    "falcon": ((r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, "[0-9][0-9][0-9]"), False),
    "default": ((r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]"), False),
    "deepseek-v3": ((r"\p{N}{1,3}", _CJK, _DEEPSEEK3_WORDS), False),
}


def stages(pre_tokenizer: dict[str, Any] | None) -> tuple[str, ...] | None:
    """The stages of a tokenizer.json's `pre_tokenizer` as `NAMES` spells them; None where it is not byte-level."""
    items = _flatten(pre_tokenizer)
    if not any(item.get("type") == "ByteLevel" for item in items):
        return None
    result: list[str] = []
    for item in items:
        kind = item.get("type")
        if kind == "ByteLevel":
            result += ["gpt2"] if item.get("use_regex", True) else []
            if item.get("add_prefix_space"):
                result.append("add_prefix_space")
        elif kind == "Digits" and item.get("individual_digits"):
            result.append("digits")
        elif kind == "Split" and str(item.get("behavior")).lower() == "isolated" and not item.get("invert"):
            pattern = item.get("pattern", {})
            result.append(str(pattern.get("Regex", pattern.get("String"))).replace("\r", r"\r").replace("\n", r"\n"))
        else:
            result.append(f"<{kind}>")
    return tuple(result)


def find_name(pre_tokenizer: dict[str, Any] | None, ignore_merges: bool, where: str) -> str:
    """llama.cpp's name for a tokenizer.json's `pre_tokenizer`.

    Raises:
        Error: llama.cpp would split text differently whatever the name.
    """
    found = stages(pre_tokenizer)
    candidates = [(name, whole) for name, (known, whole) in NAMES.items() if known == found]
    if not candidates:
        raise Error(f"{where}: llama.cpp has no name for this tokenizer's way to split text: {found or pre_tokenizer}")
    exact = [name for name, whole in candidates if whole == ignore_merges]
    return exact[0] if exact else candidates[0][0]


def pre_tokenizer(name: str, where: str) -> tuple[dict[str, Any], bool]:
    """tokenizer.json's `pre_tokenizer` and `ignore_merges` for a llama.cpp name.

    Raises:
        Error: the name is not known.
    """
    if name not in NAMES:
        raise Error(f"{where}: the pre-tokenizer {name!r} is not known; known are {', '.join(NAMES)}")
    known, ignore_merges = NAMES[name]
    items: list[dict[str, Any]] = []
    for stage in known:
        if stage == "digits":
            items.append({"type": "Digits", "individual_digits": True})
        elif stage != "gpt2":
            items.append({"type": "Split", "pattern": {"Regex": stage}, "behavior": "Isolated", "invert": False})
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": "gpt2" in known}
    items.append(byte_level)
    return ({"type": "Sequence", "pretokenizers": items} if len(items) > 1 else byte_level), ignore_merges


def _flatten(item: dict[str, Any] | None) -> list[dict[str, Any]]:
    if item is None:
        return []
    if item.get("type") == "Sequence":
        return [leaf for child in item.get("pretokenizers", ()) for leaf in _flatten(child)]
    return [item]
