"""Formats described at run time: packing, decoding and the search, against slow independent arithmetic."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import edgequant as eq
import numpy as np
import pytest
from edgequant.scheme import Array, Format


def weights(rows: int = 24, cols: int = 256, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, cols)).astype(np.float32)


def bit_stream(words: np.ndarray, bits: int, count: int) -> np.ndarray:
    """Elements of `bits` bits, lowest first, of each row of words."""
    raw = np.unpackbits(np.ascontiguousarray(words).view(np.uint8), axis=-1, bitorder="little")
    raw = raw[:, : count * bits].reshape(len(raw), count, bits)
    return (raw.astype(np.int64) << np.arange(bits)).sum(-1)


@pytest.mark.parametrize("bits", range(1, 9))
def test_blocks_of_whole_numbers(bits: int) -> None:
    w, f = weights(), eq.Format("own", block=32, codes=bits)
    q = eq.quantize(w, f)
    assert q.data.shape == (24, 8 * (2 + 4 * bits)) and q.bits_per_weight == f.bits_per_weight == bits + 0.5
    blocks = q.data.reshape(-1, 2 + 4 * bits)
    scale = blocks[:, :2].copy().view(np.float16).astype(np.float32)
    codes = bit_stream(blocks[:, 2:], bits, 32)
    zero = 0.5 if bits == 1 else 1 << (bits - 1)
    np.testing.assert_array_equal(q.dequantize().reshape(-1, 32), (codes - np.float32(zero)) * scale)


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
def test_mlx_arrays(bits: int) -> None:
    q = eq.quantize(weights(), f"mlx.affine{bits}.g64")
    assert {n: (a.dtype, a.shape) for n, a in q.planes.items()} == {
        "weight": (np.uint32, (24, 8 * bits)), "scales": (np.float16, (24, 4)), "biases": (np.float16, (24, 4)),
    }  # fmt: skip
    codes = bit_stream(q.planes["weight"], bits, 256).reshape(24, 4, 64)
    scales, biases = (q.planes[n].astype(np.float32)[..., None] for n in ("scales", "biases"))
    np.testing.assert_array_equal(q.dequantize().reshape(24, 4, 64), codes.astype(np.float32) * scales + biases)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("cols", [256, 200])
def test_matmulnbits_arrays(bits: int, cols: int) -> None:
    groups = -(-cols // 32)
    q = eq.quantize(weights(cols=cols), f"onnx.nbits{bits}.g32.zp")
    assert q.planes["B"].shape == (24, groups, 4 * bits) and q.planes["zero_points"].shape == (
        24,
        -(-groups * bits // 8),
    )
    codes = bit_stream(q.planes["B"].reshape(24, -1), bits, groups * 32).reshape(24, groups, 32)
    zeros = bit_stream(q.planes["zero_points"], bits, groups)[..., None]
    want = (codes - zeros).astype(np.float32) * q.planes["scales"][..., None]
    np.testing.assert_array_equal(q.dequantize(), want.reshape(24, -1)[:, :cols])


def element(words: np.ndarray, at: int, place: int, bits: int) -> int:
    return int(words.reshape(-1)[at]) >> (place * bits) & ((1 << bits) - 1)


def test_transposed_words() -> None:
    """GPTQ's and AWQ's layouts: words along K and along N, zero points less one, AWQ's order."""
    order = [0, 2, 4, 6, 1, 3, 5, 7]
    common = {"bits": 4, "group": 64, "zeros": "integer", "rule": "range_zero"}
    scale = Array("scales", "f16", cols_first=True)
    zeros = Array("qzeros", "uint32", bits=4, down=True, cols_first=True, offset=-1)
    gptq = Format.planar(
        "gptq",
        **common,
        arrays={"code": Array("qweight", "uint32", bits=4, cols_first=True), "scale": scale, "shift": zeros},
    )
    packed = {"bits": 4, "slots": 8, "order": order, "down": True, "cols_first": True}
    awq = Format.planar(
        "awq", **common,
        arrays={"code": Array("qweight", "uint32", **packed), "scale": scale,
                "shift": Array("qzeros", "uint32", **packed)},
    )  # fmt: skip
    w = weights()
    n, k, g = 24, 256, 4
    a, b = eq.quantize(w, gptq), eq.quantize(w, awq)
    assert a.planes["qweight"].shape == (k // 8, n) and a.planes["qzeros"].shape == (g, n // 8)
    assert b.planes["qweight"].shape == (k, n // 8) and a.planes["scales"].shape == (g, n)
    np.testing.assert_array_equal(a.dequantize(), b.dequantize())
    decoded = a.dequantize()
    for row, col in np.random.default_rng(1).integers((n, k), size=(100, 2)):
        group = col // 64
        scale_value = np.float32(a.planes["scales"][group, row])
        code = element(a.planes["qweight"], col // 8 * n + row, col % 8, 4)
        zero = (element(a.planes["qzeros"], group * n // 8 + row // 8, row % 8, 4) + 1) % 16
        assert decoded[row, col] == (code - zero) * scale_value
        assert code == element(b.planes["qweight"], col * n // 8 + row // 8, order.index(row % 8), 4)


def test_effort_lowers_the_error() -> None:
    w = weights(64)
    for f in ("mlx.affine4.g64", "mlx.affine2.g32", "onnx.nbits4.g32", "onnx.nbits2.g32.zp", "onnx.nbits8.g128"):
        fast, default, best = (eq.quantize(w, f, effort=e).error(w) for e in ("fast", "default", "best"))
        assert best <= default * 1.001 and default < fast * 0.97, f


def test_a_format_travels() -> None:
    f = eq.Format("own", block=64, codes=2, table=[-1, -0.3, 0.3, 1])
    assert pickle.loads(pickle.dumps(f)) == f == copy.deepcopy(f) == eq.Format.from_json(f.to_json())
    assert "blocks of 64" in repr(f) and "2.25 bits" in repr(f) and hash(f) == hash(copy.copy(f))
    q = eq.quantize(weights(), "mlx.affine4.g64")
    assert eq.from_planes(q.planes, "mlx.affine4.g64", q.shape) == q


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"codes": 9}, "1 to 8 bits, not 9"),
        ({"codes": 0}, "1 to 8 bits, not 0"),
        ({"codes": 2.5}, "codes is a whole number, not 2.5"),
        ({"block": "32"}, "block is a whole number, not '32'"),
        ({"table": ["low", "high"], "codes": 1}, "a list of numbers"),
        ({"block": 0}, "at least one weight, not 0"),
        ({"table": [1, 2, 3]}, "the table has 3 values"),
        ({"table": [0, 1, 2, float("nan")], "codes": 2}, "the table holds nan"),
        ({"table": "leaned"}, "'learned', not 'leaned'"),
        ({"learned": "row"}, "'tensor' or per 'group', not per 'row'"),
        ({"scale": "f17"}, "there is no 'f17'"),
        ({"zero": "int", "minimum": "f16"}, "give one"),
        ({"codebook": (70000, 4)}, "2 to 65536 rows, not 70000"),
        ({"codebook": (16, 3)}, "1, 2, 4 or 8 weights, not 3"),
        ({"codebook": [1, 2, 3]}, "an array of that shape"),
        ({"sub_scale": 4}, "(bits, groups), not 4"),
        ({"sub_scale": (9, 8)}, "1 to 8 bits"),
    ],
)
def test_wrong_descriptions(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(eq.Error) as caught:
        eq.Format("wrong", **arguments)  # type: ignore[arg-type]
    assert message in str(caught.value) and "'wrong'" in str(caught.value)


def test_wrong_arrays() -> None:
    q = eq.quantize(weights(), "mlx.affine4.g64")
    with pytest.raises(eq.Error, match="has the arrays biases, scales, weight, not scales"):
        eq.from_planes({"scales": q.planes["scales"]}, "mlx.affine4.g64", q.shape)
    with pytest.raises(eq.Error, match="codes of 24 x 256 weights take 3072 bytes, not 3068"):
        eq.from_planes({**q.planes, "weight": q.planes["weight"].reshape(-1)[1:]}, "mlx.affine4.g64", q.shape)
    with pytest.raises(eq.Error, match="not a multiple of 64"):
        eq.quantize(weights(cols=100), eq.Format("own", block=64))
    with pytest.raises(eq.Error, match="no planar format named 'q4_0'"):
        eq.from_planes({}, "q4_0", (1, 32))
    with pytest.raises(eq.Error, match="NaN at row 3, column 5"):
        w = weights()
        w[3, 5] = np.nan
        eq.quantize(w, "mlx.affine4.g64")


@pytest.mark.parametrize(("rows", "dim"), [(300, 4), (1024, 8), (4000, 8)])
@pytest.mark.parametrize("given", [True, False])
def test_codebooks_of_many_rows(rows: int, dim: int, given: bool, tmp_path: Path) -> None:
    w = weights(64, 512)
    book = np.random.default_rng(1).standard_normal((rows, dim)).astype(np.float32)
    f = Format("own", block=64, codebook=book if given else (rows, dim))
    bits = 10 if rows <= 1024 else 12
    assert f.bits_per_weight == bits / dim + 16 / 64
    q = eq.quantize(w, f)
    if not given:
        book = q.planes["table"].reshape(rows, dim)
    blocks = q.data.reshape(-1, 2 + 64 * bits // dim // 8)
    scale = blocks[:, :2].copy().view(np.float16).astype(np.float32)
    codes = bit_stream(blocks[:, 2:], bits, 64 // dim)
    assert codes.max() < rows and codes.max() >= 256
    np.testing.assert_array_equal(q.dequantize().reshape(-1, 64), book[codes].reshape(-1, 64) * scale)
    nearest = ((w.reshape(-1, 64) / scale).reshape(-1, 1, dim) - book) ** 2
    found = np.take_along_axis(nearest.sum(-1), codes.reshape(-1, 1), 1)[:, 0]
    assert found.sum() <= nearest.sum(-1).min(1).sum() * 1.005  # scales are fitted once more after codes are chosen
    x = np.random.default_rng(2).standard_normal((3, 512)).astype(np.float32)
    want = x @ q.dequantize().T
    assert np.linalg.norm(eq.matmul(x, q) - want) < 2e-2 * np.linalg.norm(want)
    eq.save(tmp_path / "q.safetensors", {"w": q})
    np.testing.assert_array_equal(eq.load(tmp_path / "q.safetensors")["w"].dequantize(), q.dequantize())


@pytest.mark.parametrize(
    ("exponent", "mantissa", "highest"), [(3, 2, 28), (2, 3, 7.5), (2, 1, 6), (4, 3, 448), (1, 2, 3.5)]
)
def test_small_floats(exponent: int, mantissa: int, highest: float) -> None:
    w, f = weights(), Format("own", block=32, minifloat=(exponent, mantissa))
    bits = 1 + exponent + mantissa
    q = eq.quantize(w, f)
    blocks = q.data.reshape(-1, 2 + 4 * bits)
    scale = blocks[:, :2].copy().view(np.float16).astype(np.float32)
    codes = bit_stream(blocks[:, 2:], bits, 32)
    e, m = codes >> mantissa & (1 << exponent) - 1, codes & (1 << mantissa) - 1
    size = np.where(e > 0, 2.0**mantissa + m, m) * 2.0 ** (np.maximum(e, 1) - (2 ** (exponent - 1) - 1) - mantissa)
    values = np.where(codes >> bits - 1, -size, size)
    assert np.abs(values).max() <= highest
    np.testing.assert_array_equal(q.dequantize().reshape(-1, 32), values.astype(np.float32) * scale)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"codes": 9}, "codes have 1 to 8 bits, not 9 .those of a codebook 1 to 16."),
        ({"codebook": (1 << 17, 8)}, "a codebook has 2 to 65536 rows, not 131072"),
        ({"minifloat": (5, 3)}, "a small float has 2 to 8 bits with its sign, not 9"),
        ({"minifloat": 3}, "minifloat is .exponent bits, mantissa bits., not 3"),
        ({"minifloat": (2, 1), "zero": 3}, "takes the place of table, codebook, base3 and zero"),
    ],
)
def test_codes_that_cannot_be(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(eq.Error, match=message):
        Format("own", block=32, **fields)
