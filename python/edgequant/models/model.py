"""What every source of a model gives: metadata in GGUF's terms and tensors that are read on demand."""

from __future__ import annotations

import contextlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgequant import _core

if TYPE_CHECKING:  # what requantizing a GGUF file needs starts without NumPy
    import numpy as np

FLOATS = ("f32", "f16", "bf16")


class ModelTensor:
    """One tensor of a model under the name that it has (or will have) in the other world.

    Attributes:
        name: the name in the target naming (GGUF's for `Model.tensors`, Hugging Face's for `Model.hf_tensors()`).
        source_name: the name in the file that it comes from.
        shape: row-major, the outermost dimension first.
        format: name in the catalogue, such as "bf16" or "q4_k".
        nbytes: bytes in the source.
        row_permutation: target row i is source row `row_permutation[i]`; None for the identity. Rows are quantized
            independently, so a flow may quantize source rows and permute the encoded ones.
        transform: what is done to the values (`f32` applies it), or None. Only small one-dimensional tensors have one.
        stored: a buffer of the source's bytes.
    """

    def __init__(
        self,
        name: str,
        source_name: str,
        shape: tuple[int, ...],
        format: str,
        data: _core.StoredTensor | np.ndarray,
        row_permutation: np.ndarray | None = None,
        transform: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> None:
        self.name = name
        self.source_name = source_name
        self.shape = shape
        self.format = format
        self.nbytes = data.nbytes
        self.row_permutation = row_permutation
        self.transform = transform
        self.stored = data

    @property
    def row_count(self) -> int:
        """Rows N of the tensor seen as an (N, K) matrix; a vector is one row."""
        return math.prod(self.shape[:-1])

    @property
    def columns(self) -> int:
        """Columns K of the tensor seen as an (N, K) matrix."""
        return self.shape[-1] if self.shape else 1

    def rows(self, begin: int = 0, end: int | None = None) -> np.ndarray:
        """Source bytes of rows [begin, end) in the source's order, not copied: (end - begin, row bytes) uint8."""
        count = self.row_count
        end = count if end is None else end
        if not 0 <= begin <= end <= count:
            raise IndexError(f"{self.name}: rows [{begin}, {end}) of {count}")
        data = self.stored.data if isinstance(self.stored, _core.StoredTensor) else self.stored.reshape(-1)
        return data.reshape(count, -1)[begin:end] if count else data.reshape(0, 0)

    def forget(self) -> None:
        """Gives the memory of what was read of the file back to the system."""
        if isinstance(self.stored, _core.StoredTensor):
            self.stored.forget()

    def f32_rows(self, begin: int = 0, end: int | None = None) -> np.ndarray:
        """Target rows [begin, end) decoded, permuted and transformed: (end - begin, K) float32."""
        if self.row_permutation is None:
            data = self.rows(begin, end)
        else:
            data = self.rows()[self.row_permutation[begin:end]]
        values = _core.dequantize(data, self.format, data.shape[0], self.columns)
        return values if self.transform is None else self.transform(values)

    def f32(self) -> np.ndarray:
        """The whole tensor decoded, permuted and transformed: float32 of `shape`."""
        return self.f32_rows().reshape(self.shape)

    def __repr__(self) -> str:
        return f"ModelTensor({self.name!r}, shape={self.shape}, format={self.format!r})"


class Model(ABC):
    """A model opened for reading; see `open_model`.

    Attributes:
        kind: "huggingface" or "gguf".
        path: the directory or file.
        architecture: GGUF's name, such as "llama".
        tensors: in GGUF naming and order.
        ignored: names of source tensors without a place in GGUF, such as rotary buffers.
        notes: sentences about what the target cannot express.
    """

    kind: str

    def __init__(self, path: Path) -> None:
        self.path = path
        self.architecture = ""
        self.tensors: list[ModelTensor] = []
        self.ignored: list[str] = []
        self.notes: list[str] = []

    @abstractmethod
    def gguf_metadata(self) -> dict[str, Any]:
        """Complete GGUF metadata, except `general.file_type` and `general.quantization_version` (of the target)."""

    def target_metadata(self) -> _core.GgufMetadata:
        """The same in a form that is passed on to a file without being looked at."""
        return _core.GgufMetadata(self.gguf_metadata())

    @abstractmethod
    def hf_tensors(self) -> list[ModelTensor]:
        """The tensors in Hugging Face naming, order and values.

        Raises:
            Error: a GGUF of an architecture that edgequant cannot turn back.
        """

    @abstractmethod
    def hf_files(self) -> dict[str, bytes]:
        """The small files of a Hugging Face directory by name: configuration and tokenizer.

        Raises:
            Error: as `hf_tensors`.
        """

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r}, {self.architecture!r}, {len(self.tensors)} tensors)"


def open_model(path: str | Path) -> Model:
    """Opens a Hugging Face model directory or a GGUF file; weights are mapped, not read.

    Args:
        path: directory with config.json and safetensors, or a .gguf file.
    Raises:
        Error: it is neither, it is damaged, incomplete, or of an unknown architecture.
    Example:
        >>> open_model("SmolLM2-135M-Instruct.Q4_1.gguf").architecture
        'llama'
    """
    path = Path(path)
    if path.is_dir():
        from .huggingface import HuggingFaceModel

        return HuggingFaceModel(path)
    if not path.exists():
        raise _core.Error(f"{path}: no such file or directory")
    with path.open("rb") as file:
        magic = file.read(4)
    if magic == b"GGUF":
        from .gguf import GgufModel

        return GgufModel(path)
    if path.suffix == ".safetensors":
        raise _core.Error(f"{path}: give the directory that holds this file and config.json, not the file itself")
    if path.suffix in (".bin", ".pt", ".pth", ".ckpt"):
        raise _core.Error(f"{path}: pickled checkpoints can run code and are not read; save the model as safetensors")
    raise _core.Error(f"{path}: neither a Hugging Face directory nor a GGUF file (it starts with {magic!r})")


@contextlib.contextmanager
def malformed(where: str, what: str) -> Iterator[None]:
    """Turns what Python raises on metadata of an unexpected structure into one sentence."""
    try:
        yield
    except _core.Error:
        raise
    except (TypeError, ValueError, KeyError, IndexError, AttributeError, ArithmeticError) as error:
        raise _core.Error(f"{where}: {what} malformed ({type(error).__name__}: {error})") from error


def rope_permutation(rows: int, heads: int, inverse: bool = False) -> np.ndarray:
    """Source row of each GGUF row of a Llama query or key matrix; `inverse`: source row of each Hugging Face row.

    Hugging Face keeps the two halves of each head's rotated pairs apart, GGUF side by side.
    """
    import numpy as np

    order = np.arange(rows, dtype=np.int64)
    shape = (heads, rows // heads // 2, 2) if inverse else (heads, 2, rows // heads // 2)
    return order.reshape(shape).swapaxes(1, 2).reshape(-1)
