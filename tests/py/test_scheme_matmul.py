"""Products with weights in formats that are described at run time."""

from __future__ import annotations

import itertools

import edgequant as eq
import numpy as np
import pytest

SPARSE = [v for v in itertools.product((-1.0, 0.0, 1.0), repeat=4) if v.count(0.0) == 1]
TABLE5 = [np.sinh((k - 15.5) / 6) for k in range(32)]
FORMATS = [
    *(eq.Format(f"own{i + 1}", block=n, codes=i + 1) for i, n in enumerate((16, 32, 64, 128, 256, 48, 512, 32))),
    *(eq.Format(f"zero{bits}", block=32, codes=bits, zero="int") for bits in (2, 4, 8)),
    eq.Format("zero_float", block=64, codes=3, zero="f16"),
    *(eq.Format(f"minimum{bits}", block=32, codes=bits, minimum="f16") for bits in (1, 4, 5, 8)),
    eq.Format("half", block=64, codes=2, zero=1.5),
    eq.Format("table", block=64, codes=2, table=[-1, -0.3, 0.3, 1]),
    eq.Format("table1", block=64, codes=1, table=[-0.4, 1]),
    eq.Format("learned", block=32, codes=4, table="learned", scale="f32"),
    eq.Format("whole", block=32, codes=3, table=[-9, -5, -2.5, -1, 1, 2.5, 5, 9]),
    eq.Format("ternary", block=64, base3=True),
    eq.Format("levels", block=32, codes=4, minimum="f16", sub_scale=(6, 8)),
    eq.Format("bf16", block=32, codes=4, scale="bf16"),
    eq.Format("vectors", block=64, codebook=(64, 4)),
    eq.Format("vectors8", block=48, codebook=(200, 8), scale="bf16"),
    eq.Format("sparse", block=64, codebook=SPARSE),
    eq.Format("tables", block=64, codes=2, learned="group"),
    eq.Format("tables_f32", block=128, codes=4, learned="group", scale="f32"),
    eq.Format("table8", block=64, codes=8, table="learned"),
    eq.Format("table5", block=32, codes=5, table=TABLE5, minimum="f16"),
    *(eq.Format(f"small{n}", block=n, codes=4) for n in (4, 8, 24)),
    eq.Format("tiny", block=2, codes=4),
    eq.Format("small_table", block=24, codes=5, table=TABLE5, scale="f32"),
    eq.Format("small_vectors", block=24, codebook=(200, 8)),
    eq.Format("small_zero", block=12, codes=4, zero="int", scale="bf16"),
    eq.Format("e4m3", block=32, codes=4, table=[*range(8), *range(0, -8, -1)], scale="e4m3"),
    *(eq.Format(f"zero{zero}", block=32, codes=8, zero=zero) for zero in (64, 127.5, 200)),
    *(eq.planar_formats[f"mlx.affine{kind}"] for kind in ("4.g64", "8.g32")),
    *(eq.planar_formats[name] for name in ("onnx.nbits4.g32", "onnx.nbits8.g128.zp", "gptq.int4.g32", "hqq.int4.g64",
                                               "fp8.e4m3.channel", "fp8.e4m3.block128", "mlx.mxfp8", "bnb.nf4.g64")),
]  # fmt: skip
EXACT = {"own", "minimum1", "minimum4", "minimum5", "half", "whole", "ternary", "table", "table1", "sparse",
         "small4", "small8", "small24", "small_zero", "bf16", "e4m3",
         "zero2", "zero4", "zero8", "mlx.affine4.g64", "gptq.int4.g32"}  # fmt: skip


@pytest.mark.parametrize("f", FORMATS, ids=lambda f: f.name)
@pytest.mark.parametrize("rows", [1, 3, 9])
def test_products(f: eq.Format, rows: int) -> None:
    rng = np.random.default_rng(1)
    cols = 1536
    w = rng.standard_normal((40, cols), dtype=np.float32) * 0.02
    x, bias = rng.standard_normal((rows, cols), dtype=np.float32), rng.standard_normal(40, dtype=np.float32)
    q = eq.quantize(w, f)
    want = x.astype(np.float64) @ q.dequantize().T.astype(np.float64)
    norm = np.sqrt(np.mean(want**2))
    exact = eq.matmul(x, q, compute="exact", bias=bias) - bias
    assert np.sqrt(np.mean((exact - want) ** 2)) < 3e-6 * norm
    assert np.sqrt(np.mean((eq.matmul(x, q) - want) ** 2)) < 0.012 * norm
    half = eq.matmul(x.astype(np.float16), q, compute="exact")
    assert half.dtype == np.float16 and np.sqrt(np.mean((half - want) ** 2)) < 2e-3 * norm


@pytest.mark.parametrize("f", FORMATS, ids=lambda f: f.name)
def test_which_panels_hold_the_very_weights(f: eq.Format) -> None:
    q = eq.quantize(np.random.default_rng(2).standard_normal((16, 1536), dtype=np.float32), f)
    assert isinstance(q, eq.SchemeTensor)
    found = q.repack(16, 1536)
    if f.name == "tiny":
        assert found is None
    else:
        assert found is not None
        panel, exact = found
        assert exact == (f.name in EXACT or f.name.startswith("own"))
        assert (panel.rows, panel.cols, panel.format) == (16, 1536, f.name)
    precise = q.repack_exactly(16, 1536)
    assert (precise.rows, precise.cols, precise.format) == (16, 1536, f.name)
    if f.name == "sparse":  # three different numbers, and a scale for 64
        assert found is not None and found[0].nbytes == 16 * 1536 * (2 + 16 / 64) / 8


IN_PLACE = [
    *(f"hqq.int{bits}.g64" for bits in (1, 2, 3, 4, 8)),
    *(f"gptq.int{bits}.g128" for bits in (2, 3, 4, 8)),
    *(f"ct.int{bits}.g128" for bits in range(1, 9)),
    *(f"mlx.affine{bits}.g64" for bits in (2, 3, 4, 5, 6, 8)),
    *(f"onnx.nbits{bits}.g64.zp" for bits in (2, 4, 8)),
    *(f"bitnet.{kind}" for kind in ("hf", "i2_s.x86", "i2_s.arm", "i2_s.rows4")),
    *("awq.int4.g64", "ct.int8", "openvino.u4.g64", "openvino.i8.g64", "paretoq.int2", "fp8.e4m3.channel"),
]
BLOCKS = [eq.Format(f"blocks{n}x{bits}", block=n, codes=bits) for n in (16, 64, 128) for bits in (1, 2, 3, 4, 5, 8)]


@pytest.mark.parametrize(("rows", "cols"), [(128, 1152), (64, 640), (71, 1280)])
def test_panels_of_codes_wherever_they_lie(rows: int, cols: int) -> None:
    rng = np.random.default_rng(11)
    w = rng.standard_normal((rows, cols), dtype=np.float32)
    x = rng.standard_normal((2, cols), dtype=np.float32)
    for f in [*BLOCKS, *(eq.planar_formats[name] for name in IN_PLACE)]:
        try:
            q = eq.quantize(w, f, effort="fast")
        except eq.Error:  # rows or columns that the format cannot have
            assert rows == 71 or f.name.startswith("bitnet") or cols == 640, f.name
            continue
        want = x.astype(np.float64) @ q.dequantize().T.astype(np.float64)
        got = eq.matmul(x, q, compute="exact" if "fp8" not in f.name else "int8")
        tolerance = 1e-5 if "fp8" not in f.name else 0.1
        np.testing.assert_allclose(got, want, rtol=0, atol=tolerance * np.sqrt(np.mean(want**2)), err_msg=f.name)


@pytest.mark.parametrize(
    ("name", "bits"),
    [("bitnet.tl1.128x64x32", 2), ("bitnet.tl2.128x96x32", 2), ("torchao.int4.g64", 4.5), ("quip.e8p", 4)],
)
def test_products_of_rearranged_codes(name: str, bits: float) -> None:
    rng = np.random.default_rng(4)
    q = eq.quantize(rng.standard_normal((128, 1536), dtype=np.float32), name, effort="fast")
    assert isinstance(q, eq.SchemeTensor)
    found = q.repack(128, 1536)
    assert found is not None and found[0].nbytes * 8 == pytest.approx(128 * 1536 * bits, rel=0.04)
    x = rng.standard_normal((3, 1536), dtype=np.float32)
    want = x @ q.dequantize().T
    assert np.sqrt(np.mean((eq.matmul(x, q) - want) ** 2)) < 0.012 * np.sqrt(np.mean(want**2))
    np.testing.assert_allclose(eq.matmul(x, q, compute="exact"), want, atol=2e-4)


def random_groups(cols: int, group: int, regular: bool) -> np.ndarray:
    groups = np.arange(cols) // group
    rng = np.random.default_rng(9)
    return rng.permutation(groups if regular else rng.integers(0, groups[-1] + 1, cols)).astype(np.int32)


@pytest.mark.parametrize(("bits", "group", "cols", "regular"), [
    (4, 128, 1536, True), (2, 32, 512, True), (3, 64, 320, True), (8, 32, 96, True),
    (4, 128, 1536, False), (8, 64, 320, False), (3, 32, 64, False),
])  # fmt: skip
def test_columns_of_any_groups(bits: int, group: int, cols: int, regular: bool) -> None:
    name = f"gptq.int{bits}.g{group}.act"
    rng = np.random.default_rng(8)
    planes = eq.quantize(rng.standard_normal((64, cols), dtype=np.float32), name).planes
    planes = {**planes, "g_idx": random_groups(cols, group, regular)}
    q = eq.from_planes(planes, name, (64, cols))
    found = q.repack(64, cols)
    assert found is not None and found[1] and (found[0].rows, found[0].cols) == (64, cols)
    if regular:
        plain = eq.quantize(rng.standard_normal((64, cols), dtype=np.float32), name.removesuffix(".act"))
        assert isinstance(plain, eq.SchemeTensor)
        same = plain.repack(64, cols)
        assert same is not None and found[0].nbytes == same[0].nbytes
    wide = rng.standard_normal((21, cols + 9), dtype=np.float32)
    bias, scale = rng.standard_normal((2, 64), dtype=np.float32)
    for rows in (0, 1, 4, 21):
        x = wide[:rows, 5 : cols + 5]
        want = x.astype(np.float64) @ q.dequantize().T.astype(np.float64)
        norm = np.sqrt(np.mean(want**2)) if rows else 0
        np.testing.assert_allclose(eq.matmul(x, q, compute="exact"), want, rtol=0, atol=4e-6 * norm)
        got = eq.matmul(x, q, bias=bias, scale=scale)
        assert got.shape == (rows, 64)
        np.testing.assert_allclose(got, want * scale + bias, rtol=0, atol=0.06 * norm * np.abs(scale).max())
        half = x.astype(np.float16)
        same_numbers = eq.matmul(half.astype(np.float32), q).astype(np.float16)
        np.testing.assert_array_equal(eq.matmul(half, q), same_numbers)


def test_one_bit_with_factors_of_rows_and_columns() -> None:
    rng = np.random.default_rng(8)
    w = rng.standard_normal((40, 1536), dtype=np.float32) * rng.uniform(0.5, 1.5, 1536).astype(np.float32)
    q = eq.quantize(w, "onebit.rank1")
    assert isinstance(q, eq.SchemeTensor)
    found = q.repack(40, 1536)
    assert found is not None and found[1] and found[0].nbytes * 8 == 48 * 1536 * (1 + 16 / 256)
    for rows in (0, 1, 3, 9, 70):
        x = rng.standard_normal((rows, 1540), dtype=np.float32)[:, 2:-2]
        want = x.astype(np.float64) @ q.dequantize().T.astype(np.float64)
        norm = np.sqrt(np.mean(want**2)) if rows else 0
        np.testing.assert_allclose(eq.matmul(x, q, compute="exact"), want, rtol=0, atol=4e-6 * norm)
        assert rows == 0 or np.sqrt(np.mean((eq.matmul(x, q) - want) ** 2)) < 0.012 * norm


@pytest.mark.parametrize(("books", "bits"), [(1, 16), (2, 8)])
def test_sums_of_codebook_entries(books: int, bits: int) -> None:
    rng = np.random.default_rng(7)
    shape = (45, 1048)
    planes = {
        "codes": rng.integers(0, 1 << bits, (45, 131, books)).astype(f"uint{bits}").view(f"int{bits}"),
        "codebooks": rng.standard_normal((books, 1 << bits, 1, 8)).astype(np.float16),
        "scales": rng.uniform(0.5, 2, (45, 1, 1, 1)).astype(np.float16),
    }
    q = eq.from_planes(planes, f"aqlm.{books}x{bits}.g8", shape)
    found = q.repack(*shape)
    assert found is not None and found[1] and found[0].nbytes < q.nbytes * 2
    for rows in (0, 1, 3, 30):
        x = rng.standard_normal((rows, 1050), dtype=np.float32)[:, 1:-1]
        want = x.astype(np.float64) @ q.dequantize().T.astype(np.float64)
        got = eq.matmul(x, q)
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-6 * np.abs(x).sum(-1, keepdims=True).max(initial=1))
        if rows:
            np.testing.assert_array_equal(eq.matmul(x[-1:], q, compute="exact"), got[-1:])


def test_experts_that_prepare_their_inputs() -> None:
    rng = np.random.default_rng(3)
    experts = [eq.quantize(rng.standard_normal((32, 512), dtype=np.float32), name)
               for name in ("gptq.int4.g128.act", "onebit.rank1", "q4_0", "bf16")]  # fmt: skip
    x = rng.standard_normal((40, 512), dtype=np.float32)
    index = rng.integers(0, 4, (40, 2))
    for compute in ("int8", "exact"):
        want = np.stack([[eq.matmul(x[i], experts[e], compute=compute) for e in index[i]] for i in range(40)])
        got = eq.matmul_grouped(x, experts, index, compute=compute)
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-3)
    before = eq.num_threads()
    for threads in (1, 2):
        eq.set_num_threads(threads)
        np.testing.assert_array_equal(eq.matmul_grouped(x, experts, index, compute="exact"), got)
    eq.set_num_threads(before)


@pytest.mark.parametrize("f", [
    eq.planar_formats["fp8.e4m3.channel"], eq.planar_formats["fp8.e5m2.channel"], eq.planar_formats["mlx.mxfp8"],
    eq.Format("e4m3_scales", block=96, minifloat=(5, 2), scale="e4m3"),
    eq.Format("table6", block=64, codes=6, table=sorted(s * 1.2**k for k in range(32) for s in (-1, 1))),
], ids=lambda f: f.name)  # fmt: skip
def test_wide_numbers_far_below_the_largest(f: eq.Format) -> None:
    rng = np.random.default_rng(13)
    w = rng.standard_normal((40, 1536), dtype=np.float32) * 0.02
    w[np.arange(40), rng.integers(0, 1536, 40)] = 1  # 50 standard deviations
    x = rng.standard_normal((9, 1536), dtype=np.float32)
    q = eq.quantize(w, f)
    want = x.astype(np.float64) @ q.dequantize().T.astype(np.float64)
    assert np.sqrt(np.mean((eq.matmul(x, q) - want) ** 2)) < 0.02 * np.sqrt(np.mean(want**2))


def test_what_is_no_number_stays_so() -> None:
    q = eq.quantize(np.random.default_rng(6).standard_normal((16, 256), dtype=np.float32), "fp8.e4m3.channel")
    assert isinstance(q, eq.SchemeTensor) and q.repack(16, 256) is not None
    planes = {name: plane.copy() for name, plane in q.planes.items()}
    planes["weight"].reshape(16, 256)[3, 7] = 0x7F
    broken = eq.from_planes(planes, "fp8.e4m3.channel", (16, 256))
    y = eq.matmul(np.ones((2, 256), np.float32), broken)
    assert np.isnan(y[:, 3]).all() and np.isfinite(np.delete(y, 3, axis=1)).all()


def test_e8p_has_two_panels() -> None:
    rng = np.random.default_rng(5)
    for cols in (1536, 320):  # 256 does not divide the second: it has one
        q = eq.quantize(rng.standard_normal((64, cols), dtype=np.float32), "quip.e8p", effort="fast")
        assert isinstance(q, eq.SchemeTensor)
        x = rng.standard_normal((3, cols), dtype=np.float32)
        compact, fast = (eq.matmul(x, q, panel=panel) for panel in ("compact", "fast"))
        np.testing.assert_allclose(compact, fast, atol=1e-3 * np.abs(fast).max())  # the fast one rounds the scale
        exact = eq.matmul(x, q, panel="compact", compute="exact")
        np.testing.assert_allclose(exact, x @ q.dequantize().T, atol=2e-4)
        found = q.repack(64, cols, "compact")
        assert found is not None and (found[0].nbytes * 8 < 64 * cols * 2.4) == (cols == 1536)


def test_rows_that_end_within_a_group() -> None:
    w = np.random.default_rng(3).standard_normal((20, 200), dtype=np.float32)
    x = np.random.default_rng(4).standard_normal((2, 200), dtype=np.float32)
    for name in ("onnx.nbits4.g128", "onnx.nbits4.g16.zp", "fp8.e4m3.channel"):
        q = eq.quantize(w, name)
        want = x @ q.dequantize().T
        np.testing.assert_allclose(eq.matmul(x, q, compute="exact"), want, atol=2e-5 * np.abs(want).max())
        assert np.sqrt(np.mean((eq.matmul(x, q) - want) ** 2)) < 0.012 * np.sqrt(np.mean(want**2))


@pytest.mark.parametrize("block", [20, 32, 128])
def test_one_bit_of_two_levels_far_apart(block: int) -> None:
    rng = np.random.default_rng(block)
    w = (rng.standard_normal((33, 3 * block)) * 0.05).astype(np.float32)
    w[:, 7] *= 50
    f = eq.Format("apart", block=block, codes=1, table=[0.03, 2.5])
    q, x = eq.quantize(w, f), rng.standard_normal((5, 3 * block), dtype=np.float32)
    want = x.astype(np.float64) @ q.dequantize().T.astype(np.float64)
    size = np.sqrt(np.mean(np.sum(q.dequantize() ** 2, axis=1)))
    assert np.abs(eq.matmul(x, q, compute="exact") - want).max() <= 1e-5 * size
    assert np.sqrt(np.mean((eq.matmul(x, q) - want) ** 2)) <= 0.01 * size
