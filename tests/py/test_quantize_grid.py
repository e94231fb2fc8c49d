"""Encoding the formats of vector grids: less error than ggml in its own objective, seen by an independent decoder."""

from __future__ import annotations

import gguf
import libgguf
import numpy as np
import pytest
from edgequant import _core
from gguf.quants import dequantize
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

GRIDS = ["iq1_s", "iq1_m", "iq2_xxs", "iq2_xs", "iq2_s", "iq3_xxs", "iq3_s"]
DEMAND_IMPORTANCE = ["iq1_s", "iq2_xxs", "iq2_xs"]  # ggml refuses these without one
GGUF_TYPE = {f["name"]: f["gguf_type"] for f in _core.formats()}
COLS = 1024


def encode(x: np.ndarray, to: str, importance: np.ndarray | None = None, **kw: object) -> np.ndarray:
    return _core.quantize(x, "f32", *x.shape, to, importance, **kw)[0]


def decode(data: np.ndarray, fmt: str) -> np.ndarray:
    """By gguf's own decoder."""
    return dequantize(data, gguf.GGMLQuantizationType(GGUF_TYPE[fmt]))


def ggml(x: np.ndarray, to: str, importance: np.ndarray | None) -> np.ndarray:
    return decode(libgguf.quantize_rows(x, GGUF_TYPE[to], importance).reshape(len(x), -1), to)


def objective(to: str, x: np.ndarray, importance: np.ndarray | None) -> np.ndarray:
    """The weights of the squared errors in ggml's own quantizer of the format."""
    x = x.astype(np.float64)
    square = np.repeat((x.reshape(len(x), -1, 256) ** 2).mean(-1), 256, axis=1)
    if importance is not None:
        return importance * np.sqrt((1 if to in ("iq2_xxs", "iq2_xs") else 2) * square + x**2)
    return np.ones_like(x) if to in DEMAND_IMPORTANCE else x**2 + (square / 2 if to == "iq2_s" else 0)


def weights(kind: str, rows: int = 12) -> np.ndarray:
    rng = np.random.default_rng(11)
    shape = (rows, COLS)
    if kind == "gauss":
        return (rng.standard_normal(shape) * 0.02).astype(np.float32)
    if kind == "student":
        return (rng.standard_t(4, shape) * 3).astype(np.float32)
    if kind == "offset":  # in most rows magnitudes are much alike
        return ((rng.standard_normal(shape) + 3 * rng.standard_normal((rows, 1))) * 0.02).astype(np.float32)
    low_rank = rng.standard_normal((rows, 4)) @ rng.standard_normal((4, COLS)) * rng.lognormal(0, 1, COLS)
    return (low_rank * 1e-3).astype(np.float32)


def importance(kind: str) -> np.ndarray | None:
    rng = np.random.default_rng(12)
    if kind == "none":
        return None
    return np.ones(COLS, np.float32) if kind == "ones" else rng.lognormal(0, 1.5, COLS).astype(np.float32)


@pytest.mark.parametrize("effort", ["fast", "default", "best"])
@pytest.mark.parametrize("kind", ["gauss", "student", "channels", "offset"])
@pytest.mark.parametrize("to", GRIDS)
def test_never_above_ggml(to: str, kind: str, effort: str) -> None:
    x = weights(kind, 4 if effort == "best" else 12)
    for name in ("none", "ones", "skewed"):
        m = importance(name)
        if m is None and to in DEMAND_IMPORTANCE:
            continue
        w = objective(to, x, m)
        ours = (w * (decode(encode(x, to, m, effort=effort), to) - x.astype(np.float64)) ** 2).sum()
        theirs = (w * (ggml(x, to, m) - x.astype(np.float64)) ** 2).sum()
        assert ours < theirs, f"importance {name}: {ours / theirs:.4f} of ggml's error"


RATIO = {
    "iq1_s": 0.92,
    "iq1_m": 0.92,
    "iq2_xxs": 0.955,
    "iq2_xs": 0.955,
    "iq2_s": 0.96,
    "iq3_xxs": 0.975,
    "iq3_s": 0.945,
}


@pytest.mark.parametrize("to", GRIDS)
def test_error_on_gaussian_weights(to: str) -> None:
    x = weights("gauss", 24)
    theirs = np.linalg.norm(ggml(x, to, np.ones(COLS, np.float32)) - x)
    ours = {
        effort: np.linalg.norm(decode(encode(x, to, effort=effort, objective="plain"), to) - x)
        for effort in ("fast", "default", "best")
    }
    assert ours["best"] <= RATIO[to] * theirs
    assert ours["best"] <= ours["default"] <= ours["fast"] * 1.001


@pytest.mark.parametrize("to", GRIDS)
def test_statistics_are_those_of_the_independent_decoder(to: str) -> None:
    x = weights("student", 3)
    m = importance("skewed")
    data, stats = _core.quantize(x, "f32", *x.shape, to, m, stats=True)
    assert stats is not None
    difference = decode(data, to).astype(np.float64) - x
    assert stats["squared_error"] == pytest.approx((difference**2).sum(), rel=1e-6)
    assert stats["weighted_error"] == pytest.approx((m * difference**2).sum(), rel=1e-6)
    assert np.array_equal(_core.dequantize(data, to, *x.shape), decode(data, to))


@pytest.mark.parametrize("to", GRIDS)
def test_same_bytes_for_any_split_and_thread_count(to: str) -> None:
    x = weights("student", 37)
    m = importance("skewed")
    threads = _core.num_threads()
    try:
        results = []
        for n in (1, 2, 5):
            _core.set_num_threads(n)
            results.append(encode(x, to, m))
    finally:
        _core.set_num_threads(threads)
    assert np.array_equal(results[0], results[1]) and np.array_equal(results[0], results[2])
    assert np.array_equal(results[0], np.concatenate([encode(row[None], to, m) for row in x]))


@pytest.mark.parametrize("to", GRIDS)
def test_scaling_by_a_power_of_two_changes_only_the_scale(to: str) -> None:
    x = weights("gauss", 2)
    assert np.array_equal(decode(encode(x * 1024, to), to), decode(encode(x, to), to) * 1024)


@pytest.mark.parametrize("to", GRIDS)
def test_extreme_rows(to: str) -> None:
    rows = np.zeros((7, 256), np.float32)
    rows[1] = 0.3
    rows[2] = -1e4
    rows[3, 100] = 5
    rows[4] = np.float32(1e-42)
    rows[5, ::2], rows[5, 1::2] = 60000, 1e-20
    rows[6] = np.linspace(-1, 1, 256) ** 3
    for objective in ("ggml", "plain"):
        y = decode(encode(rows, to, objective=objective), to)
        assert np.isfinite(y).all() and not y[0].any()
        error = ((y - rows.astype(np.float64)) ** 2).sum(1)
        energy = (rows.astype(np.float64) ** 2).sum(1)
        if objective == "plain":  # ggml's squares do not count zeros
            assert (error <= energy).all()
        assert (error[[1, 2]] < 0.15 * energy[[1, 2]]).all()
    for bad in (np.nan, np.inf):
        rows[3, 5] = bad
        with pytest.raises(_core.Error, match="row 3, column 5"):
            encode(rows, to)


@pytest.mark.parametrize("to", GRIDS)
def test_minus_zero_is_zero(to: str) -> None:
    x = np.zeros((2, 256), np.float32)
    x[0, 7] = 1
    for objective in ("ggml", "plain"):
        want = encode(x, to, objective=objective)
        np.testing.assert_array_equal(encode(np.where(x == 0, np.float32(-0.0), x), to, objective=objective), want)


@settings(max_examples=20, deadline=None)
@given(arrays(np.float32, (2, 256), elements=st.floats(-5e5, 5e5, width=32)), st.sampled_from(GRIDS))
def test_any_weights(x: np.ndarray, to: str) -> None:
    y = decode(encode(x, to, objective="plain", effort="fast"), to).astype(np.float64)
    assert np.isfinite(y).all()
    assert ((y - x) ** 2).sum() <= (x.astype(np.float64) ** 2).sum() * (1 + 1e-6)
