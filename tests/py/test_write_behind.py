"""Writing on a thread of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from edgequant import Error, _core
from edgequant.write_behind import WriteBehind, forget_pages

SIZES = [200_000, 10, 70_000, 1_000_000]


def writer(path: Path) -> _core.GgufWriter:
    return _core.GgufWriter(path, {}, [(f"t{i}", (n,), "i8") for i, n in enumerate(SIZES)])


def test_everything_arrives(tmp_path: Path) -> None:
    data = [np.random.default_rng(i).integers(0, 256, n, np.uint8) for i, n in enumerate(SIZES)]
    with writer(tmp_path / "f.gguf") as w, WriteBehind(w) as pending:
        for i in (3, 0, 1, 2):
            pending.write(i, data[i], data[i])
        pending.flush()
        w.finish()
    for stored, want in zip(_core.GgufFile(tmp_path / "f.gguf").tensors, data, strict=True):
        assert np.array_equal(stored.data, want)


@pytest.mark.parametrize("next_call", ["write", "flush"])
def test_an_error_reaches_the_next_call(tmp_path: Path, next_call: str) -> None:
    wrong = np.zeros(SIZES[0] + 1, np.uint8)
    with writer(tmp_path / "f.gguf") as w, WriteBehind(w) as pending:
        pending.write(0, wrong, wrong)
        with pytest.raises(Error, match="t0"):
            pending.flush() if next_call == "flush" else pending.write(2, wrong[: SIZES[2]], wrong)
    assert list(tmp_path.iterdir()) == []


def test_only_pages_of_files_are_dropped(tmp_path: Path) -> None:
    own = np.full(1 << 20, 7, np.uint8)
    own.flags.writeable = False
    forget_pages(own)
    assert (own == 7).all()  # MADV_DONTNEED would have made it zeros

    with writer(tmp_path / "f.gguf") as w:
        for i, n in enumerate(SIZES):
            w.write(i, np.full(n, i + 1, np.uint8))
        w.finish()
    stored = _core.GgufFile(tmp_path / "f.gguf").tensors[3].data
    assert (stored == 4).all()
    forget_pages(stored)
    forget_pages(stored[5:-5])
    assert (stored == 4).all()
