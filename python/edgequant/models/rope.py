"""Rotary position settings: config.json's several dialects <-> GGUF metadata and frequency tensors.

transformers 5 writes `rope_parameters` (for Gemma 3 one per layer type), older versions `rope_theta`, `rope_scaling`
and `rope_local_base_freq`. Both are read; the older form, which both versions of transformers read, is written.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from edgequant._core import Error

_YARN = {"beta_fast": "yarn_beta_fast", "beta_slow": "yarn_beta_slow", "attention_factor": "yarn_attn_factor"}


def parameters(config: dict[str, Any], layers: str = "full_attention") -> dict[str, Any]:
    """One dialect for all: {"rope_type", "rope_theta", ...} of the layers of that type."""
    given = config.get("rope_parameters") or {}
    if layers in given:
        result = dict(given[layers] or {})
    elif layers == "sliding_attention":
        result = {"rope_theta": config.get("rope_local_base_freq", config.get("rope_theta"))}
    else:
        result = {**(config.get("rope_scaling") or {}), **given}
        result.setdefault("rope_theta", config.get("rope_theta"))
    result["rope_type"] = (result.get("rope_type") or result.get("type") or "default").lower()
    for name in ("partial_rotary_factor", "original_max_position_embeddings"):
        if result.get(name) is None and config.get(name) is not None:
            result[name] = config[name]
    return result


def head_dimension(config: dict[str, Any]) -> int:
    """Width of one attention head."""
    return int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])


def to_gguf(config: dict[str, Any], architecture: str, where: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Metadata (keys below the architecture's name) and frequency tensors for llama.cpp.

    Raises:
        Error: a kind of scaling that llama.cpp does not compute for this architecture.
    """
    rope = parameters(config)
    kind = rope["rope_type"]
    rotary = int(head_dimension(config) * float(rope.get("partial_rotary_factor") or 1.0))
    metadata: dict[str, Any] = {"rope.dimension_count": np.uint32(rotary)}
    tensors: dict[str, np.ndarray] = {}
    if rope["rope_theta"] is not None:
        metadata["rope.freq_base"] = np.float32(rope["rope_theta"])
    original = int(rope.get("original_max_position_embeddings") or config["max_position_embeddings"])

    if architecture == "phi3":
        metadata["rope.scaling.original_context_length"] = np.uint32(original)
    if architecture == "gemma3":
        metadata["rope.freq_base_swa"] = np.float32(parameters(config, "sliding_attention")["rope_theta"])

    if kind in ("linear", "yarn"):
        metadata["rope.scaling.type"] = kind
        metadata["rope.scaling.factor"] = np.float32(rope["factor"])
        if kind == "yarn":
            metadata["rope.scaling.original_context_length"] = np.uint32(original)
            for ours, theirs in _YARN.items():
                if rope.get(ours) is not None:
                    metadata[f"rope.scaling.{theirs}"] = np.float32(rope[ours])
    elif kind == "llama3" and architecture == "llama":
        tensors["rope_freqs.weight"] = _llama3_factors(rope, rotary)
    elif kind in ("longrope", "su") and architecture == "phi3":
        metadata["rope.scaling.type"] = "longrope"
        metadata["rope.scaling.attn_factor"] = np.float32(_longrope_attention(rope, config, original))
        for length in ("long", "short"):
            factors = np.asarray(rope.get(f"{length}_factor", ()), np.float32)
            if factors.shape != (rotary // 2,):
                raise Error(f"{where}: rope {length}_factor has {factors.size} values, {rotary // 2} are needed")
            tensors[f"rope_factors_{length}.weight"] = factors
    elif kind != "default":
        raise Error(f"{where}: rotary scaling {kind!r} is not known to llama.cpp's {architecture} models")
    return metadata, tensors


def from_gguf(metadata: dict[str, Any], tensors: dict[str, np.ndarray], where: str) -> dict[str, Any]:
    """The rotary part of config.json; `metadata` has keys below the architecture's name."""
    config: dict[str, Any] = {}
    if "rope.freq_base" in metadata:
        config["rope_theta"] = decimal(metadata["rope.freq_base"])
    if "rope.freq_base_swa" in metadata:
        config["rope_local_base_freq"] = decimal(metadata["rope.freq_base_swa"])
    original = metadata.get("rope.scaling.original_context_length")
    kind = str(metadata.get("rope.scaling.type", "none"))
    factor = decimal(metadata.get("rope.scaling.factor", 0.0))
    if "rope_freqs.weight" in tensors:
        base, rotary = config.get("rope_theta", 10000.0), 2 * tensors["rope_freqs.weight"].size
        config["rope_scaling"] = _fit_llama3(tensors["rope_freqs.weight"], base, rotary, where)
    elif "rope_factors_long.weight" in tensors:
        config["rope_scaling"] = {
            "type": "longrope",
            "rope_type": "longrope",
            "long_factor": [decimal(x) for x in tensors["rope_factors_long.weight"]],
            "short_factor": [decimal(x) for x in tensors["rope_factors_short.weight"]],
        }
        if "rope.scaling.attn_factor" in metadata:
            config["rope_scaling"]["attention_factor"] = decimal(metadata["rope.scaling.attn_factor"])
    elif kind in ("linear", "yarn") and factor not in (0.0, 1.0):
        config["rope_scaling"] = {"type": kind, "rope_type": kind, "factor": factor}
        if kind == "yarn":
            config["rope_scaling"]["original_max_position_embeddings"] = int(original or metadata["context_length"])
            for ours, theirs in _YARN.items():
                if f"rope.scaling.{theirs}" in metadata:
                    config["rope_scaling"][ours] = decimal(metadata[f"rope.scaling.{theirs}"])
    return config


def decimal(value: Any) -> float:
    """A float32 as the shortest decimal that rounds to it: 9.99999997e-07 was meant as 1e-06."""
    return float(str(np.float32(value)))


def _frequencies(base: float, rotary: int) -> np.ndarray:
    """Rotations per position of each pair, float32 as llama.cpp's converter computes them."""
    return 1.0 / np.float32(base) ** (np.arange(0, rotary, 2, dtype=np.float32) / np.float32(rotary))


def _llama3_factors(rope: dict[str, Any], rotary: int) -> np.ndarray:
    """Llama 3's scaling as one divisor per frequency: 1 for fast pairs, `factor` for slow ones, a blend between."""
    factor = np.float32(rope.get("factor") or 8.0)
    low = np.float32(rope.get("low_freq_factor") or 1.0)
    high = np.float32(rope.get("high_freq_factor") or 4.0)
    original = np.float32(rope.get("original_max_position_embeddings") or 8192)
    wavelength = np.float32(2 * math.pi) / _frequencies(rope["rope_theta"] or 10000.0, rotary)
    blend = np.clip((original / wavelength - low) / (high - low), np.float32(0), np.float32(1))
    return np.float32(1) / ((np.float32(1) - blend) / factor + blend)


def _fit_llama3(factors: np.ndarray, base: float, rotary: int, where: str) -> dict[str, Any]:
    """The parameters behind Llama 3's divisors, with low_freq_factor = 1, as GGUF keeps only the divisors.

    The blend is linear in the frequency, so two pairs inside the blend determine it.
    """
    factor = decimal(np.max(factors))
    candidates = [(8192.0, 4.0)]
    inside = np.flatnonzero((factors > 1.0) & (factors < np.max(factors)))
    if inside.size >= 2:
        pick = inside[[0, -1]]
        blend = (1.0 / factors[pick].astype(np.float64) - 1.0 / factor) / (1.0 - 1.0 / factor)
        turns = _frequencies(base, rotary)[pick].astype(np.float64) / (2 * math.pi)
        slope = (blend[1] - blend[0]) / (turns[1] - turns[0])
        width = 1.0 / (slope * turns[0] - blend[0])  # high - low, in units of low
        candidates.append((float(round(slope * width)), float(round(1.0 + width, 3))))
    for original, high in candidates:
        rope = {"rope_type": "llama3", "factor": factor, "low_freq_factor": 1.0, "high_freq_factor": high}
        rope["original_max_position_embeddings"] = int(original)
        if np.allclose(_llama3_factors({**rope, "rope_theta": base}, rotary), factors, rtol=1e-4):
            return rope
    raise Error(f"{where}: the divisors in rope_freqs.weight are not those of Llama 3's rotary scaling")


def _longrope_attention(rope: dict[str, Any], config: dict[str, Any], original: int) -> float:
    """Factor on the attention's logits that goes with LongRoPE."""
    if rope.get("attention_factor") is not None:
        return float(rope["attention_factor"])
    scale = config["max_position_embeddings"] / original
    return math.sqrt(1 + math.log(scale) / math.log(original)) if scale > 1.0 else 1.0
