"""Writes the valid files that the fuzzers start from: `python tests/fuzz/make_seeds.py FOLDER`.

They go to FOLDER/gguf and FOLDER/safetensors, beside copies of the broken files of tests/hostile.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "hostile"))

import make as m  # noqa: E402


def gguf_seeds() -> dict[str, bytes]:
    scalars = tuple(
        m.key(f"k{kind}", kind, bytes(size))
        for kind, size in enumerate((1, 1, 2, 2, 4, 4, 4, 1, 8, 0, 8, 8, 8))
        if kind != m.ARRAY
    )
    arrays = (
        m.key("strings", m.ARRAY, m.array(m.STRING, 3, m.text("a") + m.text("") + m.text("bc"))),
        m.key("numbers", m.ARRAY, m.array(m.F64, 2, bytes(16))),
        m.key("nested", m.ARRAY, m.array(m.ARRAY, 2, m.array(m.U8, 1, b"x") + m.array(m.STRING, 1, m.text("y")))),
    )
    align = m.key("general.alignment", m.U32, b"\x08\0\0\0")
    types = {0: (1, 4), 1: (1, 2), 2: (32, 18), 8: (32, 34), 12: (256, 144), 14: (256, 210), 27: (1, 8), 39: (32, 17)}
    infos, offset = [], 0
    for number, (block, size) in types.items():
        infos.append(m.info(f"t{number}", (block, 2), number, offset))
        offset += (2 * size + 31) // 32 * 32
    return {
        "nothing": m.gguf(),
        "version2": m.gguf(scalars[:2], version=2),
        "scalars": m.gguf(scalars),
        "arrays": m.gguf(arrays),
        "types": m.gguf((), tuple(infos), offset),
        "aligned": m.gguf((align,), (m.info("a", (2,)), m.info("b", (), 24, 8)), 16, alignment=8),
        "dimensions": m.gguf((), (m.info("a", (2, 1, 3, 1)), m.info("b", (0,), 0, 32)), 32),
    }


def safetensors_seeds() -> dict[str, bytes]:
    facts = {"format": "pt", "\u00e9\n": "\U0001f600"}
    two = {"a": m.entry(), "b": m.entry("BF16", (2, 2), (8, 16)), "__metadata__": facts}
    types = {"F4": 4, "F6_E2M3": 6, "BOOL": 8, "F8_E4M3": 8, "I16": 16, "U32": 32, "C64": 64, "I64": 64}
    many, at = {}, 0
    for name, bits in types.items():
        many[name] = m.entry(name, (4,), (at, at + bits // 2))
        at += bits // 2
    return {
        "nothing": m.tensors({}),
        "two": m.tensors(two, 16),
        "types": m.tensors(many, at),
        "empty": m.tensors({"a": m.entry("F32", (), (0, 4)), "b": m.entry("F32", (0, 9), (4, 4))}, 4),
        "space": m.tensors('{ "a" : { "shape" : [ ] , "data_offsets" : [ 0 , 1 ] ,\n"dtype" : "U8" } }   ', 1),
    }


def main() -> None:
    for kind, seeds in (("gguf", gguf_seeds()), ("safetensors", safetensors_seeds())):
        folder = Path(sys.argv[1]) / kind
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in seeds.items():
            (folder / f"seed-{name}").write_bytes(data)
        for path in (HERE.parent / "hostile" / kind).iterdir():
            shutil.copy(path, folder)


if __name__ == "__main__":
    main()
