#!/usr/bin/env python3
"""Write tests/golden/planar/<format>.npz: planes of each planar format and the floats its own project makes of them.

Each project is asked through its package (`pip install` the names below; CPU only). Formats whose projects have no
package are packed by independent code here, which follows the specification named in the file. Existing files are
kept unless --all is given, so a new format adds only its own.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")  # transformers compiles the unpacking of BitNet weights


def main() -> int:
    from planar import affine, lowbit, tables, vectors  # noqa: F401
    from planar.golden import GOLDEN, MAKERS

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("projects", nargs="*", help=f"any of {' '.join(MAKERS)}; all of them by default")
    parser.add_argument("--all", action="store_true", help="write all files again")
    args = parser.parse_args()
    GOLDEN.mkdir(exist_ok=True)
    for project in args.projects or MAKERS:
        for golden in MAKERS[project]():
            if args.all or not (GOLDEN / f"{golden.name}.npz").exists():
                golden.write(GOLDEN)
                print(f"{golden.name}: {golden.errors}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
