import math
import sys

import pytest
from edgequant import Error
from edgequant.evaluate.layers import Agreement, LayerError
from edgequant.evaluate.plots import FAMILIES, Panel, Point, family, plot_layers, plot_quality


def test_families():
    names = {
        "f16": "float", "bf16": "float", "q8_0": "legacy", "q5_1": "legacy", "q4_k_m": "K-quant",
        "q6_k": "K-quant", "iq4_xs": "non-linear", "mxfp4": "non-linear", "tq2_0": "ternary",
    }  # fmt: skip
    assert {name: family(name) for name in names} == names
    assert set(names.values()) == set(FAMILIES)


def test_picture_is_written_and_labels_do_not_overlap(tmp_path):
    matplotlib = pytest.importorskip("matplotlib")
    from edgequant.evaluate.plots import _draw
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    points = [Point("f16", 270, 1e-6), Point("q8_0", 144, 2e-4), Point("q4_k_m", 105, 2e-2), Point("q4_0", 92, 5e-2),
              Point("iq4_xs", 91, 4.8e-2), Point("q3_k_m", 93, 5.5e-2), Point("q2_k", 88, 0.2)]  # fmt: skip
    path = tmp_path / "picture.png"
    plot_quality([Panel("one", "KL", points), Panel("two", "KL", points[:3])], path, dpi=60)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert matplotlib.image.imread(path).shape[0] > 100

    figure = Figure(figsize=(5.6, 4.4), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    _draw(axes, Panel("one", "KL", points))
    canvas.draw()
    assert "270.0 MB" in axes.texts[0].get_text()  # too far away to be drawn, so it is a note
    boxes = [text.get_window_extent() for text in axes.texts]
    assert len(boxes) == len(points)
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_layers_are_drawn_also_where_nothing_was_lost(tmp_path):
    matplotlib = pytest.importorskip("matplotlib")
    lost, perfect = Agreement(20.0, 0.99), Agreement(math.inf, 1.0)
    heights = []
    for impact in (None, 0.25):
        errors = [
            LayerError(f"model.layers.{i}.{kind}", (4, 4), lost, perfect if i == 0 else lost, lost, impact)
            for i in range(3)
            for kind in ("q_proj", "v_proj")
        ]
        plot_layers(errors, tmp_path / "layers.png", "x.gguf", "a protocol " * 30, dpi=50)
        heights.append(matplotlib.image.imread(tmp_path / "layers.png").shape[0])
    assert heights[1] > heights[0]  # a panel more for the impact


def test_absent_matplotlib_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(Error, match=r"pip install 'edgequant\[plot\]'"):
        plot_quality([Panel("one", "KL", [Point("f16", 1, 1)])], tmp_path / "x.png")
