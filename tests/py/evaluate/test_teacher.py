"""The teacher cache: its estimate and bounds against exact divergence, its size, and what it refuses."""

import json

import edgequant
import numpy as np
import pytest
from edgequant import Error
from edgequant.evaluate import Reference, evaluate, language, save_reference
from edgequant.evaluate.load import load
from edgequant.evaluate.protocol import Cut, WindowedText
from edgequant.evaluate.teacher import TeacherCache, save_teacher

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

WORDS = 3000  # of a made-up vocabulary


@pytest.fixture
def content(llama, text):
    return WindowedText.make("words.txt", text.read_text(), load(llama).tokenizer, Cut(32, 6))


def predictions(seed, distance, spread=2.0):
    """A model of 3000 words whose logits are random for each position, and one at some distance from it."""
    base = torch.Generator().manual_seed(7)
    noise = torch.Generator().manual_seed(seed)
    rows = torch.randn((6, 32, WORDS), generator=base) * spread
    rows = rows + torch.randn((6, 32, WORDS), generator=noise) * distance
    state = iter(rows)
    return lambda window: next(state)


def cached(path, content, distance, kept, samples):
    save_teacher(path, predictions(1, 0.0), content, content.protocol("f32"), "random", kept, samples)
    cache = TeacherCache(path)
    predict = predictions(2, distance)
    return [cache.compare(i, predict(w)) for i, w in enumerate(content.windows)], cache


def exact(content, distance):
    reference, model = predictions(1, 0.0), predictions(2, distance)
    return [language.compare(reference(w).double(), model(w).double()) for w in content.windows]


@pytest.mark.parametrize(("distance", "kept", "samples"), [
    (0.1, 64, 64), (0.5, 64, 64), (1.0, 256, 32), (0.5, 16, 128),
])  # fmt: skip
def test_bounds_hold_the_exact_divergence_of_every_token(content, tmp_path, distance, kept, samples):
    found, cache = cached(tmp_path / "cache", content, distance, kept, samples)
    assert (cache.kept, cache.samples) == (kept, samples)
    total = error = variance = 0.0
    for estimate, truth in zip(found, exact(content, distance), strict=True):
        assert (estimate.low <= truth.kl + 1e-9).all() and (truth.kl <= estimate.high + 1e-9).all()
        assert (estimate.low <= estimate.kl).all()
        assert np.array_equal(estimate.same, truth.same)
        total += truth.kl.sum()
        error += (estimate.kl - truth.kl).sum()
        variance += estimate.variance.sum()
        assert truth.kl.sum() > 1.01 * estimate.low.sum()  # the tail matters here
    assert abs(error) < 4 * variance**0.5  # within what the cache says of itself
    assert variance**0.5 < 0.05 * total


def test_a_model_does_not_diverge_from_its_own_cache(content, tmp_path):
    for kept, samples in ((64, 64), (WORDS, 64)):
        found, cache = cached(tmp_path / "cache", content, 0.0, kept, samples)
        assert cache.samples == (samples if kept < WORDS else 0)
        assert max(abs(part.kl).max() for part in found) < 1e-6
        assert all(part.same.all() for part in found)


def test_a_cache_of_the_whole_vocabulary_is_exact(content, tmp_path):
    found, _ = cached(tmp_path / "cache", content, 0.5, WORDS, 64)
    for estimate, truth in zip(found, exact(content, 0.5), strict=True):
        assert np.allclose(estimate.kl, truth.kl, atol=1e-6)
        assert np.array_equal(estimate.low, estimate.high)


def test_sampling_is_without_bias(content, tmp_path):
    """Over many tokens the mean comes out at the exact one, far closer than the lower bound does."""
    error, gap, count = 0.0, 0.0, 0
    found, _ = cached(tmp_path / "cache", content, 0.7, 8, 512)
    for estimate, truth in zip(found, exact(content, 0.7), strict=True):
        error += (estimate.kl - truth.kl).sum()
        gap += (truth.kl - estimate.low).sum()
        count += len(truth.kl)
    assert abs(error) < 0.05 * gap


def test_size_for_a_text_of_100_000_tokens(content, tmp_path):
    """At the default of 1024 tokens and 128 samples, whatever the vocabulary above that."""
    save_teacher(tmp_path / "cache", predictions(1, 0.0), content, content.protocol("f32"), "random")
    per_token = (tmp_path / "cache").stat().st_size / content.protocol("f32").tokens
    assert 100_000 * per_token < 2**30
    assert not list(tmp_path.glob("*.part"))


def test_cache_is_an_ordinary_safetensors_file(content, tmp_path):
    from safetensors.numpy import load_file

    save_teacher(tmp_path / "cache", predictions(1, 0.0), content, content.protocol("f32"), "random", 64, 8)
    arrays = load_file(tmp_path / "cache")
    rows = predictions(1, 0.0)(None)[:-1].double()
    assert np.allclose(arrays["logsumexp"][:31], rows.logsumexp(-1).numpy())
    assert np.array_equal(arrays["top.token"][:31], rows.topk(64).indices.numpy())
    outside = rows.scatter(-1, rows.topk(64).indices, -torch.inf)
    assert np.allclose(arrays["tail"][:31], (outside.logsumexp(-1) - rows.logsumexp(-1)).numpy())
    assert not np.isin(arrays["sample.token"][0], arrays["top.token"][0]).any()


def test_evaluation_with_a_cache_is_that_with_the_reference(llama, other_llama, text, tmp_path):
    path = tmp_path / "teacher.safetensors"
    options = {"text": text, "context": 64, "windows": 5}
    plain = evaluate(other_llama, llama, **options)
    made = evaluate(other_llama, llama, reference_cache=path, **options)
    again = evaluate(other_llama, reference_cache=path)  # neither reference nor text are needed any more
    assert made.language == again.language
    assert again.protocol == plain.protocol
    assert again.language.kl.value == pytest.approx(plain.language.kl.value, rel=1e-5)
    assert again.language.top1 == plain.language.top1 and again.language.log_ratio == plain.language.log_ratio
    assert again.language.probability_rms == plain.language.probability_rms
    assert str(path) in "\n".join(again.lines()) and "certainly between" in "\n".join(again.lines())


def test_a_cache_that_does_not_fit_is_refused(llama, other_llama, bos_llama, bert, text, tmp_path):
    path = tmp_path / "teacher.safetensors"
    save_reference(llama, path, text, context=64, windows=3)
    other = tmp_path / "other.txt"
    other.write_text("another text " * 200)
    for model, options, part in (
        (llama, {"text": other}, "made from another text, words.txt"),
        (llama, {"context": 128}, "made with context 64, not 128"),
        (llama, {"windows": 2}, "made with windows 3, not 2"),
        (llama, {"stride": 32}, "made with stride 64, not 32"),
        (bos_llama, {}, "different tokens"),
        (llama, {"reference": other_llama}, "was made from"),
        (bert, {}, "is an encoder"),
    ):
        with pytest.raises(Error, match=part):
            evaluate(model, reference_cache=path, **options)
    with pytest.raises(Error, match="no such teacher cache"):
        evaluate(llama, reference_cache=tmp_path / "none", text=text)
    with pytest.raises(Error, match="not a teacher cache"):
        evaluate(llama, reference_cache=llama / "model.safetensors")
    with pytest.raises(Error, match="only a language model"):
        save_reference(bert, tmp_path / "x", text)
    cut = tmp_path / "cut"
    cut.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(Error, match="cut"):
        Reference.from_cache(cut)


def test_an_interrupted_save_leaves_nothing(content, tmp_path):
    def stop(window):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save_teacher(tmp_path / "cache", stop, content, content.protocol("f32"), "random")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(Error, match="cannot be written"):
        save_teacher(tmp_path / "no" / "cache", predictions(1, 0.0), content, content.protocol("f32"), "random")


def test_the_verb_makes_and_uses_a_cache(llama, other_llama, text, tmp_path, capsys):
    from edgequant.cli.main import main

    path = str(tmp_path / "teacher")
    common = ["evaluate", str(other_llama), "--reference-cache", path, "--json"]
    assert main([*common, "--reference", str(llama), "--text", str(text), "--context", "64", "--windows", "2"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert main(common) == 0
    assert json.loads(capsys.readouterr().out)["language"] == first["language"]
    assert first["cache"] == path
    assert main([*common, "--context", "32"]) == 2
    assert "made with context 64, not 32" in capsys.readouterr().err


@pytest.mark.parametrize("format", ["q8_0", "q4_0"])
def test_a_model_object_is_measured_as_it_is(llama, text, tmp_path, format):
    """As a module the numbers are those of its file."""
    from transformers import AutoModelForCausalLM

    file = tmp_path / "x.gguf"
    edgequant.quantize_model(llama, file, format, progress=False)
    options = {"text": text, "context": 64, "windows": 3}
    module = AutoModelForCausalLM.from_pretrained(llama)
    as_file = evaluate(file, llama, **options).language
    assert evaluate(file, module, tokenizer=llama, **options).language == as_file
    quantized = load(file)
    result = evaluate(quantized.module, llama, tokenizer=quantized.tokenizer, **options)
    assert result.language == as_file
    assert evaluate(module, llama, **options).language.kl.value == 0  # its tokenizer lies where it came from
    assert "LlamaForCausalLM" in result.lines()[0] and "float32" not in result.protocol.line()
    with pytest.raises(Error, match="no tokenizer"):
        evaluate(quantized.module, llama, **options)
    with pytest.raises(Error, match="not a model of transformers"):
        evaluate(torch.nn.Linear(2, 2), llama, **options)
