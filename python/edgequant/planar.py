"""The planar formats of other ecosystems: codes, scales and zeros as arrays of their own.

`planar_list` describes them, each in a few lines of data.

Example:
  >>> edgequant.planar_formats["mlx.affine4.g64"].bits_per_weight
  4.5
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from edgequant.scheme import Format


@cache
def _all() -> dict[str, Format]:
    from edgequant.planar_list import PROJECTS

    return {f.name: f for project in PROJECTS for f in project()}


class PlanarFormats(Mapping[str, Format]):
    """All planar formats by name, read-only; made when first asked for."""

    def __getitem__(self, name: str) -> Format:
        return _all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(_all())

    def __len__(self) -> int:
        return len(_all())

    def __repr__(self) -> str:
        return f"<edgequant.planar_formats: {', '.join(self)}>"


planar_formats = PlanarFormats()


def find_scheme(format: Any) -> Format | None:
    """The run-time format that is meant: a Format, or a planar name in any case; None for all others."""
    if isinstance(format, Format):
        return format
    name = str(format).strip().lower()
    return planar_formats[name] if "." in name and name in planar_formats else None
