"""The planar formats against golden files made by the projects that define them (tools/make_planar_golden.py)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import edgequant as eq
import numpy as np
import pytest
from edgequant import _core
from edgequant.quantize import EFFORTS
from hypothesis import given, settings
from hypothesis import strategies as st

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "planar"
NAMES = sorted(p.stem for p in GOLDEN.glob("*.npz") if p.stem != "inputs")
READ_ONLY = [n for n in NAMES if n.startswith("aqlm")]
WRITABLE = [n for n in NAMES if n not in READ_ONLY]
INPUTS = {k: v.astype(np.float32) for k, v in np.load(GOLDEN / "inputs.npz").items()}


@dataclass
class Golden:
    weights: np.ndarray
    planes: dict[str, np.ndarray]
    errors: dict[str, float]


@cache
def golden(name: str) -> Golden:
    file = np.load(GOLDEN / f"{name}.npz")
    wanted = set(eq.planar_formats[name].array_names.values())
    planes = {k[6:]: file[k] for k in file if k.startswith("plane:") and k[6:] in wanted}
    return Golden(file["weights"], planes, json.loads(bytes(file["meta"]))["errors"])


def matrix(name: str, seed: int = 0) -> np.ndarray:
    """Gaussian weights of the golden file's shape."""
    shape = golden(name).weights.shape
    return (np.random.default_rng(seed).standard_normal(shape) * 0.02).astype(np.float32)


@pytest.mark.parametrize("name", NAMES)
def test_decoding_equals_the_defining_project(name: str) -> None:
    g = golden(name)
    q = eq.from_planes(g.planes, name, g.weights.shape)
    np.testing.assert_array_equal(q.dequantize(), g.weights)


@pytest.mark.parametrize("target", _core.simd_targets())
def test_every_instruction_set_decodes_and_encodes(target: str) -> None:
    _core.use_simd_target(target)
    try:
        for name in NAMES:
            g = golden(name)
            np.testing.assert_array_equal(eq.from_planes(g.planes, name, g.weights.shape).dequantize(), g.weights, name)
            if name in WRITABLE:
                w = matrix(name, 6)
                assert 0 < eq.quantize(w, name).error(w) < 0.72, name
    finally:
        _core.use_simd_target("")


@pytest.mark.parametrize("name", WRITABLE)
def test_encoding_writes_planes_like_the_project(name: str) -> None:
    g = golden(name)
    q = eq.quantize(matrix(name), name)
    assert q.format == name and q.shape == g.weights.shape
    for key, plane in g.planes.items():
        assert q.planes[key].nbytes == plane.nbytes, key
        assert q.planes[key].dtype.itemsize == plane.dtype.itemsize, key
        if plane.ndim > 1:
            assert q.planes[key].shape == plane.shape, key
    again = eq.from_planes(q.planes, name, q.shape)
    assert again == q
    np.testing.assert_array_equal(again.dequantize(), q.dequantize())


@pytest.mark.parametrize("name", WRITABLE)
def test_more_effort_is_never_worse(name: str) -> None:
    w = matrix(name, 1)
    errors = [eq.quantize(w, name, effort=effort).error(w) for effort in EFFORTS]
    assert errors[0] >= errors[1] * 0.9999 and errors[1] >= errors[2] * 0.998, errors
    assert 0 < errors[2] < 0.72


@pytest.mark.parametrize("name", [n for n in WRITABLE if golden(n).errors])
@pytest.mark.parametrize("kind", INPUTS)
def test_default_effort_is_never_above_the_projects_error(name: str, kind: str) -> None:
    w = INPUTS[kind]
    if name.startswith("torchao"):  # its tiles have 64 rows
        w = np.tile(w, (4, 1))
    # OneBit's singular vectors are not rounded to float16, as its factors are.
    tolerance = 1e-4 if name == "onebit.rank1" else 1e-5
    assert eq.quantize(w, name).error(w) <= golden(name).errors[kind] * (1 + tolerance)


@pytest.mark.parametrize("name", [n for n in WRITABLE if golden(n).errors and eq.planar_formats[n].follows_rule])
def test_fast_effort_is_the_projects_rule(name: str) -> None:
    w = np.tile(INPUTS["gauss"], (4, 1)) if name.startswith("torchao") else INPUTS["gauss"]
    assert eq.quantize(w, name, effort="fast").error(w) <= golden(name).errors["gauss"] * 1.003


@pytest.mark.parametrize("name", ["mlx.affine4.g64", "awq.int4.g32", "bnb.nf4.g64", "quip.e8p", "gptq_v2.int4.g64.act"])
def test_importance_lowers_the_weighted_error(name: str) -> None:
    w = matrix(name, 2)
    importance = np.random.default_rng(3).lognormal(0, 1.5, w.shape[1]).astype(np.float32)
    plain = eq.quantize(w, name, effort="best").compare(w, importance).weighted_rmse
    heavy = eq.quantize(w, name, importance, effort="best").compare(w, importance).weighted_rmse
    assert heavy < plain * 0.995


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_columns_in_the_order_of_their_importance_need_not_fill_words(bits: int) -> None:
    w = (np.random.default_rng(7).standard_normal((32, 200)) * 0.02).astype(np.float32)
    importance = np.random.default_rng(8).permutation(200).astype(np.float32)
    q = eq.quantize(w, f"gptq.int{bits}.g32.act", importance)
    groups = q.planes["g_idx"]
    assert sorted(groups) == sorted(np.arange(200) // 32)
    assert importance[groups == 0].min() > importance[groups == 1].max()
    assert q.error(w) < eq.quantize(w, f"gptq.int{bits}.g32", importance).error(w) * 1.1


EXTREMES: dict[str, Any] = {
    "zeros": lambda w: w * 0,
    "constant": lambda w: w * 0 + 0.37,
    "one outlier": lambda w: np.where(np.arange(w.size).reshape(w.shape) == 5, np.float32(1e4), w * 1e-3),
    "subnormal": lambda w: w * np.float32(1e-42),
    "large": lambda w: w * np.float32(2e5),
}


@pytest.mark.parametrize("name", WRITABLE)
@pytest.mark.parametrize("kind", EXTREMES)
def test_extreme_weights_stay_finite(name: str, kind: str) -> None:
    w = EXTREMES[kind](matrix(name, 4)).astype(np.float32)
    decoded = eq.quantize(w, name).dequantize()
    assert np.isfinite(decoded).all()
    if kind == "zeros" and "table1" not in name:
        assert np.abs(decoded).max() < 1e-6
    elif kind in ("one outlier", "subnormal"):
        assert np.abs(decoded).max() <= 2 * np.abs(w).max() + 1e-6


@pytest.mark.parametrize("name", READ_ONLY)
def test_formats_without_an_encoder_say_so(name: str) -> None:
    with pytest.raises(eq.Error, match="read but not written"):
        eq.quantize(matrix(name), name)


@pytest.mark.parametrize("name", NAMES)
def test_wrong_planes_are_refused(name: str) -> None:
    g = golden(name)
    for key, plane in g.planes.items():
        with pytest.raises(eq.Error):
            eq.from_planes({k: v for k, v in g.planes.items() if k != key}, name, g.weights.shape)
        with pytest.raises(eq.Error):
            eq.from_planes({**g.planes, key: np.tile(plane.reshape(-1), 2)}, name, g.weights.shape)


ANY_SHAPE = sorted(n for n in eq.planar_formats if not n.startswith(("aqlm", "bitnet.tl")))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(ANY_SHAPE), st.integers(1, 3), st.integers(1, 3), st.integers(0, 2**32 - 1), st.booleans())
def test_planes_hold_what_was_encoded(name: str, rows: int, cols: int, seed: int, heavy_tails: bool) -> None:
    """The same planes with any number of threads, whatever the shape, and no more error than the project's rule."""
    group = eq.planar_formats[name].block or 64
    tiled = name.startswith(("torchao", "quip", "awq", "gptq", "bitnet", "hqq"))  # words that hold several rows
    shape = (
        64 * rows if tiled else rows,
        (group * cols + 7) // 8 * 8 if name.startswith("onnx") else 64 * cols * group // 16,
    )
    random = np.random.default_rng(seed)
    w = (random.standard_t(3, shape) if heavy_tails else random.standard_normal(shape)).astype(np.float32)
    q = eq.quantize(w, name, effort="fast")
    threads = eq.num_threads()
    eq.set_num_threads(1)
    try:
        assert eq.quantize(w, name, effort="fast") == q
    finally:
        eq.set_num_threads(threads)
    again = eq.from_planes({k: v.copy() for k, v in q.planes.items()}, name, shape)
    np.testing.assert_array_equal(again.dequantize(), q.dequantize())
    assert np.isfinite(q.dequantize()).all()
    if eq.planar_formats[name].follows_rule:
        assert eq.quantize(w, name).error(w) <= q.error(w) * 1.00001


@pytest.mark.parametrize("name", ["mlx.affine4.g64.bf16", "fp8.e4m3.channel", "gptq.int4.g32", "awq.int4.g32"])
def test_planes_may_be_torch_tensors(name: str) -> None:
    torch = pytest.importorskip("torch")
    g = golden(name)
    planes = {k: torch.from_numpy(v.view(np.int32) if v.dtype == np.uint32 else v) for k, v in g.planes.items()}
    if name.startswith("mlx"):
        planes |= {k: planes[k].view(torch.bfloat16) for k in ("scales", "biases")}
    if name.startswith("fp8"):
        planes["weight"] = planes["weight"].view(torch.float8_e4m3fn)
    if name.startswith("awq"):  # a view that is not contiguous
        planes["scales"] = planes["scales"].T.contiguous().T
    np.testing.assert_array_equal(eq.from_planes(planes, name, g.weights.shape).dequantize(), g.weights)


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2"])
def test_every_byte_is_what_torch_reads(dtype: str) -> None:
    torch = pytest.importorskip("torch")
    name = f"fp8.{dtype[7:11]}.channel"
    codes = np.arange(256, dtype=np.uint8).reshape(1, 256)
    planes = {"weight": codes, "weight_scale": np.ones((1, 1), np.float32)}
    want = torch.from_numpy(codes).view(getattr(torch, dtype)).float().numpy()
    np.testing.assert_array_equal(eq.from_planes(planes, name, (1, 256)).dequantize(), want)


def test_every_format_survives_its_own_description() -> None:
    for format in eq.planar_formats.values():
        again = eq.Format.from_json(format.to_json())
        assert again == format and again.bits_per_weight == format.bits_per_weight


def test_act_order_keeps_columns_of_like_importance_together() -> None:
    w = matrix("gptq_v2.int4.g64.act", 5)
    importance = np.linspace(1, 2, w.shape[1], dtype=np.float32)
    q = eq.quantize(w, "gptq_v2.int4.g64.act", importance)
    np.testing.assert_array_equal(q.planes["g_idx"], (w.shape[1] - 1 - np.arange(w.shape[1])) // 64)


def test_act_order_takes_groups_of_any_size_and_refuses_those_that_are_none() -> None:
    g = golden("gptq_v2.int4.g64.act")
    one = np.zeros_like(g.planes["g_idx"])
    first = eq.from_planes({**g.planes, "g_idx": one}, "gptq_v2.int4.g64.act", g.weights.shape).dequantize()
    codes, scale = g.planes["qweight"], g.planes["scales"]
    lowest = (codes.view(np.uint32)[0] & 15).astype(np.float32) - (g.planes["qzeros"].view(np.uint32)[0, 0] & 15)
    assert first[0, 0] == np.float32(lowest[0]) * np.float32(scale[0, 0])
    for wrong in (-1, g.weights.shape[1] // 64):
        with pytest.raises(eq.Error, match=f"g_idx names group {wrong} of"):
            eq.from_planes({**g.planes, "g_idx": one + wrong}, "gptq_v2.int4.g64.act", g.weights.shape)


def test_planes_of_another_shape_are_refused() -> None:
    for name in NAMES:
        g = golden(name)
        for rows, cols in (
            (g.weights.shape[0] + 1, g.weights.shape[1]),
            (g.weights.shape[0], g.weights.shape[1] + 512),
        ):
            with pytest.raises(eq.Error):
                eq.from_planes(g.planes, name, (rows, cols))
        with pytest.raises(eq.Error):
            eq.from_planes(g.planes, name, (0, 0))


MISFITS = {"torchao.int4.g32": (60, 64), "quip.e8p": (24, 64), "onebit.rank1": (24, 12)}


@pytest.mark.parametrize("name", MISFITS)
def test_shapes_that_do_not_fit_are_named(name: str) -> None:
    wrong = MISFITS[name][name == "onebit.rank1"]
    with pytest.raises(eq.Error, match=str(wrong)):
        eq.quantize(np.ones(MISFITS[name], np.float32), name)
