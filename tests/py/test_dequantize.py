"""Decoding: the bits of ggml (through gguf, libgguf and golden files) with every instruction set; clear refusals."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import gguf
import libgguf
import numpy as np
import pytest
from edgequant import _core
from edgequant.formats import BlockFormat, formats
from hypothesis import given, settings
from hypothesis import strategies as st

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
ROWS, COLS = 12, 1024


@pytest.fixture(params=_core.simd_targets())
def target(request: pytest.FixtureRequest) -> Iterator[str]:
    _core.use_simd_target(request.param)
    yield request.param
    _core.use_simd_target("")


def random_bytes(f: BlockFormat, rows: int = ROWS, cols: int = COLS, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (rows, f.row_bytes(cols)), dtype=np.uint8)


def assert_same_bits(a: np.ndarray, b: np.ndarray) -> None:
    """Equal bits; any NaN equals any NaN."""
    assert a.dtype == b.dtype == np.float32 and a.shape == b.shape
    different = (a.view(np.uint32) != b.view(np.uint32)) & ~(np.isnan(a) & np.isnan(b))
    assert not different.any(), np.argwhere(different)[:5]


def by_gguf(f: BlockFormat, data: np.ndarray) -> np.ndarray:
    assert f.gguf_type is not None
    with np.errstate(all="ignore"):
        return gguf.quants.dequantize(data, gguf.GGMLQuantizationType(f.gguf_type))


def by_libgguf(f: BlockFormat, data: np.ndarray) -> np.ndarray:
    return np.asarray(libgguf.dequantize_rows(data, f.gguf_type, COLS))


IN_GGUF = [f.name for f in formats.values() if f.name not in ("q1_0", "q2_0")]  # gguf knows neither of these two
IN_LIBGGUF = [f.name for f in formats.values() if f.block > 1 and f.name != "q2_0"]


@pytest.mark.parametrize("name", IN_GGUF)
def test_equals_gguf(name: str, target: str) -> None:
    data = random_bytes(formats[name])
    assert_same_bits(_core.dequantize(data, name, ROWS, COLS), by_gguf(formats[name], data))


@pytest.mark.parametrize("name", IN_LIBGGUF)
def test_equals_libgguf(name: str, target: str) -> None:
    data = random_bytes(formats[name], seed=1)
    assert_same_bits(_core.dequantize(data, name, ROWS, COLS), by_libgguf(formats[name], data))


@pytest.mark.parametrize("name", formats)
def test_equals_the_golden_file(name: str, target: str) -> None:
    blocks = np.fromfile(GOLDEN / f"{name}.blocks", np.uint8)
    want = np.fromfile(GOLDEN / f"{name}.f32", "<f4").reshape(1, -1)
    assert_same_bits(_core.dequantize(blocks, name, 1, want.size), want)


@pytest.mark.parametrize("name", IN_GGUF)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_block_equals_gguf(name: str, data: st.DataObject) -> None:
    f = formats[name]
    block = data.draw(st.binary(min_size=f.bytes, max_size=f.bytes))
    array = np.frombuffer(block, np.uint8).reshape(1, -1)
    assert_same_bits(_core.dequantize(block, name, 1, f.block), by_gguf(f, array))


@pytest.mark.parametrize("name", formats)
def test_sixteen_bit_outputs_are_the_rounded_floats(name: str, target: str) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    data = random_bytes(formats[name], seed=2)
    f32 = _core.dequantize(data, name, ROWS, COLS)
    f16 = _core.dequantize(data, name, ROWS, COLS, "f16")
    bf16 = _core.dequantize(data, name, ROWS, COLS, to="bf16")
    assert (f16.dtype, bf16.dtype, f16.shape, bf16.shape) == (np.float16, np.uint16, f32.shape, f32.shape)
    with np.errstate(all="ignore"):
        want16 = f32.astype(np.float16)
        want_b = f32.astype(ml_dtypes.bfloat16)
    nan = np.isnan(f32)
    assert np.array_equal(np.isnan(f16), nan) and np.array_equal(np.isnan(bf16.view(ml_dtypes.bfloat16)), nan)
    assert np.array_equal(f16.view(np.uint16)[~nan], want16.view(np.uint16)[~nan])
    assert np.array_equal(bf16[~nan], want_b.view(np.uint16)[~nan])


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_do_not_change_the_result(threads: int) -> None:
    f = formats["q6_k"]
    data = random_bytes(f, 300, 4096)
    _core.set_num_threads(threads)
    try:
        assert _core.num_threads() == threads
        assert_same_bits(_core.dequantize(data, "q6_k", 300, 4096), by_gguf(f, data))
    finally:
        _core.set_num_threads(0)


def test_output_array() -> None:
    data = random_bytes(formats["q8_0"])
    out = np.empty((ROWS, COLS), np.float32)
    assert _core.dequantize(data, "q8_0", ROWS, COLS, out=out) is out
    assert_same_bits(out, by_gguf(formats["q8_0"], data))
    wide = np.empty((ROWS, 2 * COLS), np.float32)
    read_only = out.copy()
    read_only.flags.writeable = False
    for wrong in (np.empty((ROWS, COLS)), out[:-1], wide[:, ::2], read_only, [1.0]):
        with pytest.raises(_core.Error, match="out must be a writable C-contiguous array of float32 with shape"):
            _core.dequantize(data, "q8_0", ROWS, COLS, out=wrong)


def test_any_buffer_will_do() -> None:
    data = random_bytes(formats["q4_0"])
    want = _core.dequantize(data, "q4_0", ROWS, COLS)
    frozen = data.copy()
    frozen.flags.writeable = False
    for source in (data.tobytes(), bytearray(data), memoryview(data), frozen, data.reshape(-1), data.view(np.int16)):
        assert_same_bits(_core.dequantize(source, "q4_0", ROWS, COLS), want)


def test_empty_matrices() -> None:
    assert _core.dequantize(b"", "q4_k", 0, 256).shape == (0, 256)
    assert _core.dequantize(b"", "q4_k", 3, 0, "f16").shape == (3, 0)


def test_refusals() -> None:
    data = bytes(144)
    with pytest.raises(_core.Error, match="no format named 'q4'"):
        _core.dequantize(data, "q4", 1, 256)
    with pytest.raises(_core.Error, match="rows of 255 weights are not a multiple of its block of 256"):
        _core.dequantize(data, "q4_k", 1, 255)
    with pytest.raises(_core.Error, match=r"2 x 256 weights in q4_k take 144 bytes a row, but there are 144 bytes"):
        _core.dequantize(data, "q4_k", 2, 256)
    with pytest.raises(_core.Error, match="but there are 144 bytes"):
        _core.dequantize(data, "q4_k", 2**60, 2**62)
    with pytest.raises(_core.Error, match="decoded to f32, f16 or bf16, not to q8_0"):
        _core.dequantize(data, "q4_k", 1, 256, "q8_0")
    with pytest.raises((BufferError, ValueError)):
        _core.dequantize(np.zeros((4, 288), np.uint8)[:, ::2], "q4_k", 4, 256)
    with pytest.raises(TypeError):
        _core.dequantize("text", "q4_k", 1, 256)
    with pytest.raises(TypeError):
        _core.dequantize(data, "q4_k", -1, 256)


def test_compare_adds_up_differences() -> None:
    rng = np.random.default_rng(3)
    x = rng.standard_normal((40, 512), dtype=np.float32)
    importance = rng.random(512, dtype=np.float32)
    data = random_bytes(formats["q8_0"], 40, 512)
    data.reshape(40, -1, 34)[:, :, :2] = np.array([0.02], np.float16).view(np.uint8)
    y = _core.dequantize(data, "q8_0", 40, 512).astype(np.float64)
    d = x - y
    want = {
        "squared_error": (d * d).sum(),
        "squared_norm": (x.astype(np.float64) ** 2).sum(),
        "squared_norm_b": (y * y).sum(),
        "dot": (x * y).sum(),
        "weighted_error": (importance * d * d).sum(),
        "weighted_norm": (importance * x.astype(np.float64) ** 2).sum(),
        "max_error": np.abs(d).max(),
        "count": x.size,
    }
    got = _core.compare(x, "f32", data, "q8_0", 40, 512, importance)
    assert got == pytest.approx(want, rel=1e-12)
    assert _core.compare(x, "f32", x, "f32", 40, 512)["squared_error"] == 0
    with pytest.raises(_core.Error, match="the importance has 3 numbers, but there are 512 columns"):
        _core.compare(x, "f32", data, "q8_0", 40, 512, np.ones(3, np.float32))


def test_unknown_instruction_set() -> None:
    with pytest.raises(_core.Error, match=_core.simd_targets()[0]):
        _core.use_simd_target("Z80")
