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
    windows: int
    tokens: int  # predictions scored: (context - 1) per window
    bos: bool
    dtype: str

    def line(self) -> str:
        """One line for a log or a table's caption."""
        return (
            f"context {self.context}, stride {self.stride}, {self.windows} windows, {self.tokens} tokens scored, "
            f"BOS {'at each window' if self.bos else 'none'}, computed in {self.dtype}, "
            f"tokenizer {self.tokenizer_sha256[:12]}, text {self.text} {self.text_sha256[:12]}"
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
    tokenizer: Any, text: str, context: int, windows: int | None = None, name: str = "text"
) -> tuple[np.ndarray, bool]:
    """Cuts a text into windows of `context` tokens that do not overlap; what remains at the end is left out.

    Args:
        tokenizer: a fast tokenizer of transformers.
        context: tokens per window, at least 2; with a BOS, it counts as one of them.
        windows: how many windows to take from the start; None for all.

    Returns:
        ids: int64 of shape (windows, context).
        bos: whether every window starts with a BOS token.

    Raises:
        Error: the text has less than one window, or fewer windows than were asked for.
    """
    if context < 2:
        raise Error(f"context {context} is too small: a window needs at least 2 tokens")
    if windows is not None and windows < 1:
        raise Error(f"windows {windows}: at least one is needed")
    ids = tokenizer(text, add_special_tokens=False, verbose=False).input_ids
    bos = leading_bos(tokenizer)
    body = context - (bos is not None)
    available = len(ids) // body
    wanted = available if windows is None else windows
    if available < max(wanted, 1):
        raise Error(
            f"{name}: the text is too short: {len(ids)} tokens make {available} windows of {context}, "
            f"{max(wanted, 1)} wanted; give a longer text or a smaller context"
        )
    cut = np.asarray(ids[: wanted * body], np.int64).reshape(wanted, body)
    if bos is not None:
        cut = np.concatenate([np.full((wanted, 1), bos, np.int64), cut], axis=1)
    return cut, bos is not None


class WindowedText:
    """A text, cut for one tokenizer: what a protocol describes and a model is scored on."""

    def __init__(self, name: str, text: str, tokenizer: Any, context: int, windows: int | None):
        self.name, self.text = name, text
        self.windows, self.bos = cut_windows(tokenizer, text, context, windows, name)
        self.tokenizer_hash = tokenizer_sha256(tokenizer)

    def protocol(self, dtype: str) -> Protocol:
        count, context = self.windows.shape
        return Protocol(
            text=self.name, text_sha256=sha256(self.text), tokenizer_sha256=self.tokenizer_hash, context=context,
            stride=context, windows=count, tokens=count * (context - 1), bos=self.bos, dtype=dtype,
        )  # fmt: skip
