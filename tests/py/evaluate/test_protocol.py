import numpy as np
import pytest
from edgequant import Error
from edgequant.evaluate.protocol import WindowedText, cut_windows, leading_bos, read_text, tokenizer_sha256


def tokenizer_of(directory):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(directory)


def test_windows_are_the_text_without_gap_or_overlap(llama, text):
    tokenizer = tokenizer_of(llama)
    ids = tokenizer(read_text(text), add_special_tokens=False).input_ids
    windows, bos = cut_windows(tokenizer, read_text(text), 32)
    assert not bos
    assert windows.shape == (len(ids) // 32, 32)
    assert np.array_equal(windows.ravel(), ids[: windows.size])
    first, _ = cut_windows(tokenizer, read_text(text), 32, windows=3)
    assert np.array_equal(first, windows[:3])


def test_a_bos_that_the_tokenizer_adds_starts_every_window(bos_llama, text):
    tokenizer = tokenizer_of(bos_llama)
    assert leading_bos(tokenizer) == tokenizer.bos_token_id
    ids = tokenizer(read_text(text), add_special_tokens=False).input_ids
    windows, bos = cut_windows(tokenizer, read_text(text), 32, windows=4)
    assert bos
    assert (windows[:, 0] == tokenizer.bos_token_id).all()
    assert np.array_equal(windows[:, 1:].ravel(), ids[: 4 * 31])


def test_protocol_line_says_everything(llama, text):
    content = WindowedText("words.txt", read_text(text), tokenizer_of(llama), 64, 5)
    protocol = content.protocol("f32")
    assert protocol.tokens == 5 * 63
    line = protocol.line()
    for part in ("context 64", "stride 64", "5 windows", "315 tokens", "BOS none", "f32", "words.txt"):
        assert part in line
    assert protocol.text_sha256[:12] in line and protocol.tokenizer_sha256[:12] in line
    assert protocol.to_dict()["line"] == line


def test_tokenizer_hash_sees_vocabulary_but_not_truncation(llama, bos_llama):
    tokenizer = tokenizer_of(llama)
    before = tokenizer_sha256(tokenizer)
    tokenizer("a b c", truncation=True, max_length=2)
    assert tokenizer_sha256(tokenizer) == before
    assert tokenizer_sha256(tokenizer_of(bos_llama)) != before


@pytest.mark.parametrize(("context", "windows", "part"), [
    (512, 40, "too short"), (4096, None, "too short"), (1, None, "context 1"), (32, 0, "windows 0"),
])  # fmt: skip
def test_impossible_cuts_are_refused(llama, text, context, windows, part):
    with pytest.raises(Error, match=part):
        cut_windows(tokenizer_of(llama), read_text(text), context, windows, "words.txt")


def test_bad_text_files_are_refused(tmp_path):
    with pytest.raises(Error, match=r"nowhere\.txt"):
        read_text(tmp_path / "nowhere.txt")
    (tmp_path / "latin").write_bytes(b"caf\xe9 noir")
    with pytest.raises(Error, match=r"not a UTF-8 text \(byte 3\)"):
        read_text(tmp_path / "latin")
    (tmp_path / "empty").write_text(" \n")
    with pytest.raises(Error, match="empty"):
        read_text(tmp_path / "empty")
