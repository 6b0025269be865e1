"""The held-out test questions of banking77, the demo's traffic, each with its right answer.

Casanueva et al., Efficient Intent Detection with Dual Sentence Encoders, 2020; CC BY 4.0.
No model here was trained, tuned or calibrated on them.
"""

import csv
import gzip
import io
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from weir_lab.answers import answer
from weir_lab.tokens import SYSTEM_PROMPT

ATTRIBUTION = (
    "Questions: banking77 by PolyAI (Casanueva et al., 2020), test set, CC BY 4.0; labels "
    "lower-cased and one trailing question mark removed."
)


@dataclass(frozen=True, slots=True)
class Question:
    """`number` counts from 0 in the order of the published file; `intent` is the gold label."""

    number: int
    text: str
    intent: str

    @property
    def answer(self) -> str:
        """The text a model that is right says, byte for byte."""
        return answer(self.intent)

    def body(self, model: str, **more: Any) -> dict[str, Any]:
        """Return a chat completion request that asks this question as the models learned it."""
        messages = [
            {"role": "system", "content": SYSTEM_PROMPT},
            {"role": "user", "content": self.text},
        ]
        return {"model": model, "messages": messages, **more}


def load() -> tuple[Question, ...]:
    """Return all 3,080 questions."""
    return tuple(iterate())


def iterate() -> Iterator[Question]:
    file = (files("weir_lab") / "data" / "questions.csv.gz").read_bytes()
    text = io.StringIO(gzip.decompress(file).decode(), newline="")
    for number, row in enumerate(csv.DictReader(text)):
        yield Question(number, row["text"], row["intent"])
