"""QuantLinear and QuantEmbedding."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import edgequant as eq
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from edgequant.torch import QuantEmbedding, QuantLinear, map_packed, ops, quantize_module  # noqa: E402
from torch import nn  # noqa: E402


def layer(format: str = "q4_k", n: int = 64, k: int = 256, bias: bool = True, **options: object) -> QuantLinear:
    return QuantLinear.from_linear(nn.Linear(k, n, bias=bias), format, **options)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(100, 256, padding_idx=0)
        self.middle = nn.Sequential(nn.Linear(256, 512), nn.GELU(), nn.Linear(512, 256))
        self.head = nn.Linear(256, 100, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.middle(self.embed(tokens)))


def test_equals_matmul_in_every_mode() -> None:
    m = layer()
    x = torch.randn(3, 5, 256)
    want = torch.from_numpy(eq.matmul(x.numpy(), m.quantized(), bias=m.bias))
    assert torch.equal(m(x), want)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            assert torch.equal(m(x), want)
    m.requires_grad_(False)
    assert torch.equal(m(x), want)


def test_exact_equals_the_float_layer_of_the_decoded_weights() -> None:
    m = layer("q6_k", compute="exact")
    twin = nn.Linear(256, 64)
    twin.weight.data, twin.bias.data = m.dequantize(), m.bias.data
    x = torch.randn(7, 256)
    torch.testing.assert_close(m(x), twin(x), rtol=1e-5, atol=1e-5)


def test_half_precision() -> None:
    m = layer(compute="exact").to(torch.bfloat16)
    x = torch.randn(7, 256)
    assert m.bias.dtype == torch.bfloat16 and m.qweight.dtype == torch.uint8
    want = layer_as_float(m)(x.bfloat16().float())
    with torch.no_grad():
        torch.testing.assert_close(m(x.bfloat16()).float(), want, rtol=2**-7, atol=2**-7)


def layer_as_float(m: QuantLinear) -> nn.Linear:
    twin = nn.Linear(m.in_features, m.out_features, bias=m.bias is not None)
    twin.weight.data = m.dequantize()
    if m.bias is not None:
        twin.bias.data = m.bias.data.float()
    return twin


def test_state_dict_goes_round_and_carries_the_format(tmp_path: Path) -> None:
    m, x = layer("q4_k"), torch.randn(2, 256)
    torch.save(m.state_dict(), tmp_path / "m.pt")
    other = layer("q6_k")  # takes over what it is given
    other(x)
    other.load_state_dict(torch.load(tmp_path / "m.pt"))
    assert other.format == "q4_k" and torch.equal(other.qweight, m.qweight)
    with torch.no_grad():
        assert torch.equal(other(x), m(x))


def test_a_damaged_state_dict_is_refused() -> None:
    state = layer("q4_k").state_dict()
    state["qweight"] = state["qweight"][:, :-1]
    with pytest.raises(RuntimeError, match=r"64 x 256 weights in q4_k are packed as \(64, 144\), not \(64, 143\)"):
        layer("q4_k").load_state_dict(state)


def test_copies_and_pickles_are_independent() -> None:
    m, x = layer(), torch.randn(2, 256)
    with torch.no_grad():
        y = m(x)
        twins = [copy.deepcopy(m), pickle.loads(pickle.dumps(m))]
        buffer = io.BytesIO()
        torch.save(m, buffer)
        buffer.seek(0)
        twins.append(torch.load(buffer, weights_only=False))
        m.qweight.zero_()
        assert m(x).abs().sum() != y.abs().sum()
        for twin in twins:
            assert torch.equal(twin(x), y)


def test_embedding_decodes_only_what_is_looked_up() -> None:
    e = nn.Embedding(50, 128, padding_idx=3)
    q = QuantEmbedding.from_embedding(e, "q8_0")
    tokens = torch.tensor([[1, 3], [49, 1]])
    assert torch.equal(q(tokens), q.dequantize()[tokens]) and q.padding_idx == 3
    assert q.half()(tokens).dtype == torch.float16
    with pytest.raises(IndexError):
        q(torch.tensor([50]))


def test_tied_weights_stay_tied() -> None:
    model = Tied()
    report = quantize_module(model, "q4_k")
    assert model.head.qweight is model.embed.qweight
    assert [r.names for r in report.layers] == [("embed", "head"), ("middle.0",), ("middle.2",)]
    tokens = torch.tensor([[1, 2, 3]])
    y = model(tokens)
    twin = Tied()
    quantize_module(twin, "q6_k")
    twin.load_state_dict(model.state_dict())
    assert torch.equal(twin(tokens), y)
    clone = copy.deepcopy(model)
    assert clone.head.qweight is clone.embed.qweight
    assert torch.equal(clone(tokens), y)


def test_lora_on_a_frozen_quantized_layer_trains() -> None:
    torch.manual_seed(0)
    frozen = layer("q4_k", n=32, k=256, bias=False)
    inner = layer("q4_k", n=256, k=256)  # its input needs a gradient through the quantized layer above
    inner.requires_grad_(False)
    a, b = nn.Parameter(torch.randn(4, 256) * 0.05), nn.Parameter(torch.zeros(256, 4))
    x = torch.randn(64, 256)
    with torch.no_grad():
        target = frozen(torch.tanh(inner(x) + x @ (torch.randn(256, 4) @ torch.randn(4, 256)).T * 0.02))
    before = frozen.qweight.clone()
    optimizer, losses = torch.optim.Adam([a, b], lr=3e-2), []
    for _ in range(60):
        optimizer.zero_grad()
        loss = (frozen(torch.tanh(inner(x) + x @ a.T @ b.T)) - target).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0] and torch.equal(before, frozen.qweight)


def test_learnable_scale() -> None:
    torch.manual_seed(0)
    m, x = layer("q4_0", n=16, k=64, compute="exact"), torch.randn(100, 64)
    factor = torch.rand(16) + 0.5
    with torch.no_grad():
        target = (m(x) - m.bias) * factor + m.bias
    m.add_scale()
    optimizer = torch.optim.Adam([m.scale], lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        (m(x) - target).square().mean().backward()
        optimizer.step()
    torch.testing.assert_close(m.scale.data, factor, rtol=1e-2, atol=1e-2)
    assert "scale" in m.state_dict()


def test_compile_traces_through_without_breaks() -> None:
    model = Tied()
    quantize_module(model, "q4_k")
    tokens = torch.tensor([[1, 2, 3, 4]])
    with torch.no_grad():
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(tokens), model(tokens))
    loss = torch.compile(model, fullgraph=True, backend="aot_eager")(tokens).square().sum()
    loss.backward()
    assert model.middle[0].bias.grad is not None


def test_exported_program_runs_in_a_fresh_process(tmp_path: Path) -> None:
    model = Tied().eval()
    quantize_module(model, "q4_k")
    tokens = torch.tensor([[1, 2, 3, 4]])
    dynamic = {"tokens": {1: torch.export.Dim("length", min=2, max=64)}}
    program = torch.export.export(model, (tokens,), dynamic_shapes=dynamic)
    torch.export.save(program, tmp_path / "model.pt2")
    longer = torch.tensor([[5, 6, 7, 8, 9, 10, 11]])
    with torch.no_grad():
        torch.save((longer, model(longer)), tmp_path / "want.pt")
    script = """
        import sys, torch, edgequant.torch
        program = torch.export.load(sys.argv[1] + "/model.pt2")
        tokens, want = torch.load(sys.argv[1] + "/want.pt")
        with torch.no_grad():
            torch.testing.assert_close(program.module()(tokens), want)
        print(sum("edgequant" in str(n.target) for n in program.graph.nodes))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == 4  # embedding and three products


def test_packed_weights_move_to_a_file(tmp_path: Path) -> None:
    model = Tied()
    quantize_module(model, "q4_k")
    tokens = torch.tensor([[1, 2, 3]])
    with torch.no_grad():
        y = model(tokens)
        panel = model.head._bound.panel
        before = model.state_dict()
        moved = map_packed(model, tmp_path)
        assert moved == sum({t.data_ptr(): t.numel() for k, t in before.items() if "qweight" in k}.values())
        assert model.head.qweight is model.embed.qweight and not list(tmp_path.iterdir())
        assert torch.equal(model(tokens), y) and model.head._bound.panel is panel
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, before[name])
        model.load_state_dict({k: v.clone() for k, v in before.items()})  # writing goes to memory, not to the file
        assert torch.equal(model(tokens), y)


def test_panels_go_with_the_model() -> None:
    gc.collect()
    before = len(ops._panels)
    m = layer()
    m(torch.randn(1, 256))
    assert len(ops._panels) == before + 1
    del m
    gc.collect()
    assert len(ops._panels) == before


def test_errors_say_what_to_do() -> None:
    m = layer()
    with pytest.raises(eq.Error, match=r"float32, float16 or bfloat16, not torch.float64"):
        m(torch.randn(2, 256, dtype=torch.float64))
    with pytest.raises(eq.Error, match=r"expected an input of shape \(..., 256\), not \(2, 255\)"):
        m(torch.randn(2, 255))
    with pytest.raises(AttributeError, match=r"no float weight.*dequantize"):
        _ = m.weight
    with pytest.raises(eq.Error, match="not a multiple of the block of 256 of q4_k"):
        QuantLinear(100, 4, "q4_k")
    with pytest.raises(eq.Error, match="max_norm"):
        QuantEmbedding.from_embedding(nn.Embedding(4, 32, max_norm=1.0), "q4_0")
    with pytest.raises(eq.Error, match=r"the packed weights are on meta"):
        ops.panel_of(torch.zeros(64, 144, dtype=torch.uint8, device="meta"), "q4_k", 64, 256)


def test_from_quantized_shares_memory() -> None:
    q = eq.quantize(np.random.default_rng(0).standard_normal((8, 64), dtype=np.float32), "q4_0")
    m = QuantLinear.from_quantized(q)
    assert m.qweight.data_ptr() == q.data.ctypes.data and m.quantized() == q
