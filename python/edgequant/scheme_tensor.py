"""A weight matrix in a format that is described at run time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgequant import _core
from edgequant._core import Error
from edgequant.arrays import as_plane, split_shape
from edgequant.scheme import Format
from edgequant.tensor import QuantizedTensor, importance_vector, output_type


class SchemeTensor(QuantizedTensor):
    """Weights in a `Format` of your own, or in a planar one.

    Made by `edgequant.quantize`, `edgequant.load` and `edgequant.from_planes`.

    Attributes:
      format: the name of the format.
      scheme: the Format.
      planes: the arrays by name, with the types and shapes of their ecosystem; of your own formats, "data": uint8
        (rows, bytes per row), and "table" (float32) where the table is learned.
      shape: shape of the weights, such as (N, K).
    """

    __slots__ = ("planes", "scheme")

    def __init__(self, planes: Mapping[str, np.ndarray], scheme: Format, shape: tuple[int, ...]) -> None:
        super().__init__(planes.get("data", np.empty(0, np.uint8)), scheme.name, shape)
        self.planes, self.scheme = dict(planes), scheme

    @property
    def nbytes(self) -> int:
        """Number of bytes of all arrays."""
        return sum(int(a.nbytes) for a in self.planes.values())

    def dequantize(self, dtype: Any = "float32") -> np.ndarray:
        """The weights as numbers; see `QuantizedTensor.dequantize`."""
        to, as_dtype = output_type(dtype)
        rows, cols = split_shape(self.shape)
        w = self.scheme.core.dequantize(self.scheme.core_arrays(self.planes), rows, cols)
        if to != "f32":
            w = _core.dequantize(w, "f32", rows, cols, to).view(as_dtype)
        return w.reshape(self.shape)

    @property
    def has_two_panels(self) -> bool:
        """Whether `repack` knows "compact" beside "fast"."""
        return getattr(self.scheme.core, "has_two_panels", False)

    def repack(self, rows: int, cols: int, panel: str = "fast") -> tuple[_core.Panel, bool] | None:
        """The layout of products, and whether it holds exactly these weights; None if the format has none."""
        core, arrays = self.scheme.core, self.scheme.core_arrays(self.planes)
        if panel == "compact":
            return core.repack(arrays, rows, cols, panel)
        return core.repack(arrays, rows, cols) if hasattr(core, "repack") else None

    def repack_exactly(self, rows: int, cols: int) -> _core.Panel:
        """For compute="exact" where `repack` does not hold these weights: wider scales, or rows to be decoded."""
        return self.scheme.core.repack_exactly(self.scheme.core_arrays(self.planes), rows, cols)

    def source(self) -> tuple[np.ndarray, str]:
        """The decoded weights, since the core's block operations know only the formats of the catalogue."""
        return self.dequantize(), "f32"

    def __eq__(self, other: object) -> bool:
        """Same format, same shape, same arrays."""
        if not isinstance(other, SchemeTensor):
            return NotImplemented
        same = self.scheme == other.scheme and self.shape == other.shape and self.planes.keys() == other.planes.keys()
        return same and all(np.array_equal(a, other.planes[name]) for name, a in self.planes.items())


def quantize_scheme(
    w: np.ndarray,
    scheme: Format,
    shape: tuple[int, ...],
    importance: Any,
    effort: str,
    hessian: np.ndarray | None = None,
) -> SchemeTensor:
    """Encodes float32 weights (rows, cols) that have `shape` otherwise."""
    core = scheme.core
    if hessian is None:
        words = core.quantize(w, importance_vector(importance, w.shape[1]), effort)
    elif isinstance(core, _core.Scheme):
        words = core.quantize_ldlq(w, hessian, effort=effort)
    else:
        raise Error(f"format '{scheme.name}' has a codec of its own, and no error feedback from a Hessian")
    return SchemeTensor(scheme.named_arrays(words, shape), scheme, shape)


def from_planes(planes: Mapping[str, Any], format: Format | str, shape: tuple[int, ...]) -> SchemeTensor:
    """A tensor over arrays that are already encoded, such as those of a checkpoint. Contiguous ones are not copied.

    Args:
      planes: the arrays by their names in the ecosystem, as `SchemeTensor.planes` holds them: NumPy or torch.
      format: a Format, or the name of a planar one.
      shape: shape of the weights, (N, K).

    Raises Error if arrays are missing, or have another size than format and shape need.

    Example:
      >>> q = edgequant.quantize(np.eye(64, dtype="float32"), "mlx.affine4.g64")
      >>> edgequant.from_planes(q.planes, "mlx.affine4.g64", (64, 64)) == q
      True
    """
    from edgequant.planar import find_scheme

    scheme = find_scheme(format)
    if scheme is None:
        raise Error(f"there is no planar format named '{format}'")
    q = SchemeTensor({n: as_plane(a) for n, a in planes.items()}, scheme, tuple(int(n) for n in shape))
    q.scheme.core.check(scheme.core_arrays(q.planes), *split_shape(q.shape))
    return q
