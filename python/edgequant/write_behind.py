"""Writing one tensor while the next is being quantized."""

from __future__ import annotations

import ctypes
import mmap
import threading
from queue import SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from edgequant._core import GgufWriter

_SMALL = 1 << 16  # bytes: below this a hand-over costs more than the write
_madvise = getattr(ctypes.CDLL(None), "madvise", None) if hasattr(mmap, "MADV_DONTNEED") else None


class WriteBehind:
    """Hands tensors to a writer on a thread of its own, at most one at a time.

    `write` returns while its tensor is being written, and waits for the one before: memory holds at most two encoded
    tensors. An error of a write is raised by the next call.
    """

    def __init__(self, writer: GgufWriter) -> None:
        self._writer = writer
        self._jobs: SimpleQueue[tuple[int, np.ndarray, np.ndarray] | None] = SimpleQueue()
        self._idle = threading.Semaphore(1)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="edgequant-writer", daemon=True)
        self._thread.start()

    def write(self, index: int, data: np.ndarray, source: np.ndarray) -> None:
        """Writes tensor `index`. The pages of `source`, a mapped array that is not needed any more, are given back."""
        if data.nbytes < _SMALL:
            self._writer.write(index, data)
            return
        self._wait()
        self._jobs.put((index, data, source))

    def flush(self) -> None:
        """Waits until everything is written."""
        self._wait()
        self._idle.release()

    def _wait(self) -> None:
        self._idle.acquire()
        if self._error is not None:
            self._idle.release()
            raise self._error

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                index, data, source = job
                self._writer.write(index, data)
                forget_pages(source)
            except BaseException as e:
                self._error = e
            finally:
                del job, data, source
                self._idle.release()

    def __enter__(self) -> WriteBehind:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._jobs.put(None)
        self._thread.join()


def forget_pages(data: np.ndarray) -> None:
    """Drops the whole pages of an array over a mapped file from this process; a later access reads the file again."""
    if _madvise is None or not _is_mapped(data):
        return
    begin, end = data.ctypes.data, data.ctypes.data + data.nbytes
    page = mmap.PAGESIZE
    begin, end = -(-begin // page) * page, end // page * page
    if end > begin:
        _madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), mmap.MADV_DONTNEED)


def _is_mapped(data: np.ndarray) -> bool:
    """Whether the bytes are those of an open file, lent by the core through a capsule: other memory would be lost."""
    base: object = data
    while isinstance(base, np.ndarray):
        if base.flags.writeable or not base.flags.c_contiguous:
            return False
        base = base.base
    return type(base).__name__ == "PyCapsule"
