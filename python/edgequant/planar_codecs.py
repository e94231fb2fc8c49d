"""Planar formats whose arrays are not plain planes: they are rearranged from planes, or have codes of another kind.

A codec has the methods of the core's `Scheme`: quantize, dequantize and check, on arrays by the names of their parts;
those whose codes stand for one weight each have read and write, too, and repack for products.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edgequant import _core
from edgequant._core import Error

Arrays = dict[str, np.ndarray]


def dynamic_map() -> list[float]:
    """bitsandbytes' 256 values for 8-bit numbers: seven decades, each with twice the values of the next lower."""
    values = [0.0, 1.0]
    first = float(np.float32(0.1))
    for decade in range(7):
        n = 2**decade
        step = float(np.float32(0.9) / np.float32(n))
        # As torch.linspace: from both ends to the middle, each rounded once.
        exact = [first + step * i if i < (n + 1) // 2 else 1 - step * (n - i) for i in range(n + 1)]
        edges = np.array(exact, np.float32)
        means = (edges[:-1] + edges[1:]) / np.float32(2)
        values += [s * float(v) for v in np.float32(10.0 ** (decade - 6)) * means for s in (1, -1)]
    return sorted(values)


def _plain(description: Mapping[str, Any], **planes: Any) -> Any:
    """The core's Scheme of the description without what only a codec knows."""
    known = {k: v for k, v in description.items() if k not in ("codec", "tile", "order_plane", "columns_plane")}
    return _core.Scheme({**known, **planes})


def _sized(name: str, arrays: Mapping[str, np.ndarray], sizes: Mapping[str, int]) -> None:
    for part, size in sizes.items():
        if part not in arrays:
            raise Error(f"format '{name}': the array of {part} is missing")
        if arrays[part].size != size:
            raise Error(f"format '{name}': the array of {part} has {arrays[part].size} elements, not {size}")


def _joined(codes: np.ndarray, bits: int) -> np.ndarray:
    """Rows of bytes as rows of codes of 2 or 4 bits, the first in the lowest bits."""
    while bits < 8:
        codes = codes[:, ::2] | codes[:, 1::2] << bits
        bits *= 2
    return codes


def _whole_bytes(name: str, cols: int) -> None:
    if cols % 8:
        raise Error(f"format '{name}': rows of {cols} weights are not a multiple of 8")


class Tiles:
    """BitNet's TL1 and TL2: one byte per ternary weight, packed by the core; two bits for products."""

    def __init__(self, description: Mapping[str, Any]) -> None:
        self.name = description["name"]
        self.kind, *tile = description["tile"]
        self.tile = dict(zip(("bm", "bk", "bmm"), tile, strict=True))
        self.scheme = _plain(description, bits=8, code_plane={"bits": 8})
        self.two_bits = _plain(description, bits=2, code_plane={"bits": 2, "word": 8, "slots": 1})

    def quantize(self, x: np.ndarray, importance: np.ndarray | None, effort: str) -> Arrays:
        return self._packed(self.scheme.quantize(x, importance, effort))

    def _packed(self, arrays: Arrays) -> Arrays:
        codes = arrays["codes"].view(np.int8)
        codes -= 1
        return {**arrays, "codes": _core.pack_tiles(codes, self.kind, **self.tile)}

    def _plain_arrays(self, arrays: Mapping[str, np.ndarray], rows: int, cols: int) -> Arrays:
        codes = _core.unpack_tiles(arrays["codes"], self.kind, rows, cols, **self.tile)
        codes += 1
        return {**arrays, "codes": codes.view(np.uint8)}

    def dequantize(self, arrays: Mapping[str, np.ndarray], rows: int, cols: int) -> np.ndarray:
        return self.scheme.dequantize(self._plain_arrays(arrays, rows, cols), rows, cols)

    def read(self, arrays: Mapping[str, np.ndarray], rows: int, cols: int) -> Any:
        return self.scheme.read(self._plain_arrays(arrays, rows, cols), rows, cols)

    def write(self, codes: np.ndarray, scale: np.ndarray, shift: np.ndarray) -> Arrays:
        return self._packed(self.scheme.write(codes, scale, shift))

    def repack(self, arrays: Mapping[str, np.ndarray], rows: int, cols: int) -> tuple[_core.Panel, bool] | None:
        return self.two_bits.repack(self._plain_arrays(arrays, rows, cols), rows, cols)

    def check(self, arrays: Mapping[str, np.ndarray], rows: int, cols: int) -> None:
        _sized(self.name, arrays, {"scale": 1})
        if "codes" not in arrays:
            raise Error(f"format '{self.name}': the array of codes is missing")
        needed = _core.tiles_bytes(self.kind, rows, cols, **self.tile)
        if arrays["codes"].nbytes != needed:
            raise Error(f"format '{self.name}': codes of {rows} x {cols} weights take {needed} bytes")


class ActOrder:
    """GPTQ with act-order: the columns of a group lie anywhere; g_idx names the group of each."""

    def __init__(self, description: Mapping[str, Any]) -> None:
        self.name, self.group, self.bits = description["name"], description["group"], description["bits"]
        self.scheme = _plain(description)

    def quantize(self, x: np.ndarray, importance: np.ndarray | None, effort: str) -> Arrays:
        """Columns of like importance share a group; without one, columns of like magnitude."""
        rows, cols = x.shape
        weight = importance if importance is not None else np.einsum("nk,nk->k", x, x, dtype=np.float64)
        order = np.argsort(-weight, kind="stable")
        sorted_importance = None if importance is None else np.ascontiguousarray(importance[order])
        arrays = self.scheme.quantize(np.take(x, order, axis=1), sorted_importance, effort)
        place = np.empty(cols, np.int64)
        place[order] = np.arange(cols)
        codes, scale, shift = self.scheme.read(arrays, rows, cols)
        arrays = self.scheme.write(np.take(codes, place, axis=1), scale, shift)
        return {**arrays, "order": (place // self.group).astype(np.int32)}

    def dequantize(self, arrays: Mapping[str, np.ndarray], rows: int, cols: int) -> np.ndarray:
        self.check(arrays, rows, cols)
        group = arrays["order"].reshape(-1)
        codes, scale, shift = self.scheme.read({k: v for k, v in arrays.items() if k != "order"}, rows, cols)
        w = codes.astype(np.float32)
        w -= np.take(shift, group, axis=1)
        w *= np.take(scale, group, axis=1)
        return w

    def repack(self, arrays: Mapping[str, np.ndarray], rows: int, cols: int) -> tuple[_core.Panel, bool] | None:
        """Columns sorted by their groups; products sort the activations likewise."""
        plain = {k: v for k, v in arrays.items() if k != "order"}
        return self.scheme.repack(plain, rows, cols, groups=arrays["order"].reshape(-1))

    def check(self, arrays: Mapping[str, np.ndarray], rows: int, cols: int) -> None:
        _sized(self.name, arrays, {"order": cols, "codes": -(-cols * self.bits // 32) * rows})
        self.scheme.check({k: v for k, v in arrays.items() if k != "order"}, rows, cols)
        groups, named = -(-cols // self.group), arrays["order"]
        if not 0 <= named.min() <= named.max() < groups:
            wrong = named.min() if named.min() < 0 else named.max()
            raise Error(f"format '{self.name}': g_idx names group {wrong} of {groups}")


class RankOne:
    """OneBit: signs, times a factor per row and one per column, the best of that form for |w|."""

    def __init__(self, description: Mapping[str, Any]) -> None:
        self.name = description["name"]
        self.signs = _plain(description)

    def quantize(self, x: np.ndarray, importance: np.ndarray | None, effort: str) -> Arrays:
        _whole_bytes(self.name, x.shape[1])
        magnitude = np.abs(x, dtype=np.float64)
        weight = np.ones(x.shape[1]) if importance is None else importance.astype(np.float64)
        columns, rows = magnitude.mean(axis=0), np.zeros(len(x))
        for _ in range({"fast": 2, "default": 6}.get(effort, 20)):  # alternating least squares: the first singular pair
            columns = columns / columns.mean() if columns.any() else columns + 1  # keeps both in their type's range
            rows = magnitude @ (columns * weight) / max(float(weight @ columns**2), 1e-300)
            norm = float(rows @ rows)
            if norm < 1e-300:
                break
            columns = rows @ magnitude / norm
        highest = max(float(rows.max(initial=0)), float(columns.max(initial=0)))
        if highest > 65504:
            raise Error(f"a factor of {highest:g} is too large for {self.name}, which reaches 65504")
        codes = np.packbits(x < 0, axis=1, bitorder="little")
        return {"codes": codes, "scale": rows.astype(np.float16), "columns": columns.astype(np.float16)}

    def dequantize(self, arrays: Mapping[str, np.ndarray], rows: int, cols: int) -> np.ndarray:
        self.check(arrays, rows, cols)
        codes = np.unpackbits(arrays["codes"].reshape(rows, -1).view(np.uint8), axis=1, bitorder="little")
        w = 1 - 2 * codes.astype(np.float32)
        w *= arrays["scale"].reshape(-1, 1).astype(np.float32)
        w *= arrays["columns"].reshape(1, -1).astype(np.float32)
        return w

    def repack(self, arrays: Mapping[str, np.ndarray], rows: int, cols: int) -> tuple[_core.Panel, bool] | None:
        """Signs, a scale for each row; the factors of the columns go to the activations."""
        columns = arrays["columns"].reshape(-1).astype(np.float32)
        return self.signs.repack({k: v for k, v in arrays.items() if k != "columns"}, rows, cols, scale=columns)

    def check(self, arrays: Mapping[str, np.ndarray], rows: int, cols: int) -> None:
        _whole_bytes(self.name, cols)
        _sized(self.name, arrays, {"codes": rows * cols // 8, "scale": rows, "columns": cols})


class E8P:
    """QuIP#'s lattice codes: eight weights each, odd numbers of quarters up to 15."""

    has_two_panels = True

    def __init__(self, description: Mapping[str, Any]) -> None:
        self.name = description["name"]
        plane = {"bits": 4, "word": 8}
        self.quarters = _plain(description, bits=4, zero=7.5, code_plane=plane, scale_plane={"cell": "f32"})

    def quantize(self, x: np.ndarray, importance: np.ndarray | None, effort: str) -> Arrays:
        words, scale = _core.encode_e8p(x, importance, effort)
        return {"codes": words, "scale": np.array([scale], np.float32)}

    def dequantize(self, arrays: Mapping[str, np.ndarray], rows: int, cols: int) -> np.ndarray:
        self.check(arrays, rows, cols)
        return _core.decode_e8p(arrays["codes"].view(np.uint64), float(arrays["scale"].reshape(-1)[0]), rows, cols)

    def repack(
        self, arrays: Mapping[str, np.ndarray], rows: int, cols: int, panel: str = "fast"
    ) -> tuple[_core.Panel, bool] | None:
        """Four bits for a weight, as there are 16 values; or "compact", the codes with their signs written out."""
        self.check(arrays, rows, cols)
        words, scale = arrays["codes"].view(np.uint64), float(arrays["scale"].reshape(-1)[0])
        if panel == "compact" and cols % 256 == 0:
            return _core.repack_e8p(words, scale, rows, cols), True
        numbers = _core.decode_e8p(words, 2.0, rows, cols)  # halves that are no whole numbers
        numbers += np.float32(7.5)
        codes = numbers.astype(np.uint8)
        half = np.array([0.5 * scale], np.float32)
        return self.quarters.repack({"codes": _joined(codes, 4), "scale": half}, rows, cols)

    def check(self, arrays: Mapping[str, np.ndarray], rows: int, cols: int) -> None:
        _sized(self.name, arrays, {"codes": rows * cols // 32, "scale": 1})


class Aqlm:
    """AQLM's sums of codebook entries, in groups of 8 weights along a row."""

    def __init__(self, description: Mapping[str, Any]) -> None:
        self.name, self.books = description["name"], description["books"]

    def quantize(self, x: np.ndarray, importance: np.ndarray | None, effort: str) -> Arrays:
        raise Error(f"{self.name} can be read but not written: its codebooks are trained with the model")

    def dequantize(self, arrays: Mapping[str, np.ndarray], rows: int, cols: int) -> np.ndarray:
        return _core.decode_aqlm(*self._parts(arrays, rows, cols), rows, cols)

    def repack(self, arrays: Mapping[str, np.ndarray], rows: int, cols: int) -> tuple[_core.Panel, bool] | None:
        """The codes as they are, which products decode piece by piece."""
        return _core.repack_aqlm(*self._parts(arrays, rows, cols), rows, cols, self.name), True

    def _parts(
        self, arrays: Mapping[str, np.ndarray], rows: int, cols: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        self.check(arrays, rows, cols)
        books = arrays["entries"].reshape(self.books, -1, 8).astype(np.float32)
        return arrays["codes"], books, arrays["scale"].reshape(-1).astype(np.float32)

    def check(self, arrays: Mapping[str, np.ndarray], rows: int, cols: int) -> None:
        _whole_bytes(self.name, cols)
        _sized(self.name, arrays, {"codes": rows * cols // 8 * self.books, "scale": rows})
        entries = self.books * (1 << (8 * arrays["codes"].itemsize)) * 8
        _sized(self.name, arrays, {"entries": entries})


CODECS: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "tiles": Tiles,
    "act_order": ActOrder,
    "rank_one": RankOne,
    "e8p": E8P,
    "aqlm": Aqlm,
}
