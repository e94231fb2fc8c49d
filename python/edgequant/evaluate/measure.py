"""The verb: one call that loads, measures and reports, for language models and for encoders."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from edgequant._core import Error
from edgequant.evaluate import embedding, language
from edgequant.evaluate.layers import LayerError, layer_errors
from edgequant.evaluate.load import Loaded, load
from edgequant.evaluate.protocol import (
    Cut,
    SentenceProtocol,
    WindowedText,
    cut_windows,
    read_text,
    sha256,
    tokenizer_sha256,
)
from edgequant.evaluate.report import Evaluation
from edgequant.evaluate.sentences import SENTENCES
from edgequant.evaluate.teacher import KEPT, SAMPLES, TeacherCache, save_teacher
from edgequant.evaluate.weights import weight_errors

Progress = Callable[[str, int, int], None]


class Reference:
    """A reference model's predictions on one text, made once and compared with any number of models.

    Args:
        model: HF directory, GGUF file, or a model of transformers.
        text: file to read; sentences (one per line) for an encoder, where None takes the built-in ones.
        context, windows, stride, warmup, dtype, tokenizer, progress: as for `evaluate`.

    Raises:
        Error: as for `evaluate`.
    """

    def __init__(
        self,
        model: Any,
        text: str | Path | None = None,
        context: int | None = None,
        windows: int | None = None,
        dtype: str = "f32",
        progress: Progress | None = None,
        *,
        stride: int | None = None,
        warmup: int | None = None,
        tokenizer: Any = None,
        runtime: str = "auto",
    ):
        written = None if text is None else read_text(text)  # first, since it fails sooner than a model loads
        loaded = load(model, dtype, tokenizer, runtime=runtime)
        self.path, self.kind = loaded.path, loaded.kind
        self.cached: TeacherCache | None = None
        if loaded.kind == "causal":
            self.content = _windowed(loaded, text, written, _cut(context, windows, stride, warmup))
            step = _counter(progress, "reference", len(self.content.windows))
            self.teacher: language.Teacher
            if loaded.module is None:  # of another runtime: it cannot be taken apart, so its predictions are kept
                protocol = self.content.protocol(loaded.dtype, loaded.runtime)
                with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
                    file = Path(folder, "teacher")
                    save_teacher(file, loaded.predict, self.content, protocol, loaded.path.name, progress=step)
                    self.teacher = TeacherCache(file)  # stays mapped
            else:
                self.teacher = language.Replay(loaded.module, self.content.windows, self.content.first, step)
        else:
            self.sentences: Sequence[str] = SENTENCES if written is None else _lines(text, written)
            self.text_name = "built in" if text is None else Path(text).name
            step = _counter(progress, "reference", len(self.sentences))
            self.embeddings = loaded.embed(self.sentences, step)

    @classmethod
    def from_cache(cls, path: str | Path) -> Reference:
        """The predictions that `save_reference` wrote.

        Raises:
            Error: the file is absent, damaged, or something else.
        """
        self = cls.__new__(cls)
        cache = TeacherCache(path)
        self.path, self.kind, self.cached = Path(cache.model), "causal", cache
        self.content, self.teacher = cache.content, cache
        return self

    @property
    def perplexity(self) -> float:
        """A language model's own perplexity on the text."""
        return math.exp(float(np.concatenate(self.teacher.nll).mean()))


def save_reference(
    model: Any,
    path: str | Path,
    text: str | Path,
    *,
    context: int | None = None,
    windows: int | None = None,
    stride: int | None = None,
    warmup: int | None = None,
    dtype: str = "f32",
    tokenizer: Any = None,
    runtime: str = "auto",
    kept: int = KEPT,
    samples: int = SAMPLES,
    progress: Progress | None = None,
) -> Reference:
    """Writes a language model's predictions on a text to a teacher cache, for `evaluate(..., reference_cache=path)`.

    Args:
        model: HF directory, GGUF file, or a model of transformers.
        path: file to write, one window in memory at a time; complete or not there at all.
        kept, samples: tokens kept of each prediction, and drawn from the rest: 8 bytes each.
        text, context, windows, stride, warmup, dtype, tokenizer, progress: as for `evaluate`.

    Raises:
        Error: as for `evaluate`; the model is an encoder; the file cannot be written.
    """
    written = read_text(text)
    loaded = load(model, dtype, tokenizer, runtime=runtime)
    if loaded.kind != "causal":
        raise Error(f"{loaded.path} is {loaded.article}; only a language model's predictions are worth a cache")
    content = _windowed(loaded, text, written, _cut(context, windows, stride, warmup))
    step = _counter(progress, "reference", len(content.windows))
    protocol = content.protocol(loaded.dtype, loaded.runtime)
    save_teacher(path, loaded.predict, content, protocol, loaded.path.name, kept, samples, step)
    return Reference.from_cache(path)


def evaluate(
    model: Any,
    reference: Any = None,
    *,
    text: str | Path | None = None,
    context: int | None = None,
    windows: int | None = None,
    stride: int | None = None,
    warmup: int | None = None,
    dtype: str = "f32",
    tokenizer: Any = None,
    runtime: str = "auto",
    reference_cache: str | Path | None = None,
    weights: bool = False,
    layers: bool = False,
    impact: bool = False,
    layer_windows: int = 2,
    progress: Progress | None = None,
) -> Evaluation:
    """Measures a model, alone or against a reference.

    A causal language model gives its perplexity on the text and, with a reference, KL(reference || model), top-1
    agreement and the change of the probability of the text's own tokens. An encoder gives the cosine of its embeddings
    to the reference's and the agreement of retrieval orders. Every number has a 95 % interval.

    Args:
        model: HF directory, GGUF file (its weights are decoded into a transformers model), or a model of transformers,
            quantized or not. Causal models also as ONNX file or directory, OpenVINO IR or MLX directory, each run by
            its own runtime where that is installed.
        reference: the same, to compare with; needed for an encoder. A `Reference` is measured once for many models and
            brings its own text and windows.
        text: UTF-8 file. For an encoder its lines are the sentences; None takes the built-in ones.
        context: tokens per window; None: 512.
        windows: number of windows from the start of the text; None for all.
        stride: tokens from one window's start to the next's; None: the context, so that windows do not overlap.
        warmup: tokens at the start of each window that are context only; None: 1, and context - stride where windows
            overlap. llama.cpp's perplexity tool has context // 2 + 1.
        dtype: "f32" or "bf16" for the computation. bf16 adds noise of about 1e-3 to the KL divergence.
        tokenizer: a fast tokenizer or its directory, where none lies beside the model.
        runtime: of the model: "auto", "torch", "onnxruntime", "openvino", "mlx", or "llama.cpp" for a GGUF.
        reference_cache: teacher cache (see `save_reference`). Used in the reference's place where the file is there;
            otherwise made from the reference first.
        weights: also compare every weight tensor with the reference's; both must be files.
        layers: also compare the outputs of every layer on the text's first windows (an encoder's sentences); see
            `layers.layer_errors`. The reference must be a model, not a `Reference`.
        impact: with `layers`, also run the reference once per layer with only that layer quantized.
        layer_windows: windows for `layers`.
        progress: called with (what, done, total).

    Returns:
        An `Evaluation`.

    Raises:
        Error: a file is absent or damaged, torch or transformers is absent, the text is too short, the model is an
            encoder and no reference is given, the two models do not read a text the same way, the cache was made from
            another text or with other windows.

    Example:
        >>> evaluate("out.gguf", "SmolLM2/", text="wiki.txt", windows=20).language.perplexity  # doctest: +SKIP
    """
    start = time.perf_counter()
    cutting: dict[str, Any] = {"context": context, "windows": windows, "stride": stride, "warmup": warmup}
    given = reference
    source = reference.path if isinstance(reference, Reference) else reference
    if reference_cache is not None:
        reference = _from_cache(reference_cache, reference, text, cutting, dtype, tokenizer, progress)
    elif reference is not None and not isinstance(reference, Reference):
        reference = Reference(reference, text, dtype=dtype, progress=progress, tokenizer=tokenizer, **cutting)
    written = read_text(text) if text is not None and reference is None else None
    loaded = load(model, dtype, tokenizer, not layers, runtime)
    if layers and loaded.module is None:
        raise Error(f"{loaded.path}: only models that run in torch have layers to compare")
    name = str(reference.path) if reference else None
    if reference and reference.kind != loaded.kind:
        raise Error(f"{loaded.path} is {loaded.article} and the reference {name} is not")
    if weights and not (isinstance(source, str | Path) and isinstance(model, str | Path)):
        raise Error(f"{loaded.path}: weight errors need a reference to compare with, and both as files")
    common: dict[str, Any] = {"weights": weight_errors(model, source) if weights else []}
    if layers and (reference_cache is not None or isinstance(given, Reference) or given is None):
        raise Error(f"{loaded.path}: layers are compared with a model; name it as the reference, without a cache")
    if loaded.kind == "causal":
        content = reference.content if reference else _windowed(loaded, text, written, _cut(**cutting))
        if reference:
            _check_tokenizers(loaded, reference)
        step = _counter(progress, "model", len(content.windows))
        teacher = reference.teacher if reference else None
        result = language.score(loaded.predict, content.windows, content.first, teacher, step)
        common |= {"language": result, "protocol": content.protocol(loaded.dtype, loaded.runtime)}
        if reference and reference.cached:
            common["cache"] = str(reference.cached.path)
    else:
        if not reference:
            raise Error(
                f"{loaded.path}: an encoder is measured against a reference; name one with reference= or --reference"
            )
        step = _counter(progress, "model", len(reference.sentences))
        agreement = embedding.score(reference.embeddings, loaded.embed(reference.sentences, step))
        common |= {"embedding": agreement, "protocol": SentenceProtocol(
            reference.text_name, sha256("\n".join(reference.sentences)), tokenizer_sha256(loaded.tokenizer),
            len(reference.sentences), loaded.pooling, loaded.longest, loaded.dtype, loaded.runtime,
        )}  # fmt: skip
    if layers:
        common["layers"] = _layers(loaded, given, reference, dtype, tokenizer, impact, layer_windows, progress)
    return Evaluation(str(loaded.path), name, seconds=time.perf_counter() - start, **common)


def _layers(
    loaded: Loaded, given: Any, reference: Any, dtype: str, tokenizer: Any, impact: bool, windows: int,
    progress: Progress | None,
) -> list[LayerError]:  # fmt: skip
    import torch

    before = load(given, dtype, tokenizer or loaded.tokenizer, share=False)
    if loaded.kind == "causal":
        rows = reference.content.windows[:windows, None]
        inputs = [{"input_ids": torch.from_numpy(row), "use_cache": False} for row in rows]
    else:
        sentences = list(reference.sentences[: embedding.BATCH * windows])
        inputs = [dict(loaded.tokenizer(sentences[i : i + embedding.BATCH], padding=True, truncation=True,
                                        max_length=loaded.longest, return_tensors="pt"))
                  for i in range(0, len(sentences), embedding.BATCH)]  # fmt: skip
    step = None if progress is None else (lambda done, total: progress("layers", done, total))
    return layer_errors(loaded.module, before.module, inputs, impact, progress=step)


def _cut(context: int | None, windows: int | None, stride: int | None, warmup: int | None) -> Cut:
    return Cut(512 if context is None else context, windows, stride, warmup)


def _from_cache(
    path: str | Path, model: Any, text: str | Path | None, cutting: dict[str, Any], dtype: str, tokenizer: Any,
    progress: Progress | None,
) -> Reference:  # fmt: skip
    """The cache as reference, made first if it is not there; refused where it does not fit what was asked for."""
    if not Path(path).exists():
        if model is None or text is None:
            raise Error(f"{path}: there is no such teacher cache; to make it, give a reference and a text")
        if isinstance(model, Reference):
            raise Error(f"{path}: a teacher cache is made from a model, not from a Reference")
        return save_reference(model, path, text, dtype=dtype, tokenizer=tokenizer, progress=progress, **cutting)
    reference = Reference.from_cache(path)
    made = reference.content.protocol("")
    if isinstance(model, str | Path) and Path(model).name != reference.path.name:
        raise Error(f"{path}: this teacher cache was made from {reference.path.name}, not from {Path(model).name}")
    if text is not None and sha256(read_text(text)) != made.text_sha256:
        raise Error(f"{path}: this teacher cache was made from another text, {made.text} {made.text_sha256[:12]}")
    for name, wanted in cutting.items():
        if wanted is not None and wanted != getattr(made, name):
            raise Error(f"{path}: this teacher cache was made with {name} {getattr(made, name)}, not {wanted}")
    return reference


def _windowed(loaded: Loaded, text: str | Path | None, content: str | None, cut: Cut) -> WindowedText:
    if text is None or content is None:
        raise Error(f"{loaded.path}: a language model is measured on a text; name a file with text= or --text")
    limit = loaded.max_positions
    if limit is not None and cut.context > limit:
        raise Error(f"{loaded.path}: context {cut.context} is more than the {limit} positions that the model knows")
    return WindowedText.make(Path(text).name, content, loaded.tokenizer, cut)


def _check_tokenizers(loaded: Loaded, reference: Reference) -> None:
    """A model whose tokenizer reads differently would be scored on numbers that mean other words to it."""
    content = reference.content
    if tokenizer_sha256(loaded.tokenizer) == content.tokenizer_hash:
        return
    mine, _ = cut_windows(
        loaded.tokenizer, content.text, content.cut.context, name=content.name, stride=content.cut.stride
    )
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
