"""The tables of the bench: which cases are run, and how their runs are told in markdown."""

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from statistics import fmean as mean

from truth import information_bound
from world import (
    BEGIN_S,
    ERRORS,
    Case,
    Run,
    fast_canary_failures,
    policy,
    slow_canary,
    slow_canary_failures,
    steady,
)

from weir_core.evidence import (
    ASSIGNED,
    CANARY,
    FAILED,
    SETTLED,
    STABLE,
    Epoch,
    Key,
    Tally,
    row_length,
)
from weir_core.merging import PERIOD_S
from weir_core.sequential import fingerprint
from weir_core.snapshot import Objective

WEIGHTS = (500, 1_000, 5_000)
BRAKE_S = 0.05
"""How often a router's brake looks."""

ALPHA = 0.01
SPENT = 0.8 * ALPHA
"""What the operator's brake spends; detection is measured at it."""


@dataclass(frozen=True)
class Row:
    """One row of a table: a case by weight (columns), how often, and what is told of it."""

    name: str
    cases: tuple[Case, ...]
    runs: int
    tell: Callable[[Case, list[Run]], str]


@dataclass(frozen=True)
class Table:
    """A markdown table."""

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]


def percent(part: float) -> str:
    """Return a share as a percentage with two digits."""
    return f"{100 * part:.2f} %"


def told_rollbacks(_case: Case, runs: list[Run]) -> str:
    """Return the share of runs that were rolled back."""
    hit = sum(one.rolled_back for one in runs)
    return f"{percent(hit / len(runs))} ({hit}/{len(runs)})"


def told_promotions(_case: Case, runs: list[Run]) -> str:
    """Return the share promoted, and total requests until then: mean (95 % quantile)."""
    totals = sorted(sum(one.assigned) for one in runs if one.promoted)
    if not totals:
        held = sorted(set().union(*[one.held for one in runs]))
        return f"0 of {len(runs)}" + (f"; {', '.join(held)}" if held else "")
    late = totals[min(len(totals) - 1, int(0.95 * len(totals)))]
    mean = sum(totals) / len(totals)
    return f"{percent(len(totals) / len(runs))}: {mean:,.0f} ({late:,})"


def told_detection(case: Case, runs: list[Run]) -> str:
    """Return what a detection took: all, the price of information, the delay, bad answers.

    All: mean canary requests until the trip, over the bound. Information: those until the
    evidence crosses if every outcome is known at once, over the bound at α and, in brackets, at
    α times the mass of the start that found it. Delay: seconds from there to the trip, and, in
    brackets, until the requests assigned by then have answered.
    """
    found = [(one, one.crossing) for one in runs if one.rolled_back and one.crossing]
    if not found:
        return "none"
    rates = (case.fails(CANARY, 1.0), case.fails(STABLE, 1.0), case.weights[-1][1] / 1e4)
    bound = information_bound(*rates, case.alpha)
    spent = mean(information_bound(*rates, case.alpha * c.mass) for _, c in found)
    all_of = mean(one.assigned[CANARY] for one, _ in found)
    needed = mean(crossing.canary for _, crossing in found)
    delay_s = mean(one.delay_s for one, _ in found)
    answered_s = mean(crossing.answered_s - crossing.at_s for _, crossing in found)
    bad = mean(one.bad_served for one, _ in found)
    missed = f", missed {len(runs) - len(found)}" if len(found) < len(runs) else ""
    return (
        f"{all_of:,.0f} = {all_of / bound:.2f}; **{needed / bound:.2f}** ({needed / spent:.2f}),"
        f" **{delay_s:.1f} s** ({answered_s:.1f}); bad {bad:.1f}{missed}"
    )


def told_audits(_case: Case, runs: list[Run]) -> str:
    """Return audited requests until rollback: median (95 % quantile)."""
    audits = sorted(one.audits for one in runs if one.rolled_back)
    if not audits:
        return "none"
    late = audits[min(len(audits) - 1, int(0.95 * len(audits)))]
    return f"{audits[len(audits) // 2]} ({late}), missed {len(runs) - len(audits)}"


def by_weight(case: Case) -> tuple[Case, ...]:
    """Return the case at each of the weights."""
    return tuple(replace(case, weights=((1.0, bp),)) for bp in WEIGHTS)


def million_clean(*, minutes_ago: int, rate: float, weight_bp: int = 2_500) -> tuple[Tally, ...]:
    """Return the tally of an earlier boot: a million requests, both arms failing at `rate`."""
    model = policy(Case(requests=0, weights=((1.0, weight_bp),), fails=steady(0, 0)), weight_bp)
    row = [0] * row_length(1)
    canary = 100 * weight_bp
    for arm, n in ((STABLE, 1_000_000 - canary), (CANARY, canary)):
        row[ASSIGNED + arm] = row[SETTLED + arm] = n
        row[FAILED + arm] = round(n * rate)
    second = int(BEGIN_S) - 60 * minutes_ago
    assert model.canary is not None
    return (
        Tally(
            key=Key(
                route_uid=model.uid,
                revision=model.canary.name,
                attempt=model.attempt,
                objectives=fingerprint(model.monitoring),
            ),
            router="r0",
            boot="0",
            seq=1,
            as_of_s=second + 60.0,
            epochs=(Epoch(weight_bp, second // PERIOD_S, second, (0, 0), tuple(row)),),
        ),
    )


RAMP = ((0.25, 500), (0.5, 1_000), (0.75, 2_500), (1.0, 5_000))
QUALITY = Objective(name="quality", event="Harm")


def drifting(_arm: int, progress: float) -> float:
    """A baseline that goes from 2 % to 8 % and has an incident of 40 %, in both arms."""
    incident = 0.4 if 0.55 < progress < 0.57 else 0.0
    return 0.02 + 0.06 * progress + incident


def wrong_pairs(small: float, large: float) -> Callable[[random.Random], tuple[bool, bool]]:
    """Draw harms of the canary (wrong with `small`) and stable (`large`), half in common."""
    return partial(_wrong_pair, small, large)


def _wrong_pair(small: float, large: float, rng: random.Random) -> tuple[bool, bool]:
    common = min(small, large) / 2
    if rng.random() < common:
        return True, True
    return rng.random() < small - common, rng.random() < large - common


def equal(runs: int, size: float) -> Table:
    """Return A/A: equal arms are watched at every event, none should be rolled back."""
    n = int(1_200 * size)
    plain = Case(requests=n, weights=(), fails=steady(0.1, 0.1), per_s=25, look_s=0.5)
    uneven = replace(plain, latency=fast_canary_failures)
    ceiling = Objective(name="errors", event="Error", max_rate=0.1)
    rows = [
        ("latencies alike", plain),
        ("canary fails at 0.3 s, stable at 30 s", uneven),
        ("stable fails at 0.3 s, canary at 30 s", replace(plain, latency=slow_canary_failures)),
        (
            "canary fails at 0.3 s, stable at 30 s, 3 routers that report each second",
            replace(uneven, routers=3, report_s=1.0, requests=2 * n // 3),
        ),
        ("5 % clients gone, 1 % outcomes lost", replace(uneven, gone=0.05, lost=(0.01, 0.01))),
        ("6 restarts", replace(uneven, restarts=6)),
        ("6 restarts, canary 10 times slower", replace(plain, latency=slow_canary, restarts=6)),
        *(
            (
                f"sessions of {length}, 3 routers",
                replace(uneven, session=length, routers=3, requests=2 * n // 3),
            )
            for length in (1, 10, 100)
        ),
        (
            "after a million clean requests",
            replace(plain, past=million_clean(minutes_ago=180, rate=0.1), requests=2 * n // 3),
        ),
        ("ceiling 10 % at a rate of 10 %", replace(plain, objectives=(ceiling,))),
        (
            "audited pairs, 18 % wrong",
            replace(
                plain,
                requests=n // 2,
                objectives=(ERRORS, QUALITY),
                audit=wrong_pairs(0.18, 0.18),
            ),
        ),
    ]
    told = [Row(name, by_weight(case), runs, told_rollbacks) for name, case in rows]
    ramp = replace(plain, weights=RAMP, fails=drifting)
    told.append(Row("ramp 5→10→25→50 %, drift, incident", (ramp,), runs, told_rollbacks))
    moved = replace(uneven, weights=RAMP, session=10, routers=3)
    told.append(Row("ramp, sessions of 10, 3 routers", (moved,), runs, told_rollbacks))
    wrong = replace(uneven, on_arrival=True)
    told.append(
        Row(
            "*wrong way:* counted on arrival", by_weight(wrong), max(20, runs // 10), told_rollbacks
        )
    )
    title = f"False rollback of an equal canary (p = 10 %, {n:,} requests, α = {ALPHA}), w ="
    return Table("equal", title, ("5 %", "10 %", "50 %"), tuple(told))


def detection(runs: int, size: float) -> Table:
    """Return how many canary requests a regression takes, over the information bound."""
    del size
    base = Case(
        requests=400_000,
        weights=(),
        fails=steady(0.01, 0.01),
        per_s=10,
        alpha=SPENT,
        look_s=BRAKE_S,
        measured=True,
        spared=True,
    )
    rows = [
        (f"1 % → {ratio} %", replace(base, fails=steady(0.01, 0.01 * ratio)), runs)
        for ratio in (2, 3, 5, 10)
    ]
    rows += [
        (f"1 % → {r} %, 100/s", replace(base, per_s=100, fails=steady(0.01, 0.01 * r)), runs // 2)
        for r in (3, 10)
    ]
    uneven = replace(base, latency=fast_canary_failures)
    rows += [
        (
            f"1 % → {r} %, canary 0.3 s, stable 30 s",
            replace(uneven, fails=steady(0.01, r / 100)),
            runs,
        )
        for r in (5, 10)
    ]
    rows += [
        ("dead canary", replace(base, fails=steady(0.01, 1.0)), runs),
        ("dead canary, 0.3 s against 30 s", replace(uneven, fails=steady(0.01, 1.0)), runs),
    ]
    for minutes in (20, 180):
        past = million_clean(minutes_ago=minutes, rate=0.01)
        name = f"1 % → {{}} %, a million clean {minutes} min before"
        rows += [
            (name.format(r), replace(base, past=past, fails=steady(0.01, r / 100)), runs)
            for r in (3, 10)
        ]
    told = [Row(name, by_weight(case), n, told_detection) for name, case, n in rows]
    title = (
        f"Canary requests until rollback = over the bound at α = {SPENT}; **information** (at the"
        " α spent), **delay** (until all in flight had answered); bad answers (10 requests/s), w ="
    )
    return Table("detection", title, ("5 %", "10 %", "50 %"), tuple(told))


def promotion(runs: int, size: float) -> Table:
    """Return when a canary is promoted, and that a worse or silent one is not."""
    floor = Objective(name="errors", event="Error", negligible_rate=0.01)
    base = Case(requests=int(40_000 * size), weights=(), fails=steady(0, 0), promote=True)
    plain = replace(base, per_s=100)
    some = max(12, runs // 2)
    few = max(12, runs // 4)
    silent = replace(plain, requests=int(6_000 * size), fails=steady(0.01, 0.01))
    rows = [
        ("no failures, negligible rate 1 %", replace(plain, objectives=(floor,)), some),
        ("1 % in both", replace(plain, fails=steady(0.01, 0.01)), few),
        (
            "1 % in both, negligible rate 1 %",
            replace(plain, fails=steady(0.01, 0.01), objectives=(floor,)),
            few,
        ),
        ("9 % in both", replace(plain, fails=steady(0.09, 0.09)), some),
        (
            "9 % against 18 %, at the bound",
            replace(plain, fails=steady(0.09, 0.18), requests=int(4_000 * size), alpha=1e-9),
            runs,
        ),
        (
            "9 % against 27 %",
            replace(plain, fails=steady(0.09, 0.27), requests=int(4_000 * size), alpha=1e-9),
            runs,
        ),
        (
            "1 % in both, 10 % of the canary's outcomes missing",
            replace(silent, lost=(0.0, 0.1)),
            few,
        ),
        (
            "a dead canary that fails 30 s late",
            replace(silent, fails=steady(0.01, 1.0), latency=slow_canary_failures, alpha=1e-300),
            few,
        ),
    ]
    weights = (2_500, 5_000)
    told = [
        Row(
            name,
            tuple(replace(case, weights=((1.0, bp),)) for bp in weights),
            n,
            told_promotions,
        )
        for name, case, n in rows
    ]
    title = "Promoted (α_p = 0.05, ratio < 2): share: requests of both arms, mean (p95), w ="
    return Table("promotion", title, ("25 %", "50 %"), tuple(told))


def pairs(runs: int, size: float) -> Table:
    """Return how many audits find a loss of quality."""
    del size
    base = Case(
        requests=5_000,
        weights=((1.0, 2_500),),
        fails=steady(0, 0),
        objectives=(QUALITY,),
        alpha=SPENT,
    )
    rows = [
        ("stable 9 % wrong, canary 18 %", replace(base, audit=wrong_pairs(0.18, 0.09))),
        ("stable 2 % wrong, canary 10 %", replace(base, audit=wrong_pairs(0.10, 0.02))),
        ("stable 9 % wrong, canary 12 %", replace(base, audit=wrong_pairs(0.12, 0.09))),
    ]
    told = [Row(name, (case,), runs, told_audits) for name, case in rows]
    return Table("pairs", "Audited requests until rollback, median (p95)", ("audits",), tuple(told))


def tables(runs: int, size: float) -> Iterable[Table]:
    """Return all tables; `runs` is of a cell of the first, `size` scales the length of a run."""
    few = max(12, runs // 7)
    return (equal(runs, size), detection(few, size), promotion(few, size), pairs(few, size))
