"""The command line as its user sees it: output, exit codes, messages."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import numpy as np
import pytest
from edgequant import _core
from edgequant.cli.main import VERBS, main

META = {
    "general.architecture": "llama",
    "llama.block_count": np.uint32(1),
    "llama.embedding_length": np.uint32(256),
    "llama.feed_forward_length": np.uint32(256),
    "llama.attention.head_count": np.uint32(4),
}


def make_model(path: Path, ffn_rows: int = 64, bad: float | None = None) -> Path:
    rng = np.random.default_rng(0)
    tensors = {
        "token_embd.weight": rng.standard_normal((8, 256)).astype(np.float16),
        "output_norm.weight": np.ones(256, np.float32),
        "blk.0.ffn_up.weight": rng.standard_normal((ffn_rows, 256)).astype(np.float16),
        "blk.0.attn_v.weight": rng.standard_normal((16, 256)).astype(np.float16),
    }
    if bad is not None:
        tensors["blk.0.ffn_up.weight"][3, 5] = bad
    kinds = [(n, t.shape, "f32" if t.dtype == np.float32 else "f16") for n, t in tensors.items()]
    with _core.GgufWriter(path, META, kinds) as w:
        for i, t in enumerate(tensors.values()):
            w.write(i, t)
        w.finish()
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_model(tmp_path_factory.mktemp("cli") / "model.gguf"))


def edgequant(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgequant", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, **options)  # type: ignore[call-overload,no-any-return]


def types(path: Path) -> dict[str, str]:
    return {t.name: t.type for t in _core.GgufFile(path).tensors}


@pytest.mark.parametrize("form", ["--to {p} -o {o}", "-o {o} --to gguf:{p}", "{o} {p}", "{p} -o {o}"])
def test_ways_to_ask(model: str, tmp_path: Path, form: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.gguf"
    assert main(["quantize", model, *form.format(p="Q4_K_M", o=out).split()]) == 0
    assert types(out)["blk.0.ffn_up.weight"] == "q4_k" and types(out)["token_embd.weight"] == "q6_k"
    assert "smaller than F16" in capsys.readouterr().out


def test_options(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, report = tmp_path / "out.gguf", tmp_path / "report.json"
    arguments = ["quantize", model, "-o", str(out), "--to", "q8_0", "--rule", "attn=keep", "--rule", ".*=q4_0"]
    threads = _core.num_threads()
    assert main([*arguments, "--threads", "1", "--effort", "fast", "--json", "--report", str(report)]) == 0
    _core.set_num_threads(threads)
    printed = json.loads(capsys.readouterr().out)
    assert types(out) == {
        "token_embd.weight": "q4_0",
        "output_norm.weight": "f32",
        "blk.0.ffn_up.weight": "q4_0",
        "blk.0.attn_v.weight": "f16",
    }
    assert printed == json.loads(report.read_text()) and printed["file_size"] == out.stat().st_size
    assert main([*arguments, "--quiet"]) == 0 and capsys.readouterr().out == ""


def test_dry_run(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["quantize", model, "--to", "q4_k_m", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "would be written" in out and "blk.0.ffn_up.weight" in out and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("quantize nowhere.gguf -o o.gguf --to q4_0", "nowhere.gguf"),
        ("quantize MODEL -o o.gguf --to q4km", "q4_k_m"),
        ("quantize MODEL -o o.gguf", "--to"),
        ("quantize MODEL --to q4_0", "-o"),
        ("quantize MODEL a.gguf b.gguf q4_0", "a.gguf"),
        ("quantize MODEL -o missing/o.gguf --to q4_0", "missing/o.gguf"),
        ("quantize MODEL -o o.gguf --to q4_0 --rule nope=q4_0", "nope=q4_0"),
        ("quantize MODEL -o o.gguf --to q4_0 --importance MODEL", "importance"),
        ("formats q9_k", "q9_k"),
    ],
)
def test_errors_are_one_line(model: str, tmp_path: Path, arguments: str, message: str) -> None:
    done = edgequant(*(model if a == "MODEL" else a for a in arguments.split()), cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("edgequant: error: ") and done.stderr.count("\n") == 1 and message in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_bad_weights(tmp_path: Path) -> None:
    source = make_model(tmp_path / "bad.gguf", bad=float("nan"))
    done = edgequant("quantize", source, "-o", tmp_path / "o.gguf", "--to", "q4_k_m")
    assert done.returncode == 2 and "bad.gguf" in done.stderr and "blk.0.ffn_up.weight" in done.stderr
    assert os.listdir(tmp_path) == ["bad.gguf"]


def test_usage_errors() -> None:
    assert edgequant("quantise").returncode == 2
    assert edgequant().returncode == 2
    assert edgequant("quantize", "m", "--effort", "hard").returncode == 2


def test_help_and_version() -> None:
    top = edgequant("--help")
    assert top.returncode == 0 and all(verb in top.stdout for verb in VERBS)
    assert "Quantize a model to a GGUF file" in top.stdout
    for verb in VERBS:
        done = edgequant(verb, "--help")
        assert done.returncode == 0 and "--json" in done.stdout, verb
    assert edgequant("--version").stdout.startswith(f"edgequant {_core.__version__} (")


def test_formats() -> None:
    table = edgequant("formats").stdout.splitlines()
    assert len(table) == 1 + len(_core.formats())
    assert next(line for line in table if line.startswith("q4_k ")).split() == [
        "q4_k",
        "4.5000",
        "256",
        "144",
        "12",
        "yes",
    ]
    entries = json.loads(edgequant("formats", "--json").stdout)
    assert {e["name"] for e in entries} == {f["name"] for f in _core.formats()}
    one = json.loads(edgequant("formats", "Q6_K", "--json").stdout)
    assert one["bytes"] == 210 and one["can_quantize"]
    assert "210 bytes" in edgequant("formats", "q6_k").stdout
    assert any(line.startswith("q4_k_m ") for line in edgequant("formats", "--presets").stdout.splitlines())
    assert json.loads(edgequant("formats", "--presets", "--json").stdout)[0]["name"] == "f32"


def test_a_closed_pipe_is_quiet() -> None:
    command = f"{sys.executable} -m edgequant formats --json | head -c 1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True)
    assert done.stdout == "[" and done.stderr == "" and done.returncode == 0


def test_only_the_verb_is_imported() -> None:
    code = "import sys; from edgequant.cli.main import main; main(['formats']); print(*sys.modules, file=sys.stderr)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr.split()
    assert "edgequant.cli.formats" in loaded
    assert not {"edgequant.cli.quantize", "edgequant.convert", "tqdm", "torch"} & set(loaded)


def big_model(path: Path) -> Path:
    return make_model(path, ffn_rows=120_000)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_ctrl_c(tmp_path: Path) -> None:
    source = big_model(tmp_path / "big.gguf")
    code = "import sys; from edgequant.cli.main import main; print('go', flush=True); sys.exit(main(sys.argv[1:]))"
    arguments = ["quantize", str(source), "-o", str(tmp_path / "o.gguf"), "--to", "iq4_xs"]
    arguments += ["--effort", "best", "--threads", "1"]
    for delay in (0.2, 0.0):  # in the middle of a tensor; if the machine is too quick, at the start
        command = [sys.executable, "-c", code, *arguments]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stdout is not None and process.stdout.readline() == "go\n"
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
        if process.returncode != 0:
            break
    assert (process.returncode, error) == (130, "edgequant: interrupted\n")
    assert os.listdir(tmp_path) == ["big.gguf"]


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals")
def test_progress_bar_on_terminals_only(model: str, tmp_path: Path) -> None:
    arguments = ["quantize", model, "-o", tmp_path / "o.gguf", "--to", "q4_0"]
    assert edgequant(*arguments).stderr == ""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    command = [sys.executable, "-m", "edgequant", *map(str, arguments)]
    with subprocess.Popen(command, stderr=slave, stdout=subprocess.DEVNULL) as process:
        process.wait(timeout=60)
    shown = os.read(master, 100_000) if select.select([master], [], [], 1)[0] else b""
    os.close(slave)
    os.close(master)
    assert b"%|" in shown and process.returncode == 0


def test_requantizing_starts_without_numpy(model: str, tmp_path: Path) -> None:
    code = """
import sys
from edgequant.cli.main import main
main(sys.argv[1:])
print(sorted(m for m in ("numpy", "torch", "tqdm", "json") if m in sys.modules))
"""
    arguments = ["quantize", model, "-o", str(tmp_path / "o.gguf"), "--to", "q4_k_m", "--quiet"]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert len(_core.GgufFile(tmp_path / "o.gguf").tensors) == 4
