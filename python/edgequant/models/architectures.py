"""The architectures as data: how tensors and hyper-parameters are called in Hugging Face and in GGUF.

One table per architecture, read in both directions. Facts: transformers' modelling files and llama.cpp's loader.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Rule:
    """One line of a tensor table.

    `gguf` and `hf` are names in which "*" stands for the block's number; `hf` is below the base model's prefix
    ("model.", "bert." ...), or absolute where it starts with "/". `shape` spells the dimensions, outermost first, in
    the letters of `hyperparameters.dimensions`. `change` says how values differ: "rope_q", "rope_k" (rows of each
    head interleaved instead of split in halves), "plus_one" (GGUF stores 1 + weight), or "" for equal.
    """

    gguf: str
    hf: str
    shape: tuple[str, ...]
    change: str = ""
    required: bool = True


@dataclass(frozen=True)
class Parameter:
    """One line of a hyper-parameter table: GGUF's key (below the architecture's name), config.json's key, a type."""

    gguf: str
    hf: str
    type: str  # "u32" or "f32"


@dataclass(frozen=True)
class Architecture:
    """What edgequant knows of one architecture; see the instances below."""

    name: str
    """GGUF's name."""
    classes: tuple[str, ...]
    """Classes in config.json's `architectures`; the first is written on the way back."""
    model_types: tuple[str, ...]
    anchor: str
    """The embedding's name below the prefix: where it is found, the prefix is known."""
    tensors: tuple[Rule, ...]
    parameters: tuple[Parameter, ...]
    defaults: dict[str, Any] = field(default_factory=dict)
    """transformers' defaults of config.json keys that real models leave out."""
    expects: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    """config.json values that llama.cpp's graph takes for granted; any other is refused."""
    config: dict[str, Any] = field(default_factory=dict)
    """Constant entries of a config.json that is written from a GGUF."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """Constant GGUF metadata, keys below the architecture's name."""
    ignored: tuple[str, ...] = ()
    """Regular expressions of HF tensors that have no place in a GGUF of this architecture."""
    extra_tensors: tuple[str, ...] = ()
    """GGUF tensors computed from config.json."""

    def expand(self, blocks: int) -> Iterator[tuple[Rule, str, str]]:
        """Yields (rule, GGUF name, HF name below the prefix) of a model with that many blocks, in file order."""
        head = [rule for rule in self.tensors if "*" not in rule.gguf]
        body = [rule for rule in self.tensors if "*" in rule.gguf]
        for rule in (rule for rule in head if not rule.gguf.startswith("output")):
            yield rule, rule.gguf, rule.hf
        for block in range(blocks):
            for rule in body:
                yield rule, rule.gguf.replace("*", str(block)), rule.hf.replace("*", str(block))
        for rule in (rule for rule in head if rule.gguf.startswith("output")):
            yield rule, rule.gguf, rule.hf


def _rules(text: str) -> tuple[Rule, ...]:
    """Parses lines `gguf  hf  shape[:change]`; the shape is "a,b", a "?" after the GGUF name marks it optional.

    "blk.*." and "layers.*." are implied by a leading "*.".
    """
    rules = []
    for line in filter(None, text.splitlines()):
        gguf, hf, last = line.split()
        shape, _, change = last.partition(":")
        gguf = gguf.replace("*.", "blk.*.", 1)
        rules.append(Rule(gguf.rstrip("?"), hf, tuple(shape.split(",")), change, not gguf.endswith("?")))
    return tuple(rules)


def _parameters(text: str) -> tuple[Parameter, ...]:
    return tuple(Parameter(*line.split()) for line in filter(None, text.splitlines()))


_DECODER_PARAMETERS = """
context_length                     max_position_embeddings  u32
embedding_length                   hidden_size              u32
block_count                        num_hidden_layers        u32
feed_forward_length                intermediate_size        u32
attention.head_count               num_attention_heads      u32
attention.head_count_kv            num_key_value_heads      u32
attention.layer_norm_rms_epsilon   rms_norm_eps             f32
vocab_size                         vocab_size               u32
"""

_HEAD_PARAMETERS = """
attention.key_length               head_dim                 u32
attention.value_length             head_dim                 u32
"""

_DECODER_HEAD = """
token_embd.weight             embed_tokens.weight                          v,d
output_norm.weight            norm.weight                                  d
output.weight?                /lm_head.weight                              v,d
*.attn_norm.weight            layers.*.input_layernorm.weight              d
"""

_ATTENTION = """
*.attn_q.weight               layers.*.self_attn.q_proj.weight             q,d
*.attn_q.bias?                layers.*.self_attn.q_proj.bias               q
*.attn_k.weight               layers.*.self_attn.k_proj.weight             k,d
*.attn_k.bias?                layers.*.self_attn.k_proj.bias               k
*.attn_v.weight               layers.*.self_attn.v_proj.weight             k,d
*.attn_v.bias?                layers.*.self_attn.v_proj.bias               k
*.attn_output.weight          layers.*.self_attn.o_proj.weight             d,q
*.attn_output.bias?           layers.*.self_attn.o_proj.bias               d
"""

_MLP = """
*.ffn_norm.weight             layers.*.post_attention_layernorm.weight     d
*.ffn_gate.weight             layers.*.mlp.gate_proj.weight                f,d
*.ffn_up.weight               layers.*.mlp.up_proj.weight                  f,d
*.ffn_down.weight             layers.*.mlp.down_proj.weight                d,f
"""

_ROTARY_BUFFERS = (r"rotary_emb\.(inv_freq|cos_cached|sin_cached)$",)
_LLAMA_DEFAULTS = {"rms_norm_eps": 1e-6, "rope_theta": 10000.0, "tie_word_embeddings": False, "hidden_act": "silu"}

LLAMA = Architecture(
    name="llama",
    classes=("LlamaForCausalLM", "MistralForCausalLM", "LlamaModel", "MistralModel"),
    model_types=("llama", "mistral"),
    anchor="embed_tokens.weight",
    # llama.cpp rotates pairs of neighbours here, transformers pairs that are half a head apart.
    tensors=_rules(
        _DECODER_HEAD
        + """
*.attn_q.weight               layers.*.self_attn.q_proj.weight             q,d:rope_q
*.attn_q.bias?                layers.*.self_attn.q_proj.bias               q:rope_q
*.attn_k.weight               layers.*.self_attn.k_proj.weight             k,d:rope_k
*.attn_k.bias?                layers.*.self_attn.k_proj.bias               k:rope_k
*.attn_v.weight               layers.*.self_attn.v_proj.weight             k,d
*.attn_v.bias?                layers.*.self_attn.v_proj.bias               k
*.attn_output.weight          layers.*.self_attn.o_proj.weight             d,q
*.attn_output.bias?           layers.*.self_attn.o_proj.bias               d
"""
        + _MLP
        + """
*.ffn_gate.bias?              layers.*.mlp.gate_proj.bias                  f
*.ffn_up.bias?                layers.*.mlp.up_proj.bias                    f
*.ffn_down.bias?              layers.*.mlp.down_proj.bias                  d
"""
    ),
    parameters=_parameters(_DECODER_PARAMETERS + _HEAD_PARAMETERS),
    defaults=_LLAMA_DEFAULTS,
    expects={"hidden_act": ("silu",)},
    config={"model_type": "llama", "hidden_act": "silu", "attention_bias": False, "mlp_bias": False},
    ignored=_ROTARY_BUFFERS,
    extra_tensors=("rope_freqs.weight",),
)

QWEN2 = Architecture(
    name="qwen2",
    classes=("Qwen2ForCausalLM", "Qwen2Model"),
    model_types=("qwen2",),
    anchor="embed_tokens.weight",
    tensors=_rules(_DECODER_HEAD + _ATTENTION + _MLP),
    parameters=_parameters(_DECODER_PARAMETERS),
    defaults=_LLAMA_DEFAULTS,
    expects={"hidden_act": ("silu",)},
    config={"model_type": "qwen2", "hidden_act": "silu", "use_sliding_window": False},
    ignored=_ROTARY_BUFFERS,
)

QWEN3 = Architecture(
    name="qwen3",
    classes=("Qwen3ForCausalLM", "Qwen3Model"),
    model_types=("qwen3",),
    anchor="embed_tokens.weight",
    tensors=_rules(
        _DECODER_HEAD
        + _ATTENTION
        + """
*.attn_q_norm.weight          layers.*.self_attn.q_norm.weight             h
*.attn_k_norm.weight          layers.*.self_attn.k_norm.weight             h
"""
        + _MLP
    ),
    parameters=_parameters(_DECODER_PARAMETERS + _HEAD_PARAMETERS),
    defaults={**_LLAMA_DEFAULTS, "head_dim": 128},
    expects={"hidden_act": ("silu",)},
    config={"model_type": "qwen3", "hidden_act": "silu", "use_sliding_window": False, "attention_bias": False},
    ignored=_ROTARY_BUFFERS,
)

GEMMA3 = Architecture(
    name="gemma3",
    classes=("Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"),
    model_types=("gemma3_text", "gemma3"),
    anchor="embed_tokens.weight",
    # Gemma's norms multiply by 1 + weight; GGUF stores the sum, so llama.cpp has one norm for all models.
    tensors=_rules(
        """
token_embd.weight             embed_tokens.weight                          v,d
output_norm.weight            norm.weight                                  d:plus_one
output.weight?                /lm_head.weight                              v,d
*.attn_norm.weight            layers.*.input_layernorm.weight              d:plus_one
*.attn_q_norm.weight          layers.*.self_attn.q_norm.weight             h:plus_one
*.attn_k_norm.weight          layers.*.self_attn.k_norm.weight             h:plus_one
"""
        + _ATTENTION
        + """
*.post_attention_norm.weight  layers.*.post_attention_layernorm.weight     d:plus_one
*.ffn_norm.weight             layers.*.pre_feedforward_layernorm.weight    d:plus_one
*.ffn_gate.weight             layers.*.mlp.gate_proj.weight                f,d
*.ffn_up.weight               layers.*.mlp.up_proj.weight                  f,d
*.ffn_down.weight             layers.*.mlp.down_proj.weight                d,f
*.post_ffw_norm.weight        layers.*.post_feedforward_layernorm.weight   d:plus_one
"""
    ),
    parameters=_parameters(_DECODER_PARAMETERS + _HEAD_PARAMETERS),
    # Multimodal checkpoints leave out most of text_config.
    defaults={
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e6,
        "rope_local_base_freq": 10000.0,
        "tie_word_embeddings": True,
        "hidden_activation": "gelu_pytorch_tanh",
        "head_dim": 256,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "vocab_size": 262208,
        "max_position_embeddings": 131072,
        "sliding_window": 4096,
        "sliding_window_pattern": 6,
        "query_pre_attn_scalar": 256,
    },
    expects={
        "hidden_activation": ("gelu_pytorch_tanh",),
        "attn_logit_softcapping": (None,),
        "use_bidirectional_attention": (None, False),
    },
    config={"model_type": "gemma3_text", "hidden_activation": "gelu_pytorch_tanh", "attention_bias": False},
    ignored=(*_ROTARY_BUFFERS, r"(^|\.)vision_tower\.", r"(^|\.)multi_modal_projector\."),
)

PHI3 = Architecture(
    name="phi3",
    classes=("Phi3ForCausalLM",),
    model_types=("phi3",),
    anchor="embed_tokens.weight",
    # Both sides keep query, key and value, and gate and up, in one matrix.
    tensors=_rules(
        _DECODER_HEAD
        + """
*.attn_qkv.weight             layers.*.self_attn.qkv_proj.weight           q+2k,d
*.attn_output.weight          layers.*.self_attn.o_proj.weight             d,q
*.ffn_norm.weight             layers.*.post_attention_layernorm.weight     d
*.ffn_up.weight               layers.*.mlp.gate_up_proj.weight             2f,d
*.ffn_down.weight             layers.*.mlp.down_proj.weight                d,f
"""
    ),
    parameters=_parameters(_DECODER_PARAMETERS),
    defaults={**_LLAMA_DEFAULTS, "rms_norm_eps": 1e-5, "max_position_embeddings": 4096, "partial_rotary_factor": 1.0},
    expects={"hidden_act": ("silu",)},
    config={"model_type": "phi3", "hidden_act": "silu"},
    ignored=_ROTARY_BUFFERS,
    extra_tensors=("rope_factors_long.weight", "rope_factors_short.weight"),
)

BERT = Architecture(
    name="bert",
    classes=("BertModel", "BertForMaskedLM"),
    model_types=("bert",),
    anchor="embeddings.word_embeddings.weight",
    tensors=_rules("""
token_embd.weight             embeddings.word_embeddings.weight                 v,d
token_types.weight            embeddings.token_type_embeddings.weight           t,d
position_embd.weight          embeddings.position_embeddings.weight             p,d
token_embd_norm.weight        embeddings.LayerNorm.weight                       d
token_embd_norm.bias          embeddings.LayerNorm.bias                         d
*.attn_q.weight               encoder.layer.*.attention.self.query.weight       d,d
*.attn_q.bias                 encoder.layer.*.attention.self.query.bias         d
*.attn_k.weight               encoder.layer.*.attention.self.key.weight         d,d
*.attn_k.bias                 encoder.layer.*.attention.self.key.bias           d
*.attn_v.weight               encoder.layer.*.attention.self.value.weight       d,d
*.attn_v.bias                 encoder.layer.*.attention.self.value.bias         d
*.attn_output.weight          encoder.layer.*.attention.output.dense.weight     d,d
*.attn_output.bias            encoder.layer.*.attention.output.dense.bias       d
*.attn_output_norm.weight     encoder.layer.*.attention.output.LayerNorm.weight d
*.attn_output_norm.bias       encoder.layer.*.attention.output.LayerNorm.bias   d
*.ffn_up.weight               encoder.layer.*.intermediate.dense.weight         f,d
*.ffn_up.bias                 encoder.layer.*.intermediate.dense.bias           f
*.ffn_down.weight             encoder.layer.*.output.dense.weight               d,f
*.ffn_down.bias               encoder.layer.*.output.dense.bias                 d
*.layer_output_norm.weight    encoder.layer.*.output.LayerNorm.weight           d
*.layer_output_norm.bias      encoder.layer.*.output.LayerNorm.bias             d
"""),
    parameters=_parameters("""
context_length                     max_position_embeddings  u32
embedding_length                   hidden_size              u32
block_count                        num_hidden_layers        u32
feed_forward_length                intermediate_size        u32
attention.head_count               num_attention_heads      u32
attention.layer_norm_epsilon       layer_norm_eps           f32
vocab_size                         vocab_size               u32
"""),
    defaults={"hidden_act": "gelu", "layer_norm_eps": 1e-12, "type_vocab_size": 2},
    expects={"hidden_act": ("gelu",), "position_embedding_type": (None, "absolute"), "is_decoder": (None, False)},
    config={"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"},
    metadata={"attention.causal": False},
    # llama.cpp computes embeddings: it has no use for the tanh pooler or the language-model head.
    ignored=(r"(^|\.)position_ids$", r"^(bert\.)?pooler\.", r"^cls\."),
)

ARCHITECTURES = {a.name: a for a in (LLAMA, QWEN2, QWEN3, GEMMA3, PHI3, BERT)}
"""Every architecture by GGUF's name."""
