"""One set of worker threads for PyTorch and edgequant.

Both pools keep their workers awake for a while after each job, PyTorch's for milliseconds. Between them, generation
would have twice as many busy threads as there are cores.
"""

from __future__ import annotations

import ctypes
import os
from typing import Any

from edgequant import _core


def share_openmp() -> bool:
    """Lets the core run on the workers of the GNU OpenMP library that PyTorch has loaded, whenever PyTorch uses as many
    threads as edgequant (`torch.set_num_threads`, `edgequant.set_num_threads`); returns whether there is one."""
    try:
        with open("/proc/self/maps") as maps:
            paths = {line.split(None, 5)[-1].strip() for line in maps if "libgomp" in line}
        if len(paths) != 1:  # several would not be one set of threads
            return False
        library = ctypes.CDLL(paths.pop(), mode=os.RTLD_NOLOAD | os.RTLD_LAZY)
        parallel, max_threads = map(_address, (library.GOMP_parallel, library.omp_get_max_threads))
    except (OSError, AttributeError):
        return False
    _core.share_openmp(parallel, max_threads)
    return True


def _address(function: Any) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0
