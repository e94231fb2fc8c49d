"""Writes the broken files of this folder and the table in README.md: `python tests/hostile/make.py`.

Each case is one file, what is wrong with it and words that the error message must contain. Both test suites read the
table, so a new case is one entry here.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path

HERE = Path(__file__).parent
Case = tuple[str, bytes, str, str]  # file, bytes, what is wrong, words of the message

U8, I8, U32, BOOL, STRING, ARRAY, U64, F64 = 0, 1, 4, 7, 8, 9, 10, 12  # types of GGUF metadata
F32, Q4_0, Q4_K = 0, 2, 12  # types of GGUF tensors
HUGE = 2**64 - 1


# --- GGUF -----------------------------------------------------------------------------------------------------------


def text(s: str | bytes, length: int | None = None) -> bytes:
    data = s.encode() if isinstance(s, str) else s
    return struct.pack("<Q", len(data) if length is None else length) + data


def key(name: str | bytes, kind: int, value: bytes) -> bytes:
    return text(name) + struct.pack("<I", kind) + value


def array(kind: int, count: int, elements: bytes) -> bytes:
    return struct.pack("<IQ", kind, count) + elements


def info(
    name: str | bytes, dims: tuple[int, ...], kind: int = F32, offset: int = 0, n_dims: int | None = None
) -> bytes:
    """`dims` in the file's order: the innermost first."""
    count = len(dims) if n_dims is None else n_dims
    return text(name) + struct.pack(f"<I{len(dims)}QIQ", count, *dims, kind, offset)


def gguf(
    keys: tuple[bytes, ...] = (),
    infos: tuple[bytes, ...] = (),
    data: int = 0,
    *,
    version: int = 3,
    n_keys: int | None = None,
    n_tensors: int | None = None,
    alignment: int = 32,
) -> bytes:
    head = b"GGUF" + struct.pack("<I", version)
    head += struct.pack("<QQ", len(infos) if n_tensors is None else n_tensors, len(keys) if n_keys is None else n_keys)
    out = head + b"".join(keys) + b"".join(infos)
    return out + bytes(-len(out) % alignment if data else 0) + bytes(data)


def gguf_cases() -> list[Case]:
    arch = key("general.architecture", STRING, text("llama"))
    nested = array(ARRAY, 1, b"") * 1000 + array(U8, 0, b"")
    return [
        ("empty", b"", "no bytes at all", "not a GGUF file"),
        ("magic-wrong", b"GGML" + gguf()[4:], "another magic", "not a GGUF file"),
        ("magic-only", b"GGUF", "ends after the magic", "not a GGUF file"),
        ("version-0", gguf(version=0), "version 0", "version 0 is not supported"),
        ("version-1", gguf(version=1), "version 1, with 32-bit counts", "version 1 is not supported"),
        ("version-4", gguf(version=4), "a version of the future", "version 4 is not supported"),
        ("big-endian", b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian numbers", "big-endian"),
        ("ends-after-version", gguf()[:8], "no counts", "cut off"),
        ("ends-in-counts", gguf()[:20], "half of the key count", "cut off"),
        ("tensors-2p64", gguf(n_tensors=HUGE), "2^64 - 1 tensors", "number of tensors"),
        ("tensors-2p40", gguf((arch,), n_tensors=2**40), "2^40 tensors", "number of tensors"),
        ("keys-2p64", gguf(n_keys=HUGE), "2^64 - 1 keys", "number of metadata keys"),
        ("keys-too-many", gguf((arch,), n_keys=2), "two keys are promised, one follows", "cut off"),
        ("key-no-end", gguf((text("general.name", 2**32),), n_keys=1), "a key longer than the file", "a string of"),
        (
            "key-wraps",
            gguf((text("general.name", HUGE), bytes(64)), n_keys=1),
            "a key of 2^64 - 1 bytes",
            "a string of",
        ),
        ("key-empty", gguf((key("", U8, b"\1"), arch)), "a key without a name", "is empty"),
        ("key-not-utf8", gguf((key(b"a\xff\xfe", U8, b"\1"),)), "a key that is not UTF-8", "not valid UTF-8"),
        ("key-overlong", gguf((key(b"a\xc0\xaf", U8, b"\1"),)), "a key with an overlong '/'", "not valid UTF-8"),
        ("key-zero-byte", gguf((key(b"a\0b", U8, b"\1"),)), "a key with a zero byte", "zero byte"),
        ("key-twice", gguf((arch, arch)), "the same key twice", "given twice"),
        ("value-type-13", gguf((key("a", 13, bytes(8)),)), "a value of an unknown type", "unknown type 13"),
        ("value-type-2p32", gguf((key("a", 2**32 - 1, bytes(8)),)), "a value of type 2^32 - 1", "unknown type"),
        ("value-cut", gguf((key("a", F64, bytes(4)),)), "half of a number", "cut off"),
        ("string-no-end", gguf((key("a", STRING, text("x", 1000)),)), "a value longer than the file", "a string of"),
        (
            "string-wraps",
            gguf((key("a", STRING, text("x", HUGE - 7)),)),
            "a length that wraps an address",
            "a string of",
        ),
        ("bool-2", gguf((key("a", BOOL, b"\2"),)), "a bool of 2", "not a bool"),
        ("array-2p64", gguf((key("a", ARRAY, array(U8, HUGE, b"")),)), "2^64 - 1 elements", "number of array elements"),
        (
            "array-wraps",
            gguf((key("a", ARRAY, array(F64, 2**61, bytes(8))),)),
            "2^61 elements of 8 bytes: 0",
            "number of array",
        ),
        (
            "array-strings-2p40",
            gguf((key("a", ARRAY, array(STRING, 2**40, text("x"))),)),
            "2^40 strings",
            "number of array",
        ),
        (
            "array-string-no-end",
            gguf((key("a", ARRAY, array(STRING, 2, text("x") + text("y", 99))),)),
            "the last string has no end",
            "a string of",
        ),
        (
            "array-type-13",
            gguf((key("a", ARRAY, array(13, 1, bytes(8))),)),
            "elements of an unknown type",
            "unknown type 13",
        ),
        ("array-nested", gguf((key("a", ARRAY, nested),)), "arrays nested 1000 deep", "nest deeper"),
        ("alignment-0", gguf((key("general.alignment", U32, bytes(4)),)), "an alignment of 0", "not a power of two"),
        (
            "alignment-24",
            gguf((key("general.alignment", U32, b"\x18\0\0\0"),)),
            "an alignment of 24",
            "not a power of two",
        ),
        (
            "alignment-u64",
            gguf((key("general.alignment", U64, b"\x20" + bytes(7)),)),
            "an alignment of 64 bits",
            "not a u32",
        ),
        (
            "alignment-array",
            gguf((key("general.alignment", ARRAY, array(U32, 0, b"")),)),
            "an empty array as alignment",
            "not a u32",
        ),
        (
            "alignment-2p31",
            gguf((key("general.alignment", U32, b"\0\0\0\x80"),), (info("a", (8,)),), 32),
            "an alignment beyond the end",
            "beyond the end",
        ),
        ("name-no-end", gguf((), (text("a", 500) + bytes(32),)), "a tensor's name longer than the file", "a string of"),
        ("name-empty", gguf((), (info("", (8,)),), 32), "a tensor without a name", "is empty"),
        (
            "name-not-utf8",
            gguf((), (info(b"\xed\xa0\x80", (8,)),), 32),
            "a surrogate in a tensor's name",
            "not valid UTF-8",
        ),
        ("name-zero-byte", gguf((), (info("a\0", (8,)),), 32), "a zero byte in a tensor's name", "zero byte"),
        (
            "name-twice",
            gguf((), (info("a", (8,)), info("a", (8,), offset=32)), 64),
            "two tensors of one name",
            "given twice",
        ),
        ("info-cut", gguf((), (info("a", (8, 8))[:-3],)), "ends in a tensor's description", "cut off"),
        ("dims-5", gguf((), (info("a", (1, 1, 1, 1, 1)),), 32), "five dimensions", "5 dimensions"),
        ("dims-2p32", gguf((), (info("a", (1,), n_dims=2**32 - 1),), 32), "2^32 - 1 dimensions", "dimensions"),
        ("shape-wraps", gguf((), (info("a", (2**32, 2**32)),), 32), "2^64 elements: 0", "too many elements"),
        ("shape-bytes-wrap", gguf((), (info("a", (2**62,)),), 32), "2^62 elements of 4 bytes: 0", "too many elements"),
        ("shape-negative", gguf((), (info("a", (2**63, 0)),), 32), "an extent of -2^63", "too many elements"),
        ("shape-beyond", gguf((), (info("a", (2**40,)),), 32), "more elements than the file has", "beyond the end"),
        (
            "row-not-whole",
            gguf((), (info("a", (33, 2), Q4_0),), 64),
            "rows of 33 in blocks of 32",
            "not a multiple of the block",
        ),
        (
            "row-k-not-whole",
            gguf((), (info("a", (128, 2), Q4_K),), 288),
            "rows of 128 in blocks of 256",
            "not a multiple",
        ),
        *(
            (f"type-{n}", gguf((), (info("a", (32,), n),), 32), "a type that ggml has taken back", "was removed")
            for n in (4, 5, 31, 32, 33, 36, 37, 38)
        ),
        ("type-200", gguf((), (info("a", (32,), 200),), 32), "an unknown type", "unknown type 200"),
        ("type-2p32", gguf((), (info("a", (32,), 2**32 - 1),), 32), "type 2^32 - 1", "unknown type"),
        (
            "offset-odd",
            gguf((), (info("a", (8,), offset=4),), 64),
            "an offset that is not aligned",
            "multiple of the alignment",
        ),
        ("offset-beyond", gguf((), (info("a", (8,), offset=2**40),), 32), "an offset beyond the end", "beyond the end"),
        (
            "offset-wraps",
            gguf((), (info("a", (16,), offset=2**64 - 32),), 64),
            "an offset that wraps",
            "beyond the end",
        ),
        ("overlap-same", gguf((), (info("a", (8,)), info("b", (8,))), 64), "two tensors at one offset", "overlap"),
        (
            "overlap-part",
            gguf((), (info("a", (16,)), info("b", (8,), offset=32)), 64),
            "one begins within the other",
            "overlap",
        ),
        (
            "data-cut",
            gguf((), (info("a", (8,)), info("b", (8,), offset=32)), 63),
            "the last byte is missing",
            '"b" lies beyond',
        ),
        ("data-missing", gguf((arch,), (info("a", (8,)),)), "ends after the header", '"a" lies beyond'),
    ]


# --- safetensors ----------------------------------------------------------------------------------------------------


def tensors(header: str | bytes | dict[str, object], data: int = 0, *, length: int | None = None) -> bytes:
    raw = json.dumps(header) if isinstance(header, dict) else header
    head = raw.encode() if isinstance(raw, str) else raw
    return struct.pack("<Q", len(head) if length is None else length) + head + bytes(data)


def entry(dtype: object = "F32", shape: object = (2,), offsets: object = (0, 8)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def safetensors_cases() -> list[Case]:
    good = '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'

    def with_shape(shape: str) -> bytes:
        return tensors(good.replace("[2]", shape), 8)

    return [
        ("empty", b"", "no bytes at all", "not a safetensors file"),
        ("seven-bytes", bytes(7), "too short for the header's length", "not a safetensors file"),
        ("header-0", tensors(""), "a header of no bytes", "does not begin with {"),
        ("header-beyond", tensors(good, 8, length=1000), "a header longer than the file", "cut off"),
        ("header-2p64", tensors(good, 8, length=HUGE), "a header of 2^64 - 1 bytes", "over the format's limit"),
        (
            "header-200MB",
            tensors(good, 8, length=200_000_000),
            "a header over the limit of the format",
            "over the format's limit",
        ),
        ("header-space-first", tensors(" " + good, 8), "the header begins with a space", "does not begin with {"),
        ("header-list", tensors("[]"), "a list instead of an object", "does not begin with {"),
        ("header-not-utf8", tensors(b'{"\xff":1}'), "a name that is not UTF-8", "not valid UTF-8"),
        ("header-no-end", tensors(good[:-1], 8), "the closing brace is missing", "expected '}'"),
        ("header-more", tensors(good + "x", 8), "text after the closing brace", "expected nothing more"),
        ("header-comma", tensors(good[:-1] + ",}", 8), "a comma before the closing brace", "expected '\"'"),
        ("string-no-end", tensors('{"a'), "a string without an end", "end of a string"),
        ("string-escape", tensors(r'{"\x41":1}'), "an escape that JSON has not", "expected an escape"),
        ("string-escape-cut", tensors('{"\\'), "ends within an escape", "rest of an escape"),
        ("string-hex", tensors(r'{"\u12G4":1}'), "a \\u escape with a G", "hexadecimal"),
        ("string-low-surrogate", tensors(r'{"\udc00":1}'), "the second half of a pair alone", "surrogate"),
        ("string-high-surrogate", tensors(r'{"\ud800":1}'), "the first half of a pair alone", "surrogate"),
        ("string-two-high", tensors(r'{"\ud800\ud800":1}'), "two first halves", "surrogate"),
        ("string-newline", tensors('{"a\nb":1}'), "a bare line break in a string", "control character"),
        ("nested", tensors('{"a":' + "[" * 1000), "lists nested 1000 deep", "expected '{'"),
        ("nested-shape", with_shape("[" * 1000), "a shape nested 1000 deep", "expected an integer"),
        ("nested-object", tensors('{"a":' * 1000), "objects nested 1000 deep", "unknown field"),
        ("tensor-null", tensors('{"a":null}'), "null instead of a tensor", "expected '{'"),
        ("tensor-twice", tensors(good[:-1] + "," + good[1:], 8), "the same name twice", "twice"),
        ("tensor-empty", tensors('{"a":{}}'), "a tensor without fields", "dtype is missing"),
        (
            "field-unknown",
            tensors(good.replace('"shape"', '"x":1,"shape"'), 8),
            "a field that the format has not",
            "unknown field",
        ),
        ("field-twice", tensors(good.replace('"shape"', '"dtype":"I32","shape"'), 8), "dtype twice", "twice"),
        ("shape-missing", tensors('{"a":{"dtype":"F32","data_offsets":[0,4]}}', 4), "no shape", "shape is missing"),
        ("offsets-missing", tensors('{"a":{"dtype":"F32","shape":[1]}}', 4), "no offsets", "data_offsets is missing"),
        ("dtype-unknown", tensors({"a": entry("F12")}, 8), "an unknown type", 'unknown type "F12"'),
        ("dtype-lower", tensors({"a": entry("f32")}, 8), "a type in lower case", 'unknown type "f32"'),
        ("dtype-number", tensors({"a": entry(1)}, 8), "a number as type", "expected '\"'"),
        ("shape-negative", with_shape("[-2]"), "a negative extent", "expected an integer"),
        ("shape-fraction", with_shape("[2.0]"), "an extent with a point", "expected an integer"),
        ("shape-exponent", with_shape("[2e0]"), "an extent with an exponent", "expected an integer"),
        ("shape-zero-first", with_shape("[02]"), "an extent with a zero in front", "expected an integer"),
        ("shape-string", with_shape('["2"]'), "an extent in quotes", "expected an integer"),
        ("shape-not-list", with_shape("2"), "a number as shape", "expected '['"),
        ("shape-comma", with_shape("[2,]"), "a comma at the end of the shape", "expected an integer"),
        ("shape-2p64", with_shape("[18446744073709551616]"), "an extent of 2^64", "below 2^64"),
        ("shape-wraps", with_shape("[4294967296,4294967296]"), "2^64 elements: 0", "too many elements"),
        ("shape-bytes-wrap", with_shape("[4611686018427387904]"), "2^62 elements of 4 bytes: 0", "too many elements"),
        ("shape-wrong", with_shape("[3]"), "more elements than bytes", "needs 12 bytes"),
        ("offsets-one", tensors({"a": entry(offsets=[0])}, 8), "one offset", "1 numbers, not 2"),
        ("offsets-three", tensors({"a": entry(offsets=[0, 8, 8])}, 8), "three offsets", "3 numbers, not 2"),
        (
            "offsets-reversed",
            tensors({"a": entry(offsets=[8, 0])}, 8),
            "the end before the beginning",
            "before it begins",
        ),
        ("offsets-beyond", tensors({"a": entry()}, 7), "the last byte is missing", "ends at byte 8"),
        ("offsets-wrap", tensors({"a": entry(offsets=[2**64 - 8, 2**64])}, 8), "an end of 2^64", "below 2^64"),
        (
            "overlap",
            tensors({"a": entry(), "b": entry(offsets=(4, 12))}, 12),
            "one begins within the other",
            "overlaps",
        ),
        ("overlap-same", tensors({"a": entry(), "b": entry()}, 8), "two tensors at one place", "overlaps"),
        (
            "hole-first",
            tensors({"a": entry(offsets=(8, 16))}, 16),
            "bytes before the first tensor",
            "belong to no tensor",
        ),
        (
            "hole-middle",
            tensors({"a": entry(), "b": entry(offsets=(9, 17))}, 17),
            "a byte between tensors",
            "belong to no tensor",
        ),
        ("hole-last", tensors({"a": entry()}, 9), "a byte after the last tensor", "belong to no tensor"),
        (
            "half-byte",
            tensors({"a": entry("F4", [3], (0, 1))}, 1),
            "three numbers of four bits",
            "do not end with a byte",
        ),
        ("metadata-list", tensors('{"__metadata__":[]}'), "a list as metadata", "expected '{'"),
        ("metadata-number", tensors('{"__metadata__":{"a":1}}'), "a number as metadata", "expected '\"'"),
        ("metadata-twice", tensors('{"__metadata__":{"a":"1","a":"2"}}'), "a metadata key twice", "twice"),
    ]


README = """# Broken files

Every file here must be refused by one clear sentence that names the file: never a crash, never a wrong answer. Both
test suites read the table below: `tests/cpp/io/hostile_test.cc` and `tests/py/test_hostile.py`. Files and table are
made by `python tests/hostile/make.py`.

| file | what is wrong | words of the message |
|---|---|---|
"""


def main() -> None:
    rows = []
    for suffix, cases in (("gguf", gguf_cases()), ("safetensors", safetensors_cases())):
        folder = HERE / suffix
        folder.mkdir(exist_ok=True)
        for old in folder.iterdir():
            old.unlink()
        for name, data, wrong, words in cases:
            path = folder / f"{name}.{suffix}"
            assert not path.exists(), name
            path.write_bytes(data)
            rows.append(f"| `{suffix}/{path.name}` | {wrong} | `{words}` |\n")
    (HERE / "README.md").write_text(README + "".join(rows))


if __name__ == "__main__":
    main()
