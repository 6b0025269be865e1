"""Reads evidence in prefixes of assignment: what each arm must have shown by then, at least.

In every prefix judged for harm, what is open in stable counts as failed and in the canary as
good. Its evidence never exceeds that of the true process at that prefix, so the largest over all
prefixes may be taken, and α holds although failures arrive sooner in one arm than in the other.
For safety only prefixes are read in which nothing is open. Labels of people are counted when
their window is over, so what is past the horizon shows those of a prefix that ended a window ago.
The module refuses to know what follows from the evidence (`sequential`).
"""

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import NamedTuple

from weir_core import eprocess
from weir_core.cuts import few, rises
from weir_core.eprocess import Span
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
from weir_core.snapshot import FULL_BP
from weir_core.stakes import (
    HARMS,
    ONLY_CANARY,
    ONLY_STABLE,
    PAIRS,
    READ,
    TRIALS,
    Part,
    Plan,
)

STABLE_ALPHA = 0.05
"""Level of the evidence by which a broken ceiling is laid to an arm.

Proved for stable at this level, the canary is not blamed. Nor is it before its failures are out
of proportion at this level: at a high weight stable has too few requests to prove an outage.
"""

SESSION_REQUESTS = 8
"""A session is watched for its first requests; its first failure among them is evidence."""


def read_past(view: View, plan: Plan, against: int) -> list[list[int]]:
    """Return the readings of what is past the horizon, what is unknown held against one arm.

    A request still open has failed, in both arms. What a router's end cut off is unknown, and
    so is an audit that is still open: it went wrong in the arm `against` alone.
    """
    readings = []
    for row, lost in zip(view.base, view.lost, strict=True):
        reading = read_settled(row)
        for arm in (STABLE, CANARY):
            forgiven = 0 if arm == against else lost[arm]
            _fail(reading, plan, arm, row[ASSIGNED + arm] - row[SETTLED + arm] - forgiven)
        _harm(reading, against, _open_audits(row))
        readings.append(reading)
    return readings


def _fail(reading: list[int], plan: Plan, arm: int, requests: int) -> None:
    """Count requests of one arm as failed in every objective that requests show."""
    if requests:
        for j in plan.counted:
            reading[READ + 2 * j + arm] += requests


def _harm(reading: list[int], arm: int, audits: int) -> None:
    """Count audits as pairs that harmed in one arm alone."""
    reading[PAIRS] += audits
    reading[ONLY_STABLE if arm == STABLE else ONLY_CANARY] += audits
    reading[HARMS + arm] += audits


def _open_audits(row: Sequence[int]) -> int:
    return row[AUDITS_BEGUN] - row[AUDITS_ENDED] - row[AUDITS_DROPPED]


def read_open(row: Sequence[int], plan: Plan) -> list[int]:
    """Return the reading least favourable to harm: open is failed in stable, good in the canary.

    An open audit is a harm of stable alone.
    """
    reading = read_settled(row)
    _fail(reading, plan, STABLE, row[ASSIGNED] - row[SETTLED])
    _harm(reading, STABLE, _open_audits(row))
    return reading


def read_settled(row: Sequence[int]) -> list[int]:
    """Return the reading of a row that takes what is open for good."""
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
    """Evidence of harm over growing prefixes: the largest seen, whole and by objective.

    `unhealthy` are the objectives whose ceiling stable has broken too.
    """

    __slots__ = (
        "_alpha",
        "_bets",
        "_first",
        "_last",
        "_level_mass",
        "_plan",
        "_readings",
        "_settled",
        "_view",
        "best",
        "largest",
        "suspect",
        "unhealthy",
    )

    def __init__(self, view: View, plan: Plan, alpha: float) -> None:
        self._view, self._plan, self._alpha = view, plan, alpha
        self._readings = read_past(view, plan, STABLE)
        self._settled: dict[Part, float] = {}
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
        self.unhealthy: set[int] = set()

    def look_back(self) -> None:
        """Judge the labels, before a prefix is read: each objective of them by itself.

        Their prefix ends a window before the others', and what these have seen since tells of
        labels to come. A mixture of both would not be an e-process, but α is shared: the
        mixture of the others crosses 1/α with probability Σ share·α at most, each of these
        share·E ≥ 1/α with share·α.
        """
        for j in self._plan.labelled:
            value = self.largest[j] = self._objective(j)
            value *= self._plan.shares[j]
            if value > self.best:
                self.best = value
                self.suspect = j

    def look(self) -> None:
        """Judge the prefix read so far."""
        whole = most = 0.0
        leader = 0
        for j in self._plan.at_once:
            value = self._objective(j)
            if value > self.largest[j]:
                self.largest[j] = value
            value *= self._plan.shares[j]
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
                e = self._laid_to_canary(j, part, e)
            value += mass * e
        return value

    def _laid_to_canary(self, j: int, part: Part, e: float) -> float:
        """Return `e` where the canary alone is to blame, else 1: never more, so α holds."""
        assert part.mirror is not None, "only ceilings are mirrored"
        x, y = part.mirror
        if self._worth(part, x, y, self._state(part, x, y)) >= 1 / STABLE_ALPHA:
            if e >= 1 / self._alpha and self._settled_worth(part, x, y) >= 1 / self._alpha:
                self.unhealthy.add(j)
            return 1.0
        if part.is_paired:
            return e
        ratio = Part(eprocess.harm_bet(1.0), 1.0, part.x, x)
        proved = self._worth(ratio, ratio.x, ratio.y, self._state(ratio, ratio.x, ratio.y))
        return e if proved >= 1 / STABLE_ALPHA else 1.0

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
        """Return stable's own evidence over all epochs with what is open taken for good."""
        if part not in self._settled:
            totals = [read_settled(row) for row in totals_of(self._view)]
            starts = self._view.starts
            spans = tuple((m, w, r[x], r[y]) for (m, w), r in zip(starts, totals, strict=True))
            self._settled[part] = eprocess.e_value(part.bet, spans, self._view.rest)
        return self._settled[part]


def find_harm(view: View, plan: Plan, alpha: float) -> Harm:
    """Return the largest evidence of harm over prefixes of assignment.

    Only prefixes that end with a cell in which the canary failed are judged: between two of
    them evidence can only fall. What a router's end cut off has failed in stable alone, for as
    much or less must be true of both arms: as failed it would blame a canary that is slower and
    so has more in flight, as nothing it would hide the failures of a stable that fails late.
    """
    cuts = rises(view.window, plan)
    harm = _judged(view, plan, alpha, few(cuts))
    if harm.best >= alpha**-0.5:
        # Half-way to the threshold: now no prefix is left out.
        harm = _judged(view, plan, alpha, cuts)
    return harm


def _judged(view: View, plan: Plan, alpha: float, cuts: Iterable[int]) -> Harm:
    harm = Harm(view, plan, alpha)
    harm.look_back()
    harm.look()
    start = 0
    for end in cuts:
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


class Safety(NamedTuple):
    """Evidence of no harm: ln E by objective, and how many requests are behind it.

    `assigned` is without those that a router's end cut off.
    """

    logs: tuple[float, ...]
    assigned: Pair
    settled: Pair


def find_safety(view: View, plan: Plan) -> Safety:
    """Return the evidence that the canary is no worse.

    Over the longest prefix in which nothing is open any more, and from the attempt's start: for
    a promotion the whole record counts. What a router's end cut off has failed in the canary
    alone, and audits still open past the horizon have harmed in it alone.
    """
    readings = read_past(view, plan, CANARY)
    closed = _sums(islice(view.window, _closed(view)))
    for epoch, row in closed.items():
        add(readings[epoch], read_settled(row))
    rows = [*view.base, *closed.values()]
    lost_s, lost_c = map(sum, zip((0, 0), *view.lost, strict=True))
    return Safety(
        logs=tuple(_safe_log(view, parts, readings) for parts in plan.safe),
        assigned=(
            sum(row[ASSIGNED] for row in rows) - lost_s,
            sum(row[ASSIGNED + CANARY] for row in rows) - lost_c,
        ),
        settled=(
            sum(row[SETTLED] for row in rows),
            sum(row[SETTLED + CANARY] for row in rows),
        ),
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
    if not parts:
        return 0.0
    value = 0.0
    for part in parts:
        spans = _spans(view, part, readings)
        e = eprocess.e_value(part.bet, spans, 0.0 if spans else 1.0)
        if view.sessions and not part.is_paired:
            # Of sampled sessions the failures are known and the trials are not.
            is_blind = view.level and part.y == TRIALS + CANARY
            e = 0.0 if is_blind else e * eprocess.level_mass(view.level)
        value += part.mass * e
    return eprocess.safe_log(value)


def _spans(view: View, part: Part, readings: Sequence[Sequence[int]]) -> tuple[Span, ...]:
    """Return the epochs of a bet on safety, all from the first start on."""
    if view.sessions and part.y == TRIALS + CANARY:
        # First failures are of sessions, united over routers, and so must trials be: there are
        # as many as requests fill, and as one router alone has seen.
        requests = sum(reading[part.y] for reading in readings)
        seen = max(sum(pair[CANARY] for _, pair in boot) for boot in view.units)
        failed = sum(reading[part.x] for reading in readings)
        return ((1.0, FULL_BP, failed, min(requests // SESSION_REQUESTS, seen)),)
    return tuple(
        (0.0 if at else 1.0, weight_bp, reading[part.x], reading[part.y])
        for at, ((_, weight_bp), reading) in enumerate(zip(view.starts, readings, strict=True))
    )


def totals_of(view: View) -> list[list[int]]:
    """Return the rows of all that was seen, by epoch."""
    rows = [list(row) for row in view.base]
    for epoch, sums in _sums(view.window).items():
        add(rows[epoch], sums)
    for epoch, row in view.beyond:
        add(rows[epoch], row)
    return rows
