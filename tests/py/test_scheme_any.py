"""Whatever format can be described: it is searched, decoded, multiplied with, saved and loaded."""

import itertools
from pathlib import Path
from typing import Any

import edgequant as eq
import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

SCALES = ["f32", "f16", "bf16", "e8m0", "e4m3"]
ROWS = [list(v) for v in itertools.product((-1, 0, 1), repeat=4) if 0 in v]


@st.composite
def formats(draw: st.DrawFn) -> eq.Format:
    block = draw(st.sampled_from([8, 16, 20, 24, 32, 48, 64, 96, 128, 256]))
    given: dict[str, Any] = {"block": block, "scale": draw(st.sampled_from(SCALES))}
    kind = draw(
        st.sampled_from(
            ["plain", "half", "int", "minimum", "table", "learned", "group", "vectors", "rows", "base3", "float"]
        )
    )
    if kind == "half":
        given |= {"codes": draw(st.integers(1, 4)), "zero": draw(st.sampled_from([0.5, 1.5, 0, 1, 2, 3]))}
    elif kind == "int":
        given |= {"codes": draw(st.integers(1, 8)), "zero": "int"}
    elif kind == "minimum":
        given |= {"codes": draw(st.integers(1, 8)), "minimum": draw(st.sampled_from(["f16", "bf16", "f32"]))}
    elif kind == "table":
        bits = draw(st.integers(1, 6))
        table = np.random.default_rng(draw(st.integers(0, 99))).standard_normal(2**bits).round(3)
        given |= {"codes": bits, "table": sorted(table.tolist())}
    elif kind == "learned":
        given |= {"codes": draw(st.integers(1, 5)), "table": "learned"}
    elif kind == "group":
        given = {"block": block, "codes": draw(st.integers(1, 4)), "learned": "group"}
    elif kind == "vectors":
        given |= {"codebook": (draw(st.sampled_from([16, 100, 256, 700])), draw(st.sampled_from([2, 4])))}
    elif kind == "rows":
        given |= {"codebook": ROWS}
    elif kind == "base3":
        given |= {"base3": True} | draw(st.sampled_from([{}, {"table": "learned"}]))
    elif kind == "float":
        given |= {"minifloat": draw(st.sampled_from([(2, 1), (3, 2), (2, 3), (4, 3), (5, 2), (3, 0)]))}
    else:
        given |= {"codes": draw(st.integers(1, 8))}
    if kind in ("plain", "int", "minimum", "table") and draw(st.booleans()):
        given |= {"sub_scale": (draw(st.integers(3, 8)), draw(st.sampled_from([2, 4, 8])))}
    if block % 16 == 0 and draw(st.integers(0, 4)) == 0:
        given |= {"transform": draw(st.sampled_from(["hadamard", ("hadamard", 16, 3)]))}
    return eq.Format(repr(given), **given)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(f=formats(), blocks=st.integers(1, 3), rows=st.sampled_from([1, 7, 17, 33]), m=st.sampled_from([1, 3, 9]),
       outliers=st.booleans(), seed=st.integers(0, 2**32 - 1))  # fmt: skip
def test_any_format(f: eq.Format, blocks: int, rows: int, m: int, outliers: bool, seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    cols = blocks * f.block
    w = rng.standard_normal((rows, cols), dtype=np.float32) * np.float32(0.05)
    if outliers:
        w[:, rng.integers(cols)] *= 10
    errors = []
    for effort in ("fast", "default", "best"):
        q = eq.quantize(w, f, effort=effort)
        decoded = q.dequantize().astype(np.float64)
        assert np.isfinite(decoded).all()
        errors.append(np.sum((decoded - w) ** 2))
    noise = 1e-5 * np.sum(w.astype(np.float64) ** 2)
    chance = 1.3 if "super_plane" in f.description else 1.06  # few weights under coarse scales of scales
    if "dim" not in f.description or rows * cols > 4096:  # else there may be a row for each vector
        assert errors[2] <= chance * errors[1] + noise and errors[1] <= chance * errors[0] + noise
    x = rng.standard_normal((m, cols), dtype=np.float32)
    want = x @ decoded.T
    size = np.sqrt(np.mean(np.sum(decoded**2, axis=1)))  # of products with normal numbers
    assert np.abs(eq.matmul(x, q, compute="exact") - want).max() <= 1e-5 * size
    assert np.sqrt(np.mean((eq.matmul(x, q) - want) ** 2)) <= 0.03 * size
    eq.save(tmp_path / "q.safetensors", {"q": q})
    np.testing.assert_array_equal(eq.load(tmp_path / "q.safetensors")["q"].dequantize(), q.dequantize())
