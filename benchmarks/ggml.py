"""Native ggml, the library inside llama-cpp-python, through ctypes: the peer of the benchmarks and of `make peers`."""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np


class _TypeTraits(ctypes.Structure):
    _fields_ = [
        ("type_name", ctypes.c_char_p),
        ("blck_size", ctypes.c_int64),
        ("blck_size_interleave", ctypes.c_int64),
        ("type_size", ctypes.c_size_t),
        ("is_quantized", ctypes.c_bool),
        ("to_float", ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)),
        ("from_float_ref", ctypes.c_void_p),
    ]


class Ggml:
    """ggml_quantize_chunk and to_float on whole matrices; ctypes releases the interpreter lock, so threads run."""

    def __init__(self) -> None:
        spec = importlib.util.find_spec("llama_cpp")
        if spec is None or spec.origin is None:
            raise ImportError("llama-cpp-python is not installed (make peers builds it)")
        lib = ctypes.CDLL(str(Path(spec.origin).parent / "lib" / "libggml-base.so"))
        lib.ggml_quantize_chunk.restype = ctypes.c_size_t
        matrix = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]  # type, source, result
        lib.ggml_quantize_chunk.argtypes = [*matrix, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p]
        lib.ggml_get_type_traits.restype = ctypes.POINTER(_TypeTraits)
        lib.ggml_row_size.restype = ctypes.c_size_t
        lib.ggml_row_size.argtypes = [ctypes.c_int, ctypes.c_int64]
        self._lib = lib

    def row_bytes(self, number: int, cols: int) -> int:
        return int(self._lib.ggml_row_size(number, cols))

    def _parallel(self, rows: int, threads: int, body: Callable[[int, int], None]) -> None:
        if threads == 1:
            return body(0, rows)
        bounds = [rows * k // threads for k in range(threads + 1)]
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(body, bounds[:-1], bounds[1:]))

    def quantize(
        self, w: np.ndarray, number: int, importance: np.ndarray | None = None, threads: int = 1
    ) -> np.ndarray:
        """w (N, K) float32 -> (N, row bytes) uint8 of the GGML type `number`."""
        rows, cols = w.shape
        self._lib.ggml_quantize_init(number)
        out = np.empty((rows, self.row_bytes(number, cols)), np.uint8)
        address, target = w.ctypes.data, out.ctypes.data
        weights = importance.ctypes.data if importance is not None else None

        def body(begin: int, end: int) -> None:
            self._lib.ggml_quantize_chunk(number, address, target, begin * cols, end - begin, cols, weights)

        self._parallel(rows, threads, body)
        return out

    def to_float(self, number: int) -> Callable[[int, int, int], None]:
        """ggml's decoder of the type: (address of the blocks, address of the floats, weights)."""
        return self._lib.ggml_get_type_traits(number).contents.to_float

    def dequantize(
        self, data: np.ndarray, number: int, cols: int, threads: int = 1, out: np.ndarray | None = None
    ) -> np.ndarray:
        """data (N, row bytes) uint8 -> (N, cols) float32."""
        rows = data.shape[0]
        if out is None:
            out = np.empty((rows, cols), np.float32)
        to_float = self.to_float(number)
        source, target = data.ctypes.data, out.ctypes.data

        def body(begin: int, end: int) -> None:
            to_float(source + begin * data.shape[1], target + begin * cols * 4, (end - begin) * cols)

        self._parallel(rows, threads, body)
        return out
