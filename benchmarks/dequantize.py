#!/usr/bin/env python3
"""Decode speed of every format against ggml, in one process.

Columns, all in GB/s of float32 written, medians of interleaved repetitions:
  row         one row of 4096 weights, again and again on one thread: everything is in the first-level cache
  1T, 2T ...  a large matrix into an array that exists, with 1 and with --threads threads
  fresh       the same with all threads into a new array each time: the page faults are part of it
  of write    the large matrix with all threads as a share of what ordinary stores write with as many threads (memset,
              which some processors turn into whole lines without reading them first, is printed above)
  f16         the large matrix to float16 with all threads, in GB/s of float16 written
Each "ggml" column is ggml's own to_float (llama-cpp-python's native build) in the same place, "x" the ratio;
"libgguf" is that package's dequantize_rows, one thread, which makes a new array.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import json
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from edgequant import _core
from edgequant.formats import BlockFormat, formats
from ggml import Ggml

ROW = 4096  # weights: 16 KiB of floats


def interleaved(repeats: int, calls: list[Callable[[], object]]) -> list[float]:
    """Median seconds of each call, taken in turns so that all see the same machine."""
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(repeats):
        for seconds, call in zip(times, calls, strict=True):
            begin = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - begin)
    return [statistics.median(t) for t in times]


def write_speeds(size: int, threads: int, repeats: int) -> list[float]:
    """GB/s on `threads` threads into memory that exists: of ordinary stores from a row in cache, and of memset."""
    buffer, row = np.ones((size // 4 // ROW, ROW), np.float32), np.ones(ROW, np.float32)
    memset = ctypes.CDLL(None).memset
    memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
    memset.restype = ctypes.c_void_p
    parts = np.array_split(buffer, threads)
    with ThreadPoolExecutor(threads) as pool:
        store = lambda: list(pool.map(lambda part: np.copyto(part, row), parts))  # noqa: E731
        fill = lambda: list(pool.map(lambda part: memset(part.ctypes.data, 0, part.nbytes), parts))  # noqa: E731
        return [buffer.nbytes / seconds / 1e9 for seconds in interleaved(repeats, [store, fill])]


def weights_like(f: BlockFormat, rows: int, cols: int) -> np.ndarray:
    """Random codes, with ordinary numbers as 16- and 32-bit floats: (rows, bytes) uint8."""
    rng = np.random.default_rng(1)
    if f.block == 1:
        numbers = rng.standard_normal((rows, cols), dtype=np.float32)
        if f.name == "bf16":
            return (numbers.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8).reshape(rows, -1)
        return numbers.astype({"f32": np.float32, "f16": np.float16}[f.name]).view(np.uint8).reshape(rows, -1)
    return np.tile(rng.integers(0, 256, (1, f.row_bytes(cols)), dtype=np.uint8), (rows, 1))


def row_speed(f: BlockFormat, ggml: Ggml, repeats: int) -> tuple[float, float | None]:
    """(edgequant, ggml) GB/s for one row in cache."""
    row = weights_like(f, 1, ROW)
    peer = ctypes.cast(ggml.to_float(f.gguf_type), ctypes.c_void_p).value if f.name != "f32" else None
    ours, theirs = [], []
    for _ in range(repeats):
        ours.append(_core.time_row(row, f.name, ROW, 400))
        if peer:
            theirs.append(_core.time_row(row, f.name, ROW, 40, peer))
    speeds = [ROW * 4 / statistics.median(t) / 1e9 if t else None for t in (ours, theirs)]
    return speeds[0] or 0.0, speeds[1]


def matrix_speed(f: BlockFormat, ggml: Ggml, rows: int, cols: int, threads: int, repeats: int) -> dict[str, float]:
    data = weights_like(f, rows, cols)
    out, half = np.zeros((rows, cols), np.float32), np.zeros((rows, cols), np.float16)
    names: list[str] = []
    calls: list[Callable[[], object]] = []

    def add(name: str, call: Callable[[], object]) -> None:
        names.append(name)
        calls.append(call)

    def ours(n: int, to: str = "f32", into: np.ndarray | None = out) -> Callable[[], object]:
        def call() -> None:
            _core.set_num_threads(n)
            _core.dequantize(data, f.name, rows, cols, to, into)

        return call

    for n in sorted({1, threads}):
        add(f"{n}T", ours(n))
        if f.name != "f32":
            add(f"ggml {n}T", lambda n=n: ggml.dequantize(data, f.gguf_type, cols, n, out))
    add("fresh", ours(threads, into=None))
    add("f16", ours(threads, "f16", half))
    libgguf = importlib.import_module("libgguf") if importlib.util.find_spec("libgguf") else None
    if libgguf is not None and f.block > 1 and f.name != "q2_0":
        add("libgguf", lambda: libgguf.dequantize_rows(data, f.gguf_type, cols))
    seconds = dict(zip(names, interleaved(repeats, calls), strict=True))
    _core.set_num_threads(0)
    return {k: rows * cols * (2 if k == "f16" else 4) / s / 1e9 for k, s in seconds.items()}


def measure(f: BlockFormat, ggml: Ggml, args: argparse.Namespace, write: float) -> dict[str, Any]:
    rows = args.mib * 2**20 // 4 // args.cols
    row, ggml_row = row_speed(f, ggml, args.repeats)
    large = matrix_speed(f, ggml, rows, args.cols, args.threads, args.repeats)
    return {"format": f.name, "row": row, "ggml row": ggml_row, **large, "of write": large[f"{args.threads}T"] / write}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="FORMAT", help="formats to measure (default: all)")
    parser.add_argument("--threads", type=int, default=2, help="threads of the last columns (default: 2)")
    parser.add_argument("--mib", type=int, default=256, help="MiB of float32 in the large matrix (default: 256)")
    parser.add_argument("--cols", type=int, default=4096, help="columns of the large matrix (default: 4096)")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--target", default="", help="instruction set, one of: " + ", ".join(_core.simd_targets()))
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    args = parser.parse_args()
    _core.use_simd_target(args.target)
    ggml, t = Ggml(), args.threads
    write, memset = write_speeds(args.mib * 2**20, t, args.repeats)
    results = []
    if not args.json:
        print(f"{_core.simd_target()}, {args.mib} MiB of float32")
        print(f"writing on {t} threads: ordinary stores {write:.1f} GB/s, memset {memset:.1f} GB/s")
        heads = [f"{name:>6} {'ggml':>6} {'x':>5}" for name in ("row", "1T", f"{t}T")]
        print(f"{'':8} {' | '.join(heads)} {'of write':>8} | {'fresh':>6} {'f16':>6} {'libgguf':>7}")
    for f in [formats[n.lower()] for n in args.names] or formats.values():
        if f.gguf_type is None:
            continue
        r = measure(f, ggml, args, write)
        results.append(r)
        if not args.json:
            pairs = [(r["row"], r["ggml row"]), (r["1T"], r.get("ggml 1T")), (r[f"{t}T"], r.get(f"ggml {t}T"))]
            cells = [f"{a:6.1f} {b:6.1f} {a / b:5.1f}" if b else f"{a:6.1f} {'':6} {'':5}" for a, b in pairs]
            last = f"{r['fresh']:6.1f} {r['f16']:6.1f} " + (f"{r['libgguf']:7.1f}" if "libgguf" in r else "")
            print(f"{r['format']:8} {' | '.join(cells)} {r['of write']:8.2f} | {last}", flush=True)
    if args.json:
        report = {"target": _core.simd_target(), "threads": t, "stores": write, "memset": memset, "results": results}
        print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
