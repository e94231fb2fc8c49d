"""Integers and scales of packed weights give the decoder's numbers."""

from __future__ import annotations

import edgequant as eq
import numpy as np
import pytest

pytest.importorskip("torch")

from edgequant.torch.levels import has_levels, split_levels

FORMATS = [f for f in eq.formats if has_levels(f)]


@pytest.mark.parametrize("format", FORMATS)
def test_equals_the_decoder(format: str) -> None:
    w = np.random.default_rng(0).standard_normal((9, 512), dtype=np.float32)
    w[3], w[4] = 0, 0.25  # a row of zeros, and a constant one
    q = eq.quantize(w, format)
    levels = split_levels(q)
    assert levels.low <= levels.integers.min() and levels.integers.max() <= levels.high
    y = levels.integers.astype(np.float32) * levels.scale[..., None]
    if levels.offset is not None:
        y = y + levels.offset[..., None]
    np.testing.assert_array_equal(y.reshape(w.shape), q.dequantize())


def test_any_bytes_of_nvfp4() -> None:
    """Scales that no encoder writes, too: those of nvfp4 have a code for 0 apart."""
    data = np.random.default_rng(1).integers(0, 256, (64, eq.formats["nvfp4"].row_bytes(512)), np.uint8)
    q = eq.QuantizedTensor(data, "nvfp4", (64, 512))
    levels = split_levels(q)
    y = levels.integers.astype(np.float32) * levels.scale[..., None]
    np.testing.assert_array_equal(y.reshape(64, 512), q.dequantize())


def test_all_but_grids_and_floats_have_levels() -> None:
    without = {f for f in eq.formats if not has_levels(f)}
    assert without == {f for f in eq.formats if f[:3] in ("iq1", "iq2", "iq3")} | {"f32", "f16", "bf16"}
    with pytest.raises(eq.Error, match="weights in iq2_s are not integers times a scale"):
        split_levels(eq.quantize(np.ones((1, 256), np.float32), "iq2_s"))
