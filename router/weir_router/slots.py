"""Where a book counts: cells by time of assignment, epochs, and sessions.

Plain mutable slots, for they are touched twice a request.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from weir_core.cells import Line, begin_of
from weir_core.merging import add

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
    """A cell that is still counted in. From `late_s` on what is open has failed.

    `joined` is the cell that this one was added to when it was no longer fresh.
    """

    __slots__ = ("begin_s", "book", "counts", "joined", "late_s", "sessions", "span", "state")

    def __init__(self, book: "Book", span: Span, begin_s: float, late_s: float) -> None:
        self.book = book
        self.span = span
        self.begin_s = begin_s
        self.late_s = late_s
        self.counts = [0] * len(span.base)
        self.joined: Slot | None = None
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


def cell(slot: Slot) -> Slot:
    """Return the cell that holds the counts of `slot` by now."""
    while slot.joined is not None:
        slot = slot.joined
    return slot


def join(slots: Iterable[Slot], lines: Sequence[Line]) -> deque[Slot]:
    """Return cells in order, those that are not fresh any more added to the first of theirs."""
    kept: deque[Slot] = deque()
    last: tuple[object, ...] = ()
    for slot in slots:
        place = (begin_of(slot.begin_s, lines), slot.late_s, id(holder(slot.span)))
        if place != last:
            kept.append(slot)
            last = place
        else:
            _add(slot, kept[-1])
    return kept


def _add(slot: Slot, first: Slot) -> None:
    slot.joined = first
    add(first.counts, slot.counts)
    if slot.sessions is not None:
        first.sessions = first.sessions or [0] * len(slot.sessions)
        add(first.sessions, slot.sessions)


def row_of(slot: Slot) -> Sequence[int]:
    """Return the counts of a cell, sessions' first failures included."""
    if slot.sessions is None:
        return slot.counts
    return [a + b for a, b in zip(slot.counts, slot.sessions, strict=True)]
