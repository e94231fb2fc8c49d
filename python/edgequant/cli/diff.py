"""Compare two models tensor by tensor.

A and B are GGUF files, safetensors files or Hugging Face model directories, in any formats: weights are compared by
their decoded values, A being the reference. A Hugging Face directory is compared with a GGUF file under GGUF's names.
Exit code: 0 equal, 1 different, 2 an error.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy as np

    from edgequant.cli.model_files import FileTensor, ModelFiles, RenamedTensor

    Tensor = FileTensor | RenamedTensor

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
    a_metadata, a_tensors = in_terms_of(b, a)
    b_metadata, b_tensors = in_terms_of(a, b)
    report = compare_tensors(select(a_tensors, args.tensor), select(b_tensors, args.tensor))
    metadata = {} if args.no_metadata else compare_metadata(a_metadata, b_metadata)
    report = {"a": str(a.path), "b": str(b.path), "equal": report.pop("equal") and not metadata, **report}
    if args.json:
        report["metadata"] = [
            {"key": key, **{side: plain(v, args.all) for side, v in sides.items()}} for key, sides in metadata.items()
        ]
        print(json.dumps(finite(report), indent=2, allow_nan=False))
    else:
        print(text(report, metadata, args.all))
    return 0 if report["equal"] else 1


def in_terms_of(other: ModelFiles, model: ModelFiles) -> tuple[dict[str, Any], list[Any]]:
    """Metadata and tensors of `model`: GGUF's, if the other one is a GGUF file and this one a directory."""
    from edgequant._core import Error
    from edgequant.cli.model_files import as_gguf

    if model.kind == "huggingface" and other.kind == "gguf":
        try:
            return as_gguf(model)
        except Error as e:
            print(f"edgequant: names are compared as they stand: {e}", file=sys.stderr)
    return model.metadata, list(model.tensors)


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


def compare_tensors(a: Sequence[Tensor], b: Sequence[Tensor]) -> dict[str, Any]:
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


def error(a: Tensor, b: Tensor) -> dict[str, Any]:
    """The error of b against a, by the decoded values; no decoded copy of a whole tensor is made."""
    from edgequant.cli.model_files import SLICE, format_names

    rows, columns = a.matrix
    step = max(1, SLICE // max(1, columns))
    spans = [(i, min(rows, i + step)) for i in range(0, rows if columns else 0, step)]
    if all(same_bytes(a.rows(*span), b.rows(*span)) for span in spans):
        return {"equal": True, "relative_error": 0.0, "sqnr_db": math.inf, "cosine": 1.0, "max_error": 0.0}
    if a.type in format_names() and b.type in format_names():
        return measures(compare_formats(a.rows(*span), b.rows(*span), columns) for span in spans)
    left, right = a.values(), b.values()
    if left is None or right is None:  # the bytes of one type differ; of two types nobody knows
        unknown = dict.fromkeys(("relative_error", "sqnr_db", "cosine", "max_error"))
        return {"equal": False if a.type == b.type else None, **unknown}
    return measures(compare_numbers(p, q) for p, q in zip(left, right, strict=True))


def same_bytes(a: tuple[np.ndarray, str], b: tuple[np.ndarray, str]) -> bool:
    return a[1] == b[1] and bool((a[0].reshape(-1).view("u1") == b[0].reshape(-1).view("u1")).all())


def compare_formats(a: tuple[np.ndarray, str], b: tuple[np.ndarray, str], columns: int) -> dict[str, float]:
    from edgequant._core import compare

    return compare(a[0], a[1], b[0], b[1], len(a[0]), columns)


def compare_numbers(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    """What `_core.compare` gives, of plain numbers."""
    p, q = a.astype("f8"), b.astype("f8")
    difference = p - q
    sums = {"squared_error": difference @ difference, "squared_norm": p @ p, "squared_norm_b": q @ q, "dot": p @ q}
    return {**{k: float(v) for k, v in sums.items()}, "max_error": float(abs(difference).max())}


def measures(parts: Iterable[dict[str, float]]) -> dict[str, Any]:
    """What the sums of `_core.compare` over all parts of a tensor say, in the numbers that people use."""
    sums = dict.fromkeys(("squared_error", "squared_norm", "squared_norm_b", "dot", "max_error"), 0.0)
    for part in parts:
        for key in sums:
            sums[key] = max(sums[key], part[key]) if key == "max_error" else sums[key] + part[key]
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
    count, equal = len(report["tensors"]), sum(r["equal"] is True for r in report["tensors"])
    other = sum(r["equal"] is True and r["a"] != r["b"] for r in differing)
    equality = f"{equal} with equal values" + (f" ({other} of them in another format)" if other else "")
    parts.append("equal" if report["equal"] else f"different; of {count} tensors in common {equality}")
    return "\n\n".join(parts)
