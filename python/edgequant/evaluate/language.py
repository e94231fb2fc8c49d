"""Measures of a causal language model on windows of tokens: perplexity, KL divergence and top-1 agreement.

All logarithms are natural. Standard errors treat the scored tokens as independent, as llama.cpp's perplexity tool does,
so that intervals compare with its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edgequant._core import Error

# Rows of logits that are turned into log-probabilities at once: keeps the working set near 50 MB at 50k words.
CHUNK = 128


@dataclass(frozen=True)
class Mean:
    """A mean over tokens with its standard error."""

    value: float
    error: float

    @classmethod
    def of(cls, samples: np.ndarray) -> Mean:
        count = len(samples)
        error = float(samples.std(ddof=1)) / math.sqrt(count) if count > 1 else math.inf
        return cls(float(samples.mean()), error)


@dataclass(frozen=True)
class LanguageScore:
    """What a model scored on a text; the fields after `nll` need a reference and are None without one."""

    perplexity: float
    perplexity_error: float  # standard error of the perplexity
    perplexity_interval: tuple[float, float]  # 95 %, exp of the interval of the mean
    nll: Mean  # negative log-likelihood per token
    reference_perplexity: float | None = None
    log_ratio: Mean | None = None  # ln(perplexity / reference's): paired, so far sharper than either perplexity
    kl: Mean | None = None  # KL(reference || model) per token
    kl_p99: float | None = None
    kl_max: float | None = None
    top1: Mean | None = None  # share of tokens where both models rank the same token first

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Replay:
    """A model's predictions on fixed windows, kept as the input of its output layer.

    The last hidden states of 4096 tokens take 10 MB where their logits take 800 MB. They are replayed through the
    model's own forward function, so that whatever it does after the trunk (soft-capping, scaling) is done again.
    The trunk is dropped from the model, which must not be used otherwise afterwards.
    """

    def __init__(self, model: Any, windows: np.ndarray, progress: Callable[[int], None] | None = None):
        import torch
        from transformers.modeling_outputs import BaseModelOutputWithPast

        class Recorded(torch.nn.Module):
            """Takes the trunk's place: the hidden states of the window that is chosen."""

            def __init__(self) -> None:
                super().__init__()
                self.states: list[torch.Tensor] = []
                self.window = 0

            def forward(self, *_: Any, **__: Any) -> BaseModelOutputWithPast:
                return BaseModelOutputWithPast(last_hidden_state=self.states[self.window])

        prefix = model.base_model_prefix
        trunk = getattr(model, prefix, None)
        if trunk is None or trunk is model:
            raise Error(f"{type(model).__name__} has no separable trunk; it cannot serve as the reference")
        recorded = Recorded()
        hook = trunk.register_forward_hook(lambda _m, _a, out: recorded.states.append(out.last_hidden_state.clone()))
        try:
            self.nll = []
            for index, logits in enumerate(_logits(model, windows)):
                self.nll.append(_token_nll(logits, windows[index]))
                if progress:
                    progress(1)
        finally:
            hook.remove()
        setattr(model, prefix, recorded)
        self._model, self._recorded, self.windows = model, recorded, windows

    def logits(self, window: int) -> Any:
        """Logits of one window, float32 (context, vocabulary); the same as the model gave."""
        import torch

        self._recorded.window = window
        ids = torch.from_numpy(self.windows[window : window + 1])
        with torch.inference_mode():
            return self._model(input_ids=ids, use_cache=False).logits[0].float()


def score(
    model: Any, windows: np.ndarray, reference: Replay | None = None, progress: Callable[[int], None] | None = None
) -> LanguageScore:
    """Scores a causal model of transformers on windows of tokens.

    Args:
        model: called as `model(input_ids=...)`, gives `.logits` of shape (1, context, vocabulary).
        windows: int64 (windows, context); the first token of each is only context, the others are scored.
        reference: predictions of the reference on the same windows.
        progress: called with 1 after each window.

    Raises:
        Error: the vocabularies differ, or the model gives logits that are not finite.
    """
    nll, kl, same = [], [], []
    for index, logits in enumerate(_logits(model, windows)):
        nll.append(_token_nll(logits, windows[index]))
        if reference is not None:
            divergence, agreement = _compare(reference.logits(index), logits)
            kl.append(divergence)
            same.append(agreement)
        if progress:
            progress(1)
    tokens = np.concatenate(nll)
    mean = Mean.of(tokens)
    perplexity = math.exp(mean.value)
    interval = (math.exp(mean.value - 1.96 * mean.error), math.exp(mean.value + 1.96 * mean.error))
    result = LanguageScore(perplexity, perplexity * mean.error, interval, mean)
    if reference is None:
        return result
    before, divergences = np.concatenate(reference.nll), np.concatenate(kl)
    return LanguageScore(
        perplexity, perplexity * mean.error, interval, mean,
        reference_perplexity=math.exp(float(before.mean())),
        log_ratio=Mean.of(tokens - before),
        kl=Mean.of(divergences),
        kl_p99=float(np.quantile(divergences, 0.99)),
        kl_max=float(divergences.max()),
        top1=Mean.of(np.concatenate(same).astype(np.float64)),
    )  # fmt: skip


def _logits(model: Any, windows: np.ndarray) -> Iterator[Any]:
    import torch

    vocabulary = model.get_input_embeddings().weight.shape[0]
    if windows.max() >= vocabulary:
        raise Error(f"the text has a token {windows.max()}, the model only {vocabulary} tokens")
    for window in windows:
        with torch.inference_mode():
            logits = model(input_ids=torch.from_numpy(window[None]), use_cache=False).logits[0].float()
        yield logits


def _token_nll(logits: Any, window: np.ndarray) -> np.ndarray:
    """Negative log-likelihood of each token after the first, float64 (context - 1,)."""
    import torch

    targets = torch.from_numpy(window[1:])
    scored = zip(logits[:-1].split(CHUNK), targets.split(CHUNK), strict=True)
    parts = [torch.nn.functional.cross_entropy(rows, words, reduction="none") for rows, words in scored]
    nll = torch.cat(parts).double().numpy()
    if not np.isfinite(nll).all():
        raise Error(f"the model's prediction of token {int(np.argmin(np.isfinite(nll))) + 1} of a window is not finite")
    return nll


def _compare(reference: Any, logits: Any) -> tuple[np.ndarray, np.ndarray]:
    """KL(reference || model) and top-1 agreement for each scored position: float64 and bool, (context - 1,)."""
    import torch

    if reference.shape != logits.shape:
        raise Error(f"the vocabularies differ: reference {reference.shape[-1]}, model {logits.shape[-1]}")
    divergence, same = [], []
    for before, after in zip(reference[:-1].split(CHUNK), logits[:-1].split(CHUNK), strict=True):
        p, q = before.log_softmax(-1), after.log_softmax(-1)
        # The terms cancel, so they are summed in double; the logarithms' own rounding leaves noise below 1e-6.
        divergence.append((p.exp() * (p - q)).sum(-1, dtype=torch.float64))
        same.append(p.argmax(-1) == q.argmax(-1))
    return torch.cat(divergence).numpy(), torch.cat(same).numpy()
