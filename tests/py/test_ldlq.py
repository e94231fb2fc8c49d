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


FEW_LEVELS = [
    "ct.int1.g64.zp.bf16", "mlx.affine2.g128", "hqq.int1.g64", "iq1_s", "q1_0", "q2_0", "onnx.nbits2.g32",
    eq.Format("tables", block=64, codes=1, learned="group"), eq.Format("vectors", block=64, codebook=(64, 4)),
]  # fmt: skip


@pytest.mark.parametrize("f", FEW_LEVELS, ids=str)
@pytest.mark.parametrize("samples", [48, 2048])
def test_no_row_is_above_plain_quantization(f: eq.Format | str, samples: int) -> None:
    """Few levels and few inputs: what is fed back then adds up to more than it saves in some rows."""
    x = np.random.default_rng(samples).standard_normal((samples, COLS)).astype(np.float32) + X[:samples] / 8
    w, h = np.resize(W, (64, COLS)), x.T @ x
    plain = eq.quantize(w, f, np.diag(h), objective="plain")
    fed_back = eq.quantize(w, f, hessian=h)
    ours, theirs = (((x @ (w - q.dequantize()).T).astype(np.float64) ** 2).sum(0) for q in (fed_back, plain))
    assert (ours <= theirs * (1 + 1e-3)).all() and ours.sum() < theirs.sum()


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


OWN = [
    eq.Format("own", block=32, codes=3),
    eq.Format("minimum", block=64, codes=2, minimum="f16"),
    eq.Format("ternary", block=64, base3=True),
    eq.Format("learned", block=64, codes=2, table="learned"),
    eq.Format("levels", block=32, codes=4, minimum="f16", sub_scale=(6, 8)),
    eq.Format("tables", block=64, codes=2, learned="group"),
    eq.Format("vectors", block=64, codebook=(64, 4)),
    eq.Format("mixed", block=32, codes=3, transform=("hadamard", 128)),
    eq.planar_formats["mlx.affine3.g32"], eq.planar_formats["gptq.int3.g128"], eq.planar_formats["onnx.nbits4.g32.zp"],
]  # fmt: skip


@pytest.mark.parametrize("f", OWN, ids=str)
def test_run_time_formats(f: eq.Format) -> None:
    w = np.resize(W, (64, COLS))  # GPTQ's words hold 32 rows
    plain, fed_back = eq.quantize(w, f, np.diag(H)), eq.quantize(w, f, hessian=H)
    assert isinstance(fed_back, eq.SchemeTensor) and fed_back.scheme == f

    def error(q: eq.QuantizedTensor, x: np.ndarray) -> float:
        return float(np.linalg.norm(x @ (w - q.dequantize()).T) / np.linalg.norm(x @ w.T))

    assert error(fed_back, X) < 0.95 * error(plain, X) and error(fed_back, UNSEEN) < error(plain, UNSEEN)
    np.testing.assert_array_equal(eq.from_planes(fed_back.planes, f, w.shape).dequantize(), fed_back.dequantize())


def test_run_time_formats_as_the_built_in_one() -> None:
    """The same recursion over blocks: q4_0 described at run time gets as far."""
    f = eq.Format("q4_0 at run time", block=32, codes=4)
    ours, builtin = (eq.quantize(W, name, hessian=H, effort="best", objective="plain") for name in (f, "q4_0"))
    assert output_error(ours, X) == pytest.approx(output_error(builtin, X), rel=0.05)


def test_formats_without_groups_of_their_own() -> None:
    for name in ("fp8.e4m3.channel", "bnb.nf4.g64.dq"):
        with pytest.raises(eq.Error, match="not each a group's own"):
            eq.quantize(W, name, hessian=H)
