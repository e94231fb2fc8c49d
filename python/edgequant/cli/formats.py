"""List the formats, or describe one.

Every line and every field comes from the descriptions that the decoder is compiled from.
"""

from __future__ import annotations

import argparse
import json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="show the bit layout of one format")
    parser.add_argument("--presets", action="store_true", help="list the presets of `edgequant quantize` instead")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    if args.presets:
        return list_presets(args.json)
    from edgequant._core import can_quantize, formats
    from edgequant.formats import lookup

    entries = [{**f, "can_quantize": can_quantize(f["name"])} for f in formats()]
    if args.name:
        chosen = lookup(args.name)
        entry = next(e for e in entries if e["name"] == chosen.name)
        print(json.dumps(entry, indent=2) if args.json else chosen.describe())
    elif args.json:
        print(json.dumps(entries, indent=2))
    else:
        print(f"{'format':<8} {'bits/weight':>11} {'block':>6} {'bytes':>6} {'GGUF':>5}  written")
        for e in sorted(entries, key=lambda e: (-e["bits_per_weight"], e["name"])):
            gguf = "-" if e["gguf_type"] is None else e["gguf_type"]
            written = "yes" if e["can_quantize"] else "no"
            print(f"{e['name']:<8} {e['bits_per_weight']:>11.4f} {e['block']:>6} {e['bytes']:>6} {gguf:>5}  {written}")
    return 0


def list_presets(as_json: bool) -> int:
    from edgequant.presets import ALIASES, PRESETS

    if as_json:
        print(json.dumps([vars(p) for p in PRESETS.values()], indent=2))
        return 0
    for p in PRESETS.values():
        aliases = [a for a, name in ALIASES.items() if name == p.name]
        print(f"{p.name:<10} {p.description}" + (f" (also {', '.join(aliases)})" if aliases else ""))
    return 0
