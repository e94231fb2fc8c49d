#!/usr/bin/env python3
"""Write cpp/format/ggml_grids.h: the vector grids of GGML's IQ1 to IQ3 types, as numbers.

The grids are read from the `gguf` package. They do not change, so the header is committed and this script is only
run again to check it: `python tools/make_ggml_grids.py --check`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from gguf import quants

HEADER = Path(__file__).resolve().parent.parent / "cpp" / "format" / "ggml_grids.h"

TOP = """\
// The vector grids of GGML's IQ types: numeric facts, written by tools/make_ggml_grids.py.
// A row is one number: weight k of the row has the level at bits [k * bits, (k + 1) * bits).
#pragma once
#include "format/block.h"

namespace edgequant::ggml {

// clang-format off
"""
BOTTOM = """\
// clang-format on

}  // namespace edgequant::ggml
"""


def grid_text(name: str) -> str:
    """One `GridTable` definition: {dim, rows, bits, {levels}, {packed rows}}."""
    cls = getattr(quants, name)
    cls.init_grid()
    rows, dim = cls.grid_shape
    levels = np.array(cls.grid_map)
    grid = cls.grid.reshape(rows, dim)
    index = np.searchsorted(levels, grid)
    assert (levels[index] == grid).all()
    bits = 16 // dim if dim == 8 else 3
    packed = (index << (bits * np.arange(dim))).sum(axis=1)
    assert len(levels) <= 1 << bits and len(levels) <= 8 and packed.max() < 1 << 16
    values = [f"0x{v:04x}," for v in packed]
    lines = "\n".join("  " + "".join(values[k : k + 16]) for k in range(0, rows, 16))
    level_text = ", ".join(str(int(v)) for v in levels)
    return f"inline constexpr GridTable kGrid{name} = {{{dim}, {rows}, {bits}, {{{level_text}}}, {{\n{lines}\n}}}};\n"


def header_text() -> str:
    names = ["IQ1_S", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S"]
    return TOP + "\n".join(grid_text(name) for name in names) + BOTTOM


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare with the committed header instead of writing it")
    args = parser.parse_args()
    if args.check:
        same = HEADER.read_text() == header_text()
        print(f"{HEADER.name} {'is up to date' if same else 'differs'}")
        return 0 if same else 1
    HEADER.write_text(header_text())
    print(f"wrote {HEADER.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
