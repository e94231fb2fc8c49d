#!/usr/bin/env python3
"""Products with quantized weights, beside the machine's limits, ggml, ONNX Runtime and OpenVINO, in turns in one run;
plain numbers also beside PyTorch and NumPy.

For few rows the limit is reading the weights, so GB/s of weights as they lie in memory and the share of a plain read of
the same bytes are printed; for many rows it is multiplying bytes, so multiply-adds per second and the share of such
instructions on registers. Several copies of the weights, larger than the caches together, are used in turn.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import edgequant as eq
import numpy as np
from edgequant import _core

sys.path.insert(0, str(Path(__file__).resolve().parent))
from ggml_matmul import REPACKED, GgmlProducts
from runtime_matmul import RUNTIMES, SCHEMES

EXPERTS, CHOSEN = 32, 4  # of a mixture
FLOATS = ("f32", "f16", "bf16")
CLOCKS = {"wall": time.perf_counter, "processor": time.thread_time}
clock = CLOCKS["wall"]


def give_memory_back() -> None:
    """What was freed goes back to the system, so that memory is new to whoever is next."""
    with contextlib.suppress(OSError, AttributeError):  # glibc
        ctypes.CDLL(None).malloc_trim(0)


def in_turns(contestants: dict[str, Callable[[], object]], repeat: int) -> dict[str, list[float]]:
    """Seconds of each contestant, all in every round, so that a busy moment strikes them alike; what it returns is
    freed behind the clock.

    A rest before each lets the threads of the last one fall asleep: OpenMP's keep a core busy for milliseconds.
    """
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(repeat + 1):
        for name, run in contestants.items():
            time.sleep(0.03)
            begin = clock()
            kept = run()
            if turn:  # the first warms up
                times[name].append(clock() - begin)
            if kept is not None:
                del kept
                give_memory_back()
    return times


def median_ratio(limit: list[float], own: list[float]) -> float:
    """Median over rounds of limit time over own time: how much of the limit is reached."""
    return statistics.median(a / b for a, b in zip(limit, own, strict=True))


def peer(q: eq.QuantizedTensor, m: int, copies: int, threads: int) -> GgmlProducts | None:
    number = eq.formats[q.format].gguf_type
    try:
        return GgmlProducts(q.data, number, q.shape[1], m, copies, threads, q.format in REPACKED)
    except ImportError:
        return None


def runtimes(name: str, n: int, k: int, m: int, copies: int, threads: int) -> dict[str, Callable[[], None]]:
    """Products of the installed runtimes that have the scheme of the format."""
    found: dict[str, Callable[[], object]] = {}
    for runtime in RUNTIMES if name in SCHEMES else ():
        with contextlib.suppress(ImportError):
            found[runtime.name] = runtime(*SCHEMES[name], n, k, m, copies, threads).run
    return found


def float_products(q: eq.QuantizedTensor, x: np.ndarray, copies: int, threads: int) -> dict[str, Callable[[], None]]:
    """Plain numbers in PyTorch, activations of the same type, and those of 32 bits in NumPy."""
    found: dict[str, Callable[[], None]] = {}
    n, k = q.shape
    data = [q.data.copy() for _ in range(copies)]
    with contextlib.suppress(ImportError):
        import torch

        torch.set_num_threads(threads)
        kind = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[q.format]
        own, weights = torch.from_numpy(x).to(kind), [torch.from_numpy(d).view(kind).reshape(n, k) for d in data]

        def run_torch() -> None:
            for w in weights:
                torch.nn.functional.linear(own, w)

        found["torch"] = run_torch

    def run_numpy() -> None:
        for d in data:
            x @ d.view(np.float32).reshape(n, k).T

    return {**found, "numpy": run_numpy} if q.format == "f32" else found


def to_bf16(x: np.ndarray) -> np.ndarray:
    """Bits of the nearest bf16, ties to even."""
    bits = x.view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def make_panels(
    name: str, n: int, k: int, megabytes: float, panel: str
) -> tuple[eq.QuantizedTensor, list[_core.Panel]]:
    """Random weights, and as many panels of them as take up that much memory, but at least one."""
    w = np.random.default_rng(0).standard_normal((n, k), dtype=np.float32)
    if name in eq.formats:
        q = eq.quantize(w, name, effort="fast")
        again = lambda: _core.repack(q.data, name, n, k, panel)  # noqa: E731
        if name in FLOATS:
            again = lambda: _core.view_numbers(q.data.copy(), name, n, k)  # noqa: E731
    else:  # described at run time
        q = eq.quantize(w, eq.planar_formats[name])
        again = lambda: q.repack(n, k)[0]  # noqa: E731
    made = [again()]
    while (len(made) + 1) * made[0].nbytes <= megabytes * 1e6:
        made.append(again())
    return q, made


def measure(name: str, n: int, k: int, m: int, options: argparse.Namespace) -> dict[str, Any]:
    x = np.random.default_rng(1).standard_normal((m, k), dtype=np.float32)
    given, given_type = (to_bf16(x), "bf16") if name == "bf16" else (x, "f32")  # as others have them
    q, panels = make_panels(name, n, k, options.megabytes if m <= 16 else 0, options.panel)
    copies = len(panels)
    out = np.empty((m, n), np.float32)
    nbytes = sum(p.nbytes for p in panels)
    macs = m * n * k * copies

    def own() -> None:
        for panel in panels:
            _core.matmul(given, given_type, panel, out, "f32", options.compute)

    def read() -> None:
        for panel in panels:
            _core.read_panel(panel)

    contestants: dict[str, Callable[[], object]] = {"own": own}
    if m <= 16:
        contestants["limit"] = read
    else:
        contestants["limit"] = lambda: _core.multiply_at_peak(macs)
    theirs = None if options.no_peer or name not in eq.formats else peer(q, m, copies, options.threads)
    if theirs is not None:
        theirs.set(x)
        contestants["ggml"] = lambda: [theirs.run() for _ in range(copies)] and None
    others = {} if options.no_peer else runtimes(name, n, k, m, copies, options.threads)
    if name in FLOATS and not options.no_peer:
        others = float_products(q, x, copies, options.threads)
    times = in_turns({**contestants, **others}, options.repeat)
    best = statistics.median(times["own"])
    row = {
        "format": name, "n": n, "k": k, "m": m, "threads": options.threads, "compute": options.compute,
        "panel": options.panel, "bits": round(nbytes * 8 / (n * k * copies), 4), "microseconds": best / copies * 1e6,
        "gigabytes_per_second": nbytes / best / 1e9, "gmac_per_second": macs / best / 1e9,
        "limit": (nbytes if m <= 16 else macs) / statistics.median(times["limit"]) / 1e9,
        "share_of_limit": median_ratio(times["limit"], times["own"]),
        "best_share": max(a / b for a, b in zip(times["limit"], times["own"], strict=True)),
    }  # fmt: skip
    if theirs is not None:
        row["times_ggml"] = median_ratio(times["ggml"], times["own"])
        got, want = out, theirs.result()
        row["difference"] = float(np.linalg.norm(got - want) / np.linalg.norm(want))
        theirs.close()
    for other in others:
        row[f"times_{other}"] = median_ratio(times[other], times["own"])
    return row


def show(row: dict[str, Any]) -> str:
    few = row["m"] <= 16
    speed = f"{row['gigabytes_per_second']:6.1f} GB/s" if few else f"{row['gmac_per_second']:6.0f} GMAC/s"
    text = f"{row['format']:8} {row['bits']:6.3f} bits  {row['n']} x {row['k']}  M={row['m']:<4}"
    text += f" {row['microseconds']:9.1f} us  {speed}"
    text += f"  {100 * row['share_of_limit']:4.0f}% of {row['limit']:.0f}"
    for peer in ("ggml", "ort", "openvino", "torch", "numpy"):
        if f"times_{peer}" in row:
            text += f"  {row[f'times_{peer}']:6.2f}x {peer}"
    if "difference" in row:
        text += f" (from ggml's results {row['difference']:.1e})"
    return text


def copies_of(data: np.ndarray, options: argparse.Namespace) -> range:
    """As many as take up the memory that was asked for, but at least one."""
    return range(max(1, round(options.megabytes * 1e6 / data.nbytes)))


def measure_repack(name: str, n: int, k: int, options: argparse.Namespace) -> dict[str, Any]:
    """Time of repacking over that of a copy of the encoded weights, and of one that writes as much as the panel.

    All into new memory and on all threads. What was made is kept until the round ends, as when a model is loaded:
    memory that was just given back would be in the caches, or need no clearing, depending on its size.
    """
    rng = np.random.default_rng(0)
    if name in eq.formats:
        rows = eq.quantize(rng.standard_normal((16, k), dtype=np.float32), name, effort="fast")
        data = np.tile(rows.data.reshape(16, -1), (-(-n // 16), 1))[:n]
        nbytes = _core.repack(data, name, n, k, options.panel).nbytes
        makers = [partial(_core.repack, data.copy(), name, n, k, options.panel) for _ in copies_of(data, options)]
    else:  # described at run time
        q = eq.quantize(rng.standard_normal((n, k), dtype=np.float32), name, effort="fast")
        data, nbytes = np.ones(q.nbytes, np.uint8), q.repack(n, k)[0].nbytes
        again = [{part: a.copy() for part, a in q.planes.items()} for _ in copies_of(data, options)]
        makers = [partial(eq.SchemeTensor(planes, q.scheme, q.shape).repack, n, k) for planes in again]
    copies = [data.copy() for _ in makers]

    def own() -> object:
        return [make() for make in makers]

    def copy() -> object:
        return [_core.copy_to_new_memory(q) for q in copies]

    def write() -> object:
        return [_core.copy_to_new_memory(q, nbytes) for q in copies]

    times = in_turns({"own": own, "copy": copy, "write": write}, options.repeat)
    return {
        "format": name, "n": n, "k": k, "threads": options.threads,
        "repack_gweights_per_second": n * k * len(copies) / statistics.median(times["own"]) / 1e9,
        "copy_gigabytes_per_second": data.nbytes * len(copies) / statistics.median(times["copy"]) / 1e9,
        "repack_over_copy": 1 / median_ratio(times["copy"], times["own"]),
        "repack_over_write": 1 / median_ratio(times["write"], times["own"]),
    }  # fmt: skip


def measure_grouped(name: str, n: int, k: int, tokens: int, options: argparse.Namespace) -> dict[str, Any]:
    """A mixture of EXPERTS experts, of which each token goes to CHOSEN: at once, and one product per expert."""
    rng = np.random.default_rng(0)
    _, panels = make_panels(name, n, k, EXPERTS * n * k / 1e6, options.panel)
    panels = (panels * EXPERTS)[:EXPERTS]
    x = rng.standard_normal((tokens, k), dtype=np.float32)
    index = np.stack([rng.permutation(EXPERTS)[:CHOSEN] for _ in range(tokens)])
    out = np.empty((tokens * CHOSEN, n), np.float32)
    flat = np.ascontiguousarray(index.reshape(-1))

    def own() -> None:
        _core.matmul_grouped(x, "f32", panels, flat, CHOSEN, out, "f32", options.compute)

    def loop() -> None:
        for e in np.unique(flat):
            found = np.flatnonzero(flat == e)
            part = np.empty((len(found), n), np.float32)
            _core.matmul(x[found // CHOSEN], "f32", panels[e], part, "f32", options.compute)
            out[found] = part

    times = in_turns({"own": own, "loop": loop}, options.repeat)
    best = statistics.median(times["own"])
    return {
        "format": name, "n": n, "k": k, "tokens": tokens, "experts": EXPERTS, "chosen": CHOSEN,
        "threads": options.threads, "microseconds": best * 1e6,
        "gmac_per_second": tokens * CHOSEN * n * k / best / 1e9,
        "gigabytes_per_second": len(np.unique(flat)) * panels[0].nbytes / best / 1e9,
        "times_loop": median_ratio(times["loop"], times["own"]),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--formats",
        nargs="+",
        default=[f for f in eq.formats if _core.can_repack(f)],
        help="names, also of f32, f16, bf16 and of planar formats",
    )
    parser.add_argument("--rows", type=int, nargs="*", default=[1, 128, 512], help="rows of activations")
    parser.add_argument(
        "--shape", type=int, nargs=2, action="append", metavar=("N", "K"), help="may be repeated (default 4096 4096)"
    )
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--compute", default="int8", choices=["int8", "exact"])
    parser.add_argument("--panel", default="auto", choices=["auto", "compact", "fast"], help="of formats with a grid")
    parser.add_argument("--repeat", type=int, default=9)
    parser.add_argument("--megabytes", type=float, default=300, help="all copies of the weights together, for few rows")
    parser.add_argument("--no-peer", action="store_true", help="measure no peers")
    parser.add_argument("--repack", action="store_true", help="also: time of repacking over that of a copy")
    parser.add_argument(
        "--grouped", type=int, nargs="+", default=[], metavar="TOKENS", help="also: experts of 1024 x 2048, and tokens"
    )
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument(
        "--clock", default="wall", choices=CLOCKS, help="processor time, for busy machines: one thread only"
    )
    options = parser.parse_args()
    if options.clock == "processor" and options.threads != 1:
        parser.error("--clock processor measures one thread: add --threads 1")
    global clock
    clock = CLOCKS[options.clock]
    eq.set_num_threads(options.threads)
    rows = []
    for n, k in options.shape or [(4096, 4096)]:
        for m in options.rows:
            for name in options.formats:
                try:
                    rows.append(measure(name, n, k, m, options))
                except eq.Error as error:  # of blocks that do not divide such rows
                    print(f"{name}: {error}")
                    continue
                print(show(rows[-1]), flush=True)
        for name in options.formats if options.repack else ():
            if name in FLOATS:
                continue
            rows.append(measure_repack(name, n, k, options))
            row = rows[-1]
            print(
                f"{name:8} {n} x {k}  repack {row['repack_gweights_per_second']:5.1f} G weights/s, "
                f"{row['repack_over_copy']:.2f}x a copy at {row['copy_gigabytes_per_second']:.1f} GB/s, "
                f"{row['repack_over_write']:.2f}x one of the panel's size",
                flush=True,
            )
    for tokens in options.grouped:
        for name in options.formats:
            rows.append(measure_grouped(name, 1024, 2048, tokens, options))
            row = rows[-1]
            print(
                f"{name:8} {tokens} tokens to {CHOSEN} of {EXPERTS} experts  {row['microseconds']:9.1f} us  "
                f"{row['gigabytes_per_second']:6.1f} GB/s  {row['gmac_per_second']:6.0f} GMAC/s  "
                f"{row['times_loop']:.2f}x one after the other",
                flush=True,
            )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
