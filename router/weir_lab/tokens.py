"""The byte-level BPE of the two models, in the standard library alone.

Gives the same ids as the tokenizers package does from the same tokenizer.json. Text is always
text: a control token written out in a question ("<|end|>") becomes ordinary pieces and never
its control id. Only `frame` places control ids.
"""

import json
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from itertools import pairwise

PAD, SYSTEM, USER, ASSISTANT, END = range(5)
ROLES = {"system": SYSTEM, "developer": SYSTEM, "user": USER, "assistant": ASSISTANT}
# What the models were trained under; without it they answer a little worse.
SYSTEM_PROMPT = "banking desk"

# The pattern of tokenizer.json, over one class letter per character instead of the text:
# `re` has no \p{L}, and its \w and \s differ from those of the tokenizers package.
_WORDS = re.compile(r"[ _]?L+|[ _]?N|P+|[ S]+|_")
# Python counts these as space; Unicode's White_Space, which tokenizers follows, does not.
_NO_SPACE = "\x1c\x1d\x1e\x1f"


@dataclass(frozen=True)
class Turn:
    role: str
    text: str


class Tokenizer:
    """Texts to ids and back."""

    def __init__(self, vocabulary: dict[str, int], merges: Sequence[tuple[str, str]]) -> None:
        self.size = len(vocabulary)
        self._id = vocabulary
        self._rank = {pair: rank for rank, pair in enumerate(merges)}
        letters = _byte_letters()
        self._letter = letters
        byte = {letter: number for number, letter in enumerate(letters)}
        pieces = sorted(vocabulary, key=vocabulary.__getitem__)
        self._bytes = [
            piece.encode() if number <= END else bytes(byte[letter] for letter in piece)
            for number, piece in enumerate(pieces)
        ]
        self._pieces = lru_cache(maxsize=20_000)(self._split)

    def encode(self, text: str) -> list[int]:
        """Return the ids of plain text: NFC, lower case, words, merges. Never a control id."""
        plain = unicodedata.normalize("NFC", text)
        # One letter at a time: str.lower alone knows the final sigma, tokenizers does not.
        plain = plain.lower() if plain.isascii() else "".join(map(str.lower, plain))
        classes = "".join(map(_class, plain))
        ids: list[int] = []
        for match in _WORDS.finditer(classes):
            ids.extend(self._pieces(plain[match.start() : match.end()]))
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of the ids; control ids have none."""
        return b"".join(self._bytes[i] for i in ids if i > END).decode("utf8", "replace")

    def spelling(self, token: int) -> bytes:
        """Return the bytes of one token, for a control token those of its name."""
        return self._bytes[token]

    def frame(self, turns: Sequence[Turn]) -> list[int]:
        """Return the prompt of a conversation, ready for the assistant's next word.

        Raises KeyError for a role that is not in ROLES.
        """
        ids: list[int] = []
        for turn in turns:
            ids += [ROLES[turn.role], *self.encode(turn.text)]
            if turn.role == "assistant":
                ids.append(END)
        return [*ids, ASSISTANT]

    def question(self, text: str) -> list[int]:
        """Return the prompt of one question under the system prompt of the training."""
        return self.frame([Turn("system", SYSTEM_PROMPT), Turn("user", text)])

    def _split(self, word: str) -> tuple[int, ...]:
        parts = [self._letter[byte] for byte in word.encode("utf8", "replace")]
        never = len(self._rank)
        while len(parts) > 1:
            best = min(pairwise(parts), key=lambda pair: self._rank.get(pair, never))
            if best not in self._rank:
                break
            parts = _merged(parts, best)
        return tuple(self._id[part] for part in parts)


def _merged(parts: list[str], pair: tuple[str, str]) -> list[str]:
    """Join every occurrence of the pair, from the left."""
    joined: list[str] = []
    place = 0
    while place < len(parts):
        two = tuple(parts[place : place + 2]) == pair
        joined.append("".join(pair) if two else parts[place])
        place += 2 if two else 1
    return joined


def load() -> Tokenizer:
    """Return the tokenizer that ships with the package."""
    text = (files("weir_lab") / "data" / "tokenizer.json").read_text(encoding="utf8")
    model = json.loads(text)["model"]
    merges = [(left, right) for left, right in model["merges"]]
    return Tokenizer(model["vocab"], merges)


def _byte_letters() -> list[str]:
    """Return the printable letter of each byte (GPT-2's encoder.py, bytes_to_unicode)."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    spare = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(spare)) for byte in range(256)]


@lru_cache(maxsize=4_096)
def _class(letter: str) -> str:
    if letter in " _":
        return letter
    if letter.isspace() and letter not in _NO_SPACE:
        return "S"
    kind = unicodedata.category(letter)[0]
    return kind if kind in "LN" else "P"
