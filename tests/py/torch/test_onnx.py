"""Quantized models through torch.onnx.export and ONNX Runtime."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import edgequant as eq
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")
runtime = pytest.importorskip("onnxruntime")

from edgequant.torch import QuantConfig, QuantEmbedding, QuantLinear, for_onnx, quantize_module  # noqa: E402
from edgequant.torch.levels import has_levels  # noqa: E402
from torch import nn  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # torch's own, in torch.onnx.export
FORMATS = [f for f in eq.formats if has_levels(f)]


def export(model: nn.Module, *inputs: torch.Tensor, dynamic: Any = None) -> tuple[Any, Counter]:
    program = torch.onnx.export(model.eval(), inputs, dynamo=True, dynamic_shapes=dynamic, verbose=False)
    proto = program.model_proto
    session = runtime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])

    def run(*values: torch.Tensor) -> torch.Tensor:
        feeds = {i.name: v.numpy() for i, v in zip(session.get_inputs(), values, strict=True)}
        return torch.from_numpy(session.run(None, feeds)[0])

    return run, Counter(node.op_type for node in proto.graph.node)


def mixed(formats: list[str], k: int = 256, n: int = 32) -> nn.Module:
    """One layer per format side by side, and one export for all: it is the exporter that takes the time."""
    torch.manual_seed(0)
    w = torch.randn(n, k)
    w[3] = 0
    w[4] = 0.25

    class Side(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(QuantLinear.from_quantized(eq.quantize(w, f), compute="exact") for f in formats)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.stack([layer(x) for layer in self.layers])

    return Side()


@pytest.mark.parametrize("style", ["matmulnbits", "qdq"])
def test_every_format_keeps_its_values(style: str) -> None:
    model = mixed(FORMATS)
    x = torch.randn(5, 256)
    twin = for_onnx(model, style)
    torch.testing.assert_close(twin(x), model(x), rtol=1e-4, atol=1e-3)
    run, operators = export(twin, x, dynamic={"x": {0: torch.export.Dim.DYNAMIC}})
    assert operators["MatMulNBits" if style == "matmulnbits" else "DequantizeLinear"] == len(FORMATS)
    x = torch.randn(9, 256)
    got, want = run(x), model(x)
    for i, format in enumerate(FORMATS):
        error = (got[i] - want[i]).norm() / want[i].norm()
        assert error < 1e-5, (format, error)


def test_bits_are_the_least_that_hold_the_format() -> None:
    model = for_onnx(mixed(FORMATS))
    bits = {f: layer.bits for f, layer in zip(FORMATS, model.layers, strict=True)}
    assert {f for f in FORMATS if bits[f] == 2} == {"q1_0", "q2_0", "q2_k", "tq1_0", "tq2_0"}
    assert {f for f in FORMATS if bits[f] == 4} == {"q3_k", "q4_0", "q4_1", "q4_k"}
    q4 = model.layers[FORMATS.index("q4_0")]
    assert q4.codes.numel() == 32 * 256 // 2 and q4.group == 32


def test_a_whole_model_with_embedding_and_tied_head(tmp_path: Path) -> None:
    torch.manual_seed(0)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(50, 256)
            self.body = nn.Sequential(nn.Linear(256, 256), nn.GELU(), nn.LayerNorm(256))
            self.head = nn.Linear(256, 50, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return self.head(self.body(self.embed(tokens)))

    model = Model().eval()
    quantize_module(model, QuantConfig("q4_k", compute="exact"))
    model.body[0].add_scale().data.uniform_(0.5, 2)
    twin = for_onnx(model)
    assert isinstance(model.embed, QuantEmbedding) and isinstance(model.head, QuantLinear)  # the model is left alone
    assert twin.body[2].weight is model.body[2].weight and twin.head.codes is twin.embed.codes
    tokens = torch.randint(0, 50, (2, 5))
    run, operators = export(
        twin, tokens, dynamic={"tokens": {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}}
    )
    assert operators["MatMulNBits"] == 2
    tokens = torch.randint(0, 50, (3, 11))
    torch.testing.assert_close(run(tokens), model(tokens), rtol=1e-4, atol=1e-4)


def test_a_causal_model_of_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=64,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        use_cache=False,
    )
    model = transformers.LlamaForCausalLM(config).eval()
    quantize_module(model, QuantConfig("q4_0", compute="exact"))

    class Logits(nn.Module):
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return self.model(input_ids=tokens).logits

    tokens = torch.randint(0, 64, (1, 8))
    run, operators = export(for_onnx(Logits(model)), tokens)
    assert operators["MatMulNBits"] == 2 * 7 + 1
    torch.testing.assert_close(run(tokens), model(tokens).logits, rtol=1e-3, atol=1e-4)


def test_int8_layers_are_computed_in_int8() -> None:
    layer = QuantLinear.from_linear(nn.Linear(512, 64), "q4_0")
    x = torch.randn(3, 512)
    run, _ = export(for_onnx(nn.Sequential(layer)), x)
    want = nn.functional.linear(x, layer.dequantize(), layer.bias)
    assert for_onnx(layer).accuracy == 4
    assert (run(x) - want).norm() < 0.02 * want.norm()


def test_grids_must_be_rounded_again_by_name() -> None:
    model = nn.Sequential(QuantLinear.from_linear(nn.Linear(256, 8), "iq3_s", compute="exact"))
    with pytest.raises(eq.Error, match=r"no operator for vector grids: 0 \(iq3_s\); requantize='q4_0'"):
        for_onnx(model)
    x = torch.randn(2, 256)
    y, want = for_onnx(model, requantize="q8_0")(x), model(x)
    assert 0 < (y - want).norm() < 0.02 * want.norm()
    with pytest.raises(eq.Error, match="style 'qnn': expected one of matmulnbits, qdq"):
        for_onnx(model, "qnn")


def test_half_precision_models() -> None:
    layer = QuantLinear.from_linear(nn.Linear(64, 8), "q8_0", compute="exact").half()
    x = torch.randn(2, 64).half()
    run, _ = export(for_onnx(nn.Sequential(layer)), x)
    with torch.no_grad():
        np.testing.assert_allclose(run(x).float(), layer(x).float(), rtol=1e-2, atol=1e-2)
