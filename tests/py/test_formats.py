"""edgequant.formats: the catalogue that comes from the C++ descriptions."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Mapping

import gguf
import pytest
from edgequant import _core
from edgequant.formats import BlockFormat, Error, formats, lookup

GGML_TYPES = """f32 f16 bf16 q4_0 q4_1 q5_0 q5_1 q8_0 q2_k q3_k q4_k q5_k q6_k iq1_s iq1_m iq2_xxs iq2_xs iq2_s iq3_xxs
iq3_s iq4_nl iq4_xs tq1_0 tq2_0 mxfp4 nvfp4 q1_0 q2_0""".split()


def test_every_file_type_of_ggml_is_there() -> None:
    assert set(GGML_TYPES) <= set(formats)
    assert len(formats) == len(list(formats)) == len({f.name for f in formats.values()})


@pytest.mark.parametrize("name", formats)
def test_sizes_equal_those_of_gguf(name: str) -> None:
    f = formats[name]
    assert (f.name, f.bits_per_weight) == (name, 8 * f.bytes / f.block)
    assert f.row_bytes(3 * f.block) == 3 * f.bytes
    if f.gguf_type in set(gguf.GGMLQuantizationType):
        kind = gguf.GGMLQuantizationType(f.gguf_type)
        assert (kind.name.lower(), gguf.GGML_QUANT_SIZES[kind]) == (name, (f.block, f.bytes))


def test_q2_0_is_newer_than_the_gguf_package() -> None:
    f = formats["q2_0"]
    assert (f.gguf_type, f.block, f.bytes) == (42, 64, 18)


def test_the_catalogue_is_a_read_only_mapping() -> None:
    assert isinstance(formats, Mapping)
    assert "q4_k" in formats and "Q4_K" not in formats
    with pytest.raises(KeyError):
        formats["q9"]
    with pytest.raises(TypeError):
        formats["mine"] = formats["q4_k"]  # type: ignore[index]
    with pytest.raises(AttributeError):
        formats["q4_k"].block = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        formats["q4_k"].scale["byte"] = 1  # type: ignore[index]


@pytest.mark.parametrize("text", ["q4_k", "Q4_K", " Q4_k "])
def test_lookup_ignores_case(text: str) -> None:
    assert lookup(text) is formats["q4_k"] and lookup(lookup(text)) is formats["q4_k"]


@pytest.mark.parametrize(
    ("wrong", "near"), [("q4k", "q4_k"), ("IQ3_XS", "iq3_xxs"), ("mxfp", "mxfp4"), ("Q8", "q8_0"), ("zebra", "q4_0")]
)
def test_lookup_names_what_is_near(wrong: str, near: str) -> None:
    with pytest.raises(Error, match=near) as caught:
        lookup(wrong)
    assert f"'{wrong}'" in str(caught.value) and isinstance(caught.value, ValueError)


@pytest.mark.parametrize("name", formats)
def test_descriptions(name: str) -> None:
    f = formats[name]
    text = f.describe()
    assert text.startswith(f"{name} (type {f.gguf_type} in GGUF files): {f.block} weight")
    assert "unused" not in text and max(map(len, text.splitlines())) <= 200
    assert repr(f).startswith(f"<Format {name}: ")
    assert pickle.loads(pickle.dumps(f)) is f and copy.deepcopy(f) is f


def test_description_of_q4_k() -> None:
    text = formats["q4_k"].describe()
    for part in ("4.5 bits per weight", "weight   value(code) * scale + offset", "16-143: codes", "per 32 weights",
                 "offset   -1 times f16 at byte 2"):  # fmt: skip
        assert part in text, text
    assert formats["q4_k"].code_bits == 4 and formats["iq1_s"].code_bits == 11 and formats["f16"].code_bits == 0


def test_entries_are_plain_data() -> None:
    assert [f["name"] for f in json.loads(json.dumps(_core.formats()))] == list(formats)
    assert _core.formats()[5]["map"]["kind"] == "affine"
    assert formats["iq4_nl"].map["values"][0] == -127 and len(formats["q1_0"].map["values"]) == 2
    assert formats["iq2_xxs"].map["levels"] == (8, 25, 43)
    assert isinstance(formats["q8_0"], BlockFormat) and formats["q8_0"].codes[0]["signed"]


def test_row_bytes_refuses_rows_that_do_not_divide() -> None:
    with pytest.raises(Error, match="rows of 100 weights are not a multiple of its block of 256"):
        formats["q4_k"].row_bytes(100)
    with pytest.raises(Error, match="no format named 'q9'"):
        _core.row_bytes("q9", 256)
