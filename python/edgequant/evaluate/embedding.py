"""Measures of a text encoder: how close its embeddings stay to a reference's, and whether searches agree."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edgequant._core import Error
from edgequant.evaluate.intervals import BlockBootstrap, Estimate

BATCH = 16
NEIGHBOURS = (1, 5, 10)


@dataclass(frozen=True)
class EmbeddingScore:
    """Agreement of an encoder with its reference on a set of sentences."""

    sentences: int
    cosine: float  # mean cosine of a sentence's two embeddings
    cosine_min: float
    nearest: float  # share of sentences whose nearest other sentence is the same one
    order: float  # mean Spearman correlation of the order in which a sentence ranks all others
    overlap: dict[str, float]  # share of the K nearest others that both find, by K: "1", "5", "10", as far as there are
    estimates: dict[str, Estimate]  # the same numbers ("cosine", "nearest", "order", "overlap 5") with their intervals
    intervals: str  # how they were made

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def embed(
    model: Any,
    tokenizer: Any,
    sentences: list[str],
    pooling: str = "mean",
    max_length: int = 256,
    progress: Callable[[int], None] | None = None,
) -> np.ndarray:
    """Embeddings of sentences, as sentence-transformers makes them: pooled last hidden states of length one.

    Args:
        model: encoder of transformers.
        pooling: "mean" over the tokens that are not padding, or "cls" (the first token).
        max_length: longer sentences are cut to this many tokens.

    Returns:
        float32 (len(sentences), width), rows of norm 1.

    Raises:
        Error: an unknown pooling.
    """
    import torch

    if pooling not in ("mean", "cls"):
        raise Error(f'pooling "{pooling}" is not known; mean and cls are')
    rows = []
    for start in range(0, len(sentences), BATCH):
        batch = sentences[start : start + BATCH]
        inputs = tokenizer(batch, padding=True, truncation=True, max_length=max_length, return_tensors="pt")
        with torch.inference_mode():
            states = model(**inputs).last_hidden_state.float()
            if pooling == "cls":
                pooled = states[:, 0]
            else:
                mask = inputs["attention_mask"].unsqueeze(-1).float()
                pooled = (states * mask).sum(1) / mask.sum(1)
            rows.append(torch.nn.functional.normalize(pooled, dim=-1).numpy())
        if progress:
            progress(len(batch))
    return np.concatenate(rows)


def score(reference: np.ndarray, candidate: np.ndarray) -> EmbeddingScore:
    """Compares two sets of unit embeddings of the same sentences, each (sentences, width).

    Raises:
        Error: fewer than three sentences (no order to compare), different shapes, or numbers that are not finite.
    """
    if reference.shape != candidate.shape:
        raise Error(f"the embeddings' shapes differ: reference {reference.shape}, model {candidate.shape}")
    count = len(reference)
    if count < 3:
        raise Error(f"{count} sentences are too few to compare an order; at least 3 are needed")
    if not np.isfinite(candidate).all():
        raise Error("the model's embeddings are not finite")
    cosine = np.sum(reference.astype(np.float64) * candidate, axis=1)
    before, after = _similarities(reference), _similarities(candidate)
    nearest = before.argmax(1) == after.argmax(1)
    # Ranks within each row, without the sentence itself; there are no ties among real embeddings.
    others = ~np.eye(count, dtype=bool)
    ranks = [m[others].reshape(count, count - 1).argsort(1).argsort(1).astype(np.float64) for m in (before, after)]
    a, b = (r - r.mean(1, keepdims=True) for r in ranks)
    order = np.sum(a * b, axis=1) / np.sqrt(np.sum(a * a, axis=1) * np.sum(b * b, axis=1))
    common = {k: np.mean((ranks[0] >= count - 1 - k) & (ranks[1] >= count - 1 - k), axis=1) * (count - 1) / k
              for k in NEIGHBOURS if k < count - 1}  # fmt: skip
    # Sentences are drawn one by one: what follows one another in the set has no more in common.
    bootstrap = BlockBootstrap(count, 1)
    estimates = {"cosine": bootstrap.mean(cosine), "nearest": bootstrap.mean(nearest), "order": bootstrap.mean(order)}
    estimates |= {f"overlap {k}": bootstrap.mean(share) for k, share in common.items()}
    return EmbeddingScore(
        count, float(cosine.mean()), float(cosine.min()), float(nearest.mean()), float(order.mean()),
        {str(k): float(share.mean()) for k, share in common.items()}, estimates,
        f"95 % intervals by bootstrap of {count} sentences",
    )  # fmt: skip


def _similarities(embeddings: np.ndarray) -> np.ndarray:
    matrix = embeddings.astype(np.float64) @ embeddings.T.astype(np.float64)
    np.fill_diagonal(matrix, -np.inf)
    return matrix
