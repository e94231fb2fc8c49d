"""What one golden file of a planar format holds, and helpers that the makers of golden files share."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden" / "planar"
INPUTS = GOLDEN / "inputs.npz"  # matrices which every project's own quantizer has to quantize


@dataclass
class Golden:
    """One format, one small matrix.

    Attributes:
      name: of the format in edgequant's catalogue; also the file's name.
      weights: (N, K) float32, what the defining project makes of the planes.
      planes: the planes as the project stores them. Types that NumPy lacks are bytes or uint16, named in `dtypes`.
      source: package and version that made the weights, or the specification that an independent packer follows.
      dtypes: real types of planes which NumPy cannot name, such as bfloat16.
      options: what the planes do not tell: a nested offset, a tile size.
      errors: relative RMSE of the project's own quantizer on the matrices of `inputs.npz`.
    """

    name: str
    weights: np.ndarray
    planes: dict[str, np.ndarray]
    source: str
    dtypes: dict[str, str] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        weights = np.ascontiguousarray(self.weights, dtype=np.float32)
        assert weights.ndim == 2 and not np.isnan(weights).any(), self.name
        meta = {
            "name": self.name,
            "source": self.source,
            "shape": list(weights.shape),
            "dtypes": self.dtypes,
            "options": self.options,
            "errors": {k: float(f"{v:.6g}") for k, v in self.errors.items()},
        }
        arrays = {f"plane:{k}": np.ascontiguousarray(v) for k, v in self.planes.items()}
        header = np.frombuffer(json.dumps(meta).encode(), np.uint8)
        np.savez_compressed(folder / f"{self.name}.npz", meta=header, weights=weights, **arrays)


Maker = Callable[[], Iterator[Golden]]
MAKERS: dict[str, Maker] = {}


def maker(package: str) -> Callable[[Maker], Maker]:
    """Registers a function that yields the golden data of one project."""

    def register(f: Maker) -> Maker:
        assert package not in MAKERS
        MAKERS[package] = f
        return f

    return register


def generator(name: str) -> np.random.Generator:
    """The same numbers for the same name in every run."""
    return np.random.default_rng(zlib.crc32(name.encode()))


def codes(rng: np.random.Generator, shape: tuple[int, ...], bits: int) -> np.ndarray:
    """Integers below 2**bits in random order, each of them about equally often."""
    n = int(np.prod(shape))
    return rng.permutation(np.arange(n, dtype=np.int64) % (1 << bits)).reshape(shape)


def scales(rng: np.random.Generator, shape: tuple[int, ...], signed: bool = False) -> np.ndarray:
    """float16 numbers between 0.002 and 0.1, of both signs where `signed`."""
    s = np.exp(rng.uniform(np.log(0.002), np.log(0.1), shape))
    return (s * rng.choice([-1, 1], shape) if signed else s).astype(np.float16)


def inputs() -> dict[str, np.ndarray]:
    """(16, 512) float32 matrices: Gaussian and Student-t with 5 degrees of freedom, both about 0.02 in size."""
    if not INPUTS.exists():
        rng = generator("inputs")
        shape = (16, 512)
        gauss, t5 = rng.standard_normal(shape) * 0.02, rng.standard_t(5, shape) * 0.02
        np.savez_compressed(INPUTS, gauss=gauss.astype(np.float16), t5=t5.astype(np.float16))
    return {k: v.astype(np.float32) for k, v in np.load(INPUTS).items()}


def relative_error(w: np.ndarray, approximate: np.ndarray) -> float:
    """Root of the squared error over the squared norm of `w`."""
    d = approximate.astype(np.float64) - w
    return float(np.sqrt((d * d).sum() / (w.astype(np.float64) ** 2).sum()))


def errors_of(quantize: Callable[[np.ndarray], np.ndarray]) -> dict[str, float]:
    """Errors of a project's quantizer: `quantize` takes (N, K) float32 and returns what it decodes to."""
    return {k: relative_error(w, quantize(w)) for k, w in inputs().items()}


def bit_stream(values: np.ndarray, bits: int) -> np.ndarray:
    """uint8 (..., ceil(n * bits / 8)): element i at bits [i * bits, (i + 1) * bits), lowest bit first."""
    planes = (values[..., None] >> np.arange(bits)) & 1
    return np.packbits(planes.reshape(*values.shape[:-1], -1).astype(np.uint8), axis=-1, bitorder="little")
