"""The table of all formats, and the page that shows it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from edgequant import format_table
from edgequant.cli.main import main
from edgequant.format_table import block_of, gaussian, measure, readers, table_names
from edgequant.formats import formats
from edgequant.planar import planar_formats

PAGE = Path(__file__).resolve().parents[2] / "docs" / "formats-table.md"


def test_every_name_is_a_format_with_readers() -> None:
    names = table_names()
    assert len(names) == len(set(names)) > 90
    for name in names:
        assert name in formats or name in planar_formats
        assert readers(name) and block_of(name)
    projects = {name.split(".")[0].rstrip("0123456789") for name in planar_formats} - {"gptq_v"}
    assert projects == {name.split(".")[0].rstrip("0123456789") for name in names if name in planar_formats}


def test_the_page_shows_every_name() -> None:
    shown = {line.split("|")[1].strip() for line in PAGE.read_text().splitlines() if line.startswith("| ")}
    assert shown - {"format", "---"} == set(table_names())


@pytest.mark.parametrize(("name", "block"), [("q4_0", "32"), ("fp8.e4m3.block128", "128 x 128"), ("ct.int8", "row")])
def test_a_row_measures(name: str, block: str) -> None:
    w = gaussian(128, 256)
    row = measure(name, {"a": w, "b": w * 2})
    assert row.block == block and row.encode > 0 and row.decode > 0
    assert row.errors["a"] == pytest.approx(row.errors["b"], rel=0.01)


def test_formats_without_an_encoder_have_no_error() -> None:
    row = measure("aqlm.1x16.g8", {"a": np.zeros((2, 8), np.float32)})
    assert row.errors == {} and row.encode == 0


def test_the_command_prints_it(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(format_table, "table_names", lambda: ["q8_0", "mlx.affine4.g64"])
    monkeypatch.setattr(format_table, "gaussian", lambda rows, cols: gaussian(16, 256))
    assert main(["formats", "--table"]) == 0
    out = capsys.readouterr().out
    assert "mlx.affine4.g64" in out and "llama.cpp" in out
    assert main(["formats", "--table", "--json"]) == 0
    assert [r["name"] for r in json.loads(capsys.readouterr().out)] == ["q8_0", "mlx.affine4.g64"]


def test_the_command_describes_planar_formats(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["formats", "awq.int4.g128"]) == 0
    out = capsys.readouterr().out
    assert "qweight: 4 bits in int32" in out and "scales: f16" in out and "4.15" in out
    assert main(["formats", "AWQ.int4.g128", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["format"]["bits"] == 4
