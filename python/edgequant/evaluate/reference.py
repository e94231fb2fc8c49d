"""What a model is compared with: a reference's predictions on one text, in memory or in a teacher cache."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from edgequant._core import Error
from edgequant.evaluate import language
from edgequant.evaluate.load import Loaded, load
from edgequant.evaluate.protocol import Cut, WindowedText, read_text, sha256
from edgequant.evaluate.sentences import SENTENCES
from edgequant.evaluate.teacher import KEPT, SAMPLES, TeacherCache, save_teacher

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
            self.content = windowed(loaded, text, written, make_cut(context, windows, stride, warmup))
            step = counter(progress, "reference", len(self.content.windows))
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
            step = counter(progress, "reference", len(self.sentences))
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
    content = windowed(loaded, text, written, make_cut(context, windows, stride, warmup))
    step = counter(progress, "reference", len(content.windows))
    protocol = content.protocol(loaded.dtype, loaded.runtime)
    save_teacher(path, loaded.predict, content, protocol, loaded.path.name, kept, samples, step)
    return Reference.from_cache(path)


def cached_reference(
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


def make_cut(context: int | None, windows: int | None, stride: int | None, warmup: int | None) -> Cut:
    return Cut(512 if context is None else context, windows, stride, warmup)


def windowed(loaded: Loaded, text: str | Path | None, content: str | None, cut: Cut) -> WindowedText:
    if text is None or content is None:
        raise Error(f"{loaded.path}: a language model is measured on a text; name a file with text= or --text")
    limit = loaded.max_positions
    if limit is not None and cut.context > limit:
        raise Error(f"{loaded.path}: context {cut.context} is more than the {limit} positions that the model knows")
    return WindowedText.make(Path(text).name, content, loaded.tokenizer, cut)


def _lines(text: str | Path | None, content: str) -> Sequence[str]:
    lines = [line.strip() for line in content.splitlines() if line.strip()]
    if len(lines) < 3:
        raise Error(f"{text}: the text is too short: {len(lines)} lines; retrieval needs at least 3 sentences")
    return lines


def counter(progress: Progress | None, what: str, total: int) -> Callable[[int], None] | None:
    if progress is None:
        return None
    done = 0

    def step(count: int) -> None:
        nonlocal done
        done += count
        progress(what, done, total)

    return step
