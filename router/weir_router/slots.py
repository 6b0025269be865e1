"""Where a book counts: cells by assignment second, epochs, and sessions.

Plain mutable slots, for they are touched twice a request.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from weir_router.book import Book

YOUNG, PAST, GONE = 0, 1, 2
"""A cell may change; is in its epoch's base too; is only there."""


class Span:
    """One epoch here: `base` is past the horizon, `sessions` its sessions' first failures.

    `joined` is the epoch that this one was added to when its period became part of a block.
    """

    __slots__ = ("base", "first_s", "joined", "period", "sessions", "units", "weight_bp")

    def __init__(self, period: int, weight_bp: int, first_s: int, length: int) -> None:
        self.period = period
        self.weight_bp = weight_bp
        self.first_s = first_s
        self.joined: Span | None = None
        self.units = [0, 0]
        self.base = [0] * length
        self.sessions = [0] * length


class Slot:
    """A cell that is still counted in. From `late_s` on what is open has failed."""

    __slots__ = ("book", "counts", "late_s", "second", "sessions", "span", "state")

    def __init__(self, book: "Book", span: Span, second: int, late_s: int) -> None:
        self.book = book
        self.span = span
        self.second = second
        self.late_s = late_s
        self.counts = [0] * len(span.base)
        self.sessions: list[int] | None = None
        self.state = YOUNG


class Session:
    """What is remembered of one session: requests counted, objectives failed (a bitmask)."""

    __slots__ = ("digest", "failed", "name", "requests")

    def __init__(self, name: str) -> None:
        self.name = name
        self.digest = ""
        self.requests = 0
        self.failed = 0


def holder(span: Span) -> Span:
    """Return the epoch that holds the counts of `span` by now."""
    while span.joined is not None:
        span = span.joined
    return span


def row_of(slot: Slot) -> Sequence[int]:
    """Return the counts of a cell, sessions' first failures included."""
    if slot.sessions is None:
        return slot.counts
    return [a + b for a, b in zip(slot.counts, slot.sessions, strict=True)]
