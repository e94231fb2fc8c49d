"""Hyper-parameters: config.json <-> GGUF metadata, driven by the tables in `architectures`."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from edgequant._core import Error

from . import rope
from .architectures import ARCHITECTURES, Architecture

_TYPES = {"u32": np.uint32, "f32": np.float32}


def find_architecture(config: dict[str, Any], where: str) -> Architecture:
    """The architecture that config.json names."""
    names = config.get("architectures") or []
    for architecture in ARCHITECTURES.values():
        if any(name in architecture.classes for name in names):
            return architecture
        if not names and config.get("model_type") in architecture.model_types:
            return architecture
    given = ", ".join(map(str, names)) or config.get("model_type") or "not named"
    known = ", ".join(name for architecture in ARCHITECTURES.values() for name in architecture.classes)
    raise Error(f"{where}: the architecture ({given}) is not supported; supported are {known}")


def complete(config: dict[str, Any], architecture: Architecture, where: str) -> dict[str, Any]:
    """The text model's config with transformers' defaults filled in, checked for what llama.cpp takes for granted."""
    if config.get("quantization_config"):
        method = config["quantization_config"].get("quant_method", "an unnamed method")
        raise Error(f"{where}: the weights are already quantized ({method}); give the original model")
    text = config.get("text_config")
    outer = {key: value for key, value in config.items() if key in ("tie_word_embeddings", "eos_token_id")}
    config = {**outer, **text} if isinstance(text, dict) else dict(config)
    for key, value in architecture.defaults.items():
        if config.get(key) is None:
            config[key] = value
    if config.get("num_key_value_heads") is None:
        config["num_key_value_heads"] = config.get("num_attention_heads")
    for parameter in architecture.parameters:
        if parameter.hf == "head_dim":
            continue
        value = config.get(parameter.hf)
        if not isinstance(value, (int, float)) or isinstance(value, bool) or value < 0:
            raise Error(f"{where}: config.json has no valid {parameter.hf} (found {value!r})")
    config["head_dim"] = rope.head_dimension(config)
    for key, allowed in architecture.expects.items():
        if config.get(key) not in allowed:
            raise Error(
                f"{where}: {key} = {config[key]!r} is not what llama.cpp computes for {architecture.name} models "
                f"({' or '.join(map(repr, allowed))})"
            )
    if architecture.name == "gemma3":
        _check_gemma_scale(config, where)
    return config


def dimensions(config: dict[str, Any]) -> dict[str, int]:
    """What the letters in the tensor tables stand for.

    v: vocabulary, d: model, f: feed-forward, q: query, k: key, h: one head, p: positions, t: token types.
    """
    head, heads, kv = config["head_dim"], config["num_attention_heads"], config["num_key_value_heads"]
    q, k, f = head * heads, head * kv, config["intermediate_size"]
    return {
        "v": config["vocab_size"],
        "d": config["hidden_size"],
        "f": f,
        "2f": 2 * f,
        "q": q,
        "k": k,
        "q+2k": q + 2 * k,
        "h": head,
        "p": config["max_position_embeddings"],
        "t": config.get("type_vocab_size", 2),
    }


def to_gguf(
    config: dict[str, Any], architecture: Architecture, where: str
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Metadata below the architecture's name, and the tensors computed from config.json; `config` is complete."""
    result: dict[str, Any] = {p.gguf: _TYPES[p.type](config[p.hf]) for p in architecture.parameters}
    result.update(architecture.metadata)
    tensors: dict[str, np.ndarray] = {}
    if architecture.name != "bert":
        rotary, tensors = rope.to_gguf(config, architecture.name, where)
        result.update(rotary)
    if architecture.name == "gemma3":
        result.update(_gemma_windows(config))
        if config.get("final_logit_softcapping"):
            result["final_logit_softcapping"] = np.float32(config["final_logit_softcapping"])
    if architecture.name == "phi3":
        # llama.cpp tells Phi-4-mini from Phi-3 by the zero.
        result["attention.sliding_window"] = np.uint32(config.get("sliding_window") or 0)
    return result, tensors


def from_gguf(
    metadata: dict[str, Any], tensors: dict[str, np.ndarray], architecture: Architecture, where: str
) -> dict[str, Any]:
    """config.json of a GGUF model; `metadata` is the whole file's, `tensors` the computed ones that it holds."""
    prefix = architecture.name + "."
    own = {key.removeprefix(prefix): value for key, value in metadata.items() if key.startswith(prefix)}
    own.setdefault("vocab_size", len(metadata.get("tokenizer.ggml.tokens", ())))
    own.setdefault("attention.head_count_kv", own.get("attention.head_count"))
    config: dict[str, Any] = {"architectures": [architecture.classes[0]], **architecture.config}
    for parameter in architecture.parameters:
        value = own.get(parameter.gguf)
        if value is None and parameter.hf == "head_dim":
            continue
        if value is None or np.ndim(value) != 0:
            raise Error(f"{where}: {prefix}{parameter.gguf} is {'missing' if value is None else 'given per layer'}")
        config[parameter.hf] = rope.decimal(value) if parameter.type == "f32" else int(value)
    config.setdefault("num_key_value_heads", config["num_attention_heads"])
    config.setdefault("head_dim", config["hidden_size"] // config["num_attention_heads"])
    if architecture.name == "bert":
        config["type_vocab_size"] = int(metadata.get("tokenizer.ggml.token_type_count", 2))
        del config["num_key_value_heads"], config["head_dim"]
        return config
    config.update(rope.from_gguf(own, tensors, where))
    rotary = int(own.get("rope.dimension_count", config["head_dim"]))
    if architecture.name == "phi3":
        original = own.get("rope.scaling.original_context_length", own["context_length"])
        config["original_max_position_embeddings"] = int(original)
        config["partial_rotary_factor"] = rotary / config["head_dim"]
        config["sliding_window"] = int(own.get("attention.sliding_window", 0)) or None
        del config["head_dim"]
    elif rotary != config["head_dim"]:
        raise Error(f"{where}: {rotary} of {config['head_dim']} dimensions rotate; {architecture.name} rotates all")
    if architecture.name == "gemma3":
        _restore_gemma(config, own)
    return config


def _gemma_scalar(config: dict[str, Any]) -> int:
    """llama.cpp scales Gemma 3's queries by the head's width, only the 27B model's (62 blocks) by the model's."""
    wide = config["num_hidden_layers"] == 62
    return config["hidden_size"] // config["num_attention_heads"] if wide else config["head_dim"]


def _check_gemma_scale(config: dict[str, Any], where: str) -> None:
    given, implied = config["query_pre_attn_scalar"], _gemma_scalar(config)
    if given != implied:
        raise Error(f"{where}: query_pre_attn_scalar = {given} is not what llama.cpp computes for gemma3 ({implied})")


def _gemma_windows(config: dict[str, Any]) -> dict[str, Any]:
    """Which of Gemma 3's layers see only a window: every one but each sixth, where nothing else is said."""
    blocks, period = config["num_hidden_layers"], config["sliding_window_pattern"]
    windowed = [(block + 1) % period != 0 for block in range(blocks)]
    if config.get("layer_types"):
        windowed = [kind == "sliding_attention" for kind in config["layer_types"]]
    if not any(windowed):
        return {}
    result: dict[str, Any] = {"attention.sliding_window": np.uint32(config["sliding_window"])}
    for period in range(2, blocks + 1):
        if windowed == [(block + 1) % period != 0 for block in range(blocks)]:
            if period != 6:
                result["attention.sliding_window_pattern"] = np.uint32(period)
            return result
    if windowed != [(block + 1) % 6 != 0 for block in range(blocks)]:
        result["attention.sliding_window_pattern"] = np.array(windowed, np.bool_)
    return result


def _restore_gemma(config: dict[str, Any], own: dict[str, Any]) -> None:
    """The entries of Gemma 3's config.json that have no line in the tables."""
    blocks, pattern = config["num_hidden_layers"], own.get("attention.sliding_window_pattern", 6)
    if np.ndim(pattern):
        windowed = [bool(x) for x in pattern]
    else:
        windowed = [bool(pattern == 0 or (block + 1) % pattern) for block in range(blocks)]
    if not own.get("attention.sliding_window"):
        windowed = [False] * blocks
    config["layer_types"] = ["sliding_attention" if window else "full_attention" for window in windowed]
    config["sliding_window"] = int(own.get("attention.sliding_window", 0)) or 4096
    config["query_pre_attn_scalar"] = _gemma_scalar(config)
    if "final_logit_softcapping" in own:
        config["final_logit_softcapping"] = rope.decimal(own["final_logit_softcapping"])


def matches(patterns: tuple[str, ...], name: str) -> bool:
    """Whether one of the regular expressions is found in the name."""
    return any(re.search(pattern, name) for pattern in patterns)
