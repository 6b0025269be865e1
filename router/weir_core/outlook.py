"""What a canary really gets, and how many of its requests it takes to see it do harm.

For display only: nothing is decided on either figure.
"""

import math
from collections.abc import Iterable, Mapping

import msgspec

from weir_core.evidence import CANARY, STABLE, Judgement, ObjectiveJudgement, Pair
from weir_core.snapshot import FULL_BP, Objective

DOUBLED = 2.0
"""The ratio of canary to stable that is asked about."""

MEASURED_S = 60.0
MARK_S = 1.0
LEAST_MEASURED = 20
"""Requests from which on a share is told."""


class Marks(msgspec.Struct, frozen=True, kw_only=True):
    """How many requests each arm had been assigned, at moments of the last minute.

    `about` is whatever the counts belong to (revision, attempt, objectives, weight); of another
    one none are kept.
    """

    about: object = None
    at: tuple[tuple[float, Pair], ...] = ()


def marked(marks: Marks, about: object, assigned: Pair, now_s: float) -> Marks:
    """Return the marks with one of now, at most one a second."""
    latest_s, latest = marks.at[-1] if marks.at else (-math.inf, (0, 0))
    restarted = any(now < before for now, before in zip(assigned, latest, strict=True))
    if marks.about != about or restarted or now_s < latest_s:
        return Marks(about=about, at=((now_s, assigned),))
    if now_s - latest_s < MARK_S:
        return marks
    at = (*marks.at, (now_s, assigned))
    while len(at) > 2 and at[1][0] <= now_s - MEASURED_S:
        at = at[1:]
    return Marks(about=about, at=at)


def measured_bp(
    marks: Marks, judgement: Judgement | None, about: object, *, weight_bp: int
) -> float | None:
    """Return the share that a canary really gets at its weight, None where it is not known.

    At 0 and at all nothing is drawn, so nothing is counted. Right after a change of the weight
    the marks are of the old one.
    """
    is_current = marks.about == (about, weight_bp) and 0 < weight_bp < FULL_BP
    return actual_bp(marks, judgement.assigned) if judgement and is_current else None


def actual_bp(marks: Marks, assigned: Pair) -> float | None:
    """Return the canary's share of the last minute's requests; None while they are too few."""
    if not marks.at:
        return None
    _, before = marks.at[0]
    canary = assigned[CANARY] - before[CANARY]
    both = canary + assigned[STABLE] - before[STABLE]
    return canary / both * FULL_BP if both >= LEAST_MEASURED else None


def requests_to_detect(
    judgement: Judgement, objectives: Iterable[Objective], *, weight_bp: int
) -> Mapping[str, int]:
    """Return by objective how many canary requests a doubling takes to be seen, at least.

    At stable's present rate and this weight, on average, from the start of an attempt. Of those
    in Enforce whose rate is known: unknown without a failure of stable, and for Harm, which is
    counted in audits.
    """
    enforced = {o.name: o for o in objectives if o.mode == "Enforce"}
    whole = sum(o.share for o in enforced.values())
    found = {}
    for shown in judgement.objectives:
        objective = enforced.get(shown.name)
        if objective is None or objective.event == "Harm":
            continue
        threshold = judgement.threshold + math.log(whole / objective.share)
        requests = _requests(shown, objective.max_ratio, threshold, weight_bp / FULL_BP)
        if requests is not None:
            found[shown.name] = requests
    return found


def _requests(
    shown: ObjectiveJudgement, max_ratio: float, threshold: float, w: float
) -> int | None:
    """Return the information bound on the mean, None where there is none.

    Whatever test of level α is used, E[n] ≥ ln(1/α)/I with I the Kullback-Leibler information
    of one observation (Wald, "Sequential Analysis", 1947, appendix on the efficiency of the
    sequential probability ratio test, at β = 0). A failure is the canary's with probability
    w·r/(1 + w(r − 1)), see `eprocess.harm_bet`, and a request fails with rate·(1 + w(r − 1)).
    """
    failed, settled = shown.failed[STABLE], shown.settled[STABLE]
    if not (failed and 0 < w < 1 and max_ratio < DOUBLED and DOUBLED * failed <= settled):
        return None
    bad, fine = (w * r / (1 + w * (r - 1)) for r in (DOUBLED, max_ratio))
    information = bad * math.log(bad / fine) + (1 - bad) * math.log((1 - bad) / (1 - fine))
    failures = threshold / information
    rate = failed / settled * (1 + w * (DOUBLED - 1))
    return math.ceil(w * failures / rate)
