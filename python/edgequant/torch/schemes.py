"""Layers on weights in planar formats and in formats of your own, and their operators.

`torch.ops.edgequant.scheme_matmul` and `scheme_matmul_t` (the gradient's product) take `planes`, the arrays of the
format in the order of `plane_names`, and `format`, its whole description as JSON: an exported program needs no more.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import nn

import edgequant
from edgequant._core import Error
from edgequant.matmul import panel_for
from edgequant.scheme import Format
from edgequant.scheme_tensor import SchemeTensor, from_planes
from edgequant.torch import ops
from edgequant.torch.modules import PackedLinear

_library = torch.library.Library("edgequant", "FRAGMENT")
# Without defaults: autograd loses track of lists of tensors where arguments are left out.
_library.define(
    "scheme_matmul(Tensor x, Tensor[] planes, str format, int n, int k, Tensor? bias, str compute) -> Tensor"
)
_library.define("scheme_matmul_t(Tensor g, Tensor[] planes, str format, int n, int k) -> Tensor")


@lru_cache(maxsize=256)
def _format_of(description: str) -> Format:
    return Format.from_json(description)


def plane_names(format: Format) -> list[str]:
    """The names of the arrays of a tensor in the format, in the order in which operators take them."""
    names = ["data"] if format.interleaved else sorted(format.array_names.values())
    return [*names, "table"] if format.learned else names


# Tensors over the memory of planes by address, format and shape, while the storages live and are not written to. Panels
# stay as long as these tensors, which do not own the memory: else it would never be freed.
_tensors: dict[Any, tuple[list[weakref.ref[Any]], list[int], SchemeTensor]] = {}


def _tensor_of(planes: list[torch.Tensor], format: str, n: int, k: int) -> SchemeTensor:
    """The planes as a SchemeTensor that borrows their memory. Raises Error if they are not those of n x k weights."""
    key = (format, n, k, *(p.data_ptr() for p in planes))
    storages, versions = [p.untyped_storage() for p in planes], [ops.version_of(p) for p in planes]
    found = _tensors.get(key)
    if found is not None and found[1] == versions and all(r() is s for r, s in zip(found[0], storages, strict=True)):
        return found[2]
    elsewhere = next((p.device for p in planes if p.device.type != "cpu"), None)
    if elsewhere is not None:
        raise Error(f"edgequant's layers run on the CPU, but the packed weights are on {elsewhere}: model.to('cpu')")
    scheme = _format_of(format)
    names = plane_names(scheme)
    if len(planes) != len(names) or not all(p.is_contiguous() for p in planes):
        raise Error(f"format '{scheme.name}' has the arrays {', '.join(names)}, which must be contiguous")
    q = from_planes({name: _borrowed(p) for name, p in zip(names, planes, strict=True)}, scheme, (n, k))

    def forget(ref: weakref.ref[Any]) -> None:
        entry = _tensors.get(key)
        if entry is not None and any(ref is r for r in entry[0]):  # not a newer entry for the same address
            del _tensors[key]

    _tensors[key] = ([weakref.ref(s, forget) for s in storages], versions, q)
    return q


def _borrowed(plane: torch.Tensor) -> np.ndarray:
    """An array over the memory of a tensor that does not keep it alive."""
    array = plane.detach().numpy()
    memory = (ctypes.c_uint8 * array.nbytes).from_address(array.ctypes.data)
    return np.ctypeslib.as_array(memory).view(array.dtype).reshape(array.shape)


def _matmul(
    x: torch.Tensor,
    planes: list[torch.Tensor],
    format: str,
    n: int,
    k: int,
    bias: torch.Tensor | None,
    compute: str,
) -> torch.Tensor:
    ops.check_input(x, k, "edgequant::scheme_matmul")
    ops.check_bias(bias, n)
    y: torch.Tensor = edgequant.matmul(x.detach(), _tensor_of(planes, format, n, k), compute=compute, bias=bias)
    return y


def _matmul_t(g: torch.Tensor, planes: list[torch.Tensor], format: str, n: int, k: int) -> torch.Tensor:
    ops.check_input(g, n, "edgequant::scheme_matmul_t")
    w = torch.from_numpy(_tensor_of(planes, format, n, k).dequantize())  # codecs know whole matrices only
    return (g.float() @ w).to(g.dtype)


def _fake_matmul(
    x: Any, planes: Any, format: str, n: int, k: int, bias: Any, compute: str
) -> torch.Tensor:
    ops.check_input(x, k, "edgequant::scheme_matmul")
    ops.check_bias(bias, n)
    y: torch.Tensor = x.new_empty((*x.shape[:-1], n))
    return y


def _fake_matmul_t(g: Any, planes: Any, format: str, n: int, k: int) -> torch.Tensor:
    ops.check_input(g, n, "edgequant::scheme_matmul_t")
    x: torch.Tensor = g.new_empty((*g.shape[:-1], k))
    return x


def _save_weights(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    _, ctx.planes, ctx.format, ctx.n, ctx.k, *rest = inputs
    ctx.bias_dtype = rest[0].dtype if rest and rest[0] is not None else None  # scheme_matmul_t has no bias


def _matmul_backward(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
    x, bias = None, None
    if ctx.needs_input_grad[0]:
        x = torch.ops.edgequant.scheme_matmul_t(grad, ctx.planes, ctx.format, ctx.n, ctx.k)
    if ctx.bias_dtype is not None:
        bias = grad.reshape(-1, ctx.n).float().sum(0).to(ctx.bias_dtype)
    return x, [None] * len(ctx.planes), None, None, None, bias, None


def _matmul_t_backward(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
    g = torch.ops.edgequant.scheme_matmul(grad, ctx.planes, ctx.format, ctx.n, ctx.k, None, "exact")
    return g, [None] * len(ctx.planes), None, None, None


_library.impl("scheme_matmul", _matmul, "CPU")
_library.impl("scheme_matmul_t", _matmul_t, "CPU")
torch.library.register_fake("edgequant::scheme_matmul", _fake_matmul, lib=_library)
torch.library.register_fake("edgequant::scheme_matmul_t", _fake_matmul_t, lib=_library)
for _name, _backward in (("scheme_matmul", _matmul_backward), ("scheme_matmul_t", _matmul_t_backward)):
    torch.library.register_autograd(f"edgequant::{_name}", _backward, setup_context=_save_weights, lib=_library)


class _Planes(nn.Module):
    """Arrays as buffers, whose types are the format's: moves apply to them, casts do not."""

    def put(self, arrays: list[tuple[str, torch.Tensor]]) -> None:
        self._buffers.clear()
        for name, array in arrays:
            self.register_buffer(name.replace(".", "_"), array)  # buffers have no dots in their names

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        for name, plane in self._buffers.items():
            assert plane is not None
            self._buffers[name] = fn(plane.reshape(-1).view(torch.uint8)).view(plane.dtype).reshape(plane.shape)
        return self


class SchemeLinear(PackedLinear):
    """x @ w.T + bias with weights in a planar format or one of your own; otherwise as `QuantLinear`.

    The arrays are the buffers of `planes`, under their names in the format; the buffer `qformat` holds its whole
    description, so that a state dict says what it holds: load_state_dict takes over the format.

    Args:
      in_features, out_features: K and N.
      format: a Format, or the name of a planar one.
      bias: whether to add a learnable bias (N,).
      compute: "int8" or "exact", as in `edgequant.matmul`.

    Shapes: x (..., K) float32, float16 or bfloat16 -> (..., N) of the same type.

    Example:
      >>> mine = edgequant.Format("mine", block=32, codes=2, table=[-1.5, -0.5, 0.5, 1.5])
      >>> layer = SchemeLinear.from_linear(torch.nn.Linear(64, 32), mine)
      >>> layer(torch.zeros(3, 64)).shape
      torch.Size([3, 32])
    """

    qformat: torch.Tensor

    def __init__(
        self, in_features: int, out_features: int, format: Format | str, bias: bool = True, compute: str = "int8"
    ) -> None:
        super().__init__()
        zeros = np.zeros((out_features, in_features), np.float32)
        self._hold(edgequant.quantize(zeros, format, effort="fast"), compute)
        if bias:
            self.bias = nn.Parameter(torch.zeros(out_features))

    def _hold(self, q: Any, compute: str) -> None:
        if not isinstance(q, SchemeTensor) or q.ndim != 2:
            raise Error(f"SchemeLinear takes (N, K) weights in a planar format or a Format, not {q!r}")
        n, k = q.shape
        self._begin(n, k, compute)
        self.planes = _Planes()
        self._take(q.scheme, {name: torch.from_numpy(_writable(array)) for name, array in q.planes.items()})

    def _take(self, format: Format, arrays: Mapping[str, torch.Tensor]) -> None:
        self.format, self._description, self._bound = format, format.to_json(), None
        self.planes.put([(name, arrays[name]) for name in plane_names(format)])
        self.register_buffer("qformat", torch.tensor(list(self._description.encode()), dtype=torch.uint8))

    @classmethod
    def from_linear(
        cls, linear: nn.Linear, format: Format | str, *, compute: str = "int8", **options: Any
    ) -> SchemeLinear:
        """Quantizes a Linear layer; its bias is shared. `options` are those of `edgequant.quantize`."""
        return cls.from_quantized(edgequant.quantize(linear.weight, format, **options), linear.bias, compute=compute)

    @classmethod
    def from_quantized(cls, q: Any, bias: Any = None, *, compute: str = "int8") -> SchemeLinear:
        """A layer over a SchemeTensor (N, K) and a bias (N,) or None; nothing is copied. Raises Error for others."""
        layer = cls.__new__(cls)
        nn.Module.__init__(layer)
        layer._hold(q, compute)
        layer._set_bias(bias)
        return layer

    def quantized(self) -> SchemeTensor:
        """The weights as a SchemeTensor over the same memory."""
        arrays = zip(plane_names(self.format), self.planes.buffers(), strict=True)
        return from_planes(dict(arrays), self.format, (self.out_features, self.in_features))

    def dequantize(self) -> torch.Tensor:
        """The weights as numbers: (N, K) float32."""
        return torch.from_numpy(self.quantized().dequantize())

    def packed(self) -> tuple[dict[str, Any], list[str]]:
        return self.planes._buffers, list(self.planes._buffers)

    def _make_panel(self) -> Any:
        q = _tensor_of(list(self.planes.buffers()), self._description, self.out_features, self.in_features)
        return panel_for(q, self.compute)

    def _product(self, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        planes, n, k = list(self.planes.buffers()), self.out_features, self.in_features
        y: torch.Tensor = torch.ops.edgequant.scheme_matmul(x, planes, self._description, n, k, bias, self.compute)
        return y

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        """Adopts the format of what is loaded, and the sizes of its arrays, before the buffers are filled."""
        text = state_dict.get(prefix + "qformat")
        if text is not None and text.device.type != "meta":
            try:
                format = _format_of(bytes(text.tolist()).decode("ascii", "replace"))
                keys = {name: f"{prefix}planes.{name.replace('.', '_')}" for name in plane_names(format)}
                lost = [key for key in keys.values() if key not in state_dict]
                if lost:
                    raise Error(f"the state dict has no {', '.join(lost)}")
                arrays = {name: state_dict[key] for name, key in keys.items()}
                from_planes(arrays, format, (self.out_features, self.in_features))  # checks them
                self._take(format, {name: torch.empty_like(a, device="cpu") for name, a in arrays.items()})
            except Error as e:
                args[-1].append(f"{prefix}planes: {e}")
                return
        super()._load_from_state_dict(state_dict, prefix, *args)


def _writable(array: np.ndarray) -> np.ndarray:
    return array if array.flags.writeable and array.flags.c_contiguous else np.array(array)
