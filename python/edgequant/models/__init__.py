"""Models as sources and back: Hugging Face directories and GGUF files, read lazily, and the mapping between them."""

from typing import TYPE_CHECKING, Any

from .model import Model, ModelTensor, open_model

if TYPE_CHECKING:
    from .export import export_huggingface

__all__ = ["Model", "ModelTensor", "export_huggingface", "open_model"]


def __getattr__(name: str) -> Any:  # quantizing does not export, and starts sooner without it
    if name == "export_huggingface":
        from .export import export_huggingface

        return export_huggingface
    raise AttributeError(f"module 'edgequant.models' has no attribute '{name}'")
