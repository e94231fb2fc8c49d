"""Products of activations with quantized weights, without decoding them to a matrix."""

from __future__ import annotations

import math
import sys
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from edgequant import _core
from edgequant._core import Error
from edgequant.arrays import tensor_numbers

if TYPE_CHECKING:
    from edgequant.tensor import QuantizedTensor

# NumPy's name of a type of activations -> the core's.
_TYPES = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}

# Repacked weights by the id of the array that holds the encoded ones, as long as that lives, and the kind of panel.
_panels: dict[tuple[int, str], tuple[weakref.ref[np.ndarray], str, tuple[int, ...], Any]] = {}


def repack(q: QuantizedTensor, panel: str = "auto") -> Any:
    """The weights in the layout that products read; made once, and kept while `q.data` lives.

    Changes of `q.data` in place are not noticed. Formats with a grid (iq1, iq2, iq3, quip.e8p) have two layouts:
    "compact", at their own rate, and "fast", of 2.3 to 4.4 bits per weight; see `edgequant.set_panel`. Plain numbers
    (f32, f16, bf16) are read where they lie, so for them this is a view of `q.data`, which nothing keeps.
    """
    if not _core.can_repack(q.format):
        return _core.view_numbers(q.data, q.format, math.prod(q.shape[:-1]), q.shape[-1])
    kind = _core.choose_panel(q.format, panel)
    return _cached(q, q.data, lambda rows, cols: _core.repack(q.data, q.format, rows, cols, kind), kind)


def _cached(q: QuantizedTensor, owner: np.ndarray, make: Callable[[int, int], Any], kind: str = "fast") -> Any:
    key = (id(owner), kind)
    found = _panels.get(key)
    if found is not None and found[0]() is owner and found[1:3] == (q.format, q.shape):
        return found[3]
    panel = make(math.prod(q.shape[:-1]), q.shape[-1])
    _panels[key] = (weakref.ref(owner, lambda _: _panels.pop(key, None)), q.format, q.shape, panel)
    return panel


def panel_for(q: QuantizedTensor, compute: str, panel: str = "auto") -> Any:
    """What is multiplied: the panel, or for exact products another copy where it does not hold the very weights."""
    from edgequant.scheme_tensor import SchemeTensor

    if not isinstance(q, SchemeTensor):
        return repack(q, panel)
    kind = _core.choose_panel(q.format if q.has_two_panels else "f32", panel)
    owner = next(iter(q.planes.values()))
    found = _cached(q, owner, lambda rows, cols: q.repack(rows, cols, kind), kind)
    if found is not None and (found[1] or compute != "exact"):
        return found[0]
    return _cached(q, owner, q.repack_exactly, "exact")


def matmul(
    x: Any,
    q: QuantizedTensor,
    out: Any = None,
    compute: str = "int8",
    bias: Any = None,
    scale: Any = None,
    panel: str = "auto",
) -> Any:
    """x @ w.T * scale + bias, where w are the weights of `q`.

    The first call repacks the weights; the panel stays in memory beside them. Results do not depend on the number of
    threads.

    Args:
      x: activations (..., K): a NumPy array or torch tensor on the CPU, or anything with DLPack; float32, float16 or
        bfloat16 (float64 is rounded to float32). Not copied if the numbers of a row lie side by side. Gradients do not
        pass; `edgequant.torch` has layers.
      q: weights (N, K).
      out: where to put the result (..., N), of type float32, float16 or bfloat16; contiguous. Default: a new array
        of the kind and type of `x`.
      compute: "int8" rounds the activations to int8, one scale for every 256 of a row: fast, and about 0.7 % off
        (root of the mean square, on normal data). "exact" equals float32 arithmetic on the decoded weights up to its
        rounding. In formats described at run time "int8" also rounds tables to int8, and scales and zeros to float16
        where they are neither that nor bfloat16; "exact" then keeps a second copy of the weights: with scales in
        float32, or, where tables are not a few whole numbers, codes of which some thousand are decoded at a time.
        Products with plain numbers (f32, f16, bf16) and with AQLM are exact either way. NaN or an infinity
        makes all results of its row of x NaN (without a panel: what float arithmetic gives).
      bias: (N,) numbers to add, or None.
      scale: (N,) numbers, what the columns of the product are multiplied by before the bias is added and the result
        rounded; or None.
      panel: which panel of a format with a grid (iq1, iq2, iq3, quip.e8p): "compact", "fast" or "auto"; see
        `edgequant.set_panel`. Each that is asked for stays in memory. Other formats have one.

    Returns: `out`, or the new array. Raises Error if shapes or types do not fit, or the format has no matmul.

    Example:
      >>> q = edgequant.quantize(np.eye(32, dtype="float32"), "q8_0")
      >>> edgequant.matmul(np.arange(32, dtype="float32"), q, compute="exact")[5]
      5.0
    """
    _check_weights(q)
    if len(q.shape) != 2:
        raise Error(f"matmul takes weights of shape (N, K), not {q.shape}")
    n, k = q.shape
    numbers, kind = _numbers(x)
    if not numbers.shape or numbers.shape[-1] != k:
        raise Error(f"x of shape {numbers.shape} does not fit weights of shape {q.shape}: expected (..., {k})")
    rows, shape = _rows(numbers, k), (*numbers.shape[:-1], n)
    given, (out, target, target_kind) = out, _target(out, x, numbers, shape)
    if given is not None and np.may_share_memory(rows, target):
        rows = rows.copy()
    bias, scale = _per_column(bias, (n,), "bias"), _per_column(scale, (n,), "scale")
    _check_compute(compute)
    packed = panel_for(q, compute, panel)
    _core.matmul(rows, kind, packed, target.reshape(-1, n), target_kind, compute, bias, scale)
    return out


def matmul_grouped(
    x: Any,
    experts: Sequence[QuantizedTensor],
    index: Any,
    out: Any = None,
    compute: str = "int8",
    bias: Any = None,
    scale: Any = None,
    panel: str = "auto",
) -> Any:
    """Each row of x times the weights of the experts that `index` names: the products of a mixture of experts.

    All experts are worked on at once by all threads, and the weights of each are read once, however the rows are
    ordered. Results are those of `matmul` with one expert after the other, at any number of threads.

    Args:
      x: activations (..., K), as for `matmul`.
      experts: weights (N, K) each; their formats may differ.
      index: whole numbers, one expert per row, of shape x.shape[:-1]; or several, of shape (*x.shape[:-1], S). Several
        rows of a router's top-k need no copies of x: S products are made of each row.
      out: where to put the result (*index.shape, N), as for `matmul`. Default: a new array of the kind and type of `x`.
      compute: "int8" or "exact", as for `matmul`.
      bias, scale: (len(experts), N) numbers, as for `matmul`, or None.
      panel: as for `matmul`.

    Returns: `out`, or the new array. Raises Error if shapes or types do not fit, or a number names no expert.

    Example:
      >>> experts = [edgequant.quantize(c * np.eye(32, dtype="float32"), "q8_0") for c in (1, 2)]
      >>> edgequant.matmul_grouped(np.ones((2, 32), "float32"), experts, [1, 0], compute="exact")[:, 5]
      array([2., 1.], dtype=float32)
    """
    if not experts:
        raise Error("matmul_grouped takes at least one expert")
    for q in experts:
        _check_weights(q)
        if len(q.shape) != 2 or q.shape != experts[0].shape:
            raise Error(f"experts are weights of one shape (N, K), not {experts[0].shape} and {q.shape}")
    n, k = experts[0].shape
    numbers, kind = _numbers(x)
    if not numbers.shape or numbers.shape[-1] != k:
        raise Error(f"x of shape {numbers.shape} does not fit experts of shape {(n, k)}: expected (..., {k})")
    index = np.asarray(index.detach() if hasattr(index, "detach") else index)
    if index.dtype.kind not in "iu":
        raise Error(f"index holds whole numbers, not {index.dtype}")
    rows_shape = numbers.shape[:-1]
    if index.shape != rows_shape and index.shape[:-1] != rows_shape:
        raise Error(f"index of shape {index.shape} does not fit x of shape {numbers.shape}")
    if index.size and not 0 <= index.min() <= index.max() < len(experts):
        raise Error(f"index names expert {index.min() if index.min() < 0 else index.max()} of {len(experts)}")
    per_row = 1 if index.shape == rows_shape else index.shape[-1]
    flat = np.ascontiguousarray(index, np.int64).reshape(-1)
    rows, shape = _rows(numbers, k), (*index.shape, n)
    given, (out, target, target_kind) = out, _target(out, x, numbers, shape)
    if given is not None and np.may_share_memory(rows, target):
        rows = rows.copy()
    target = target.reshape(-1, n)
    bias, scale = (_per_column(v, (len(experts), n), name) for v, name in ((bias, "bias"), (scale, "scale")))
    _check_compute(compute)
    panels = [panel_for(q, compute, panel) for q in experts]
    _core.matmul_grouped(rows, kind, panels, flat, per_row, target, target_kind, compute, bias, scale)
    return out


def _target(out: Any, x: Any, numbers: np.ndarray, shape: tuple[int, ...]) -> tuple[Any, np.ndarray, str]:
    """`out` or a new one, and its numbers and their type."""
    if out is None:
        out = _empty_like(x, numbers, shape)
    if not hasattr(out, "__dlpack__") or str(out.dtype).endswith("float64"):  # else results would go to a copy
        raise Error(f"out is an array of float32, float16 or bfloat16, not {getattr(out, 'dtype', type(out).__name__)}")
    target, kind = _numbers(out)
    if target.shape != shape or not target.flags.c_contiguous:
        raise Error(f"out must be contiguous, of shape {shape}; it has shape {target.shape}")
    if not target.flags.writeable:
        raise Error("out is read-only")
    return out, target, kind


def _check_weights(q: Any) -> None:
    from edgequant.tensor import QuantizedTensor

    if not isinstance(q, QuantizedTensor):
        raise Error(f"matmul takes weights as edgequant.quantize returns them, not {type(q).__name__}")


def _per_column(v: Any, shape: tuple[int, ...], name: str) -> np.ndarray | None:
    if v is None:
        return None
    v = np.ascontiguousarray(v.detach().float().numpy() if hasattr(v, "detach") else v, dtype=np.float32)
    if v.shape != shape:
        raise Error(f"the {name} has shape {v.shape}, not {shape}")
    return cast("np.ndarray", v)


def _check_compute(compute: str) -> None:
    if compute not in ("int8", "exact"):
        raise Error(f"compute is 'int8' or 'exact', not '{compute}'")


def _numbers(x: Any) -> tuple[np.ndarray, str]:
    """A view of the numbers (bf16 as uint16) and their type."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(x, torch.Tensor):
        x = x.detach()
        if x.device.type != "cpu":
            raise Error(f"matmul takes tensors on the CPU, not on {x.device}")
        if x.dtype == torch.bfloat16:
            return tensor_numbers(x), "bf16"
        x = tensor_numbers(x)
    elif not isinstance(x, np.ndarray):
        x = np.from_dlpack(x) if hasattr(x, "__dlpack__") else np.asarray(x)
    if x.dtype.name == "float64":
        x = x.astype(np.float32)
    if x.dtype.name not in _TYPES or not x.dtype.isnative:
        raise Error(f"matmul takes float32, float16 or bfloat16, not {x.dtype}")
    return (x.view(np.uint16) if x.dtype.name == "bfloat16" else x), _TYPES[x.dtype.name]


def _rows(x: np.ndarray, k: int) -> np.ndarray:
    """x as a matrix whose rows are contiguous; a copy only where it must be."""
    rows = x.reshape(-1, k) if x.size else np.empty((math.prod(x.shape[:-1]), k), x.dtype)
    return rows if k <= 1 or rows.strides[1] == rows.itemsize else np.ascontiguousarray(rows)


def _empty_like(x: Any, numbers: np.ndarray, shape: tuple[int, ...]) -> Any:
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(x, torch.Tensor):
        return torch.empty(shape, dtype=torch.float32 if x.dtype == torch.float64 else x.dtype)
    return np.empty(shape, x.dtype if isinstance(x, np.ndarray) and x.dtype.name == "bfloat16" else numbers.dtype)
