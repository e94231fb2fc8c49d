import numpy as np
import pytest
from edgequant import Error
from edgequant.evaluate import embedding
from edgequant.evaluate.sentences import SENTENCES


def units(count, width=16, seed=0):
    x = np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_a_model_agrees_with_itself():
    score = embedding.score(units(20), units(20))
    assert score.cosine == pytest.approx(1, abs=1e-7) and score.nearest == 1 and score.order == pytest.approx(1)


def test_scores_equal_a_plain_computation():
    a = units(12)
    b = units(12, seed=1) * 0.3 + a
    b /= np.linalg.norm(b, axis=1, keepdims=True)
    score = embedding.score(a, b)
    assert score.cosine == pytest.approx(np.mean([x @ y for x, y in zip(a, b, strict=True)]), abs=1e-6)
    assert score.cosine_min == pytest.approx(min(x @ y for x, y in zip(a, b, strict=True)), abs=1e-6)
    nearest, orders = 0, []
    for i in range(12):
        others = [j for j in range(12) if j != i]
        first, second = (sorted(others, key=lambda j, m=m, i=i: -(m[i] @ m[j])) for m in (a, b))
        nearest += first[0] == second[0]
        # Spearman's formula for orders without ties
        difference = sum((first.index(j) - second.index(j)) ** 2 for j in others)
        orders.append(1 - 6 * difference / (11 * (11**2 - 1)))
    assert score.nearest == nearest / 12
    assert score.order == pytest.approx(np.mean(orders))
    assert score.nearest < 1 and score.order < 1
    shared = []
    for i in range(12):
        first, second = ([j for j in np.argsort(-(m @ m[i])) if j != i][:5] for m in (a, b))
        shared.append(len(set(first) & set(second)) / 5)
    assert score.overlap["5"] == pytest.approx(np.mean(shared)) and 0.2 < score.overlap["5"] < 1
    assert score.overlap["1"] == score.nearest
    assert list(score.overlap) == ["1", "5", "10"]
    for name, value in (("cosine", score.cosine), ("order", score.order), ("overlap 5", score.overlap["5"])):
        estimate = score.estimates[name]
        assert estimate.value == value and estimate.low < value < estimate.high


def test_unusable_embeddings_are_refused():
    with pytest.raises(Error, match="2 sentences are too few"):
        embedding.score(units(2), units(2))
    with pytest.raises(Error, match="shapes differ"):
        embedding.score(units(5), units(6))
    bad = units(5)
    bad[3, 2] = np.nan
    with pytest.raises(Error, match="not finite"):
        embedding.score(units(5), bad)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_a_batch_embeds_like_single_sentences(bert, pooling):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    module = transformers.AutoModel.from_pretrained(bert, add_pooling_layer=False).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(bert)
    sentences = ["the cat sat", "a very old dog ran under the house", "rain", "birds sing"] * 5
    rows = embedding.embed(module, tokenizer, sentences, pooling, 32)
    for sentence, row in zip(sentences, rows, strict=True):
        with torch.no_grad():
            states = module(**tokenizer(sentence, return_tensors="pt")).last_hidden_state[0].double().numpy()
        expected = states[0] if pooling == "cls" else states.mean(0)
        assert np.allclose(row, expected / np.linalg.norm(expected), atol=1e-5)
    with pytest.raises(Error, match='pooling "max"'):
        embedding.embed(module, tokenizer, sentences, "max")


def test_built_in_sentences_are_distinct():
    assert len(set(SENTENCES)) == len(SENTENCES) == 48
