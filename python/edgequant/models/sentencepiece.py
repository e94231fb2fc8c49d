"""SentencePiece's tokenizer.model, read without the sentencepiece package: a protocol-buffer message.

Facts: sentencepiece_model.proto. ModelProto has pieces (1), a trainer_spec (2) and a normalizer_spec (3); a piece has
its text (1), a score (2) and a type (3), whose numbers are those of GGUF's token types.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from edgequant._core import Error


@dataclass
class SentencePieceModel:
    """What llama.cpp needs of a tokenizer.model."""

    pieces: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    types: list[int] = field(default_factory=list)
    unigram: bool = True
    """Trained as a unigram language model, not by byte-pair encoding."""
    add_dummy_prefix: bool = True
    """Text is tokenized with a space before it."""
    remove_extra_whitespaces: bool = True
    charsmap: bytes = b""
    """Compiled Unicode normalization."""


def read_sentencepiece(path: Path) -> SentencePieceModel:
    """Reads a tokenizer.model.

    Raises:
        Error: the file is damaged or something else.
    """
    model = SentencePieceModel()
    try:
        for number, value in _fields(path.read_bytes()):
            if number == 1:
                piece = dict(_fields(_bytes(value)))
                model.pieces.append(_bytes(piece.get(1, b"")).decode())
                model.scores.append(struct.unpack("<f", _bytes(piece.get(2, bytes(4))))[0])
                model.types.append(_int(piece.get(3, 1)))
            elif number == 2:
                model.unigram = _int(dict(_fields(_bytes(value))).get(3, 1)) == 1
            elif number == 3:
                spec = dict(_fields(_bytes(value)))
                model.charsmap = _bytes(spec.get(2, b""))
                model.add_dummy_prefix = bool(_int(spec.get(3, 1)))
                model.remove_extra_whitespaces = bool(_int(spec.get(4, 1)))
    except (ValueError, IndexError, struct.error) as error:
        raise Error(f"{path}: not a SentencePiece model ({error})") from None
    if not model.pieces:
        raise Error(f"{path}: a SentencePiece model without pieces")
    return model


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yields (field number, value) of a message: an int for varints, else bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        wire = key & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        if wire == 2:
            size, at = _varint(data, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire} at byte {at}")
        if at + size > len(data):
            raise ValueError(f"a field of {size} bytes at byte {at} of {len(data)}")
        yield key >> 3, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    result = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        result |= (byte & 127) << shift
        if byte < 128:
            return result, at
    raise ValueError(f"a number without an end at byte {at}")


def _bytes(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError("a number in the place of bytes")
    return value


def _int(value: int | bytes) -> int:
    if not isinstance(value, int):
        raise ValueError("bytes in the place of a number")
    return value
