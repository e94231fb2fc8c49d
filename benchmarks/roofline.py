#!/usr/bin/env python3
"""Draws the roofline of products with quantized weights from the figures of benchmarks/matmul.py.

    python benchmarks/matmul.py --rows 1 2 4 8 16 32 64 128 256 512 --formats q4_0 q4_k q8_0 q2_0 --json products.json
    python benchmarks/roofline.py products.json -o docs/roofline.png

Over multiply-adds per byte of weights: the limits (a read of the weights; products of bytes in registers) as they
were measured beside the products, each format's products, and the peers on the same weights.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

PEERS = {"ggml": ("ggml", "--"), "ort": ("ONNX Runtime", "-."), "openvino": ("OpenVINO", ":")}


def points(rows: list[dict[str, Any]], format: str, peer: str | None) -> list[tuple[float, float]]:
    """(multiply-adds per byte, GMAC/s), fewest rows first."""
    result = []
    for row in sorted((r for r in rows if r["format"] == format), key=lambda r: r["m"]):
        if peer is None or f"times_{peer}" in row:
            speed = row["gmac_per_second"] / (row[f"times_{peer}"] if peer else 1)
            result.append((row["m"] * 8 / row["bits"], speed))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figures", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    rows = [row for row in json.loads(options.figures.read_text()) if "m" in row]
    read = statistics.median(r["limit"] for r in rows if r["m"] <= 16)  # GB/s
    peak = statistics.median(r["limit"] for r in rows if r["m"] > 16)  # GMAC/s
    figure, axes = plt.subplots(figsize=(8, 5))
    ends = [r["m"] * 8 / r["bits"] for r in rows]
    x = [min(ends) / 1.3, peak / read, max(ends) * 1.3]
    axes.plot(
        x,
        [min(read * v, peak) for v in x],
        color="black",
        linewidth=2,
        label=f"limits: {read:.0f} GB/s, {peak:.0f} GMAC/s",
    )
    for i, format in enumerate(dict.fromkeys(r["format"] for r in rows)):
        color = f"C{i}"
        axes.plot(*zip(*points(rows, format, None), strict=True), "o-", color=color, label=format)
        for peer, (_, style) in PEERS.items():
            if theirs := points(rows, format, peer):
                axes.plot(*zip(*theirs, strict=True), style, color=color, linewidth=1)
    for label, style in PEERS.values():
        axes.plot([], [], style, color="grey", label=label)
    axes.set(xscale="log", yscale="log", xlabel="multiply-adds per byte of weights", ylabel="GMAC/s")
    threads = {r["threads"] for r in rows}
    axes.set_title(
        f"N x K = {rows[0]['n']} x {rows[0]['k']}, {threads.pop()} threads, activations in {rows[0]['compute']}"
    )
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3, which="both")
    figure.tight_layout()
    figure.savefig(options.output, dpi=110)


if __name__ == "__main__":
    main()
