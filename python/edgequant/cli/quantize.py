"""Quantize a model to a GGUF file.

examples:
  edgequant quantize SmolLM2-135M/ -o smollm2.gguf --to q4_k_m
  edgequant quantize model-f16.gguf -o model-q8.gguf --to gguf:q8_0 --report model-q8.json
  edgequant quantize model/ -o out.gguf --to q4_k_s --rule 'attn_(v|output)=q6_k' --importance imatrix.gguf
  edgequant quantize model/ --to q3_k_m --dry-run
"""

from __future__ import annotations

import argparse

PRESETS_NOTE = "`edgequant formats --presets` lists them"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="Hugging Face model directory, or GGUF file")
    # As in llama.cpp: quantize MODEL OUT q4_k_m.
    parser.add_argument("more", metavar="OUT TYPE", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("-o", "--output", metavar="FILE", help="file to write; replaced, atomically, if it exists")
    parser.add_argument("--to", metavar="PRESET", help=f"preset, such as q4_k_m or gguf:q4_k_m ({PRESETS_NOTE})")
    parser.add_argument(
        "--rule",
        metavar="REGEX=FORMAT",
        action="append",
        default=[],
        dest="rules",
        help="format of the tensors whose GGUF name contains a match, before the preset; FORMAT may be keep; "
        "repeatable, the first match wins",
    )
    parser.add_argument(
        "--importance", "--imatrix", metavar="FILE", help="importance matrix of llama.cpp, .dat or GGUF"
    )
    parser.add_argument("--dry-run", action="store_true", help="show choices and exact sizes, write nothing")
    parser.add_argument("--effort", choices=("fast", "default", "best"), default="default", help="how hard to search")
    parser.add_argument(
        "--objective",
        choices=("ggml", "plain"),
        default="ggml",
        help="error to minimise: weighted as ggml's own quantizers do (the default), or the plain squared error",
    )
    parser.add_argument("--threads", metavar="N", type=int, default=0, help="threads (default: all cores)")
    parser.add_argument("--report", metavar="FILE", help="write the report as JSON")
    parser.add_argument("--checksum", action="store_true", help="put the SHA-256 of the output into the report")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--verbose", "-v", action="store_true", help="list every tensor")
    parser.add_argument("--quiet", "-q", action="store_true", help="print nothing but errors")


def run(args: argparse.Namespace) -> int:
    output, to = output_and_preset(args)
    from edgequant._core import Error, set_num_threads
    from edgequant.convert import quantize_model

    if args.threads < 0:
        raise Error(f"{args.threads} threads")
    if args.threads:
        set_num_threads(args.threads)
    report = quantize_model(
        args.model,
        output,
        to,
        rules=args.rules,
        importance=args.importance,
        dry_run=args.dry_run,
        effort=args.effort,
        objective=args.objective,
        progress=not args.quiet,
        checksum=args.checksum,
    )
    if args.report:
        report.save(args.report)
    if args.json:
        print(report.to_json())
    elif not args.quiet:
        if args.verbose or args.dry_run:
            print(report.tensor_table() + "\n")
        print(report)
    return 0


def output_and_preset(args: argparse.Namespace) -> tuple[str | None, str]:
    """From the options, or from the positions that llama.cpp's tool uses. Raises Error if one is missing or doubled."""
    from edgequant._core import Error

    output, to, more = args.output, args.to, list(args.more)
    if to is None and more:
        to = more.pop()
    if output is None and more:
        output = more.pop()
    if more:
        raise Error(f"unexpected argument '{more[0]}'")
    if to is None:
        raise Error(f"no preset given: add --to q4_k_m, for example ({PRESETS_NOTE})")
    if output is None and not args.dry_run:
        raise Error("no output given: add -o FILE.gguf, or --dry-run")
    return output, to
