import numpy as np
import pytest
from edgequant import Error
from edgequant.evaluate.protocol import Cut, WindowedText, cut_windows, leading_bos, read_text, tokenizer_sha256


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
    content = WindowedText.make("words.txt", read_text(text), tokenizer_of(llama), Cut(64, 5))
    protocol = content.protocol("f32")
    assert protocol.tokens == 5 * 63
    line = protocol.line()
    for part in (
        "context 64",
        "stride 64",
        "warm-up 1",
        "5 windows",
        "315 tokens",
        "BOS none",
        "f32 by torch",
        "words.txt",
    ):
        assert part in line
    assert protocol.text_sha256[:12] in line and protocol.tokenizer_sha256[:12] in line
    assert protocol.to_dict()["line"] == line


@pytest.mark.parametrize("name", ["llama", "bos_llama"])
def test_overlapping_windows_score_each_token_once(name, text, request):
    tokenizer = tokenizer_of(request.getfixturevalue(name))
    content = WindowedText.make("words.txt", read_text(text), tokenizer, Cut(32, stride=8))
    ids = tokenizer(read_text(text), add_special_tokens=False).input_ids
    assert content.first == 24
    scored = content.windows[:, content.first :].ravel()
    skipped = 24 - content.bos
    assert np.array_equal(scored, ids[skipped : skipped + len(scored)])
    assert len(ids) - skipped - len(scored) < 8
    assert content.protocol("f32").tokens == len(scored) == 8 * len(content.windows)


@pytest.mark.parametrize(("cut", "part"), [
    (Cut(32, stride=0), "stride 0"), (Cut(32, stride=33), "stride 33"), (Cut(32, warmup=32), "warmup 32"),
    (Cut(32, warmup=0), "warmup 0"),
])  # fmt: skip
def test_impossible_strides_are_refused(llama, text, cut, part):
    with pytest.raises(Error, match=part):
        WindowedText.make("words.txt", read_text(text), tokenizer_of(llama), cut)


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
