"""edgequant.quantize_model: plan, quantize, verify, write."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import edgequant as eq
import numpy as np
import pytest
from edgequant import _core

DATA = Path(__file__).parent.parent.parent.parent / "shared" / "data"
META = {
    "general.architecture": "llama",
    "general.name": "tiny",
    "llama.block_count": np.uint32(2),
    "llama.context_length": np.uint32(64),
    "llama.embedding_length": np.uint32(256),
    "llama.feed_forward_length": np.uint32(512),
    "llama.attention.head_count": np.uint32(8),
    "llama.attention.head_count_kv": np.uint32(2),
    "llama.attention.layer_norm_rms_epsilon": np.float32(1e-5),
    "tokenizer.ggml.tokens": ["<a>", "<b>", "é"],
    "tokenizer.ggml.scores": np.arange(3, dtype=np.float32),
    "tokenizer.ggml.add_bos_token": True,
}
Weights = dict[str, np.ndarray]


def weights(seed: int = 0, ffn: int = 512) -> Weights:
    rng = np.random.default_rng(seed)

    def matrix(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float16)

    w: Weights = {"token_embd.weight": matrix(40, 256), "output_norm.weight": np.ones(256, np.float32)}
    for i in range(2):
        b = f"blk.{i}."
        w |= {b + "attn_q.weight": matrix(256, 256), b + "attn_k.weight": matrix(64, 256)}
        w |= {b + "attn_v.weight": matrix(64, 256), b + "attn_output.weight": matrix(256, 256)}
        w |= {b + "ffn_up.weight": matrix(ffn, 256), b + "ffn_gate.weight": matrix(ffn, 256)}
        w |= {b + "ffn_down.weight": matrix(256, ffn), b + "attn_norm.weight": np.ones(256, np.float32)}
    return w


def write(path: Path, tensors: Weights, metadata: dict[str, Any] | None = None) -> Path:
    kinds = {"float32": "f32", "float16": "f16"}
    entries = [(n, t.shape, kinds[t.dtype.name]) for n, t in tensors.items()]
    with _core.GgufWriter(path, metadata or META, entries) as w:
        for i, t in enumerate(tensors.values()):
            w.write(i, np.ascontiguousarray(t))
        w.finish()
    return path


def read(path: Path | str) -> dict[str, eq.QuantizedTensor]:
    return {t.name: eq.from_bytes(t.data, t.type, t.shape) for t in _core.GgufFile(path).tensors}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("model") / "tiny-f16.gguf", weights())


@pytest.mark.parametrize("preset", ["q4_k_m", "q4_0", "q8_0", "q2_k", "iq4_xs", "bf16", "f32", "gguf:Q6_K", "mxfp4"])
def test_every_tensor_is_what_the_api_gives(source: Path, tmp_path: Path, preset: str) -> None:
    out = tmp_path / "out.gguf"
    report = eq.quantize_model(source, out, preset)
    written, original = read(out), weights()
    assert set(written) == set(original)
    for entry in report.tensors:
        q, w = written[entry.name], original[entry.name]
        assert q.format == entry.target and q.shape == w.shape == entry.shape and q.nbytes == entry.nbytes
        if entry.copied:
            assert q.data.tobytes() == w.tobytes() and entry.relative_error is None
        else:
            assert q == eq.quantize(w, entry.target)
            assert entry.relative_error == pytest.approx(q.error(w), rel=1e-9)
    assert report.file_size == out.stat().st_size and not report.dry_run
    assert report.parameters == sum(w.size for w in original.values())
    assert report.bits_per_weight == sum(q.nbytes for q in written.values()) * 8 / report.parameters


def test_metadata(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    eq.quantize_model(source, out, "q4_k_m")
    metadata = _core.GgufFile(out).metadata
    assert metadata["general.file_type"] == 15 and metadata["general.quantization_version"] == 2
    for key, value in META.items():
        assert np.array_equal(metadata[key], value), key


@pytest.mark.parametrize("preset", ["q4_k_m", "f16", "q3_k_s"])
def test_dry_run_knows_the_exact_size(source: Path, tmp_path: Path, preset: str) -> None:
    planned = eq.quantize_model(source, None, preset, dry_run=True)
    done = eq.quantize_model(source, tmp_path / "out.gguf", preset)
    assert planned.file_size == done.file_size == (tmp_path / "out.gguf").stat().st_size
    eq.quantize_model(source, tmp_path / "f16.gguf", "f16")
    assert planned.f16_size == done.f16_size == (tmp_path / "f16.gguf").stat().st_size
    (tmp_path / "f16.gguf").unlink()
    assert [t.target for t in planned.tensors] == [t.target for t in done.tensors]
    assert planned.dry_run and planned.relative_error is None
    assert list(tmp_path.iterdir()) == [tmp_path / "out.gguf"]


def test_dry_run_of_every_kind_of_metadata(tmp_path: Path) -> None:
    metadata = {
        **META,
        "a.bool": False,
        "a.u8": np.uint8(1),
        "a.i64": np.int64(-1),
        "a.f64": np.float64(1),
        "a.int": 7,
        "a.negative": -7,
        "a.large": 2**40,
        "a.float": 0.5,
        "a.nested": [["x", "yz"], ["w"]],
        "a.i8s": np.zeros(5, np.int8),
        "a.empty": [],
        "general.alignment": np.uint32(64),
    }
    source = write(tmp_path / "in.gguf", weights(), metadata)
    assert (
        eq.quantize_model(source, None, "f16", dry_run=True).file_size
        == eq.quantize_model(source, tmp_path / "out.gguf", "f16").file_size
    )


def test_tensors_that_have_their_format_are_copied(source: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first.gguf", tmp_path / "second.gguf"
    eq.quantize_model(source, first, "q4_k_m")
    report = eq.quantize_model(first, second, "q4_k_m")
    assert first.read_bytes() == second.read_bytes()
    assert all(t.copied for t in report.tensors)
    down = eq.quantize_model(first, second, "q4_0")
    assert "quantized already" in down.notes[0]


def test_rules_and_importance(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    vector = np.random.default_rng(3).random(256, dtype=np.float32)
    names = [f"blk.{i}.ffn_up.weight" for i in range(2)]
    report = eq.quantize_model(
        source, out, "q4_0", rules=["attn_v=q6_k", "attn_.*=keep"], importance=dict.fromkeys(names, vector)
    )
    written, original = read(out), weights()
    assert written["blk.0.attn_v.weight"].format == "q6_k" and written["blk.1.attn_q.weight"].format == "f16"
    assert written[names[0]] == eq.quantize(original[names[0]], "q4_0", importance=vector)
    assert written[names[0]] != eq.quantize(original[names[0]], "q4_0")
    assert [t.name for t in report.tensors if t.important] == names
    assert _core.GgufFile(out).metadata["quantize.imatrix.entries_count"] == 2
    assert any("not in the importance matrix" in note for note in report.notes)


def test_experts_have_their_own_importance(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    w = weights()
    w["blk.0.ffn_up_exps.weight"] = rng.standard_normal((4, 32, 256)).astype(np.float16)
    source = write(tmp_path / "in.gguf", w, {**META, "llama.expert_count": np.uint32(4)})
    vectors = rng.random((4, 256), dtype=np.float32)
    eq.quantize_model(source, tmp_path / "out.gguf", "q4_k_s", importance={"blk.0.ffn_up_exps.weight": vectors})
    written = read(tmp_path / "out.gguf")["blk.0.ffn_up_exps.weight"].data.reshape(4, 32, -1)
    for expert in range(4):
        want = eq.quantize(w["blk.0.ffn_up_exps.weight"][expert], "q4_k", importance=vectors[expert])
        assert np.array_equal(written[expert], want.data)


def test_fallbacks_are_reported(tmp_path: Path) -> None:
    source = write(tmp_path / "in.gguf", weights(ffn=320))
    report = eq.quantize_model(source, tmp_path / "out.gguf", "q4_k_s")
    assert [(t.name, t.wanted, t.target) for t in report.fallbacks] == [
        (f"blk.{i}.ffn_down.weight", "q4_k", "q5_0") for i in range(2)
    ]
    assert "2 of q4_k -> q5_0 (rows of 320)" in str(report)


def test_report(source: Path, tmp_path: Path) -> None:
    report = eq.quantize_model(source, tmp_path / "out.gguf", "q4_k_m", checksum=True)
    report.save(tmp_path / "report.json")
    d = json.loads((tmp_path / "report.json").read_text())
    assert d["preset"] == "q4_k_m" and d["architecture"] == "llama" and len(d["tensors"]) == len(weights())
    assert d["reduction"] == pytest.approx(1 - d["file_size"] / d["f16_size"])
    import hashlib

    assert d["sha256"] == hashlib.sha256((tmp_path / "out.gguf").read_bytes()).hexdigest()
    assert "smaller than F16" in str(report) and "blk.0.attn_v.weight" in report.tensor_table()
    assert 0.01 < report.relative_error < 0.1 and report.seconds > 0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["blk.1.ffn_up.weight", "blk.0.attn_norm.weight"])
def test_bad_weights_name_file_and_tensor(tmp_path: Path, bad: float, name: str) -> None:
    w = weights()
    w[name].reshape(-1)[77] = bad
    source = write(tmp_path / "bad.gguf", w)
    with pytest.raises(eq.Error, match=rf"bad\.gguf.*{name}"):
        eq.quantize_model(source, tmp_path / "out.gguf", "q4_k_m")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.gguf"]


def test_bad_calls(source: Path, tmp_path: Path) -> None:
    calls: dict[str, Callable[[], object]] = {
        "nowhere": lambda: eq.quantize_model(tmp_path / "nowhere", tmp_path / "o.gguf", "q4_0"),
        "q4_k_m": lambda: eq.quantize_model(source, tmp_path / "o.gguf", "q4km"),
        "output": lambda: eq.quantize_model(source, None, "q4_0"),
        "onnxx": lambda: eq.quantize_model(source, tmp_path / "o.gguf", "onnxx:q4_0"),
        "missing/o.gguf": lambda: eq.quantize_model(source, tmp_path / "missing" / "o.gguf", "q4_0"),
        "64 numbers": lambda: eq.quantize_model(
            source, tmp_path / "o.gguf", "q4_0", importance={"blk.0.ffn_up.weight": np.ones(64)}
        ),
    }
    for text, call in calls.items():
        with pytest.raises(eq.Error, match=text):
            call()
    assert list(tmp_path.iterdir()) == []


def big_model(path: Path, tensors: int, rows: int) -> Path:
    w = {"token_embd.weight": np.ones((40, 256), np.float16), "output_norm.weight": np.ones(1024, np.float32)}
    block = np.random.default_rng(0).standard_normal((rows, 1024)).astype(np.float16)
    w |= {f"blk.{i}.ffn_up.weight": block for i in range(tensors)}
    return write(path, w, {**META, "llama.block_count": np.uint32(tensors)})


def run_python(code: str, *args: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="reads ru_maxrss in kilobytes")
def test_peak_memory_is_near_one_tensor(tmp_path: Path) -> None:
    source = big_model(tmp_path / "big.gguf", tensors=40, rows=2048)  # 40 tensors of 4 MB
    code = """
        import resource, sys
        import edgequant as eq
        eq.quantize_model(sys.argv[1], None, "q8_0", dry_run=True)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        eq.quantize_model(sys.argv[1], sys.argv[2], "q8_0")
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """
    grown = int(run_python(code, source, tmp_path / "out.gguf").stdout) * 1024
    assert source.stat().st_size > 160e6 and grown < 40e6


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_kill_leaves_nothing(tmp_path: Path) -> None:
    source = big_model(tmp_path / "big.gguf", tensors=40, rows=2048)
    folder = tmp_path / "out"
    folder.mkdir()
    code = "import sys, edgequant as eq; print('go', flush=True); eq.quantize_model(sys.argv[1], sys.argv[2], 'q4_k_m')"
    eq.quantize_model(source, tmp_path / "whole.gguf", "q4_k_m")
    whole = (tmp_path / "whole.gguf").read_bytes()
    # Killed at several moments; at least one of them must be before the end.
    interrupted = 0
    for delay in (0.02, 0.05, 0.1, 0.2):
        command = [sys.executable, "-c", code, str(source), str(folder / "out.gguf")]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None and process.stdout.readline() == b"go\n"
            time.sleep(delay)
            process.kill()
        left = list(folder.iterdir())
        if process.returncode != 0 and left != [folder / "out.gguf"]:
            interrupted += 1
            assert left == []
        for path in left:  # the end came first, be it by as little as the process takes to exit
            assert path.read_bytes() == whole
            path.unlink()
    assert interrupted


def test_output_may_replace_the_source(tmp_path: Path) -> None:
    path = write(tmp_path / "model.gguf", weights())
    eq.quantize_model(path, path, "q8_0")
    written = read(path)["blk.0.attn_q.weight"]
    assert written == eq.quantize(weights()["blk.0.attn_q.weight"], "q8_0")
    assert os.listdir(tmp_path) == ["model.gguf"]


def test_model_directory(tmp_path: Path) -> None:
    directory = DATA / "stories260K"
    if not directory.is_dir():
        pytest.skip(f"{directory} is absent")
    report = eq.quantize_model(directory, tmp_path / "out.gguf", "q4_k_m")
    model = eq.open_model(directory)
    written = read(tmp_path / "out.gguf")
    assert {t.target for t in report.tensors} >= {"f32", "f16", "q5_0"} and len(report.fallbacks) == 35
    for tensor in model.tensors:
        q, w = written[tensor.name], tensor.f32()  # permuted as GGUF wants it
        assert q.shape == w.shape and q.error(w) < 0.06
        if q.format == "q5_0":
            assert q == eq.quantize(w, "q5_0")


def llama_quantize(source: Path, target: Path, file_type: int) -> None:
    code = """
        import ctypes, sys
        from llama_cpp import llama_cpp as L
        p = L.llama_model_quantize_default_params()
        p.ftype, p.nthread = int(sys.argv[3]), 2
        sys.exit(L.llama_model_quantize(sys.argv[1].encode(), sys.argv[2].encode(), ctypes.byref(p)))
    """
    run_python(code, source, target, file_type)


@pytest.mark.parametrize(("preset", "file_type"), [("q4_0", 2), ("q5_1", 9), ("q8_0", 7), ("f16", 1)])
def test_same_file_as_llama_cpp(source: Path, tmp_path: Path, preset: str, file_type: int) -> None:
    pytest.importorskip("llama_cpp")
    ours, theirs = tmp_path / "ours.gguf", tmp_path / "theirs.gguf"
    # The token embedding would become q6_k, where our search is better than theirs.
    rules = {} if preset in ("q8_0", "f16") else {"token_embd": "keep"}
    report = eq.quantize_model(source, ours, preset)
    llama_quantize(source, theirs, file_type)
    assert [t.target for t in report.tensors] == [t.type for t in _core.GgufFile(theirs).tensors]
    if not rules:
        assert ours.read_bytes() == theirs.read_bytes()
    a, b = read(ours), read(theirs)
    assert list(a) == list(b)
    assert all(a[n] == b[n] for n in a if n != "token_embd.weight")
