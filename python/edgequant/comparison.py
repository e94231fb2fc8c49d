"""How far approximate weights are from the original ones."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Comparison:
    """How far approximate weights are from the original ones.

    Attributes:
      relative_rmse: root of the squared error over the squared norm of the original.
      sqnr_db: signal to quantization noise, -20 log10(relative_rmse); inf where nothing was lost.
      cosine: of the angle between the two, as vectors.
      max_error: the largest absolute difference.
      weighted_rmse: relative_rmse with every column weighted by its importance.
      count: number of weights.
    """

    relative_rmse: float
    sqnr_db: float
    cosine: float
    max_error: float
    weighted_rmse: float
    count: int

    @classmethod
    def from_sums(cls, sums: dict[str, float]) -> Comparison:
        """From the sums of `_core.compare`."""
        error, norm, norm_b = sums["squared_error"], sums["squared_norm"], sums["squared_norm_b"]
        relative = _root_ratio(error, norm)
        return cls(
            relative_rmse=relative,
            sqnr_db=-20 * math.log10(relative) if relative else math.inf,
            cosine=sums["dot"] / math.sqrt(norm * norm_b) if norm and norm_b else float(norm == norm_b),
            max_error=sums["max_error"],
            weighted_rmse=_root_ratio(sums["weighted_error"], sums["weighted_norm"]),
            count=int(sums["count"]),
        )

    def to_dict(self) -> dict[str, float]:
        return asdict(self)


def _root_ratio(error: float, norm: float) -> float:
    return math.sqrt(error / norm) if norm else (math.inf if error else 0.0)
