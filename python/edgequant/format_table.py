"""What each format costs: bits per weight, error and speed, measured here and now; and which programs read it."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from edgequant import _core
from edgequant.formats import formats
from edgequant.planar import planar_formats
from edgequant.quantize import quantize

# By the beginning of a format's name.
READERS = {
    "mlx.": "MLX",
    "onnx.": "onnxruntime",
    "gptq": "GPTQModel, transformers, vLLM",
    "awq.": "AutoAWQ, transformers, vLLM",
    "ct.": "vLLM, transformers",
    "openvino.": "OpenVINO",
    "bnb.": "bitsandbytes, transformers",
    "fp8.": "vLLM, transformers",
    "bitnet.hf": "transformers",
    "bitnet.": "bitnet.cpp",
    "hqq.": "HQQ",
    "torchao.": "torchao, PyTorch on CPUs",
    "onebit.": "OneBit",
    "table": "edgequant",
    "paretoq.": "ParetoQ",
    "quip.": "QuIP#",
    "aqlm.": "AQLM, transformers",
}
USUAL_GROUP = {"onnx": 32, "gptq": 128, "awq": 128, "ct": 128, "openvino": 128, "torchao": 32}  # elsewhere 64


@dataclass(frozen=True)
class Row:
    """One format.

    Attributes:
      name: of the format.
      bits_per_weight: all arrays together, for the first matrix.
      block: weights that share a scale, or lie in one block: a number, "row", "tensor" or "128 x 128".
      readers: programs that read it.
      errors: relative RMSE (root of the squared error over the norm) per matrix; empty where it cannot be written.
      encode, decode: million weights per second on the first matrix, with all threads; 0 where it cannot be written.
    """

    name: str
    bits_per_weight: float
    block: str
    readers: str
    errors: dict[str, float]
    encode: float = 0
    decode: float = 0


def table_names() -> list[str]:
    """The formats worth a line: all block formats, and of the planar ones those with their project's usual group."""
    chosen = [n for n, f in formats.items() if f.codes]
    for name in planar_formats:
        if re.search(r"\.(f16|bf16|f32|act)$", name) or re.match(r"ct\.int[1567]\.|gptq_v2|bitnet\.tl", name):
            continue
        group = re.search(r"\.g(\d+)", name)
        if group and int(group[1]) != USUAL_GROUP.get(name.split(".")[0], 64) and not name.startswith("aqlm"):
            continue
        chosen.append(name)
    return [*chosen, "bitnet.tl1.128x64x32", "bitnet.tl2.128x96x32"]


def readers(name: str) -> str:
    """The programs that read a format."""
    if name in formats:
        return "llama.cpp, Ollama" if formats[name].gguf_type is not None else "edgequant"
    return next(text for start, text in READERS.items() if name.startswith(start))


def block_of(name: str) -> str:
    """The weights that share a scale, or lie in one block."""
    if name in formats:
        return str(formats[name].block)
    rows, block = planar_formats[name].group_rows, planar_formats[name].block
    if rows != 1:
        return "tensor" if rows == 0 else f"{rows} x {block}"
    return str(block) if block else "row"


def measure(name: str, matrices: Mapping[str, np.ndarray], effort: str = "default", repeats: int = 1) -> Row:
    """The row of one format.

    Args:
      name: of the format.
      matrices: (N, K) float32 by name; the first one is timed.
      effort: of the encoder.
      repeats: the fastest counts.
    """
    if name.startswith("aqlm") or (name in formats and not _core.can_quantize(name)):
        known = planar_formats[name] if name in planar_formats else formats[name]
        return Row(name, known.bits_per_weight, block_of(name), readers(name), {})
    errors: dict[str, float] = {}
    bits = encode = decode = 0.0
    for k, (key, w) in enumerate(matrices.items()):
        times: list[tuple[float, float]] = []
        for _ in range(repeats + 1 if k == 0 else 1):  # the first call warms up
            begin = time.perf_counter()
            q = quantize(w, name, effort=effort)  # type: ignore[arg-type]
            middle = time.perf_counter()
            q.dequantize()
            times.append((middle - begin, time.perf_counter() - middle))
        errors[key] = q.error(w)
        if k == 0:
            bits = q.bits_per_weight
            encode, decode = (w.size / min(t[i] for t in times) / 1e6 for i in (0, 1))
    return Row(name, bits, block_of(name), readers(name), errors, encode, decode)


def gaussian(rows: int, cols: int) -> np.ndarray:
    """(rows, cols) float32, standard deviation 0.02."""
    return (np.random.default_rng(0).standard_normal((rows, cols), np.float32)) * np.float32(0.02)


def cells(row: Row, matrices: Iterable[str]) -> list[str | None]:
    """The cells of a printed line: format, bits, block, errors, speeds, readers."""
    errors = [f"{row.errors[m]:.4f}" if m in row.errors else None for m in matrices]
    speeds = [f"{v:.0f}" if v else None for v in (row.encode, row.decode)]
    return [row.name, f"{row.bits_per_weight:.3f}", row.block, *errors, *speeds, row.readers]
