"""A weight matrix in a block format."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from edgequant import _core
from edgequant._core import Error
from edgequant.arrays import as_bytes, as_matrix, split_shape
from edgequant.comparison import Comparison
from edgequant.formats import lookup


class QuantizedTensor:
    """Weights encoded block by block along their last dimension.

    Made by `edgequant.quantize` and `edgequant.from_bytes`.

    Attributes:
      data: uint8 array (rows, bytes per row); leading dimensions are flattened into rows.
      format: name of the format, such as "q4_k".
      shape: shape of the weights, such as (N, K).
    """

    __slots__ = ("data", "format", "shape")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, data: np.ndarray, format: str, shape: tuple[int, ...]) -> None:
        self.data, self.format, self.shape = data, format, shape

    @property
    def ndim(self) -> int:
        """Number of dimensions of the weights."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of weights."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Number of bytes of the encoded weights."""
        return int(self.data.nbytes)

    @property
    def bits_per_weight(self) -> float:
        """Bits per weight, scales and all."""
        return self.nbytes * 8 / self.size

    def dequantize(self, dtype: Any = "float32") -> np.ndarray:
        """The weights as numbers.

        Args:
          dtype: float32 (exactly the values the format defines), float16 or bfloat16 (rounded to nearest even): a
            name, a NumPy or torch dtype. bfloat16 needs the ml_dtypes package.

        Returns: array of `shape`. Raises Error for other types.

        Example:
          >>> edgequant.quantize(np.eye(32, dtype="float32"), "q8_0").dequantize("float16").dtype
          dtype('float16')
        """
        to, as_dtype = output_type(dtype)
        rows, cols = split_shape(self.shape)
        return _core.dequantize(self.data, self.format, rows, cols, to).view(as_dtype).reshape(self.shape)

    def compare(self, w: Any, importance: Any = None) -> Comparison:
        """Measures the error against the original weights.

        Args:
          w: array of the same shape (whatever `edgequant.quantize` accepts), or a QuantizedTensor.
          importance: one weight per column, (K,), for `weighted_rmse`.

        Raises Error if the shapes differ.
        """
        if isinstance(w, QuantizedTensor):
            (data, source), shape = w.source(), w.shape
        else:
            w, source = as_matrix(w)
            data, shape = as_bytes(w), w.shape
        if tuple(shape) != self.shape:
            raise Error(f"weights of shape {tuple(shape)} compared with a tensor of shape {self.shape}")
        rows, cols = split_shape(self.shape)
        weights = importance_vector(importance, cols)
        return Comparison.from_sums(_core.compare(data, source, *self.source(), rows, cols, weights))

    def source(self) -> tuple[np.ndarray, str]:
        """Bytes, and the name of their format, as the core reads weights."""
        return self.data, self.format

    def to(self, format: Any, lossy: bool = False) -> QuantizedTensor:
        """The same weights in another format: no search, the very values.

        Args:
          format: name of a format, or a Format; `edgequant.transcode_loss` says what to expect.
          lossy: quantize the decoded weights again where the values cannot be kept.

        Raises Error if values would change and that was not asked for.

        Example:
          >>> edgequant.quantize(np.eye(32, dtype="float32"), "q4_0").to("onnx.nbits4.g32").format
          'onnx.nbits4.g32'
        """
        from edgequant.transcode import transcode

        return transcode(self, format, lossy)

    def error(self, w: Any) -> float:
        """Relative root-mean-square error against the original weights `w`; see `compare` for more measures."""
        return self.compare(w).relative_rmse

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("a QuantizedTensor cannot become an array without a copy")
        w = self.dequantize()
        return w if dtype is None else w.astype(dtype, copy=False)

    def __eq__(self, other: object) -> bool:
        """Same format, same shape, same bytes."""
        if not isinstance(other, QuantizedTensor):
            return NotImplemented
        same = self.format == other.format and self.shape == other.shape
        return same and bool(np.array_equal(self.data, other.data))

    def __repr__(self) -> str:
        return f"QuantizedTensor({self.format}, shape={self.shape}, {self.bits_per_weight:.4g} bits per weight)"


def importance_vector(importance: Any, cols: int) -> np.ndarray | None:
    """float32 vector of `cols` numbers from what the caller gave, or Error."""
    if importance is None:
        return None
    vector, kind = as_matrix(importance)
    if kind != "f32":
        vector = np.asarray(importance, dtype=np.float32)
    if vector.shape != (cols,):
        raise Error(f"importance of shape {vector.shape}: expected one number per column, ({cols},)")
    return vector


def output_type(dtype: Any) -> tuple[str, Any]:
    name = str(dtype).removeprefix("torch.") if not isinstance(dtype, type) else dtype.__name__
    name = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}.get(name, name)
    if name == "float32":
        return "f32", np.float32
    if name == "float16":
        return "f16", np.float16
    if name == "bfloat16":
        try:
            from ml_dtypes import bfloat16
        except ImportError:
            raise Error("dequantizing to bfloat16 needs the ml_dtypes package: pip install ml_dtypes") from None
        return "bf16", bfloat16
    raise Error(f"cannot dequantize to {name}: expected float32, float16 or bfloat16")


def check_rows(format: str, shape: tuple[int, ...]) -> tuple[int, int]:
    """(rows, cols), after checking that the rows divide the format's block."""
    rows, cols = split_shape(shape)
    block = lookup(format).block
    if cols % block:
        raise Error(f"weights of shape {shape}: rows of {cols} are not a multiple of the block of {block} of {format}")
    return rows, cols
