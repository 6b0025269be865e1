"""Turns texts and targets into shuffled, length-bucketed batches and next-token targets.

The target of a text is a distribution over intents, not over the vocabulary: smoothing over the
vocabulary would teach answers that are no JSON. Along the trie of all answers such a distribution
gives an exact target for each next token.
"""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import corpus
import numpy as np
import synthetic
import torch
from corpus import Corpus
from tokenizer import ASSISTANT, END, PAD, SYSTEM, SYSTEM_PROMPT, USER
from tokenizers import Tokenizer
from torch import Tensor

# Longer texts are cut in training only; the longest question has 90 tokens.
LONGEST_TEXT = 60
BUCKET = 40


@dataclass(frozen=True)
class Examples:
    """One row per text: what it says, its distribution over intents, its MiniLM embedding.

    Rows from `pooled` on are synthetic. Without a teacher `meaning` is None.
    """

    texts: list[str]
    target: Tensor
    meaning: Tensor | None
    pooled: int


@dataclass(frozen=True)
class Batch:
    prompts: list[list[int]]
    rows: Tensor


def from_labels(texts: Corpus, smoothing: float) -> Examples:
    target = _gold(texts, smoothing)
    return Examples([q.text for q in texts.trained], target, None, len(texts.trained))


def from_teacher(texts: Corpus, work: Path, smoothing: float, gold_share: float) -> Examples:
    """Mix the teacher's belief into the labels and append its synthetic texts."""
    taught = np.load(work / "teacher.npz")
    pool = json.loads((work / "pool.json").read_text(encoding="utf8"))
    fit = torch.tensor(taught["fit_target"])
    target = gold_share * _gold(texts, smoothing) + (1 - gold_share) * fit
    return Examples(
        [question.text for question in texts.trained] + pool,
        torch.cat([target, torch.tensor(taught["pool_target"])]),
        torch.cat([torch.tensor(taught["fit_meaning"]), torch.tensor(taught["pool_meaning"])]),
        len(texts.trained),
    )


def _gold(texts: Corpus, smoothing: float) -> Tensor:
    number = {intent: place for place, intent in enumerate(texts.intents)}
    rows = torch.tensor([number[question.intent] for question in texts.trained])
    target = torch.full((len(rows), len(number)), smoothing / len(number))
    target[torch.arange(len(rows)), rows] += 1 - smoothing
    return target


def epoch(
    examples: Examples,
    tokenizer: Tokenizer,
    rng: random.Random,
    *,
    pool: int,
    batch: int,
    word_drop: float,
) -> Iterator[Batch]:
    """Yield every labelled text and `pool` synthetic ones once, with fresh typing slips."""
    rows = list(range(examples.pooled))
    rows += rng.sample(range(examples.pooled, len(examples.texts)), pool)
    rng.shuffle(rows)
    slipped = [synthetic.slip(examples.texts[row], rng, word_drop) for row in rows]
    head = [SYSTEM, *tokenizer.encode(SYSTEM_PROMPT).ids, USER]
    prompts = [
        [*head, *coded.ids[:LONGEST_TEXT], ASSISTANT] for coded in tokenizer.encode_batch(slipped)
    ]
    groups: list[list[int]] = []
    for start in range(0, len(rows), batch * BUCKET):
        bucket = range(start, min(start + batch * BUCKET, len(rows)))
        by_length = sorted(bucket, key=lambda place: len(prompts[place]))
        groups += [by_length[i : i + batch] for i in range(0, len(by_length), batch)]
    rng.shuffle(groups)
    for group in groups:
        yield Batch([prompts[i] for i in group], torch.tensor([rows[i] for i in group]))


class Trie:
    """All answers as token rows, and which intents are still possible after each prefix."""

    def __init__(self, intents: list[str], tokenizer: Tokenizer) -> None:
        self.answers = [[*tokenizer.encode(corpus.answer(name)).ids, END] for name in intents]
        self.longest = max(map(len, self.answers))
        self.tokens = torch.full((len(intents), self.longest), PAD)
        for row, ids in enumerate(self.answers):
            self.tokens[row, : len(ids)] = torch.tensor(ids)
        self.lengths = torch.tensor([len(ids) for ids in self.answers])
        self.alive = torch.zeros(len(intents), self.longest, len(intents), dtype=torch.bool)
        for row, ids in enumerate(self.answers):
            for depth in range(len(ids)):
                same = self.tokens[:, :depth] == self.tokens[row, :depth]
                self.alive[row, depth] = same.all(1)

    def loss(self, log_probability: Tensor, target: Tensor, path: Tensor) -> Tensor:
        """Cross-entropy of the answer tokens against `target`, summed, along `path`.

        `log_probability` has one row per answer token of the batch, texts in order.
        """
        depth = torch.arange(self.longest)[None]
        text, place = (depth < self.lengths[path][:, None]).nonzero(as_tuple=True)
        weight = target[text] * self.alive[path[text], place]
        weight = weight / weight.sum(1, keepdim=True)
        return -(weight * log_probability.gather(1, self.tokens.T[place])).sum()
