"""Which layers of a quantized model hurt: the error of each layer's weights, of its outputs on a real text, and what it
does to the predictions of the whole.

A layer is a Linear or Embedding module of the reference. Three comparisons of its outputs are made on the text:

    alone      the quantized layer on the reference's own inputs, so only its own weights matter
    together   the layer in the quantized model, whose inputs carry what all layers before have lost
    impact     the whole reference with only this layer quantized: KL divergence of its predictions (slow: one run each)
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edgequant._core import Error
from edgequant.evaluate import language


@dataclass(frozen=True)
class Agreement:
    """How close numbers are to those of the reference."""

    sqnr_db: float  # 10 log10 of sum of squares of the reference over sum of squares of the difference
    cosine: float

    @classmethod
    def of(cls, norm: float, error: float, other: float) -> Agreement:
        """From sums of squares: of the reference, of the difference, of the other."""
        if not error:
            return cls(math.inf, 1.0)
        sqnr = 10 * math.log10(norm / error) if norm else -math.inf
        # |a - b|^2 = |a|^2 + |b|^2 - 2 ab
        return cls(sqnr, (norm + other - error) / (2 * math.sqrt(norm * other)) if norm and other else 0.0)


@dataclass(frozen=True)
class LayerError:
    """One layer's errors; a field is None where it was not measured."""

    name: str  # as in the transformers module
    shape: tuple[int, ...]
    weights: Agreement
    alone: Agreement
    together: Agreement
    impact: float | None = None  # KL divergence in nats per token with only this layer quantized

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class _Sums:
    """Running sums of squares for one layer."""

    def __init__(self) -> None:
        self.norm = self.error = self.other = 0.0

    def add(self, a: Any, b: Any) -> None:
        a, b = a.detach().double(), b.detach().double()
        self.norm += float((a * a).sum())
        self.other += float((b * b).sum())
        self.error += float(((a - b) ** 2).sum())

    def agreement(self) -> Agreement:
        return Agreement.of(self.norm, self.error, self.other)


def layer_errors(
    model: Any,
    reference: Any,
    inputs: Sequence[dict[str, Any]],
    impact: bool = False,
    match: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> list[LayerError]:
    """Compares a model with its reference layer by layer.

    Args:
        model: quantized or dequantized module of transformers; its layers may be QuantLinear.
        reference: the module before quantization, of the same structure; another object.
        inputs: arguments of the modules' forward, one dict per batch, for example {"input_ids": ...}.
        impact: also run the reference once per layer with only that layer replaced; causal models only.
        match: regular expression; only layers whose name it finds are measured.
        progress: called with (done, total) layers during `impact`.

    Returns:
        One entry per layer, in the order of the module.

    Raises:
        Error: the same object twice; no layer; a layer is absent from the model or has another shape.
    """
    import torch

    if model is reference:
        raise Error("the model and its reference are the same object; compare with a copy made before quantizing")
    kinds = (torch.nn.Linear, torch.nn.Embedding)
    pairs: dict[str, tuple[Any, Any]] = {}
    for name, module in reference.named_modules():
        if isinstance(module, kinds) and re.search(match, name):
            pairs[name] = (module, _counterpart(model, name))
    if not pairs:
        raise Error(f"{type(reference).__name__} has no Linear or Embedding layer that fits '{match}'")
    weights = {name: _weight_agreement(name, *pair) for name, pair in pairs.items()}
    alone, together = ({name: _Sums() for name in pairs} for _ in range(2))
    with torch.inference_mode():
        for batch in inputs:
            outputs: dict[str, Any] = {}
            with _hooks({n: p[0] for n, p in pairs.items()}, _record(pairs, alone, outputs)):
                reference(**batch)
            with _hooks({n: p[1] for n, p in pairs.items()}, _follow(together, outputs)):
                model(**batch)
        impacts = _impacts(reference, pairs, inputs, progress) if impact else {}
    return [
        LayerError(name, tuple(before.weight.shape), weights[name], alone[name].agreement(), together[name].agreement(),
                   impacts.get(name))
        for name, (before, _) in pairs.items()
    ]  # fmt: skip


def ranked(errors: Sequence[LayerError]) -> list[LayerError]:
    """The layers that hurt most first: by impact where it was measured, else by the error of their own outputs."""
    if errors and errors[0].impact is not None:
        return sorted(errors, key=lambda e: -(e.impact or 0.0))
    return sorted(errors, key=lambda e: e.alone.sqnr_db)


def _counterpart(model: Any, name: str) -> Any:
    try:
        return model.get_submodule(name)
    except AttributeError:
        raise Error(f"{type(model).__name__} has no layer {name}, which the reference has") from None


def _weight_agreement(name: str, before: Any, after: Any) -> Agreement:
    a = before.weight.detach()
    b = after.dequantize() if hasattr(after, "dequantize") else after.weight.detach()
    if a.shape != b.shape:
        raise Error(f"layer {name} has shape {tuple(b.shape)}, the reference's {tuple(a.shape)}")
    sums = _Sums()
    for rows in range(0, len(a), 4096):  # slices: doubles of an output layer would take a gigabyte
        sums.add(a[rows : rows + 4096], b[rows : rows + 4096])
    return sums.agreement()


@contextmanager
def _hooks(modules: dict[str, Any], make: Callable[[str], Any]) -> Iterator[None]:
    handles = [module.register_forward_hook(make(name)) for name, module in modules.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _record(
    pairs: dict[str, tuple[Any, Any]], alone: dict[str, _Sums], outputs: dict[str, Any]
) -> Callable[[str], Any]:
    """Keeps the reference's output, and compares the other layer's output on the same input."""

    def make(name: str) -> Any:
        def hook(_: Any, arguments: Any, output: Any) -> None:
            outputs[name] = output
            alone[name].add(output, pairs[name][1](*arguments))

        return hook

    return make


def _follow(together: dict[str, _Sums], outputs: dict[str, Any]) -> Callable[[str], Any]:
    def make(name: str) -> Any:
        return lambda _module, _arguments, output: together[name].add(outputs.pop(name), output)

    return make


def _impacts(
    reference: Any, pairs: dict[str, tuple[Any, Any]], inputs: Sequence[dict[str, Any]],
    progress: Callable[[int, int], None] | None,
) -> dict[str, float]:  # fmt: skip
    """KL divergence of the reference with one layer replaced, for each layer."""
    if reference.get_output_embeddings() is None:
        raise Error(f"{type(reference).__name__} predicts no tokens, so a layer's impact on them is not defined")
    predictions = [reference(**batch).logits for batch in inputs]
    result = {}
    for done, (name, (before, after)) in enumerate(pairs.items()):
        reference.set_submodule(name, after)
        try:
            found = [
                language.compare(a.float().cpu(), b.float().cpu(), first=1).kl
                for batch, logits in zip(inputs, predictions, strict=True)
                for a, b in zip(logits, reference(**batch).logits, strict=True)
            ]
        finally:
            reference.set_submodule(name, before)
        result[name] = float(np.concatenate(found).mean())
        if progress:
            progress(done + 1, len(pairs))
    return result
