"""Errors of layers against plain computations, in the order of what they do to the whole."""

import json
import math

import edgequant
import numpy as np
import pytest
from edgequant import Error
from edgequant.evaluate import Reference, evaluate
from edgequant.evaluate.layers import layer_errors, ranked

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


def load(directory):
    return transformers.AutoModelForCausalLM.from_pretrained(directory).eval()


@pytest.fixture(scope="module")
def batches():
    return [{"input_ids": torch.arange(start, start + 24)[None] % 300, "use_cache": False} for start in (0, 100)]


def noisy(directory, layers, amount=0.05):
    """A copy with noise on the weights of some layers."""
    module = load(directory)
    torch.manual_seed(0)
    with torch.no_grad():
        for name in layers:
            weight = module.get_submodule(name).weight
            weight += amount * weight.std() * torch.randn_like(weight)
    return module


def agreement(a, b):
    a, b = a.detach().double().ravel(), b.detach().double().ravel()
    return 10 * math.log10(float(a @ a) / float((a - b) @ (a - b))), float(a @ b / a.norm() / b.norm())


def test_errors_equal_a_plain_computation(llama, batches):
    names = ["model.layers.0.self_attn.v_proj", "model.layers.1.mlp.down_proj"]
    before, after = load(llama), noisy(llama, names)
    errors = {e.name: e for e in layer_errors(after, before, batches, impact=True)}
    assert len(errors) == 2 * 7 + 2  # seven Linear per block, embedding and output layer
    down = names[1]
    inputs, outputs = [], []
    hook = before.get_submodule(down).register_forward_hook(
        lambda m, a, out: inputs.append(a[0]) or outputs.append(out)
    )
    with torch.no_grad():
        logits = [before(**b).logits[0, :-1].double() for b in batches]
        hook.remove()
        alone = torch.cat([after.get_submodule(down)(x) for x in inputs])
        reached = []
        hook = after.get_submodule(down).register_forward_hook(lambda m, a, out: reached.append(out))
        for batch in batches:
            after(**batch)
        hook.remove()
        only = noisy(llama, [])
        only.get_submodule(down).weight.copy_(after.get_submodule(down).weight)
        others = [only(**b).logits[0, :-1].double() for b in batches]
    found = errors[down]
    assert (found.alone.sqnr_db, found.alone.cosine) == pytest.approx(agreement(torch.cat(outputs), alone), rel=1e-6)
    assert (found.together.sqnr_db, found.together.cosine) == pytest.approx(
        agreement(torch.cat(outputs), torch.cat(reached)), rel=1e-6
    )
    weights = before.get_submodule(down).weight, after.get_submodule(down).weight
    assert (found.weights.sqnr_db, found.weights.cosine) == pytest.approx(agreement(*weights), rel=1e-6)
    kl = [
        (p.softmax(-1) * (p.log_softmax(-1) - q.log_softmax(-1))).sum(-1) for p, q in zip(logits, others, strict=True)
    ]
    assert found.impact == pytest.approx(float(torch.cat(kl).mean()), rel=1e-4)


def test_untouched_layers_are_perfect_alone_but_not_behind_others(llama, batches):
    before, after = load(llama), noisy(llama, ["model.layers.0.self_attn.v_proj"])
    errors = {e.name: e for e in layer_errors(after, before, batches, impact=True)}
    later = errors["model.layers.1.mlp.up_proj"]
    assert later.alone.sqnr_db == math.inf and later.weights.cosine == 1 and later.impact == 0
    assert 0 < later.together.sqnr_db < math.inf
    earlier = errors["model.layers.0.self_attn.q_proj"]
    assert earlier.together.sqnr_db == math.inf
    assert ranked(list(errors.values()))[0].name == "model.layers.0.self_attn.v_proj"
    # nothing stays behind in the reference
    fresh = load(llama)
    with torch.no_grad():
        assert torch.equal(before(**batches[0]).logits, fresh(**batches[0]).logits)


def test_packed_layers_are_compared_too(llama, batches):
    import edgequant.torch as eqt

    before, after = load(llama), load(llama)
    eqt.quantize_module(after, eqt.QuantConfig("q4_0", compute="exact"))
    errors = {e.name: e for e in layer_errors(after, before, batches)}
    packed = errors["model.layers.0.mlp.up_proj"]
    assert 15 < packed.weights.sqnr_db < 30 and 15 < packed.alone.sqnr_db < 35
    assert packed.impact is None
    first = ranked(list(errors.values()))[0]
    assert first.alone.sqnr_db == min(e.alone.sqnr_db for e in errors.values())


def test_what_cannot_be_compared_is_refused(llama, bert, batches):
    module = load(llama)
    with pytest.raises(Error, match="the same object"):
        layer_errors(module, module, batches)
    with pytest.raises(Error, match="no Linear or Embedding layer"):
        layer_errors(load(llama), module, batches, match="conv")
    encoder = transformers.AutoModel.from_pretrained(bert, add_pooling_layer=False)
    with pytest.raises(Error, match=r"has no layer model\.embed_tokens"):
        layer_errors(encoder, module, batches)
    wide = load(llama)
    wide.model.layers[0].mlp.up_proj = torch.nn.Linear(64, 100, bias=False)
    with pytest.raises(Error, match=r"up_proj has shape \(100, 64\)"):
        layer_errors(wide, module, batches)


@pytest.mark.parametrize("name", ["llama", "bert"])
def test_through_files(name, request, text, tmp_path, capsys):
    from edgequant.cli.main import main

    source = request.getfixturevalue(name)
    file = tmp_path / "x.gguf"
    edgequant.quantize_model(source, file, "q4_0", progress=False)
    options = {"text": text, "context": 64, "windows": 3} if name == "llama" else {}
    result = evaluate(file, source, layers=True, **options)
    assert all(5 < e.alone.sqnr_db for e in result.layers) and np.isfinite(result.layers[3].together.sqnr_db)
    arguments = ["evaluate", str(file), "--reference", str(source), "--layers", "--weights"]
    arguments += [str(part) for key, value in options.items() for part in (f"--{key}", value)]
    pytest.importorskip("matplotlib")
    assert main([*arguments, "--plot", str(tmp_path / "layers.png")]) == 0
    printed = capsys.readouterr().out
    assert ranked(result.layers)[0].name in printed and "SQNR dB" in printed
    assert (tmp_path / "layers.png").read_bytes().startswith(b"\x89PNG")
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["layers"][0]["name"] == result.layers[0].name
    # a reference that is a GGUF of the same structure is not the same module
    again = evaluate(file, file, layers=True, **options)
    assert all(e.together.sqnr_db == math.inf for e in again.layers)
    with pytest.raises(Error, match="without a cache"):
        evaluate(file, Reference(source, options.pop("text", None), **options), layers=True)
