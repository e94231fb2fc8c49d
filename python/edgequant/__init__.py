"""edgequant: weights at 1 to 8 bits for every edge runtime.

    import edgequant as eq
    q = eq.quantize(w, "q4_k")                # w (N, K): NumPy, torch, anything with DLPack
    q.dequantize(); q.error(w); q.nbytes
    eq.matmul(x, q)                           # x (..., K) -> (..., N)
    eq.quantize_model("SmolLM2-135M/", "smollm2-q4_k_m.gguf", "q4_k_m")

`edgequant.formats` lists the formats; every error is an `edgequant.Error`, a ValueError.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from edgequant._core import Error, __version__, num_threads, set_num_threads, set_panel

if TYPE_CHECKING:
    from edgequant.comparison import Comparison
    from edgequant.convert import quantize_model
    from edgequant.evaluate import Evaluation, evaluate
    from edgequant.formats import formats
    from edgequant.importance import Importance, load_importance
    from edgequant.matmul import matmul, matmul_grouped
    from edgequant.models import open_model
    from edgequant.planar import planar_formats
    from edgequant.quantize import from_bytes, quantize
    from edgequant.report import Report
    from edgequant.scheme import Array, Format
    from edgequant.scheme_tensor import SchemeTensor, from_planes
    from edgequant.store import load, save
    from edgequant.tensor import QuantizedTensor
    from edgequant.transcode import TranscodeLoss, transcode_loss

__all__ = [
    "Array",
    "Comparison",
    "Error",
    "Evaluation",
    "Format",
    "Importance",
    "QuantizedTensor",
    "Report",
    "SchemeTensor",
    "TranscodeLoss",
    "__version__",
    "evaluate",
    "formats",
    "from_bytes",
    "from_planes",
    "load",
    "load_importance",
    "matmul",
    "matmul_grouped",
    "num_threads",
    "open_model",
    "planar_formats",
    "quantize",
    "quantize_model",
    "save",
    "set_num_threads",
    "set_panel",
    "transcode_loss",
]

# Where each name lies; imported when it is first asked for, so that commands which need no NumPy start without it.
_MODULES = {
    "Array": "scheme",
    "Comparison": "comparison",
    "Evaluation": "evaluate",
    "Format": "scheme",
    "Importance": "importance",
    "QuantizedTensor": "tensor",
    "Report": "report",
    "SchemeTensor": "scheme_tensor",
    "TranscodeLoss": "transcode",
    "evaluate": "evaluate",
    "formats": "formats",
    "from_bytes": "quantize",
    "from_planes": "scheme_tensor",
    "load": "store",
    "load_importance": "importance",
    "matmul": "matmul",
    "matmul_grouped": "matmul",
    "open_model": "models",
    "planar_formats": "planar",
    "quantize": "quantize",
    "quantize_model": "convert",
    "save": "store",
    "transcode_loss": "transcode",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'edgequant' has no attribute '{name}'")
    value = getattr(import_module(f"edgequant.{_MODULES[name]}"), name)
    setattr(sys.modules[__name__], name, value)
    return value


def __dir__() -> list[str]:
    return __all__


class _Package(ModuleType):
    """Where a function has the name of its module, the package has the function, whatever is imported first."""

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, ModuleType) and _MODULES.get(name) == name:
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
