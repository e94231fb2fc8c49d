"""ggml's matrix product through ctypes: the peer of benchmarks/matmul.py."""

from __future__ import annotations

import ctypes
import importlib.util
from pathlib import Path

import numpy as np

_P, _I64, _SIZE = ctypes.c_void_p, ctypes.c_int64, ctypes.c_size_t
_F32 = 0


class _InitParams(ctypes.Structure):
    _fields_ = [("mem_size", _SIZE), ("mem_buffer", _P), ("no_alloc", ctypes.c_bool)]


_LOG = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, _P)
_SILENT = _LOG(lambda level, text, user: None)  # it tells of each tensor that it repacks

_SIGNATURES = {
    "ggml_log_set": (None, [_LOG, _P]),
    "ggml_init": (_P, [_InitParams]),
    "ggml_free": (None, [_P]),
    "ggml_new_tensor_2d": (_P, [_P, ctypes.c_int, _I64, _I64]),
    "ggml_mul_mat": (_P, [_P, _P, _P]),
    "ggml_new_graph": (_P, [_P]),
    "ggml_build_forward_expand": (None, [_P, _P]),
    "ggml_backend_alloc_ctx_tensors_from_buft": (_P, [_P, _P]),
    "ggml_backend_tensor_set": (None, [_P, _P, _SIZE, _SIZE]),
    "ggml_backend_tensor_get": (None, [_P, _P, _SIZE, _SIZE]),
    "ggml_backend_buffer_free": (None, [_P]),
    "ggml_backend_free": (None, [_P]),
    "ggml_backend_cpu_init": (_P, []),
    "ggml_backend_cpu_set_n_threads": (None, [_P, ctypes.c_int]),
    "ggml_backend_cpu_buffer_type": (_P, []),
    "ggml_backend_graph_compute": (ctypes.c_int, [_P, _P]),
}
# Its interleaved layout for some types has no C name.
_REPACK = "_Z35ggml_backend_cpu_repack_buffer_typev"
REPACKED = {"q4_0", "q4_k", "q2_k", "iq4_nl", "mxfp4"}


class _Library:
    def __init__(self) -> None:
        spec = importlib.util.find_spec("llama_cpp")
        if spec is None or spec.origin is None:
            raise ImportError("llama-cpp-python is not installed (make peers builds it)")
        folder = Path(spec.origin).parent / "lib"
        libraries = [ctypes.CDLL(str(folder / f"libggml-{part}.so"), ctypes.RTLD_GLOBAL) for part in ("base", "cpu")]
        for name, (result, arguments) in {**_SIGNATURES, _REPACK: (_P, [])}.items():
            function = next(getattr(lib, name) for lib in libraries if hasattr(lib, name))
            function.restype, function.argtypes = result, arguments
            setattr(self, name, function)


class GgmlProducts:
    """`copies` equal matrices of weights, one after another in memory, and products of m rows with each."""

    def __init__(
        self, data: np.ndarray, number: int, cols: int, m: int, copies: int, threads: int, repack: bool
    ) -> None:
        g = self._g = _Library()
        g.ggml_log_set(_SILENT, None)
        self._rows, self._m, self._next = data.shape[0], m, 0
        self._backend = g.ggml_backend_cpu_init()
        g.ggml_backend_cpu_set_n_threads(self._backend, threads)
        plain = g.ggml_backend_cpu_buffer_type()
        params = _InitParams((1 + copies) << 18, None, True)  # a graph takes a third of that
        self._weights, self._work = g.ggml_init(params), g.ggml_init(params)
        tensors = [g.ggml_new_tensor_2d(self._weights, number, cols, self._rows) for _ in range(copies)]
        self._buffers = [
            g.ggml_backend_alloc_ctx_tensors_from_buft(self._weights, getattr(g, _REPACK)() if repack else plain)
        ]
        for tensor in tensors:
            g.ggml_backend_tensor_set(tensor, data.ctypes.data, 0, data.nbytes)
        self._x = g.ggml_new_tensor_2d(self._work, _F32, cols, m)
        self._y = [g.ggml_mul_mat(self._work, tensor, self._x) for tensor in tensors]
        self._graphs = []
        for y in self._y:
            graph = g.ggml_new_graph(self._work)
            g.ggml_build_forward_expand(graph, y)
            self._graphs.append(graph)
        self._buffers.append(g.ggml_backend_alloc_ctx_tensors_from_buft(self._work, plain))

    def set(self, x: np.ndarray) -> None:
        self._g.ggml_backend_tensor_set(self._x, x.ctypes.data, 0, x.nbytes)

    def run(self) -> None:
        """The product with the next matrix."""
        self._g.ggml_backend_graph_compute(self._backend, self._graphs[self._next])
        self._next = (self._next + 1) % len(self._graphs)

    def result(self) -> np.ndarray:
        out = np.empty((self._m, self._rows), np.float32)
        self._g.ggml_backend_tensor_get(self._y[self._next - 1], out.ctypes.data, 0, out.nbytes)
        return out

    def close(self) -> None:
        for buffer in self._buffers:
            self._g.ggml_backend_buffer_free(buffer)
        self._g.ggml_free(self._weights)
        self._g.ggml_free(self._work)
        self._g.ggml_backend_free(self._backend)
