"""A vocabulary as GGUF has it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
SPACE = "\u2581"
"""SentencePiece's visible space."""

SPECIAL = {
    "bos": "bos_token_id",
    "eos": "eos_token_id",
    "unk": "unknown_token_id",
    "sep": "seperator_token_id",  # llama.cpp's spelling
    "pad": "padding_token_id",
    "cls": "cls_token_id",
    "mask": "mask_token_id",
    "eot": "eot_token_id",
}
"""Names of special tokens: Hugging Face's (without _token) -> GGUF's (below tokenizer.ggml)."""


@dataclass
class Vocabulary:
    """GGUF's view of a tokenizer.

    Attributes:
        model: "gpt2" (byte-level BPE), "llama" (SentencePiece's BPE), "bert" (WordPiece) or "t5" (unigram).
        pre: llama.cpp's name of the pre-tokenizer.
        tokens: by id.
        types: GGUF's token types, by id.
        scores: by id, where the model has them.
        merges: "left right", best first, where the model has them.
        special: ids of special tokens, keys of `SPECIAL`.
        flags: booleans below tokenizer.ggml.
        charsmap: SentencePiece's compiled normalization.
        chat_templates: by name; the one for everything is "default".
        notes: sentences about what llama.cpp cannot follow.
    """

    model: str
    pre: str = "default"
    tokens: list[str] = field(default_factory=list)
    types: list[int] = field(default_factory=list)
    scores: list[float] | None = None
    merges: list[str] | None = None
    special: dict[str, int] = field(default_factory=dict)
    flags: dict[str, bool] = field(default_factory=dict)
    charsmap: bytes = b""
    chat_templates: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def metadata(self) -> dict[str, Any]:
        """The tokenizer.* entries of a GGUF file."""
        ggml: dict[str, Any] = {"model": self.model, "pre": self.pre, "tokens": self.tokens}
        if self.scores is not None:
            ggml["scores"] = np.array(self.scores, np.float32)
        ggml["token_type"] = np.array(self.types, np.int32)
        if self.merges is not None:
            ggml["merges"] = self.merges
        ggml.update({SPECIAL[name]: np.uint32(index) for name, index in self.special.items()})
        ggml.update(self.flags)
        if self.charsmap:
            ggml["precompiled_charsmap"] = np.frombuffer(self.charsmap, np.uint8)
        result = {f"tokenizer.ggml.{key}": value for key, value in ggml.items()}
        for name, template in self.chat_templates.items():
            result["tokenizer.chat_template" + ("" if name == "default" else "." + name)] = template
        others = [name for name in self.chat_templates if name != "default"]
        if others:
            result["tokenizer.chat_templates"] = others
        return result

    def append_unused(self) -> None:
        """Adds a token that no text has, for a row of the embedding that no token has."""
        self.tokens.append(f"[PAD{len(self.tokens)}]")
        self.types.append(UNUSED)
        if self.scores is not None:
            self.scores.append(-10000.0)

    def resize(self, rows: int) -> None:
        """Makes as many tokens as the embedding has rows."""
        if len(self.tokens) > rows:
            lost = self.tokens[rows:]
            self.notes.append(
                f"{len(lost)} tokens have no row in the embedding and are left out: {', '.join(lost[:4])}"
            )
            del self.tokens[rows:], self.types[rows:]
            if self.scores is not None:
                del self.scores[rows:]
        while len(self.tokens) < rows:
            self.append_unused()
