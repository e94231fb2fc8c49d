"""Which format each tensor of a model gets under a preset such as q4_k_m: the same choices as llama.cpp.

A preset names a default format; `CHOICES` lists where it deviates. The facts come from llama.cpp's src/llama-quant.cpp.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple, Protocol

from edgequant._core import Error


class Preset(NamedTuple):
    """A named mixture of formats: `default` for most tensors, `CHOICES` for the others."""

    name: str
    default: str
    file_type: int  # general.file_type in GGUF files
    description: str
    wants_importance: bool = False  # llama.cpp refuses it without an importance matrix


PRESETS: dict[str, Preset] = {
    p.name: p
    for p in (
        Preset("f32", "f32", 0, "32-bit floats"),
        Preset("f16", "f16", 1, "16-bit floats; vectors stay f32"),
        Preset("bf16", "bf16", 32, "bfloat16; vectors stay f32"),
        Preset("q8_0", "q8_0", 7, "8 bits, next to lossless"),
        Preset("q6_k", "q6_k", 18, "6 bits, very close to the original"),
        Preset("q5_k_m", "q5_k", 17, "5 bits, sensitive tensors at 6: high quality"),
        Preset("q5_k_s", "q5_k", 16, "5 bits"),
        Preset("q5_1", "q5_1", 9, "5 bits with minimum, blocks of 32"),
        Preset("q5_0", "q5_0", 8, "5 bits, blocks of 32"),
        Preset("q4_k_m", "q4_k", 15, "4 bits, sensitive tensors at 6: the usual choice"),
        Preset("q4_k_s", "q4_k", 14, "4 bits, a few tensors at 5"),
        Preset("q4_1", "q4_1", 3, "4 bits with minimum, blocks of 32"),
        Preset("q4_0", "q4_0", 2, "4 bits, blocks of 32: fast everywhere"),
        Preset("iq4_nl", "iq4_nl", 25, "4 bits, non-linear table, blocks of 32"),
        Preset("iq4_xs", "iq4_xs", 30, "4 bits, non-linear table, blocks of 256"),
        Preset("q3_k_l", "q3_k", 13, "3 bits, sensitive tensors at 5"),
        Preset("q3_k_m", "q3_k", 12, "3 bits, sensitive tensors at 4 and 5"),
        Preset("q3_k_s", "q3_k", 11, "3 bits"),
        Preset("q2_k", "q2_k", 10, "2 bits, sensitive tensors at 3 and 4"),
        Preset("q2_k_s", "q2_k", 21, "2 bits", True),
        Preset("iq3_m", "iq3_s", 27, "3.4 bits on a grid, sensitive tensors at 4"),
        Preset("iq3_s", "iq3_s", 26, "3.4 bits on a grid"),
        Preset("iq3_xs", "iq3_s", 22, "3.4 and 3.1 bits on a grid", True),
        Preset("iq3_xxs", "iq3_xxs", 23, "3.1 bits on a grid", True),
        Preset("iq2_m", "iq2_s", 29, "2.6 bits on a grid, sensitive tensors at 3.4", True),
        Preset("iq2_s", "iq2_xs", 28, "2.3 bits on a grid, sensitive tensors at 3.4", True),
        Preset("iq2_xs", "iq2_xs", 20, "2.3 bits on a grid", True),
        Preset("iq2_xxs", "iq2_xxs", 19, "2.1 bits on a grid", True),
        Preset("iq1_m", "iq1_m", 31, "1.75 bits on a grid", True),
        Preset("iq1_s", "iq1_s", 24, "1.6 bits on a grid", True),
        Preset("tq2_0", "tq2_0", 37, "ternary in 2 bits, for ternary models"),
        Preset("tq1_0", "tq1_0", 36, "ternary in 1.6 bits, for ternary models"),
        Preset("mxfp4", "mxfp4", 38, "4-bit floats, blocks of 32; embeddings q8_0"),
        Preset("mxfp4_moe", "mxfp4", 38, "4-bit floats for experts, q8_0 for the rest"),
    )
}
ALIASES = {"q3_k": "q3_k_m", "q4_k": "q4_k_m", "q5_k": "q5_k_m"}


def find_preset(name: str) -> Preset:
    """The preset called `name`, in any case, aliases included. Raises Error with near matches."""
    key = name.lower()
    key = ALIASES.get(key, key)
    if key not in PRESETS:
        import difflib

        near = difflib.get_close_matches(key, [*PRESETS, *ALIASES], 3)
        hint = f"did you mean {' or '.join(near)}?" if near else "known: " + ", ".join(PRESETS)
        raise Error(f"unknown preset '{name}': {hint}")
    return PRESETS[key]


# ---- what a tensor is ----

# The first pair whose text occurs in the name gives the role. Fused projections that contain V count as V.
_ROLES = (
    ("attn_qkv.weight", "attn_v"),
    ("attn_kv_b.weight", "attn_v"),
    ("attn_v.weight", "attn_v"),
    ("attn_k.weight", "attn_k"),
    ("attn_q.weight", "attn_q"),
    ("attn_output.weight", "attn_output"),
    ("ffn_up", "ffn_up"),
    ("ffn_gate", "ffn_gate"),
    ("ffn_down", "ffn_down"),
)


def role_of(name: str) -> str:
    """output, embedding, attn_q, attn_k, attn_v, attn_output, ffn_up, ffn_gate, ffn_down or other."""
    if name == "output.weight":
        return "output"
    if name in ("token_embd.weight", "per_layer_token_embd.weight"):
        return "embedding"
    return next((role for text, role in _ROLES if text in name), "other")


# Small or sensitive matrices that no preset and no rule quantizes: a text in the name, and what it is.
_NEVER = (
    ("_norm.weight", "norm"),
    ("ffn_gate_inp.weight", "expert router"),
    ("ffn_gate_tid2eid.weight", "expert table"),
    ("altup", "small"),
    ("laurel", "small"),
    ("per_layer_model_proj", "small"),
    ("ssm_conv1d", "small convolution"),
    ("shortconv.conv.weight", "small convolution"),
    ("indexer.k_proj.weight", "small"),
    ("indexer.q_proj.weight", "small"),
    *((f"time_mix_{part}.weight", "small") for part in
      "first w0 w1 w2 v0 v1 v2 a0 a1 a2 g1 g2 decay_w1 decay_w2 lerp_fused".split()),
    ("attn_rel_b.weight", "relative positions"),
    (".position_embd", "positions"),
    ("sam.pos_embd", "positions"),
    ("sam.neck.", "vision"),
    ("sam.net_", "vision"),
    (".rel_pos", "positions"),
    (".patch_embd", "vision"),
    (".patch_merger", "vision"),
    ("a.rvq.codebook", "audio codebook"),
    ("mm.a.code_embd", "audio codebook"),
)  # fmt: skip
_NEVER_EXACT = {"position_embd.weight": "positions", "token_types.weight": "token types"}


def kept_because(name: str, shape: tuple[int, ...]) -> str | None:
    """Why a tensor is never quantized, or None if it may be. `shape` is row-major."""
    dims = len(shape) - next((k for k, n in enumerate(shape) if n != 1), len(shape) - 1)  # leading ones do not count
    if dims < 2:
        return "vector"
    if not name.endswith("weight"):
        return "not a weight"
    if name in _NEVER_EXACT:
        return _NEVER_EXACT[name]
    return next((what for text, what in _NEVER if text in name), None)


# ---- what the model is ----


class Facts(NamedTuple):
    """What the choices depend on, besides the tensor."""

    architecture: str
    layers: int
    experts: int = 0
    gqa: int = 1  # query heads per key/value head
    tied: bool = False  # no output.weight: the embedding is the output matrix too
    importance: bool = False
    seventy_b: bool = False  # Llama 2 70B and its kin, whose small attn_v gets more bits


# Layer counts by which llama.cpp knows a 70B model.
_SEVENTY_B = {"llama": 80, "qwen2": 80, "deci": 80, "olmo": 80, "jais2": 68}


class Metadata(Protocol):
    """What is read of GGUF metadata: a mapping, or what `_core` holds of a file."""

    def get(self, key: str, default: Any = None, /) -> Any: ...


def facts_of(metadata: Metadata, names: list[str], importance: bool = False) -> Facts:
    """Reads the facts from GGUF metadata and tensor names."""
    arch = str(metadata.get("general.architecture", ""))

    def number(key: str, default: int) -> int:
        value = metadata.get(f"{arch}.{key}", default)
        if hasattr(value, "__len__") and not isinstance(value, str):  # one number per layer: the first counts
            value = value[0] if len(value) else default
        return int(value)

    heads = number("attention.head_count", 0)
    kv_heads = number("attention.head_count_kv", heads)
    layers = number("block_count", 0)
    dense_layers = layers - number("nextn_predict_layers", 0)
    return Facts(
        architecture=arch,
        layers=layers,
        experts=number("expert_count", 0),
        gqa=heads // kv_heads if kv_heads > 0 else 0,
        tied="output.weight" not in names,
        importance=importance,
        seventy_b=_SEVENTY_B.get(arch) == dense_layers and (arch != "llama" or heads != kv_heads),
    )


# ---- what each preset chooses ----


class Spot(NamedTuple):
    """One tensor at the moment of choice: number `i` of `n` of its role."""

    facts: Facts
    i: int
    n: int
    uneven: bool  # its rows do not divide the block of the preset's default format
    stacked: bool  # one matrix per expert


When = Callable[[Spot], bool]


def always(s: Spot) -> bool:
    return True


def falcon(s: Spot) -> bool:
    return s.facts.architecture == "falcon"


def eight_experts(s: Spot) -> bool:
    return s.facts.experts == 8


def importance(s: Spot) -> bool:
    return s.facts.importance


def four_experts(s: Spot) -> bool:
    return s.facts.experts >= 4


def seventy_b(s: Spot) -> bool:
    return s.facts.seventy_b


def gqa4(s: Spot) -> bool:
    return s.facts.gqa >= 4


def more_bits(s: Spot) -> bool:
    """The first and the last eighth of the layers, and every third between them."""
    return s.i < s.n // 8 or s.i >= 7 * s.n // 8 or (s.i - s.n // 8) % 3 == 2


def first_eighth(s: Spot) -> bool:
    return s.i < s.n // 8


def first_sixteenth(s: Spot) -> bool:
    return s.i < s.n // 16


def both(*conditions: When) -> When:
    return lambda s: all(c(s) for c in conditions)


def either(*conditions: When) -> When:
    return lambda s: any(c(s) for c in conditions)


def no(condition: When) -> When:
    return lambda s: not condition(s)


def middle(s: Spot) -> bool:
    """All layers but the first and the last eighth."""
    return s.n // 8 <= s.i < 7 * s.n // 8


class Choice(NamedTuple):
    """One deviation from the default: roles (or any), presets (names, or * for all), format, condition."""

    role: str  # one or several
    presets: str
    format: str
    when: When = always


# The first row that fits decides; without one the tensor gets the preset's default. Role `head` is output.weight, or
# the token embedding where it serves as output too; `embedding` is one that does not.
CHOICES = (
    Choice("head", "mxfp4 mxfp4_moe", "q8_0"),
    Choice("head", "*", "q8_0", either(falcon, lambda s: s.uneven)),
    Choice("head", "q8_0", "q8_0"),
    Choice("head", "iq3_xxs iq2_m iq2_s iq2_xs iq2_xxs iq1_m iq1_s", "q5_k"),
    Choice("head", "*", "q6_k"),
    Choice("any", "mxfp4_moe", "mxfp4", lambda s: s.stacked),
    Choice("any", "mxfp4_moe", "q8_0"),
    Choice("embedding", "mxfp4", "q8_0"),
    Choice("embedding", "tq1_0 tq2_0", "q4_k"),
    Choice("embedding", "iq3_xxs iq2_m iq2_s", "iq3_s"),
    Choice("embedding", "iq2_xs iq2_xxs iq1_m iq1_s", "q2_k"),
    # At 1 to 2 bits the sensitive tensors get a multiple of the others' bits.
    Choice("attn_v", "iq2_m iq2_s iq2_xs iq2_xxs iq1_m iq1_s", "q4_k", either(gqa4, four_experts)),
    Choice("attn_v", "iq2_m iq2_s", "iq3_s"),
    Choice("attn_v", "iq2_xs iq2_xxs iq1_m iq1_s", "q2_k"),
    Choice("attn_k", "iq2_m iq2_s iq2_xs iq2_xxs iq1_m iq1_s", "q4_k", eight_experts),
    Choice("ffn_down", "iq2_m iq2_s", "iq3_s", first_eighth),
    Choice("ffn_down", "iq2_xs iq2_xxs iq1_m iq1_s", "q2_k", first_eighth),
    Choice("attn_output", "iq2_m iq2_s iq2_xs iq2_xxs iq1_m iq1_s", "q5_k", eight_experts),
    Choice("attn_output", "iq2_m iq2_s", "iq3_s"),
    Choice("attn_output", "iq1_m iq1_s", "iq2_xxs"),
    # V is small where heads share it, and errors in it go straight to the output.
    Choice("attn_v", "*", "q8_0", eight_experts),
    Choice("attn_v", "q4_k_m q5_k_m", "q6_k", more_bits),
    Choice("attn_v", "q2_k q3_k_s q3_k_m q4_k_s q4_k_m iq3_m", "q5_k", seventy_b),
    Choice("attn_v", "q2_k_s iq3_xxs iq3_xs iq3_s", "q5_k", both(seventy_b, gqa4)),
    Choice("attn_v", "q2_k q2_k_s", "q4_k", gqa4),
    Choice("attn_v", "q2_k", "q3_k"),
    Choice("attn_v", "q3_k_m", "q5_k", lambda s: s.i < 2),
    Choice("attn_v", "q3_k_m", "q4_k"),
    Choice("attn_v", "q3_k_l", "q5_k"),
    Choice("attn_v", "q4_k_s", "q5_k", lambda s: s.i < 4),
    Choice("attn_v", "iq4_nl iq4_xs", "q5_k", gqa4),
    Choice("attn_v", "iq3_xxs iq3_xs iq3_s", "q4_k", gqa4),
    Choice("attn_v", "iq3_xxs", "iq3_s", no(importance)),
    Choice("attn_v", "iq3_m", "q4_k"),
    Choice("attn_k", "*", "q8_0", eight_experts),
    Choice("attn_k attn_q", "iq3_xs", "iq3_xxs"),
    Choice("attn_k attn_q", "iq3_xxs", "iq2_s"),
    Choice("ffn_gate ffn_up", "iq3_xs", "iq3_xxs", middle),
    Choice("attn_output", "q3_k_l", "q4_k", falcon),
    Choice("attn_output", "q2_k q3_k_s q3_k_m q4_k_s q4_k_m iq4_nl iq4_xs", "q5_k", both(no(falcon), eight_experts)),
    Choice("attn_output", "iq3_m iq3_s iq3_xs iq3_xxs", "q5_k", both(no(falcon), eight_experts)),
    Choice("attn_output", "q2_k", "q3_k", both(no(falcon), no(eight_experts))),
    Choice("attn_output", "q3_k_m", "q4_k", both(no(falcon), no(eight_experts))),
    Choice("attn_output", "q3_k_l", "q5_k", both(no(falcon), no(eight_experts))),
    Choice("attn_output", "iq3_xxs", "iq3_s", both(no(falcon), no(eight_experts))),
    Choice("attn_output", "iq3_m", "q4_k", both(no(falcon), no(eight_experts))),
    Choice("ffn_down", "q2_k", "q3_k"),
    Choice("ffn_down", "q2_k_s", "q4_k", first_eighth),
    Choice("ffn_down", "q3_k_m", "q5_k", first_sixteenth),
    Choice("ffn_down", "q3_k_m", "q4_k", either(no(falcon), more_bits)),
    Choice("ffn_down", "iq3_xxs", "q4_k", both(no(importance), first_eighth)),
    Choice("ffn_down", "iq3_xxs", "q3_k", no(importance)),
    Choice("ffn_down", "iq3_m", "q4_k", either(first_eighth, both(eight_experts, more_bits))),
    Choice("ffn_down", "q3_k_l", "q4_k", falcon),
    Choice("ffn_down", "q3_k_l", "q5_k"),
    Choice("ffn_down", "q4_k_s", "q5_k", both(no(falcon), first_eighth)),
    Choice("ffn_down", "q4_k_m", "q6_k", both(falcon, first_sixteenth)),
    Choice("ffn_down", "q4_k_m", "q5_k", both(falcon, more_bits)),
    Choice("ffn_down", "q4_k_m", "q6_k", both(no(falcon), more_bits)),
    Choice("ffn_down", "q5_k_m", "q6_k", more_bits),
    Choice("ffn_down", "iq4_nl iq4_xs", "q5_k", both(no(importance), first_eighth)),
    # With an importance matrix the symmetric formats can fail badly in the first layers.
    Choice("ffn_down", "q4_0", "q4_1", both(importance, first_eighth)),
    Choice("ffn_down", "q5_0", "q5_1", both(importance, first_eighth)),
)


def choose(preset: Preset, role: str, spot: Spot) -> str:
    """The format of a tensor that may be quantized, before the fallback for uneven rows."""
    if preset.default in ("f32", "f16", "bf16"):
        return preset.default
    if role == "output" or (role == "embedding" and spot.facts.tied):
        role = "head"
    rows = _rows(preset.name, role)
    return next((row.format for row in rows if row.when(spot)), preset.default)


@cache
def _rows(preset: str, role: str) -> list[Choice]:
    def concerns(c: Choice) -> bool:
        return (c.role == "any" or role in c.role.split()) and (c.presets == "*" or preset in c.presets.split())

    return [c for c in CHOICES if concerns(c)]


# Where rows do not divide the block: a format of blocks of 32 with at least as many bits; where that fails too, f16.
FALLBACKS = {
    "q2_k": "q4_0",
    "q3_k": "q4_0",
    "q4_k": "q5_0",
    "q5_k": "q5_1",
    "q6_k": "q8_0",
    "tq1_0": "q4_0",
    "tq2_0": "q4_0",
    "q2_0": "q4_0",
    "iq4_xs": "iq4_nl",
    "iq3_s": "iq4_nl",
    "iq3_xxs": "iq4_nl",
    "iq2_s": "iq4_nl",
    "iq2_xs": "iq4_nl",
    "iq2_xxs": "iq4_nl",
    "iq1_m": "iq4_nl",
    "iq1_s": "iq4_nl",
}


def fallback(format: str, cols: int, block_of: Callable[[str], int]) -> str:
    """`format` if rows of `cols` weights divide its block, else the format that takes its place."""
    if cols % block_of(format) == 0:
        return format
    substitute = FALLBACKS.get(format, format)
    return substitute if cols % block_of(substitute) == 0 else "f16"
