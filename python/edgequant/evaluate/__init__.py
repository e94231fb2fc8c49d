"""How good a quantized model still is: perplexity, divergence from a reference, embedding agreement, weight error.

`evaluate` is the one entry; the modules below it hold one measure each. Needs torch and transformers (`edgequant[hf]`),
which are imported only when something is measured.
"""

import sys
from types import ModuleType
from typing import Any

from edgequant.evaluate.measure import evaluate
from edgequant.evaluate.reference import Reference, save_reference
from edgequant.evaluate.report import Evaluation

__all__ = ["Evaluation", "Reference", "evaluate", "save_reference"]


class _Callable(ModuleType):
    """Lets `edgequant.evaluate(...)` work also where importing this package has put it in the function's place."""

    def __call__(self, *args: Any, **kwargs: Any) -> Evaluation:
        return evaluate(*args, **kwargs)


sys.modules[__name__].__class__ = _Callable
