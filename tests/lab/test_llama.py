from collections.abc import Sequence

import numpy as np
import pytest

from weir_lab import questions, tokens, weights
from weir_lab.llama import LONGEST, Decoder
from weir_lab.tokens import END

TOKENIZER = tokens.load()
SMALL, LARGE = weights.load("small"), weights.load("large")


def greedy(decoder: Decoder, prompt: Sequence[int], limit: int = 20) -> tuple[list[int], float]:
    """Return the answer's ids and the sum of their logprobs, alone in the decoder."""
    told, said, total = decoder.admit([prompt]), [], 0.0
    while True:
        said.append(int(told[0].argmax()))
        total += float(told[0].max())
        if said[-1] == END or len(said) == limit:
            decoder.release(0)
            return said, total
        told = decoder.step([said[-1]])


def joint(decoder: Decoder, prompts: list[list[int]]) -> list[tuple[list[int], float]]:
    """Answer several prompts in step, each row released as soon as it ends."""
    told = decoder.admit(prompts)
    live, said, total = list(range(len(prompts))), [[] for _ in prompts], [0.0 for _ in prompts]
    while live:
        ids = told.argmax(-1).tolist()
        for row in reversed(range(len(live))):
            said[live[row]].append(ids[row])
            total[live[row]] += float(told[row].max())
            if ids[row] == END:
                decoder.release(row)
                live[row], ids[row] = live[-1], ids[-1]
                live.pop()
                ids.pop()
        if live:
            told = decoder.step(ids)
    return list(zip(said, total, strict=True))


@pytest.mark.parametrize("loaded", [SMALL, LARGE], ids=["small", "large"])
def test_answers_in_company_are_those_given_alone(loaded: weights.Weights) -> None:
    prompts = [TOKENIZER.question(q.text) for q in questions.load()[::200]]
    decoder = Decoder(loaded, rows=len(prompts))
    together = joint(decoder, prompts)
    alone = [greedy(decoder, prompt) for prompt in prompts]
    assert [said for said, _ in together] == [said for said, _ in alone]
    assert [total for _, total in together] == pytest.approx([t for _, t in alone], abs=1e-4)


def test_cached_steps_tell_what_a_fresh_reading_tells() -> None:
    prompt = TOKENIZER.question("My card has still not arrived, what now?")
    cached, fresh = Decoder(LARGE, rows=1), Decoder(LARGE, rows=1)
    told = cached.admit([prompt])
    for _ in range(8):
        prompt = [*prompt, int(told[0].argmax())]
        told = cached.step([prompt[-1]])
        again = fresh.admit([prompt])
        fresh.release(0)
        assert np.abs(np.exp(told) - np.exp(again)).max() < 1e-5


def test_logprobs_are_those_of_a_distribution() -> None:
    told = Decoder(SMALL).admit([TOKENIZER.question("Hello"), TOKENIZER.question("Is it me?")])
    assert np.exp(told).sum(-1) == pytest.approx([1.0, 1.0], abs=1e-4)


def test_a_released_row_leaves_the_others_as_they_were() -> None:
    first, second = (TOKENIZER.question(text) for text in ("Top up failed", "Where is my card?"))
    decoder, alone = Decoder(SMALL, rows=2), Decoder(SMALL, rows=1)
    decoder.admit([first, second])
    decoder.release(0)
    alone.admit([second])
    assert decoder.step([9]) == pytest.approx(alone.step([9]), abs=1e-4)


def test_a_row_is_full_at_the_longest_context() -> None:
    decoder = Decoder(SMALL, rows=1)
    decoder.admit([[7] * (LONGEST - 1)])
    assert not decoder.full(0)
    decoder.step([7])
    assert decoder.full(0)
