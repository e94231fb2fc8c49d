"""What `evaluate` returns: one object with the protocol, the scores and a dict for JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgequant.evaluate.embedding import EmbeddingScore
from edgequant.evaluate.language import LanguageScore
from edgequant.evaluate.protocol import Protocol
from edgequant.evaluate.weights import WeightError


@dataclass(frozen=True)
class Evaluation:
    """The result of `evaluate`. `language` or `embedding` is set, by the kind of model."""

    model: str
    reference: str | None
    language: LanguageScore | None = None
    embedding: EmbeddingScore | None = None
    protocol: Protocol | None = None  # of a language model
    weights: list[WeightError] = field(default_factory=list)  # empty unless asked for
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, ready for JSON."""
        return {
            "model": self.model,
            "reference": self.reference,
            "language": self.language.to_dict() if self.language else None,
            "embedding": self.embedding.to_dict() if self.embedding else None,
            "protocol": self.protocol.to_dict() if self.protocol else None,
            "weights": [w.to_dict() for w in self.weights],
            "seconds": self.seconds,
        }

    def save(self, path: str | Path) -> None:
        Path(path).write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")

    def lines(self) -> list[str]:
        """The scores as sentences for a terminal."""
        result = [f"model      {self.model}"]
        if self.reference:
            result.append(f"reference  {self.reference}")
        if self.protocol:
            result.append(f"protocol   {self.protocol.line()}")
        if self.language:
            result += _language_lines(self.language)
        if self.embedding:
            e = self.embedding
            result += [
                f"cosine     {e.cosine:.6f} mean, {e.cosine_min:.6f} lowest, over {e.sentences} sentences",
                f"retrieval  {e.nearest:.1%} keep their nearest neighbour, order correlation {e.order:.6f}",
            ]
        return result


def _language_lines(s: LanguageScore) -> list[str]:
    low, high = s.perplexity_interval
    result = [f"perplexity {s.perplexity:.4f} +- {s.perplexity_error:.4f} (95 %: {low:.4f} to {high:.4f})"]
    if s.kl and s.top1 and s.log_ratio and s.reference_perplexity is not None:
        result += [
            f"           reference {s.reference_perplexity:.4f}, "
            f"ln ratio {s.log_ratio.value:+.6f} +- {s.log_ratio.error:.6f}",
            f"KL         {s.kl.value:.6f} +- {s.kl.error:.6f} nats per token, 99 % below {s.kl_p99:.4f}, "
            f"largest {s.kl_max:.4f}",
            f"top 1      {s.top1.value:.2%} +- {s.top1.error:.2%} the same",
        ]
    return result
