"""Prints how fast formats described at run time are, beside a built-in format of the same class in the same run.

    PYTHONPATH=python python benchmarks/schemes.py [--rows N] [--cols N] [--threads N]

Encoding: weights per second at the default effort, both searching (the built-in format at an effort that searches).
Decoding: to float32, also as a share of what np.copyto moves in float32 bytes. Least processor time of all
threads over several turns, in turns: this machine may be busy.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import edgequant as eq
import numpy as np

E2M1 = [0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6]
IQ4 = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113]
# format, built-in of the same class, the latter's effort that searches
PAIRS = [
    (eq.Format("1 bit, g128", block=128, codes=1), "q1_0", "default"),
    (eq.Format("ternary base 3, g256", block=256, base3=True), "tq1_0", "default"),
    (eq.Format("2-bit table, g64", block=64, codes=2, table=[-1, -0.3, 0.3, 1]), "q2_0", "default"),
    (eq.Format("4-bit, g32", block=32, codes=4), "q4_0", "best"),
    (eq.Format("4-bit and minimum, g32", block=32, codes=4, minimum="f16"), "q4_1", "best"),
    (eq.Format("5-bit and minimum, g32", block=32, codes=5, minimum="f16"), "q5_1", "best"),
    (eq.Format("8-bit, g32", block=32, codes=8), "q8_0", "best"),
    (eq.Format("4-bit table, g32", block=32, codes=4, table=IQ4), "iq4_nl", "default"),
    (eq.Format("E2M1 over E8M0, g32", block=32, codes=4, table=E2M1, scale="e8m0"), "mxfp4", "default"),
    (eq.Format("4-bit over two levels", block=32, codes=4, minimum="f16", sub_scale=(6, 8)), "q4_k", "default"),
    (eq.Format("vectors of 4, 256 rows", block=64, codebook=(256, 4)), "iq2_xxs", "default"),
    (eq.planar_formats["mlx.affine4.g32"], "q4_1", "best"),
    (eq.planar_formats["onnx.nbits4.g32"], "q4_0", "best"),
]  # fmt: skip


def seconds(*runs: Callable[[], object], turns: int = 9) -> list[float]:
    """The least processor time of each, in turns, so that a busy neighbour hits all alike."""
    best = [float("inf")] * len(runs)
    for _ in range(turns):
        for i, run in enumerate(runs):
            start = time.process_time()
            run()
            best[i] = min(best[i], time.process_time() - start)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--cols", type=int, default=4096)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    eq.set_num_threads(args.threads)
    w = np.random.default_rng(0).standard_normal((args.rows, args.cols), dtype=np.float32)
    copy = np.empty_like(w)
    print(f"{args.rows} x {args.cols}, {args.threads} threads; ratio: time over that of the built-in format")
    head = f"{'built-in':>9} {'ratio':>6}"
    print(f"{'format':24} {'encode':>9} {head} | {'decode':>9} {head} {'of copy':>8}")
    for f, other, effort in PAIRS:
        mine, theirs = seconds(
            lambda f=f: eq.quantize(w, f),
            lambda other=other, effort=effort: eq.quantize(w, other, effort=effort, objective="plain"),  # type: ignore[misc]
            turns=2,
        )
        a, b = eq.quantize(w, f), eq.quantize(w, other)
        own, builtin, moved = seconds(a.dequantize, b.dequantize, lambda: np.copyto(copy, w))
        n = w.size / 1e6
        print(
            f"{f.name:24} {n / mine:9.0f} {n / theirs:9.0f} {mine / theirs:6.2f} | {n / own:9.0f} {n / builtin:9.0f} "
            f"{own / builtin:6.2f} {moved / own:8.0%}  million weights per second of one core, {other}"
        )


if __name__ == "__main__":
    main()
