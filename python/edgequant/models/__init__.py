"""Models as sources and back: Hugging Face directories and GGUF files, read lazily, and the mapping between them."""

from .export import export_huggingface
from .model import Model, ModelTensor, open_model

__all__ = ["Model", "ModelTensor", "export_huggingface", "open_model"]
