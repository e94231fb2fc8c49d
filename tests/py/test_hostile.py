"""Every broken file of tests/hostile is refused by a sentence that names it, also on the command line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
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
