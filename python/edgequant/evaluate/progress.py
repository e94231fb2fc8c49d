"""Progress of an evaluation on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def bars(enabled: bool = True) -> Iterator[Callable[[str, int, int], None] | None]:
    """One tqdm bar per measured model; gives the callback that `evaluate` takes, or None where not enabled."""
    if not enabled:
        yield None
        return
    from tqdm import tqdm

    open_bars: dict[str, tqdm] = {}

    def progress(what: str, done: int, total: int) -> None:
        if what not in open_bars:
            open_bars[what] = tqdm(total=total, desc=what, leave=False)
        open_bars[what].update(done - open_bars[what].n)

    try:
        yield progress
    finally:
        for bar in open_bars.values():
            bar.close()
