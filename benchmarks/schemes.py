"""Prints how fast formats described at run time are, beside a built-in format of the same class in the same run.

    PYTHONPATH=python python benchmarks/schemes.py [--rows N] [--cols N] [--threads N] [--turns N]
                                                   [--only WORD]

Encoding at the default effort, both searching (the built-in format at an effort that searches), with the error of
both: the squared error over that of zeros, in thousandths. Decoding to float32; products with int8 activations, of one
row and of many. Least time over several turns, in turns, since the machine may be busy: of the processor with one
thread, elapsed with more (processor time of other threads is counted in whole ticks of the scheduler).
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable

import edgequant as eq
import numpy as np

SPARSE = [v for v in itertools.product((-1.0, 0.0, 1.0), repeat=4) if v.count(0.0) == 1]
E2M1 = [0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6]
IQ4 = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113]
ROWS = (1, 64)  # of activations
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
    (eq.Format("2-bit learned, g64", block=64, codes=2, table="learned"), "q2_0", "default"),
    (eq.Format("2-bit, tables of groups", block=64, codes=2, learned="group"), "q2_0", "default"),
    (eq.Format("vectors of 4, 256 rows", block=64, codebook=(256, 4)), "iq2_xxs", "default"),
    (eq.Format("sparse ternary, g256", block=256, codebook=SPARSE), "tq1_0", "default"),
    (eq.Format("4-bit, Hadamard", block=32, codes=4, transform="hadamard"), "q4_0", "best"),
    (eq.planar_formats["mlx.affine4.g32"], "q4_1", "best"),
    (eq.planar_formats["onnx.nbits4.g32"], "q4_0", "best"),
]  # fmt: skip


def seconds(*runs: Callable[[], object], turns: int = 9) -> list[float]:
    """The least time of each, in turns, so that a busy neighbour hits all alike."""
    clock = time.process_time if eq.num_threads() == 1 else time.perf_counter
    best = [float("inf")] * len(runs)
    for _ in range(turns):
        for i, run in enumerate(runs):
            start = clock()
            run()
            best[i] = min(best[i], clock() - start)
    return best


def error(w: np.ndarray, q: eq.QuantizedTensor) -> float:
    """Squared error over the squares, in thousandths."""
    return float(1e3 * np.square(w - q.dequantize(), dtype=np.float64).sum() / np.square(w, dtype=np.float64).sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--cols", type=int, default=4096)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--only", default="", help="formats whose names have this in them")
    args = parser.parse_args()
    eq.set_num_threads(args.threads)
    rng = np.random.default_rng(0)
    w = rng.standard_normal((args.rows, args.cols), dtype=np.float32)
    x = {m: rng.standard_normal((m, args.cols), dtype=np.float32) for m in ROWS}
    n = w.size / 1e6
    print(f"{args.rows} x {args.cols}, {args.threads} threads; million weights per second: own, built-in;")
    print("ratio: time over that of the built-in format of the same class")
    heads = ["encode", "decode", *(f"matmul, {m} row{'s' if m > 1 else ''}" for m in ROWS)]
    print(f"{'format':26} {'built-in':9}" + "".join(f"| {head:>23} " for head in heads) + f"| {'error':>15}")
    worst = dict.fromkeys(heads, (0.0, ""))
    for f, other, effort in PAIRS:
        if args.only not in f.name:
            continue
        mine, theirs = seconds(
            lambda f=f: eq.quantize(w, f),
            lambda other=other, effort=effort: eq.quantize(w, other, effort=effort, objective="plain"),  # type: ignore[misc]
            turns=3,
        )
        a, b = eq.quantize(w, f), eq.quantize(w, other, effort=effort, objective="plain")
        pairs = [(mine, theirs), tuple(seconds(a.dequantize, b.dequantize, turns=args.turns))]
        for m in ROWS:
            runs = [lambda q=q, m=m: eq.matmul(x[m], q) for q in (a, b)]  # type: ignore[misc]
            pairs.append(tuple(seconds(*runs, turns=args.turns if m > 1 else 4 * args.turns)))
        cells = []
        for head, (own, builtin) in zip(heads, pairs, strict=True):
            cells.append(f"| {n / own:8.0f} {n / builtin:8.0f} {own / builtin:5.2f}")
            worst[head] = max(worst[head], (own / builtin, f.name))
        errors = f" | {error(w, a):7.2f} {error(w, b):7.2f}"
        print(f"{f.name:26} {other:9}" + " ".join(cells) + errors, flush=True)
    print("highest ratios: " + "; ".join(f"{head} {ratio:.2f} ({name})" for head, (ratio, name) in worst.items()))


if __name__ == "__main__":
    main()
