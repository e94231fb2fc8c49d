"""Plain-text tables and the numbers in them."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence


def table(headers: Sequence[str], rows: Iterable[Sequence[object]], align: str | None = None) -> str:
    """Columns as wide as their widest cell, two spaces apart, without spaces at the ends of lines.

    Args:
        headers: one per column.
        rows: cells are shown by `str`; None is an empty cell.
        align: 'l' or 'r' per column; default: the first column left, all others right.

    Example:
        >>> print(table(["format", "bytes"], [["q4_k", 144], ["f32", 4]]))
        format  bytes
        q4_k      144
        f32         4
    """
    sides = align or "l" + "r" * (len(headers) - 1)
    if len(sides) != len(headers):
        raise ValueError(f"{len(headers)} columns, but {len(sides)} alignments")
    cells = [list(headers)] + [["" if cell is None else printable(str(cell)) for cell in row] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(headers))]
    lines = (
        "  ".join(c.ljust(w) if s == "l" else c.rjust(w) for c, w, s in zip(line, widths, sides, strict=True))
        for line in cells
    )
    return "\n".join(line.rstrip() for line in lines)


def printable(text: str) -> str:
    """`text` with whatever a terminal would obey or could not show as a backslash escape: files may hold anything."""
    if not text.isprintable():
        text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def weights(count: int) -> str:
    """A number of weights as people say it: 512, 135 M, 1.24 B."""
    value, unit = float(count), ""
    for larger in (" K", " M", " B", " T"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{count}" if not unit else f"{value:.3g}{unit}" if value < 999.5 else f"{value:.0f}{unit}"
