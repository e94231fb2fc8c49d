"""Formats whose rows go through a Hadamard transform: orthonormal, saved, and multiplied without going back."""

from __future__ import annotations

from pathlib import Path

import edgequant as eq
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

KINDS = [
    eq.Format("plain", block=32, codes=4, transform="hadamard"),
    eq.Format("minimum", block=64, codes=4, minimum="f16", transform=("hadamard", 64)),
    eq.Format("unsigned", block=64, codes=3, transform=("hadamard", 128, 0)),
    eq.Format("table", block=64, codes=2, table="learned", transform=("hadamard", 256, 9)),
    eq.Format("levels", block=32, codes=4, minimum="f16", sub_scale=(6, 8), transform="hadamard"),
    eq.Format("vectors", block=64, codebook=(64, 4), transform="hadamard"),
    eq.Format("tables", block=64, codes=2, learned="group", transform="hadamard"),
]


def heavy(rows: int, cols: int, seed: int = 0) -> np.ndarray:
    """Student-t with 3 degrees of freedom: a few weights are far off."""
    return np.random.default_rng(seed).standard_t(3, (rows, cols)).astype(np.float32)


def signs(seed: int, cols: int) -> np.ndarray:
    """splitmix64, bit by bit, as op/hadamard.h says."""
    mask, state, bits = (1 << 64) - 1, seed, 0
    out = np.ones(cols)
    for c in range(cols):
        if seed and c % 64 == 0:
            state = (state + 0x9E3779B97F4A7C15) & mask
            bits = ((state ^ state >> 30) * 0xBF58476D1CE4E5B9) & mask
            bits = ((bits ^ bits >> 27) * 0x94D049BB133111EB) & mask
            bits ^= bits >> 31
        out[c] = -1 if seed and bits >> (c % 64) & 1 else 1
    return out


def matrix(block: int, seed: int, cols: int) -> np.ndarray:
    """The whole transform as a matrix: row @ matrix."""
    h = np.ones((1, 1))
    while len(h) < block:
        h = np.block([[h, h], [h, -h]])
    return signs(seed, cols)[:, None] * np.kron(np.eye(cols // block), h / np.sqrt(block))


@settings(max_examples=25, deadline=None)
@given(
    power=st.integers(4, 10),
    times=st.integers(1, 3),
    whole=st.booleans(),
    seed=st.integers(0, 2**63),
    rows=st.integers(1, 5),
)
def test_it_is_the_hadamard_matrix(power: int, times: int, whole: bool, seed: int, rows: int) -> None:
    """Codes of 8 bits and f32 scales, read in the transformed domain, are the rows times the matrix."""
    block, cols = 2**power, 2**power * times
    if whole and times == 2:
        block *= 2
    f = eq.Format("h", block=16, codes=8, scale="f32", transform=("hadamard", 0 if whole else block, seed))
    w = np.random.default_rng(seed % 1000).standard_normal((rows, cols)).astype(np.float32)
    q = eq.quantize(w, f)
    assert isinstance(q, eq.SchemeTensor)
    codes, scale, _ = f.core.read(f.core_arrays(q.planes), rows, cols)
    inner = (codes.astype(np.float64) - 128) * np.repeat(scale, 16, axis=1)
    m = matrix(block, seed, cols)
    np.testing.assert_allclose(m @ m.T, np.eye(cols), atol=1e-12)
    np.testing.assert_allclose(inner, w @ m, atol=0.02)
    np.testing.assert_allclose(q.dequantize(), inner @ m.T, atol=3e-6)
    rotated = (w @ m).reshape(-1, 16)  # the search tries to bring the largest weight of each group to 127
    step = np.abs(rotated).max(1, keepdims=True) / 127
    by_rule = np.linalg.norm(rotated - step * np.round(rotated / step)) / np.linalg.norm(w)
    assert q.error(w) < 1.001 * by_rule + 1e-6


@pytest.mark.parametrize("f", KINDS, ids=str)
@pytest.mark.parametrize("rows", [1, 3, 40])
def test_products_are_those_of_the_decoded_weights(f: eq.Format, rows: int) -> None:
    rng = np.random.default_rng(1)
    w, bias = heavy(40, 1536), rng.standard_normal(40).astype(np.float32)
    x = rng.standard_normal((rows, 1536)).astype(np.float32)
    q = eq.quantize(w, f)
    want = x.astype(np.float64) @ q.dequantize().T.astype(np.float64) + bias
    norm = np.sqrt(np.mean(want**2))
    assert np.sqrt(np.mean((eq.matmul(x, q, compute="exact", bias=bias) - want) ** 2)) < 3e-6 * norm
    assert np.sqrt(np.mean((eq.matmul(x, q, bias=bias) - want) ** 2)) < 0.012 * norm
    half = eq.matmul(x.astype(np.float16), q, bias=bias)
    assert half.dtype == np.float16 and np.sqrt(np.mean((half - want) ** 2)) < 0.015 * norm


@pytest.mark.parametrize("f", KINDS, ids=str)
def test_outliers_cost_less(f: eq.Format) -> None:
    w = heavy(64, 1024)
    description = {k: v for k, v in f.description.items() if k != "transform"}
    without = eq.Format._of(description, {})
    assert f.bits_per_weight == without.bits_per_weight and f != without
    gain = eq.quantize(w, f).error(w) / eq.quantize(w, without).error(w)
    assert gain < (1.1 if f.name in ("vectors", "tables") else 0.97)  # what is fitted to the weights knows the outliers


def test_it_is_saved_with_the_format(tmp_path: Path) -> None:
    w = heavy(16, 512)
    tensors = {f.name: eq.quantize(w, f) for f in KINDS}
    eq.save(tmp_path / "x.safetensors", tensors)
    for name, q in eq.load(tmp_path / "x.safetensors").items():
        assert q == tensors[name]
        np.testing.assert_array_equal(q.dequantize(), tensors[name].dequantize())
    assert "seed 9" in KINDS[3].describe() and eq.Format.from_json(KINDS[3].to_json()) == KINDS[3]
    other = eq.Format("table", block=64, codes=2, table="learned", transform=("hadamard", 256, 10))
    with pytest.raises(eq.Error, match="would change the weights"):
        tensors["table"].to(other)


def test_importance_is_that_of_the_mixed_columns() -> None:
    w, importance = heavy(64, 512), np.random.default_rng(1).random(512).astype(np.float32) ** 8
    uneven = np.repeat(np.float32([1, 1e-6] * 4), 64)  # the same within what is mixed
    f = eq.Format("mixed", block=128, codes=2, table="learned", transform=("hadamard", 64))
    plain = eq.quantize(w, f)
    assert eq.quantize(w, f, importance=np.full(512, 7, np.float32)) == plain
    weighted = eq.quantize(w, f, importance=uneven)
    assert weighted.compare(w, uneven).weighted_rmse < plain.compare(w, uneven).weighted_rmse * 0.98
    assert np.isfinite(eq.quantize(w, f, importance=importance).dequantize()).all()


def test_the_same_bytes_at_any_number_of_threads() -> None:
    w, before = heavy(97, 512), eq.num_threads()
    try:
        found = []
        for threads in (1, 2):
            eq.set_num_threads(threads)
            found.append(eq.quantize(w, KINDS[0]))
        assert found[0] == found[1]
    finally:
        eq.set_num_threads(before)


@pytest.mark.parametrize("value", [0.0, 1e-40, 1e30, -6e4])
def test_extreme_weights(value: float) -> None:
    w = np.full((2, 256), 0.0, np.float32)
    w[0] = value
    w[1, 7] = value
    y = eq.quantize(w, eq.Format("h", block=32, codes=8, scale="f32", transform="hadamard")).dequantize()
    assert np.isfinite(y).all() and np.abs(y - w).max() <= 0.02 * abs(value) + 2e-38  # no scale is smaller


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        ("fourier", "not 'fourier'"),
        (("hadamard", 48), "a power of two of columns from 16 up, not 48"),
        (("hadamard", 8), "from 16 up, not 8"),
        (("hadamard", 64, -1), "not \\('hadamard', 64, -1\\)"),
        (7, "not 7"),
    ],
)
def test_wrong_transforms(transform: object, message: str) -> None:
    with pytest.raises(eq.Error, match=message):
        eq.Format("wrong", transform=transform)  # type: ignore[arg-type]


def test_rows_it_does_not_fit() -> None:
    with pytest.raises(eq.Error, match="not a multiple of the transform's 256"):
        eq.quantize(heavy(2, 384), eq.Format("own", block=32, transform=("hadamard", 256)))
    with pytest.raises(eq.Error, match="16 does not divide them"):
        eq.quantize(heavy(2, 40), eq.Format("own", block=8, transform="hadamard"))
    w = heavy(4, 64)
    w[3, 5] = np.nan
    with pytest.raises(eq.Error, match="NaN at row 3, column 5"):
        eq.quantize(w, eq.Format("own", block=32, transform="hadamard"))
