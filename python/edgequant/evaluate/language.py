"""Measures of a causal language model on windows of tokens: perplexity, KL divergence, agreement of the predictions.

All logarithms are natural. Intervals respect that neighbouring tokens are alike: see `intervals`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np

from edgequant._core import Error
from edgequant.evaluate.intervals import BlockBootstrap, Estimate

# Rows of logits that are turned into log-probabilities at once: keeps the working set near 50 MB at 50k words.
CHUNK = 128
PERCENTILES = (50, 90, 95, 99, 99.9)

# Takes int64 token numbers (context,), gives a torch tensor of logits, float32 (context, vocabulary), on the CPU.
Predict = Callable[[np.ndarray], Any]


@dataclass(frozen=True)
class LanguageScore:
    """What a model scored on a text; the fields after `intervals` need a reference and are None without one."""

    perplexity: float
    perplexity_error: float  # standard error of the perplexity
    perplexity_interval: tuple[float, float]  # 95 %, exp of the interval of the mean
    nll: Estimate  # negative log-likelihood per token
    intervals: str  # how all intervals were made
    reference_perplexity: float | None = None
    log_ratio: Estimate | None = None  # ln(perplexity / reference's): paired, so far sharper than either perplexity
    kl: Estimate | None = None  # KL(reference || model) per token
    kl_percentiles: dict[str, Estimate] | None = None  # over tokens, by the percentage: "50" to "99.9"
    kl_max: float | None = None
    top1: Estimate | None = None  # share of tokens where both models rank the same token first
    probability_rms: Estimate | None = None  # root of the mean square change of the actual token's probability
    probability_mean: Estimate | None = None  # mean change of it; negative: the model finds the text less likely
    kl_bounds: tuple[float, float] | None = None  # with a teacher cache: exact KL certainly lies between
    kl_sampling: float | None = None  # with a teacher cache: standard error of `kl` from drawing the tail

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Divergence:
    """How far a model's predictions of one window are from the reference's, each (scored tokens,)."""

    kl: np.ndarray  # nats, float64
    same: np.ndarray  # bool: both rank the same token first
    low: np.ndarray | None = None  # bounds of the exact divergence, where `kl` is an estimate
    high: np.ndarray | None = None
    variance: np.ndarray | None = None  # of the estimate


class Teacher(Protocol):
    """A reference's predictions on fixed windows."""

    nll: list[np.ndarray]  # of each window's scored tokens

    def compare(self, window: int, logits: Any) -> Divergence: ...


def predictor(model: Any) -> Predict:
    """Makes a causal model of transformers, on whatever device, predict."""
    import torch

    vocabulary = model.config.get_text_config().vocab_size
    device = getattr(model, "device", "cpu")

    def predict(window: np.ndarray) -> Any:
        if window.max() >= vocabulary:
            raise Error(f"the text has a token {window.max()}, the model only {vocabulary} tokens")
        with torch.inference_mode():
            ids = torch.from_numpy(window[None]).to(device)
            return model(input_ids=ids, use_cache=False).logits[0].float().cpu()

    return predict


class Replay:
    """A model's predictions on fixed windows, kept as the input of its output layer.

    The last hidden states of 4096 tokens take 10 MB where their logits take 800 MB. They are replayed through the
    model's own forward function, so that whatever it does after the trunk (soft-capping, scaling) is done again. The
    output layer is copied, so the model may be changed or dropped afterwards.

    Args:
        model: causal model of transformers.
        windows: int64 (windows, context); tokens from `first` on are scored.

    Raises:
        Error: the model has no trunk that could be replaced; its predictions are not finite.
    """

    def __init__(self, model: Any, windows: np.ndarray, first: int = 1, progress: Callable[[int], None] | None = None):
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
        predict = predictor(model)
        try:
            self.nll = []
            for window in windows:
                self.nll.append(token_nll(predict(window), window, first))
                if progress:
                    progress(1)
        finally:
            hook.remove()
        self._device = getattr(model, "device", "cpu")
        setattr(model, prefix, recorded)
        try:
            # What is left is the output layer; the recorded states are shared, not copied.
            self._model = copy.deepcopy(model, {id(recorded): recorded})
        finally:
            setattr(model, prefix, trunk)
        self._recorded, self.windows, self._first = recorded, windows, first

    def logits(self, window: int) -> Any:
        """Logits of one window, float32 (context, vocabulary); the same as the model gave."""
        import torch

        self._recorded.window = window
        ids = torch.from_numpy(self.windows[window : window + 1]).to(self._device)
        with torch.inference_mode():
            return self._model(input_ids=ids, use_cache=False).logits[0].float().cpu()

    def compare(self, window: int, logits: Any) -> Divergence:
        """Divergence of a model's logits, float32 (context, vocabulary), on one window."""
        return compare(self.logits(window), logits, self._first)


def score(
    predict: Predict,
    windows: np.ndarray,
    first: int = 1,
    teacher: Teacher | None = None,
    progress: Callable[[int], None] | None = None,
) -> LanguageScore:
    """Scores a causal language model on windows of tokens.

    Args:
        windows: int64 (windows, context); the tokens from `first` on are scored, those before are only context.
        teacher: predictions of the reference on the same windows.
        progress: called with 1 after each window.

    Raises:
        Error: the vocabularies differ, or the model gives logits that are not finite.
    """
    nll, found = [], []
    for index, window in enumerate(windows):
        logits = predict(window)
        nll.append(token_nll(logits, window, first))
        if teacher is not None:
            found.append(teacher.compare(index, logits))
        if progress:
            progress(1)
    tokens = np.concatenate(nll)
    bootstrap = BlockBootstrap(len(windows), windows.shape[1] - first)
    mean = bootstrap.mean(tokens)
    perplexity, low, high = mean.through(_exp)
    alone = (perplexity, perplexity * mean.error, (low, high), mean, bootstrap.line())
    if teacher is None:
        return LanguageScore(*alone)
    before = np.concatenate(teacher.nll)
    kl = np.concatenate([part.kl for part in found])
    change = np.exp(-tokens) - np.exp(-before)
    percentiles = bootstrap.quantiles(kl, [level / 100 for level in PERCENTILES])
    return LanguageScore(
        *alone,
        reference_perplexity=math.exp(float(before.mean())),
        log_ratio=bootstrap.mean(tokens - before),
        kl=bootstrap.mean(kl),
        kl_percentiles={f"{level:g}": found for level, found in zip(PERCENTILES, percentiles, strict=True)},
        kl_max=float(kl.max()),
        top1=bootstrap.mean(np.concatenate([part.same for part in found])),
        probability_rms=bootstrap.mean(change**2, np.sqrt),
        probability_mean=bootstrap.mean(change),
        **_bounds(found),
    )


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf


def _bounds(found: Sequence[Divergence]) -> dict[str, Any]:
    if found[0].low is None:
        return {}
    low, high, variance = (
        np.concatenate([getattr(part, name) for part in found]) for name in ("low", "high", "variance")
    )
    sampling = math.sqrt(float(variance.sum())) / len(variance)
    return {"kl_bounds": (float(low.mean()), float(high.mean())), "kl_sampling": sampling}


def token_nll(logits: Any, window: np.ndarray, first: int = 1) -> np.ndarray:
    """Negative log-likelihood of each token from `first` on, float64 (context - first,).

    Raises:
        Error: a prediction is not finite.
    """
    import torch

    targets = torch.from_numpy(window[first:])
    if logits.shape[1] <= int(window.max()):
        raise Error(f"the text has a token {window.max()}, the model only {logits.shape[1]} tokens")
    scored = zip(logits[first - 1 : -1].split(CHUNK), targets.split(CHUNK), strict=True)
    parts = [torch.nn.functional.cross_entropy(rows, words, reduction="none") for rows, words in scored]
    nll = torch.cat(parts).double().numpy()
    if not np.isfinite(nll).all():
        at = first + int(np.argmin(np.isfinite(nll)))
        raise Error(f"the model's prediction of token {at} of a window is not finite")
    return nll


def compare(reference: Any, logits: Any, first: int = 1) -> Divergence:
    """KL(reference || model) and top-1 agreement for each scored token; both logits float32 (context, vocabulary)."""
    import torch

    if reference.shape != logits.shape:
        raise Error(f"the vocabularies differ: reference {reference.shape[-1]}, model {logits.shape[-1]}")
    divergence, same = [], []
    scored = zip(reference[first - 1 : -1].split(CHUNK), logits[first - 1 : -1].split(CHUNK), strict=True)
    for before, after in scored:
        p, q = before.log_softmax(-1), after.log_softmax(-1)
        # The terms cancel, so they are summed in double; the logarithms' own rounding leaves noise below 1e-6.
        divergence.append((p.exp() * (p - q)).sum(-1, dtype=torch.float64))
        same.append(p.argmax(-1) == q.argmax(-1))
    return Divergence(torch.cat(divergence).numpy(), torch.cat(same).numpy())
