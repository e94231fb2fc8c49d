"""The presets choose the format of every tensor as llama.cpp does."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from edgequant import Error
from edgequant.plan import make_plan, parse_rule, parse_rules
from edgequant.presets import ALIASES, PRESETS, find_preset, kept_because

GOLDEN = json.loads((Path(__file__).parent.parent / "golden" / "preset_choices.json").read_text())


@dataclass
class Tensor:
    name: str
    shape: tuple[int, ...]
    format: str


def expand(runs: str) -> list[str]:
    pairs = (part.partition("*") for part in runs.split())
    return [name for name, _, count in pairs for _ in range(int(count or 1))]


def model(case: dict) -> tuple[list[Tensor], dict[str, object]]:
    formats = expand(case["source"])
    tensors = [Tensor(n, tuple(s), f) for (n, s), f in zip(case["tensors"].items(), formats, strict=True)]
    arch = case["architecture"]
    return tensors, {"general.architecture": arch, **{f"{arch}.{k}": v for k, v in case["metadata"].items()}}


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda c: c["title"])
def test_choices_are_those_of_llama_cpp(case: dict) -> None:
    tensors, metadata = model(case)
    assert len(case["choices"]) == 57
    for key, runs in case["choices"].items():
        preset, _, importance = key.partition("+")
        plans = make_plan(tensors, metadata, find_preset(preset), importance=bool(importance))
        wrong = {p.name: (p.target, want) for p, want in zip(plans, expand(runs), strict=True) if p.target != want}
        assert not wrong, key


def test_every_preset_is_compared() -> None:
    compared = {key.partition("+")[0] for key in GOLDEN["cases"][0]["choices"]}
    assert set(PRESETS) - compared == {"mxfp4"}  # ours: llama.cpp has no MXFP4 preset for dense models


def tiny(**shapes: tuple[int, ...]) -> list[Tensor]:
    names = {"up": "blk.0.ffn_up.weight", "down": "blk.0.ffn_down.weight", "norm": "blk.0.attn_norm.weight"}
    return [Tensor(names[k], s, "bf16") for k, s in shapes.items()]


META = {"general.architecture": "llama", "llama.block_count": 1, "llama.attention.head_count": 4}


def test_fallback_is_reported() -> None:
    plans = make_plan(tiny(up=(8, 320), down=(8, 100)), META, find_preset("q4_k_s"))
    assert [(p.target, p.wanted) for p in plans] == [("q5_0", "q4_k"), ("f16", "q4_k")]
    assert plans[0].nbytes == 8 * 320 // 32 * 22 and plans[1].nbytes == 1600


def test_rules_decide_before_the_preset() -> None:
    tensors = tiny(up=(8, 256), down=(8, 256), norm=(256,))
    rules = parse_rules(["ffn_(up|gate)=Q8_0", "ffn_.*=keep"])
    plans = make_plan(tensors, META, find_preset("q4_k_m"), rules)
    assert [p.target for p in plans] == ["q8_0", "bf16", "bf16"]  # norms are never quantized
    assert plans[0].reason == "rule ffn_(up|gate)=q8_0"


def test_a_rule_leaves_the_choices_of_other_tensors() -> None:
    case = next(c for c in GOLDEN["cases"] if c["title"].startswith("llama, 32"))
    tensors, metadata = model(case)
    plain = make_plan(tensors, metadata, find_preset("q4_k_m"))
    ruled = make_plan(tensors, metadata, find_preset("q4_k_m"), parse_rules([r"^blk\.0\.ffn_down=q8_0"]))
    assert [p.name for p, q in zip(plain, ruled, strict=True) if p.target != q.target] == ["blk.0.ffn_down.weight"]


def test_floats_of_model_directories_become_f32() -> None:
    plans = make_plan(tiny(up=(8, 256), norm=(256,)), META, find_preset("q8_0"), floats_to_f32=True)
    assert [p.target for p in plans] == ["q8_0", "f32"]


@pytest.mark.parametrize("text", ["ffn_up", "=q8_0", "(=q8_0", "ffn=q4_k_m", "ffn=q9_9"])
def test_bad_rules(text: str) -> None:
    with pytest.raises(Error):
        parse_rule(text)


def test_a_rule_without_effect_is_an_error() -> None:
    with pytest.raises(Error, match="ffn_upp=q8_0"):
        make_plan(tiny(up=(8, 256)), META, find_preset("q4_0"), parse_rules({"ffn_upp": "q8_0"}))


def test_names() -> None:
    assert find_preset("Q4_K_M").default == "q4_k"
    assert all(find_preset(a).name == p for a, p in ALIASES.items())
    with pytest.raises(Error, match="did you mean q4_k_m"):
        find_preset("q4_km")


def test_what_is_never_quantized() -> None:
    assert kept_because("blk.0.attn_norm.weight", (64,)) == "vector"
    assert kept_because("position_embd.weight", (512, 64)) == "positions"
    assert kept_because("blk.0.ffn_gate_inp.weight", (8, 64)) == "expert router"
    assert kept_because("blk.0.attn_q.bias", (1, 64)) == "vector"
    assert kept_because("blk.0.attn_q.weight", (64, 64)) is None


def test_experts_need_a_layer_in_their_name() -> None:
    tensors = [Tensor("ffn_down_exps.weight", (8, 4, 256), "f16")]
    with pytest.raises(Error, match=r"ffn_down_exps\.weight"):
        make_plan(tensors, {**META, "llama.expert_count": 8}, find_preset("q4_k_m"))
