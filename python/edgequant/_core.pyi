"""Types of the C++ core. Private: use the package's own functions."""

import os
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

__version__: str

class Error(ValueError): ...

# ---- formats ----
def formats() -> list[dict[str, Any]]: ...
def row_bytes(format: str, cols: int) -> int: ...
def can_quantize(name: str) -> bool: ...

# ---- operations on whole matrices; data is any C-contiguous buffer of the right size ----
def dequantize(
    data: Any, format: str, rows: int, cols: int, to: str = "f32", out: NDArray[Any] | None = None
) -> NDArray[Any]: ...
def compare(
    a: Any,
    a_format: str,
    b: Any,
    b_format: str,
    rows: int,
    cols: int,
    importance: NDArray[np.float32] | None = None,
) -> dict[str, float]: ...
def quantize(
    data: Any,
    source: str,
    rows: int,
    cols: int,
    to: str,
    importance: NDArray[np.float32] | None = None,
    effort: str = "default",
    objective: str = "ggml",
    stats: bool = False,
) -> tuple[NDArray[np.uint8], dict[str, float] | None]: ...
def read_and_fill(data: Any, source: str, rows: int, cols: int, row_bytes: int) -> NDArray[np.uint8]:
    """For benchmarks: read the weights and fill rows of `row_bytes` new bytes, on all threads, as quantize does."""

def quantize_ldlq(
    data: Any,
    source: str,
    rows: int,
    cols: int,
    to: str,
    hessian: NDArray[np.float32],
    damping: float = 0.01,
    effort: str = "default",
) -> NDArray[np.uint8]: ...
def quantize_to(
    writer: GgufWriter,
    index: int,
    data: Any,
    source: str,
    rows: int,
    cols: int,
    to: str,
    order: NDArray[np.int64] | None = None,
    importance: NDArray[np.float32] | None = None,
    effort: str = "default",
    objective: str = "ggml",
) -> dict[str, float]:
    """Encode into tensor `index`, its row i from row order[i]; importance (E, K), one vector for each of E parts."""

def set_num_threads(n: int) -> None:
    """Sets the number of threads of all later calls; 0 means all cores that this process may use."""

def num_threads() -> int:
    """The number of threads in use."""

def share_openmp(parallel: int, max_threads: int) -> None:
    """Run on the workers of the OpenMP library whose GOMP_parallel and omp_get_max_threads have these addresses, where
    it is set to as many threads; 0: on threads of our own."""

def simd_target() -> str:
    """The instruction set in use, such as AVX3_DL."""

def simd_targets() -> list[str]:
    """All instruction sets that this machine could use, the best first."""

def use_simd_target(name: str) -> None:
    """Uses one of simd_targets(), or the best for ""; for tests and benchmarks."""

def time_row(row: Any, format: str, cols: int, repeats: int, peer: int = 0) -> float:
    """Seconds to decode one row to float32 on this thread, the mean of `repeats`; for benchmarks."""

# ---- products ----

class Panel:
    """Weights in the layout of matrix products."""

    @property
    def rows(self) -> int: ...
    @property
    def cols(self) -> int: ...
    @property
    def nbytes(self) -> int:
        """Bytes that one product reads."""
    @property
    def format(self) -> str: ...

def repack(data: Any, format: str, rows: int, cols: int, panel: str = "auto") -> Panel:
    """Copy rows x cols weights to a Panel of the kind that choose_panel names."""

def view_numbers(data: Any, format: str, rows: int, cols: int) -> Panel:
    """f32, f16 or bf16 numbers as products take them: they are read where they lie, and `data` is kept."""

def repack_e8p(words: NDArray[np.uint64], scale: float, rows: int, cols: int) -> Panel:
    """Copy QuIP#'s words to a compact Panel; cols must be a multiple of 256."""

def choose_panel(format: str, panel: str) -> str:
    """What 'auto', 'compact' or 'fast' means for a format: 'compact' or, where there is one panel only, 'fast'."""

def set_panel(panel: str) -> None:
    """Choose the panel of weights that are rows of a grid (iq1, iq2, iq3, quip.e8p), where a product does not.

    What has been multiplied already keeps its panel.

    Args:
      panel: "compact" keeps the format's rate in memory, 1.56 to 3.44 bits per weight; "fast" holds single weights, in
        2.3 to 4.4 bits; "auto" takes the one that is faster on this machine. Other formats have one panel.

    Raises Error for another name.
    """

def copy_to_new_memory(data: Any, nbytes: int = 0) -> object:
    """For benchmarks: copy the bytes to new memory on all threads, as repack does, `nbytes` of them if that is not 0.

    Some are read twice if there are fewer. Returns what holds the memory.
    """

def can_repack(format: str) -> bool:
    """Whether weights of this format can be repacked."""

def matmul(
    x: NDArray[Any],
    type: str,
    panel: Panel,
    out: NDArray[Any],
    out_type: str,
    compute: str,
    bias: NDArray[np.float32] | None = None,
    scale: NDArray[np.float32] | None = None,
) -> None:
    """out = x * weights^T * scale + bias, for matrices of f32, f16 or bf16 (any 2-byte type) numbers."""

def matmul_grouped(
    x: NDArray[Any],
    type: str,
    experts: Sequence[Panel],
    index: NDArray[np.int64],
    per_row: int,
    out: NDArray[Any],
    out_type: str,
    compute: str,
    bias: NDArray[np.float32] | None = None,
    scale: NDArray[np.float32] | None = None,
) -> None:
    """Row i of out = row i / per_row of x times the weights of Panel experts[index[i]] (times row index[i] of scale,
    plus that of bias)."""

def matmul_at(panel: Panel, x: int, type: str, rows: int, out: int, compute: str, bias: int = 0) -> None:
    """matmul on addresses, unchecked: x (rows, K), out (rows, N) contiguous numbers of `type`, bias N floats or 0."""

class Decoder:
    """All layers of a decoder of the Llama kind. Layers name panels, each with a first row, and addresses of norms and
    biases, all of the type `vectors`, "f32" or "bf16"; the caller keeps what they mean."""

    def __init__(
        self,
        hidden: int,
        heads: int,
        kv_heads: int,
        head_dim: int,
        rotary_dim: int,
        eps: float,
        scale: float,
        gelu: bool,
        exact: bool,
        vectors: str,
        norm_plus: float,
        layers: Sequence[Mapping[str, Any]],
        final_norm: int,
    ) -> None: ...
    def step(
        self,
        x: int,
        rows: int,
        count: int,
        positions: int,
        starts: int,
        rotations: Sequence[tuple[int, int]],
        type: str,
        cache: int,
        capacity: int,
        past: int,
    ) -> None:
        """`count` tokens per row, on addresses: x (rows, count, hidden) floats become the last hidden states. positions
        (rows, count) int64 name rows of the tables of cos and sin; starts (rows) int64, or 0, are the first positions
        in the cache (of `type`) that are no padding."""

def are_in_place(dicts: list[dict[str, Any]], names: list[str], found: list[Any]) -> bool:
    """Whether dicts[i].get(names[i]) is found[i] for all i."""

def read_panel(panel: Panel) -> None:
    """For benchmarks: read all bytes of the panel on all threads."""

def multiply_at_peak(products: int) -> int:
    """For benchmarks: multiply bytes in registers on all threads; returns the number of products."""

# ---- files ----
class StoredTensor:
    @property
    def name(self) -> str: ...
    @property
    def type(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def data(self) -> NDArray[np.uint8]: ...
    def forget(self) -> None: ...
    def __buffer__(self, flags: int) -> memoryview: ...

class SafetensorsFile:
    def __init__(self, path: str | os.PathLike[str]) -> None: ...
    @property
    def path(self) -> str: ...
    @property
    def metadata(self) -> dict[str, str]: ...
    @property
    def tensors(self) -> list[StoredTensor]: ...

class GgufFile:
    def __init__(self, path: str | os.PathLike[str]) -> None: ...
    @property
    def path(self) -> str: ...
    @property
    def version(self) -> int: ...
    @property
    def alignment(self) -> int: ...
    @property
    def metadata(self) -> dict[str, Any]: ...
    def plain_metadata(self) -> GgufMetadata: ...
    @property
    def tensors(self) -> list[StoredTensor]: ...

class GgufMetadata:
    """Metadata that is read or passed on without becoming Python objects."""

    def __init__(self, metadata: Mapping[str, Any]) -> None: ...
    def __len__(self) -> int: ...
    def get(self, key: str, default: Any = None) -> Any: ...
    def updated(self, changes: Mapping[str, Any], without: Sequence[str] = ()) -> GgufMetadata: ...

def gguf_size(metadata: Mapping[str, Any] | GgufMetadata, tensors: Sequence[tuple[str, Sequence[int], str]]) -> int: ...

class GgufWriter:
    def __init__(
        self,
        path: str | os.PathLike[str],
        metadata: Mapping[str, Any] | GgufMetadata,
        tensors: Sequence[tuple[str, Sequence[int], str]],
        alignment: int = 0,
    ) -> None: ...
    @property
    def file_size(self) -> int: ...
    def write(self, index: int, data: Any) -> None: ...
    def finish(self) -> None: ...
    def __enter__(self) -> GgufWriter: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

# ---- formats described at run time ----
class Scheme:
    def __init__(self, description: Mapping[str, Any]) -> None: ...
    def quantize(
        self, x: NDArray[np.float32], importance: NDArray[np.float32] | None, effort: str
    ) -> dict[str, NDArray[Any]]: ...
    def quantize_ldlq(
        self, x: NDArray[np.float32], hessian: NDArray[np.float32], damping: float = 0.01, effort: str = "default"
    ) -> dict[str, NDArray[Any]]:
        """The same with error feedback for inputs of the second moments `hessian` (cols, cols)."""

    def dequantize(
        self, arrays: Mapping[str, NDArray[Any]], rows: int, cols: int, first: int = 0, count: int | None = None
    ) -> NDArray[np.float32]: ...
    def read(
        self, arrays: Mapping[str, NDArray[Any]], rows: int, cols: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32]]:
        """Codes, and scale and zero or minimum of each group of a row."""

    def write(
        self, codes: NDArray[np.uint8], scale: NDArray[np.float32], shift: NDArray[np.float32]
    ) -> dict[str, NDArray[Any]]: ...
    def repack(
        self,
        arrays: Mapping[str, NDArray[Any]],
        rows: int,
        cols: int,
        groups: NDArray[np.int32] | None = None,
        scale: NDArray[np.float32] | None = None,
    ) -> tuple[Panel, bool] | None:
        """A Panel, and whether it holds exactly the decoded weights; None if the format has no panel.

        `groups` (cols): the group of each column, where these lie anywhere. `scale` (cols): a factor of each column,
        which activations are multiplied by. Error if a column's group is none.
        """

    def repack_exactly(self, arrays: Mapping[str, NDArray[Any]], rows: int, cols: int) -> Panel:
        """A Panel of the very weights; where there is none, a copy that products decode piece by piece."""

    def check(self, arrays: Mapping[str, NDArray[Any]], rows: int, cols: int) -> None:
        """Error unless the arrays are those of a matrix of rows x cols weights."""

# ---- vectors of weights and tiles ----
def encode_e8p(
    w: NDArray[np.float32], importance: NDArray[np.float32] | None, effort: str
) -> tuple[NDArray[np.uint64], float]:
    """QuIP#'s words, (rows, cols / 32), and their scale. Error unless rows are a multiple of 16 and cols of 64."""

def decode_e8p(words: NDArray[np.uint64], scale: float, rows: int, cols: int) -> NDArray[np.float32]: ...
def decode_aqlm(
    codes: NDArray[Any], codebooks: NDArray[np.float32], scales: NDArray[np.float32], rows: int, cols: int
) -> NDArray[np.float32]:
    """From codes of 8 or 16 bits, codebooks (books, 2^bits, 8) and one scale per row."""

def repack_aqlm(
    codes: NDArray[Any],
    codebooks: NDArray[np.float32],
    scales: NDArray[np.float32],
    rows: int,
    cols: int,
    format: str,
) -> Panel:
    """A copy for products, which decode pieces of rows. Error for other shapes than decode_aqlm's."""

def pack_tiles(w: NDArray[np.int8], kind: str, bm: int, bk: int, bmm: int) -> NDArray[np.uint8]:
    """Bytes of weights -1, 0, 1 in BitNet's tiles "tl1" or "tl2" of bm x bk weights, in runs of bmm rows."""

def tiles_bytes(kind: str, rows: int, cols: int, bm: int, bk: int, bmm: int) -> int: ...
def unpack_tiles(
    data: NDArray[np.uint8], kind: str, rows: int, cols: int, bm: int, bk: int, bmm: int
) -> NDArray[np.int8]: ...
