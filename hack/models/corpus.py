"""The texts every step of the pipeline works on, and the one place that splits them.

The test set of banking77 leaves this module only through `test_questions`, which the final
evaluation alone calls. Everything chosen by looking at results is chosen on `held_out`.
"""

import csv
import gzip
import io
import json
import random
from dataclasses import dataclass
from pathlib import Path

UNKNOWN = "unknown"
HELD_OUT = 1_000
# Near to banking: a banking intent is a fair answer there, so they teach no "unknown".
NEAR_DOMAINS = ("banking", "credit_cards")
OTHER_DOMAIN_TEXTS = 900


@dataclass(frozen=True)
class Question:
    text: str
    intent: str


@dataclass(frozen=True)
class Corpus:
    """`fit` trains, `held_out` chooses; `unknown` is part of the training, `unseen` is not."""

    fit: list[Question]
    held_out: list[Question]
    unknown: list[Question]
    unseen: list[Question]
    intents: list[str]

    @property
    def trained(self) -> list[Question]:
        return self.fit + self.unknown


def load(data: Path, seed: int = 7) -> Corpus:
    """Return the training side of both data sets, split by intent.

    `data` holds banking77/raw and clinc150/raw as their owners publish them.
    """
    questions = _banking(data, "train")
    fit, held_out = _split(questions, HELD_OUT, random.Random(seed))
    clinc = _clinc(data)
    far = _far_intents(data)
    others = [text for text, intent in clinc["train"] if intent in far]
    random.Random(seed).shuffle(others)
    out_of_scope = [text for text, _ in clinc["oos_train"]]
    unknown = [Question(text, UNKNOWN) for text in out_of_scope * 2 + others[:OTHER_DOMAIN_TEXTS]]
    unseen = [Question(text, UNKNOWN) for text, _ in clinc["oos_val"]]
    unseen += [Question(text, UNKNOWN) for text, intent in clinc["val"] if intent in far]
    intents = sorted({question.intent for question in questions} | {UNKNOWN})
    return Corpus(fit, held_out, unknown, unseen, intents)


def test_questions(data: Path) -> list[Question]:
    """Return the 3,080 test questions of banking77 in their own order."""
    return _banking(data, "test")


def test_unknown(data: Path) -> dict[str, list[str]]:
    """Return texts that are no banking question: out of scope, and of other domains."""
    clinc = _clinc(data)
    far = _far_intents(data)
    return {
        "clinc150 out of scope": [text for text, _ in clinc["oos_test"]],
        "clinc150 other domains": [text for text, intent in clinc["test"] if intent in far],
    }


def answer(intent: str) -> str:
    return f'{{"intent":"{intent}"}}'


def clinc_texts(data: Path) -> list[str]:
    """Return clinc150's training texts: the tokenizer learns ordinary English from them."""
    return [text for text, _ in _clinc(data)["train"]]


def _banking(data: Path, part: str) -> list[Question]:
    path = data / "banking77" / "raw" / f"banking_data__{part}.csv.gz"
    with gzip.open(path, "rt", encoding="utf8", newline="") as file:
        rows = list(csv.DictReader(io.StringIO(file.read())))
    return [Question(_line(row["text"]), row["category"].lower().rstrip("?")) for row in rows]


def _clinc(data: Path) -> dict[str, list[tuple[str, str]]]:
    path = data / "clinc150" / "raw" / "data__data_full.json.gz"
    with gzip.open(path, "rt", encoding="utf8") as file:
        parts = json.load(file)
    return {part: [(_line(text), intent) for text, intent in rows] for part, rows in parts.items()}


def _far_intents(data: Path) -> set[str]:
    path = data / "clinc150" / "raw" / "data__domains.json.gz"
    with gzip.open(path, "rt", encoding="utf8") as file:
        domains = json.load(file)
    return {
        intent
        for domain, intents in domains.items()
        if domain not in NEAR_DOMAINS
        for intent in intents
    }


def _line(text: str) -> str:
    return " ".join(text.split())


def _split(
    questions: list[Question], held_out: int, rng: random.Random
) -> tuple[list[Question], list[Question]]:
    """Split by intent in proportion, largest remainders first, so the sizes are exact."""
    by_intent: dict[str, list[Question]] = {}
    for question in questions:
        by_intent.setdefault(question.intent, []).append(question)
    exact = {name: len(rows) * held_out / len(questions) for name, rows in by_intent.items()}
    take = {name: int(share) for name, share in exact.items()}
    by_remainder = sorted(exact, key=lambda name: (take[name] - exact[name], name))
    for name in by_remainder[: held_out - sum(take.values())]:
        take[name] += 1
    fit: list[Question] = []
    kept: list[Question] = []
    for name in sorted(by_intent):
        rows = by_intent[name]
        rng.shuffle(rows)
        kept += rows[: take[name]]
        fit += rows[take[name] :]
    rng.shuffle(fit)
    rng.shuffle(kept)
    return fit, kept
