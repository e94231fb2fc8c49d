"""edgequant.quantize, QuantizedTensor, from_bytes: what they accept, give and refuse."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import edgequant as eq
import numpy as np
import pytest

WRITABLE = "q4_0 q4_1 q5_0 q5_1 q8_0 q2_k q3_k q4_k q5_k q6_k iq4_nl iq4_xs tq1_0 tq2_0 mxfp4 f16 bf16 f32".split()


@pytest.fixture(scope="module")
def w() -> np.ndarray:
    return np.random.default_rng(1).standard_normal((24, 512), dtype=np.float32)


@pytest.mark.parametrize("name", WRITABLE)
def test_round_trip(w: np.ndarray, name: str) -> None:
    q = eq.quantize(w, name)
    f = eq.formats[name]
    assert q.format == name and q.shape == w.shape and q.ndim == 2 and q.size == w.size
    assert q.data.dtype == np.uint8 and q.data.shape == (24, 512 // f.block * f.bytes)
    assert q.nbytes == q.data.size and q.bits_per_weight == f.bytes * 8 / f.block
    back = q.dequantize()
    assert back.dtype == np.float32 and back.shape == w.shape
    exact = np.linalg.norm(back.astype(np.float64) - w) / np.linalg.norm(w.astype(np.float64))
    assert q.error(w) == pytest.approx(exact, rel=1e-6, abs=1e-12)
    assert q.error(w) < {"tq1_0": 0.9, "tq2_0": 0.9, "q2_k": 0.35}.get(name, 0.2)
    # Encoding what was decoded loses nothing more than a little: the values are on the lattice already.
    assert eq.from_bytes(q.data.tobytes(), name.upper(), w.shape) == q


def test_comparison(w: np.ndarray) -> None:
    q = eq.quantize(w, "q4_k")
    c, back = q.compare(w), q.dequantize().astype(np.float64)
    x = w.astype(np.float64)
    assert c.max_error == pytest.approx(np.abs(x - back).max(), rel=1e-6)
    assert c.cosine == pytest.approx((x * back).sum() / np.linalg.norm(x) / np.linalg.norm(back), rel=1e-9)
    assert c.sqnr_db == pytest.approx(-20 * np.log10(c.relative_rmse)) and c.count == w.size
    imp = np.arange(512, dtype=np.float32)
    weighted = np.sqrt((imp * (x - back) ** 2).sum() / (imp * x**2).sum())
    assert q.compare(w, imp).weighted_rmse == pytest.approx(weighted, rel=1e-6)
    assert eq.quantize(w, "f32").compare(w).sqnr_db == np.inf


def sources(w: np.ndarray) -> dict[str, Any]:
    wide = np.zeros((24, 1024), np.float32)
    wide[:, ::2] = w
    read_only = w.copy()
    read_only.flags.writeable = False

    class Arrayish:
        def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
            return w

    class Tensorish:
        def __dlpack__(self, **kwargs: Any) -> Any:
            return w.__dlpack__(**kwargs)

        def __dlpack_device__(self) -> Any:
            return w.__dlpack_device__()

    return {
        "strided": wide[:, ::2],
        "fortran": np.asfortranarray(w),
        "big-endian": w.astype(">f4"),
        "float64": w.astype(np.float64),
        "read-only": read_only,
        "__array__": Arrayish(),
        "dlpack": Tensorish(),
        "list": w.tolist(),
    }


@pytest.mark.parametrize("kind", sources(np.zeros((24, 512), np.float32)))
def test_every_kind_of_array(w: np.ndarray, kind: str) -> None:
    assert eq.quantize(sources(w)[kind], "q5_k") == eq.quantize(w, "q5_k")


def test_half_floats(w: np.ndarray) -> None:
    half = w.astype(np.float16)
    assert eq.quantize(half, "q8_0") == eq.quantize(half.astype(np.float32), "q8_0")
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    b = w.astype(bfloat16)
    assert eq.quantize(b, "q8_0") == eq.quantize(b.astype(np.float32), "q8_0")
    q = eq.quantize(w, "q6_k")
    assert np.array_equal(q.dequantize("float16"), q.dequantize().astype(np.float16))
    assert np.array_equal(q.dequantize("bfloat16"), q.dequantize().astype(bfloat16))
    assert q.dequantize(np.float16).dtype == np.float16 and q.dequantize("bf16").dtype == bfloat16


def test_torch(w: np.ndarray) -> None:
    torch = pytest.importorskip("torch")
    t = torch.from_numpy(w.copy())
    want = eq.quantize(w, "q4_k")
    assert eq.quantize(t, "q4_k") == want
    assert eq.quantize(t.requires_grad_(), "q4_k") == want
    assert eq.quantize(torch.from_numpy(np.ascontiguousarray(w.T)).T, "q4_k") == want
    b = t.detach().to(torch.bfloat16)
    assert eq.quantize(b, "q8_0") == eq.quantize(b.float(), "q8_0")
    assert want.dequantize(torch.float16).dtype == np.float16


def test_shapes(w: np.ndarray) -> None:
    cube = w.reshape(2, 12, 512)
    q = eq.quantize(cube, "q4_0")
    assert q.shape == (2, 12, 512) and q.data.shape == (24, 288) and q.dequantize().shape == cube.shape
    assert q.error(cube) < 0.2
    line = eq.quantize(w[0], "q4_0")
    assert line.shape == (512,) and line.data.shape == (1, 288) and line.dequantize().shape == (512,)


def test_importance_moves_the_error(w: np.ndarray) -> None:
    heavy = np.full(512, 1e-3, np.float32)
    heavy[::16] = 100
    plain, weighted = eq.quantize(w, "q4_0"), eq.quantize(w, "q4_0", importance=heavy)
    assert weighted.compare(w, heavy).weighted_rmse < 0.9 * plain.compare(w, heavy).weighted_rmse


def test_efforts_and_objectives(w: np.ndarray) -> None:
    for effort in ("fast", "default", "best"):
        assert eq.quantize(w, "q4_k", effort=effort).error(w) < 0.09
    plain, ggml = eq.quantize(w, "q4_k", objective="plain"), eq.quantize(w, "q4_k")
    assert plain.error(w) <= ggml.error(w)


def test_requantize(w: np.ndarray) -> None:
    fine = eq.quantize(w, "q8_0")
    assert eq.quantize(fine, "q4_0") == eq.quantize(fine.dequantize(), "q4_0")
    assert fine.compare(eq.quantize(w, "f16")).relative_rmse < 0.01


def test_as_array_and_equality(w: np.ndarray) -> None:
    q = eq.quantize(w, "q8_0")
    assert np.array_equal(np.asarray(q), q.dequantize())
    assert np.asarray(q, dtype=np.float64).dtype == np.float64
    assert q == eq.quantize(w, "q8_0") and q != eq.quantize(-w, "q8_0") and q != eq.quantize(w, "q4_0") and q != 1
    assert repr(q) == "QuantizedTensor(q8_0, shape=(24, 512), 8.5 bits per weight)"
    with pytest.raises(TypeError):
        hash(q)


def bad_calls(w: np.ndarray) -> dict[str, tuple[Any, str]]:
    nan, inf = w.copy(), w.copy()
    nan[3, 7], inf[0, 1] = np.nan, np.inf
    q = eq.quantize(w, "q8_0")
    imp = np.ones(512, np.float32)
    return {
        "int": (lambda: eq.quantize(w.astype(np.int32), "q8_0"), "int32"),
        "complex": (lambda: eq.quantize(w.astype(np.complex64), "q8_0"), "complex64"),
        "words": (lambda: eq.quantize("weights", "q8_0"), "cannot be quantized"),
        "nan": (lambda: eq.quantize(nan, "q4_k"), "nan|NaN"),
        "inf": (lambda: eq.quantize(inf, "q8_0"), "inf|Inf"),
        "block": (lambda: eq.quantize(w[:, :500], "q4_k"), "rows of 500.*256"),
        "scalar": (lambda: eq.quantize(np.float32(1), "q8_0"), r"\(N, K\)"),
        "empty": (lambda: eq.quantize(w[:0], "q8_0"), "at least one"),
        "format": (lambda: eq.quantize(w, "q4_kk"), "q4_k"),
        "not a format": (lambda: eq.quantize(w, "q4_k_m"), "q4_k"),
        "importance": (lambda: eq.quantize(w, "q4_0", imp[:5]), r"\(512,\)"),
        "negative": (lambda: eq.quantize(w, "q4_0", -imp), "importance"),
        "effort": (lambda: eq.quantize(w, "q4_0", effort="hard"), "hard"),  # type: ignore[arg-type]
        "size": (lambda: eq.from_bytes(b"123", "q8_0", (1, 32)), "needs 34 bytes, not 3"),
        "no bytes": (lambda: eq.from_bytes(3, "q8_0", (1, 32)), "bytes"),
        "dtype": (lambda: q.dequantize("int8"), "int8"),
        "other shape": (lambda: q.error(w[:2]), r"\(2, 512\)"),
    }


@pytest.mark.parametrize("kind", bad_calls(np.ones((24, 512), np.float32)))
def test_errors_are_one_clear_sentence(w: np.ndarray, kind: str) -> None:
    call, text = bad_calls(w)[kind]
    with pytest.raises(eq.Error, match=text) as caught:
        call()
    assert "\n" not in str(caught.value) and isinstance(caught.value, ValueError)


def test_threads_do_not_change_bytes(w: np.ndarray) -> None:
    before = eq.num_threads()
    try:
        eq.set_num_threads(1)
        assert eq.num_threads() == 1
        one = eq.quantize(w, "q4_k")
        eq.set_num_threads(3)
        assert eq.quantize(w, "q4_k") == one
    finally:
        eq.set_num_threads(before)


def test_names() -> None:
    assert dir(eq) == eq.__all__
    for name in eq.__all__:
        assert getattr(eq, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        _ = eq.nothing
    assert callable(eq.quantize) and "q4_k" in eq.formats  # not the modules of the same names


def test_import_is_light() -> None:
    code = "import sys, edgequant; print(*sorted(m for m in sys.modules if '.' not in m))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "transformers", "tqdm", "matplotlib", "argparse", "ml_dtypes"} & set(loaded)
    numpy, both = (cpu_time(f"import numpy{more}") for more in ("", ", edgequant"))
    assert both - numpy < 0.1


def cpu_time(code: str) -> float:
    """The least of three runs, in seconds of processor time: other work on the machine does not count."""
    timed = f"import time; {code}; print(time.process_time())"
    runs = (subprocess.run([sys.executable, "-c", timed], capture_output=True, check=True) for _ in range(3))
    return min(float(run.stdout) for run in runs)


def test_examples_in_docstrings() -> None:
    import doctest

    modules = [sys.modules["edgequant.quantize"], sys.modules["edgequant.tensor"]]
    for module in modules:
        result = doctest.testmod(module, extraglobs={"np": np, "edgequant": eq})
        assert result.attempted > 0 and result.failed == 0
