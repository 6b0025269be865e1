"""Puts tallies of many routers together into one view of one canary's evidence.

A view orders the evidence as it was assigned: what is past the horizon stands in one row per
epoch, what is younger in cells by the time of assignment, the finer the younger. It refuses to
know what the counts prove (`sequential`).
"""

import operator
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

import msgspec

from weir_core.cells import FINEST_S, Line, begin_of, finest, late_s, lines_at, past_s
from weir_core.eprocess import mass_ahead, start_mass
from weir_core.evidence import (
    ASSIGNED,
    FAILED,
    SETTLED,
    Cell,
    Epoch,
    Merged,
    Pair,
    SessionFailure,
    Tally,
    row_length,
)
from weir_core.snapshot import FULL_BP

PERIOD_S, HOUR = 600, 6
"""Seconds of a period, the shortest time between two starts of the evidence; periods an hour."""

SLACK_S = 20
"""Cells are kept this long past the horizon, so that routers' reports can be cut at one moment."""

SILENT_S = 5
"""A router that has not reported for this long does not hold the others' evidence back."""

MAX_FAILURES = 1_024
"""Failed sessions a report or a retired sum holds; beyond it they are sampled by hash."""

MAX_LEVEL = 32
"""The half of a hash that sessions are sampled by has this many bits."""

_SESSION = re.compile("[0-9a-f]{16}")

Label = tuple[int, int]
"""(period, weight_bp): what makes epochs of different routers one."""

WindowCell = tuple[float, int, Sequence[int]]
"""(begin_s, epoch, row)."""


class View:
    """Evidence in assignment order, ready to be judged.

    `starts` has each epoch's mass as a start and its weight, in order; `rest` is the mass of
    starts to come. `base` has a row per epoch of what is past the horizon, and `lost` how many
    of its open requests were cut off by the end of their router's boot. `window` holds what is
    younger, sorted, and `beyond` (epoch, row) what came after the last common cell: shown, not
    judged. `units` are (weight_bp, pair) by boot.
    """

    __slots__ = ("base", "beyond", "level", "lost", "rest", "sessions", "starts", "units", "window")

    def __init__(self, starts: list[tuple[float, int]], rest: float, objectives: int) -> None:
        self.starts = starts
        self.rest = rest
        self.base = [[0] * row_length(objectives) for _ in starts]
        self.lost = [[0, 0] for _ in starts]
        self.window: list[WindowCell] = []
        self.beyond: list[tuple[int, Sequence[int]]] = []
        self.units: list[list[tuple[int, Pair]]] = []
        self.level = 0
        self.sessions = False


Rows = dict[tuple[float, int], list[Sequence[int]]]
"""Rows by (begin_s, epoch), of one or several routers."""


def window_of(rows: Rows) -> list[WindowCell]:
    """Return the cells that these rows make up, sorted."""
    return [
        (begin_s, at, some[0] if len(some) == 1 else list(map(sum, zip(*some, strict=True))))
        for (begin_s, at), some in sorted(rows.items(), key=operator.itemgetter(0))
    ]


def block_periods(period: int, now: int) -> int:
    """Return how many periods the epoch of `period` is joined over in the period `now`.

    Whole hours are joined two hours after their end, 8 hours a day after, 64 hours a week after.
    Joining forgets start epochs, whose evidence is never negative, and moves no count out of a
    start that stays: the sum can only fall, so α holds. Blocks are the same on all routers.
    """
    for width, age in ((64 * HOUR, 168 * HOUR), (8 * HOUR, 24 * HOUR), (HOUR, 2 * HOUR)):
        if period // width * width + width <= now - age:
            return width
    return 1


def block(period: int, now: int) -> int:
    """Return the period that stands for `period` by now: the first of its block."""
    width = block_periods(period, now)
    return period // width * width


def order(first: Mapping[Label, int], now: int) -> tuple[dict[Label, int], View]:
    """Return the position of each epoch, and an empty view of them with no objectives.

    Epochs are ordered by their first second, so the place of one is settled by the time its
    first request is drawn. Start masses hang on that place and period alone.
    """
    joined: dict[Label, int] = {}
    for (period, weight_bp), second in first.items():
        label = (block(period, now), weight_bp)
        joined[label] = min(second, joined.get(label, second))
    ordered = sorted(joined, key=lambda label: (label[0], joined[label], label[1]))
    position = {label: at for at, label in enumerate(ordered)}
    starts, rest = _starts([(period, w, joined[period, w]) for period, w in ordered], now)
    index = {
        (period, weight_bp): position[block(period, now), weight_bp] for period, weight_bp in first
    }
    return index, View(starts, rest, 0)


def _starts(epochs: list[tuple[int, int, int]], now: int) -> tuple[list[tuple[float, int]], float]:
    starts: list[tuple[float, int]] = []
    if not epochs:
        return starts, 1.0
    first = min(second for _, _, second in epochs) // PERIOD_S
    hours = turn = place = 0
    last = -1
    for label, weight_bp, second in epochs:
        place = place + 1 if label == last else 0
        last = label
        period = second // PERIOD_S
        hours = period // HOUR - first // HOUR
        turn = period % HOUR if hours else period - first
        is_joined = place > 0 and block_periods(label, now) > 1
        starts.append((0.0 if is_joined else start_mass(hours, turn, place), weight_bp))
    return starts, mass_ahead(hours, turn, place)


def merge(tallies: Iterable[Tally], into: Merged | None = None) -> Merged:
    """Return `into` with further tallies of the same key.

    Of two tallies of one boot the higher seq wins whole, of equal ones the later. Distinct
    boots are summed when judged. Order and repetition do not matter.
    """
    into = into or Merged()
    gone = _Retired(into.retired_boots)
    latest: dict[tuple[str, str], Tally] = {}
    for tally in chain(into.tallies, tallies):
        boot = (tally.router, tally.boot)
        if boot in gone:
            continue
        known = latest.get(boot)
        if known is None or (tally.seq, tally.as_of_s) > (known.seq, known.as_of_s):
            latest[boot] = tally
    kept = tuple(latest[boot] for boot in sorted(latest))
    assert len({tally.key for tally in kept}) <= 1, "tallies of several keys"
    return msgspec.structs.replace(into, tallies=kept)


def fits(tally: Tally, objectives: int) -> bool:
    """Return whether a tally from outside has rows and positions that fit its key."""
    rows = [*(epoch.counts for epoch in tally.epochs), *(cell.counts for cell in tally.cells)]
    places = [*(cell.epoch for cell in tally.cells), *(f.epoch for f in tally.failures)]
    return (
        all(len(row) == row_length(objectives) and min(row) >= 0 for row in rows)
        and all(0 <= place < len(tally.epochs) for place in places)
        and all(0 <= e.weight_bp <= FULL_BP and min(e.units) >= 0 for e in tally.epochs)
        and 0 <= tally.level <= MAX_LEVEL
        and all(
            _SESSION.fullmatch(f.session) and 0 <= f.objective < objectives and f.arm in (0, 1)
            for f in tally.failures
        )
    )


def retire(merged: Merged, router: str, boot: str, *, horizon_s: int) -> Merged:
    """Return `merged` with one boot folded into the sum of those that are gone.

    What it had open within the horizon of its last report is lost, what was older has failed.
    Later tallies of it are refused. Best done no sooner than the horizon after that report.
    Where boots are counted, the earlier ones of its router go with it and need no name.
    """
    if (router, boot) in _Retired(merged.retired_boots):
        return merged
    over = _Retired([(router, boot)])
    gone = [t for t in merged.tallies if (t.router, t.boot) in over]
    kept = tuple(t for t in merged.tallies if (t.router, t.boot) not in over)
    others = (name for name in merged.retired_boots if name not in over)
    parts = [*gone, *([merged.retired] if merged.retired else [])]
    return Merged(
        tallies=kept,
        retired=total(parts, horizon_s) if parts else None,
        retired_boots=tuple(sorted((*others, (router, boot)))),
    )


class _Retired:
    """Boots that are over; where they are counted, those before them too."""

    def __init__(self, names: Iterable[tuple[str, str]]) -> None:
        self._names = set(names)
        self._last: dict[str, int] = {}
        for router, boot in self._names:
            if boot.isdecimal():
                self._last[router] = max(int(boot), self._last.get(router, -1))

    def __contains__(self, name: tuple[str, str]) -> bool:
        router, boot = name
        counted = boot.isdecimal() and int(boot) <= self._last.get(router, -1)
        return counted or name in self._names


def total(tallies: Sequence[Tally], horizon_s: int) -> Tally:
    """Return the sum of tallies of one key that will not change again, without cells.

    Newly seen sessions are left out: those of different boots may be the same ones.
    """
    counts: dict[Label, list[int]] = {}
    lost: dict[Label, list[int]] = {}
    for tally in tallies:
        for epoch in tally.epochs:
            label = (epoch.period, epoch.weight_bp)
            add(counts.setdefault(label, [0] * len(epoch.counts)), epoch.counts)
            add(lost.setdefault(label, [0, 0]), epoch.lost)
        for cell in tally.cells:
            epoch = tally.epochs[cell.epoch]
            add(counts[epoch.period, epoch.weight_bp], cell.counts)
            if _is_young(cell, tally.as_of_s, horizon_s):
                add(lost[epoch.period, epoch.weight_bp], left_open(cell.counts))
    first = _first_seconds(tallies)
    labels = sorted(counts)
    place = {label: at for at, label in enumerate(labels)}
    level, united = unite(tallies)
    kept = sorted(united)
    while len(kept) > MAX_FAILURES:
        level += 1
        kept = [name for name in kept if sampled(name[0], level)]
    return Tally(
        key=tallies[0].key,
        router="",
        boot="retired",
        seq=sum(tally.seq for tally in tallies),
        as_of_s=max(tally.as_of_s for tally in tallies),
        epochs=tuple(
            Epoch(
                weight_bp=weight,
                period=period,
                first_s=first[period, weight],
                units=(0, 0),
                counts=tuple(counts[period, weight]),
                lost=(lost[period, weight][0], lost[period, weight][1]),
            )
            for period, weight in labels
        ),
        level=level,
        failures=tuple(
            SessionFailure(name[0], name[1], arm, begin_s, place[period, weight])
            for name in kept
            for begin_s, period, weight, arm in (united[name],)
        ),
    )


def _first_seconds(tallies: Iterable[Tally]) -> dict[Label, int]:
    first: dict[Label, int] = {}
    for epoch in chain.from_iterable(tally.epochs for tally in tallies):
        label = (epoch.period, epoch.weight_bp)
        first[label] = min(epoch.first_s, first.get(label, epoch.first_s))
    return first


def _is_young(cell: Cell, as_of_s: float, horizon_s: int) -> bool:
    """Return whether requests of this cell could still settle at that time."""
    return as_of_s < late_s(cell.begin_s, horizon_s)


def left_open(row: Sequence[int]) -> Pair:
    """Return how many requests of a row are assigned and not settled, by arm."""
    return row[ASSIGNED] - row[SETTLED], row[ASSIGNED + 1] - row[SETTLED + 1]


def add(into: list[int], row: Sequence[int]) -> None:
    """Add a row of counts to another in place."""
    into[:] = map(operator.add, into, row)


def sampled(session: str, level: int) -> bool:
    """Return whether a failed session is kept at `level`: by its hash's second half.

    Distinct sampling (Gibbons, "Distinct sampling for highly-accurate answers to distinct
    values queries", VLDB 2001, section 3): both arms alike, whatever the router.
    """
    return level == 0 or int(session[8:], 16) >> (32 - level) == 0


Failure = tuple[float, int, int, int]
"""(begin_s, period, weight_bp, arm): the least of several is the first failure."""


def unite(tallies: Iterable[Tally]) -> tuple[int, dict[tuple[str, int], Failure]]:
    """Return the level and each (session, objective)'s first failure over all tallies."""
    tallies = list(tallies)
    level = max((tally.level for tally in tallies), default=0)
    first: dict[tuple[str, int], Failure] = {}
    for tally in tallies:
        for failure in tally.failures:
            if not sampled(failure.session, level):
                continue
            epoch = tally.epochs[failure.epoch]
            seen = (failure.begin_s, epoch.period, epoch.weight_bp, failure.arm)
            name = (failure.session, failure.objective)
            first[name] = min(seen, first.get(name, seen))
    return level, first


class Cut(NamedTuple):
    """Where a view is cut: cells not past are in its window if begun before `whole_s`."""

    past_s: float
    """Cells begun before are past: nothing of them can settle any more."""
    whole_s: float
    lines: tuple[Line, ...]
    horizon_s: int


def survey(merged: Merged, objectives: int, *, now_s: float, horizon_s: int) -> View:
    """Return the view of all tallies, cut at the last moment that every live one reports whole.

    Prefixes of assignment then nest although reports come at different times.
    """
    tallies = [*merged.tallies, *([merged.retired] if merged.retired else [])]
    index, empty = order(_first_seconds(tallies), int(now_s) // PERIOD_S)
    view = View(empty.starts, empty.rest, objectives)
    live = [t.as_of_s for t in merged.tallies if t.as_of_s >= now_s - SILENT_S]
    begun_s = finest(min(live, default=now_s))
    # One live router's running cell is a prefix of its own; of several it must be whole.
    whole_s = begun_s if len(live) > 1 else begun_s + FINEST_S
    cut = Cut(past_s(begun_s, horizon_s), whole_s, lines_at(begun_s, horizon_s), horizon_s)
    rows: Rows = {}
    for tally in tallies:
        place = [index[epoch.period, epoch.weight_bp] for epoch in tally.epochs]
        for at, epoch in zip(place, tally.epochs, strict=True):
            add(view.base[at], epoch.counts)
            add(view.lost[at], epoch.lost)
        _place(view, rows, tally, place, cut)
    _add_failures(view, rows, tallies, index, cut)
    _add_units(view, tallies)
    view.window = window_of(rows)
    return view


def _place(view: View, rows: Rows, tally: Tally, place: Sequence[int], cut: Cut) -> None:
    past, whole_s, lines, horizon_s = cut
    for cell in tally.cells:
        begin_s, at = cell.begin_s, place[cell.epoch]
        if begin_s < past:
            add(view.base[at], cell.counts)
            if _is_young(cell, tally.as_of_s, horizon_s):
                add(view.lost[at], left_open(cell.counts))
        elif begin_s < whole_s:
            rows.setdefault((begin_of(begin_s, lines), at), []).append(cell.counts)
        else:
            view.beyond.append((at, cell.counts))


def _add_failures(
    view: View, rows: Rows, tallies: Sequence[Tally], index: Mapping[Label, int], cut: Cut
) -> None:
    view.level, united = unite(tallies)
    for (_, objective), (begin_s, period, weight_bp, arm) in united.items():
        at = index[period, weight_bp]
        place = FAILED + 2 * objective + arm
        if begin_s < cut.past_s:
            view.base[at][place] += 1
            continue
        row = [0] * len(view.base[at])
        row[place] = 1
        if begin_s < cut.whole_s:
            rows.setdefault((begin_of(begin_s, cut.lines), at), []).append(row)
        else:
            view.beyond.append((at, row))


def _add_units(view: View, tallies: Sequence[Tally]) -> None:
    for tally in tallies:
        seen = [(epoch.weight_bp, epoch.units) for epoch in tally.epochs if any(epoch.units)]
        if seen:
            view.units.append(seen)
    view.sessions = bool(view.units)
