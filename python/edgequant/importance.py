"""Importance matrices: how strongly each input column of each weight is used, measured by llama.cpp's imatrix tool."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from edgequant._core import Error

if TYPE_CHECKING:
    from typing import TypeAlias

    Source: TypeAlias = "str | os.PathLike[str] | Mapping[str, np.ndarray]"


class Importance(Mapping[str, np.ndarray]):
    """The mean square of each input of each weight: GGUF tensor name -> float32 vector of `cols` numbers.

    A stacked expert tensor has experts * cols numbers, one vector after another.

    Attributes:
      path: the file, or None.
      datasets: names of the texts it was measured on.
      chunks: number of text chunks measured.
    """

    def __init__(
        self,
        entries: Mapping[str, np.ndarray],
        path: str | None = None,
        datasets: tuple[str, ...] = (),
        chunks: int = 0,
    ) -> None:
        self.path, self.datasets, self.chunks = path, datasets, chunks
        self._entries: dict[str, np.ndarray] = {}
        for name, values in entries.items():
            vector = np.ascontiguousarray(values, dtype=np.float32).reshape(-1)
            if not np.isfinite(vector).all() or (vector < 0).any():
                raise Error(f"{path or 'importance'}: '{name}' holds a number that is negative or not finite")
            self._entries[name] = vector

    def __getitem__(self, name: str) -> np.ndarray:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"Importance({len(self)} tensors, {self.chunks} chunks, from {self.path})"

    def of(self, name: str, shape: tuple[int, ...]) -> np.ndarray | None:
        """The vectors of one tensor, (experts, cols), or None where it was not measured.

        Raises Error if their number does not fit the shape; the token embedding, which has no inputs to measure, is
        then left without.
        """
        vector = self._entries.get(name)
        if vector is None:
            return None
        experts, cols = (shape[-3] if len(shape) > 2 else 1), shape[-1]
        if vector.size != experts * cols:
            if name == "token_embd.weight":
                return None
            where = self.path or "importance"
            raise Error(f"{where}: '{name}' has {vector.size} numbers where the tensor needs {experts * cols}")
        return vector.reshape(experts, cols)


def load_importance(source: Source) -> Importance:
    """Reads an importance matrix.

    Args:
      source: path of a file of llama.cpp's imatrix tool, GGUF or the older .dat, or a mapping of GGUF tensor names to
        vectors.

    Raises Error if the file is neither, is cut short, or holds negative or non-finite numbers.
    """
    if isinstance(source, Importance):
        return source
    if isinstance(source, Mapping):
        return Importance(source)
    path = os.fspath(source)
    try:
        with open(path, "rb") as f:
            magic = f.read(4)
    except OSError as e:
        raise Error(f"{path}: {e.strerror}") from None
    return _load_gguf(path) if magic == b"GGUF" else _load_dat(path)


def _load_gguf(path: str) -> Importance:
    from edgequant._core import GgufFile

    file = GgufFile(path)
    tensors = {t.name: t for t in file.tensors}
    entries: dict[str, np.ndarray] = {}
    for sums_name, sums in tensors.items():
        if not sums_name.endswith(".in_sum2"):
            continue
        name = sums_name.removesuffix(".in_sum2")
        counts = tensors.get(f"{name}.counts")
        if counts is None:
            raise Error(f"{path}: '{name}' has sums but no counts")
        if sums.type != "f32" or counts.type != "f32":
            raise Error(f"{path}: '{name}' holds {sums.type} sums and {counts.type} counts, not f32")
        n = np.rint(counts.data.view(np.float32).reshape(-1, 1))
        total = sums.data.view(np.float32)
        if n.size == 0 or total.size % n.size:
            raise Error(f"{path}: '{name}' has {total.size} sums for {n.size} counts")
        total = total.reshape(n.size, -1)
        # An expert that saw no token: all columns alike.
        entries[name] = np.where(n > 0, total / np.where(n > 0, n, 1), np.float32(1))
    if not entries:
        raise Error(f"{path}: a GGUF file without importance data (no tensor named *.in_sum2)")
    datasets = tuple(str(d) for d in file.metadata.get("imatrix.datasets", ()))
    return Importance(entries, path, datasets, int(file.metadata.get("imatrix.chunk_count", 0)))


def _load_dat(path: str) -> Importance:
    """The older format: count, then per entry name, number of calls and sums; then chunks and the text's name."""
    with open(path, "rb") as f:
        data = f.read()
    at = 0

    def take(size: int) -> bytes:
        nonlocal at
        if size < 0 or at + size > len(data):
            raise Error(f"{path}: neither a GGUF file nor a complete imatrix file (stops short at byte {at})")
        at += size
        return data[at - size : at]

    def number() -> int:
        return int(struct.unpack("<i", take(4))[0])

    entries: dict[str, np.ndarray] = {}
    count = number()
    if count < 1:
        raise Error(f"{path}: neither a GGUF file nor an imatrix file")
    for _ in range(count):
        name = take(number()).decode("utf-8", "replace")
        calls, size = number(), number()
        if size < 1:
            raise Error(f"{path}: '{name}' has {size} values")
        sums = np.frombuffer(take(4 * size), "<f4")
        entries[name] = sums / np.float32(calls) if calls > 0 else sums
    chunks, dataset = 0, ""
    if at + 4 <= len(data):
        chunks = number()
        if at + 4 <= len(data):
            dataset = take(number()).decode("utf-8", "replace")
    return Importance(entries, path, (dataset,) if dataset else (), chunks)
