import math

import numpy as np
import pytest
from edgequant import Error
from edgequant.evaluate import language
from edgequant.evaluate.intervals import Estimate
from edgequant.evaluate.protocol import cut_windows, read_text

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


def load(directory):
    module = transformers.AutoModelForCausalLM.from_pretrained(directory).eval()
    return module, transformers.AutoTokenizer.from_pretrained(directory)


@pytest.fixture(scope="module")
def windows(llama, text):
    return cut_windows(load(llama)[1], read_text(text), 160, 3)[0]


def log_probabilities(module, window):
    """Slow and plain: all of one window in float64."""
    with torch.no_grad():
        logits = module(torch.tensor([window.tolist()])).logits[0, :-1].double().numpy()
    logits -= logits.max(1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(1, keepdims=True))


def test_perplexity_equals_a_plain_computation(llama, windows):
    module, _ = load(llama)
    score = language.score(language.predictor(module), windows)
    nll = np.concatenate([-log_probabilities(module, w)[np.arange(len(w) - 1), w[1:]] for w in windows])
    assert len(nll) == 3 * 159
    assert score.perplexity == pytest.approx(math.exp(nll.mean()), rel=1e-5)
    assert score.perplexity_error == pytest.approx(score.perplexity * score.nll.error)
    low, high = score.perplexity_interval
    assert low < score.perplexity < high
    assert score.kl is None and score.top1 is None


def test_divergence_and_agreement_equal_a_plain_computation(llama, other_llama, windows):
    reference, model = load(llama)[0], load(other_llama)[0]
    score = language.score(language.predictor(model), windows, teacher=language.Replay(load(llama)[0], windows))
    kl, same, ratio, change = [], [], [], []
    for window in windows:
        p, q = log_probabilities(reference, window), log_probabilities(model, window)
        kl.append((np.exp(p) * (p - q)).sum(1))
        same.append(p.argmax(1) == q.argmax(1))
        change.append((np.exp(q) - np.exp(p))[np.arange(len(window) - 1), window[1:]])
        ratio.append((p - q)[np.arange(len(window) - 1), window[1:]])
    kl = np.concatenate(kl)
    assert score.kl.value == pytest.approx(kl.mean(), rel=1e-5)
    assert score.kl.value > 0.1
    assert score.kl_max == pytest.approx(kl.max(), rel=1e-5)
    assert score.kl_percentiles["99"].value == pytest.approx(np.quantile(kl, 0.99), rel=1e-5)
    assert score.top1.value == np.concatenate(same).mean()
    change = np.concatenate(change)
    assert score.probability_rms.value == pytest.approx(math.sqrt((change**2).mean()), rel=1e-5)
    assert score.probability_mean.value == pytest.approx(change.mean(), abs=1e-7)
    assert score.kl_bounds is None  # exact
    assert score.log_ratio.value == pytest.approx(np.concatenate(ratio).mean(), abs=1e-5)
    assert math.log(score.perplexity / score.reference_perplexity) == pytest.approx(score.log_ratio.value)


def test_a_model_does_not_diverge_from_itself(llama, windows):
    score = language.score(
        language.predictor(load(llama)[0]), windows, teacher=language.Replay(load(llama)[0], windows)
    )
    assert score.kl.value == 0 and score.kl_max == 0
    assert score.top1.value == 1
    assert score.log_ratio == Estimate(0.0, 0.0, 0.0, 0.0)
    assert score.probability_rms.value == 0


def test_replay_gives_the_models_own_logits(llama, windows):
    module, _ = load(llama)
    with torch.no_grad():
        expected = [module(torch.from_numpy(w[None])).logits[0] for w in windows]
    replay = language.Replay(module, windows)
    for index in (2, 0, 1):
        assert torch.equal(replay.logits(index), expected[index])


def test_a_warm_up_is_context_only(llama, other_llama, windows):
    """The same numbers as of all tokens, those of the warm-up left out."""
    model = load(other_llama)[0]
    score = language.score(language.predictor(model), windows, 100, language.Replay(load(llama)[0], windows, 100))
    nll = np.concatenate([-log_probabilities(model, w)[np.arange(99, 159), w[100:]] for w in windows])
    assert score.nll.value == pytest.approx(nll.mean(), rel=1e-5)
    kl = []
    for window in windows:
        p, q = log_probabilities(load(llama)[0], window)[99:], log_probabilities(model, window)[99:]
        kl.append((np.exp(p) * (p - q)).sum(1).mean())
    assert score.kl.value == pytest.approx(np.mean(kl), rel=1e-5)


def test_a_model_used_as_reference_stays_what_it_was_and_may_change(llama, other_llama, windows):
    module = load(llama)[0]
    before = language.predictor(module)(windows[0])
    replay = language.Replay(module, windows)
    assert torch.equal(language.predictor(module)(windows[0]), before)
    module.load_state_dict(load(other_llama)[0].state_dict())
    assert not torch.equal(language.predictor(module)(windows[0]), before)
    assert torch.equal(replay.logits(0), before)


def test_replay_repeats_what_follows_the_output_layer(windows):
    """Gemma caps its logits after the output layer; a replay must do so too."""
    config = transformers.Gemma2Config(
        vocab_size=400, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, final_logit_softcapping=2.0, initializer_range=0.5,
    )  # fmt: skip
    torch.manual_seed(0)
    module = transformers.Gemma2ForCausalLM(config).eval()
    with torch.no_grad():
        expected = module(torch.from_numpy(windows[:1])).logits[0]
    assert expected.abs().max() <= 2
    assert torch.equal(language.Replay(module, windows).logits(0), expected)


def test_different_vocabularies_are_refused(llama, windows):
    config = transformers.LlamaConfig(
        vocab_size=999, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    other = transformers.LlamaForCausalLM(config).eval()
    with pytest.raises(Error, match="vocabularies differ"):
        language.score(language.predictor(other), windows, teacher=language.Replay(load(llama)[0], windows))
    config.vocab_size = 100
    with pytest.raises(Error, match="the model only 100"):
        language.score(language.predictor(transformers.LlamaForCausalLM(config).eval()), windows)


def test_predictions_that_are_not_finite_are_refused(llama, windows):
    module, _ = load(llama)
    module.model.norm.weight.data.fill_(float("nan"))
    with pytest.raises(Error, match="not finite"):
        language.score(language.predictor(module), windows)
