"""Makes new texts from training questions: crossovers, near words, dropped words, typing slips.

A text made here has no label of its own; the teacher reads it and says how likely each intent is.
"""

import random
import re
from collections import Counter

from corpus import Question

LONGEST = 200


def frequent_words(questions: list[Question], count: int) -> list[str]:
    found = Counter(
        word for question in questions for word in re.findall(r"[a-z']+", question.text.lower())
    )
    return [word for word, _ in found.most_common(count)]


def pool(
    questions: list[Question],
    neighbours: dict[str, list[str]],
    synonyms: dict[str, list[str]],
    *,
    size: int,
    seed: int,
) -> list[str]:
    """Return `size` texts below 200 characters; `neighbours` names the near intents of one."""
    rng = random.Random(seed)
    by_intent: dict[str, list[str]] = {}
    for question in questions:
        by_intent.setdefault(question.intent, []).append(question.text)
    intents = sorted(by_intent)
    made: list[str] = []
    for _ in range(size * 2):  # Few texts are too long; twice the size always suffices.
        intent = rng.choice(intents)
        text, kind = rng.choice(by_intent[intent]), rng.random()
        if kind < 0.35:
            text = cross(text, rng.choice(by_intent[intent]), rng)
        elif kind < 0.55:
            text = cross(text, rng.choice(by_intent[rng.choice(neighbours[intent])]), rng)
        elif kind < 0.9:
            text = swap_words(text, synonyms, rng)
        else:
            text = drop_words(swap_words(text, synonyms, rng), 0.2, rng)
        if len(text) < LONGEST:
            made.append(text)
        if len(made) == size:
            return made
    raise ValueError(f"pool: {len(made)} texts made, {size} wanted")


def cross(first: str, second: str, rng: random.Random) -> str:
    """Join the beginning of one text with the end of another."""
    head, tail = first.split(), second.split()
    cut = rng.randrange(1, len(head) + 1)
    start = rng.randrange(max(1, len(tail) - 1))
    return " ".join(head[:cut] + tail[start:])


def swap_words(text: str, synonyms: dict[str, list[str]], rng: random.Random) -> str:
    words = []
    for word in text.split():
        near = synonyms.get(word.lower())
        words.append(rng.choice(near) if near and rng.random() < 0.3 else word)
    return " ".join(words)


def drop_words(text: str, share: float, rng: random.Random) -> str:
    return " ".join([word for word in text.split() if rng.random() >= share] or text.split())


def slip(text: str, rng: random.Random, drop: float = 0.1) -> str:
    """Return the text as a hurried person types it: words lost or swapped, a typo, no point."""
    words = text.split()
    if len(words) > 3:
        words = drop_words(text, drop, rng).split()
        if rng.random() < 0.15 and len(words) > 1:
            place = rng.randrange(len(words) - 1)
            words[place : place + 2] = words[place : place + 2][::-1]
        if rng.random() < 0.15:
            place = rng.randrange(len(words))
            words[place] = _typo(words[place], rng)
    text, chance = " ".join(words), rng.random()
    if chance < 0.2:
        return text.rstrip("?.! ")
    return text.replace("'", "") if chance < 0.25 else text


def _typo(word: str, rng: random.Random) -> str:
    if len(word) <= 3:
        return word
    place = rng.randrange(1, len(word) - 1)
    left, letter, rest = word[:place], word[place], word[place + 1 :]
    return rng.choice([left + rest, left + rest[:1] + letter + rest[1:]])
