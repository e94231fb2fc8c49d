"""Keys and values for generation through the core: one tensor for all layers of a cache of transformers."""

from __future__ import annotations

from typing import Any

import torch


class CacheState:
    """Keys and values of all layers in one tensor with room to grow; the cache's own tensors are views of it.

    A layer with a sliding window shows the last window - 1 positions, as it does in transformers; the tensor keeps all.
    """

    def __init__(self, layers: list[Any], length: int, shape: tuple[int, int, int], dtype: torch.dtype) -> None:
        """`shape`: rows, heads and numbers of a head."""
        self.layers, self.length, self.dtype = layers, length, dtype
        self.shape = shape
        self.windows = [getattr(layer, "sliding_window", 0) if layer.is_sliding else 0 for layer in layers]
        self.views: list[torch.Tensor] = []
        self.capacity = 0
        self._copy(length + 64)

    @classmethod
    def of(cls, cache: Any, shape: tuple[int, int, int], dtype: torch.dtype, layers: int) -> CacheState | None:
        """The state of a cache of the growing kind, made on first use; None for all others."""
        from transformers.cache_utils import DynamicCache

        if type(cache) is not DynamicCache or len(cache.layers) != layers:
            return None
        state: CacheState | None = cache.__dict__.get("_edgequant_state")
        if state is None or not state._is_current(cache.layers):
            length = _common_length(cache.layers, shape, dtype)
            if length is None:
                return None
            state = cache.__dict__["_edgequant_state"] = cls(cache.layers, length, shape, dtype)
        if any(getattr(layer, "record_past", False) for layer in state.layers):
            return None  # it wants to see more than its window
        return state if state.shape == shape and state.dtype == dtype else None

    def _copy(self, capacity: int) -> None:
        rows, heads, width = self.shape
        data = torch.empty((len(self.layers), 2, rows, heads, capacity, width), dtype=self.dtype)
        for i, layer in enumerate(self.layers):
            if not layer.is_initialized:
                empty = data[i, 0, :, :, :0]
                layer.lazy_initialization(empty, empty)
            elif self.length > 0:
                kept = layer.keys.shape[-2]  # positions before are outside of every window to come
                data[i, :, :, :, : self.length - kept] = 0
                data[i, 0, :, :, self.length - kept : self.length] = layer.keys
                data[i, 1, :, :, self.length - kept : self.length] = layer.values
        self.data, self.capacity = data, capacity
        self._show()

    def _show(self) -> None:
        views: dict[int, list[torch.Tensor]] = {}
        self.views = []
        for i, (layer, window) in enumerate(zip(self.layers, self.windows, strict=True)):
            if window not in views:
                first = max(0, self.length - window + 1) if window else 0
                views[window] = list(self.data[..., first : self.length, :].flatten(0, 1).unbind(0))
            layer.keys, layer.values = views[window][2 * i], views[window][2 * i + 1]
            self.views += (layer.keys, layer.values)

    def _is_current(self, layers: list[Any]) -> bool:
        """Whether the cache still has the tensors that it was given here."""
        return len(layers) == len(self.layers) and all(
            layer.keys is self.views[2 * i] and layer.values is self.views[2 * i + 1] for i, layer in enumerate(layers)
        )

    def reserve(self, count: int) -> None:
        """Makes room for `count` positions more."""
        if self.length + count > self.capacity:
            self._copy(self.capacity * 3 // 2 + count)

    def grow(self, count: int) -> None:
        """Shows that `count` positions were filled."""
        self.length += count
        for layer, window in zip(self.layers, self.windows, strict=True):
            if window:
                layer.cumulative_length += count
        self._show()


def _common_length(layers: list[Any], shape: tuple[int, int, int], dtype: torch.dtype) -> int | None:
    """How many positions all layers hold; None if they differ or are not as the core takes them."""
    from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

    lengths: set[int] = set()
    for layer in layers:
        if type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer):
            return None
        length: int = layer.get_seq_length()
        lengths.add(length)
        if layer.is_initialized and length > 0:
            keys: Any = layer.keys
            kept = length
            if type(layer) is DynamicSlidingWindowLayer:
                if layer.sliding_window < 2:
                    return None
                kept = min(length, layer.sliding_window - 1)
            rows, heads, width = shape
            if not keys.is_cpu or keys.dtype != dtype or keys.shape != (rows, heads, kept, width):
                return None
    return lengths.pop() if len(lengths) == 1 else None
