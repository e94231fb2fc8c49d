#!/usr/bin/env python3
"""Encoding without a search against what memory allows, in one process.

Per format: GB/s of a large float32 matrix read plus codes written, beside the core's own pass that only reads such a
matrix and fills as many bytes, in the same pieces on the same threads. Medians of interleaved repetitions. Both write
to new memory, as quantize() does, so page faults count.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable

import edgequant as eq
import numpy as np
from edgequant import _core

BLOCKS = ["q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "f16", "bf16", "mxfp4", "nvfp4"]
PLANAR = ["mlx.affine4.g64", "onnx.nbits4.g32", "onnx.nbits8.g32", "ct.int8.channel", "fp8.e4m3.channel"]


def medians(repeats: int, calls: list[Callable[[], object]]) -> list[float]:
    """Seconds, the calls taken in turns; the first turn warms up."""
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(repeats + 1):
        for seconds, call in zip(times, calls, strict=True):
            begin = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - begin)
    return [statistics.median(t[1:]) for t in times]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("formats", nargs="*", default=[*BLOCKS, *PLANAR])
    parser.add_argument("--rows", type=int, default=8192)
    parser.add_argument("--cols", type=int, default=4096)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--effort", default="fast")
    args = parser.parse_args()
    eq.set_num_threads(args.threads)
    x = np.random.default_rng(0).standard_normal((args.rows, args.cols), dtype=np.float32) * np.float32(0.02)
    print(f"{_core.simd_target()}, {args.threads} threads, load {os.getloadavg()[0]:.1f}, {args.rows} x {args.cols}")
    print(f"{'format':20}{'Mw/s':>8}{'GB/s':>8}{'limit':>8}{'share':>7}")
    known = {f["name"] for f in _core.formats()}
    for name in args.formats:

        def encode(name: str = name) -> object:
            if name in known:
                return _core.quantize(x, "f32", *x.shape, name, None, effort=args.effort)
            return eq.quantize(x, name, effort=args.effort)

        written = _core.row_bytes(name, args.cols) * args.rows if name in known else eq.quantize(x, name).nbytes

        def limit(row_bytes: int = written // args.rows) -> object:
            return _core.read_and_fill(x, "f32", *x.shape, row_bytes)

        ours, least = medians(args.repeats, [encode, limit])
        total = (x.nbytes + written) / 1e9
        speeds = f"{x.size / ours / 1e6:8.0f}{total / ours:8.1f}{total / least:8.1f}"
        print(f"{name:20}{speeds}{least / ours:7.0%}", flush=True)


if __name__ == "__main__":
    main()
