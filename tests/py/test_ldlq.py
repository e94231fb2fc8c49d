"""Quantizing with the second moments of a layer's inputs."""

from __future__ import annotations

import edgequant as eq
import numpy as np
import pytest
from edgequant import _core

ROWS, COLS = 70, 512
WRITABLE = [f for f in eq.formats if _core.can_quantize(f) and eq.formats[f].block > 1]


def inputs(seed: int) -> np.ndarray:
    """Samples of one distribution, correlated and of uneven strength: (samples, COLS)."""
    layer, rng = np.random.default_rng(9), np.random.default_rng(seed)
    mix = layer.standard_normal((COLS, COLS)) * np.exp(-3 * np.arange(COLS) / COLS) / np.sqrt(COLS)
    own = 0.3 * np.exp(layer.standard_normal(COLS) / 2)
    return (rng.standard_normal((2048, COLS)) @ mix.T + rng.standard_normal((2048, COLS)) * own).astype(np.float32)


X, UNSEEN = inputs(0), inputs(1)
H = X.T @ X / len(X)
W = (np.random.default_rng(1).standard_t(5, (ROWS, COLS)) * 0.02).astype(np.float32)


def output_error(q: eq.QuantizedTensor, x: np.ndarray) -> float:
    return float(np.linalg.norm(x @ (W - q.dequantize()).T) / np.linalg.norm(x @ W.T))


@pytest.mark.parametrize("name", WRITABLE)
def test_outputs_are_closer_than_with_importance(name: str) -> None:
    plain = eq.quantize(W, name, np.diag(H), objective="plain")
    fed_back = eq.quantize(W, name, hessian=H)
    assert output_error(fed_back, X) < 0.95 * output_error(plain, X)
    assert output_error(fed_back, UNSEEN) < output_error(plain, UNSEEN)


@pytest.mark.parametrize("name", ["q4_0", "q5_1", "iq4_nl", "q2_k", "iq3_xxs"])
def test_it_is_block_ldl_feedback(name: str) -> None:
    """Against the recursion written with NumPy in float64."""
    width = max(eq.formats[name].block, 32)
    damped = H.astype(np.float64) + 0.01 * np.diag(H).mean() * np.eye(COLS)
    c = np.linalg.cholesky(damped)
    error, out = W.astype(np.float64), np.empty_like(W)
    for first in range(COLS - width, -1, -width):
        own = slice(first, first + width)
        diagonal = c[own, own]
        lower = c[first + width :, own] @ np.linalg.inv(diagonal)
        wanted = error[:, own] + error[:, first + width :] @ lower
        q = eq.quantize(wanted.astype(np.float32), name, (diagonal**2).sum(1).astype(np.float32), objective="plain")
        out[:, own] = q.dequantize()
        error[:, own] -= out[:, own]
    ours = eq.quantize(W, name, hessian=H).dequantize()
    assert (ours == out).mean() > 0.7  # rounding in float32 flips a code now and then, and that row goes its own way
    assert np.linalg.norm(X @ (W - ours).T) == pytest.approx(np.linalg.norm(X @ (W - out).T), rel=2e-3)


def test_uncorrelated_inputs_need_no_feedback() -> None:
    for name in ("q4_0", "q8_0", "q4_k"):
        plain = eq.quantize(W, name, np.ones(COLS), objective="plain")
        assert eq.quantize(W, name, hessian=np.eye(COLS) * 7) == plain


def test_same_bytes_at_any_thread_count() -> None:
    results = []
    for threads in (1, 2, 3):
        eq.set_num_threads(threads)
        results.append(eq.quantize(W.astype(np.float16), "q4_k", hessian=H))
    eq.set_num_threads(0)
    assert results[0] == results[1] == results[2]


def test_unused_inputs_and_no_inputs_at_all() -> None:
    dead = H.copy()
    dead[100:164] = dead[:, 100:164] = 0
    for h in (dead, np.zeros_like(H)):
        q = eq.quantize(W, "q4_0", hessian=h)
        assert np.isfinite(q.dequantize()).all() and q.error(W) < 0.2


@pytest.mark.parametrize(
    ("hessian", "message"),
    [
        (np.eye(COLS - 1), "expected \\(512, 512\\)"),
        (np.full((COLS, COLS), np.nan), "holds"),
        (-np.eye(COLS), "negative"),
        (np.ones((COLS, COLS)) - 2 * np.eye(COLS) + 2.5 * np.diag(np.arange(COLS) == 0), "not positive"),
    ],
)
def test_bad_hessians(hessian: np.ndarray, message: str) -> None:
    with pytest.raises(eq.Error, match=message):
        eq.quantize(W, "q4_0", hessian=hessian)
    with pytest.raises(eq.Error, match="both"):
        eq.quantize(W, "q4_0", np.ones(COLS), hessian=H)
