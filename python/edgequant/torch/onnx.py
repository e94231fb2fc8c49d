"""Exporting quantized models to ONNX: one line before torch.onnx.export.

model = edgequant.torch.for_onnx(model)              # MatMulNBits; "qdq" for standard operators only
torch.onnx.export(model, (x,), "model.onnx", dynamo=True)
"""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from edgequant._core import Error
from edgequant.quantize import quantize, writable
from edgequant.tensor import QuantizedTensor
from edgequant.torch.levels import has_levels, split_levels
from edgequant.torch.modules import QuantEmbedding, QuantLinear
from edgequant.torch.schemes import SchemeLinear

STYLES = ("matmulnbits", "qdq")


def for_onnx(model: nn.Module, style: str = "matmulnbits", requantize: str | None = None) -> nn.Module:
    """A copy of the model whose quantized layers torch.onnx.export(..., dynamo=True) writes as ONNX operators.

    Weights keep their values: integers, scales and, where the format has them, minima are copied, up to one rounding
    of float32 in minima. All parameters that are not quantized are shared with the model. The copy computes the same
    in PyTorch, in float32 and slowly.

    Args:
      model: with QuantLinear or QuantEmbedding layers.
      style: "matmulnbits" writes com.microsoft MatMulNBits of 2, 4 or 8 bits, the least that hold the format's
        integers (5 and 6 bits take 8, as do the tables of iq4_nl, mxfp4 and the like), computed in int8 where the
        layer's compute is "int8"; ONNX Runtime runs it. "qdq" writes 8-bit weights, DequantizeLinear and MatMul,
        which every runtime knows.
      requantize: a format for layers whose own cannot be expressed (the vector grids iq1, iq2, iq3): these lose
        accuracy. Without it they raise an error.

    Raises Error for an unknown style, and names the layers that cannot be expressed.

    Example:
      >>> model = for_onnx(torch.nn.Sequential(QuantLinear(64, 8, "q4_0")))
    """
    if not hasattr(torch.onnx, "ops"):
        raise Error(f"exporting quantized models to ONNX needs torch 2.8 or newer; this is {torch.__version__}")
    if style not in STYLES:
        raise Error(f"style '{style}': expected one of {', '.join(STYLES)}")
    layers = {
        name: module
        for name, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, QuantLinear | QuantEmbedding)
    }
    schemes = [f"{name} ({m.format})" for name, m in model.named_modules() if isinstance(m, SchemeLinear)]
    if schemes:
        raise Error(f"layers in planar formats or formats of your own cannot be exported to ONNX: {schemes[0]}")
    lost = [f"{name} ({m.format})" for name, m in layers.items() if not has_levels(m.format)]
    if lost and requantize is None:
        some = ", ".join(lost[:4]) + (f" and {len(lost) - 4} more" if len(lost) > 4 else "")
        raise Error(
            f"ONNX has no operator for vector grids: {some}; requantize='q4_0' (or 'q8_0') rounds them a second time"
        )
    if "" in layers:
        return _replacement(layers[""], style, requantize, {})
    memo: dict[int, Any] = {id(t): t for t in (*model.parameters(), *model.buffers())}
    arrays: dict[int, Any] = {}
    for module in {id(m): m for m in layers.values()}.values():
        memo[id(module)] = _replacement(module, style, requantize, arrays)
    return copy.deepcopy(model, memo)


def _replacement(layer: nn.Module, style: str, requantize: str | None, arrays: dict[int, Any]) -> nn.Module:
    """The layer's twin; those that share packed weights share the arrays too."""
    assert isinstance(layer, QuantLinear | QuantEmbedding)
    key = id(layer.qweight)
    if key not in arrays:
        q = layer.quantized()
        if not has_levels(q.format):
            q = quantize(q, writable(requantize or ""))
        arrays[key] = _bits_arrays(q, style)
    twin = _OnnxEmbedding if isinstance(layer, QuantEmbedding) else _OnnxLinear
    return twin(layer, arrays[key], style).eval()  # type: ignore[arg-type]


class _Arrays(NamedTuple):
    """weight = (code - zero) * scale + offset: codes packed lowest bits first in bytes (N, G, K / G * bits / 8)."""

    codes: torch.Tensor
    scale: torch.Tensor
    offset: torch.Tensor | None
    bits: int
    zero: int
    group: int
    k: int


def _bits_arrays(q: QuantizedTensor, style: str) -> _Arrays:
    levels = split_levels(q)
    integers, scale, offset = levels.integers, levels.scale, levels.offset
    n, groups, group = integers.shape
    span = levels.high - levels.low
    bits = 8 if style == "qdq" else 2 if span < 4 else 4 if span < 16 else 8
    # By default MatMulNBits subtracts the middle; a format with a minimum counts from 0.
    zero = -levels.low if offset is not None or levels.high >= 1 << bits - 1 else 1 << bits - 1
    if bits == 8:
        zero = 128
    if offset is not None and bits < 8:  # where the scale is 0, the minimum takes its place
        flat = scale == 0
        integers = np.where(flat[..., None], 0, integers)
    codes = (integers + zero).astype(np.uint8).reshape(n, groups, -1, 8 // bits)
    packed = np.bitwise_or.reduce(codes << (np.arange(8 // bits, dtype=np.uint8) * bits), -1)
    minima = None if offset is None else torch.from_numpy(offset)
    return _Arrays(torch.from_numpy(packed), torch.from_numpy(scale), minima, bits, zero, group, groups * group)


class _OnnxLayer(nn.Module):
    codes: torch.Tensor
    scales: torch.Tensor
    offset: torch.Tensor | None

    def __init__(self, arrays: _Arrays, style: str) -> None:
        super().__init__()
        self.style, self.bits, self.zero = style, arrays.bits, arrays.zero
        self.group, self.n, self.k = arrays.group, arrays.codes.shape[0], arrays.k
        self.register_buffer("codes", arrays.codes)
        self.register_buffer("scales", arrays.scale)
        self.register_buffer("offset", arrays.offset)

    def _decode(self, codes: torch.Tensor, zero: Any, scale: torch.Tensor, offset: torch.Tensor | None) -> torch.Tensor:
        """Rows of packed codes (..., G, bytes) as float32 (..., K), in operators that every runtime has."""
        if self.bits < 8:
            parts = [codes // (1 << shift) % (1 << self.bits) for shift in range(0, 8, self.bits)]
            codes = torch.stack(parts, -1).flatten(-2)
        w = (codes.float() - zero) * scale[..., None]
        return (w if offset is None else w + offset[..., None]).flatten(-2)


class _OnnxLinear(_OnnxLayer):
    """A QuantLinear as MatMulNBits, or as DequantizeLinear and MatMul."""

    zeros: torch.Tensor | None

    def __init__(self, layer: QuantLinear, arrays: _Arrays, style: str) -> None:
        super().__init__(arrays, style)
        self.accuracy = 4 if layer.compute == "int8" else 1
        self.bias, self.scale = layer.bias, layer.scale
        self.register_buffer("zeros", None)
        if style == "qdq":
            self.codes = (arrays.codes.reshape(-1, arrays.group).to(torch.int16) - 128).to(torch.int8)
        elif arrays.bits < 8 and arrays.offset is not None:
            s, m = arrays.scale, arrays.offset
            self.scales = torch.where(s == 0, torch.where(m == 0, 1, m.abs()), s)
            self.zeros = -m / self.scales
        elif arrays.bits < 8 and arrays.zero != 1 << arrays.bits - 1:
            self.zeros = torch.full(arrays.scale.shape, float(arrays.zero))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self._product(x.float())
        if self.scale is not None:
            y = y * self.scale.float()
        return (y if self.bias is None else y + self.bias.float()).to(x.dtype)

    def _product(self, x: torch.Tensor) -> torch.Tensor:
        if self.style == "qdq":
            return x @ self._dequantized().T
        if not torch.compiler.is_exporting():
            zero, offset = (self.zero, self.offset) if self.zeros is None else (self.zeros[..., None], None)
            return x @ self._decode(self.codes, zero, self.scales, offset).T
        inputs = [self.codes, self.scales] + ([] if self.zeros is None else [self.zeros])
        y = torch.onnx.ops.symbolic(
            "com.microsoft::MatMulNBits",
            (x, *inputs),
            attrs={
                "K": self.k,
                "N": self.n,
                "bits": self.bits,
                "block_size": self.group,
                "accuracy_level": self.accuracy,
            },
            dtype=torch.float32,
            shape=(*x.shape[:-1], self.n),
            version=1,
        )
        if self.bits == 8 and self.offset is not None:  # the operator has no minima at 8 bits
            y = y + x.unflatten(-1, (-1, self.group)).sum(-1) @ self.offset.T
        return y

    def _dequantized(self) -> torch.Tensor:
        if torch.compiler.is_exporting():
            w = torch.onnx.ops.symbolic(
                "DequantizeLinear",
                (self.codes, self.scales.flatten()),
                attrs={"axis": 0},
                dtype=torch.float32,
                shape=self.codes.shape,
            )
        else:
            w = self.codes.float() * self.scales.reshape(-1, 1)
        w = w.reshape(self.n, -1, self.group)
        return (w if self.offset is None else w + self.offset[..., None]).flatten(1)


class _OnnxEmbedding(_OnnxLayer):
    """A QuantEmbedding: looks up packed rows and decodes them."""

    def __init__(self, layer: QuantEmbedding, arrays: _Arrays, style: str) -> None:
        super().__init__(arrays, style)
        self.dtype, self.factor = layer.dtype, layer.scale

    def forward(self, indices: torch.Tensor) -> torch.Tensor:
        offset = None if self.offset is None else self.offset[indices]
        y = self._decode(self.codes[indices], self.zero, self.scales[indices], offset).to(self.dtype)
        return y if self.factor == 1.0 else y * torch.tensor(self.factor, dtype=self.dtype)
