"""The search for run-time formats: worked examples with their errors, extreme inputs, any number of threads."""

from __future__ import annotations

import itertools

import edgequant as eq
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

E2M1 = [0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6]
# Of four weights one is 0, three are -1 or 1: 32 rows, 5 bits for 4 weights.
SPARSE = np.array([v for v in itertools.product((-1.0, 0.0, 1.0), repeat=4) if v.count(0.0) == 1])

# format, bits per weight, largest relative error on Gaussian weights at the default effort
EXAMPLES = [
    (eq.Format("one_bit", block=64, codes=1), 1.25, 0.60),
    (eq.Format("ternary", block=64, base3=True), 1.875, 0.432),
    (eq.Format("ternary_learned", block=64, base3=True, table="learned"), 1.875, 0.425),
    (eq.Format("table2", block=64, codes=2, table="learned"), 2.25, 0.328),
    (eq.Format("table2_group", block=64, codes=2, learned="group"), 3.0, 0.312),
    (eq.Format("half2", block=64, codes=2, zero=1.5), 2.25, 0.339),
    (eq.Format("vectors4", block=64, codebook=(256, 4)), 2.25, 0.308),
    (eq.Format("sparse", block=64, codebook=SPARSE), 1.5, 0.532),
    (eq.Format("zero4", block=32, codes=4, zero="int"), 4.75, 0.0775),
    (eq.Format("zero4f", block=32, codes=4, zero="f16"), 5.0, 0.070),
    (eq.Format("minimum4", block=32, codes=4, minimum="f16"), 5.0, 0.070),
    (eq.Format("levels4", block=32, codes=4, minimum="f16", sub_scale=(6, 8)), 4.5, 0.0702),
    (eq.Format("levels6", block=16, codes=6, sub_scale=(8, 16)), 6.5625, 0.0167),
    (eq.Format("power", block=32, codes=4, table=E2M1, scale="e8m0"), 4.25, 0.113),
    (eq.Format("small", block=16, codes=4, table=E2M1, scale="e4m3"), 4.5, 0.0845),
]


def gaussian(rows: int, cols: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, cols)).astype(np.float32)


@pytest.mark.parametrize(("f", "bits", "error"), EXAMPLES, ids=lambda v: getattr(v, "name", ""))
def test_examples(f: eq.Format, bits: float, error: float) -> None:
    w = gaussian(128, 512)
    q = eq.quantize(w, f)
    assert f.bits_per_weight == pytest.approx(bits) and q.data.nbytes * 8 / w.size == pytest.approx(bits)
    assert q.error(w) < error
    assert eq.quantize(w, f, effort="best").error(w) <= q.error(w) * 1.002


@pytest.mark.parametrize("f", [f for f, _, _ in EXAMPLES], ids=lambda f: f.name)
def test_importance_lowers_the_weighted_error(f: eq.Format) -> None:
    if f.name == "power":
        pytest.skip("powers of two leave hardly a choice")
    w, importance = gaussian(64, 512), np.random.default_rng(1).random(512).astype(np.float32) ** 4
    plain, weighted = eq.quantize(w, f), eq.quantize(w, f, importance=importance)
    assert weighted.compare(w, importance).weighted_rmse < plain.compare(w, importance).weighted_rmse


@pytest.mark.parametrize("f", [f for f, _, _ in EXAMPLES] + ["mlx.affine3.g32", "onnx.nbits4.g32.zp"], ids=str)
def test_the_same_bytes_at_any_number_of_threads(f: eq.Format | str) -> None:
    w, before = gaussian(97, 512), eq.num_threads()
    try:
        eq.set_num_threads(1)
        one = eq.quantize(w, f)
        eq.set_num_threads(2)
        assert eq.quantize(w, f) == one
    finally:
        eq.set_num_threads(before)


def test_larger_groups() -> None:
    """A scale for each row, for the tensor, and for a square of weights."""
    w = gaussian(100, 1000) * np.exp(gaussian(100, 1, 1))
    kind = {"bits": 8, "zero": 128, "rule": "absmax", "rule_reach": 127}
    arrays = {"code": eq.Array("weight", "uint8", bits=8), "scale": eq.Array("scales", "f32")}
    fast, best = {}, {}
    for name, group in {"row": (0, 1), "tensor": (0, 0), "square": (128, 64)}.items():
        f = eq.Format.planar(name, group=group[0], group_rows=group[1], arrays=arrays, **kind)
        q = eq.quantize(w, f, effort="fast")
        fast[name], best[name] = q.error(w), eq.quantize(w, f, effort="best").error(w)
        assert q.planes["scales"].shape == {"row": (100, 1), "tensor": (1, 1), "square": (2, 8)}[name]
        parts = [w] if name == "tensor" else [w[:64, :128]] if name == "square" else [w[:1]]
        assert q.planes["scales"][0, 0] == np.abs(parts[0]).max() / np.float32(127)
    assert all(best[n] <= fast[n] for n in fast) and fast["row"] < fast["square"] < fast["tensor"]


FORMATS = [f for f, _, _ in EXAMPLES] + [eq.planar_formats[n] for n in ("mlx.affine4.g32", "onnx.nbits2.g32.zp")]
VALUES = st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e-38, 1e-45, -1e-40, 3e4, -6.5e4, 1e-8, 0.1, 7.0])


@pytest.mark.parametrize("f", FORMATS, ids=lambda f: f.name)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_extreme_inputs(f: eq.Format, data: st.DataObject) -> None:
    cols = max(f.block, 32)
    kind = data.draw(st.sampled_from(["constant", "outlier", "mixed"]))
    w = np.full((3, cols), data.draw(VALUES), np.float32)
    if kind == "outlier":
        w[1, data.draw(st.integers(0, cols - 1))] = data.draw(VALUES)
    elif kind == "mixed":
        w[:] = np.array(data.draw(st.lists(VALUES, min_size=cols, max_size=cols)), np.float32)
    for effort in ("fast", "default"):
        y = eq.quantize(w, f, effort=effort).dequantize()
        assert np.isfinite(y).all()
        limit = np.abs(w).max()
        assert np.abs(y).max() <= 2.01 * limit + 1e-6, (np.abs(y).max(), limit)
        if not w.any():
            assert not y.any()


@pytest.mark.parametrize("value", [8.5e37, -8.5e37])
def test_the_largest_numbers(value: float) -> None:
    w = np.full((2, 64), 1.0, np.float32)
    w[0, 3] = value
    with pytest.raises(eq.Error, match="row 0, column 3 is too large for own"):
        eq.quantize(w, eq.Format("own", block=32))
    for f in (eq.Format("own", block=32, scale="f32"), eq.Format("own", block=32, scale="bf16", minimum="bf16")):
        with pytest.raises(eq.Error, match="too large for own, which reaches 8"):
            eq.quantize(w * 4, f)
        y = eq.quantize(w, f).dequantize()
        assert np.isfinite(y).all() and abs(y[0, 3] / value - 1) < 0.2
    with pytest.raises(eq.Error, match="too large for own, which reaches 65504"):  # its minima do
        eq.quantize(w, eq.Format("own", block=32, scale="f32", minimum="f16", sub_scale=(6, 2)))


def test_groups_of_one() -> None:
    w = gaussian(4, 16)
    f = eq.Format("each", block=1, codes=4, scale="f32")
    np.testing.assert_allclose(eq.quantize(w, f).dequantize(), w, rtol=1e-6)
    odd = eq.quantize(w[:, :15], eq.Format("odd", block=3, codes=8, scale="f32"))
    assert odd.data.shape == (4, 5 * 7) and odd.error(w[:, :15]) < 0.01


def test_small_floats() -> None:
    """E4M3 and E5M2 by arithmetic, against ml_dtypes."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    w = np.concatenate([gaussian(8, 256) * 10.0**k for k in (-4, -2, 0, 2)]).astype(np.float32)
    arrays = {"code": eq.Array("weight", "uint8", bits=8)}
    for name, dtype, bits, bias, highest in [
        ("e4m3", "float8_e4m3fn", 4, 7, 448),
        ("e5m2", "float8_e5m2", 5, 15, 57344),
    ]:
        f = eq.Format.planar(
            name, values="minifloat", bits=8, exponent_bits=bits, exponent_bias=bias, highest=highest, group=0,
            rule="absmax", arrays=arrays,
        )  # fmt: skip
        q = eq.quantize(np.clip(w, -highest, highest), f)
        want = np.clip(w, -highest, highest).astype(getattr(ml_dtypes, dtype))
        np.testing.assert_array_equal(q.planes["weight"], want.view(np.uint8))
        np.testing.assert_array_equal(q.dequantize(), want.astype(np.float32))


@pytest.mark.parametrize("f", [
    eq.Format("bf16", block=256, codes=7, minimum="bf16", scale="bf16"),
    eq.Format("e4m3", block=64, codes=6, zero="int", scale="e4m3"),
    eq.Format("e8m0", block=96, codes=4, minimum="f16", scale="e8m0"),
], ids=lambda f: f.name)  # fmt: skip
@pytest.mark.parametrize("seed", range(6))
def test_more_effort_is_never_worse_in_a_block(f: eq.Format, seed: int) -> None:
    w = np.random.default_rng(seed).standard_t(3, (33, f.block)).astype(np.float32)
    errors = [np.sum((eq.quantize(w, f, effort=e).dequantize() - w) ** 2, axis=1) for e in ("fast", "default", "best")]
    assert np.all(errors[1] <= errors[0] * (1 + 1e-5)) and np.all(errors[2] <= errors[1] * (1 + 1e-5))


LEVELS = [
    eq.Format("minimum", block=8, codes=7, minimum="f16", scale="e8m0", sub_scale=(4, 8)),
    eq.Format("few", block=16, codes=6, scale="bf16", sub_scale=(4, 4)),
    eq.Format("zeros", block=16, codes=4, zero="int", sub_scale=(6, 4)),
    eq.Format("floats", block=24, minifloat=(3, 2), scale="f32", sub_scale=(2, 4)),
    eq.planar_formats["bnb.nf4.g64.dq"], eq.planar_formats["ct.nvfp4"],
]  # fmt: skip


@pytest.mark.parametrize("f", LEVELS, ids=str)
@pytest.mark.parametrize("weighted", [False, True])
def test_scales_over_two_levels_are_never_worse_with_more_effort(f: eq.Format, weighted: bool) -> None:
    """What is best for each group need not be so once it is rounded under the second level."""
    rng = np.random.default_rng(3)
    w = (rng.standard_t(3, (48, 384)) * 10.0 ** rng.uniform(-3, 2, (48, 1))).astype(np.float32)
    importance = rng.lognormal(0, 2, 384).astype(np.float32) if weighted else None
    errors = []
    for effort in ("fast", "default", "best"):
        gap = eq.quantize(w, f, importance, effort=effort).dequantize().astype(np.float64) - w
        errors.append((gap**2 * (1 if importance is None else importance)).sum(1))
    if not f.interleaved:  # one number for all rows
        errors = [e.sum() for e in errors]
    for less, more in itertools.pairwise(errors):
        assert np.all(more <= less * (1 + 1e-5))


@pytest.mark.parametrize("f", [
    eq.Format("vectors", block=32, codebook=(100, 2)),
    eq.Format("levels", block=32, codes=3, table="learned", scale="bf16"),
    eq.Format("powers", block=16, codes=5, table="learned", scale="e8m0"),
    eq.Format("mixed", block=32, codes=2, table="learned", transform="hadamard"),
], ids=lambda f: f.name)  # fmt: skip
@pytest.mark.parametrize("seed", range(6))
def test_what_is_learned_of_few_weights(f: eq.Format, seed: int) -> None:
    w = np.random.default_rng(seed).standard_t(3, (5, 96)).astype(np.float32)
    fast, default, best = (eq.quantize(w, f, effort=e).error(w) for e in ("fast", "default", "best"))
    assert best <= default * (1 + 1e-6) and default <= fast * (1 + 1e-6)


@pytest.mark.parametrize("scale", ["f32", "f16", "bf16", "e8m0", "e4m3"])
@pytest.mark.parametrize("codes", [1, 2, 3])
@pytest.mark.parametrize("bits", [5, 6])
def test_numbers_of_sets_of_few_bits(scale: str, codes: int, bits: int) -> None:
    """They have one sign (e8m0), or end far above these scales (e4m3)."""
    w = np.random.default_rng(3).standard_normal((64, 512), dtype=np.float32) * np.float32(0.05)
    one = eq.quantize(w, eq.Format("one", block=8, codes=codes, scale="f32")).error(w)
    f = eq.Format("two", block=8, codes=codes, zero=2 ** (codes - 1) - 0.5, scale=scale, sub_scale=(bits, 4))
    assert eq.quantize(w, f).error(w) < 1.15 * one
