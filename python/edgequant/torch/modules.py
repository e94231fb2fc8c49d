"""Layers whose weights stay packed: QuantLinear and QuantEmbedding."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from edgequant import _core
from edgequant._core import Error
from edgequant.formats import lookup
from edgequant.quantize import quantize
from edgequant.tensor import QuantizedTensor, check_rows
from edgequant.torch import ops

_NAME_BYTES = 16


class _Packed(nn.Module):
    """What both layers share: the packed weights (N, row bytes) as the buffer `qweight`, and their format.

    The buffer `qformat` spells the format's name in bytes, so that a state dict says what it holds: load_state_dict
    takes over the format, whatever the layer had before.
    """

    qweight: torch.Tensor
    qformat: torch.Tensor

    def __init__(self, rows: int, cols: int, format: str, device: Any = None) -> None:
        super().__init__()
        self.format = lookup(format).name
        self._n, self._k = rows, cols
        check_rows(self.format, (rows, cols))
        shape = (rows, lookup(self.format).row_bytes(cols))
        self.register_buffer("qweight", torch.zeros(shape, dtype=torch.uint8, device=device))
        self.register_buffer("qformat", spell(self.format, device))

    def quantized(self) -> QuantizedTensor:
        """The weights as a QuantizedTensor over the same memory."""
        packed = ops.packed_bytes(self.qweight, self.format, self._n, self._k)
        return QuantizedTensor(packed, self.format, (self._n, self._k))

    def dequantize(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """The weights as numbers: (N, K) of `dtype`, float32, float16 or bfloat16."""
        return torch.ops.edgequant.dequantize(self.qweight, self.format, self._n, self._k, dtype)

    def _take(self, data: torch.Tensor) -> None:
        ops.check_data(data, self.format, self._n, self._k)
        self.qweight, self.qformat = data, spell(self.format, data.device)

    def check_format(self, name: str) -> None:
        """Raises Error unless the packed weights are what the layer takes them for."""
        stored = _unspell(self.qformat)
        if stored != self.format:
            raise Error(f"{name}: its weights are in {stored}, but the layer was made for {self.format}")
        ops.packed_bytes(self.qweight, self.format, self._n, self._k)

    def _move(self, data: torch.Tensor) -> None:
        """Takes a copy of the packed weights in their place; the panel stays."""
        ops.move_panel(self.qweight, data, self.format, self._n, self._k)
        self.qweight = data

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        """Adopts the format of what is loaded, and its number of bytes, before the buffers are filled."""
        name, data = state_dict.get(prefix + "qformat"), state_dict.get(prefix + "qweight")
        if name is not None and data is not None and name.device.type != "meta":
            try:
                format = lookup(_unspell(name)).name
                ops.check_data(data, format, self._n, self._k)
            except Error as e:
                args[-1].append(f"{prefix}qweight: {e}")
                return
            if format != self.format:
                self.format = format
                self.qweight = torch.empty(data.shape, dtype=torch.uint8, device=self.qweight.device)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "weight":
                message = f"{type(self).__name__} has no float weight; its packed ones are qweight, see dequantize()"
                raise AttributeError(message) from None
            raise


def spell(format: str, device: Any = None) -> torch.Tensor:
    """The name of a format as it stands in `qformat`: (16,) uint8."""
    return torch.tensor(list(format.encode().ljust(_NAME_BYTES)), dtype=torch.uint8, device=device)


def _unspell(name: torch.Tensor) -> str:
    return bytes(name.tolist()).decode("ascii", "replace").strip()


class _Bound:
    """A panel, and whether the packed weights are still those that it was made from."""

    def __init__(self, buffers: dict[str, Any], names: list[str], compute: str, panel: Any) -> None:
        self._places, self._names, self._found = [buffers] * len(names), names, [buffers[name] for name in names]
        self._counted = [data for data in self._found if not data.is_inference()]  # others do not count their changes
        self._versions = [data._version for data in self._counted]
        self._compute, self.panel = compute, panel

    def fits(self, compute: str) -> bool:
        return (
            self._compute == compute
            and _core.are_in_place(self._places, self._names, self._found)
            and [data._version for data in self._counted] == self._versions
        )


class PackedLinear(nn.Module):
    """What layers that multiply with packed weights share; they say what is multiplied.

    Attributes: in_features (K), out_features (N), compute; bias (N,) and scale (N,), parameters or None.
    """

    in_features: int
    out_features: int
    compute: str
    bias: nn.Parameter | None
    scale: nn.Parameter | None

    def _begin(self, n: int, k: int, compute: str) -> None:
        if compute not in ("int8", "exact"):
            raise Error(f"compute is 'int8' or 'exact', not '{compute}'")
        self.in_features, self.out_features, self.compute = k, n, compute
        self.register_parameter("bias", None)
        self.register_parameter("scale", None)
        self._bound: _Bound | None = None

    def packed(self) -> tuple[dict[str, Any], list[str]]:
        """The dictionary of buffers that holds the packed weights, and the names that they have there."""
        raise NotImplementedError

    def _make_panel(self) -> Any:
        raise NotImplementedError

    def _product(self, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """The operator's product."""
        raise NotImplementedError

    def add_scale(self, dtype: torch.dtype | None = None) -> nn.Parameter:
        """Gives the layer a learnable factor per output, (N,), that begins at 1; returns it."""
        buffers, names = self.packed()
        self.scale = nn.Parameter(torch.ones(self.out_features, dtype=dtype, device=buffers[names[0]].device))
        return self.scale

    def _set_bias(self, bias: Any) -> None:
        """Takes a parameter as it is, and any other tensor as one; None for no bias."""
        ops.check_bias(bias, self.out_features)
        if bias is not None:
            self.bias = bias if isinstance(bias, nn.Parameter) else nn.Parameter(torch.as_tensor(bias))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parameters = self._parameters
        bias, scale = parameters["bias"], parameters["scale"]
        if scale is None and ops.runs_plainly(x):
            if not torch.is_grad_enabled() or not (x.requires_grad or (bias is not None and bias.requires_grad)):
                return self._run(x, bias)
        y = self._product(x, bias if scale is None else None)
        if scale is not None:
            y = y * scale.to(y.dtype)
            y = y if bias is None else y + bias.to(y.dtype)
        return y

    def panel(self) -> Any:
        """The weights in the layout that products read."""
        bound = self._bound
        if bound is None or not bound.fits(self.compute):
            bound = self._bound = _Bound(*self.packed(), self.compute, self._make_panel())
        return bound.panel

    def _run(self, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """The product, without the dispatcher."""
        panel, k = self.panel(), self.in_features
        name, shape = ops.TYPES.get(x.dtype), x.shape
        if name is None or not shape or shape[-1] != k:
            name = ops.check_input(x, k, type(self).__name__)
        if not x.is_contiguous():
            x = x.contiguous()
        y = x.new_empty((*shape[:-1], self.out_features))
        if bias is None:
            _core.matmul_at(panel, x.data_ptr(), name, x.numel() // k, y.data_ptr(), self.compute)
        else:
            bias = bias.float()
            _core.matmul_at(panel, x.data_ptr(), name, x.numel() // k, y.data_ptr(), self.compute, bias.data_ptr())
        return y

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        self._bound = None
        return super()._apply(fn, recurse)

    def __getstate__(self) -> dict[str, Any]:  # panels are made again in copies
        return {**self.__dict__, "_bound": None}

    def extra_repr(self) -> str:
        scale = ", scale=True" if self.scale is not None else ""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, format={self.format}, "
            f"bias={self.bias is not None}{scale}, compute={self.compute}"
        )


class QuantLinear(_Packed, PackedLinear):
    """x @ w.T + bias with packed weights: a replacement of torch.nn.Linear on the CPU.

    The first call repacks the weights into a panel, which stays in memory beside them (`edgequant.torch.map_packed`
    moves the packed ones to a file). Gradients flow to the input, the bias and the scale; the weights are frozen.

    Args:
      in_features, out_features: K and N.
      format: name of a format whose block divides K.
      bias: whether to add a learnable bias (N,).
      scale: whether to multiply the results, before the bias, by a learnable vector (N,) that begins at 1.
      compute: "int8" rounds activations to int8 (fast, about 0.7 % off), "exact" is as float32 arithmetic.
      device, dtype: of bias and scale; the packed weights are uint8.

    Shapes: x (..., K) float32, float16 or bfloat16 -> (..., N) of the same type.

    Example:
      >>> layer = QuantLinear.from_linear(torch.nn.Linear(64, 32), "q4_0")
      >>> layer(torch.zeros(3, 64)).shape
      torch.Size([3, 32])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        format: str,
        bias: bool = True,
        scale: bool = False,
        compute: str = "int8",
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(out_features, in_features, format, device)
        self._begin(out_features, in_features, compute)
        if bias:
            self.bias = nn.Parameter(torch.zeros(out_features, device=device, dtype=dtype))
        if scale:
            self.add_scale(dtype)

    @classmethod
    def from_linear(cls, linear: nn.Linear, format: str, *, compute: str = "int8", **options: Any) -> QuantLinear:
        """Quantizes a Linear layer; its bias is shared. `options` are those of `edgequant.quantize`."""
        return cls.from_quantized(quantize(linear.weight, format, **options), linear.bias, compute=compute)

    @classmethod
    def from_quantized(
        cls, q: QuantizedTensor | torch.Tensor, bias: Any = None, *, format: str = "", k: int = 0, compute: str = "int8"
    ) -> QuantLinear:
        """A layer over weights that are packed already; nothing is copied.

        Args:
          q: QuantizedTensor (N, K), or packed bytes (N, row bytes) as a uint8 tensor with `format` and `k`.
          bias: (N,) tensor or parameter, or None.

        Raises Error if shapes do not fit.
        """
        n, k, format, data = _parts(q, format, k)
        layer = cls(k, n, format, bias=False, compute=compute, device="meta")
        layer._take(data)
        layer._set_bias(bias)
        return layer

    def packed(self) -> tuple[dict[str, Any], list[str]]:
        return self._buffers, ["qweight"]

    def _make_panel(self) -> Any:
        return ops.panel_of(self.qweight, self.format, self._n, self._k)

    def _product(self, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        y: torch.Tensor = torch.ops.edgequant.matmul(
            x, self.qweight, self.format, self._n, self._k, bias, self.compute
        )
        return y


class QuantEmbedding(_Packed):
    """A replacement of torch.nn.Embedding on the CPU: decodes the rows that are looked up, and only those.

    Args:
      num_embeddings, embedding_dim: N and K.
      format: name of a format whose block divides K.
      dtype: of the results: float32 (default), float16 or bfloat16; `module.to(dtype)` changes it.
      scale: a constant factor of the results, rounded to `dtype`, for models that multiply their embeddings by one.

    Shapes: indices (...) int64 or int32 -> (..., K).
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        format: str,
        padding_idx: int | None = None,
        dtype: torch.dtype | None = None,
        device: Any = None,
        scale: float = 1.0,
    ) -> None:
        super().__init__(num_embeddings, embedding_dim, format, device)
        self.scale = scale
        self.num_embeddings, self.embedding_dim, self.padding_idx = num_embeddings, embedding_dim, padding_idx
        # An empty tensor knows the type of the results and follows module.to(), .half() and the like.
        self.register_buffer("_like", torch.empty(0, dtype=dtype, device=device), persistent=False)

    @classmethod
    def from_embedding(cls, embedding: nn.Embedding, format: str, **options: Any) -> QuantEmbedding:
        """Quantizes an Embedding layer. `options` are those of `edgequant.quantize`."""
        if embedding.max_norm is not None:
            raise Error("an Embedding with max_norm changes its weights on use; it cannot be quantized")
        weight = embedding.weight
        return cls.from_quantized(quantize(weight, format, **options), embedding.padding_idx, dtype=weight.dtype)

    @classmethod
    def from_quantized(
        cls,
        q: QuantizedTensor | torch.Tensor,
        padding_idx: int | None = None,
        *,
        format: str = "",
        k: int = 0,
        dtype: torch.dtype | None = None,
        scale: float = 1.0,
    ) -> QuantEmbedding:
        """A layer over packed weights; arguments as for `QuantLinear.from_quantized`. Nothing is copied."""
        n, k, format, data = _parts(q, format, k)
        layer = cls(n, k, format, padding_idx, dtype, device="meta", scale=scale)
        layer._like = torch.empty(0, dtype=dtype, device=data.device)
        layer._take(data)
        return layer

    @property
    def dtype(self) -> torch.dtype:
        """The type of the results."""
        return self._like.dtype

    def forward(self, indices: torch.Tensor) -> torch.Tensor:
        dtype = self._like.dtype
        look_up = ops.embedding if ops.runs_plainly(indices) else torch.ops.edgequant.embedding
        y = look_up(indices, self.qweight, self.format, self._n, self._k, dtype)
        return y if self.scale == 1.0 else y * torch.tensor(self.scale, dtype=dtype)

    def extra_repr(self) -> str:
        return f"{self.num_embeddings}, {self.embedding_dim}, format={self.format}, dtype={self.dtype}"


def _parts(q: QuantizedTensor | torch.Tensor, format: str, k: int) -> tuple[int, int, str, torch.Tensor]:
    """N, K, format and bytes of packed weights, which say themselves what they are, or not."""
    if not isinstance(q, QuantizedTensor):
        return q.shape[0], k, format, q
    if q.ndim != 2:
        raise Error(f"a layer takes weights of shape (N, K), not {q.shape}")
    return q.shape[0], q.shape[1], q.format, packed_tensor(q)


def packed_tensor(q: QuantizedTensor) -> torch.Tensor:
    """The packed bytes as a tensor (N, row bytes); copied only where they may not be written to."""
    data = q.data.reshape(q.shape[0] if q.ndim > 1 else 1, -1)
    return torch.from_numpy(data if data.flags.writeable and data.flags.c_contiguous else np.array(data))
