"""The operators: values, gradients, fake tensors, panels."""

from __future__ import annotations

import gc
import weakref

import edgequant as eq
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from edgequant.torch import ops  # noqa: E402

N, K = 48, 256


def packed(format: str, n: int = N, k: int = K, seed: int = 0) -> tuple[eq.QuantizedTensor, torch.Tensor]:
    w = np.random.default_rng(seed).standard_normal((n, k), dtype=np.float32)
    q = eq.quantize(w, format)
    return q, torch.from_numpy(q.data)


def exact(x: torch.Tensor, q: eq.QuantizedTensor) -> torch.Tensor:
    return x.double() @ torch.from_numpy(q.dequantize()).double().T


@pytest.mark.parametrize("format", list(eq.formats))
def test_matmul_of_every_format(format: str) -> None:
    q, data = packed(format)
    x, bias = torch.randn(2, 3, K), torch.randn(N)
    y = torch.ops.edgequant.matmul(x, data, format, N, K, bias, "exact")
    torch.testing.assert_close(y.double(), exact(x, q) + bias.double(), rtol=1e-5, atol=1e-4)
    fast = torch.ops.edgequant.matmul(x, data, format, N, K)
    assert (fast.double() - exact(x, q)).norm() < 0.02 * exact(x, q).norm()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_types_of_activations(dtype: torch.dtype) -> None:
    q, data = packed("q4_k")
    x = torch.randn(5, K).to(dtype)
    y = torch.ops.edgequant.matmul(x, data, "q4_k", N, K, torch.randn(N, dtype=dtype) * 0, "exact")
    assert y.dtype == dtype
    torch.testing.assert_close(y, exact(x, q).to(dtype), rtol=2**-7, atol=2**-7)


def test_views_that_are_not_contiguous() -> None:
    q, data = packed("q8_0")
    x = torch.randn(K, 4).T
    y = torch.ops.edgequant.matmul(x, data, "q8_0", N, K, None, "exact")
    torch.testing.assert_close(y.double(), exact(x, q), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("format", ["q4_k", "iq2_xxs"])
def test_dequantize_and_embedding_are_the_decoder(format: str) -> None:
    q, data = packed(format)
    w = torch.from_numpy(q.dequantize())
    assert torch.equal(torch.ops.edgequant.dequantize(data, format, N, K, torch.float32), w)
    assert torch.equal(torch.ops.edgequant.dequantize(data, format, N, K, torch.bfloat16), w.bfloat16())
    rows = torch.tensor([[3, 0], [N - 1, 3]], dtype=torch.int32)
    assert torch.equal(torch.ops.edgequant.embedding(rows, data, format, N, K, torch.float16), w[rows].half())


def test_gradient_of_the_input_and_the_bias() -> None:
    q, data = packed("q4_k")
    w = torch.from_numpy(q.dequantize())
    x, bias = torch.randn(2, 3, K, requires_grad=True), torch.randn(N, requires_grad=True)
    g = torch.randn(2, 3, N)
    torch.ops.edgequant.matmul(x, data, "q4_k", N, K, bias, "exact").backward(g)
    torch.testing.assert_close(x.grad, g @ w, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(bias.grad, g.sum((0, 1)), rtol=1e-5, atol=1e-5)
    assert data.grad is None


def test_gradient_in_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops, "_TILE", 7 * K)
    q, data = packed("q6_k")
    g = torch.randn(4, N)
    y = torch.ops.edgequant.matmul_t(g, data, "q6_k", N, K)
    torch.testing.assert_close(y, g @ torch.from_numpy(q.dequantize()), rtol=1e-4, atol=1e-4)


def test_second_derivative() -> None:
    _, data = packed("q8_0")
    g = torch.randn(2, N, requires_grad=True)
    v = torch.randn(2, K)
    (torch.ops.edgequant.matmul_t(g, data, "q8_0", N, K) * v).sum().backward()
    torch.testing.assert_close(g.grad, torch.ops.edgequant.matmul(v, data, "q8_0", N, K, None, "exact"))


@pytest.mark.parametrize("name", ["test_schema", "test_autograd_registration", "test_faketensor"])
def test_registration_passes_torchs_own_checks(name: str) -> None:
    _, data = packed("q4_0")
    x = torch.randn(2, K, requires_grad=True)
    samples = [
        (torch.ops.edgequant.matmul.default, (x, data, "q4_0", N, K, None, "exact")),
        (torch.ops.edgequant.matmul_t.default, (torch.randn(2, N, requires_grad=True), data, "q4_0", N, K)),
        (torch.ops.edgequant.dequantize.default, (data, "q4_0", N, K, torch.float16)),
        (torch.ops.edgequant.embedding.default, (torch.tensor([1, 2]), data, "q4_0", N, K, torch.float32)),
    ]
    for operator, arguments in samples:
        torch.library.opcheck(operator, arguments, test_utils=name)


def test_panels_are_shared_by_views_and_go_with_the_weights() -> None:
    _, data = packed("q4_k")
    data = data.clone()
    panel = ops.panel_of(data, "q4_k", N, K)
    assert ops.panel_of(data.view(N, -1), "q4_k", N, K) is panel
    before = len(ops._panels)
    storage = weakref.ref(data.untyped_storage())
    del data
    gc.collect()
    assert storage() is None and len(ops._panels) == before - 1


def test_changes_in_place_are_noticed() -> None:
    q, data = packed("q4_k", seed=1)
    data, x = data.clone(), torch.randn(2, K)
    torch.ops.edgequant.matmul(x, data, "q4_k", N, K)
    q, other = packed("q4_k", seed=2)
    data.copy_(other)
    y = torch.ops.edgequant.matmul(x, data, "q4_k", N, K, None, "exact")
    torch.testing.assert_close(y.double(), exact(x, q), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.randn(2, K, dtype=torch.float64)}, "float32, float16 or bfloat16, not torch.float64"),
        ({"x": torch.randn(2, K + 1)}, r"expected an input of shape \(..., 256\), not \(2, 257\)"),
        ({"data": torch.zeros(N, 5, dtype=torch.uint8)}, r"48 x 256 weights in q4_k are packed as \(48, 144\)"),
        ({"data": torch.zeros(N, 144)}, "packed weights are uint8"),
        ({"bias": torch.zeros(N + 1)}, r"a bias of shape \(48,\)"),
        ({"format": "q4_x"}, "did you mean"),
        ({"compute": "int9"}, "'int8' or 'exact'"),
    ],
)
def test_errors_say_what_is_wrong(change: dict, message: str) -> None:
    _, data = packed("q4_k")
    given = {"x": torch.randn(2, K), "data": data, "format": "q4_k", "n": N, "k": K, "bias": None, "compute": "int8"}
    with pytest.raises(eq.Error, match=message):
        torch.ops.edgequant.matmul(**{**given, **change})
