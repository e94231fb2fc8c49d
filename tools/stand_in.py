#!/usr/bin/env python3
"""Makes a full-precision stand-in of a model that is only at hand as a Q4_1 GGUF: a Hugging Face directory in f32.

The decoded weights of such a file lie on its 4-bit grid: quantizing them to the same grid again would be exact, and
other 4- and 5-bit formats would look odd. So every quantized weight is moved by uniform noise of up to half a step of
its own block, which is where the original weight may have been. The result behaves like an ordinary model in full
precision and is the reference for its quantized versions; it is not the published model, whose quality it says nothing
about.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

import numpy as np
from edgequant import Error, _core
from edgequant.models import export_huggingface, open_model

# Formats of 32 weights with one f16 step, in the first two bytes of the block.
BLOCK = {"q4_1": 20, "q8_0": 34}


def dither(tensor: _core.StoredTensor, random: np.random.Generator) -> np.ndarray:
    """The tensor decoded to f32; each quantized weight moved by uniform noise of +- half a step of its block."""
    columns = tensor.shape[-1]
    rows = int(np.prod(tensor.shape[:-1], dtype=np.int64))
    data = np.ascontiguousarray(tensor.data).reshape(rows, -1)
    weights = _core.dequantize(data, tensor.type, rows, columns)
    if tensor.type in BLOCK:
        head = np.ascontiguousarray(data.reshape(-1, BLOCK[tensor.type])[:, :2])
        step = np.abs(head.view(np.float16).astype(np.float32))  # (blocks, 1)
        noise = random.random(weights.size, np.float32).reshape(-1, 32) - np.float32(0.5)
        weights = weights + (noise * step).reshape(weights.shape)
    elif tensor.type not in ("f32", "f16", "bf16"):
        raise Error(f"tensor {tensor.name} is {tensor.type}; steps are only known for {', '.join(BLOCK)}")
    return weights


def make_stand_in(source: Path, directory: Path, seed: int = 1) -> None:
    """Writes the stand-in of the GGUF `source` as a Hugging Face directory, complete or not at all."""
    file = _core.GgufFile(str(source))
    random = np.random.default_rng(seed)
    directory.parent.mkdir(parents=True, exist_ok=True)
    part = directory.with_name(directory.name + ".part")
    decoded = directory.with_name(directory.name + ".gguf.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        plan = [(t.name, t.shape, "f32") for t in file.tensors]
        with _core.GgufWriter(str(decoded), {**file.metadata, "general.file_type": np.uint32(0)}, plan) as writer:
            for index, tensor in enumerate(file.tensors):
                writer.write(index, dither(tensor, random).view(np.uint8))
            writer.finish()
        export_huggingface(open_model(decoded), part, "f32")
        shutil.rmtree(directory, ignore_errors=True)
        part.rename(directory)
    finally:
        decoded.unlink(missing_ok=True)
        shutil.rmtree(part, ignore_errors=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="GGUF file")
    parser.add_argument("directory", type=Path, help="Hugging Face directory to write")
    parser.add_argument("--seed", type=int, default=1, help="of the noise (default: 1)")
    args = parser.parse_args()
    try:
        make_stand_in(args.source, args.directory, args.seed)
    except Error as error:
        print(f"stand_in: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
