"""How far each weight tensor of a model is from the reference's, straight from the stored bytes."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgequant import _core
from edgequant._core import Error
from edgequant.comparison import Comparison


@dataclass(frozen=True)
class WeightError:
    """One tensor's error against the reference."""

    name: str  # in GGUF's naming
    reference_type: str
    type: str
    count: int
    squared_error: float  # sum of (a - b)^2
    squared_norm: float  # sum of a^2 of the reference
    cosine: float  # of the angle between the two, as vectors

    @property
    def relative(self) -> float:
        """Root of squared error over squared norm; 0 for two tensors of zeros."""
        return math.sqrt(self.squared_error / self.squared_norm) if self.squared_norm else float(self.squared_error > 0)

    @property
    def sqnr_db(self) -> float:
        """Signal to quantization noise; inf where nothing was lost."""
        return -20 * math.log10(self.relative) if self.relative else math.inf

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "relative": self.relative, "sqnr_db": self.sqnr_db}


def weight_errors(model: str | Path, reference: str | Path) -> list[WeightError]:
    """Compares every weight matrix of a model with the reference's, decoding slices of both on the fly.

    Args:
        model, reference: HF directories or GGUF files of one architecture.

    Returns:
        One entry per matrix (two or more dimensions), in the model's order.

    Raises:
        Error: a tensor is absent from the reference or has another shape there.
    """
    from edgequant.models import open_model

    others = {tensor.name: tensor for tensor in open_model(reference).tensors}
    result = []
    for tensor in open_model(model).tensors:
        if len(tensor.shape) < 2:
            continue
        other = others.get(tensor.name)
        if other is None:
            raise Error(f"{reference}: no tensor {tensor.name}, which {model} has")
        if tuple(other.shape) != tuple(tensor.shape):
            raise Error(f"{reference}: tensor {tensor.name} has shape {other.shape}, {model} has {tensor.shape}")
        before, after = _target_rows(other), _target_rows(tensor)
        sums = _core.compare(before, other.format, after, tensor.format, tensor.row_count, tensor.columns, None)
        errors = sums["squared_error"], sums["squared_norm"], Comparison.from_sums(sums).cosine
        result.append(WeightError(tensor.name, other.format, tensor.format, int(sums["count"]), *errors))
    return result


def overall(errors: list[WeightError]) -> float:
    """Relative error over all tensors together: root of all squared errors over all squared norms."""
    norm = math.fsum(e.squared_norm for e in errors)
    return math.sqrt(math.fsum(e.squared_error for e in errors) / norm) if norm else 0.0


def _target_rows(tensor: Any) -> Any:
    """Encoded rows in GGUF's order. Rows are encoded independently, so a permutation may act on the bytes."""
    rows = tensor.rows()
    return rows if tensor.row_permutation is None else rows[tensor.row_permutation]
