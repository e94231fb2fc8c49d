"""Text that a model writes itself: a held-in text to measure its quantized versions on, where no other text is at hand.

On text sampled from the reference at temperature 1, the expected log-perplexity of any other model exceeds the
reference's by exactly their KL divergence, so quantization can only make the number worse.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

OPENINGS: tuple[str, ...] = (
    "The history of bread begins",
    "When the ship reached the harbour, the captain",
    "A computer stores every number as",
    "In the spring of that year, the village",
    "Plants need light because",
    "To repair an old clock, one first",
    "The king had three daughters, and",
    "Water freezes at zero degrees, but",
    "Dear Sir or Madam, I am writing to",
    "The experiment was repeated with a larger",
    "On the way to school, Anna found a",
    "To solve the equation, we divide both",
    "The city lies on the northern bank of",
    "Many animals change their colour in winter",
    "The committee decided to postpone the vote",
    "Music was her first language, she said",
)


def sample_text(
    model: Any,
    tokenizer: Any,
    tokens: int = 4096,
    seed: int = 1,
    temperature: float = 1.0,
    progress: Callable[[str, int, int], None] | None = None,
) -> str:
    """Samples a text of about `tokens` tokens from a causal model: one passage per opening, all in one batch.

    Args:
        model: causal model of transformers.
        tokenizer: its fast tokenizer.
        seed: of the random draws; the same model, seed and torch give the same text.
        progress: called with (what, done, total) after each step.

    Returns:
        The passages, separated by empty lines. No special token is ever drawn, so a passage does not end early.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    starts = [tokenizer(opening, add_special_tokens=False).input_ids for opening in OPENINGS]
    shortest = min(map(len, starts))
    # Openings are cut to one length: without padding, every passage sees exactly the positions it would have alone.
    ids = torch.tensor([start[:shortest] for start in starts])
    special = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    banned = torch.tensor(sorted(special | set(tokenizer.all_special_ids)), dtype=torch.long)
    passages, cache, step = [ids], None, ids
    with torch.inference_mode():
        steps = max(1, -(-tokens // len(starts)) - shortest)
        for done in range(1, steps + 1):
            output = model(input_ids=step, past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            logits = output.logits[:, -1].float() / temperature
            logits[:, banned] = -torch.inf
            step = torch.multinomial(logits.softmax(-1), 1, generator=generator)
            passages.append(step)
            if progress:
                progress("writing the text", done, steps)
    return "\n\n".join(tokenizer.decode(row) for row in torch.cat(passages, 1)) + "\n"
