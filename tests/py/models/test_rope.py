"""Rotary settings in every dialect of config.json."""

from __future__ import annotations

import json

import numpy as np
import pytest
from edgequant._core import Error
from edgequant.models import rope

BASE = {"hidden_size": 512, "num_attention_heads": 8, "max_position_embeddings": 131072}


@pytest.mark.parametrize(
    "settings",
    [
        {"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 8.0}},
        {"rope_theta": 5e5, "rope_scaling": {"rope_type": "linear", "factor": 8.0}},
        {"rope_parameters": {"rope_theta": 5e5, "rope_type": "linear", "factor": 8.0}},
        {"rope_parameters": {"full_attention": {"rope_theta": 5e5, "rope_type": "linear", "factor": 8.0}}},
    ],
)
def test_dialects_mean_the_same(settings) -> None:
    metadata, tensors = rope.to_gguf({**BASE, **settings}, "llama", "here")
    assert tensors == {}
    assert metadata == {
        "rope.dimension_count": 64,
        "rope.freq_base": 5e5,
        "rope.scaling.type": "linear",
        "rope.scaling.factor": 8,
    }


def test_gemma_has_two_bases() -> None:
    new = {
        "rope_parameters": {
            "full_attention": {"rope_theta": 1e6, "rope_type": "default"},
            "sliding_attention": {"rope_theta": 1e4, "rope_type": "default"},
        }
    }
    for settings in (new, {"rope_theta": 1e6, "rope_local_base_freq": 1e4}):
        metadata, _ = rope.to_gguf({**BASE, **settings}, "gemma3", "here")
        assert metadata == {"rope.dimension_count": 64, "rope.freq_base": 1e6, "rope.freq_base_swa": 1e4}


@pytest.mark.parametrize(("factor", "high", "original"), [(8.0, 4.0, 8192), (32.0, 4.0, 8192), (4.0, 3.0, 4096)])
def test_llama3_scaling_is_found_again(factor, high, original) -> None:
    given = {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": high,
        "original_max_position_embeddings": original,
    }
    metadata, tensors = rope.to_gguf({**BASE, "rope_theta": 5e5, "rope_scaling": given}, "llama", "here")
    factors = tensors["rope_freqs.weight"]
    assert factors.dtype == np.float32 and factors.shape == (32,) and "rope.scaling.type" not in metadata
    assert factors[0] == 1 and factors[-1] == factor and np.all(np.diff(factors) >= 0)
    config = rope.from_gguf(metadata, tensors, "here")
    assert config == {"rope_theta": 5e5, "rope_scaling": given} and json.dumps(config)
    with pytest.raises(Error, match="not those of Llama 3"):
        rope.from_gguf(metadata, {"rope_freqs.weight": factors[::-1].copy()}, "here")


def test_what_an_architecture_does_not_compute_is_refused() -> None:
    for kind, architecture in (("dynamic", "llama"), ("llama3", "qwen2"), ("longrope", "llama")):
        with pytest.raises(Error, match=f"scaling '{kind}' is not known to llama.cpp's {architecture}"):
            rope.to_gguf({**BASE, "rope_scaling": {"rope_type": kind, "factor": 2.0}}, architecture, "here")
    with pytest.raises(Error, match="long_factor has 3 values, 32 are needed"):
        scaling = {"type": "longrope", "long_factor": [1, 2, 3], "short_factor": [1] * 32}
        rope.to_gguf({**BASE, "rope_scaling": scaling}, "phi3", "here")


def test_float32_is_written_as_it_was_meant() -> None:
    assert rope.decimal(np.float32(1e-5)) == 1e-5 and rope.decimal(np.float32(500000)) == 500000.0
