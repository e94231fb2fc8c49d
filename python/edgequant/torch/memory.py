"""Packed weights in mapped files, so that only the panels, which products read, fill memory."""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
import tempfile
from typing import Any

import numpy as np
import torch
from torch import nn

from edgequant._core import Error
from edgequant.torch.modules import QuantEmbedding, QuantLinear


def map_packed(model: nn.Module, directory: str | os.PathLike[str] | None = None) -> int:
    """Moves the packed weights of all quantized layers to a temporary file that is mapped to memory.

    Products read panels, a second copy of the weights in another order. The packed bytes are needed by state_dict,
    save_pretrained, gradients and embeddings only; in a mapped file the system keeps of them what is in use, and
    everything goes on working. The file has no name: it vanishes with the model.

    Args:
      model: with QuantLinear or QuantEmbedding layers.
      directory: where the file is made; default: the system's temporary one. It should not be in memory (tmpfs).

    Returns: bytes that were moved. Raises Error where the file cannot be written.
    """
    layers = [m for m in model.modules() if isinstance(m, QuantLinear | QuantEmbedding)]
    tensors = {id(m.qweight): m.qweight for m in layers}
    moved: dict[int, torch.Tensor] = {}
    try:
        with tempfile.TemporaryFile(dir=directory) as file:
            offsets = {}
            for key, tensor in tensors.items():
                offsets[key] = file.seek(-(-file.tell() // mmap.ALLOCATIONGRANULARITY) * mmap.ALLOCATIONGRANULARITY)
                file.write(tensor.contiguous().numpy().data)
            file.flush()
            for key, tensor in tensors.items():
                moved[key] = mapped_bytes(file.fileno(), offsets[key], tuple(tensor.shape))
    except OSError as e:
        raise Error(f"{directory or tempfile.gettempdir()}: the packed weights could not be written: {e}") from None
    for layer in layers:
        layer._move(moved[id(layer.qweight)])
    return sum(t.numel() for t in moved.values())


def mapped_bytes(fileno: int, offset: int, shape: tuple[int, ...]) -> torch.Tensor:
    """Bytes of a file as a uint8 tensor with a storage of its own; writing to it does not change the file."""
    count = int(np.prod(shape))
    begin = offset // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
    flags: dict[str, Any] = {"access": mmap.ACCESS_COPY}
    mapping = mmap.mmap(fileno, offset - begin + count, offset=begin, **flags)
    return torch.from_numpy(np.frombuffer(mapping, np.uint8, count, offset - begin).reshape(shape))


_MADV_PAGEOUT = 21


def drop_pages(tensor: torch.Tensor) -> None:
    """Tells Linux that a tensor is not needed for now: pages that are mapped from a file leave memory at once, others
    stay. Nothing is lost; elsewhere this does nothing."""
    if sys.platform != "linux" or tensor.device.type != "cpu":
        return
    begin = -(-tensor.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
    end = (tensor.data_ptr() + tensor.numel() * tensor.element_size()) // mmap.PAGESIZE * mmap.PAGESIZE
    if end > begin:  # best effort: kernels before 5.4 refuse
        ctypes.CDLL(None).madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), _MADV_PAGEOUT)
