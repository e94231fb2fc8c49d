#!/usr/bin/env python3
"""Encoding without a search against what memory allows, in one process.

Per format: GB/s of a large float32 matrix read plus codes written, beside the core's own pass that only reads such a
matrix and fills as many bytes, in the same pieces on the same threads. Medians of interleaved repetitions. Both write
to new memory, as quantize() does, so page faults count. With --layouts: planar formats whose words lie across rows,
whose scales are shared by rows or quantized themselves, and others that the list leaves out. With --decode: packed
bytes read, floats written.
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
LAYOUTS = [
    "gptq.int4.g128", "gptq.int4.channel", "gptq.int2.g128", "gptq.int3.g128", "gptq.int8.g128", "gptq.int4.g128.act",
    "awq.int4.g128", "torchao.int4.g128", "ct.int4.g128", "ct.int4.g128.zp", "openvino.u4.g128", "openvino.i4.g128",
    "openvino.u8", "openvino.i8", "openvino.nf4.g128", "openvino.mxfp8", "hqq.int4.g64", "hqq.int3.g64", "bnb.nf4.g64",
    "bnb.nf4.g64.dq", "bnb.fp4.g64", "mlx.affine2.g64", "mlx.affine3.g64", "mlx.affine6.g64", "mlx.affine8.g64",
    "mlx.mxfp8", "onnx.nbits2.g32", "fp8.e4m3.tensor", "fp8.e4m3.block128", "bitnet.hf", "bitnet.i2_s.x86",
    "bitnet.i2_s.rows4", "bitnet.tl1.256x128x32", "onebit.rank1",
]  # fmt: skip


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
    parser.add_argument("formats", nargs="*")
    parser.add_argument("--layouts", action="store_true")
    parser.add_argument("--decode", action="store_true")
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
    for name in args.formats or (LAYOUTS if args.layouts else [*BLOCKS, *PLANAR]):
        q = eq.quantize(x, name, effort=args.effort)
        written = q.nbytes

        def encode(name: str = name) -> object:
            if name in known:
                return _core.quantize(x, "f32", *x.shape, name, None, effort=args.effort)
            return eq.quantize(x, name, effort=args.effort)

        def limit(row_bytes: int = written // args.rows) -> object:
            return _core.read_and_fill(x, "f32", *x.shape, row_bytes)

        def decode(q: eq.QuantizedTensor = q) -> object:
            return q.dequantize()

        packed = np.ones((args.rows, written // args.rows // 4), np.float32)

        def decode_limit(packed: np.ndarray = packed) -> object:
            return _core.read_and_fill(packed, "f32", *packed.shape, 4 * args.cols)

        ours, least = medians(args.repeats, [decode, decode_limit] if args.decode else [encode, limit])
        total = (x.nbytes + written) / 1e9
        speeds = f"{x.size / ours / 1e6:8.0f}{total / ours:8.1f}{total / least:8.1f}"
        print(f"{name:20}{speeds}{least / ours:7.0%}", flush=True)


if __name__ == "__main__":
    main()
