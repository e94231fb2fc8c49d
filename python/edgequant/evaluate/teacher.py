"""A reference's predictions on a text in one file, so that many later runs need no reference.

Kept for each scored token: the `kept` largest logits with their tokens, the logarithm of all others' probability (the
tail), the log-sum-exp of all logits, and `samples` tokens drawn from the tail. With P the reference, Q the model and T
the tail, the divergence is the sum of three parts, the first two of which need no more than that:

    KL(P || Q)  =  sum over kept tokens of p ln(p / q)  +  P(T) ln(P(T) / Q(T))  +  P(T) KL(P in T || Q in T)

The third is not negative, so the first two alone are a lower bound. It is estimated without bias from the sampled
tokens, as P(T) times their mean of r - 1 - ln r, where r = (q / Q(T)) / (p / P(T)): r has mean 1 over the tail, so this
has the mean of -ln r, and far less noise where both models agree. From above: no p in the tail exceeds the smallest one
that was kept and no q is less than the model's smallest, so the sum over the tail is at most P(T) times the logarithm
of their ratio. That is safe, but wide.

The file is a safetensors file, 8 bytes per kept or sampled token: 100,000 tokens take 0.87 GiB.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from edgequant import _core
from edgequant._core import Error
from edgequant.evaluate.language import Divergence, Predict, token_nll
from edgequant.evaluate.protocol import Cut, Protocol, WindowedText

KEPT = 1024
SAMPLES = 128
VERSION = "1"
CHUNK = 64  # positions at once: logits in float64 take 78 MB at 152k words

_DTYPES = {"F64": np.float64, "F32": np.float32, "U32": np.uint32, "U8": np.uint8}


def save_teacher(
    path: str | Path,
    predict: Predict,
    content: WindowedText,
    protocol: Protocol,
    model: str,
    kept: int = KEPT,
    samples: int = SAMPLES,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Writes what `predict` says about a text; the file appears under its name when it is complete.

    Args:
        model: the reference's name, for reports.
        kept: tokens kept of each prediction; all of them where the vocabulary has no more.
        samples: tokens drawn from the rest of each prediction, with a fixed seed.

    Raises:
        Error: the file cannot be written; the reference's predictions are not finite.
    """
    import torch

    path = Path(path)
    part = path.with_name(path.name + ".part")
    generator = torch.Generator().manual_seed(1)
    arrays: dict[str, np.memmap] = {}
    at = 0
    try:
        for window in content.windows:
            logits = predict(window)
            if not arrays:
                kept = min(kept, logits.shape[1])
                samples = samples if kept < logits.shape[1] else 0
                arrays = _create(part, _layout(protocol.tokens, kept, samples, content), {
                    "edgequant.teacher": VERSION, "model": model, "vocabulary": str(logits.shape[1]),
                    "protocol": json.dumps(asdict(protocol)), "cut": json.dumps(asdict(content.cut)),
                })  # fmt: skip
                arrays["text"][:] = np.frombuffer(content.text.encode(), np.uint8)
                arrays["windows"][:] = content.windows
            scored = len(window) - content.first
            arrays["nll"][at : at + scored] = token_nll(logits, window, content.first)
            for rows in logits[content.first - 1 : -1].split(CHUNK):
                for name, value in _summary(rows.double(), kept, samples, generator).items():
                    arrays[name][at : at + len(rows)] = value.numpy()
                at += len(rows)
            if progress:
                progress(1)
        for array in arrays.values():
            array.flush()
        arrays.clear()
        with open(part, "rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise Error(f"{path}: the teacher cache cannot be written: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)


def _summary(logits: Any, kept: int, samples: int, generator: Any) -> dict[str, Any]:
    """What is kept of some predictions; logits float64 (positions, vocabulary)."""
    import torch

    top = logits.topk(kept, dim=-1)
    total = logits.logsumexp(-1)
    result = {
        "best": logits.argmax(-1), "top.token": top.indices, "top.logit": top.values, "logsumexp": total,
        "tail": torch.full_like(total, -math.inf),
    }  # fmt: skip
    if samples:
        tail = logits.scatter(-1, top.indices, -math.inf)
        rest = tail.logsumexp(-1)
        # Systematic sampling: one random shift, then equal steps through the tail's distribution.
        reached = (tail - rest[:, None]).exp().cumsum(-1)
        steps = torch.arange(samples) + torch.rand((len(logits), 1), generator=generator, dtype=torch.float64)
        drawn = torch.searchsorted(reached, steps / samples * reached[:, -1:], right=True)
        drawn = drawn.clamp(max=logits.shape[1] - 1)
        result |= {"tail": rest - total, "sample.token": drawn, "sample.logit": logits.gather(-1, drawn)}
    return result


def _layout(tokens: int, kept: int, samples: int, content: WindowedText) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Arrays of the file, widest types first so that all are aligned."""
    layout: dict[str, tuple[str, tuple[int, ...]]] = {
        "logsumexp": ("F64", (tokens,)), "tail": ("F64", (tokens,)), "nll": ("F64", (tokens,)),
        "top.logit": ("F32", (tokens, kept)), "top.token": ("U32", (tokens, kept)), "best": ("U32", (tokens,)),
        "windows": ("U32", content.windows.shape),
    }  # fmt: skip
    if samples:
        layout |= {"sample.logit": ("F32", (tokens, samples)), "sample.token": ("U32", (tokens, samples))}
    return layout | {"text": ("U8", (len(content.text.encode()),))}


def _create(path: Path, layout: dict[str, tuple[str, tuple[int, ...]]], metadata: dict[str, str]) -> dict[str, Any]:
    """A safetensors file of zeros, its arrays mapped for writing."""
    header: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for name, (dtype, shape) in layout.items():
        begin, end = end, end + math.prod(shape) * np.dtype(_DTYPES[dtype]).itemsize
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
        if hasattr(os, "posix_fallocate"):  # a full disk shows here, not as a crash when a mapped page is written
            os.posix_fallocate(file.fileno(), 0, 8 + len(text) + end)
    return {
        name: np.memmap(path, _DTYPES[dtype], "r+", 8 + len(text) + header[name]["data_offsets"][0], shape)
        for name, (dtype, shape) in layout.items()
    }  # fmt: skip


class TeacherCache:
    """The file of `save_teacher`, in the place of the reference that it was made from.

    Raises:
        Error: the file is absent, damaged, or no teacher cache.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        try:
            file = _core.SafetensorsFile(str(path))
            metadata = file.metadata
            if metadata.get("edgequant.teacher") != VERSION:
                raise Error(f"{path}: this is not a teacher cache of version {VERSION}")
            self.model, self.vocabulary = metadata["model"], int(metadata["vocabulary"])
            self.protocol = Protocol(**json.loads(metadata["protocol"]))
            self._arrays = {
                t.name: t.data.reshape(-1).view(_DTYPES[t.type.upper()]).reshape(t.shape) for t in file.tensors
            }
            windows = self._arrays["windows"].astype(np.int64)
            text, cut = self._arrays["text"].tobytes().decode(), Cut(**json.loads(metadata["cut"]))
            made = self.protocol
            self.content = WindowedText(made.text, text, cut, windows, made.bos, made.tokenizer_sha256)
            scored = self.protocol.tokens // len(windows)
            self.nll = list(self._arrays["nll"].reshape(-1, scored))
            consistent = all(
                len(self._arrays[n]) == self.protocol.tokens for n in ("tail", "top.logit", "top.token", "best")
            )
        except (KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise Error(f"{path}: this teacher cache is damaged: {error}") from error
        if not consistent or windows.shape != (self.protocol.windows, self.protocol.context):
            raise Error(f"{path}: this teacher cache is damaged: its arrays do not fit its protocol")

    @property
    def kept(self) -> int:
        return int(self._arrays["top.token"].shape[1])

    @property
    def samples(self) -> int:
        return int(self._arrays["sample.token"].shape[1]) if "sample.token" in self._arrays else 0

    def compare(self, window: int, logits: Any) -> Divergence:
        """Divergence of a model's logits, float32 (context, vocabulary), on one window; exact where `samples` is 0."""
        import torch

        if logits.shape[1] != self.vocabulary:
            raise Error(f"the vocabularies differ: reference {self.vocabulary}, model {logits.shape[1]}")
        start = window * len(self.nll[0])
        parts = []
        for rows in logits[self.protocol.warmup - 1 : -1].split(CHUNK):
            held = {n: torch.from_numpy(a) for n, a in self._slices(start, start + len(rows))}
            parts.append(_compare(held, rows.double()))
            start += len(rows)
        return Divergence(*(torch.cat(column).numpy() for column in zip(*parts, strict=True)))

    def _slices(self, start: int, stop: int) -> Iterator[tuple[str, np.ndarray]]:
        for name, array in self._arrays.items():
            if name not in ("text", "windows", "nll"):
                rows = array[start:stop]
                yield name, rows.astype(np.int64 if rows.dtype == np.uint32 else np.float64)


def _compare(held: dict[str, Any], logits: Any) -> tuple[Any, ...]:
    """Estimate of the divergence, agreement, bounds and the estimate's variance; logits float64 (positions, words)."""
    import torch

    tokens, best = held["top.token"], held["best"]
    chosen = logits.gather(-1, tokens)
    rest = logits.scatter(-1, tokens, -math.inf).logsumexp(-1)
    total = torch.logaddexp(chosen.logsumexp(-1), rest)
    log_p = held["top.logit"] - held["logsumexp"][:, None]
    head = (log_p.exp() * (log_p - (chosen - total[:, None]))).sum(-1)
    same = best == logits.argmax(-1)
    if "sample.token" not in held:
        return head, same, head, head, torch.zeros_like(head)
    tail = held["tail"]
    mass = tail.exp()
    low = head + mass * (tail - (rest - total))
    high = head + mass * (log_p[:, -1] - (logits.amin(-1) - total))
    own = logits.gather(-1, held["sample.token"]) - rest[:, None]
    log_r = own - (held["sample.logit"] - (held["logsumexp"] + tail)[:, None])
    drawn = mass[:, None] * (log_r.exp() - 1 - log_r)
    return low + drawn.mean(-1), same, low, torch.maximum(low, high), drawn.var(-1) / drawn.shape[-1]
