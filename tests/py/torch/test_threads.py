"""PyTorch's worker threads, shared."""

from __future__ import annotations

import os
import sys

import edgequant as eq
import pytest

torch = pytest.importorskip("torch")

from edgequant import _core  # noqa: E402
from edgequant.torch import QuantLinear  # noqa: E402
from edgequant.torch.threads import share_openmp  # noqa: E402


def threads() -> int:
    return len(os.listdir("/proc/self/task")) if sys.platform == "linux" else 0


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere PyTorch has another OpenMP library")
def test_one_set_of_workers() -> None:
    layer = QuantLinear.from_linear(torch.nn.Linear(256, 4096), "q4_0")
    x, before = torch.randn(1, 256), torch.get_num_threads()
    try:
        _core.share_openmp(0, 0)
        eq.set_num_threads(2)
        want = layer(x)  # there is one worker of our own now, whatever ran before
        eq.set_num_threads(3)
        torch.set_num_threads(3)
        torch.ones(1 << 20).add_(1).sum()  # PyTorch has its workers now
        assert share_openmp()
        running = threads()
        assert torch.equal(layer(x), want) and threads() == running
        _core.share_openmp(0, 0)
        assert torch.equal(layer(x), want) and threads() == running + 1
        share_openmp()
        torch.set_num_threads(2)  # not as many: threads of our own
        assert torch.equal(layer(x), want)
    finally:
        share_openmp()
        eq.set_num_threads(0)
        torch.set_num_threads(before)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_a_forked_child_has_workers_of_its_own() -> None:
    layer = QuantLinear.from_linear(torch.nn.Linear(256, 4096), "q4_0")
    x, before = torch.randn(1, 256), torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        eq.set_num_threads(2)
        want = layer(x)
        child = os.fork()
        if child == 0:
            os._exit(0 if torch.equal(layer(x), want) else 1)
        assert os.waitpid(child, 0)[1] == 0
    finally:
        eq.set_num_threads(0)
        torch.set_num_threads(before)
