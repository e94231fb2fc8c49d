#!/usr/bin/env python3
"""Speed and error of the planar formats against the quantizers of the projects that define them, in one process.

Per scheme: million weights per second of the project and of edgequant's three efforts (medians of interleaved
repetitions, all on --threads threads where the project lets us choose), their ratios, and the errors (root of the
squared error over the norm) on a Gaussian matrix. Projects that are not installed are skipped and named.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from pathlib import Path
from typing import Any

import edgequant as eq
import numpy as np
from planar_peers import PROJECTS, Peer

EFFORTS = ("fast", "default", "best")


def relative(w: np.ndarray, decoded: np.ndarray) -> float:
    return float(np.linalg.norm(decoded.astype(np.float64) - w) / np.linalg.norm(w.astype(np.float64)))


def measure(peer: Peer, w: np.ndarray, repeats: int) -> dict[str, Any]:
    w = w[: max(int(len(w) * peer.share) // 128 * 128, 128)]
    prepared = peer.prepare(w)
    calls = {"peer": lambda: peer.quantize(prepared)}
    for effort in EFFORTS:
        calls[effort] = lambda effort=effort: eq.quantize(w, peer.format, effort=effort)
    times: dict[str, list[float]] = {name: [] for name in calls}
    results: dict[str, Any] = {}
    for _ in range(repeats + 1):  # the first round warms up
        for name, call in calls.items():
            begin = time.perf_counter()
            results[name] = call()
            times[name].append(time.perf_counter() - begin)
    record: dict[str, Any] = {"format": peer.format, "peer": peer.label}
    for name in calls:
        decoded = peer.decode(results[name]) if name == "peer" else results[name].dequantize()
        record[f"{name} Mw/s"] = w.size / statistics.median(times[name][1:]) / 1e6
        record[f"{name} error"] = relative(w, decoded)
    return record


def line(r: dict[str, Any]) -> str:
    text = f"{r['format']:20}{r['peer']:20}{r['peer Mw/s']:8.0f}{r['peer error']:9.5f} "
    for effort in EFFORTS:
        speed, error = r[f"{effort} Mw/s"], r[f"{effort} error"]
        text += f"|{speed:8.0f}{speed / r['peer Mw/s']:7.1f}x{error:9.5f}{error / r['peer error']:7.3f} "
    return text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("projects", nargs="*", default=list(PROJECTS), help=f"any of {' '.join(PROJECTS)}")
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--cols", type=int, default=4096)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the records to this file")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    eq.set_num_threads(args.threads)
    w = (np.random.default_rng(0).standard_normal((args.rows, args.cols)) * 0.02).astype(np.float32)
    print(f"{'format':20}{'project':20}{'Mw/s':>8}{'error':>9} ", end="")
    print("".join(f"|{e + ' Mw/s':>14}{'':>2}{'error':>9}{'ratio':>7} " for e in EFFORTS))
    records = []
    for project in args.projects:
        try:
            peers = list(PROJECTS[project](args.threads))
        except ImportError as e:
            print(f"{project}: not installed ({e})")
            continue
        for peer in peers:
            records.append(measure(peer, w, args.repeats))
            print(line(records[-1]), flush=True)
    if args.json:
        args.json.write_text(json.dumps(records, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
