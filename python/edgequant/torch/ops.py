"""PyTorch operators on encoded weights: torch.ops.edgequant.matmul, matmul_t, dequantize and embedding.

All take `data`, the packed weights (N, row bytes) as uint8 on the CPU, the name of their format and their shape n, k.
They have rules for fake tensors and for gradients of inputs, so that torch.compile, torch.export and training work.
"""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import torch

from edgequant import _core
from edgequant._core import Error
from edgequant.formats import lookup

TYPES = {torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16"}
"""Types of activations and results -> the core's names."""

_TILE = 1 << 22
"""Weights that are decoded at a time where a product needs them as numbers."""

_library = torch.library.Library("edgequant", "DEF")
_library.define(
    'matmul(Tensor x, Tensor data, str format, int n, int k, Tensor? bias=None, str compute="int8") -> Tensor'
)
_library.define("matmul_t(Tensor g, Tensor data, str format, int n, int k) -> Tensor")
_library.define("dequantize(Tensor data, str format, int n, int k, ScalarType dtype) -> Tensor")
_library.define("embedding(Tensor indices, Tensor data, str format, int n, int k, ScalarType dtype) -> Tensor")

# ---- panels ----

# Repacked weights by address, format and shape, while the storage of the packed ones lives and is not written to.
_panels: dict[tuple[int, str, int, int], tuple[weakref.ref[Any], int, Any]] = {}


def version_of(data: torch.Tensor) -> int:
    """Grows with every change in place; inference tensors do not count theirs."""
    return -1 if data.is_inference() else data._version


def panel_of(data: torch.Tensor, format: str, n: int, k: int) -> Any:
    """The weights in the layout that products read: made once, shared by all views of the same bytes, kept until their
    storage is freed or they are changed in place. Plain numbers are read where they lie: a view, which keeps them."""
    if not _core.can_repack(format):
        return _core.view_numbers(packed_bytes(data, format, n, k), format, n, k)
    key = (data.data_ptr(), format, n, k)
    storage, version = data.untyped_storage(), version_of(data)
    found = _panels.get(key)
    if found is not None and found[0]() is storage and found[1] == version:
        return found[2]
    panel = _core.repack(packed_bytes(data, format, n, k), format, n, k)
    _remember(data, format, n, k, panel)
    return panel


def move_panel(old: torch.Tensor, new: torch.Tensor, format: str, n: int, k: int) -> None:
    """Hands the panel of packed weights, if there is one, to a copy of them."""
    found = _panels.get((old.data_ptr(), format, n, k))
    if found is not None and found[0]() is old.untyped_storage() and found[1] == version_of(old):
        _remember(new, format, n, k, found[2])


def _remember(data: torch.Tensor, format: str, n: int, k: int, panel: Any) -> None:
    key = (data.data_ptr(), format, n, k)

    def forget(ref: weakref.ref[Any]) -> None:
        entry = _panels.get(key)
        if entry is not None and entry[0] is ref:  # not a newer entry for the same address
            del _panels[key]

    _panels[key] = (weakref.ref(data.untyped_storage(), forget), version_of(data), panel)


def packed_bytes(data: torch.Tensor, format: str, n: int, k: int) -> np.ndarray:
    """The packed weights as a NumPy array over the same memory.

    Raises Error if they are not contiguous uint8 on the CPU, or not as many as the format needs.
    """
    check_data(data, format, n, k)
    if data.device.type != "cpu":
        raise Error(f"edgequant's layers run on the CPU, but the packed weights are on {data.device}: model.to('cpu')")
    return data.detach().contiguous().numpy()


def check_data(data: torch.Tensor, format: str, n: int, k: int) -> None:
    """Raises Error unless `data` has the type and shape of n x k weights in the format."""
    if data.dtype != torch.uint8:
        raise Error(f"packed weights are uint8, not {data.dtype}")
    row_bytes = lookup(format).row_bytes(k)
    if tuple(data.shape) != (n, row_bytes):
        raise Error(f"{n} x {k} weights in {format} are packed as ({n}, {row_bytes}), not {tuple(data.shape)}")


def check_input(x: torch.Tensor, width: int, what: str) -> str:
    """The core's name of the type of x (..., width); raises Error unless products take it."""
    if x.dtype not in TYPES:
        raise Error(f"{what} takes float32, float16 or bfloat16, not {x.dtype}")
    if x.dim() == 0 or x.shape[-1] != width:
        raise Error(f"{what}: expected an input of shape (..., {width}), not {tuple(x.shape)}")
    return TYPES[x.dtype]


# ---- what they compute ----


def matmul(
    x: torch.Tensor,
    data: torch.Tensor,
    format: str,
    n: int,
    k: int,
    bias: torch.Tensor | None = None,
    compute: str = "int8",
) -> torch.Tensor:
    """x @ w.T + bias, outside of autograd: x (..., K) float32, float16 or bfloat16 -> (..., N) of its type."""
    type = check_input(x, k, "edgequant::matmul")
    check_data(data, format, n, k)
    check_bias(bias, n)
    if bias is not None:
        bias = bias.to(torch.float32).contiguous()
    x = x.contiguous()
    y = torch.empty((*x.shape[:-1], n), dtype=x.dtype)
    _core.matmul_at(
        panel_of(data, format, n, k),
        x.data_ptr(),
        type,
        x.numel() // k,
        y.data_ptr(),
        compute,
        0 if bias is None else bias.data_ptr(),
    )
    return y


def check_bias(bias: torch.Tensor | None, n: int) -> None:
    if bias is not None and tuple(bias.shape) != (n,):
        raise Error(f"edgequant::matmul: a bias of shape ({n},) is needed, not {tuple(bias.shape)}")


def _tiles(data: torch.Tensor, format: str, n: int, k: int) -> Any:
    """(first row, end, decoded rows in float32), a few million weights at a time."""
    packed, step = packed_bytes(data, format, n, k), max(1, _TILE // k)
    for begin in range(0, n, step):
        end = min(n, begin + step)
        yield begin, end, torch.from_numpy(_core.dequantize(packed[begin:end], format, end - begin, k))


def _matmul_t(g: torch.Tensor, data: torch.Tensor, format: str, n: int, k: int) -> torch.Tensor:
    check_input(g, n, "edgequant::matmul_t")
    rows = g.reshape(-1, n).float()
    out = torch.zeros((rows.shape[0], k))
    for begin, end, w in _tiles(data, format, n, k):
        out.addmm_(rows[:, begin:end], w)
    return out.to(g.dtype).reshape(*g.shape[:-1], k)


def _decode(packed: np.ndarray, format: str, n: int, k: int, dtype: torch.dtype) -> torch.Tensor:
    if dtype not in TYPES:
        raise Error(f"weights are decoded to float32, float16 or bfloat16, not to {dtype}")
    numbers = _core.dequantize(packed, format, n, k, TYPES[dtype])
    if dtype == torch.bfloat16:
        return torch.from_numpy(numbers.view(np.int16)).view(dtype)
    return torch.from_numpy(numbers)


def _dequantize(data: torch.Tensor, format: str, n: int, k: int, dtype: torch.dtype) -> torch.Tensor:
    return _decode(packed_bytes(data, format, n, k), format, n, k, dtype)


def embedding(
    indices: torch.Tensor, data: torch.Tensor, format: str, n: int, k: int, dtype: torch.dtype
) -> torch.Tensor:
    """Decodes the rows that `indices` (any shape, int32 or int64) name: (..., K). Raises IndexError outside 0..N-1."""
    check_data(data, format, n, k)
    if indices.dtype not in (torch.int64, torch.int32):
        raise Error(f"edgequant::embedding takes indices of int64 or int32, not {indices.dtype}")
    flat = indices.reshape(-1)
    rows = data.index_select(0, flat)
    return _decode(rows.numpy(), format, flat.numel(), k, dtype).reshape(*indices.shape, k)


def _elsewhere(*args: Any) -> Any:
    where = ", ".join(sorted({str(a.device) for a in args if isinstance(a, torch.Tensor)}))
    raise Error(f"edgequant's layers run on the CPU, but were given tensors on {where}: model.to('cpu')")


for _name, _function in (
    ("matmul", matmul),
    ("matmul_t", _matmul_t),
    ("dequantize", _dequantize),
    ("embedding", embedding),
):
    _library.impl(_name, _function, "CPU")
    for _key in ("CUDA", "MPS", "XPU"):
        _library.impl(_name, _elsewhere, _key)


# ---- the same without numbers ----


def _fake_matmul(x: Any, data: Any, format: str, n: int, k: int, bias: Any = None, compute: str = "int8") -> Any:
    check_input(x, k, "edgequant::matmul")
    check_data(data, format, n, k)
    check_bias(bias, n)
    return x.new_empty((*x.shape[:-1], n))


def _fake_matmul_t(g: Any, data: Any, format: str, n: int, k: int) -> Any:
    check_input(g, n, "edgequant::matmul_t")
    return g.new_empty((*g.shape[:-1], k))


def _fake_dequantize(data: Any, format: str, n: int, k: int, dtype: torch.dtype) -> Any:
    check_data(data, format, n, k)
    return data.new_empty((n, k), dtype=dtype)


def _fake_embedding(indices: Any, data: Any, format: str, n: int, k: int, dtype: torch.dtype) -> Any:
    check_data(data, format, n, k)
    return data.new_empty((*indices.shape, k), dtype=dtype)


for _name, _fake in (
    ("matmul", _fake_matmul),
    ("matmul_t", _fake_matmul_t),
    ("dequantize", _fake_dequantize),
    ("embedding", _fake_embedding),
):
    torch.library.register_fake(f"edgequant::{_name}", _fake, lib=_library)


def _save_weights(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    _, ctx.data, ctx.format, ctx.n, ctx.k, *rest = inputs
    ctx.bias_dtype = rest[0].dtype if rest and rest[0] is not None else None


def _matmul_backward(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
    """Gradients of the input, through the decoded weights, and of the bias; packed weights have none."""
    x = torch.ops.edgequant.matmul_t(grad, ctx.data, ctx.format, ctx.n, ctx.k) if ctx.needs_input_grad[0] else None
    bias = None
    if ctx.bias_dtype is not None and ctx.needs_input_grad[5]:
        bias = grad.reshape(-1, ctx.n).float().sum(0).to(ctx.bias_dtype)
    return x, None, None, None, None, bias, None


def _matmul_t_backward(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
    g = torch.ops.edgequant.matmul(grad, ctx.data, ctx.format, ctx.n, ctx.k, None, "exact")
    return g, None, None, None, None


torch.library.register_autograd("edgequant::matmul", _matmul_backward, setup_context=_save_weights, lib=_library)
torch.library.register_autograd("edgequant::matmul_t", _matmul_t_backward, setup_context=_save_weights, lib=_library)


def runs_plainly(x: torch.Tensor) -> bool:
    """Whether nothing but the numbers is asked of an operation on x: no tracing, compiling, subclass or mode.

    Then a module may call the core itself, which saves the dispatcher's time, some 10 microseconds.
    """
    return (
        type(x) is torch.Tensor
        and x.is_cpu
        and not torch.compiler.is_compiling()
        and torch._C._len_torch_dispatch_stack() == 0
        and torch._C._functorch.peek_interpreter_stack() is None
    )
