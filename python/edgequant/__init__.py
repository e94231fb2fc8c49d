"""edgequant: weights at 1 to 8 bits for every edge runtime.

    import edgequant as eq
    q = eq.quantize(w, "q4_k")                # w (N, K): NumPy, torch, anything with DLPack
    q.dequantize(); q.error(w); q.nbytes
    eq.matmul(x, q)                           # x (..., K) -> (..., N)
    eq.quantize_model("SmolLM2-135M/", "smollm2-q4_k_m.gguf", "q4_k_m")

`edgequant.formats` lists the formats; every error is an `edgequant.Error`, a ValueError.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgequant._core import Error, __version__, num_threads, set_num_threads
from edgequant.formats import formats
from edgequant.matmul import matmul
from edgequant.quantize import from_bytes, quantize
from edgequant.tensor import Comparison, QuantizedTensor

if TYPE_CHECKING:
    from edgequant.convert import quantize_model
    from edgequant.evaluate import Evaluation, evaluate
    from edgequant.importance import Importance, load_importance
    from edgequant.models import open_model
    from edgequant.report import Report

__all__ = [
    "Comparison",
    "Error",
    "Evaluation",
    "Importance",
    "QuantizedTensor",
    "Report",
    "__version__",
    "evaluate",
    "formats",
    "from_bytes",
    "load_importance",
    "matmul",
    "num_threads",
    "open_model",
    "quantize",
    "quantize_model",
    "set_num_threads",
]

_LAZY = {
    "Evaluation": "evaluate",
    "evaluate": "evaluate",
    "Importance": "importance",
    "load_importance": "importance",
    "open_model": "models",
    "quantize_model": "convert",
    "Report": "report",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'edgequant' has no attribute '{name}'")
    from importlib import import_module

    value = getattr(import_module(f"edgequant.{_LAZY[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
