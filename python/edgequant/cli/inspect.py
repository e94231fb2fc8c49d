"""Show what a model file holds.

FILE is a GGUF file, a safetensors file or a Hugging Face model directory. Only headers are read, unless --stats asks
for the weights.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from edgequant.cli.model_files import FileTensor, ModelFiles, RenamedTensor

    Named = TypeVar("Named", FileTensor, RenamedTensor)

SHOWN = 6  # elements of a long array
TEXT = 100  # characters of a long string


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="GGUF file, safetensors file or Hugging Face model directory")
    parser.add_argument("--tensor", metavar="REGEX", help="only tensors whose name matches")
    parser.add_argument("--stats", action="store_true", help="decode the weights: min, max, mean, std, NaN, Inf")
    parser.add_argument("--all", action="store_true", help="long metadata values in full")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    from edgequant.cli.model_files import open_files

    model = open_files(args.file)
    tensors = select(model.tensors, args.tensor)
    report = describe(model, tensors, args.stats)
    if args.json:
        report["metadata"] = {key: plain(value, args.all) for key, value in model.metadata.items()}
        print(json.dumps(report, indent=2, allow_nan=False))
    else:
        print(text(report, {key: shown(value, args.all) for key, value in model.metadata.items()}, args.stats))
    return 0


def select(tensors: Sequence[Named], pattern: str | None) -> Sequence[Named]:
    """The tensors whose name the regular expression finds; all without one."""
    from edgequant._core import Error

    if pattern is None:
        return tensors
    try:
        wanted = re.compile(pattern)
    except re.error as e:
        raise Error(f"--tensor {pattern!r} is not a regular expression: {e}") from None
    return [t for t in tensors if wanted.search(t.name)]


def describe(model: ModelFiles, tensors: Sequence[FileTensor], with_stats: bool) -> dict[str, Any]:
    """Everything but the metadata, in plain Python values."""
    entries = []
    formats: dict[str, dict[str, Any]] = {}
    for t in tensors:
        nbytes = t.stored.nbytes
        entry: dict[str, Any] = {
            "name": t.name,
            "shape": list(t.shape),
            "format": t.type,
            "bits_per_weight": bits(nbytes, t.count),
            "bytes": nbytes,
            "offset": t.stored.offset,
        }
        if model.kind == "huggingface":
            entry["file"] = t.file.name
        if with_stats:
            entry["stats"] = statistics(t)
        entries.append(entry)
        total = formats.setdefault(t.type, {"format": t.type, "tensors": 0, "weights": 0, "bytes": 0})
        total["tensors"] += 1
        total["weights"] += t.count
        total["bytes"] += nbytes
    for total in formats.values():
        total["bits_per_weight"] = bits(total["bytes"], total["weights"])
    count = sum(t.count for t in tensors)
    nbytes = sum(t.stored.nbytes for t in tensors)
    return {
        "path": str(model.path),
        "kind": model.kind,
        **model.facts,
        "metadata": {},
        "tensors": entries,
        "formats": sorted(formats.values(), key=lambda f: -f["bytes"]),
        "total": {"tensors": len(tensors), "weights": count, "bytes": nbytes, "bits_per_weight": bits(nbytes, count)},
    }


def bits(nbytes: int, count: int) -> float | None:
    return nbytes * 8 / count if count else None


def statistics(tensor: FileTensor) -> dict[str, Any] | None:
    """min, max, mean and std of the finite weights, and how many are NaN or infinite; None if it cannot be decoded."""
    import numpy as np

    slices = tensor.values()
    if slices is None:
        return None
    low, high, nan, inf, count = math.inf, -math.inf, 0, 0, 0
    mean = squares = 0.0  # squares: of deviations from the mean
    for part in slices:
        values = part.astype(np.float64)
        finite = np.isfinite(values)
        if not finite.all():
            missing = int(np.isnan(values).sum())
            nan += missing
            inf += int(values.size - finite.sum()) - missing
            values = values[finite]
        if not values.size:
            continue
        low, high = min(low, float(values.min())), max(high, float(values.max()))
        # Chan's update: exact where a sum of squares would cancel.
        part_mean = float(values.mean())
        delta, total = part_mean - mean, count + values.size
        squares += float(np.square(values - part_mean).sum()) + delta * delta * count * values.size / total
        mean += delta * values.size / total
        count = total
    known = count > 0
    return {
        "min": low if known else None,
        "max": high if known else None,
        "mean": mean if known else None,
        "std": math.sqrt(squares / count) if known else None,
        "nan": nan,
        "inf": inf,
    }


def plain(value: Any, in_full: bool) -> Any:
    """A metadata value for JSON; long arrays as their length and first elements."""
    import numpy as np

    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, list | tuple):
        if len(value) > 4 * SHOWN and not in_full:
            return {"length": len(value), "first": [plain(v, in_full) for v in value[:SHOWN]]}
        return [plain(v, in_full) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    # Strings that are not UTF-8 carry surrogates, which JSON cannot.
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def shown(value: Any, in_full: bool, limit: int = TEXT) -> str:
    """A metadata value on one line, like Python shows it; a longer string than `limit` is cut."""
    import numpy as np

    if isinstance(value, np.ndarray | list | tuple):
        count = len(value) if in_full or len(value) <= SHOWN else SHOWN
        inner = ", ".join(shown(v, in_full, limit // 3) for v in value[:count])
        return f"[{inner}]" if count == len(value) else f"[{inner}, ...] ({len(value)})"
    if isinstance(value, np.generic):
        value = value.item() if not isinstance(value, np.float32) else float(str(value))
    if isinstance(value, str):
        return repr(value) if in_full or len(value) <= limit else f"{value[:limit]!r}... ({len(value)} characters)"
    return str(value)


def text(report: dict[str, Any], metadata: dict[str, str], with_stats: bool) -> str:
    """The report for people."""
    from edgequant.cli.table import printable, table, weights
    from edgequant.report import size

    kinds = {"gguf": "GGUF", "safetensors": "safetensors", "huggingface": "Hugging Face directory"}
    head = f"{printable(report['path'])}: {kinds[report['kind']]}"
    if report["kind"] == "gguf":
        head += f" version {report['version']}, alignment {report['alignment']}"
    head += f", {size(report['file_size'])}"
    parts = [head]
    if len(report.get("files", ())) > 1:
        parts.append("\n".join(f"  {printable(f)}" for f in report["files"]))
    if metadata:
        parts.append(table(["metadata", "value"], metadata.items(), "ll"))
    columns = ["tensor", "shape", "format", "bits", "bytes", "offset"]
    rows = [
        [e["name"], " x ".join(map(str, e["shape"])) or "scalar", e["format"], number(e["bits_per_weight"]),
         e["bytes"], e["offset"]]
        for e in report["tensors"]
    ]  # fmt: skip
    if with_stats:
        names = ["min", "max", "mean", "std", "nan", "inf"]
        columns += names
        for row, e in zip(rows, report["tensors"], strict=True):
            row += [number((e["stats"] or {}).get(n)) for n in names]
    if rows:
        parts.append(table(columns, rows, "lll" + "r" * (len(columns) - 3)))
    total = report["total"]
    totals = [
        [f["format"], f["tensors"], f["weights"], size(f["bytes"]), number(f["bits_per_weight"]),
         f"{100 * f['bytes'] / max(1, total['bytes']):.1f} %"]
        for f in report["formats"]
    ]  # fmt: skip
    if totals:
        parts.append(table(["format", "tensors", "weights", "size", "bits", "share"], totals))
    parts.append(
        f"{total['tensors']} tensors, {weights(total['weights'])} weights ({total['weights']}), {size(total['bytes'])}"
        + (f", {total['bits_per_weight']:.4f} bits per weight" if total["weights"] else "")
    )
    return "\n\n".join(parts)


def number(value: float | None) -> str:
    return "-" if value is None else str(value) if isinstance(value, int) else f"{value:.6g}"
