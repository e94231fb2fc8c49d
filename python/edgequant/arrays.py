"""Arrays of other libraries as the bytes that the core reads, without a copy where possible."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from edgequant._core import Error

# NumPy's name of a floating type -> ours. float64 is rounded to f32.
_FORMATS = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}


def as_matrix(w: Any) -> tuple[np.ndarray, str]:
    """A C-contiguous array of the same shape, and its format f32, f16 or bf16.

    Accepts NumPy arrays (bfloat16 of ml_dtypes too), torch tensors, anything with `__dlpack__` on the CPU or
    `__array__`, and nested sequences of floats. bf16 comes back as uint16. Raises Error for other types.
    """
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(w, torch.Tensor):
        bf16 = w.dtype == torch.bfloat16
        w = tensor_numbers(w.detach().cpu())
        if bf16:
            return np.ascontiguousarray(w).reshape(w.shape), "bf16"
    elif not isinstance(w, np.ndarray):
        w = _from_protocols(w)
    name = w.dtype.name
    if name == "float64":
        w, name = w.astype(np.float32), "float32"
    if name not in _FORMATS:
        raise Error(f"weights of type {name} cannot be quantized: give float32, float16, bfloat16 or float64")
    w = np.ascontiguousarray(w, dtype=w.dtype.newbyteorder("=")).reshape(w.shape)
    return (w.view(np.uint16) if name == "bfloat16" else w), _FORMATS[name]


def as_plane(a: Any) -> np.ndarray:
    """An array of any type. Of torch tensors too: their bfloat16 comes back as uint16, their 8-bit floats as uint8."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(a, torch.Tensor):
        a = a.detach().cpu()
        return tensor_numbers(a.view(torch.uint8) if str(a.dtype).startswith("torch.float8") else a)
    return a if isinstance(a, np.ndarray) else _from_protocols(a)


def tensor_numbers(t: Any) -> np.ndarray:
    """A view of a torch tensor's numbers on the CPU, bfloat16 as uint16; Error where NumPy has no such numbers."""
    try:
        if str(t.dtype) == "torch.bfloat16":
            return np.asarray(t.resolve_neg().view(sys.modules["torch"].int16).numpy()).view(np.uint16)
        return np.asarray(t.resolve_neg().numpy())
    except (TypeError, RuntimeError) as e:
        raise Error(f"a tensor of {t.dtype}, {t.layout} cannot be read as an array: {e}") from None


def _from_protocols(w: Any) -> np.ndarray:
    if hasattr(w, "__dlpack__"):
        try:
            return np.from_dlpack(w)
        except (AttributeError, BufferError, RuntimeError, TypeError, ValueError):
            pass  # bfloat16, or not on the CPU: the library's own conversion may know better
    try:
        return np.asarray(w)
    except (TypeError, ValueError, RuntimeError) as e:
        raise Error(f"{type(w).__name__} cannot be read as an array: {e}") from None


def split_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    """(rows, cols) of an array whose last dimension is quantized. Raises Error for scalars and empty arrays."""
    if not shape or 0 in shape:
        raise Error(f"weights of shape {shape}: expected (N, K), at least one number")
    rows = 1
    for n in shape[:-1]:
        rows *= n
    return rows, shape[-1]


def as_bytes(w: np.ndarray) -> np.ndarray:
    """The bytes of a contiguous array, 1-D."""
    return w.reshape(-1).view(np.uint8)
