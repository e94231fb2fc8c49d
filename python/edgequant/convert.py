"""A model in, a quantized file out: plan, then tensor by tensor quantize, verify and write."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from edgequant import _core
from edgequant._core import Error
from edgequant.models import open_model
from edgequant.plan import FLOATS, Rule, TensorPlan, as_f16, layer_order, make_plan, parse_rules
from edgequant.presets import find_preset
from edgequant.report import Report, TensorReport
from edgequant.targets import parse_target
from edgequant.targets.gguf import data_size, entries, file_size, output_metadata

if TYPE_CHECKING:
    import numpy as np

    from edgequant.importance import Importance
    from edgequant.models import Model, ModelTensor
    from edgequant.presets import Preset
    from edgequant.quantize import Effort, Objective


def quantize_model(
    model: str | os.PathLike[str] | Model,
    output: str | os.PathLike[str] | None,
    preset: str,
    *,
    rules: Iterable[str | Rule] | Mapping[str, str] | None = None,
    importance: str | os.PathLike[str] | Mapping[str, np.ndarray] | None = None,
    dry_run: bool = False,
    effort: Effort = "default",
    objective: Objective = "ggml",
    progress: bool = True,
    checksum: bool = False,
) -> Report:
    """Quantizes a model to a GGUF file.

    Args:
      model: a Hugging Face directory, a GGUF file, or what `edgequant.open_model` returned.
      output: path of the file to write; an existing file is replaced, atomically. May be None in a dry run.
      preset: such as "q4_k_m" (or "gguf:q4_k_m"), in any case; the same choices per tensor as in llama.cpp.
      rules: 'REGEX=FORMAT' strings; the first whose expression is found in a tensor's GGUF name decides instead of
        the preset. FORMAT may be `keep`. Norms and other tensors that are never quantized are not affected.
      importance: imatrix file of llama.cpp (.dat or GGUF), or a mapping of GGUF tensor names to vectors.
      dry_run: plan only; the report holds the choices and the exact size.
      effort, objective: as for `edgequant.quantize`.
      progress: show a bar per tensor where stderr is a terminal.
      checksum: put the SHA-256 of the output into the report.

    Returns: Report. Tensors that already have their format are copied bit for bit.

    Raises Error, naming the file and the tensor, for unreadable or unknown models, NaN or Inf, bad rules or presets,
    a full disk. Nothing is left behind then, nor after a kill.

    Example:
      >>> edgequant.quantize_model("SmolLM2-135M/", "smollm2.gguf", "q4_k_m").bits_per_weight  # doctest: +SKIP
    """
    start = time.perf_counter()
    chosen = find_preset(parse_target(preset)[1])
    parsed = parse_rules(rules)
    matrix = None
    if importance is not None:
        from edgequant.importance import load_importance

        matrix = load_importance(importance)
    opened = open_model(os.fspath(model)) if isinstance(model, str | os.PathLike) else model
    if output is None and not dry_run:
        raise Error("an output path is needed, unless it is a dry run")

    metadata = output_metadata(opened.target_metadata(), chosen, matrix)
    tensors = sorted(opened.tensors, key=lambda t: layer_order(t.name))
    to_f32 = opened.kind != "gguf"
    plans = make_plan(tensors, metadata, chosen, parsed, importance=matrix is not None, floats_to_f32=to_f32)
    report = Report(
        model=str(opened.path),
        output=None if output is None else os.fspath(output),
        preset=chosen.name,
        architecture=opened.architecture,
        tensors=[TensorReport.of(p) for p in plans],
        file_size=0,
        f16_size=0,
        dry_run=dry_run,
        importance=matrix.path if matrix else None,
        notes=[*opened.notes, *_notes(chosen, plans, matrix)],
    )
    if dry_run:
        report.file_size = file_size(metadata, plans)
    else:
        _write(opened, tensors, plans, metadata, matrix, Search(effort, objective), report, progress)
    report.f16_size = report.file_size - data_size(metadata, plans) + data_size(metadata, as_f16(plans))
    if checksum and not dry_run:
        report.sha256 = _sha256(os.fspath(output or ""))
    report.seconds = time.perf_counter() - start
    report.peak_memory = _peak_memory()
    return report


class Search(NamedTuple):
    """How the core looks for scales; see `edgequant.quantize`."""

    effort: Effort
    objective: Objective


def _write(
    model: Model,
    tensors: list[ModelTensor],
    plans: list[TensorPlan],
    metadata: _core.GgufMetadata,
    matrix: Importance | None,
    search: Search,
    report: Report,
    progress: bool,
) -> None:
    """Fills the file, and the report, tensor by tensor."""
    squared_error = squared_norm = 0.0
    with _core.GgufWriter(str(report.output), metadata, entries(plans)) as writer:
        report.file_size = writer.file_size
        with _progress_bar(progress, plans) as step:
            for index, (tensor, plan, entry) in enumerate(zip(tensors, plans, report.tensors, strict=True)):
                vectors = matrix.of(plan.name, plan.shape) if matrix else None
                try:
                    sums = encode(writer, index, tensor, plan, vectors, search)
                except Error as e:
                    raise Error(f"{model.path}: tensor {_both_names(tensor)}: {e}") from None
                entry.copied = sums is None
                entry.important = vectors is not None and not entry.copied
                if sums is not None:
                    entry.measured(sums)
                    squared_error += sums["squared_error"]
                    squared_norm += sums["squared_norm"]
                step(plan)
        writer.finish()
    report.relative_error = math.sqrt(squared_error / squared_norm) if squared_norm else None


def encode(
    writer: _core.GgufWriter,
    index: int,
    tensor: ModelTensor,
    plan: TensorPlan,
    vectors: np.ndarray | None,
    search: Search,
) -> dict[str, float] | None:
    """Writes one tensor in its target format; the sums of its error, None where it was only copied."""
    data: Any = tensor.stored
    source, order = plan.source, tensor.row_permutation
    rows, cols = tensor.row_count, tensor.columns
    if tensor.transform is not None:
        data, source, order = tensor.f32(), "f32", None
    if plan.target != source:
        return _core.quantize_to(writer, index, data, source, rows, cols, plan.target, order, vectors, *search)
    if source in FLOATS:
        check_finite(data, source, rows, cols)
    writer.write(index, data if order is None else tensor.rows()[order])
    tensor.forget()
    return None


def check_finite(data: Any, source: str, rows: int, cols: int) -> None:
    """Raises Error if float weights hold NaN or Inf."""
    if not math.isfinite(_core.compare(data, source, data, source, rows, cols)["squared_norm"]):
        raise Error("its weights hold NaN or Inf")


def _both_names(tensor: ModelTensor) -> str:
    other = "" if tensor.source_name == tensor.name else f" (here '{tensor.source_name}')"
    return f"'{tensor.name}'{other}"


def _notes(preset: Preset, plans: list[TensorPlan], matrix: Importance | None) -> list[str]:
    notes = []
    if preset.wants_importance and matrix is None:
        notes.append(f"{preset.name} loses much without an importance matrix (--importance)")
    again = {p.source for p in plans if p.source not in FLOATS and p.target != p.source and p.reason != "integers"}
    if again:
        names = ", ".join(sorted(again))
        notes.append(f"the source is quantized already ({names}): its error stays and the new one is added")
    if matrix:
        quantized = [p for p in plans if p.target not in FLOATS and p.target != p.source]
        without = sum(p.name not in matrix for p in quantized)
        if without:
            notes.append(f"{without} of {len(quantized)} quantized tensors are not in the importance matrix")
    return notes


@contextmanager
def _progress_bar(wanted: bool, plans: list[TensorPlan]) -> Iterator[Any]:
    """Calls step(plan) after each tensor; a tqdm bar in bytes of output, on terminals only."""
    if not wanted or not sys.stderr.isatty():
        yield lambda plan: None
        return
    from tqdm import tqdm

    total = sum(p.count for p in plans)
    with tqdm(total=total, unit="w", unit_scale=True, leave=False, dynamic_ncols=True) as bar:

        def step(plan: TensorPlan) -> None:
            bar.set_postfix_str(f"{plan.name} {plan.target}", refresh=False)
            bar.update(plan.count)

        yield step


def _peak_memory() -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _sha256(path: str) -> str:
    import hashlib

    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()
