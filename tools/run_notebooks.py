#!/usr/bin/env python3
"""Runs the notebooks and keeps their outputs small and free of what changes from run to run.

usage: run_notebooks.py [--check] [--folder DIR] [NAME ...]   (names or their beginnings, such as 01; default: all)
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"
LARGEST_PICTURE = 60_000  # bytes


def run(path: Path, folder: Path, timeout: int = 600):
    """Executes a notebook in `folder`/notebooks, beside the project's tools, and returns it with its outputs.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed; the message holds its traceback.
    """
    import nbclient
    import nbformat
    from jupyter_client.manager import AsyncKernelManager

    place = folder / "notebooks"
    place.mkdir(parents=True, exist_ok=True)
    for name in ("tools", "benchmarks"):
        if not (folder / name).exists():
            (folder / name).symlink_to(ROOT / name)
    notebook = nbformat.read(path, as_version=4)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that wait must not take a busy machine's cores
    # Sockets in the folder: no port is opened.
    manager = AsyncKernelManager(kernel_name="python3", transport="ipc", ip=str(folder / "kernel"))
    resources = {"metadata": {"path": str(place)}}
    nbclient.NotebookClient(notebook, km=manager, timeout=timeout, resources=resources).execute()
    return clean(notebook)


def clean(notebook):
    """Drops what differs between runs without saying anything: times, ids of the kernel, stderr (bars, warnings)."""
    notebook.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    for index, cell in enumerate(notebook.cells):
        cell.metadata = {}
        cell.id = f"cell-{index:02}"
        if cell.cell_type == "code":
            cell.outputs = merged([output for output in cell.outputs if output.get("name") != "stderr"])
            for output in cell.outputs:
                if "metadata" in output:
                    output.metadata = {}
    return notebook


def merged(outputs: list) -> list:
    """Pieces of printed text that follow one another as one."""
    result: list = []
    for output in outputs:
        if output.output_type == "stream" and result and result[-1].output_type == "stream":
            result[-1].text += output.text
        else:
            result.append(output)
    return result


def problems(notebook) -> list[str]:
    """What should not be in a notebook that is kept."""
    found = []
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            text = output.get("text", "") + "".join(output.get("data", {}).get("text/plain", ""))
            found += [f"an absolute path: {line}" for line in text.splitlines() if "/tmp/" in line or "/home/" in line]
            picture = output.get("data", {}).get("image/png", "")
            if len(picture) * 3 // 4 > LARGEST_PICTURE:
                found.append(f"a picture of {len(picture) * 3 // 4} bytes")
            if output.output_type == "error":
                found.append(f"an error: {output.ename}")
    return found


def main() -> int:
    import nbformat

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--check", action="store_true", help="compare with what is kept instead of replacing it")
    parser.add_argument("--folder", type=Path, help="where the notebooks leave their files (default: nowhere)")
    args = parser.parse_args()
    bad = 0
    with tempfile.TemporaryDirectory(prefix="notebooks-") as temporary:
        for path in sorted(NOTEBOOKS.glob("*.ipynb")):
            if args.names and not path.name.startswith(tuple(args.names)):
                continue
            start = time.perf_counter()
            notebook = run(path, args.folder or Path(temporary))
            wrong = problems(notebook)
            if args.check:
                wrong += differences(nbformat.read(path, as_version=4), notebook)
            else:
                nbformat.write(notebook, path)
            bad += len(wrong)
            print(f"{path.name}: {time.perf_counter() - start:.0f} s", *wrong, sep="\n  ", flush=True)
    return 1 if bad else 0


def differences(kept, notebook) -> list[str]:
    """Cells that show another kind of thing than what is kept of them; numbers and words may differ."""
    found = []
    for index, (before, after) in enumerate(zip(kept.cells, notebook.cells, strict=True)):
        kinds = [[output.output_type for output in cell.get("outputs", [])] for cell in (before, after)]
        if kinds[0] != kinds[1]:
            found.append(f"cell {index} shows {kinds[1]}, what is kept of it {kinds[0]}")
    return found


if __name__ == "__main__":
    sys.exit(main())
