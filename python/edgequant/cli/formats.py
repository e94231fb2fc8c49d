"""List the formats, or describe one.

Every line and every field comes from the descriptions that the decoder is compiled from.
"""

from __future__ import annotations

import argparse
import json

from edgequant.cli.table import table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name", nargs="?", metavar="NAME", help="show the bit layout of one format, or the arrays of a planar one"
    )
    parser.add_argument("--presets", action="store_true", help="list the presets of `edgequant quantize` instead")
    parser.add_argument("--table", action="store_true", help="all formats: error, speed, what reads them")
    parser.add_argument(
        "--transcode", nargs="*", metavar="NAME", help="what each way from format to format loses: of these, or of many"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    if args.presets:
        return list_presets(args.json)
    if args.table:
        return print_table(args.json)
    if args.transcode is not None:
        return print_transcode(args.transcode, args.json)
    from edgequant._core import can_quantize, formats
    from edgequant.formats import lookup
    from edgequant.planar import find_scheme

    if args.name and (planar := find_scheme(args.name)) is not None:
        print(json.dumps(json.loads(planar.to_json()), indent=2) if args.json else planar.describe())
        return 0
    entries = [{**f, "can_quantize": can_quantize(f["name"])} for f in formats()]
    if args.name:
        chosen = lookup(args.name)
        entry = next(e for e in entries if e["name"] == chosen.name)
        print(json.dumps(entry, indent=2) if args.json else chosen.describe())
    elif args.json:
        print(json.dumps(entries, indent=2))
    else:
        headers = ["format", "bits/weight", "block", "bytes", "GGUF", "written"]
        rows = [
            [e["name"], f"{e['bits_per_weight']:.4f}", e["block"], e["bytes"], e["gguf_type"], _yes(e["can_quantize"])]
            for e in sorted(entries, key=lambda e: (-e["bits_per_weight"], e["name"]))
        ]
        print(table(headers, rows))
    return 0


def print_table(as_json: bool) -> int:
    from dataclasses import asdict

    from edgequant.format_table import cells, gaussian, measure, table_names

    matrices = {"error": gaussian(512, 3072)}
    rows = sorted((measure(name, matrices) for name in table_names()), key=lambda r: (-r.bits_per_weight, r.name))
    if as_json:
        print(json.dumps([asdict(r) for r in rows], indent=2))
        return 0
    print("Gaussian weights, default effort; million weights per second with all threads.")
    headers = ["format", "bits/weight", "block", "error", "encode", "decode", "read by"]
    print(table(headers, [cells(r, matrices) for r in rows], align="lrrrrrl"))
    return 0


def print_transcode(names: list[str], as_json: bool) -> int:
    from edgequant.transcode import SHOWN, transcode_loss

    names = names or SHOWN
    losses = {a: {b: transcode_loss(a, b) for b in names} for a in names}
    if as_json:
        print(
            json.dumps(
                {a: {b: {"kind": x.kind, "db": x.db} for b, x in to.items()} for a, to in losses.items()}, indent=2
            )
        )
        return 0
    print(
        "From the row's format to the column's: exact, widened (exact where the scales fit), or dB on Gaussian weights."
    )
    rows = [[a, *(x.kind if x.db is None else f"{x.db:.1f}" for x in to.values())] for a, to in losses.items()]
    print(table(["", *(str(n + 1) for n in range(len(names)))], rows, align="l" + "r" * len(names)))
    print("\n".join(f"{n + 1}: {name}" for n, name in enumerate(names)))
    return 0


def list_presets(as_json: bool) -> int:
    from edgequant.presets import ALIASES, PRESETS

    if as_json:
        print(json.dumps([p._asdict() for p in PRESETS.values()], indent=2))
        return 0
    aliases = {name: alias for alias, name in ALIASES.items()}
    rows = [
        [p.name, p.default, aliases.get(p.name), p.description + "; wants an importance matrix" * p.wants_importance]
        for p in PRESETS.values()
    ]
    print(table(["preset", "mostly", "also", "what it is"], rows, align="llll"))
    return 0


def _yes(value: bool) -> str:
    return "yes" if value else "no"
