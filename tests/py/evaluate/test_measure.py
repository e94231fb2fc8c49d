"""`evaluate` from files to scores, and what it refuses."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import edgequant
import numpy as np
import pytest
from edgequant import Error
from edgequant.evaluate import Reference, evaluate
from edgequant.evaluate.weights import overall, weight_errors

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

STORIES = Path(__file__).parents[3].parent / "shared" / "data"


@pytest.fixture(scope="module")
def files(llama, bert, tmp_path_factory):
    """Both tiny models as GGUF: {(model, format): path}."""
    folder = tmp_path_factory.mktemp("gguf")
    made = {}
    for name, source in (("llama", llama), ("bert", bert)):
        for format in ("f32", "q8_0", "q4_0"):
            made[name, format] = folder / f"{name}-{format}.gguf"
            edgequant.quantize_model(source, made[name, format], format, progress=False)
    return made


def test_a_directory_alone(llama, text):
    result = evaluate(llama, text=text, context=64, windows=4)
    assert result.protocol.tokens == 4 * 63
    assert result.reference is None and result.embedding is None
    tokenizer = transformers.AutoTokenizer.from_pretrained(llama)
    module = transformers.AutoModelForCausalLM.from_pretrained(llama)
    ids = torch.tensor(tokenizer(text.read_text()).input_ids[: 4 * 64]).view(4, 64)
    with torch.no_grad():
        loss = torch.stack([module(row[None], labels=row[None]).loss for row in ids]).mean()
    assert result.language.perplexity == pytest.approx(math.exp(loss), rel=1e-5)


def test_a_gguf_in_f32_is_the_directory_it_came_from(llama, bert, files, text):
    score = evaluate(files["llama", "f32"], llama, text=text, context=128).language
    assert abs(score.kl.value) < 1e-9 and score.top1.value == 1
    assert score.perplexity == pytest.approx(score.reference_perplexity, rel=1e-6)
    score = evaluate(files["bert", "f32"], bert).embedding
    assert score.cosine == pytest.approx(1, abs=1e-6) and score.nearest == 1


def test_fewer_bits_lose_more(llama, bert, files, text):
    reference = Reference(llama, text, 128)
    kl = [evaluate(files["llama", f], reference).language.kl.value for f in ("q8_0", "q4_0", "q8_0")]
    assert 0 < kl[0] < kl[1]
    assert kl[0] == kl[2]  # nothing of the model before stays in the module they share
    reference = Reference(bert)
    cosine = [evaluate(files["bert", f], reference).embedding.cosine for f in ("q8_0", "q4_0")]
    assert 1 > cosine[0] > cosine[1] > 0.5


def test_a_gguf_can_be_the_reference(files, text):
    first = evaluate(files["llama", "q4_0"], files["llama", "q8_0"], text=text, context=128).language
    assert first.kl.value > 0
    same = evaluate(files["llama", "q4_0"], files["llama", "q4_0"], text=text, context=128).language
    assert same.kl.value == 0


def test_packed_models_of_transformers_are_measured_as_they_run(llama, text, tmp_path):
    """As an object and from the directory that it saved: the same numbers, near those of the file of that format."""
    from edgequant.transformers import quantize_pretrained

    module = transformers.AutoModelForCausalLM.from_pretrained(llama)
    quantize_pretrained(module, "q8_0")
    module.save_pretrained(tmp_path)
    transformers.AutoTokenizer.from_pretrained(llama).save_pretrained(tmp_path)
    options = {"text": text, "context": 64, "windows": 4}
    saved = evaluate(tmp_path, llama, **options).language
    assert evaluate(module, llama, tokenizer=llama, **options).language == saved
    assert 0 < saved.kl.value < 0.01 and saved.top1.value > 0.9
    back = evaluate(llama, module, tokenizer=llama, **options).language  # its output layer is packed, too
    assert back.kl.value == pytest.approx(saved.kl.value, rel=0.2)


def test_weight_errors_equal_a_plain_computation(llama, files, text):
    from safetensors.numpy import load_file

    source = load_file(llama / "model.safetensors")
    result = evaluate(files["llama", "q4_0"], llama, weights=True, text=text, context=64, windows=1)
    errors = {e.name: e for e in result.weights}
    model = edgequant.open_model(files["llama", "q4_0"])
    decoded = {t.name: t.f32() for t in model.hf_tensors()}
    for gguf, hf in (("blk.1.attn_q.weight", "model.layers.1.self_attn.q_proj.weight"),
                     ("token_embd.weight", "model.embed_tokens.weight")):  # fmt: skip
        a, b = source[hf].astype(np.float64), decoded[hf]
        assert errors[gguf].relative == pytest.approx(np.linalg.norm(a - b) / np.linalg.norm(a), rel=1e-6)
        assert errors[gguf].relative > 0.001
        assert errors[gguf].cosine == pytest.approx((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b), rel=1e-7)
        assert errors[gguf].sqnr_db == pytest.approx(-20 * math.log10(errors[gguf].relative))
        assert errors[gguf].count == a.size
    assert overall(weight_errors(files["llama", "f32"], llama)) == 0


def test_what_cannot_be_measured_is_refused(llama, other_llama, bos_llama, bert, files, text, tmp_path):
    for arguments, options, part in (
        ((llama,), {}, "name a file with text="),
        ((bert,), {}, "measured against a reference"),
        ((bert, llama), {"text": text, "context": 64}, "is an encoder and the reference"),
        ((llama,), {"text": text, "context": 100_000}, "256 positions"),
        ((llama,), {"text": text, "weights": True}, "need a reference"),
        ((llama,), {"text": text, "dtype": "f8"}, 'dtype "f8"'),
        ((bos_llama, llama), {"text": text, "context": 64}, "different tokens"),
        ((tmp_path / "nothing",), {}, "nothing"),
        ((tmp_path,), {}, r"no config\.json"),
        ((text,), {}, "neither"),
    ):
        with pytest.raises(Error, match=part):
            evaluate(*arguments, **options)
    short = tmp_path / "short.txt"
    short.write_text("one\ntwo\n")
    with pytest.raises(Error, match="2 lines"):
        evaluate(bert, bert, text=short)
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(files["llama", "q8_0"].read_bytes()[:-1000])
    with pytest.raises(Error, match=r"broken\.gguf"):
        evaluate(broken, text=text)
    lying = tmp_path / "lying"
    lying.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (lying / name).write_bytes((llama / name).read_bytes())
    with pytest.raises(Error, match="transformers cannot load"):
        evaluate(lying, text=text)


@pytest.mark.parametrize("missing", ["torch", "transformers"])
def test_an_absent_package_is_named_with_the_command(llama, text, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(Error, match=rf"package {missing}: pip install 'edgequant\[hf\]'"):
        evaluate(llama, text=text)


@pytest.mark.parametrize("first", ["import edgequant", "import edgequant.evaluate", "from edgequant import evaluate"])
def test_the_function_is_there_however_it_was_imported(first):
    code = f"{first}\nimport edgequant\ntry: edgequant.evaluate('nowhere')\nexcept edgequant.Error as e: print(e)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=True)
    assert "nowhere: there is no such file" in done.stdout


def test_result_as_json_and_as_lines(llama, other_llama, bert, text, tmp_path):
    result = evaluate(other_llama, llama, text=text, context=64, windows=2)
    result.save(tmp_path / "result.json")
    read = json.loads((tmp_path / "result.json").read_text())
    assert read["language"]["kl"]["value"] == result.language.kl.value
    assert read["protocol"]["line"] in "\n".join(result.lines())
    assert any(line.startswith("KL") for line in result.lines())
    assert any(line.startswith("cosine") for line in evaluate(bert, bert).lines())


def test_the_verb(llama, bert, text, capsys):
    from edgequant.cli.main import main

    assert main(["evaluate", str(llama), "--text", str(text), "--context", "64", "--windows", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["protocol"]["windows"] == 2
    assert main(["evaluate", str(bert), "--reference", str(bert), "--weights"]) == 0
    assert "blk.0.attn_q.weight" in capsys.readouterr().out
    assert main(["evaluate", str(llama), "--text", "nowhere.txt"]) != 0
    assert "nowhere.txt" in capsys.readouterr().err


@pytest.mark.skipif(not STORIES.is_dir(), reason="needs the data folder beside the project (shared/data)")
def test_a_real_small_model_predicts_its_own_stories(tmp_path):
    text = STORIES / "text" / "stories-sampled.txt"
    reference = Reference(STORIES / "stories260K", text, 256, 8)
    assert 1 < reference.perplexity < 10
    file = tmp_path / "stories.gguf"
    edgequant.quantize_model(STORIES / "stories260K", file, "q8_0", progress=False)
    score = evaluate(file, reference).language
    assert score.kl.value < 0.001 and score.top1.value > 0.97
    assert score.perplexity == pytest.approx(reference.perplexity, rel=0.005)
