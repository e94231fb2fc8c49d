"""What `evaluate` returns: one object with the protocol, the scores and a dict for JSON."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgequant._core import Error
from edgequant.evaluate.embedding import EmbeddingScore
from edgequant.evaluate.intervals import Estimate
from edgequant.evaluate.language import LanguageScore
from edgequant.evaluate.layers import LayerError
from edgequant.evaluate.protocol import Protocol, SentenceProtocol
from edgequant.evaluate.weights import WeightError


@dataclass(frozen=True)
class Evaluation:
    """The result of `evaluate`. `language` or `embedding` is set, by the kind of model."""

    model: str
    reference: str | None
    language: LanguageScore | None = None
    embedding: EmbeddingScore | None = None
    protocol: Protocol | SentenceProtocol | None = None
    cache: str | None = None  # the teacher cache that stood for the reference
    weights: list[WeightError] = field(default_factory=list)  # empty unless asked for
    layers: list[LayerError] = field(default_factory=list)  # likewise, in the module's order; `layers.ranked` sorts
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, ready for JSON: what is not finite is None."""
        return _finite({
            "model": self.model,
            "reference": self.reference,
            "language": self.language.to_dict() if self.language else None,
            "embedding": self.embedding.to_dict() if self.embedding else None,
            "cache": self.cache,
            "protocol": self.protocol.to_dict() if self.protocol else None,
            "weights": [w.to_dict() for w in self.weights],
            "layers": [e.to_dict() for e in self.layers],
            "seconds": self.seconds,
        })  # fmt: skip

    def save(self, path: str | Path) -> None:
        Path(path).write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")

    def plot(self, path: str | Path) -> None:
        """Draws the errors of the layers, with their protocol, to a PNG.

        Raises:
            Error: layers were not measured; matplotlib is absent.
        """
        from edgequant.evaluate.plots import plot_layers

        if not self.layers:
            raise Error(f"{self.model}: no layers were measured; add layers=True or --layers")
        plot_layers(self.layers, path, Path(self.model).name, self.protocol.line() if self.protocol else "")

    def lines(self) -> list[str]:
        """The scores as sentences for a terminal."""
        result = [f"model      {self.model}"]
        if self.reference:
            cached = f" (predictions from {self.cache})" if self.cache else ""
            result.append(f"reference  {self.reference}{cached}")
        if self.protocol:
            result.append(f"protocol   {self.protocol.line()}")
        if self.language:
            result += _language_lines(self.language)
        if self.embedding:
            result += _embedding_lines(self.embedding)
        return result


def _language_lines(s: LanguageScore) -> list[str]:
    low, high = s.perplexity_interval
    result = [
        f"           {s.intervals}",
        f"perplexity {s.perplexity:.4f} +- {s.perplexity_error:.4f} ({low:.4f} to {high:.4f})",
    ]
    if not (s.kl and s.top1 and s.log_ratio and s.probability_rms and s.probability_mean and s.kl_percentiles):
        return result
    result += [
        f"           reference {s.reference_perplexity:.4f}, ln ratio {_show(s.log_ratio, '+.6f')}",
        f"KL         {_show(s.kl, '.6f')} nats per token, largest {s.kl_max:.4f}",
    ]
    for level, kl in s.kl_percentiles.items():
        result.append(f"           {level:>4} % of tokens below {kl.value:.6f} ({kl.low:.6f} to {kl.high:.6f})")
    if s.kl_bounds:
        low, high = s.kl_bounds
        result.append(
            f"           from a cache: sampling error {s.kl_sampling:.6f}; "
            f"exact KL certainly between {low:.6f} and {high:.4f}"
        )
    result += [
        f"top 1      {_show(s.top1, '.2%')} the same",
        f"change     {_show(s.probability_rms, '.3%')} RMS of the probability of the text's tokens, "
        f"mean {_show(s.probability_mean, '+.3%')}",
    ]
    return result


def _show(e: Estimate, form: str) -> str:
    return f"{e.value:{form}} +- {e.error:{form.lstrip('+')}} ({e.low:{form}} to {e.high:{form}})"


def _embedding_lines(e: EmbeddingScore) -> list[str]:
    lines = [
        f"           {e.intervals}",
        f"cosine     {_show(e.estimates['cosine'], '.6f')} mean, {e.cosine_min:.6f} lowest",
        f"retrieval  {_show(e.estimates['nearest'], '.1%')} keep their nearest neighbour",
        f"           {_show(e.estimates['order'], '.6f')} rank correlation of the order of all others",
    ]
    for k in e.overlap:
        if k != "1":
            lines.append(f"           {_show(e.estimates[f'overlap {k}'], '.1%')} of the {k} nearest are the same")
    return lines


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
