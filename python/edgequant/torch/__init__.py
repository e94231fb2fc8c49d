"""edgequant in PyTorch: layers and operators on packed weights, on the CPU.

    import edgequant.torch as eqt
    report = eqt.quantize_module(model, "q4_k")     # in place; Linear and Embedding layers
    eqt.QuantLinear.from_linear(linear, "q4_0")

Importing this registers the operators torch.ops.edgequant.*, which exported programs need.
"""

from __future__ import annotations

try:
    import torch as _torch  # noqa: F401
except ImportError:
    raise ImportError("edgequant.torch needs PyTorch: pip install 'edgequant[hf]'") from None

from edgequant.torch.decoder import speed_up
from edgequant.torch.fake import FakeQuantLinear, fake_quantize_module, finish_fake_quantized
from edgequant.torch.memory import map_packed
from edgequant.torch.modules import QuantEmbedding, QuantLinear
from edgequant.torch.onnx import for_onnx
from edgequant.torch.plan import QuantConfig
from edgequant.torch.quantize import LayerReport, ModuleReport, quantize_module
from edgequant.torch.schemes import SchemeLinear
from edgequant.torch.threads import share_openmp

__all__ = [
    "FakeQuantLinear",
    "LayerReport",
    "ModuleReport",
    "QuantConfig",
    "QuantEmbedding",
    "QuantLinear",
    "SchemeLinear",
    "fake_quantize_module",
    "finish_fake_quantized",
    "for_onnx",
    "map_packed",
    "quantize_module",
    "speed_up",
]

share_openmp()
