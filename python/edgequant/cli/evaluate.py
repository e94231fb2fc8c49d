"""Measure a model: perplexity, divergence from a reference, embedding agreement.

A causal language model is scored on a text; with --reference also by the divergence of its predictions from the
reference's, which --reference-cache keeps for later runs. A text encoder is compared with its reference on sentences.
Every number comes with its 95 % interval and the protocol that it was measured by.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgequant.evaluate.layers import LayerError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="Hugging Face directory, GGUF, ONNX, OpenVINO or MLX model")
    parser.add_argument("--text", metavar="FILE", help="text to measure on; for an encoder, one sentence per line")
    parser.add_argument("--reference", metavar="MODEL", help="model to compare with, usually the one before quantizing")
    parser.add_argument(
        "--reference-cache", metavar="FILE",
        help="the reference's predictions: made from --reference if it is not there, else used in its place",
    )  # fmt: skip
    parser.add_argument("--context", type=int, metavar="N", help="tokens per window (default: 512)")
    parser.add_argument("--windows", type=int, metavar="N", help="windows from the start of the text (default: all)")
    parser.add_argument("--stride", type=int, metavar="N", help="tokens from window to window (default: the context)")
    parser.add_argument("--warmup", type=int, metavar="N", help="tokens of a window that are context only (default: 1)")
    parser.add_argument("--dtype", choices=("f32", "bf16"), default="f32", help="compute in this type (default: f32)")
    parser.add_argument(
        "--runtime", default="auto", metavar="NAME",
        help="run the model by torch, onnxruntime, openvino, mlx or llama.cpp (default: what it was made for)",
    )  # fmt: skip
    parser.add_argument(
        "--tokenizer", metavar="DIR", help="directory of the tokenizer, where none lies beside the model"
    )
    parser.add_argument("--weights", action="store_true", help="also list the relative error of every weight tensor")
    parser.add_argument(
        "--layers", action="store_true", help="also compare every layer's outputs; the worst come first"
    )
    parser.add_argument("--impact", action="store_true", help="with --layers: what each layer alone does to the whole")
    parser.add_argument("--plot", metavar="FILE", help="with --layers: draw them to this PNG")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    import sys

    from edgequant.cli.table import table
    from edgequant.evaluate import evaluate
    from edgequant.evaluate.progress import bars

    with bars(enabled=sys.stderr.isatty() and not args.json) as progress:
        result = evaluate(
            args.model, args.reference, text=args.text, context=args.context, windows=args.windows, stride=args.stride,
            warmup=args.warmup, dtype=args.dtype, runtime=args.runtime, tokenizer=args.tokenizer,
            reference_cache=args.reference_cache, weights=args.weights,
            layers=args.layers or args.impact or args.plot is not None, impact=args.impact, progress=progress,
        )  # fmt: skip
    if args.plot:
        result.plot(args.plot)
    if args.json:
        print(json.dumps(result.to_dict(), indent=2))
        return 0
    print("\n".join(result.lines()))
    if result.weights:
        rows = [(w.name, w.reference_type, w.type, f"{w.relative:.6f}", f"{w.sqnr_db:.2f}", f"{w.cosine:.6f}")
                for w in result.weights]  # fmt: skip
        print("\n" + table(("tensor", "reference", "model", "relative error", "SQNR dB", "cosine"), rows, "lllrrr"))
    if result.layers:
        print("\n" + layer_table(result.layers))
    return 0


def layer_table(layers: Sequence[LayerError], count: int = 20) -> str:
    """The layers that hurt most."""
    from edgequant.cli.table import table
    from edgequant.evaluate.layers import ranked

    headers = ["worst layers", "weights dB", "alone dB", "cosine", "together dB", "cosine"]
    rows = [[e.name, f"{e.weights.sqnr_db:.2f}", f"{e.alone.sqnr_db:.2f}", f"{e.alone.cosine:.6f}",
             f"{e.together.sqnr_db:.2f}", f"{e.together.cosine:.6f}"] for e in ranked(layers)[:count]]  # fmt: skip
    if layers[0].impact is not None:
        headers.append("impact (KL)")
        for row, e in zip(rows, ranked(layers), strict=False):
            row.append(f"{e.impact:.6f}")
    rest = f"\n... and {len(layers) - count} more, in --json" if len(layers) > count else ""
    return table(headers, rows) + rest
