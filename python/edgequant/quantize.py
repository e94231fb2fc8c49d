"""Quantizing one array."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from edgequant import _core
from edgequant._core import Error
from edgequant.arrays import as_bytes, as_matrix, split_shape
from edgequant.formats import BlockFormat, lookup
from edgequant.planar import find_scheme
from edgequant.scheme import Format
from edgequant.scheme_tensor import quantize_scheme
from edgequant.tensor import QuantizedTensor, check_rows, importance_vector

Effort = Literal["fast", "default", "best"]
Objective = Literal["ggml", "plain"]
EFFORTS: tuple[Effort, ...] = ("fast", "default", "best")
OBJECTIVES: tuple[Objective, ...] = ("ggml", "plain")


def quantize(
    w: Any,
    format: str | BlockFormat | Format,
    importance: Any = None,
    *,
    hessian: Any = None,
    effort: Effort = "default",
    objective: Objective = "ggml",
) -> QuantizedTensor:
    """Encodes weights.

    Args:
      w: weights (N, K), also (K,) or more leading dimensions: float32, float16, bfloat16 or float64 (rounded to
        float32). NumPy arrays, torch tensors, anything with `__dlpack__` or `__array__`; a QuantizedTensor is
        decoded and encoded again. Read in place where it is contiguous, else copied.
      format: name of a format that can be written, see `edgequant.formats` and `edgequant.planar_formats`; or a Format.
      importance: optional non-negative weights (K,) of the columns, such as the mean squares of the layer's inputs:
        errors in heavy columns count more.
      hessian: optional second moments (K, K) of the layer's inputs, x.T @ x over a calibration set, in any scale. The
        squared error of the layer's outputs is minimised then, with error feedback from one block of columns to the
        next (LDLQ as in QuIP#; GPTQ for formats of any kind); it takes the place of importance and objective.
      effort: how hard to search for scales: "fast", "default" or "best". "fast" in a planar format is the rule of its
        ecosystem's own encoder.
      objective: "ggml" minimises the error that ggml's own quantizer of the format does, "plain" the squared error.
        Formats of your own, and planar ones, have the latter only.

    Returns: QuantizedTensor of the same shape.

    Raises Error for unknown formats, other types, NaN or Inf, rows that do not divide the block, wrong importance.

    Example:
      >>> w = np.random.default_rng(0).standard_normal((8, 256), dtype=np.float32)
      >>> edgequant.quantize(w, "q4_k")
      QuantizedTensor(q4_k, shape=(8, 256), 4.5 bits per weight)
    """
    scheme = find_scheme(format)
    name = writable(format) if scheme is None else scheme.name
    if effort not in EFFORTS or objective not in OBJECTIVES:
        raise Error(f"effort '{effort}', objective '{objective}': expected one of {EFFORTS} and of {OBJECTIVES}")
    if isinstance(w, QuantizedTensor):
        (data, source), shape = w.source(), w.shape
    else:
        w, source = as_matrix(w)
        data, shape = as_bytes(w), tuple(w.shape)
    if hessian is not None and importance is not None:
        raise Error("importance and hessian are both given; the Hessian's diagonal is the importance")
    if scheme is not None:
        rows, cols = split_shape(shape)
        x = _core.dequantize(data, source, rows, cols) if source != "f32" else data.view(np.float32)
        moments = None if hessian is None else _hessian_matrix(hessian, cols)
        return quantize_scheme(x.reshape(rows, cols), scheme, shape, importance, effort, moments)
    rows, cols = check_rows(name, shape)
    if hessian is not None:
        moments = _hessian_matrix(hessian, cols)
        return QuantizedTensor(
            _core.quantize_ldlq(data, source, rows, cols, name, moments, effort=effort), name, shape
        )
    vector = importance_vector(importance, cols)
    out, _ = _core.quantize(data, source, rows, cols, name, importance=vector, effort=effort, objective=objective)
    return QuantizedTensor(out, name, shape)


def _hessian_matrix(hessian: Any, cols: int) -> np.ndarray:
    matrix, kind = as_matrix(hessian)
    if kind != "f32":
        matrix = np.asarray(hessian, dtype=np.float32)
    if matrix.shape != (cols, cols):
        raise Error(f"hessian of shape {matrix.shape}: expected ({cols}, {cols}), the second moments of the inputs")
    return matrix


def from_bytes(data: Any, format: str, shape: tuple[int, ...]) -> QuantizedTensor:
    """A tensor over bytes that are already encoded, such as those of a GGUF file. Nothing is copied.

    Args:
      data: bytes, a uint8 array or any contiguous buffer, rows one after another.
      format: name of the format.
      shape: shape of the weights, (N, K).

    Raises Error if the number of bytes is not what format and shape need.

    Example:
      >>> q = edgequant.from_bytes(bytes(34), "q8_0", (1, 32))
      >>> float(np.abs(q.dequantize()).max())
      0.0
    """
    format = lookup(format).name
    shape = tuple(int(n) for n in shape)
    rows, cols = check_rows(format, shape)
    row_bytes = _core.row_bytes(format, cols)
    try:
        flat = data.reshape(-1).view(np.uint8) if isinstance(data, np.ndarray) else np.frombuffer(data, np.uint8)
    except (TypeError, ValueError, BufferError) as e:
        raise Error(f"{type(data).__name__} cannot be read as bytes: {e}") from None
    if flat.size != rows * row_bytes:
        raise Error(f"{format} of shape {shape} needs {rows * row_bytes} bytes, not {flat.size}")
    return QuantizedTensor(flat.reshape(rows, row_bytes), format, shape)


def writable(format: Any) -> str:
    """The canonical name of a format that can be written, or Error."""
    name = str(lookup(format).name)
    if not _core.can_quantize(name):
        raise Error(f"{name} can be read but not written yet")
    return name
