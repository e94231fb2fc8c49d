"""Products with quantized weights against decoding them and multiplying in double."""

from __future__ import annotations

import gc
import sys

import edgequant as eq
import numpy as np
import pytest
from edgequant import _core
from edgequant.matmul import repack
from hypothesis import given, settings
from hypothesis import strategies as st

PANEL_FORMATS = [name for name in eq.formats if _core.can_repack(name)]


def weights(name: str, n: int, k: int, seed: int = 0) -> eq.QuantizedTensor:
    return eq.quantize(np.random.default_rng(seed).standard_normal((n, k), dtype=np.float32), name)


def activations(*shape: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def relative_error(got: np.ndarray, want: np.ndarray) -> float:
    return float(np.linalg.norm(got - want) / np.linalg.norm(want))


def test_formats_with_a_panel() -> None:
    assert set(eq.formats) - set(PANEL_FORMATS) == {name for name, f in eq.formats.items() if f.block == 1}


@pytest.mark.parametrize("rows", [1, 2, 4, 13])
@pytest.mark.parametrize("name", PANEL_FORMATS)
def test_every_format(name: str, rows: int) -> None:
    q = weights(name, 37, 512)
    x = activations(rows, 512)
    want = x.astype(np.float64) @ q.dequantize().astype(np.float64).T
    assert relative_error(eq.matmul(x, q, compute="exact"), want) < 5e-7
    assert relative_error(eq.matmul(x, q), want) < 0.012


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(PANEL_FORMATS),
    m=st.integers(0, 70),
    n=st.integers(1, 70),
    blocks=st.integers(1, 9),
    seed=st.integers(0, 2**31),
)
def test_any_shape(name: str, m: int, n: int, blocks: int, seed: int) -> None:
    k = blocks * eq.formats[name].block
    q = weights(name, n, k, seed)
    x = activations(m, k, seed=seed + 1)
    got = eq.matmul(x, q, compute="exact")
    assert got.shape == (m, n) and got.dtype == np.float32
    w = q.dequantize().astype(np.float64)
    bound = np.abs(x).astype(np.float64) @ np.abs(w).T * 4e-6 + 1e-6
    assert (np.abs(got - x.astype(np.float64) @ w.T) <= bound).all()


def test_leading_dimensions_bias_and_out() -> None:
    q, x, bias = weights("q4_k", 24, 256), activations(2, 3, 256), activations(24)
    plain = eq.matmul(x, q)
    assert plain.shape == (2, 3, 24)
    out = np.empty((2, 3, 24), np.float32)
    assert eq.matmul(x, q, out, bias=bias) is out
    np.testing.assert_allclose(out, plain + bias, rtol=1e-6)
    scale = activations(24, seed=9)
    np.testing.assert_allclose(eq.matmul(x, q, bias=bias, scale=scale), plain * scale + bias, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(eq.matmul(x[0, 1], q), plain[0, 1], rtol=1e-4, atol=1e-4)
    half = np.empty((2, 3, 24), np.float16)
    np.testing.assert_array_equal(eq.matmul(x, q, half), plain.astype(np.float16))


def test_views_are_read_in_place() -> None:
    q, x = weights("q5_0", 16, 96), activations(10, 200)
    want = eq.matmul(np.ascontiguousarray(x[::2, 3:99]), q)
    np.testing.assert_array_equal(eq.matmul(x[::2, 3:99], q), want)
    np.testing.assert_array_equal(eq.matmul(np.asfortranarray(x[::2, 3:99]), q), want)
    misaligned = np.frombuffer(b"\0" + x[0, :96].tobytes(), np.uint8)[1:].view(np.float32)
    np.testing.assert_array_equal(eq.matmul(misaligned, q), eq.matmul(x[0, :96], q))


def test_half_precision() -> None:
    q, x = weights("iq4_nl", 16, 64), activations(3, 64)
    half = eq.matmul(x.astype(np.float16), q)
    assert half.dtype == np.float16
    np.testing.assert_array_equal(half, eq.matmul(x.astype(np.float16).astype(np.float32), q).astype(np.float16))
    assert eq.matmul(x.astype(np.float64), q).dtype == np.float32


def test_torch() -> None:
    torch = pytest.importorskip("torch")
    q, x = weights("q4_0", 16, 64), torch.from_numpy(activations(3, 64))
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        y = eq.matmul(x.to(dtype), q, bias=torch.ones(16))
        assert y.dtype == dtype and y.shape == (3, 16)
        want = torch.from_numpy(eq.matmul(x.to(dtype).float().numpy(), q, bias=np.ones(16)))
        assert torch.equal(y, want.to(dtype))
    out = torch.empty(3, 16, dtype=torch.bfloat16)
    assert eq.matmul(x, q, out) is out and torch.equal(out, torch.from_numpy(eq.matmul(x.numpy(), q)).bfloat16())


def test_any_number_of_threads_gives_the_same() -> None:
    q = weights("q6_k", 300, 512)
    results = []
    for threads in (1, 2, 3):
        eq.set_num_threads(threads)
        results.append((eq.matmul(activations(1, 512), q), eq.matmul(activations(50, 512), q)))
    eq.set_num_threads(0)
    for one, many in results[1:]:
        np.testing.assert_array_equal(one, results[0][0])
        np.testing.assert_array_equal(many, results[0][1])


def test_panels_live_as_long_as_the_weights() -> None:
    from edgequant.matmul import _panels

    q = weights("q8_0", 16, 64)
    before = len(_panels)
    panel = repack(q)
    assert repack(q) is panel and len(_panels) == before + 1
    assert (panel.rows, panel.cols, panel.format) == (16, 64, "q8_0") and panel.nbytes == q.nbytes
    assert repack(eq.from_bytes(q.data.copy(), "q8_0", (16, 64))) is not panel
    del q
    gc.collect()
    assert len(_panels) == before


def test_errors() -> None:
    q = weights("q4_0", 16, 64)
    with pytest.raises(eq.Error, match="does not fit"):
        eq.matmul(activations(2, 32), q)
    with pytest.raises(eq.Error, match="out must be"):
        eq.matmul(activations(2, 64), q, np.empty((2, 15), np.float32))
    with pytest.raises(eq.Error, match="compute is"):
        eq.matmul(activations(2, 64), q, compute="fp8")
    with pytest.raises(eq.Error, match="bias has shape"):
        eq.matmul(activations(2, 64), q, bias=np.ones(3))
    with pytest.raises(eq.Error, match="scale has shape"):
        eq.matmul(activations(2, 64), q, scale=2.0)
    with pytest.raises(eq.Error, match="float32"):
        eq.matmul(np.ones((2, 64), np.int32), q)
    for out in (np.empty((2, 16)), np.empty((2, 16), np.int32), [[0.0] * 16] * 2):  # results would go to a copy
        with pytest.raises(eq.Error, match="float32, float16 or bfloat16"):
            eq.matmul(activations(2, 64), q, out)
    fixed = np.empty((2, 16), np.float32)
    fixed.setflags(write=False)
    with pytest.raises(eq.Error, match="read-only"):
        eq.matmul(activations(2, 64), q, fixed)
    for wrong in (q.dequantize(), "q4_0", None):
        with pytest.raises(eq.Error, match="takes weights as"):
            eq.matmul(activations(2, 64), wrong)


def test_tensors_without_numpy_numbers() -> None:
    torch = pytest.importorskip("torch")
    q, x = weights("q4_0", 16, 64), torch.from_numpy(activations(2, 64))
    for wrong in (x.to(torch.float8_e4m3fn), x.to_sparse()):
        for use in (lambda t: eq.matmul(t, q), lambda t: eq.quantize(t, "q4_0")):
            with pytest.raises(eq.Error, match="cannot be read"):
                use(wrong)
    np.testing.assert_array_equal(eq.matmul(torch._neg_view(-x), q), eq.matmul(x, q))


@pytest.mark.parametrize("name", ["q4_k", "tq1_0", "iq2_xs", "f32"])
def test_out_in_the_memory_of_x(name: str) -> None:
    q, x = weights(name, 256, 256), activations(9, 256)
    want = eq.matmul(x, q)
    memory = np.zeros(12 * 256, np.float32)
    memory[: x.size] = x.reshape(-1)
    got = eq.matmul(memory[: x.size].reshape(x.shape), q, out=memory[2 * 256 : 11 * 256].reshape(9, 256))
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("compute", ["int8", "exact"])
@pytest.mark.parametrize("rows", [2, 9])
def test_what_is_not_finite_stays_in_its_row(rows: int, compute: str) -> None:
    for name in ("q4_k", "q8_0", "tq1_0", "iq2_xs", "nvfp4"):
        q, x = weights(name, 40, 512), activations(rows, 512)
        want = eq.matmul(x, q, compute=compute)
        for value in (np.nan, np.inf, -np.inf):
            x[1, 300] = value
            got = eq.matmul(x, q, compute=compute)
            assert np.isnan(got[1]).all()
            np.testing.assert_array_equal(np.delete(got, 1, 0), np.delete(want, 1, 0))


PLAIN = ["f32", "f16", "bf16"]


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(PLAIN),
    m=st.integers(0, 70),
    n=st.integers(1, 150),
    k=st.integers(1, 1200),
    seed=st.integers(0, 2**31),
)
def test_plain_numbers_of_any_shape(name: str, m: int, n: int, k: int, seed: int) -> None:
    q, wide = weights(name, n, k, seed), activations(m, k + 2, seed=seed + 1)
    x, w = wide[:, 1:-1], q.dequantize().astype(np.float64)
    bound = np.abs(x).astype(np.float64) @ np.abs(w).T * 1e-6 + 1e-6
    got = eq.matmul(x, q)
    assert got.shape == (m, n) and (np.abs(got - x.astype(np.float64) @ w.T) <= bound).all()
    np.testing.assert_array_equal(eq.matmul(x, q, compute="exact"), got)
    if m:
        np.testing.assert_array_equal(eq.matmul(x[m // 2], q), got[m // 2])  # no row depends on the others


@pytest.mark.parametrize("name", PLAIN)
def test_plain_numbers_are_read_where_they_lie(name: str) -> None:
    q, bias = weights(name, 33, 100), activations(33)
    x = activations(3, 100).astype(np.float16)
    want = x.astype(np.float64) @ q.dequantize().T.astype(np.float64) + bias
    np.testing.assert_allclose(eq.matmul(x, q, bias=bias), want, rtol=2e-3, atol=2e-2)
    q.data[:] = 0
    np.testing.assert_array_equal(eq.matmul(x.astype(np.float32), q), np.zeros((3, 33)))
    data = q.data
    before = sys.getrefcount(data)
    eq.matmul(x, q)
    assert sys.getrefcount(data) == before  # nothing keeps them


def test_plain_numbers_on_any_number_of_threads_and_in_experts() -> None:
    experts = [weights(name, 130, 700, seed) for seed, name in enumerate(PLAIN)]
    x = activations(300, 700)
    index = np.random.default_rng(2).integers(0, 3, (300, 2))
    want = grouped_by_loop(x, experts, index, "int8")
    before = eq.num_threads()
    for threads in (1, 2, 3):
        eq.set_num_threads(threads)
        np.testing.assert_array_equal(eq.matmul_grouped(x, experts, index), want)
        np.testing.assert_array_equal(eq.matmul(x, experts[1]), eq.matmul(x, experts[1], compute="exact"))
    eq.set_num_threads(before)


def grouped_by_loop(
    x: np.ndarray, experts: list[eq.QuantizedTensor], index: np.ndarray, compute: str, bias: np.ndarray | None = None
) -> np.ndarray:
    """The same products one row after the other."""
    wide = x if index.ndim == x.ndim - 1 else np.repeat(x[..., None, :], index.shape[-1], axis=-2)
    y = np.empty((*index.shape, experts[0].shape[0]), x.dtype)
    for at in np.ndindex(index.shape):
        e = index[at]
        y[at] = eq.matmul(wide[at], experts[e], compute=compute, bias=None if bias is None else bias[e])
    return y


@pytest.mark.parametrize("compute", ["int8", "exact"])
@pytest.mark.parametrize("tokens", [0, 1, 3, 40])
def test_grouped_equals_a_loop(tokens: int, compute: str) -> None:
    # formats of all kinds of scales; an expert without rows, experts with few rows and one with many
    formats = ["q4_k", "q2_k", "q3_k", "q8_0", "iq4_xs", "q4_1", "tq2_0"]
    experts = [weights(name, 53, 512, seed) for seed, name in enumerate(formats)]
    x, bias = activations(tokens, 512), activations(len(experts), 53, seed=3)
    index = np.random.default_rng(2).choice(6, (tokens, 2), p=[0.5, 0.2, 0.1, 0.1, 0.05, 0.05])
    got = eq.matmul_grouped(x, experts, index, compute=compute)
    assert got.shape == (tokens, 2, 53)
    np.testing.assert_allclose(got, grouped_by_loop(x, experts, index, compute), rtol=1e-5, atol=1e-5)
    got = eq.matmul_grouped(x, experts, index[:, 1], compute=compute, bias=bias)
    want = grouped_by_loop(x, experts, index[:, 1], compute, bias)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    scaled = eq.matmul_grouped(x, experts, index[:, 1], compute=compute, bias=bias, scale=bias + 1)
    own = bias[index[:, 1]]
    np.testing.assert_allclose(scaled, (want - own) * (own + 1) + own, rtol=1e-4, atol=1e-4)


def test_grouped_is_the_same_at_any_number_of_threads_and_in_any_layout() -> None:
    experts = [weights("q4_k", 160, 768, seed) for seed in range(3)]
    x = activations(2, 30, 768)
    index = np.random.default_rng(5).integers(0, 3, (2, 30, 4))
    want = eq.matmul_grouped(x, experts, index)
    wide = np.zeros((2, 30, 1000), np.float32)
    wide[..., 100:868] = x
    before = eq.num_threads()
    try:
        for threads in (1, 2, 5):
            eq.set_num_threads(threads)
            np.testing.assert_array_equal(eq.matmul_grouped(wide[..., 100:868], experts, index), want)
    finally:
        eq.set_num_threads(before)
    out = np.empty((2, 30, 4, 160), np.float16)
    assert eq.matmul_grouped(x, experts, index.astype(np.uint8), out=out) is out
    np.testing.assert_array_equal(out, want.astype(np.float16))


def test_grouped_takes_formats_without_a_panel_and_torch() -> None:
    torch = pytest.importorskip("torch")
    plain = eq.Format("grouped_table", block=32, codes=8, table=list(np.linspace(-1, 1, 256)), scale="f16")
    experts = [weights("q4_0", 24, 64), eq.quantize(activations(24, 64, seed=9), plain)]
    x, index = torch.from_numpy(activations(5, 64)), torch.tensor([1, 0, 1, 1, 0])
    got = eq.matmul_grouped(x, experts, index, compute="exact")
    assert isinstance(got, torch.Tensor)
    want = np.stack([eq.matmul(x[i].numpy(), experts[e], compute="exact") for i, e in enumerate(index)])
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-5, atol=1e-5)


def test_grouped_refuses_what_does_not_fit() -> None:
    experts = [weights("q4_0", 24, 64), weights("q8_0", 24, 64)]
    x = activations(3, 64)
    with pytest.raises(eq.Error, match="names expert 2 of 2"):
        eq.matmul_grouped(x, experts, [0, 1, 2])
    with pytest.raises(eq.Error, match="names expert -1 of 2"):
        eq.matmul_grouped(x, experts, [0, 1, -1])
    with pytest.raises(eq.Error, match="index of shape"):
        eq.matmul_grouped(x, experts, [0, 1])
    with pytest.raises(eq.Error, match="whole numbers"):
        eq.matmul_grouped(x, experts, [0.0, 1.0, 1.0])
    with pytest.raises(eq.Error, match="one shape"):
        eq.matmul_grouped(x, [*experts, weights("q4_0", 25, 64)], [0, 1, 1])
    with pytest.raises(eq.Error, match="at least one"):
        eq.matmul_grouped(x, [], [])
    with pytest.raises(eq.Error, match="bias has shape"):
        eq.matmul_grouped(x, experts, [0, 1, 1], bias=np.zeros(24))


COMPACT_FORMATS = [name for name in PANEL_FORMATS if _core.choose_panel(name, "compact") == "compact"]


@pytest.mark.parametrize("name", COMPACT_FORMATS)
def test_both_panels_of_a_grid(name: str) -> None:
    q, bits = weights(name, 37, 768), eq.formats[name].bits_per_weight
    for rows in (1, 9):
        x = activations(rows, 768)
        want = x.astype(np.float64) @ q.dequantize().astype(np.float64).T
        assert relative_error(eq.matmul(x, q, compute="exact", panel="compact"), want) < 5e-7
        compact, fast = eq.matmul(x, q, panel="compact"), eq.matmul(x, q, panel="fast")
        np.testing.assert_allclose(compact, fast, rtol=1e-4, atol=1e-4)
    large = eq.from_bytes(np.zeros((16, eq.formats[name].row_bytes(1024)), np.uint8), name, (16, 1024))
    compact, fast = (repack(large, panel).nbytes * 8 / (16 * 1024) for panel in ("compact", "fast"))
    assert compact <= bits + 0.125 < fast


def test_the_panel_that_all_products_take() -> None:
    q, x = weights("iq3_s", 16, 256), activations(1, 256)
    assert len(COMPACT_FORMATS) == 7
    try:
        eq.set_panel("compact")
        assert repack(q) is repack(q, "compact") and repack(q) is not repack(q, "fast")
    finally:
        eq.set_panel("auto")
    assert _core.choose_panel("q4_k", "compact") == "fast"
    with pytest.raises(eq.Error, match="panel is"):
        eq.set_panel("small")
    with pytest.raises(eq.Error, match="panel is"):
        eq.matmul(x, q, panel="small")
