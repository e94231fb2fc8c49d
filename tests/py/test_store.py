"""Saving quantized tensors with the descriptions of their formats."""

from __future__ import annotations

import json
from pathlib import Path

import edgequant as eq
import numpy as np
import pytest
from edgequant.store import KEY
from safetensors.numpy import load_file, save_file


def tensors() -> dict[str, object]:
    w = np.random.default_rng(0).standard_normal((8, 256)).astype(np.float32)
    return {
        "own": eq.quantize(w, eq.Format("own", block=64, codes=2, table="learned")),
        "vectors": eq.quantize(w, eq.Format("vectors", block=64, codebook=(16, 4))),
        "mlx": eq.quantize(w, "mlx.affine3.g64"),
        "ggml": eq.quantize(w, "q4_k"),
        "plain": w[0],
    }


def test_round_trip(tmp_path: Path) -> None:
    path, want = tmp_path / "model.safetensors", tensors()
    eq.save(path, want)
    got = eq.load(path)
    assert set(got) == set(want) and [p.name for p in tmp_path.iterdir()] == [path.name]
    for name, q in want.items():
        assert np.array_equal(got[name], q) if name == "plain" else got[name] == q, name
    np.testing.assert_array_equal(got["own"].dequantize(), want["own"].dequantize())
    arrays = load_file(path)  # the ecosystem's names and types
    assert {"mlx.weight", "mlx.scales", "mlx.biases", "own.data", "own.table", "ggml", "plain"} < set(arrays)
    assert arrays["mlx.weight"].dtype == np.uint32 and arrays["mlx.scales"].shape == (8, 4)


def test_nothing_is_left_of_a_failure(tmp_path: Path) -> None:
    w = np.zeros(4, np.float32)
    path = tmp_path / "a.safetensors"
    eq.save(path, {"w": w})
    before = path.read_bytes()
    with pytest.raises(eq.Error, match=r"two arrays would be called 'own\.data'"):
        eq.save(path, {**tensors(), "own.data": w})
    with pytest.raises(Exception, match="object"):
        eq.save(path, {"w": np.array([object()])})
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
    with pytest.raises(FileNotFoundError):
        eq.save(tmp_path / "nowhere" / "a.safetensors", {"w": w})


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [8, 512]}, {"shape": [8]}, {"shape": "8"}, {"shape": [-1, 256]}, {"shape": []}, {"arrays": {}},
        {"arrays": {"data": "none"}}, {"format": "q9"}, {"format": {"format": {}}}, {"format": 3},
        {"format": {"format": {"name": "own", "bits": 77}, "arrays": {}}},
        {"format": {"format": {"name": "own", "group": -5, "code_plane": {"bits": 2}}, "arrays": {}}},
        {"format": {"format": {"name": "own", "table": ["a"]}, "arrays": {}}},
    ],
)  # fmt: skip
def test_damaged_descriptions(tmp_path: Path, change: dict[str, object]) -> None:
    path = tmp_path / "a.safetensors"
    q = tensors()["own"]
    assert isinstance(q, eq.SchemeTensor)
    entry = {"shape": [8, 256], "format": json.loads(q.scheme.to_json()), "arrays": {"data": "d", "table": "t"}}
    arrays = {"d": q.planes["data"], "t": q.planes["table"]}
    save_file(arrays, path, metadata={KEY: json.dumps({"own": entry})})
    assert eq.load(path)["own"] == q
    save_file(arrays, path, metadata={KEY: json.dumps({"own": {**entry, **change}})})
    with pytest.raises(eq.Error, match=r"a\.safetensors: "):
        eq.load(path)


def test_damaged_files(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"\x10\0\0\0\0\0\0\0{broken")
    with pytest.raises(eq.Error, match=r"a\.safetensors"):
        eq.load(path)
    save_file({"w": np.zeros(4, np.float32)}, path, metadata={KEY: "{broken"})
    with pytest.raises(eq.Error, match="description of its tensors is damaged"):
        eq.load(path)
