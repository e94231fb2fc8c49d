"""The verb: one call that loads, measures and reports, for language models and for encoders."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from edgequant._core import Error
from edgequant.evaluate import embedding, language
from edgequant.evaluate.load import Loaded, load
from edgequant.evaluate.protocol import WindowedText, cut_windows, read_text, tokenizer_sha256
from edgequant.evaluate.report import Evaluation
from edgequant.evaluate.sentences import SENTENCES
from edgequant.evaluate.weights import weight_errors

Progress = Callable[[str, int, int], None]


class Reference:
    """A reference model's predictions on one text, made once and compared with any number of models.

    Args:
        path: HF directory or GGUF.
        text: file to read; sentences (one per line) for an encoder, where None takes the built-in ones.
        context, windows, dtype: as for `evaluate`.

    Raises:
        Error: as for `evaluate`.
    """

    def __init__(
        self,
        path: str | Path,
        text: str | Path | None = None,
        context: int = 512,
        windows: int | None = None,
        dtype: str = "f32",
        progress: Progress | None = None,
    ):
        content = None if text is None else read_text(text)  # first, since it fails sooner than a model loads
        loaded = load(path, dtype)
        self.path, self.dtype, self.context, self.kind = Path(path), dtype, context, loaded.kind
        if loaded.kind == "causal":
            self.content = _windowed(loaded, text, content, context, windows)
            step = _counter(progress, "reference", len(self.content.windows))
            self.replay = language.Replay(loaded.take(), self.content.windows, step)
        else:
            self.sentences: Sequence[str] = SENTENCES if content is None else _lines(text, content)
            step = _counter(progress, "reference", len(self.sentences))
            self.embeddings = loaded.embed(self.sentences, step)

    @property
    def perplexity(self) -> float:
        """A language model's own perplexity on the text."""
        return math.exp(float(np.concatenate(self.replay.nll).mean()))


def evaluate(
    model: str | Path,
    reference: str | Path | Reference | None = None,
    *,
    text: str | Path | None = None,
    context: int = 512,
    windows: int | None = None,
    dtype: str = "f32",
    weights: bool = False,
    progress: Progress | None = None,
) -> Evaluation:
    """Measures a model, alone or against a reference.

    A causal language model gives its perplexity on the text and, with a reference, KL(reference || model) and top-1
    agreement. An encoder gives the cosine of its embeddings to the reference's and the agreement of retrieval orders.

    Args:
        model: HF directory or GGUF file; a GGUF's weights are decoded into a transformers model.
        reference: HF directory or GGUF to compare with; needed for an encoder. A `Reference` is measured once for
            many models and brings its own text, context and windows.
        text: UTF-8 file. For an encoder its lines are the sentences; None takes the built-in ones.
        context: tokens per window; windows do not overlap.
        windows: number of windows from the start of the text; None for all.
        dtype: "f32" or "bf16" for the computation. bf16 adds noise of about 1e-3 to the KL divergence.
        weights: also compare every weight tensor with the reference's.
        progress: called with (what, done, total).

    Returns:
        An `Evaluation`.

    Raises:
        Error: a file is absent or damaged, torch or transformers is absent, the text is too short, the model is an
            encoder and no reference is given, the two models do not read a text the same way.

    Example:
        >>> evaluate("out.gguf", "SmolLM2/", text="wiki.txt", windows=20).language.perplexity  # doctest: +SKIP
    """
    start = time.perf_counter()
    if reference is not None and not isinstance(reference, Reference):
        reference = Reference(reference, text, context, windows, dtype, progress)
    written = read_text(text) if text is not None and reference is None else None
    loaded = load(model, dtype)
    name = str(reference.path) if reference else None
    if reference and reference.kind != loaded.kind:
        raise Error(f"{model} is {loaded.article} and the reference {name} is not")
    errors = weight_errors(model, reference.path) if weights and reference else []
    if weights and not reference:
        raise Error(f"{model}: weight errors need a reference to compare with")
    if loaded.kind == "causal":
        content = reference.content if reference else _windowed(loaded, text, written, context, windows)
        if reference:
            _check_tokenizers(loaded, reference)
        step = _counter(progress, "model", len(content.windows))
        result = language.score(loaded.module, content.windows, reference.replay if reference else None, step)
        return Evaluation(
            str(model), name, language=result, protocol=content.protocol(dtype), weights=errors,
            seconds=time.perf_counter() - start,
        )  # fmt: skip
    if not reference:
        raise Error(f"{model}: an encoder is measured against a reference; name one with reference= or --reference")
    step = _counter(progress, "model", len(reference.sentences))
    agreement = embedding.score(reference.embeddings, loaded.embed(reference.sentences, step))
    return Evaluation(str(model), name, embedding=agreement, weights=errors, seconds=time.perf_counter() - start)


def _windowed(
    loaded: Loaded, text: str | Path | None, content: str | None, context: int, windows: int | None
) -> WindowedText:
    if text is None or content is None:
        raise Error(f"{loaded.path}: a language model is measured on a text; name a file with text= or --text")
    limit = loaded.max_positions
    if limit is not None and context > limit:
        raise Error(f"{loaded.path}: context {context} is more than the {limit} positions that the model knows")
    return WindowedText(Path(text).name, content, loaded.tokenizer, context, windows)


def _check_tokenizers(loaded: Loaded, reference: Reference) -> None:
    """A model whose tokenizer reads differently would be scored on numbers that mean other words to it."""
    content = reference.content
    if tokenizer_sha256(loaded.tokenizer) == content.tokenizer_hash:
        return
    mine, _ = cut_windows(loaded.tokenizer, content.text, reference.context, name=content.name)
    count = min(len(mine), len(content.windows))
    different = np.flatnonzero(mine[:count].ravel() != content.windows[:count].ravel())
    if count < len(content.windows) or len(different):
        at = int(different[0]) if len(different) else "the end"
        raise Error(f"{loaded.path} and {reference.path} split the text into different tokens, first at token {at}")


def _lines(text: str | Path | None, content: str) -> Sequence[str]:
    lines = [line.strip() for line in content.splitlines() if line.strip()]
    if len(lines) < 3:
        raise Error(f"{text}: the text is too short: {len(lines)} lines; retrieval needs at least 3 sentences")
    return lines


def _counter(progress: Progress | None, what: str, total: int) -> Callable[[int], None] | None:
    if progress is None:
        return None
    done = 0

    def step(count: int) -> None:
        nonlocal done
        done += count
        progress(what, done, total)

    return step
