"""Compare two models tensor by tensor.

A and B are GGUF files, safetensors files or Hugging Face model directories, in any formats: weights are compared by
their decoded values, A being the reference. Exit code: 0 equal, 1 different, 2 an error.
"""

from __future__ import annotations

import argparse
import json
import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgequant.cli.model_files import FileTensor

SHOWN = 40  # rows of a table without --all
TEXT = 48  # characters of a metadata value


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("a", metavar="A", help="the reference")
    parser.add_argument("b", metavar="B", help="what is compared with it")
    parser.add_argument("--tensor", metavar="REGEX", help="only tensors whose name matches")
    parser.add_argument("--no-metadata", action="store_true", help="compare tensors only")
    parser.add_argument("--all", action="store_true", help="every row, not only the worst")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    from edgequant.cli.inspect import plain, select
    from edgequant.cli.model_files import open_files

    a, b = open_files(args.a), open_files(args.b)
    report = compare_tensors(select(a.tensors, args.tensor), select(b.tensors, args.tensor))
    metadata = {} if args.no_metadata else compare_metadata(a.metadata, b.metadata)
    report = {"a": str(a.path), "b": str(b.path), "equal": report.pop("equal") and not metadata, **report}
    if args.json:
        report["metadata"] = [
            {"key": key, **{side: plain(v, args.all) for side, v in sides.items()}} for key, sides in metadata.items()
        ]
        print(json.dumps(finite(report), indent=2, allow_nan=False))
    else:
        print(text(report, metadata, args.all))
    return 0 if report["equal"] else 1


def compare_metadata(a: dict[str, Any], b: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The keys that differ, with the values of the sides that have them."""
    differing = {}
    for key in [*a, *(k for k in b if k not in a)]:
        if key in a and key in b and same(a[key], b[key]):
            continue
        differing[key] = {side: d[key] for side, d in (("a", a), ("b", b)) if key in d}
    return differing


def same(a: Any, b: Any) -> bool:
    """Equal values of equal types: u32 5 is not i32 5 to a reader of GGUF."""
    import numpy as np

    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b or (a != a and b != b))


def compare_tensors(a: list[FileTensor], b: list[FileTensor]) -> dict[str, Any]:
    """Tensors of one side only, other shapes, and the error of those on both sides, the worst first."""
    other = {t.name: t for t in b}
    names = {t.name for t in a}
    shapes, rows = [], []
    for t in a:
        u = other.get(t.name)
        if u is None:
            continue
        if t.shape != u.shape:
            shapes.append({"name": t.name, "a": list(t.shape), "b": list(u.shape)})
        else:
            rows.append({"name": t.name, "a": t.type, "b": u.type, **error(t, u)})
    rows.sort(key=lambda r: -worst(r))
    only_a = [t.name for t in a if t.name not in other]
    only_b = [t.name for t in b if t.name not in names]
    return {
        "equal": not (only_a or only_b or shapes) and all(r["equal"] and r["a"] == r["b"] for r in rows),
        "only_a": only_a,
        "only_b": only_b,
        "shapes": shapes,
        "tensors": rows,
    }


def worst(row: dict[str, Any]) -> float:
    """What to sort by: unknown and NaN first, then the relative error."""
    relative = row["relative_error"]
    return math.inf if relative is None or math.isnan(relative) else relative


def error(a: FileTensor, b: FileTensor) -> dict[str, Any]:
    """The error of b against a, by the decoded values; no decoded copy of a whole tensor is made."""
    import numpy as np
    from edgequant import _core
    from edgequant.cli.model_files import format_names

    x, y = a.stored.data, b.stored.data
    if a.count == 0 or (a.type == b.type and np.array_equal(x, y)):
        return {"equal": True, "relative_error": 0.0, "sqnr_db": math.inf, "cosine": 1.0, "max_error": 0.0}
    if a.type in format_names() and b.type in format_names():
        return measures(_core.compare(x, a.type, y, b.type, *a.matrix))
    left, right = a.values(), b.values()
    if left is None or right is None:  # the bytes of one type differ; of two types nobody knows
        unknown = dict.fromkeys(("relative_error", "sqnr_db", "cosine", "max_error"))
        return {"equal": False if a.type == b.type else None, **unknown}
    sums = dict.fromkeys(("squared_error", "squared_norm", "squared_norm_b", "dot", "max_error"), 0.0)
    for p, q in zip(left, right, strict=True):
        p, q = p.astype(np.float64), q.astype(np.float64)
        difference = p - q
        sums["squared_error"] += float(difference @ difference)
        sums["squared_norm"] += float(p @ p)
        sums["squared_norm_b"] += float(q @ q)
        sums["dot"] += float(p @ q)
        sums["max_error"] = max(sums["max_error"], float(np.abs(difference).max()))
    return measures(sums)


def measures(sums: dict[str, float]) -> dict[str, Any]:
    """What the sums of `_core.compare` say, in the numbers that people use."""
    squared, norm, norm_b = sums["squared_error"], sums["squared_norm"], sums["squared_norm_b"]
    ratio = squared / norm if norm else math.inf if squared else 0.0
    return {
        "equal": squared == 0,
        "relative_error": math.sqrt(ratio) if ratio >= 0 else ratio,  # NaN stays
        "sqnr_db": math.inf if ratio == 0 else -10 * math.log10(ratio) if 0 < ratio < math.inf else -ratio,
        "cosine": sums["dot"] / math.sqrt(norm * norm_b) if norm * norm_b > 0 else 1.0 if norm == norm_b == 0 else None,
        "max_error": sums["max_error"],
    }


def finite(value: Any) -> Any:
    """JSON has no infinity and no NaN: null."""
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, list):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def text(report: dict[str, Any], metadata: dict[str, dict[str, Any]], in_full: bool) -> str:
    """The report for people."""
    from edgequant.cli.inspect import number, shown
    from edgequant.cli.table import printable, table

    def cut(rows: list[Any]) -> tuple[list[Any], str]:
        more = 0 if in_full else len(rows) - SHOWN
        return (rows[:SHOWN], f"\n... and {more} more (--all)") if more > 0 else (rows, "")

    parts = []
    if metadata:
        lines, more = cut(
            [[k, *(shown(v[s], in_full, TEXT) if s in v else "-" for s in "ab")] for k, v in metadata.items()]
        )
        parts.append(table(["metadata", "A", "B"], lines, "lll") + more)
    for side in "ab":
        names, more = cut(report[f"only_{side}"])
        if names:
            parts.append(f"only in {side.upper()}:\n" + "\n".join(f"  {printable(n)}" for n in names) + more)
    if report["shapes"]:
        lines, more = cut([[s["name"], *(" x ".join(map(str, s[side])) for side in "ab")] for s in report["shapes"]])
        parts.append(table(["other shape", "A", "B"], lines, "lll") + more)
    differing = [r for r in report["tensors"] if not r["equal"] or r["a"] != r["b"]]
    if differing:
        columns = ["relative_error", "sqnr_db", "cosine", "max_error"]
        lines, more = cut([[r["name"], r["a"], r["b"], *(number(r[c]) for c in columns)] for r in differing])
        parts.append(
            table(["tensor", "A", "B", "rel. error", "SQNR dB", "cosine", "max error"], lines, "lllrrrr") + more
        )
    count = len(report["tensors"])
    alike = count - len(differing)
    parts.append("equal" if report["equal"] else f"different: {alike} of {count} tensors in common are equal")
    return "\n\n".join(parts)
