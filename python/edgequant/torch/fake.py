"""Training with quantized weights: layers that round in the forward pass and learn in float."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from edgequant._core import Error
from edgequant.formats import BlockFormat, first_bit, lookup
from edgequant.quantize import quantize, writable
from edgequant.scheme import Format
from edgequant.tensor import QuantizedTensor, check_rows
from edgequant.torch.modules import QuantLinear
from edgequant.torch.plan import QuantConfig, plan_module

FORMAT_OF_BITS = {1: "q1_0", 1.58: "tq2_0", 2: "q2_0", 3: "q3_k", 4: "q4_0"}
"""What FakeQuantLinear takes for a number of bits."""

_TERNARY = ("tq2_0",)  # two bits that hold three codes


class FakeQuantLinear(nn.Linear):
    """A Linear layer whose forward pass uses the weights that its quantized twin will have, for training.

    Formats with one scale per block (q1_0, q2_0, tq2_0, q4_0, q5_0, q8_0; with minimum q4_1, q5_1) learn their scales:
    gradients pass the rounding straight through, scales get the step-size gradient of LSQ. All other formats are
    encoded anew in every forward pass, with gradients straight through.

    Args:
      in_features, out_features: K, a multiple of the format's block, and N.
      format: name of a format; or `bits`: 1, 1.58 (ternary), 2, 3 or 4, which stand for FORMAT_OF_BITS.
      bias: whether to have a bias.
      learn_scale: False encodes the formats with one scale anew as well.
      device, dtype: as in Linear.

    Example:
      >>> layer = FakeQuantLinear.from_linear(torch.nn.Linear(64, 8), bits=2)
      >>> torch.equal(layer.to_quantized().dequantize(), layer.fake_weight())
      True
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        format: str | None = None,
        bias: bool = True,
        *,
        bits: float | None = None,
        learn_scale: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_features, out_features, bias, device, dtype)
        self.format = _format_of(format, bits)
        check_rows(self.format, (out_features, in_features))
        self._rule = _Rule(lookup(self.format)) if learn_scale and _has_one_scale(lookup(self.format)) else None
        self.register_parameter("scale", None)
        self.register_parameter("offset", None)
        if self._rule is not None:
            self._fit_scales()

    @classmethod
    def from_linear(
        cls, linear: nn.Linear, format: str | None = None, *, bits: float | None = None, learn_scale: bool = True
    ) -> FakeQuantLinear:
        """A layer over the weight and bias of a Linear layer, which it shares."""
        n, k = linear.weight.shape
        layer = cls(k, n, format, False, bits=bits, learn_scale=learn_scale, device="meta", dtype=linear.weight.dtype)
        layer.weight, layer.bias = linear.weight, linear.bias
        if layer._rule is not None:
            layer._fit_scales()
        return layer

    @torch.no_grad()
    def _fit_scales(self) -> None:
        """Begins with the scales that the format's encoder finds."""
        assert self._rule is not None
        blocks = (self.out_features, self.in_features // self._rule.group)
        scale = torch.ones(blocks, device=self.weight.device)
        offset = torch.zeros(blocks, device=self.weight.device)
        if self.weight.device.type != "meta":
            packed = quantize(self.weight, self.format).data
            scale = self._rule.read(packed, blocks, 0)
            offset = self._rule.read(packed, blocks, 1)
        self.scale = nn.Parameter(scale)
        self.offset = nn.Parameter(offset) if self._rule.has_offset else None

    def fake_weight(self) -> torch.Tensor:
        """The weights (N, K) that the format can hold, float32; gradients reach weight, scale and offset."""
        if self._rule is None:
            return _Encoded.apply(self.weight, self.format)
        return _Stepped.apply(self.weight, self.scale, self.offset, self._rule)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.fake_weight().to(x.dtype), self.bias)

    @torch.no_grad()
    def to_quantized(self, compute: str = "int8") -> QuantLinear:
        """The QuantLinear with exactly the weights of `fake_weight`; the bias is shared."""
        if self._rule is None:
            q = quantize(self.weight, self.format, effort="fast")
        else:
            codes, scale, offset = self._rule.codes(self.weight.float(), self.scale, self.offset)
            packed = self._rule.pack(codes.numpy(), scale.numpy(), offset.numpy())
            q = QuantizedTensor(packed, self.format, (self.out_features, self.in_features))
        return QuantLinear.from_quantized(q, self.bias, compute=compute)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, format={self.format}, learn_scale={self._rule is not None}"


def fake_quantize_module(model: nn.Module, config: QuantConfig | str) -> list[str]:
    """Replaces the Linear layers of a model by FakeQuantLinear ones, in place; embeddings and tied layers stay.

    Args:
      model, config: as for `quantize_module`.

    Returns: the names of the layers. Raises Error as `quantize_module`.
    """
    config = QuantConfig(config) if isinstance(config, str) else config
    names = []
    layers = plan_module(model, config).layers
    for layer in layers:
        if isinstance(layer.format, Format):
            raise Error(f"{layer.names[0]}: {layer.format} is planar or one of your own, in which nothing is trained")
    for layer in layers:
        assert isinstance(layer.format, str)
        old = model.get_submodule(layer.names[0])
        if len(layer.names) == 1 and isinstance(old, nn.Linear):
            model.set_submodule(layer.names[0], FakeQuantLinear.from_linear(old, layer.format).train(old.training))
            names.append(layer.names[0])
    return names


def finish_fake_quantized(model: nn.Module, compute: str = "int8") -> nn.Module:
    """Replaces all FakeQuantLinear layers of a model by their quantized twins, in place; returns the model."""
    for name, module in list(model.named_modules()):
        if name and isinstance(module, FakeQuantLinear):
            model.set_submodule(name, module.to_quantized(compute).train(module.training))
    return model


def _format_of(format: str | None, bits: float | None) -> str:
    if (format is None) == (bits is None):
        raise Error("FakeQuantLinear takes either a format or a number of bits")
    if format is not None:
        return writable(format)
    if bits not in FORMAT_OF_BITS:
        raise Error(f"bits={bits}: expected one of {', '.join(map(str, FORMAT_OF_BITS))}; or give a format")
    return FORMAT_OF_BITS[bits]


def _has_one_scale(f: BlockFormat) -> bool:
    """Whether a block is codes of evenly spaced levels, one f16 scale and perhaps one f16 minimum."""
    levels = [f.scale] + ([f.offset] if f.offset else [])
    plain = all(v["type"] == "f16" and not v["group"] and not v["sub_group"] and not v["pieces"] for v in levels)
    even = f.map.get("kind") == "affine" or tuple(f.map.get("values", ())) == (-1.0, 1.0)
    return bool(f.codes) and plain and even and all(c["kind"] == "bits" for c in f.codes)


class _Rule:
    """Rounding to a format with one scale per block: level numbers low..high times the scale, plus the offset."""

    def __init__(self, f: BlockFormat) -> None:
        self.format, self.group, self.has_offset = f, f.block, f.offset is not None
        self.binary = f.map["kind"] == "table"
        signed = any(c["signed"] for c in f.codes)
        count = 3 if f.name in _TERNARY else 1 << f.code_bits
        self.low = -count // 2 + 1 if signed else -f.map.get("zero", 0)  # -128 is left out, as ggml does
        self.high = count // 2 - 1 if signed else self.low + count - 1

    def __reduce__(self) -> Any:
        return _rule_of, (self.format.name,)

    def read(self, packed: np.ndarray, blocks: tuple[int, int], which: int) -> torch.Tensor:
        """The scales (0) or offsets (1) of packed weights, (N, K / group)."""
        level = (self.format.scale, self.format.offset)[which]
        if level is None:
            return torch.zeros(blocks)
        bytes_ = packed.reshape(*blocks, self.format.bytes)[..., level["byte"] : level["byte"] + 2]
        return torch.from_numpy(np.ascontiguousarray(bytes_).view(np.float16)[..., 0].astype(np.float32))

    def codes(
        self, w: torch.Tensor, scale: torch.Tensor, offset: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Level numbers (N, blocks, group), and the scales and offsets (N, blocks) as the format holds them."""
        s = scale.float().half().float()
        m = torch.zeros_like(s) if offset is None else offset.float().half().float()
        v = self.levels(w, s, m)
        if self.binary:
            return torch.where(v >= 0, 1.0, -1.0), s, m
        return v.round().clamp(self.low, self.high), s, m

    def levels(self, w: torch.Tensor, s: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
        """Weights in units of their scale, (N, blocks, group)."""
        safe = torch.where(s == 0, torch.inf, s)
        return (w.reshape(*s.shape, self.group) - m[..., None]) / safe[..., None]

    def pack(self, codes: np.ndarray, scale: np.ndarray, offset: np.ndarray) -> np.ndarray:
        """The format's bytes, (N, row bytes): codes and scales where its description puts them."""
        f = self.format
        stored = codes > 0 if self.binary else codes - (0 if self.low < 0 and f.codes[0]["signed"] else self.low)
        integers = stored.astype(np.int16)
        out = np.zeros((*scale.shape, f.bytes), np.uint8)
        for field in f.codes:
            mask = (1 << field["bits"]) - 1
            for i in range(f.block):
                at = first_bit(field, i)
                out[..., at // 8] |= ((integers[..., i] >> field["up"] & mask) << at % 8).astype(np.uint8)
        for level, numbers in ((f.scale, scale), (f.offset, offset)):
            if level is not None:
                out[..., level["byte"] : level["byte"] + 2] = numbers.astype(np.float16)[..., None].view(np.uint8)
        return out.reshape(scale.shape[0], -1)


def _rule_of(name: str) -> _Rule:
    return _Rule(lookup(name))


class _Stepped(torch.autograd.Function):
    """Rounds to a rule. Within the range the weight's gradient passes; the scale's is that of LSQ."""

    @staticmethod
    def forward(ctx: Any, w: torch.Tensor, scale: torch.Tensor, offset: torch.Tensor | None, rule: _Rule) -> Any:
        codes, s, m = rule.codes(w.float(), scale, offset)
        ctx.save_for_backward(w, codes, s, m)
        ctx.rule, ctx.has_offset = rule, offset is not None
        y = codes * s[..., None]
        return (y + m[..., None] if offset is not None else y).reshape(w.shape)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        w, codes, s, m = ctx.saved_tensors
        rule, g = ctx.rule, grad.float().reshape(codes.shape)
        v = rule.levels(w.float(), s, m)
        inside = v.abs() <= 1 if rule.binary else (v >= rule.low - 0.5) & (v <= rule.high + 0.5)
        slope = codes if rule.binary else codes - torch.where(inside, v, torch.zeros_like(v))
        step = 1 / math.sqrt(rule.group * max(1, rule.high))  # LSQ's balance between scales and weights
        ds = (g * slope).sum(-1) * step
        dm = torch.where(inside, torch.zeros_like(g), g).sum(-1) * step if ctx.has_offset else None
        return torch.where(inside, g, torch.zeros_like(g)).reshape(w.shape).to(w.dtype), ds, dm, None


class _Encoded(torch.autograd.Function):
    """Through the format's own encoder and decoder; gradients pass straight through."""

    @staticmethod
    def forward(ctx: Any, w: torch.Tensor, format: str) -> torch.Tensor:
        q = quantize(w, format, effort="fast")
        return torch.from_numpy(q.dequantize())

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        return grad, None
