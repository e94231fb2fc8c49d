"""Speed and error of the grid quantizers (IQ1, IQ2, IQ3) against native ggml, in one run.

    python benchmarks/quantize_grid.py [--rows 64] [--threads 2] [--student] [formats ...]

Weights are Gaussian (or Student-t), the importance is all ones for both: the mode in which ggml's error is lowest. The
weighted error is ggml's own objective; rmse is plain, with objective="plain" for ours.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
from edgequant import _core
from ggml import Ggml

GRIDS = ["iq1_s", "iq1_m", "iq2_xxs", "iq2_xs", "iq2_s", "iq3_xxs", "iq3_s"]
COLS = 4096


def seconds(body: Callable[[], object], repeat: int) -> float:
    """The least of some runs: what neighbours on this machine disturb least."""
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        body()
        times.append(time.perf_counter() - start)
    return min(times)


def weighted_error(x: np.ndarray, y: np.ndarray, factor: float) -> float:
    x64 = x.astype(np.float64)
    square = np.repeat((x64.reshape(len(x), -1, 256) ** 2).mean(-1), 256, axis=1)
    return float((np.sqrt(factor * square + x64**2) * (y - x64) ** 2).sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("formats", nargs="*", default=GRIDS)
    parser.add_argument("--rows", type=int, default=64, help="rows of 4096 weights (default: 64)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--efforts", default="fast,default,best")
    parser.add_argument("--student", action="store_true", help="Student-t weights with 5 degrees of freedom")
    args = parser.parse_args()

    rng = np.random.default_rng(1)
    shape = (args.rows, COLS)
    x = (rng.standard_t(5, shape) if args.student else rng.standard_normal(shape)).astype(np.float32) * np.float32(0.02)
    ones = np.ones(COLS, np.float32)
    numbers = {f["name"]: f["gguf_type"] for f in _core.formats()}
    ggml = Ggml()
    _core.set_num_threads(args.threads)
    print(f"{args.rows} x {COLS} weights, {args.threads} threads, {_core.simd_target()}")
    print("format   effort   ggml Mw/s ours Mw/s  speed  weighted     rmse   ratio")
    for name in args.formats or GRIDS:
        number = numbers[name]
        ggml.quantize(x[:1], number, ones)  # sets its tables up
        slow = seconds(lambda number=number: ggml.quantize(x, number, ones, args.threads), 2)
        y = ggml.dequantize(ggml.quantize(x, number, ones, args.threads), number, COLS)
        factor = 1 if name in ("iq2_xxs", "iq2_xs") else 2
        theirs, their_rmse = weighted_error(x, y, factor), float(np.sqrt(((y - x) ** 2).mean() / (x**2).mean()))
        for effort in args.efforts.split(","):

            def encode(objective: str = "ggml", name: str = name, effort: str = effort) -> np.ndarray:
                importance = ones if objective == "ggml" else None
                return _core.quantize(x, "f32", *shape, name, importance, effort=effort, objective=objective)[0]

            quick = seconds(encode, 1 if effort == "best" else 3)
            ours = weighted_error(x, ggml.dequantize(encode(), number, COLS), factor)
            rmse = float(np.sqrt(((ggml.dequantize(encode("plain"), number, COLS) - x) ** 2).mean() / (x**2).mean()))
            print(f"{name:8} {effort:8} {x.size / slow / 1e6:9.2f} {x.size / quick / 1e6:9.2f} {slow / quick:5.1f}x "
                  f"{np.sqrt(ours / theirs):9.4f} {rmse:8.5f} {rmse / their_rmse:7.4f}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
