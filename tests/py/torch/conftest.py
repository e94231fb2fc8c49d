"""Small models run fastest on one of PyTorch's threads, above all where tests share the machine."""

import pytest

torch = pytest.importorskip("torch")
torch.set_num_threads(1)
