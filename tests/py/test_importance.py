"""Importance matrices in both file formats of llama.cpp."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from edgequant import Error, _core
from edgequant.importance import Importance, load_importance

RNG = np.random.default_rng(5)
DENSE = RNG.random(64, dtype=np.float32)
EXPERTS = RNG.random((4, 32), dtype=np.float32)


def write_dat(
    path: Path, entries: dict[str, tuple[int, np.ndarray]], chunks: int | None = 7, text: str = "wiki.txt"
) -> Path:
    out = struct.pack("<i", len(entries))
    for name, (calls, sums) in entries.items():
        out += struct.pack("<i", len(name)) + name.encode() + struct.pack("<ii", calls, sums.size)
        out += sums.astype("<f4").tobytes()
    if chunks is not None:
        out += struct.pack("<ii", chunks, len(text)) + text.encode()
    path.write_bytes(out)
    return path


def write_gguf(path: Path, tensors: dict[str, np.ndarray]) -> Path:
    metadata = {
        "general.type": "imatrix",
        "imatrix.datasets": ["wiki.txt", "code.txt"],
        "imatrix.chunk_count": np.uint32(7),
        "imatrix.chunk_size": np.uint32(512),
    }
    with _core.GgufWriter(path, metadata, [(n, t.shape, "f32") for n, t in tensors.items()]) as w:
        for i, t in enumerate(tensors.values()):
            w.write(i, np.ascontiguousarray(t, np.float32))
        w.finish()
    return path


def test_dat(tmp_path: Path) -> None:
    path = write_dat(tmp_path / "imatrix.dat", {"blk.0.ffn_up.weight": (10, DENSE * 10), "a": (0, DENSE)})
    matrix = load_importance(path)
    assert list(matrix) == ["blk.0.ffn_up.weight", "a"] and len(matrix) == 2
    np.testing.assert_allclose(matrix["blk.0.ffn_up.weight"], DENSE, rtol=1e-6)
    np.testing.assert_array_equal(matrix["a"], DENSE)
    assert matrix.chunks == 7 and matrix.datasets == ("wiki.txt",) and matrix.path == str(path)


def test_dat_without_trailer(tmp_path: Path) -> None:
    matrix = load_importance(write_dat(tmp_path / "old.dat", {"a": (1, DENSE)}, chunks=None))
    assert matrix.chunks == 0 and matrix.datasets == ()


def test_gguf(tmp_path: Path) -> None:
    counts = np.array([[4], [0], [2], [1]], np.float32)
    path = write_gguf(
        tmp_path / "imatrix.gguf",
        {
            "blk.0.ffn_up.weight.in_sum2": DENSE.reshape(1, 64) * 100,
            "blk.0.ffn_up.weight.counts": np.full((1, 1), 100),
            "blk.0.ffn_down_exps.weight.in_sum2": EXPERTS * counts,
            "blk.0.ffn_down_exps.weight.counts": counts,
        },
    )
    matrix = load_importance(path)
    np.testing.assert_allclose(matrix["blk.0.ffn_up.weight"], DENSE, rtol=1e-6)
    experts = matrix.of("blk.0.ffn_down_exps.weight", (4, 16, 32))
    assert experts is not None and experts.shape == (4, 32)
    np.testing.assert_allclose(experts[[0, 2, 3]], EXPERTS[[0, 2, 3]], rtol=1e-6)
    np.testing.assert_array_equal(experts[1], 1)  # an expert without data: all columns alike
    assert matrix.chunks == 7 and matrix.datasets == ("wiki.txt", "code.txt")


def test_mapping() -> None:
    matrix = load_importance({"a": DENSE.astype(np.float64)})
    assert matrix["a"].dtype == np.float32 and matrix.path is None and "Importance(1" in repr(matrix)
    assert load_importance(matrix) is matrix


def test_wrong_size() -> None:
    matrix = Importance({"blk.0.ffn_up.weight": DENSE, "token_embd.weight": DENSE})
    assert matrix.of("blk.0.ffn_down.weight", (8, 64)) is None
    assert matrix.of("token_embd.weight", (8, 32)) is None  # never measured over its own inputs
    with pytest.raises(Error, match="64 numbers where the tensor needs 128"):
        matrix.of("blk.0.ffn_up.weight", (8, 128))
    with pytest.raises(Error, match="64 numbers where the tensor needs 128"):
        matrix.of("blk.0.ffn_up.weight", (2, 8, 64))


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf])
def test_bad_numbers(bad: float) -> None:
    with pytest.raises(Error, match=r"'blk\.0'"):
        Importance({"blk.0": np.array([1, bad], np.float32)})


def test_broken_files(tmp_path: Path) -> None:
    whole = write_dat(tmp_path / "whole.dat", {"a": (1, DENSE), "b": (2, DENSE)}).read_bytes()
    broken = tmp_path / "broken.dat"
    end_of_entries = len(whole) - 16
    for size in range(0, end_of_entries, 7):
        broken.write_bytes(whole[:size])
        with pytest.raises(Error, match=r"broken\.dat"):
            load_importance(broken)
    for count in (b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"\xff\xff\xff\x7f"):
        broken.write_bytes(count + whole[4:])
        with pytest.raises(Error, match=r"broken\.dat"):
            load_importance(broken)
    with pytest.raises(Error, match="missing"):
        load_importance(tmp_path / "missing.gguf")


def test_gguf_without_data(tmp_path: Path) -> None:
    with pytest.raises(Error, match="without importance data"):
        load_importance(write_gguf(tmp_path / "model.gguf", {"blk.0.ffn_up.weight": DENSE}))
    with pytest.raises(Error, match="no counts"):
        load_importance(write_gguf(tmp_path / "half.gguf", {"a.in_sum2": DENSE}))
