import pytest
from edgequant.evaluate.sample import OPENINGS, sample_text

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


def test_text_is_reproducible_and_free_of_special_tokens(llama):
    module = transformers.AutoModelForCausalLM.from_pretrained(llama).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(llama)
    steps = []
    text = sample_text(module, tokenizer, 640, seed=3, progress=lambda *step: steps.append(step))
    assert text == sample_text(module, tokenizer, 640, seed=3)
    assert text != sample_text(module, tokenizer, 640, seed=4)
    assert "<s>" not in text and "</s>" not in text
    assert steps[-1][1] == steps[-1][2]
    # one passage per opening, each beginning with it
    assert text.startswith(OPENINGS[0][:5])
    assert all(opening[:3] in text for opening in OPENINGS)
    assert 400 < len(tokenizer(text).input_ids) < 900


def test_drawing_follows_the_models_probabilities(llama):
    """A model whose logits are fixed: the words drawn must be distributed as it says."""
    module = transformers.AutoModelForCausalLM.from_pretrained(llama).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(llama)
    wanted = tokenizer.convert_tokens_to_ids(["x", "y", "z"])

    class Fixed:
        def __call__(self, input_ids, **options):
            output = module(input_ids=input_ids, **options)
            output.logits[:] = -1e9
            output.logits[..., wanted] = torch.tensor([0.6, 0.3, 0.1]).log()
            return output

    text = sample_text(Fixed(), tokenizer, 2400, seed=0)
    drawn = [text.count(letter) for letter in "xyz"]
    assert [count / sum(drawn) for count in drawn] == pytest.approx([0.6, 0.3, 0.1], abs=0.06)
