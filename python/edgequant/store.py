"""Quantized tensors in safetensors files, each with the description of its format."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgequant._core import Error
from edgequant.models.files import replacing
from edgequant.quantize import from_bytes
from edgequant.scheme import Format
from edgequant.scheme_tensor import SchemeTensor, from_planes
from edgequant.tensor import QuantizedTensor

KEY = "edgequant"  # of the metadata: {tensor: {"shape": [...], "format": name or description, "arrays": {array: key}}}


def save(path: str | os.PathLike[str], tensors: Mapping[str, QuantizedTensor | np.ndarray]) -> None:
    """Writes tensors to a safetensors file; it appears under its name when it is complete.

    An array `a` of tensor `t` is called "t.a", as the ecosystems do ("layer.weight", "layer.scales"); the bytes of
    block formats, and plain arrays, are called "t". The metadata hold what is needed to read them again: the whole
    description of formats of your own.

    Args:
      path: the file, such as "model.safetensors".
      tensors: name -> QuantizedTensor or NumPy array.

    Raises Error if two arrays would have one name, OSError if the file cannot be written. Needs the safetensors
    package.

    Example:
      >>> q = edgequant.quantize(np.eye(64, dtype="float32"), edgequant.Format("mine", block=64, codes=2))
      >>> edgequant.save("mine.safetensors", {"layer": q})
      >>> edgequant.load("mine.safetensors")["layer"] == q
      True
    """
    from safetensors.numpy import save as serialize

    arrays: dict[str, np.ndarray] = {}
    about: dict[str, Any] = {}

    def add(name: str, array: np.ndarray) -> str:
        if name in arrays:
            raise Error(f"{os.fspath(path)}: two arrays would be called '{name}'")
        arrays[name] = np.ascontiguousarray(array)
        return name

    for name, q in tensors.items():
        if isinstance(q, SchemeTensor):
            keys = {plane: add(f"{name}.{plane}", array) for plane, array in q.planes.items()}
            about[name] = {"shape": q.shape, "format": json.loads(q.scheme.to_json()), "arrays": keys}
        elif isinstance(q, QuantizedTensor):
            about[name] = {"shape": q.shape, "format": q.format, "arrays": {"data": add(name, q.data)}}
        else:
            add(name, np.asarray(q))
    data = serialize(arrays, metadata={KEY: json.dumps(about)})
    with replacing(Path(path)) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def load(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads what `save` wrote: name -> QuantizedTensor, SchemeTensor or NumPy array.

    Raises Error if the file is damaged, or its descriptions do not fit its arrays; OSError if it cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    where = os.fspath(path)
    try:
        with safe_open(where, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}
    except SafetensorError as e:
        raise Error(f"{where}: {e}") from None
    out: dict[str, Any] = {}
    try:
        about = json.loads(metadata.get(KEY, "{}"))
        for name, entry in about.items():
            shape = tuple(int(n) for n in entry["shape"])
            planes = {plane: arrays.pop(key) for plane, key in entry["arrays"].items()}
            if isinstance(entry["format"], str):
                out[name] = from_bytes(planes["data"], entry["format"], shape)
            else:
                out[name] = from_planes(planes, Format.from_json(json.dumps(entry["format"])), shape)
    except Error as e:
        raise Error(f"{where}: {e}") from None
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as e:
        raise Error(f"{where}: the description of its tensors is damaged: {type(e).__name__} {e}") from None
    return {**out, **arrays}
