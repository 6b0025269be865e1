"""One key's evidence as one router boot gathers it: rows of counts by time of assignment.

Plain lists and slots, for it is touched twice a request. Cells are young enough to change, and
joined as they age; what is past the horizon is added to its epoch's base for good, and stays a
cell a while longer for the sake of the report, so that other routers' reports can be cut at the
same moment.
"""

import hashlib
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import attrgetter

from weir_core.cells import FINEST_S, Line, begin_of, finest, late_s, lines_at
from weir_core.evidence import (
    FAILED,
    Cell,
    Epoch,
    Key,
    Pair,
    SessionFailure,
    Tally,
    row_length,
)
from weir_core.merging import (
    MAX_FAILURES,
    PERIOD_S,
    SILENT_S,
    SLACK_S,
    Label,
    Rows,
    View,
    add,
    block,
    order,
    sampled,
    total,
    unite,
    window_of,
)
from weir_core.prefixes import SESSION_REQUESTS
from weir_core.sequential import fingerprint, horizon_s
from weir_core.snapshot import RoutePolicy
from weir_router.labels import Held
from weir_router.slots import GONE, PAST, YOUNG, Session, Slot, Span, cell, holder, join, row_of

MAX_SESSIONS = 65_536
"""Sessions remembered; the least recently seen is forgotten first.

From then on one that returns looks new, so newly seen sessions are not counted any more.
"""

MAX_FAILED_SESSIONS = 16_384
MAX_EPOCHS = 512
"""Beyond it requests are no evidence: an attempt of many weeks, or a weight that flaps."""

SEEN_BY_CLIENTS = ("Error", "Slow", "Invalid", "Violation")
"""Events that count as bad answers unless the router knows that the client saw none of it."""

LAG_S = SILENT_S + 1
"""Cells are joined this long after a view would: other routers' reports may be that much older."""

MAX_RESTORED = 8
"""Earlier boots kept apart; more are summed."""


class Book:
    """The evidence of one key. `policy` is the latest; times are Unix seconds."""

    def __init__(self, key: Key, policy: RoutePolicy, restored: Sequence[Tally] = ()) -> None:
        self.key = key
        self.objectives = policy.monitoring.objectives
        self.length = row_length(len(self.objectives))
        self.bad = _mask(
            j
            for j, o in enumerate(self.objectives)
            if o.mode == "Enforce" and o.event in SEEN_BY_CLIENTS
        )
        self.held = Held(self.objectives)
        self.counted = _mask(j for j, o in enumerate(self.objectives) if o.event != "Harm")
        self.spans: list[Span] = []
        self.young: deque[Slot] = deque()
        self.past: deque[Slot] = deque()
        self._lines: tuple[Line, ...] = ()
        self.sessions: OrderedDict[str, Session] = OrderedDict()
        self.forgets = False
        self.failures: dict[tuple[str, int], tuple[Slot, int]] = {}
        self.level = 0
        self.shown_level = 0
        self.changed = True
        self.seq = 0
        self.ends_s = 0.0
        self.slot = Slot(self, Span(0, 0, 0, self.length), 0, 0)
        self._order: tuple[int, dict[Label, int], View] | None = None
        self.horizon_s = horizon_s(policy)
        self.restored = _bounded(restored, self.horizon_s)
        self._earlier = total(self.restored, self.horizon_s) if self.restored else None
        self._foreign = self._restore()
        self.use(policy)

    def use(self, policy: RoutePolicy) -> None:
        """Count under this policy from the next request on."""
        self.policy = policy
        self.by_session = policy.rollout.unit == "Session"
        self.horizon_s = horizon_s(policy)
        self.is_drawn = 0 < policy.weight_bp < 10_000
        self.ends_s = 0.0

    def _restore(self) -> frozenset[tuple[str, int]]:
        if self._earlier is None:
            return frozenset()
        self.level = self.shown_level = self._earlier.level
        return frozenset(unite([self._earlier])[1])

    # Time.

    def turn(self, now_s: float) -> Slot | None:
        """Return the cell of this moment, a new one when the running one has ended."""
        self.age(now_s)
        begin_s = finest(now_s)
        last = self.young[-1] if self.young else None
        if last is not None:
            begin_s = max(begin_s, last.begin_s)
        span = self._span(int(begin_s))
        if span is None:
            return None
        self.ends_s = begin_s + FINEST_S
        if last is None or last.begin_s != begin_s or last.span is not span:
            last = Slot(self, span, begin_s, late_s(begin_s, self.horizon_s))
            self.young.append(last)
        self.slot = last
        return last

    def _span(self, first_s: int) -> Span | None:
        weight_bp, period = self.policy.weight_bp, first_s // PERIOD_S
        for span in reversed(self.spans):
            if span.period < period:
                break
            if span.weight_bp == weight_bp:
                return span
        if self.spans and self.spans[-1].period < period:
            self._join(period)
        if len(self.spans) >= MAX_EPOCHS:
            return None
        self.spans.append(Span(period, weight_bp, first_s, self.length))
        self._order = None
        return self.spans[-1]

    def _join(self, now: int) -> None:
        """Add old periods to the first of their block and weight."""
        firsts: dict[Label, Span] = {}
        for span in self.spans:
            label = (block(span.period, now), span.weight_bp)
            first = firsts.setdefault(label, span)
            first.period = label[0]
            if first is not span:
                add(first.base, span.base)
                add(first.sessions, span.sessions)
                add(first.units, span.units)
                span.joined = first
        self.spans = list(firsts.values())

    def age(self, now_s: float) -> None:
        """Add to the base what is past the horizon by now; what is open in it has failed."""
        lines = lines_at(now_s - LAG_S, self.horizon_s)
        if lines != self._lines:
            self._lines = lines
            self.young, self.past = join(self.young, lines), join(self.past, lines)
        young, past = self.young, self.past
        while young and now_s >= young[0].late_s:
            slot = young.popleft()
            slot.state = PAST
            span = holder(slot.span)
            add(span.base, slot.counts)
            if slot.sessions:
                add(span.sessions, slot.sessions)
            past.append(slot)
            self.changed = True
        while past and now_s >= past[0].late_s + SLACK_S:
            past.popleft().state = GONE
            self.changed = True
        self.held.release(self, now_s)

    # Counting.

    def count(self, slot: Slot, place: int, by: int = 1) -> None:
        """Count one in a cell, and in the base when the cell is past the horizon."""
        slot = cell(slot)
        slot.counts[place] += by
        if slot.state != YOUNG:
            holder(slot.span).base[place] += by
        self.changed = True

    def count_unit(self, arm: int) -> None:
        """Count a unit drawn for the first time, as long as it is known to be the first."""
        if not self.forgets:
            self.slot.span.units[arm] += 1

    def seen(self, name: str, arm: int) -> Session | None:
        """Return the session with one more request, None when it is no evidence any more."""
        sessions = self.sessions
        session = sessions.get(name)
        if session is None:
            session = sessions[name] = Session(name)
            self.count_unit(arm)
            if len(sessions) > MAX_SESSIONS:
                sessions.popitem(last=False)
                self.forgets = True
        else:
            sessions.move_to_end(name)
            has_failed = self.counted and session.failed & self.counted == self.counted
            if session.requests >= SESSION_REQUESTS or has_failed:
                return None
        session.requests += 1
        return session

    def fail(self, slot: Slot, arm: int, failed: int, session: Session | None) -> None:
        """Count the failed objectives of a request that is settled in time."""
        at = 0
        while failed:
            if failed & 1 and at < len(self.objectives):
                self.fail_one(slot, arm, at, session)
            failed >>= 1
            at += 1

    def fail_one(self, slot: Slot, arm: int, objective: int, session: Session | None) -> None:
        """Count one failed objective: of a session only the earliest assigned one."""
        if session is None:
            self.count(slot, FAILED + 2 * objective + arm)
            return
        session.failed |= 1 << objective
        name = (self.digest(session), objective)
        if name in self._foreign or not sampled(session.digest, self.level):
            return
        known = self.failures.get(name)
        if known is not None:
            if known[0].begin_s <= slot.begin_s:
                return
            self._count_session(*known, objective, -1)
        self.failures[name] = (slot, arm)
        self._count_session(slot, arm, objective, 1)
        if len(self.failures) > MAX_FAILED_SESSIONS:
            self.thin()

    def _count_session(self, slot: Slot, arm: int, objective: int, by: int) -> None:
        place = FAILED + 2 * objective + arm
        slot = cell(slot)
        if slot.sessions is None:
            slot.sessions = [0] * self.length
        slot.sessions[place] += by
        if slot.state != YOUNG:
            holder(slot.span).sessions[place] += by
        self.changed = True

    def thin(self) -> None:
        """Keep every other failed session by its hash."""
        self.level += 1
        self.shown_level = max(self.shown_level, self.level)
        for name in [name for name in self.failures if not sampled(name[0], self.level)]:
            self._count_session(*self.failures.pop(name), name[1], -1)

    def digest(self, session: Session) -> str:
        """Return the hash by which reports name a session."""
        if session.digest:
            return session.digest
        key = self.key
        salt = f"{key.route_uid}/{key.revision}/{key.attempt}/evidence".encode()
        salt = hashlib.blake2b(salt, digest_size=32).digest()
        name = session.name.encode()
        session.digest = hashlib.blake2b(name, digest_size=8, key=salt).hexdigest()
        return session.digest

    # Showing.

    def view(self, now_s: float) -> View:
        """Return this router's evidence in assignment order, earlier boots' included."""
        self.age(now_s)
        index, empty = self._ordered(int(now_s) // PERIOD_S)
        view = View(empty.starts, empty.rest, len(self.objectives))
        if self._earlier is not None:
            self._add_earlier(view, self._earlier, index)
        place = {id(span): index[span.period, span.weight_bp] for span in self.spans}
        for span in self.spans:
            add(view.base[place[id(span)]], span.base)
            add(view.base[place[id(span)]], span.sessions)
        lines = lines_at(finest(now_s), self.horizon_s)
        rows: Rows = {}
        for span, slots in groupby(self.young, attrgetter("span")):
            at = place[id(holder(span))]
            for slot in slots:
                rows.setdefault((begin_of(slot.begin_s, lines), at), []).append(row_of(slot))
        view.window = window_of(rows)
        seen = [(s.weight_bp, (s.units[0], s.units[1])) for s in self.spans if any(s.units)]
        if seen:
            view.units.append(seen)
        view.sessions = bool(view.units)
        view.level = self.level
        return view

    def _ordered(self, now: int) -> tuple[dict[Label, int], View]:
        if self._order is None or self._order[0] != now:
            first = {(span.period, span.weight_bp): span.first_s for span in self.spans}
            for epoch in self._earlier.epochs if self._earlier else ():
                label = (epoch.period, epoch.weight_bp)
                first[label] = min(epoch.first_s, first.get(label, epoch.first_s))
            self._order = (now, *order(first, now))
        return self._order[1:]

    def _add_earlier(self, view: View, earlier: Tally, index: dict[Label, int]) -> None:
        for epoch in earlier.epochs:
            add(view.base[index[epoch.period, epoch.weight_bp]], epoch.counts)
            add(view.lost[index[epoch.period, epoch.weight_bp]], epoch.lost)
        for failure in earlier.failures:
            if sampled(failure.session, self.level):
                epoch = earlier.epochs[failure.epoch]
                at = index[epoch.period, epoch.weight_bp]
                view.base[at][FAILED + 2 * failure.objective + failure.arm] += 1
        for tally in self.restored:
            seen = [(e.weight_bp, e.units) for e in tally.epochs if any(e.units)]
            if seen:
                view.units.append(seen)

    def tally(self, router: str, boot: str, now_s: float) -> Tally:
        """Return the cumulative tally of this boot; seq grows with every change."""
        self.age(now_s)
        self.seq += self.changed
        self.changed = False
        place = {id(span): at for at, span in enumerate(self.spans)}
        kept = [(place[id(holder(s.span))], s) for s in (*self.past, *self.young)]
        return Tally(
            key=self.key,
            router=router,
            boot=boot,
            seq=self.seq,
            as_of_s=now_s,
            epochs=tuple(self._epochs(place)),
            cells=tuple(Cell(s.begin_s, at, tuple(s.counts)) for at, s in kept),
            failures=tuple(self._shown_failures(place)),
            level=self.shown_level,
        )

    def _epochs(self, place: Mapping[int, int]) -> Iterator[Epoch]:
        bases = [list(span.base) for span in self.spans]
        for slot in self.past:
            base = bases[place[id(holder(slot.span))]]
            for at, count in enumerate(slot.counts):
                base[at] -= count
        for span, base in zip(self.spans, bases, strict=True):
            units: Pair = (span.units[0], span.units[1])
            yield Epoch(span.weight_bp, span.period, span.first_s, units, tuple(base))

    def _shown_failures(self, place: Mapping[int, int]) -> list[SessionFailure]:
        names = [n for n in self.failures if sampled(n[0], self.shown_level)]
        while len(names) > MAX_FAILURES:
            self.shown_level += 1
            names = [n for n in names if sampled(n[0], self.shown_level)]
        shown = []
        for name in names:
            slot, arm = self.failures[name]
            at = place[id(holder(slot.span))]
            shown.append(SessionFailure(name[0], name[1], arm, slot.begin_s, at))
        return shown


def key_of(policy: RoutePolicy) -> Key | None:
    """Return what the evidence of this policy is about, None where there is no canary."""
    if policy.canary is None:
        return None
    return Key(
        route_uid=policy.uid,
        revision=policy.canary.name,
        attempt=policy.attempt,
        objectives=fingerprint(policy.monitoring),
    )


def _mask(positions: Iterable[int]) -> int:
    return sum(1 << at for at in positions)


def _bounded(restored: Sequence[Tally], horizon_s: int) -> tuple[Tally, ...]:
    """Return the earlier boots, the oldest summed when there are many."""
    kept = sorted(restored, key=lambda tally: tally.as_of_s)
    if len(kept) <= MAX_RESTORED:
        return tuple(kept)
    split = len(kept) - MAX_RESTORED + 1
    return (total(kept[:split], horizon_s), *kept[split:])
