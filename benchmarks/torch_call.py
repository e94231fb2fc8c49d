"""Microseconds that a QuantLinear call takes beyond the bare kernel, beside torch.nn.Linear of the same shape.

python benchmarks/torch_call.py
"""

from __future__ import annotations

import timeit
from collections.abc import Callable

import edgequant as eq
import numpy as np
import torch
from edgequant import _core
from edgequant.torch import QuantLinear


def microseconds(call: Callable[[], object], number: int = 5000) -> float:
    """The best of seven runs."""
    call()
    return min(timeit.repeat(call, number=number, repeat=7)) / number * 1e6


def main() -> None:
    torch.set_num_threads(1)
    eq.set_num_threads(1)
    print(f"{'N x K':>12} {'kernel':>8} {'QuantLinear':>12} {'beyond':>8} {'operator':>9} {'torch Linear':>13}")
    for n, k in ((64, 64), (576, 576), (1536, 576)):
        q = eq.quantize(np.random.default_rng(0).standard_normal((n, k), dtype=np.float32), "q4_0")
        layer, linear = QuantLinear.from_quantized(q), torch.nn.Linear(k, n, bias=False)
        panel = _core.repack(q.data, q.format, n, k)
        x, y = torch.randn(1, 1, k), torch.empty(1, 1, n)
        at, to = x.data_ptr(), y.data_ptr()
        operator = torch.ops.edgequant.matmul.default
        with torch.inference_mode():
            bare = microseconds(lambda p=panel, a=at, t=to: _core.matmul_at(p, a, "f32", 1, t, "int8"))
            whole = microseconds(lambda m=layer, x=x: m(x))
            given = (x, layer.qweight, layer.format, n, k, None, "int8")
            op = microseconds(lambda f=operator, given=given: f(*given))
            other = microseconds(lambda m=linear, x=x: m(x))
        print(f"{f'{n} x {k}':>12} {bare:8.1f} {whole:12.1f} {whole - bare:8.1f} {op:9.1f} {other:13.1f}")


if __name__ == "__main__":
    main()
