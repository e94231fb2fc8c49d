#!/usr/bin/env python3
"""Lets llama.cpp judge the files of `make demo`: it loads each one, decodes its tensors to the same bits, and runs it.

usage: peers.py FOLDER   (every *.gguf below FOLDER)
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))
import edgequant as eq
from edgequant import _core
from ggml import Ggml

SENTENCES = ("A cat sits on the mat.", "A kitten rests on a rug.", "Stocks fell today.")
PROMPT = "Once upon a time, in a small village by the sea, there lived"


def same_tensors(path: Path, ggml: Ggml) -> tuple[int, list[str]]:
    """Tensors compared, and the names of those whose decoded bits differ from ggml's."""
    wrong, count = [], 0
    for tensor in _core.GgufFile(str(path)).tensors:
        number = eq.formats[tensor.type].gguf_type if tensor.type in eq.formats else None
        if number is None or number == 0:
            continue
        cols = tensor.shape[-1]
        rows = int(np.prod(tensor.shape[:-1], dtype=np.int64))
        data = np.ascontiguousarray(tensor.data).reshape(rows, -1)
        ours = _core.dequantize(data, tensor.type, rows, cols, "f32")
        theirs = ggml.dequantize(data, number, cols)
        count += 1
        if not np.array_equal(ours.view(np.uint32), theirs.view(np.uint32)):
            wrong.append(tensor.name)
    return count, wrong


def run_model(path: Path) -> str:
    """One line on what llama.cpp made of the file; raises where it cannot load or run it."""
    from llama_cpp import Llama

    architecture = _core.GgufFile(str(path)).metadata["general.architecture"]
    if architecture == "bert":
        model = Llama(str(path), embedding=True, verbose=False, n_threads=2)
        a, b, c = (np.asarray(model.embed(t)) for t in SENTENCES)
        near, far = (float(x @ y / np.linalg.norm(x) / np.linalg.norm(y)) for x, y in ((a, b), (a, c)))
        if not near > far:
            raise RuntimeError(f"embeddings make no sense: similar sentences {near:.3f}, different ones {far:.3f}")
        return f"embeds: similar sentences {near:.3f}, different ones {far:.3f}"
    model = Llama(str(path), n_ctx=256, verbose=False, n_threads=2)
    text = model(PROMPT, max_tokens=32, temperature=0.0)["choices"][0]["text"]  # type: ignore[index]
    if not text.strip():
        raise RuntimeError("generated nothing")
    return f"generates: {text.strip()!r}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    files = sorted(parser.parse_args().folder.rglob("*.gguf"))
    if not files:
        print("no GGUF files there; run `make demo` first", file=sys.stderr)
        return 2
    ggml, bad = Ggml(), 0
    for path in files:
        count, wrong = same_tensors(path, ggml)
        try:
            said = run_model(path)
        except (RuntimeError, ValueError) as error:
            said, bad = f"FAILED: {error}", bad + 1
        bad += bool(wrong)
        equal = f"{count} tensors decode to ggml's bits" if not wrong else f"DIFFERENT: {', '.join(wrong[:5])}"
        print(f"{path.name}: {equal}; {said}", flush=True)
    print(f"{len(files)} files, {bad} problems")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
