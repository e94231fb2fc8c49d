"""The optional packages of this part of edgequant, imported on first use with a sentence that says how to get them."""

from __future__ import annotations

import importlib
from types import ModuleType

from edgequant._core import Error

EXTRAS = ("hf", "plot")


def require(name: str, requirement: str) -> ModuleType:
    """Imports an optional package.

    Args:
        name: module to import, for example "torch".
        requirement: what to install: an extra of edgequant such as "hf", or the packages' own names.

    Raises:
        Error: the package is absent; the sentence holds the pip command.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        what = f"'edgequant[{requirement}]'" if requirement in EXTRAS else requirement
        raise Error(f"this needs the package {package}: pip install {what} ({error})") from error
