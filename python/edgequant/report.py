"""What quantizing a model did: sizes, choices and errors, for people and as JSON."""

from __future__ import annotations

import math
import os
from dataclasses import asdict, dataclass, field
from typing import Any

from edgequant.comparison import Comparison
from edgequant.plan import TensorPlan


@dataclass
class TensorReport:
    """One tensor: what became of it, and how far the result is from the source.

    `relative_error` is the root of squared error over squared norm, decoded independently of the encoder; None where
    nothing was measured (dry runs, tensors copied as they are). `sqnr_db` is -20 log10 of it.
    """

    name: str
    shape: tuple[int, ...]
    source: str
    target: str
    reason: str
    nbytes: int
    wanted: str | None = None
    relative_error: float | None = None
    sqnr_db: float | None = None
    copied: bool = False
    important: bool = False  # an importance vector was used

    @classmethod
    def of(cls, plan: TensorPlan) -> TensorReport:
        return cls(plan.name, plan.shape, plan.source, plan.target, plan.reason, plan.nbytes, plan.wanted)

    @property
    def count(self) -> int:
        return math.prod(self.shape)

    def measured(self, sums: dict[str, float]) -> None:
        """Takes the errors from the sums of a comparison."""
        comparison = Comparison.from_sums(sums)
        self.relative_error, self.sqnr_db = comparison.relative_rmse, comparison.sqnr_db


@dataclass
class Report:
    """Attributes:
    model, output, preset, architecture: what was done.
    tensors: one TensorReport each, in the file's order.
    file_size: bytes of the output file; f16_size: of the same file with f16 weights.
    parameters: number of weights. tensor_bytes: of all tensors.
    relative_error: over all quantized weights. seconds: wall time. peak_memory: of the process, in bytes.
    notes: sentences worth reading.
    """

    model: str
    output: str | None
    preset: str
    architecture: str
    tensors: list[TensorReport]
    file_size: int
    f16_size: int
    dry_run: bool = False
    relative_error: float | None = None
    seconds: float = 0.0
    peak_memory: int | None = None
    importance: str | None = None
    sha256: str | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def parameters(self) -> int:
        return sum(t.count for t in self.tensors)

    @property
    def tensor_bytes(self) -> int:
        return sum(t.nbytes for t in self.tensors)

    @property
    def bits_per_weight(self) -> float:
        """Of all tensors, the unquantized ones too."""
        return self.tensor_bytes * 8 / self.parameters if self.parameters else 0.0

    @property
    def reduction(self) -> float:
        """How much smaller than the f16 file, 0 to 1."""
        return 1 - self.file_size / self.f16_size if self.f16_size else 0.0

    @property
    def fallbacks(self) -> list[TensorReport]:
        """Tensors whose rows do not divide the block of the format that they should have."""
        return [t for t in self.tensors if t.wanted]

    def to_dict(self) -> dict[str, Any]:
        totals = ("parameters", "tensor_bytes", "bits_per_weight", "reduction")
        d = asdict(self)
        tensors = d.pop("tensors")
        d |= {k: getattr(self, k) for k in totals}
        return {**d, "fallbacks": [t.name for t in self.fallbacks], "tensors": tensors}

    def to_json(self, indent: int | None = 2) -> str:
        import json

        return json.dumps(_finite(self.to_dict()), indent=indent)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the report as JSON."""
        with open(path, "w", encoding="utf-8") as f:
            f.write(self.to_json() + "\n")

    def by_format(self) -> list[tuple[str, int, int, int, float | None]]:
        """(format, tensors, weights, bytes, relative error) of each format in the output, the largest first."""
        groups: dict[str, list[TensorReport]] = {}
        for t in self.tensors:
            groups.setdefault(t.target, []).append(t)
        rows = [
            (name, len(group), sum(t.count for t in group), sum(t.nbytes for t in group), _mean_error(group))
            for name, group in groups.items()
        ]
        return sorted(rows, key=lambda row: -row[3])

    def tensor_table(self) -> str:
        """A line per tensor."""
        width = max((len(t.name) for t in self.tensors), default=0)
        lines = []
        for t in self.tensors:
            error = f"{t.relative_error:.5f}" if t.relative_error is not None else ""
            wanted = f" (instead of {t.wanted})" if t.wanted else ""
            shape = "x".join(map(str, t.shape))
            change = f"{t.source:>7} -> {t.target:<7}"
            lines.append(f"{t.name:<{width}} {shape:>14} {change} {size(t.nbytes):>9} {error:>8} {t.reason}{wanted}")
        return "\n".join(lines)

    def __str__(self) -> str:
        lines = [f"{self.model} ({self.architecture}) -> {self.preset}", ""]
        lines.append(f"{'format':<8} {'tensors':>7} {'weights':>15} {'size':>10} {'error':>8}")
        for name, count, weights, nbytes, error in self.by_format():
            shown = f"{error:8.4f}" if error is not None else f"{'-':>8}"
            lines.append(f"{name:<8} {count:>7} {weights:>15,} {size(nbytes):>10} {shown}")
        lines.append("")
        if self.fallbacks:
            swaps: dict[tuple[str, str, int], int] = {}
            for t in self.fallbacks:
                key = (str(t.wanted), t.target, t.shape[-1])
                swaps[key] = swaps.get(key, 0) + 1
            parts = [f"{n} of {w} -> {t} (rows of {cols})" for (w, t, cols), n in swaps.items()]
            lines.append("rows that do not divide the block: " + ", ".join(parts))
        lines += [f"note: {note}" for note in self.notes]
        what = "would be written" if self.dry_run else "written"
        lines.append(
            f"{self.output or 'the file'}: {size(self.file_size)} {what} ({self.file_size:,} bytes), "
            f"{self.bits_per_weight:.4f} bits per weight, {self.reduction:.1%} smaller than F16"
        )
        if not self.dry_run:
            parts = [f"{self.seconds:.2f} s"]
            if self.relative_error is not None:
                parts.insert(0, f"relative error {self.relative_error:.5f}")
            if self.peak_memory:
                parts.append(f"peak memory {size(self.peak_memory)}")
            lines.append(", ".join(parts))
        return "\n".join(lines)


def size(nbytes: float) -> str:
    """'98.4 MB': decimal units."""
    for unit in ("B", "kB", "MB"):
        if nbytes < 999.95:
            return f"{nbytes:.0f} {unit}" if unit == "B" else f"{nbytes:.1f} {unit}"
        nbytes /= 1000
    return f"{nbytes:.2f} GB"


def _mean_error(group: list[TensorReport]) -> float | None:
    """Root mean square of the relative errors, each tensor weighted by its number of weights."""
    measured = [t for t in group if t.relative_error is not None]
    total = sum(t.count for t in measured)
    if not total:
        return None
    return math.sqrt(sum(t.count * (t.relative_error or 0.0) ** 2 for t in measured) / total)


def _finite(value: Any) -> Any:
    """JSON has no infinity: null instead."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return value
