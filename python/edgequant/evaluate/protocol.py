"""What exactly was measured: the text, cut into windows, and the line that makes a number comparable with another."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgequant._core import Error


@dataclass(frozen=True)
class Protocol:
    """How a text was cut and read. Two perplexities compare only if these fields are equal."""

    text: str
    text_sha256: str
    tokenizer_sha256: str
    context: int
    stride: int
    warmup: int  # tokens at the start of each window that are context only
    windows: int
    tokens: int  # predictions scored: context - warmup per window
    bos: bool
    dtype: str
    runtime: str = "torch"

    def line(self) -> str:
        """One line for a log or a table's caption."""
        return (
            f"context {self.context}, stride {self.stride}, warm-up {self.warmup}, {self.windows} windows, "
            f"{self.tokens} tokens scored, BOS {'at each window' if self.bos else 'none'}, "
            f"computed in {self.dtype} by {self.runtime}, "
            f"tokenizer {self.tokenizer_sha256[:12]}, text {self.text} {self.text_sha256[:12]}"
        )

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "line": self.line()}


@dataclass(frozen=True)
class SentenceProtocol:
    """How an encoder was measured."""

    text: str
    text_sha256: str
    tokenizer_sha256: str
    sentences: int
    pooling: str
    max_length: int  # tokens; what is longer is cut
    dtype: str
    runtime: str = "torch"

    def line(self) -> str:
        return (
            f"{self.sentences} sentences of at most {self.max_length} tokens, {self.pooling} pooling, computed in "
            f"{self.dtype} by {self.runtime}, tokenizer {self.tokenizer_sha256[:12]}, "
            f"text {self.text} {self.text_sha256[:12]}"
        )

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "line": self.line()}


def read_text(path: str | Path) -> str:
    """The text of a file, UTF-8, with its line ends as they are.

    Raises:
        Error: the file is absent, not readable, empty or not UTF-8.
    """
    path = Path(path)
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise Error(f"{path}: the text cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise Error(f"{path}: not a UTF-8 text (byte {error.start})") from error
    if not text.strip():
        raise Error(f"{path}: the text is empty")
    return text


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def tokenizer_sha256(tokenizer: Any) -> str:
    """Hash of what decides a tokenization: vocabulary, merges, normalization and pre-tokenization.

    Truncation and padding settings are left out, since loading code may set them and no window depends on them.
    """
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    relevant = ("model", "normalizer", "pre_tokenizer", "added_tokens", "post_processor")
    parts = {key: backend.get(key) for key in relevant}
    return sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False))


def leading_bos(tokenizer: Any) -> int | None:
    """The BOS token that the tokenizer itself puts in front of a text, or None where it puts none."""
    with_special = tokenizer("a", add_special_tokens=True).input_ids
    bos = tokenizer.bos_token_id
    return bos if bos is not None and with_special and with_special[0] == bos else None


def cut_windows(
    tokenizer: Any, text: str, context: int, windows: int | None = None, name: str = "text", stride: int | None = None
) -> tuple[np.ndarray, bool]:
    """Cuts a text into windows of `context` tokens; what remains at the end is left out.

    Args:
        tokenizer: a fast tokenizer of transformers.
        context: tokens per window, at least 2; with a BOS, it counts as one of them.
        windows: how many windows to take from the start; None for all.
        stride: tokens of the text from the start of one window to that of the next; None: they follow one another.

    Returns:
        ids: int64 of shape (windows, context).
        bos: whether every window starts with a BOS token.

    Raises:
        Error: the text has less than one window, or fewer windows than were asked for; a number is out of range.
    """
    if context < 2:
        raise Error(f"context {context} is too small: a window needs at least 2 tokens")
    if windows is not None and windows < 1:
        raise Error(f"windows {windows}: at least one is needed")
    ids = np.asarray(tokenizer(text, add_special_tokens=False, verbose=False).input_ids, np.int64)
    bos = leading_bos(tokenizer)
    body = context - (bos is not None)
    hop = body if stride is None or stride == context else stride
    if not 0 < hop <= context:
        raise Error(f"stride {stride}: it must be between 1 and the context, {context}")
    available = (len(ids) - body) // hop + 1 if len(ids) >= body else 0
    wanted = available if windows is None else windows
    if available < max(wanted, 1):
        raise Error(
            f"{name}: the text is too short: {len(ids)} tokens make {available} windows of {context}, "
            f"{max(wanted, 1)} wanted; give a longer text or a smaller context"
        )
    cut = np.stack([ids[start : start + body] for start in range(0, wanted * hop, hop)])
    if bos is not None:
        cut = np.concatenate([np.full((wanted, 1), bos, np.int64), cut], axis=1)
    return cut, bos is not None


@dataclass(frozen=True)
class Cut:
    """How to cut a text: see `evaluate` for the meaning of each."""

    context: int = 512
    windows: int | None = None
    stride: int | None = None
    warmup: int | None = None

    @property
    def step(self) -> int:
        return self.context if self.stride is None else self.stride

    @property
    def first(self) -> int:
        """Index in its window of the first token that is scored.

        Raises:
            Error: no token would be; the stride is out of range.
        """
        if not 0 < self.step <= self.context:
            raise Error(f"stride {self.stride}: it must be between 1 and the context, {self.context}")
        # Windows that overlap: each token is scored once, where it has most context.
        first = max(1, self.context - self.step) if self.warmup is None else self.warmup
        if not 0 < first < self.context:
            raise Error(f"warmup {first}: it must be between 1 and the context less one, {self.context - 1}")
        return first


@dataclass(frozen=True)
class WindowedText:
    """A text, cut for one tokenizer: what a protocol describes and a model is scored on."""

    name: str
    text: str
    cut: Cut
    windows: np.ndarray  # int64 (windows, context); tokens from cut.first on are scored
    bos: bool
    tokenizer_hash: str

    @classmethod
    def make(cls, name: str, text: str, tokenizer: Any, cut: Cut) -> WindowedText:
        """Raises Error as `cut_windows` and `Cut.first` do."""
        _ = cut.first  # an impossible cut is refused before the text is read
        windows, bos = cut_windows(tokenizer, text, cut.context, cut.windows, name, cut.stride)
        return cls(name, text, cut, windows, bos, tokenizer_sha256(tokenizer))

    @property
    def first(self) -> int:
        return self.cut.first

    def protocol(self, dtype: str, runtime: str = "torch") -> Protocol:
        count, context = self.windows.shape
        return Protocol(
            text=self.name, text_sha256=sha256(self.text), tokenizer_sha256=self.tokenizer_hash, context=context,
            stride=self.cut.step, warmup=self.first, windows=count, tokens=count * (context - self.first), bos=self.bos,
            dtype=dtype, runtime=runtime,
        )  # fmt: skip
