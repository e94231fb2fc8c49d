"""The picture of a format comparison: quality against size, one panel per model."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgequant.evaluate.dependencies import require
from edgequant.evaluate.layers import LayerError


@dataclass(frozen=True)
class Point:
    """One file: its size in MB (10^6 bytes) and its loss of quality, larger than 0 and smaller for better."""

    name: str
    size: float
    loss: float


@dataclass(frozen=True)
class Panel:
    """One model's points. `tick` turns a loss into the axis' label, for measures better read as a quality."""

    title: str
    quality: str
    points: Sequence[Point]
    tick: Callable[[float], str] = "{:g}".format


# One colour per family of formats, readable on white and distinct to the colour-blind (Okabe and Ito).
FAMILIES = {
    "float": "#555555",
    "K-quant": "#0072B2",
    "legacy": "#D55E00",
    "non-linear": "#009E73",
    "ternary": "#CC79A7",
}


def family(name: str) -> str:
    """The family of a preset or format name."""
    if name.startswith(("f", "bf")):
        return "float"
    if name.startswith("tq"):
        return "ternary"
    if name.startswith(("iq", "mxfp", "nvfp")):
        return "non-linear"
    return "K-quant" if "_k" in name else "legacy"


def plot_quality(panels: Sequence[Panel], path: str | Path, dpi: int = 130) -> None:
    """Draws quality (logarithmic, better is higher) against file size and writes a PNG.

    Raises:
        Error: matplotlib is absent.
    """
    require("matplotlib", "plot")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.6 * len(panels), 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    for index, panel in enumerate(panels):
        _draw(figure.add_subplot(1, len(panels), index + 1), panel)
    figure.savefig(path, dpi=dpi, metadata={"Software": None})


def plot_layers(errors: Sequence[LayerError], path: str | Path, title: str, note: str = "", dpi: int = 110) -> None:
    """Draws each layer's errors in the order of the module, one colour per kind of layer, and writes a PNG.

    From the top: SQNR of the layer's output when only it is quantized, when all are, and the impact where it was
    measured.

    Raises:
        Error: matplotlib is absent.
    """
    require("matplotlib", "plot")
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    series: list[tuple[str, list[float]]] = [
        ("only this layer quantized:\noutput SQNR, dB", [e.alone.sqnr_db for e in errors]),
        ("all layers quantized:\noutput SQNR, dB", [e.together.sqnr_db for e in errors]),
    ]
    if errors[0].impact is not None:
        series.append(("impact: KL divergence,\nnats per token", [e.impact or 0.0 for e in errors]))
    kinds = list(dict.fromkeys(e.name.rpartition(".")[2] for e in errors))
    colours = dict(zip(kinds, colormaps["tab10"](range(len(kinds))), strict=True))
    figure = Figure(figsize=(9, 2.3 * len(series) + 0.9), layout="constrained")
    FigureCanvasAgg(figure)
    for row, (label, values) in enumerate(series):
        axes = figure.add_subplot(len(series), 1, row + 1)
        for kind in kinds:
            chosen = [i for i, e in enumerate(errors) if e.name.rpartition(".")[2] == kind]
            axes.scatter(chosen, [values[i] for i in chosen], s=14, color=colours[kind], label=kind)
        if label.startswith("impact"):
            axes.set_yscale("symlog", linthresh=max(max(values) * 1e-3, 1e-12))
        axes.set_ylabel(label, fontsize=9)
        axes.set_xlim(-2, len(errors) + 1)  # the same below one another, also where perfect layers are not drawn
        axes.grid(True, color="#E6E6E6", linewidth=0.8)
        axes.set_axisbelow(True)
        if not row:
            handles = axes.get_legend_handles_labels()
    axes.set_xlabel("layer, from input to output", fontsize=9)
    figure.legend(
        *handles, loc="outside upper center", ncols=min(len(kinds), 9), frameon=False, fontsize=8,
        title=f"Layers of {title}", title_fontproperties={"size": 11, "weight": "bold"},
    )  # fmt: skip
    figure.supxlabel(textwrap.fill(note, 130), fontsize=7)
    figure.savefig(path, dpi=dpi, metadata={"Software": None})


def _draw(axes: Any, panel: Panel) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator

    # Float files lie so far away that they would squeeze the others together: they are named, not drawn.
    points = sorted((p for p in panel.points if family(p.name) != "float"), key=lambda point: point.size)
    floats = [f"{p.name}: {p.size:.1f} MB" for p in panel.points if family(p.name) == "float"]
    if not points:
        points, floats = sorted(panel.points, key=lambda point: point.size), []
    note = "for comparison, " + ", ".join(floats) if floats else ""
    axes.text(0.02, 0.95, note, transform=axes.transAxes, fontsize=9, color=FAMILIES["float"])
    front = [p for i, p in enumerate(points) if all(p.loss < q.loss for q in points[:i])]
    axes.plot([p.size for p in front], [p.loss for p in front], color="#BBBBBB", linewidth=1.2, zorder=1)
    for name, colour in FAMILIES.items():
        members = [p for p in points if family(p.name) == name]
        if members:
            axes.scatter([p.size for p in members], [p.loss for p in members], s=42, color=colour, label=name, zorder=3)
    axes.set_yscale("log")
    axes.set_ylim(max(p.loss for p in points) * 1.6, min(p.loss for p in points) / 2)  # a small loss is good: up
    axes.set_xlim(*_size_limits(points))
    for p, (dx, dy, align) in zip(points, _label_offsets(axes, points), strict=True):
        axes.annotate(
            p.name, (p.size, p.loss), xytext=(dx, dy), textcoords="offset points", fontsize=9, ha=align, va="center",
            color=FAMILIES[family(p.name)],
        )  # fmt: skip
    axes.set_title(panel.title, fontsize=11, fontweight="bold", loc="left")
    axes.set_xlabel("file size, MB")
    axes.set_ylabel(panel.quality)
    axes.yaxis.set_major_locator(LogLocator(base=10))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: panel.tick(value)))
    axes.yaxis.set_minor_formatter(FuncFormatter(lambda *_: ""))
    axes.tick_params(axis="y", which="minor", length=0)
    axes.grid(True, which="major", color="#E6E6E6", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(frameon=False, fontsize=8.5, loc="lower right", handletextpad=0.2)


def _size_limits(points: Sequence[Point]) -> tuple[float, float]:
    sizes = [p.size for p in points]
    room = 0.12 * (max(sizes) - min(sizes)) or 0.1 * sizes[0]
    return max(0.0, min(sizes) - room), max(sizes) + 1.5 * room


def _label_offsets(axes: Any, points: Sequence[Point]) -> list[tuple[float, float, str]]:
    """Offsets in points, for each label the first of a few sides that touches no other point or label."""
    to_pixels = axes.transData.transform
    scale = 72 / axes.figure.dpi
    spots = [tuple(scale * value for value in to_pixels((p.size, p.loss))) for p in points]
    taken = [(x - 4, y - 4, x + 4, y + 4) for x, y in spots]
    sides: tuple[tuple[float, float, str], ...]
    sides = ((8, 0, "left"), (-8, 0, "right"), (8, 9, "left"), (8, -9, "left"), (-8, 9, "right"), (-8, -9, "right"),
             (0, 13, "center"), (0, -13, "center"), (12, 18, "left"), (12, -18, "left"))  # fmt: skip
    result: list[tuple[float, float, str]] = []
    for p, (x, y) in zip(points, spots, strict=True):
        width = 5.4 * len(p.name)

        def box(side: tuple[float, float, str], x: float = x, y: float = y, width: float = width) -> tuple[float, ...]:
            left = x + side[0] - {"left": 0.0, "center": width / 2, "right": width}[side[2]]
            return left, y + side[1] - 5.5, left + width, y + side[1] + 5.5

        free = (side for side in sides if box(side)[0] > 0 and not any(_touch(box(side), other) for other in taken))
        chosen = next(free, sides[0])
        taken.append(box(chosen))  # type: ignore[arg-type]
        result.append(chosen)
    return result


def _touch(a: Sequence[float], b: Sequence[float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
