"""Asks a packed model many questions, through the very batch that serves them."""

import threading
from dataclasses import dataclass

import numpy as np

from weir_lab import answers, tokens, weights
from weir_lab.answers import Answer, Ask
from weir_lab.batch import Batch
from weir_lab.llama import Decoder
from weir_lab.weights import Weights

LONGEST_ANSWER = 32


@dataclass(frozen=True)
class Said:
    """One answer's text and the natural-log probabilities of its tokens, end token included."""

    text: str
    logprobs: np.ndarray


def ask(loaded: Weights, texts: list[str]) -> list[Said]:
    """Return greedy answers in the order of the texts."""
    tokenizer = tokens.load()
    finished = threading.Semaphore(0)

    def deliver(news: list[Answer]) -> None:
        finished.release(len(news))

    trie = answers.trie(tokenizer, loaded.intents)
    batch = Batch(Decoder(loaded), tokenizer, trie, deliver)
    waiting = [Answer(Ask(tokenizer.question(text), LONGEST_ANSWER)) for text in texts]
    batch.start()
    for answer in waiting:
        batch.submit(answer)
    for _ in waiting:
        finished.acquire()
    batch.stop()
    return [
        Said(answer.text(), np.array([piece.logprob for piece in answer.pieces]))
        for answer in waiting
    ]


def load(model: str, levels: int | None = None) -> Weights:
    loaded = weights.load(model)
    return loaded if levels is None else weights.coarsen(loaded, levels)
