"""Labels of people: which replies can still be labelled, and what is held back until it counts.

A label comes when somebody gives it, for one arm perhaps sooner than for the other: counted then,
a good canary would be rolled back. So what a request shows is whether it was labelled harmful
within a window of its reply, and that counts for all requests of one second at one moment, when
the horizon and the window have passed: in the order of assignment, whatever the arm. A router's
end loses what is held back, of both arms alike. The module refuses to know what labels prove
(`weir_core.stakes`).
"""

import heapq
import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from weir_core.cells import cell_s, late_s
from weir_core.evidence import FAILED
from weir_core.merging import sampled
from weir_core.snapshot import Objective
from weir_router.slots import PAST, Session, Slot, Span

if TYPE_CHECKING:
    from weir_router.book import Book
    from weir_router.ledger import Ticket

MAX_RECEIPTS = 100_000
"""Replies that can be labelled, of all routes; some 280 bytes each."""

WINDOW_S = 600.0
"""How long a reply of a route without Feedback objectives can be labelled."""

STRETCHES = 600
"""A window is cut into this many stretches; each is released as a whole, a window after its end."""

MAX_HELD_SESSIONS = 16_384
"""Labelled sessions held back by one book; beyond it they are sampled by hash, in both arms."""


class Receipts:
    """Replies by id that can be labelled: for twice their window, so that late labels are told."""

    def __init__(self, most: int = MAX_RECEIPTS) -> None:
        self._most = most
        self._tickets: OrderedDict[str, Ticket] = OrderedDict()

    def keep(self, id: str, ticket: "Ticket") -> bool:
        """Remember a settled reply; whether one was forgotten for it before its window was over.

        That shortens the window of both arms alike, for it is counted from the reply.
        """
        self._tickets[id] = ticket
        if len(self._tickets) <= self._most:
            return False
        _, oldest = self._tickets.popitem(last=False)
        return ticket.settled_s < oldest.settled_s + oldest.slot.book.held.window_s

    def find(self, id: str) -> "Ticket | None":
        """Return the reply's ticket, None for one that was never known or is forgotten."""
        return self._tickets.get(id)

    def age(self, now_s: float) -> None:
        """Forget replies that cannot be labelled any more."""
        while self._tickets:
            oldest = next(iter(self._tickets.values()))
            if now_s < oldest.settled_s + 2 * oldest.slot.book.held.window_s:
                return
            self._tickets.popitem(last=False)


class Stretch:
    """Harmful labels, by arm, of what was assigned in one stretch under one weight.

    `slot` is the cell that they will be counted in. Of a session its earliest request counts.
    """

    __slots__ = ("failed", "sessions", "slot")

    def __init__(self, slot: Slot) -> None:
        self.slot = slot
        self.failed = [0, 0]
        self.sessions: dict[str, tuple[float, int, Session]] = {}


Name = tuple[int, int, Span]
"""(objective, number of the stretch, epoch)."""


class Held:
    """Harmful labels of one book that do not count yet.

    Of requests only counts are kept and of sessions a sample, so that no label is refused because
    others came first: room that is taken by whoever labels sooner would favour the other arm.
    """

    def __init__(self, objectives: Sequence[Objective]) -> None:
        feedback = [(j, o) for j, o in enumerate(objectives) if o.event == "Feedback"]
        self._windows = tuple((j, o.within_ms / 1_000) for j, o in feedback)
        self.window_s = max((window_s for _, window_s in self._windows), default=WINDOW_S)
        self.is_enforced = any(o.mode == "Enforce" for _, o in feedback)
        self._stretches: dict[Name, Stretch] = {}
        self._due: list[tuple[float, int, Name]] = []
        self._pushed = 0
        self._sessions = 0

    @property
    def is_wanted(self) -> bool:
        """Whether any objective is about labels."""
        return bool(self._windows)

    def take(self, ticket: "Ticket", now_s: float) -> bool:
        """Hold a harmful label back; False where it is late for every objective."""
        if ticket.settled_s >= ticket.slot.late_s:
            return False
        after_s = now_s - ticket.settled_s
        in_time = [(j, window_s) for j, window_s in self._windows if after_s <= window_s]
        for objective, window_s in in_time:
            self._hold(objective, math.ceil(window_s), ticket)
        return bool(in_time)

    def _hold(self, objective: int, window_s: int, ticket: "Ticket") -> None:
        origin, session, book = ticket.slot, ticket.session, ticket.slot.book
        if session is not None and not sampled(book.digest(session), book.level):
            return
        width_s = -(-window_s // STRETCHES)
        number = int(origin.begin_s) // width_s
        name = (objective, number, origin.span)
        stretch = self._stretches.get(name)
        if stretch is None:
            last_s = (number + 1) * width_s - 1
            stretch = Stretch(_later(origin, last_s + window_s))
            self._stretches[name] = stretch
            self._pushed += 1
            heapq.heappush(self._due, (stretch.slot.late_s, self._pushed, name))
        if session is None:
            stretch.failed[ticket.arm] += 1
            return
        seen = (origin.begin_s, ticket.arm, session)
        known = stretch.sessions.get(session.name)
        self._sessions += known is None
        if known is None or seen[:2] < known[:2]:
            stretch.sessions[session.name] = seen
        if self._sessions > MAX_HELD_SESSIONS:
            self._thin(book)

    def _thin(self, book: "Book") -> None:
        while self._sessions > MAX_HELD_SESSIONS:
            book.thin()
            for stretch in self._stretches.values():
                stretch.sessions = {
                    name: seen
                    for name, seen in stretch.sessions.items()
                    if sampled(book.digest(seen[2]), book.level)
                }
            self._sessions = sum(len(one.sessions) for one in self._stretches.values())

    def release(self, book: "Book", now_s: float) -> None:
        """Count what is due by now, in the order of assignment."""
        while self._due and self._due[0][0] <= now_s:
            _, _, name = heapq.heappop(self._due)
            stretch, objective = self._stretches.pop(name), name[0]
            stretch.slot.state = PAST
            book.past.append(stretch.slot)
            for arm, failed in enumerate(stretch.failed):
                if failed:
                    book.count(stretch.slot, FAILED + 2 * objective + arm, failed)
            for _, arm, session in stretch.sessions.values():
                book.fail_one(stretch.slot, arm, objective, session)
            self._sessions -= len(stretch.sessions)


def _later(origin: Slot, last_s: int) -> Slot:
    """Return a cell of the same epoch that is past the horizon when what ends by then is due.

    So reports of several routers are cut at one moment of release, as they are for the rest.
    """
    horizon_s = origin.book.horizon_s
    begin_s = last_s + cell_s(horizon_s) - 1
    return Slot(origin.book, origin.span, begin_s, late_s(begin_s, horizon_s))
