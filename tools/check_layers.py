#!/usr/bin/env python3
"""Checks the layer rule core <- format <- kernels <- op <- algo, io <- bind: a file includes only what is below it."""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MAY_INCLUDE = {
    "core": {"core"},
    "format": {"core", "format"},
    "kernels": {"core", "format", "kernels"},
    "op": {"core", "format", "kernels", "op"},
    "algo": {"core", "format", "kernels", "op", "algo"},
    "io": {"core", "format", "io"},
    "bind": {"core", "format", "kernels", "op", "algo", "io", "bind"},
}


def main() -> int:
    wrong = []
    for path in sorted([*ROOT.glob("cpp/**/*"), *ROOT.glob("kernels/**/*")]):
        if path.suffix not in {".h", ".cc", ".cu"}:
            continue
        parts = path.relative_to(ROOT).parts
        layer = parts[1] if parts[0] == "cpp" else "kernels"
        for name in re.findall(r'^#\s*include "([^"]+)"', path.read_text(), re.M):
            if name.split("/")[0] not in MAY_INCLUDE[layer]:
                wrong.append(f"{path.relative_to(ROOT)}: {layer} may not include {name}")
    for line in wrong:
        print(line)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
