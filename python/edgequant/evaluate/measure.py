"""The verb: one call that loads, measures and reports, for language models and for encoders."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from edgequant._core import Error
from edgequant.evaluate import embedding, language
from edgequant.evaluate.layers import LayerError, layer_errors
from edgequant.evaluate.load import Loaded, load
from edgequant.evaluate.protocol import (
    SentenceProtocol,
    WindowedText,
    cut_windows,
    read_text,
    sha256,
    tokenizer_sha256,
)
from edgequant.evaluate.reference import Progress, Reference, cached_reference, counter, make_cut, windowed
from edgequant.evaluate.report import Evaluation
from edgequant.evaluate.weights import weight_errors


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
    if weights and not (isinstance(given, str | Path) and isinstance(model, str | Path)):
        raise Error(f"{model}: weight errors need a reference to compare with, and both as files")
    if layers and (reference_cache is not None or isinstance(given, Reference) or given is None):
        raise Error("layers are compared with a model; name it as the reference, without a cache")
    if reference_cache is not None:
        reference = cached_reference(reference_cache, given, text, cutting, dtype, tokenizer, progress)
    elif given is not None and not isinstance(given, Reference):
        reference = Reference(given, text, dtype=dtype, progress=progress, tokenizer=tokenizer, **cutting)
    written = read_text(text) if text is not None and reference is None else None
    loaded = load(model, dtype, tokenizer, not layers, runtime)
    if layers and loaded.module is None:
        raise Error(f"{loaded.path}: only models that run in torch have layers to compare")
    if reference and reference.kind != loaded.kind:
        raise Error(f"{loaded.path} is {loaded.article} and the reference {reference.path} is not")
    if loaded.kind == "causal":
        content = reference.content if reference else windowed(loaded, text, written, make_cut(**cutting))
        found = _language(loaded, content, reference, progress)
    else:
        found = _encoder(loaded, reference, progress)
    if layers:
        found["layers"] = _layers(loaded, given, reference, dtype, tokenizer, impact, layer_windows, progress)
    found["weights"] = weight_errors(model, given) if weights else []
    name = str(reference.path) if reference else None
    return Evaluation(str(loaded.path), name, seconds=time.perf_counter() - start, **found)


def _language(
    loaded: Loaded, content: WindowedText, reference: Reference | None, progress: Progress | None
) -> dict[str, Any]:  # fmt: skip
    if reference:
        _check_tokenizers(loaded, reference)
    step = counter(progress, "model", len(content.windows))
    teacher = reference.teacher if reference else None
    return {
        "language": language.score(loaded.predict, content.windows, content.first, teacher, step),
        "protocol": content.protocol(loaded.dtype, loaded.runtime),
        "cache": str(reference.cached.path) if reference and reference.cached else None,
    }


def _encoder(loaded: Loaded, reference: Reference | None, progress: Progress | None) -> dict[str, Any]:
    if not reference:
        raise Error(
            f"{loaded.path}: an encoder is measured against a reference; name one with reference= or --reference"
        )
    sentences = reference.sentences
    embeddings = loaded.embed(sentences, counter(progress, "model", len(sentences)))
    protocol = SentenceProtocol(
        reference.text_name, sha256("\n".join(sentences)), tokenizer_sha256(loaded.tokenizer), len(sentences),
        loaded.pooling, loaded.longest, loaded.dtype, loaded.runtime,
    )  # fmt: skip
    return {"embedding": embedding.score(reference.embeddings, embeddings), "protocol": protocol}


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
