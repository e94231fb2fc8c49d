"""edgequant in transformers: importing this registers the quantization method "edgequant".

    from edgequant.transformers import EdgeQuantConfig, load_gguf, load_gguf_tokenizer
    model = AutoModelForCausalLM.from_pretrained(path, quantization_config=EdgeQuantConfig("q4_k_m"))
    model.save_pretrained("packed/"); model = AutoModelForCausalLM.from_pretrained("packed/")
    model, tokenizer = load_gguf("model.gguf"), load_gguf_tokenizer("model.gguf")    # stays quantized
"""

from __future__ import annotations

from edgequant.transformers.gguf import load_gguf, load_gguf_tokenizer
from edgequant.transformers.quantizer import EdgeQuantConfig, EdgeQuantizer, quantize_pretrained

__all__ = ["EdgeQuantConfig", "EdgeQuantizer", "load_gguf", "load_gguf_tokenizer", "quantize_pretrained"]
