#!/usr/bin/env python3
"""Writes tests/golden/preset_choices.json: the format that llama.cpp gives each tensor of small models, per preset.

Needs llama-cpp-python and gguf. Run it again when llama.cpp changes its choices:
    python tools/make_preset_choices.py
"""

from __future__ import annotations

import ctypes
import itertools
import json
import tempfile
from pathlib import Path
from typing import Any

import gguf
import llama_cpp
import numpy as np

GOLDEN = Path(__file__).parent.parent / "tests" / "golden" / "preset_choices.json"

FILE_TYPES = {
    "f32": 0,
    "f16": 1,
    "bf16": 32,
    "q8_0": 7,
    "q6_k": 18,
    "q5_k_m": 17,
    "q5_k_s": 16,
    "q5_1": 9,
    "q5_0": 8,
    "q4_k_m": 15,
    "q4_k_s": 14,
    "q4_1": 3,
    "q4_0": 2,
    "iq4_nl": 25,
    "iq4_xs": 30,
    "q3_k_l": 13,
    "q3_k_m": 12,
    "q3_k_s": 11,
    "q2_k": 10,
    "q2_k_s": 21,
    "iq3_m": 27,
    "iq3_s": 26,
    "iq3_xs": 22,
    "iq3_xxs": 23,
    "iq2_m": 29,
    "iq2_s": 28,
    "iq2_xs": 20,
    "iq2_xxs": 19,
    "iq1_m": 31,
    "iq1_s": 24,
    "tq2_0": 37,
    "tq1_0": 36,
    "mxfp4_moe": 38,
}
# llama.cpp refuses these without.
NEED_IMPORTANCE = ("q2_k_s", "iq3_xs", "iq3_xxs", "iq2_m", "iq2_s", "iq2_xs", "iq2_xxs", "iq1_m", "iq1_s")


Model = dict[str, Any]


def dense(
    arch: str, layers: int, heads: int, kv_heads: int, *, dim: int = 256, tied: bool = False, **extra: int
) -> Model:
    """A model of small matrices with the tensor names of a transformer."""
    experts = extra.get("expert_count", 0)
    tensors: dict[str, list[int]] = {"token_embd.weight": [4, dim], "output_norm.weight": [dim]}
    if not tied:
        tensors["output.weight"] = [4, dim]
    for i in range(layers):
        names = (
            ["attn_qkv", "attn_output", "ffn_up", "ffn_down"]
            if arch in ("falcon", "phi3")
            else ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"]
        )
        for name in names:
            if experts and name.startswith("ffn"):
                tensors[f"blk.{i}.{name}_exps.weight"] = [experts, 4, dim]
            else:
                tensors[f"blk.{i}.{name}.weight"] = [4, dim]
        tensors[f"blk.{i}.attn_norm.weight"] = [dim]
        if experts:
            tensors[f"blk.{i}.ffn_gate_inp.weight"] = [experts, dim]
    meta = {
        "block_count": layers,
        "context_length": 64,
        "embedding_length": dim,
        "feed_forward_length": dim,
        "attention.head_count": heads,
        "attention.head_count_kv": kv_heads,
        "vocab_size": 4,
        **extra,
    }
    return {"architecture": arch, "metadata": meta, "tensors": tensors}


def bert() -> dict[str, Any]:
    model = dense("bert", 6, 4, 4, dim=384, tied=True)
    del model["tensors"]["output_norm.weight"]
    model["tensors"] |= {
        "position_embd.weight": [8, 384],
        "token_types.weight": [2, 384],
        "token_embd_norm.weight": [384],
        "blk.0.attn_output.bias": [384],
    }
    return model


def cases() -> dict[str, dict[str, Any]]:
    return {
        "llama, 2 layers, tied": dense("llama", 2, 8, 8, tied=True),
        "llama, 22 layers, 8 heads per KV head": dense("llama", 22, 32, 4),
        "llama, 32 layers, 4 heads per KV head": dense("llama", 32, 32, 8),
        "llama, 33 layers, no groups": dense("llama", 33, 4, 4),
        "llama, 70B": dense("llama", 80, 64, 8),
        "llama, 65B": dense("llama", 80, 64, 64),
        "llama, rows of 576": dense("llama", 30, 9, 3, dim=576, tied=True),
        "llama, rows of 64 and 172": uneven(),
        "llama, 8 experts": dense("llama", 18, 8, 2, expert_count=8, expert_used_count=2),
        "llama, 4 experts": dense("llama", 9, 8, 2, expert_count=4, expert_used_count=2),
        "falcon": dense("falcon", 32, 71, 1),
        "phi3": dense("phi3", 17, 32, 32),
        "qwen2, 80 layers": dense("qwen2", 80, 64, 8),
        "bert": bert(),
    }


def uneven() -> dict[str, Any]:
    model = dense("llama", 5, 8, 4, dim=64, tied=True)
    for name, shape in model["tensors"].items():
        if "ffn_down" in name:
            shape[-1] = 172
    return model


def write(model: dict[str, Any], path: Path) -> None:
    writer = gguf.GGUFWriter(str(path), model["architecture"])
    for key, value in model["metadata"].items():
        writer.add_uint32(f"{model['architecture']}.{key}", value)
    writer.add_float32(f"{model['architecture']}.attention.layer_norm_rms_epsilon", 1e-5)
    writer.add_float32(f"{model['architecture']}.attention.layer_norm_epsilon", 1e-5)
    writer.add_bool(f"{model['architecture']}.attention.causal", False)
    rng = np.random.default_rng(0)
    for name, shape in model["tensors"].items():
        matrix = len(shape) > 1 and not name.endswith(("_inp.weight", "bias"))
        writer.add_tensor(name, rng.standard_normal(shape).astype(np.float16 if matrix else np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def llama_quantize(source: Path, target: Path, file_type: int, importance: dict[str, np.ndarray] | None = None) -> None:
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.allow_requantize, params.nthread = file_type, True, 1
    if importance:
        entry = llama_cpp.llama_cpp.llama_model_imatrix_data
        array = (entry * (len(importance) + 1))()
        for slot, (name, vector) in zip(array, importance.items(), strict=False):
            slot.name, slot.size = name.encode(), vector.size
            slot.data = vector.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        params.imatrix = ctypes.cast(array, type(params.imatrix))
    if llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(params)):
        raise RuntimeError(f"llama.cpp failed on {source}")


def types_of(path: Path) -> dict[str, str]:
    return {t.name: t.tensor_type.name.lower() for t in gguf.GGUFReader(str(path)).tensors}


def main() -> None:
    silent = llama_cpp.llama_log_callback(lambda *_: None)
    llama_cpp.llama_log_set(silent, ctypes.c_void_p())
    golden = []
    for title, model in cases().items():
        # Role by role, so that equal formats stand together.
        names = sorted(model["tensors"], key=lambda n: (n.split(".")[-2], n))
        case = {"title": title, **model, "tensors": {n: model["tensors"][n] for n in names}, "choices": {}}
        with tempfile.TemporaryDirectory() as folder:
            source, target = Path(folder) / "in.gguf", Path(folder) / "out.gguf"
            write(model, source)
            case["source"] = runs(types_of(source), names)
            ones = {n: np.ones(s[-1] * (s[0] if len(s) > 2 else 1), np.float32) for n, s in model["tensors"].items()}
            for preset, file_type in FILE_TYPES.items():
                for importance in (None, ones):
                    if not importance and preset in NEED_IMPORTANCE:
                        continue
                    llama_quantize(source, target, file_type, importance)
                    chosen = runs(types_of(target), names)
                    case["choices"][preset + ("+importance" if importance else "")] = chosen
        golden.append(case)
        print(title)
    about = f"Made by tools/make_preset_choices.py with llama-cpp-python {llama_cpp.__version__}."
    lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in golden)
    GOLDEN.write_text(f'{{"about": {json.dumps(about)}, "cases": [\n{lines}\n]}}\n')


def runs(types: dict[str, str], names: list[str]) -> str:
    """'q6_k q4_k*30 f32*3': equal neighbours counted."""
    groups = ((t, len(list(g))) for t, g in itertools.groupby(types[n] for n in names))
    return " ".join(t if n == 1 else f"{t}*{n}" for t, n in groups)


if __name__ == "__main__":
    main()
