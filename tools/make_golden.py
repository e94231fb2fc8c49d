#!/usr/bin/env python3
"""Write tests/golden/<format>.blocks and .f32: random blocks, and the floats that ggml's own decoder makes of them.

Needs llama-cpp-python (`make peers` builds it). Existing files are kept unless --all is given, so a new format adds
only its own two files.
"""

from __future__ import annotations

import argparse
import sys
import zlib
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))
from edgequant.formats import BlockFormat, formats
from ggml import Ggml

GOLDEN = Path(__file__).resolve().parent.parent / "tests" / "golden"
WEIGHTS = 1024


def golden_blocks(f: BlockFormat) -> np.ndarray:
    """(blocks, bytes) uint8, any bytes at all, the same in every run."""
    blocks = max(WEIGHTS // f.block, 2)
    rng = np.random.default_rng(zlib.crc32(f.name.encode()))
    return rng.integers(0, 256, (blocks, f.bytes), dtype=np.uint8)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--all", action="store_true", help="write all files again")
    args = parser.parse_args()
    ggml = Ggml()
    for f in formats.values():
        base = GOLDEN / f.name
        if f.gguf_type is None or (base.with_suffix(".f32").exists() and not args.all):
            continue
        blocks = golden_blocks(f)
        if f.name == "f32":
            floats = blocks.reshape(-1).view(np.float32)
        else:
            floats = ggml.dequantize(blocks.reshape(1, -1), f.gguf_type, blocks.shape[0] * f.block)
        base.with_suffix(".blocks").write_bytes(blocks.tobytes())
        base.with_suffix(".f32").write_bytes(floats.astype("<f4").tobytes())
        print(f"wrote {f.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
