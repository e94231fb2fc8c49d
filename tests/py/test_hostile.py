"""Every broken file of tests/hostile is refused by a sentence that names it, also on the command line."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from edgequant import _core
from edgequant._core import Error, GgufFile, SafetensorsFile

FOLDER = Path(__file__).parent.parent / "hostile"
ROW = re.compile(r"\| `(.*?)` \| (.*) \| `(.*)` \|")
CASES = [m.groups() for m in map(ROW.fullmatch, (FOLDER / "README.md").read_text().splitlines()) if m]
# Readers may differ on these, so edgequant refuses them; the reference takes one of the two meanings.
STRICTER = {"header-space-first", "tensor-twice", "field-unknown", "metadata-twice"}


def test_the_table_lists_every_file() -> None:
    files = {str(p.relative_to(FOLDER)) for kind in ("gguf", "safetensors") for p in (FOLDER / kind).iterdir()}
    assert {file for file, _, _ in CASES} == files
    assert len(CASES) >= 100


@pytest.mark.parametrize(("file", "words"), [(file, words) for file, _, words in CASES])
def test_refused(file: str, words: str) -> None:
    with pytest.raises(Error) as caught:
        (GgufFile if file.startswith("gguf") else SafetensorsFile)(FOLDER / file)
    message = str(caught.value)
    assert message.startswith(f"{FOLDER / file}: ")
    assert words in message
    assert "\n" not in message
    assert len(message) < 400 + len(str(FOLDER))


@pytest.mark.parametrize("file", [file for file, _, _ in CASES if file.startswith("safetensors")])
def test_the_reference_refuses_as_well(file: str) -> None:
    safe_open = pytest.importorskip("safetensors").safe_open
    if Path(file).stem in STRICTER:
        with safe_open(FOLDER / file, "numpy"):
            return
    with pytest.raises(Exception, match=r"header|metadata|Error"):
        safe_open(FOLDER / file, "numpy")


@pytest.mark.parametrize("verb", ["inspect", "diff", "quantize"])
def test_the_command_line_says_it_in_one_line(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgequant.cli.main import main

    monkeypatch.chdir(tmp_path)
    for file, _, words in CASES:
        path = str(FOLDER / file)
        if verb == "quantize":
            if not file.startswith("gguf"):
                continue
            arguments = [path, "-o", "out.gguf", "--to", "q4_k_m"]
        else:
            arguments = [path] * (2 if verb == "diff" else 1)
        assert main([verb, *arguments]) == 2, file
        out, error = capsys.readouterr()
        assert out == ""
        assert error.startswith("edgequant: error: ")
        assert error.count("\n") == 1
        assert path in error
        if verb != "quantize":
            assert words in error
    assert not list(tmp_path.iterdir())


def test_exit_code_of_the_process() -> None:
    command = [sys.executable, "-m", "edgequant", "inspect", str(FOLDER / "gguf" / "data-cut.gguf")]
    env = os.environ | {"PYTHONPATH": str(Path(_core.__file__).parent.parent)}
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert '"b" lies beyond the end' in done.stderr
