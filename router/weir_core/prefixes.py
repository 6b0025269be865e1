"""Reads evidence in prefixes of assignment: what each arm must have shown by then, at least.

In every prefix judged for harm, what is open in stable counts as failed and in the canary as
good. Its evidence never exceeds that of the true process at that prefix, so the largest over all
prefixes may be taken, and α holds although failures arrive sooner in one arm than in the other.
For safety only prefixes are read in which nothing is open. The module refuses to know what
follows from the evidence (`sequential`).
"""

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import NamedTuple

from weir_core import eprocess
from weir_core.evidence import (
    ASSIGNED,
    AUDITS_BEGUN,
    AUDITS_DROPPED,
    AUDITS_ENDED,
    BOTH_HARMED,
    CANARY,
    CANARY_HARMED,
    FAILED,
    SETTLED,
    STABLE,
    STABLE_HARMED,
    Pair,
)
from weir_core.merging import View, WindowCell, add
from weir_core.stakes import (
    HARMS,
    ONLY_STABLE,
    PAIRS,
    READ,
    TRIALS,
    Part,
    Plan,
)

MOST_PREFIXES = 8
"""Prefixes judged besides the one past the horizon."""

STABLE_ALPHA = 0.05
"""At this level of evidence that stable breaks a ceiling, the canary is not blamed for it."""

SESSION_REQUESTS = 8
"""A session is watched for its first requests; its first failure among them is evidence."""


def read_final(row: Sequence[int], plan: Plan, forgiven: Sequence[int] = (0, 0)) -> list[int]:
    """Return the reading of what is past the horizon: what is open has failed, in both arms.

    But for `forgiven` requests of each arm.
    """
    reading = read_settled(row)
    for arm in (STABLE, CANARY):
        left = row[ASSIGNED + arm] - row[SETTLED + arm] - forgiven[arm]
        if left:
            for j in plan.counted:
                reading[READ + 2 * j + arm] += left
    return reading


def read_open(row: Sequence[int], plan: Plan) -> list[int]:
    """Return the reading least favourable to harm: open is failed in stable, good in the canary.

    An open audit is a harm of stable alone.
    """
    reading = read_settled(row)
    left = row[ASSIGNED] - row[SETTLED]
    if left:
        for j in plan.counted:
            reading[READ + 2 * j] += left
    pairs = row[AUDITS_BEGUN] - row[AUDITS_ENDED] - row[AUDITS_DROPPED]
    reading[PAIRS] += pairs
    reading[ONLY_STABLE] += pairs
    reading[HARMS] += pairs
    return reading


def read_settled(row: Sequence[int]) -> list[int]:
    return [
        row[ASSIGNED],
        row[ASSIGNED + CANARY],
        row[AUDITS_ENDED],
        row[CANARY_HARMED],
        row[STABLE_HARMED],
        row[STABLE_HARMED] + row[BOTH_HARMED],
        row[CANARY_HARMED] + row[BOTH_HARMED],
        *row[FAILED:],
    ]


class Harm:
    """Evidence of harm over growing prefixes: the largest seen, whole and by objective."""

    __slots__ = (
        "_alpha",
        "_bets",
        "_first",
        "_last",
        "_level_mass",
        "_plan",
        "_readings",
        "_view",
        "best",
        "largest",
        "stable_unhealthy",
        "suspect",
    )

    def __init__(
        self, view: View, plan: Plan, alpha: float, forgiven: Sequence[Sequence[int]]
    ) -> None:
        self._view, self._plan, self._alpha = view, plan, alpha
        self._readings = [
            read_final(row, plan, lost) for row, lost in zip(view.base, forgiven, strict=True)
        ]
        self._last = len(view.base) - 1
        self._first = min((epoch for _, epoch, _ in view.window), default=self._last)
        self._level_mass = eprocess.level_mass(view.level) if view.sessions else 1.0
        # Pairs are units of their own; all else is sampled with the sessions.
        self._bets = [
            [
                (
                    part,
                    part.mass * (1.0 if part.is_paired else self._level_mass),
                    self._state(part, part.x, part.y),
                )
                for part in parts
            ]
            for parts in plan.harm
        ]
        self.best = -1.0
        self.suspect = 0
        self.largest = [0.0] * len(plan.harm)
        self.stable_unhealthy = False

    def look(self) -> None:
        """Judge the prefix read so far."""
        whole = most = 0.0
        leader = 0
        for j, share in enumerate(self._plan.shares):
            value = self._objective(j)
            if value > self.largest[j]:
                self.largest[j] = value
            value *= share
            whole += value
            if value > most:
                most, leader = value, j
        if whole > self.best:
            self.best = whole
            self.suspect = leader

    def read(self, cells: Iterable[WindowCell]) -> None:
        """Lengthen the prefix by some cells."""
        for epoch, row in _sums(cells).items():
            add(self._readings[epoch], read_open(row, self._plan))

    def _objective(self, j: int) -> float:
        value = 0.0
        for part, mass, state in self._bets[j]:
            e = self._worth(part, part.x, part.y, state)
            if part.mirror and e > 1:
                e = self._unless_stable_too(part, e)
            value += mass * e
        return value

    def _unless_stable_too(self, part: Part, e: float) -> float:
        assert part.mirror is not None, "only ceilings are mirrored"
        x, y = part.mirror
        if self._worth(part, x, y, self._state(part, x, y)) < 1 / STABLE_ALPHA:
            return e
        if e >= 1 / self._alpha and self._settled_worth(part, x, y) >= 1 / self._alpha:
            self.stable_unhealthy = True
        return 1.0

    def _state(self, part: Part, x: int, y: int) -> tuple[float, ...]:
        """Return the bet after all epochs that no cell of the window belongs to."""
        starts, readings = self._view.starts, self._readings
        return eprocess.state_after(
            part.bet,
            tuple((*starts[at], readings[at][x], readings[at][y]) for at in range(self._first)),
        )

    def _worth(self, part: Part, x: int, y: int, state: Sequence[float]) -> float:
        starts, readings, last = self._view.starts, self._readings, self._last
        for at in range(self._first, last):
            span = (*starts[at], readings[at][x], readings[at][y])
            state = eprocess.grown(part.bet, state, span)
        if last < 0:
            return self._view.rest
        span = (*starts[last], readings[last][x], readings[last][y])
        return eprocess.worth(part.bet, state, span) + self._view.rest

    def _settled_worth(self, part: Part, x: int, y: int) -> float:
        """Return stable's own evidence with what is open taken for good."""
        totals = [read_settled(row) for row in totals_of(self._view)]
        starts = self._view.starts
        spans = tuple((m, w, r[x], r[y]) for (m, w), r in zip(starts, totals, strict=True))
        return eprocess.e_value(part.bet, spans, self._view.rest)


def find_harm(view: View, plan: Plan, alpha: float) -> Harm:
    """Return the largest evidence of harm over prefixes of assignment.

    What a router's end cut off counts as failed in both arms, or in neither, whichever speaks
    less for harm: as failed it would blame a canary that is slower and so has more in flight, as
    nothing it would hide the failures of an arm that fails late.
    """
    harm = _search(view, plan, alpha, [(0, 0)] * len(view.base))
    if any(map(any, view.lost)):
        other = _search(view, plan, alpha, view.lost)
        least = [min(pair) for pair in zip(harm.largest, other.largest, strict=True)]
        harm = min(harm, other, key=lambda one: one.best)
        harm.largest = least
    return harm


def _search(view: View, plan: Plan, alpha: float, forgiven: Sequence[Sequence[int]]) -> Harm:
    """Only prefixes that end with a second in which the canary failed are judged.

    Between two of them evidence can only fall.
    """
    harm = Harm(view, plan, alpha, forgiven)
    harm.look()
    start = 0
    for end in _cuts(view, plan):
        harm.read(view.window[start:end])
        harm.look()
        start = end
    return harm


def _sums(cells: Iterable[WindowCell]) -> dict[int, list[int]]:
    """Return the sum of rows by epoch."""
    rows: dict[int, list[Sequence[int]]] = {}
    for _, epoch, row in cells:
        rows.setdefault(epoch, []).append(row)
    return {
        epoch: list(some[0]) if len(some) == 1 else list(map(sum, zip(*some, strict=True)))
        for epoch, some in rows.items()
    }


def _cuts(view: View, plan: Plan) -> list[int]:
    """Return after how many cells of the window to look: at most MOST_PREFIXES.

    Of more, those 0, 1, 2, 4, 8, … back from the newest and the oldest are taken.
    """
    rises: list[int] = []
    window = view.window
    has_risen = False
    for end, (second, _, row) in enumerate(window, 1):
        has_risen = has_risen or _may_raise(row, plan)
        if has_risen and (end == len(window) or window[end][0] != second):
            rises.append(end)
            has_risen = False
    if len(rises) <= MOST_PREFIXES:
        return rises
    rises.reverse()
    back = [0, *(1 << k for k in range(MOST_PREFIXES - 2))]
    return sorted({*(rises[at] for at in back if at < len(rises)), rises[-1]})


def _may_raise(row: Sequence[int], plan: Plan) -> bool:
    if any(row[FAILED + CANARY :: 2]) or row[CANARY_HARMED]:
        return True
    return plan.ceilings and row[BOTH_HARMED] > 0


class Safety(NamedTuple):
    """Evidence of no harm: ln E by objective, and how many requests are behind it."""

    logs: tuple[float, ...]
    assigned: Pair
    settled: Pair


def find_safety(view: View, plan: Plan) -> Safety:
    """Return the evidence that the canary is no worse.

    Over the longest prefix in which nothing is open any more, and from the attempt's start: for
    a promotion the whole record counts. What a router's end cut off has failed in the canary.
    """
    counts = [list(row) for row in view.base]
    for epoch, row in _sums(islice(view.window, _closed(view))).items():
        add(counts[epoch], row)
    readings = [
        read_final(row, plan, (lost[STABLE], 0))
        for row, lost in zip(counts, view.lost, strict=True)
    ]
    return Safety(
        logs=tuple(_safe_log(view, parts, readings) for parts in plan.safe),
        assigned=(sum(r[ASSIGNED] for r in counts), sum(r[ASSIGNED + 1] for r in counts)),
        settled=(sum(r[SETTLED] for r in counts), sum(r[SETTLED + 1] for r in counts)),
    )


def _closed(view: View) -> int:
    """Return how many cells of the window come before the first one with something open."""
    for at, (_, _, row) in enumerate(view.window):
        is_open = (
            row[ASSIGNED] > row[SETTLED]
            or row[ASSIGNED + CANARY] > row[SETTLED + CANARY]
            or row[AUDITS_BEGUN] > row[AUDITS_ENDED] + row[AUDITS_DROPPED]
        )
        if is_open:
            return at
    return len(view.window)


def _safe_log(view: View, parts: Sequence[Part], readings: Sequence[Sequence[int]]) -> float:
    value = 0.0
    for part in parts:
        is_floor = part.y in (TRIALS + CANARY, PAIRS)
        spans = []
        for at, ((_, weight_bp), reading) in enumerate(zip(view.starts, readings, strict=True)):
            x, y = reading[part.x], reading[part.y]
            if view.sessions and part.y == TRIALS + CANARY:
                # A session that failed may be in the trials up to 7 times more.
                y = max(x, y - (SESSION_REQUESTS - 1) * x)
            spans.append((0.0 if at else 1.0, weight_bp, x, y))
        e = eprocess.e_value(part.bet, tuple(spans), 0.0 if spans else 1.0)
        if view.sessions and not part.is_paired:
            # Of sampled sessions the failures are known and the trials are not.
            e = 0.0 if is_floor and view.level else e * eprocess.level_mass(view.level)
        value += part.mass * e
    return eprocess.safe_log(value)


def totals_of(view: View) -> list[list[int]]:
    """Return the rows of all that was seen, by epoch."""
    rows = [list(row) for row in view.base]
    for epoch, sums in _sums(view.window).items():
        add(rows[epoch], sums)
    for epoch, row in view.beyond:
        add(rows[epoch], row)
    return rows
