"""How far chance may have moved a measure: a block bootstrap over consecutive tokens.

Tokens that stand near each other are predicted well or badly together, so a standard error that takes them for
independent is too small. Here whole blocks of consecutive tokens are drawn with replacement, and each measure is
computed again from every draw: what neighbours share stays together. A block is a window, or an equal part of one where
there are few windows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

BLOCKS = 32  # wanted at least: fewer leave the spread itself uncertain
SHORTEST = 16  # tokens: shorter blocks would cut through what neighbours share
DRAWS = 1000


@dataclass(frozen=True)
class Estimate:
    """A measure with its standard error and its 95 % interval; both infinite where a text has only one block."""

    value: float
    error: float
    low: float
    high: float

    def through(self, function: Callable[[float], float]) -> tuple[float, float, float]:
        """Value, low and high through an increasing function."""
        return function(self.value), function(self.low), function(self.high)


class BlockBootstrap:
    """Draws of blocks for a text of `windows` windows with `scored` scored tokens each.

    Args:
        seed: of the draws; all measures see the same draws, and a repeated evaluation gives the same intervals.
    """

    def __init__(self, windows: int, scored: int, draws: int = DRAWS, seed: int = 0):
        parts = max(1, min(-(-BLOCKS // windows), scored // SHORTEST))
        self.length, self.blocks = scored / parts, windows * parts
        edges = np.round(np.arange(parts) * self.length).astype(np.int64)
        self._starts = (np.arange(windows)[:, None] * scored + edges).ravel()
        sizes = np.diff(np.append(self._starts, windows * scored))
        self._block = np.repeat(np.arange(self.blocks), sizes)  # of each token
        equal = np.full(self.blocks, 1 / self.blocks)
        self._counts = np.random.default_rng(seed).multinomial(self.blocks, equal, draws)
        self._weight = self._counts @ sizes
        # A draw of n from n is narrower than n new blocks would be, by this factor.
        self._wider = math.sqrt(self.blocks / (self.blocks - 1)) if self.blocks > 1 else math.inf

    def line(self) -> str:
        return f"95 % intervals by bootstrap of {self.blocks} blocks of {self.length:.4g} consecutive tokens"

    def mean(self, samples: np.ndarray, then: Callable[[np.ndarray], np.ndarray] = np.asarray) -> Estimate:
        """The mean over tokens, or a function of that mean.

        Args:
            samples: one number per scored token, in the text's order.
            then: an increasing function of means, for example np.sqrt for a root of a mean of squares.
        """
        samples = np.asarray(samples, np.float64)
        drawn = (self._counts @ np.add.reduceat(samples, self._starts)) / self._weight
        return self._estimate(
            float(then(samples.mean())), then(drawn), float(then(samples.min())), float(then(samples.max()))
        )

    def quantiles(self, samples: np.ndarray, levels: Sequence[float]) -> list[Estimate]:
        """Quantiles over tokens, one for each level between 0 and 1."""
        samples = np.asarray(samples, np.float64)
        order = np.argsort(samples, kind="stable")
        ranked, block = samples[order], self._block[order]
        drawn = np.empty((len(levels), len(self._counts)))
        for index, counts in enumerate(self._counts):
            below = counts[block].cumsum()
            places = np.searchsorted(below, np.asarray(levels) * below[-1])
            drawn[:, index] = ranked[np.minimum(places, len(ranked) - 1)]
        values = np.quantile(samples, levels)
        least, most = float(ranked[0]), float(ranked[-1])
        return [self._estimate(float(value), row, least, most) for value, row in zip(values, drawn, strict=True)]

    def _estimate(self, value: float, drawn: np.ndarray, least: float, most: float) -> Estimate:
        """`least` and `most` are what the measure can be at all, by the samples."""
        if self.blocks == 1:
            return Estimate(value, math.inf, -math.inf, math.inf)
        low, high = value + (np.quantile(drawn, (0.025, 0.975)) - value) * self._wider
        return Estimate(value, float(drawn.std()) * self._wider, float(max(low, least)), float(min(high, most)))
