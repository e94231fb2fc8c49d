"""Descriptions from foreign files: whatever they say, they are refused in one sentence or they work."""

from __future__ import annotations

import json
import random
from typing import Any

import edgequant as eq
import numpy as np
import pytest

BASES = [
    eq.Format("own", block=64, codes=2, table=[-1, -0.3, 0.3, 1]), eq.Format("ternary", block=64, base3=True),
    eq.Format("tables", block=64, codes=2, learned="group"), eq.Format("vectors", block=64, codebook=(16, 4)),
    eq.Format("levels", block=16, codes=6, sub_scale=(8, 16)), eq.Format("zero", block=32, codes=4, zero="int"),
    *(eq.planar_formats[n] for n in ("mlx.affine3.g64", "onnx.nbits4.g32.zp", "gptq.int4.g32", "awq.int4.g128",
                                     "fp8.e4m3.block128", "bnb.nf4.g64.dq", "bitnet.hf")),
]  # fmt: skip
KEYS = """values bits codes dim zero exponent_bits exponent_bias highest table learned group group_rows pad_cols zeros
sub_zero super_group divides sub_table interleaved block rule rule_reach rounding divide negative_scale""".split()
PLANE_KEYS = "cell bits word slots high_first order lanes lane_unit down cols_first flat trits fill offset".split()
PLANES = [f"{part}_plane" for part in ("code", "scale", "shift", "super", "super_shift", "entries")]
VALUES: list[Any] = [
    0, 1, 2, 3, 4, 5, 7, 8, 16, 64, 128, -1, -3, 1000, 2**31 - 1, -(2**31), 0.5, float("nan"), True, False, "f16",
    "e8m0", "int", "table", "minifloat", "codebook", "group_table", "integer", "float", "minimum", "none", "absmax",
    [], [1, 2], [0, 1, 2, 3],
]  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
def test_changed_descriptions(seed: int) -> None:
    rng = random.Random(seed)
    w = np.random.default_rng(0).standard_normal((32, 512)).astype(np.float32)
    worked = 0
    for _ in range(150):
        description = json.loads(rng.choice(BASES).to_json())
        for _ in range(rng.randint(1, 3)):
            if rng.random() < 0.5:
                description["format"][rng.choice(KEYS)] = rng.choice(VALUES)
            else:
                description["format"].setdefault(rng.choice(PLANES), {})[rng.choice(PLANE_KEYS)] = rng.choice(VALUES)
        try:
            q = eq.quantize(w, eq.Format.from_json(json.dumps(description)), effort="fast")
            assert q.dequantize().shape == w.shape and eq.matmul(w[:1], q).shape == (1, 32)
            worked += 1
        except eq.Error as e:
            assert "\n" not in str(e)
    assert worked > 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"super_shift_plane": {"bits": 1}}, "a second level consists of numbers"),
        ({"super_shift_plane": {"cell": "f16"}}, "a second level that does not exist"),
        ({"entries_plane": {"cell": "f16"}}, "only tables of groups have a plane of entries"),
        ({"scale_plane": {"bits": 8}}, "integer scales need a second level"),
        ({"code_plane": {"bits": 2, "order": [0, 0, 1, 2], "slots": 4}}, "name each place of a word once"),
        ({"code_plane": {"bits": 2, "slots": 5}}, "5 elements of 2 bits do not fit a word of 8"),
        ({"values": "minifloat", "exponent_bits": 1, "highest": -1}, "bias of 0 and reach -1"),
        ({"group": 2**31}, "as its group"),
        ({"super_plane": {"cell": "f32"}, "super_group": 1, "group_rows": 2}, "belong to groups of one row"),
    ],
)
def test_what_contradicts_itself(change: dict[str, Any], message: str) -> None:
    description = json.loads(BASES[0].to_json())
    description["format"].update(change)
    with pytest.raises(eq.Error) as caught:
        eq.Format.from_json(json.dumps(description))
    assert message in str(caught.value)
