"""From format to format: what is called exact is exact, on random blocks; nothing else happens unasked."""

from __future__ import annotations

import edgequant as eq
import numpy as np
import pytest
from edgequant.algebra import algebra
from edgequant.formats import formats, lookup
from edgequant.planar import planar_formats
from edgequant.scheme import Format

OWN = [
    eq.Format("own2", block=64, codes=2, zero=1.5),
    eq.Format("own2f", block=32, codes=2, zero=1.5, scale="f32"),
    eq.Format("table", block=64, codes=2, table=[-3, -1, 1, 3]),
    eq.Format("ternary", block=256, base3=True),
    eq.Format("zero4", block=32, codes=4, zero="int", scale="f32"),
    eq.Format("minimum4", block=16, codes=4, minimum="f32", scale="f32"),
    eq.Format("minimum8", block=32, codes=8, minimum="f16"),
    eq.Format("centred", block=32, codes=4, zero=8, minimum="f16", scale="f32"),
    eq.Format("centred5", block=32, codes=5, zero=16, minimum="f32", scale="f32"),
    eq.Format("levels", block=32, codes=4, minimum="f16", sub_scale=(6, 8)),
]
PLANAR = ["mlx.affine4.g32", "mlx.affine4.g32.f32", "mlx.affine8.g32", "mlx.affine2.g64.bf16", "onnx.nbits4.g32",
          "onnx.nbits4.g32.zp", "onnx.nbits8.g16.f16", "onnx.nbits8.g32", "onnx.nbits2.g64", "gptq.int4.g32",
          "mlx.affine8.g32.f32", "awq.int4.g128", "hqq.int3.g64", "hqq.int4.g64", "torchao.int4.g64",
          "bitnet.hf", "bitnet.hf_auto", "bitnet.i2_s.x86", "bitnet.tl1.128x64x32", "ct.int2.channel",
          "ct.int8.channel", "mlx.mxfp8", "mlx.nvfp4", "ct.nvfp4", "openvino.mxfp4", "openvino.mxfp8",
          "fp8.e4m3.channel", "fp8.e4m3.block128", "bnb.nf4.g64", "bnb.nf4.g64.dq", "paretoq.int2"]  # fmt: skip
BLOCKS = [n for n, f in formats.items() if algebra(f) is not None]
ALL: list[object] = [*BLOCKS, *(planar_formats[n] for n in PLANAR), *OWN]
COLS = 512


def random_tensor(format: object, seed: int) -> eq.QuantizedTensor:
    """Any codes, any scales but infinite ones and NaN, subnormal ones included."""
    rng = np.random.default_rng(seed)
    if isinstance(format, Format):
        rows = 128
        d = format.description
        if "super_plane" in d and "scale_plane" in d:
            return eq.quantize(rng.standard_normal((rows, COLS)), format)
        codes = rng.integers(0, d.get("codes", 1 << d["bits"]), (rows, COLS), dtype=np.uint8)
        if d.get("values") == "minifloat":
            codes[codes & 127 == 127] = 0  # NaN
        groups = COLS // (d.get("group", 32) or COLS)
        scale = rng.standard_normal((rows, groups)) * 10.0 ** rng.uniform(-7, 3, (rows, groups))
        shift = rng.integers(0, 1 << d["bits"], (rows, groups)) if d.get("zeros") == "integer" else scale * rng.random()
        words = format.core.write(codes, scale.astype(np.float32), np.asarray(shift, np.float32))
        return eq.SchemeTensor(format.named_arrays(words, (rows, COLS)), format, (rows, COLS))
    f = lookup(str(format))
    blocks = rng.integers(0, 256, (64 * (COLS // f.block), f.bytes), dtype=np.uint8)
    decoded = eq.from_bytes(blocks, f.name, (len(blocks), f.block)).dequantize()
    blocks[~np.isfinite(decoded).all(axis=1) | (np.abs(decoded).max(axis=1) > 1e4)] = 0
    return eq.from_bytes(blocks, f.name, (64, COLS))


@pytest.mark.parametrize("a", ALL, ids=str)
def test_exact_means_exact(a: object) -> None:
    q = random_tensor(a, 1)
    want = q.dequantize()
    for b in [*ALL, "f32", "f16", "bf16"]:
        loss = eq.transcode_loss(a, b)
        if loss.kind != "exact":
            continue
        found = q.to(b)
        assert found.format == str(b)
        np.testing.assert_array_equal(found.dequantize(), want, err_msg=f"{a} to {b}")


@pytest.mark.parametrize("a", ["q4_0", "q4_1", "q8_0", "q4_k", *OWN[:2]], ids=str)
def test_nothing_is_lost_unasked(a: object) -> None:
    q = eq.quantize(np.random.default_rng(2).standard_normal((128, COLS)), a)
    for b in ALL:
        loss = eq.transcode_loss(a, b)
        if loss.kind == "lossy":
            assert loss.db is not None and 3 < loss.db
            with pytest.raises(eq.Error, match=rf"{q.format} to .* would change the weights \(lossy, .* dB"):
                q.to(b)
        elif loss.kind == "widened":
            try:
                np.testing.assert_array_equal(q.to(b).dequantize(), q.dequantize())
            except eq.Error as e:
                assert "wider type" in str(e)
    assert q.to("q2_0", lossy=True).format == "q2_0" and q.to("q2_0", lossy=True).error(q) > 0


@pytest.mark.parametrize(
    ("a", "b", "kind"),
    [
        ("q4_0", "onnx.nbits4.g32", "exact"), ("q4_0", "onnx.nbits4.g16.f16", "exact"), ("q4_0", "q5_0", "exact"),
        ("q4_0", "mlx.affine4.g32.f32", "exact"), ("q4_0", "mlx.affine4.g32", "widened"),
        ("q4_1", "mlx.affine4.g32", "exact"),
        ("mlx.affine4.g32", "q4_1", "exact"), ("mlx.affine4.g64", "q4_1", "exact"),
        ("mlx.affine4.g32", "mlx.affine4.g64", "lossy"), ("onnx.nbits4.g32", "mlx.affine4.g32.f32", "lossy"),
        ("q4_k", "mlx.affine4.g32.f32", "exact"), ("q4_k", "mlx.affine4.g32", "widened"), ("iq4_nl", "q8_0", "exact"),
        ("tq2_0", "q2_0", "exact"), ("q2_0", "tq2_0", "lossy"), ("gptq.int4.g128", "onnx.nbits4.g128.zp", "exact"),
        ("awq.int4.g128", "gptq.int4.g128", "exact"), ("onnx.nbits4.g32", "q4_0", "widened"), ("q2_k", "f32", "exact"),
        ("iq2_xxs", "q8_0", "widened"), ("q8_0", "q8_0", "exact"), ("iq2_xxs", "onnx.nbits8.g32", "exact"),
        ("iq1_m", "onnx.nbits8.g16", "exact"), ("iq1_s", "mlx.affine8.g32.f32", "exact"), ("iq3_s", "q4_0", "lossy"),
        ("q1_0", "f16", "exact"), ("nvfp4", "bf16", "exact"), ("q4_0", "f16", "lossy"), ("mxfp4", "bf16", "widened"),
        ("tq1_0", "f16", "exact"), ("tq2_0", "f16", "widened"), ("q4_1", "f16", "lossy"),
        ("onnx.nbits4.g32.zp.f16", "bf16", "lossy"),
        ("gptq.int4.g64", "hqq.int4.g64", "exact"), ("hqq.int3.g64", "hqq.int4.g64", "exact"),
        ("hqq.int4.g64", "onnx.nbits4.g64.zp", "lossy"), ("hqq.int4.g64", "mlx.affine4.g64.f32", "lossy"),
        ("bitnet.hf", "bitnet.i2_s.x86", "exact"), ("bitnet.hf", "tq2_0", "widened"),
        ("bitnet.i2_s.x86", "bitnet.tl1.128x64x32", "exact"), ("bitnet.tl1.128x64x32", "onnx.nbits2.g32", "exact"),
        ("bitnet.hf_auto", "bitnet.hf", "lossy"), ("ct.int2.channel", "bitnet.i2_s.x86", "lossy"),
        ("mlx.nvfp4", "ct.nvfp4", "exact"), ("nvfp4", "ct.nvfp4", "widened"), ("mlx.nvfp4", "nvfp4", "widened"),
        ("ct.nvfp4", "mlx.nvfp4", "widened"),
        ("mlx.mxfp8", "openvino.mxfp8", "exact"), ("fp8.e4m3.tensor", "fp8.e4m3.channel", "exact"),
        ("fp8.e4m3.channel", "fp8.e4m3.tensor", "lossy"), ("fp8.e4m3.block128", "bf16", "lossy"),
        ("torchao.int4.g64", "mlx.affine4.g64.f32", "lossy"), ("bnb.nf4.g64.dq", "bnb.nf4.g64", "exact"),
        ("bitnet.hf", "mlx.affine4.g32.f32", "exact"), ("q2_0", "onnx.nbits2.g64", "exact"),
        ("q2_0", "mlx.affine2.g64.bf16", "widened"), ("tq2_0", "tq1_0", "lossy"),
        ("iq4_xs", "mlx.affine8.g32.f32", "exact"), ("q6_k", "mlx.affine8.g32.f32", "lossy"),
    ],
)  # fmt: skip
def test_known_pairs(a: str, b: str, kind: str) -> None:
    assert eq.transcode_loss(a, b).kind == kind


@pytest.mark.parametrize(
    ("a", "b", "kind"),
    [
        ("onnx.nbits4.g32", "centred", "exact"),  # a minimum of 0
        ("onnx.nbits4.g32", "centred5", "exact"), ("q4_0", "centred", "exact"), ("q6_k", "centred5", "lossy"),
        ("onnx.nbits4.g32.zp", "centred5", "lossy"), ("onnx.nbits4.g32", "minimum4", "lossy"),
    ],
)  # fmt: skip
def test_minima_of_nothing(a: str, b: str, kind: str) -> None:
    target = next(f for f in OWN if f.name == b)
    assert eq.transcode_loss(a, target).kind == kind
    if kind == "exact":
        q = eq.quantize(np.random.default_rng(4).standard_normal((8, 512)).astype(np.float32), a)
        found = q.to(target)
        assert isinstance(found, eq.SchemeTensor)
        assert not target.core.read(target.core_arrays(found.planes), 8, 512)[2].any()


def test_what_only_rounding_changes() -> None:
    """code * scale + minimum instead of (code - zero) * scale: the codes stay, the last bit of a weight may not."""
    w = np.random.default_rng(4).standard_normal((8, 512)).astype(np.float32)
    q = eq.quantize(w, "onnx.nbits4.g32")
    loss = eq.transcode_loss("onnx.nbits4.g32", OWN[5])
    assert loss.kind == "lossy" and loss.db is not None and loss.db > 130
    with pytest.raises(eq.Error, match="would change the weights"):
        q.to(OWN[5])
    found = q.to(OWN[5], lossy=True)
    np.testing.assert_allclose(found.dequantize(), q.dequantize(), atol=2**-22 * np.abs(w).max())


def test_codes_that_a_tensor_does_not_use_do_not_count() -> None:
    w = np.random.default_rng(5).integers(-1, 2, (4, 256)).astype(np.float32)
    q = eq.quantize(w, "tq2_0")
    assert eq.transcode_loss("tq2_0", "tq1_0").kind == "lossy"  # it has a fourth level
    np.testing.assert_array_equal(q.to("tq1_0").dequantize(), w)
    q.data[:, :64] |= 3
    with pytest.raises(eq.Error, match="would change the weights"):
        q.to("tq1_0")


def test_planar_and_back() -> None:
    w = np.random.default_rng(3).standard_normal((16, 256)).astype(np.float32)
    q = eq.quantize(w, "q4_0")
    there = q.to("onnx.nbits4.g32")
    assert isinstance(there, eq.SchemeTensor) and there.planes["B"].shape == (16, 8, 16)
    assert there.to("q4_0") == q  # its scales are f16 numbers, although they need not be
    assert q.to("q4_0") is q
    with pytest.raises(eq.Error, match="would change"):
        eq.quantize(w, "onnx.nbits4.g32").to("q4_0")


def test_the_table_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    from edgequant.cli.main import main

    assert main(["formats", "--transcode", "q4_0", "q5_0", "onnx.nbits4.g32"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split() == ["q4_0", "exact", "exact", "exact"] and lines[-1] == "3: onnx.nbits4.g32"
    assert lines[3].split()[0] == "q5_0" and 15 < float(lines[3].split()[1]) < 25


def test_loss_of_blocks_that_divide_no_usual_row() -> None:
    for block in (20, 36, 100):
        f = eq.Format("odd", block=block, base3=True, scale="e8m0")
        loss = eq.transcode_loss(f, "q4_0")
        assert loss.kind == "lossy" and loss.db is not None and 15 < loss.db < 60
