"""What a request asks of a model and what comes back, token by token and as text.

It knows nothing of HTTP nor of matrices: the batch fills answers, the wire shapes them.
"""

import asyncio
import codecs
from collections.abc import Iterable
from dataclasses import dataclass, field

from weir_lab.tokens import END, Tokenizer

Node = dict[int, "Node"]


@dataclass(frozen=True, slots=True)
class Ask:
    """One prompt and how to continue it. Temperature 0 is greedy; `top` alternatives a token."""

    prompt: list[int]
    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    top: int = 0
    constrained: bool = False


@dataclass(frozen=True, slots=True)
class Piece:
    """One token: natural-log probability, alternatives most likely first, text it sets free."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]
    text: str


@dataclass(slots=True, eq=False)
class Answer:
    """An answer in the making. The batch's thread appends; the event loop reads and may cancel.

    `finish` is None until the end, then stop, length, abort or error. `changed` belongs to the
    event loop alone.
    """

    ask: Ask
    stream: bool = False
    pieces: list[Piece] = field(default_factory=list)
    finish: str | None = None
    cancelled: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def text(self) -> str:
        return "".join(piece.text for piece in self.pieces)

    def cancel(self) -> None:
        self.cancelled = True
        self.changed.set()


class Writer:
    """Turns tokens into text: whole characters only, nothing from a stop string on."""

    def __init__(self, tokenizer: Tokenizer, stop: tuple[str, ...] = ()) -> None:
        self._tokenizer, self._stop = tokenizer, stop
        self._decode = codecs.getincrementaldecoder("utf8")("replace").decode
        self._held = ""
        self.stopped = False

    def add(self, token: int, *, last: bool = False) -> str:
        """Return the text that is now certain. `last` frees what was held back."""
        spelling = b"" if token <= END else self._tokenizer.spelling(token)
        self._held += self._decode(spelling, last)
        cuts = [place for place in map(self._held.find, self._stop) if place >= 0]
        if cuts:
            self.stopped = True
            return self._held[: min(cuts)]
        keep = 0 if last else self._hope()
        sure, self._held = self._held[: len(self._held) - keep], self._held[-keep:] * bool(keep)
        return sure

    def _hope(self) -> int:
        """Return how many characters at the end may be the beginning of a stop string."""
        longest = max(map(len, self._stop), default=1) - 1
        for size in range(min(longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-size:]) for stop in self._stop):
                return size
        return 0


def answer(intent: str) -> str:
    """Return the JSON text that names an intent: all that the models were trained to say."""
    return f'{{"intent":"{intent}"}}'


def trie(tokenizer: Tokenizer, intents: Iterable[str]) -> Node:
    """Return the tree of all answers' tokens, each ended by the end token."""
    root: Node = {}
    for intent in intents:
        node = root
        for token in [*tokenizer.encode(answer(intent)), END]:
            node = node.setdefault(token, {})
    return root
