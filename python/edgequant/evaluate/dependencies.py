"""The optional packages of this part of edgequant, imported on first use with a sentence that says how to get them."""

from __future__ import annotations

import importlib
from types import ModuleType

from edgequant._core import Error


def require(name: str, extra: str) -> ModuleType:
    """Imports an optional package.

    Args:
        name: module to import, for example "torch".
        extra: the extra of edgequant that brings it, for example "hf".

    Raises:
        Error: the package is absent; the sentence holds the pip command.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise Error(f"this needs the package {package}: pip install 'edgequant[{extra}]' ({error})") from error
