"""Judges a canary by anytime-valid tests on what its and stable's requests showed.

The router draws the arm with a known probability w, so if the canary is no worse a failure is
the canary's with probability w at most, however the baseline drifts (`eprocess`). Evidence is
read in the order of assignment and against the canary's harm (`prefixes`). The module refuses to
know where tallies come from (`merging`) and who acts on a verdict (`rollout`).
"""

import math
from collections.abc import Iterable, Sequence
from hashlib import blake2b

import msgspec
from msgspec.structs import replace

from weir_core import eprocess
from weir_core.evidence import (
    ASSIGNED,
    AUDITS_BEGUN,
    AUDITS_DROPPED,
    AUDITS_ENDED,
    BAD,
    BOTH_HARMED,
    CANARY,
    CANARY_HARMED,
    FAILED,
    SETTLED,
    STABLE,
    STABLE_HARMED,
    Judgement,
    Merged,
    ObjectiveJudgement,
    Tally,
    Verdict,
    row_length,
)
from weir_core.merging import View, merge, retire, survey
from weir_core.prefixes import Harm, Safety, find_harm, find_safety, totals_of
from weir_core.snapshot import Monitoring, Objective, RoutePolicy
from weir_core.stakes import Plan, plan_for

__all__ = ["fingerprint", "horizon_s", "judge", "judge_view", "merge", "retire"]

SAMPLE_RATIO_ALPHA = 0.001
LEAST_COVERAGE, LEAST_ASSIGNED = 0.99, 50
LEAST_AUDIT_COVERAGE, LEAST_AUDITS = 0.95, 20
LATELY_FAILURES = 10
"""Failures that stable's latest requests have room for at the ceiling, to tell of its health."""


def fingerprint(monitoring: Monitoring) -> str:
    """Return 10 hex digits that change with whatever a failure means; not with audit shares."""
    audits = monitoring.audits
    objectives = [msgspec.to_builtins(one) for one in monitoring.objectives]
    for one in objectives:
        # Older than this field are evidence and states on disk that an upgrade must not void.
        if not one["within_ms"]:
            del one["within_ms"]
    meant = (
        monitoring.monitors,
        objectives,
        (audits.reference, audits.compare) if audits else None,
    )
    return blake2b(msgspec.json.encode(meant), digest_size=5).hexdigest()


def horizon_s(policy: RoutePolicy) -> int:
    """Return after how many seconds an open request counts as failed: deadline and 2 s."""
    deadlines = [r.behaviour.deadline_ms for r in (policy.stable, policy.canary) if r]
    return -(-max(deadlines) // 1_000) + 2


def judge(
    evidence: Merged | Iterable[Tally],
    objectives: Sequence[Objective],
    *,
    alpha: float,
    promote_alpha: float,
    promote_ratio: float,
    now_s: float,
    horizon_s: int,
) -> Judgement:
    """Return the verdict on one canary from tallies of one key."""
    merged = evidence if isinstance(evidence, Merged) else merge(evidence)
    view = survey(merged, len(objectives), now_s=now_s, horizon_s=horizon_s)
    return judge_view(
        view,
        tuple(objectives),
        alpha=alpha,
        promote_alpha=promote_alpha,
        promote_ratio=promote_ratio,
    )


def judge_view(
    view: View,
    objectives: tuple[Objective, ...],
    *,
    alpha: float,
    promote_alpha: float,
    promote_ratio: float,
) -> Judgement:
    """Return the verdict on a view of the evidence."""
    assert all(len(row) == row_length(len(objectives)) for row in view.base)
    plan = plan_for(objectives, promote_ratio)
    threshold = math.log(1 / alpha)
    totals = totals_of(view)
    sums = [sum(column) for column in zip(*totals, strict=True)] or [0] * FAILED
    harm = find_harm(view, plan, alpha)
    safety = find_safety(view, plan)
    sample_log = _sample_ratio(view, totals)
    holds, coverage = _holds(view, objectives, harm, totals, sums, sample_log, threshold)
    log_e = eprocess.safe_log(harm.best) if any(plan.shares) else 0.0
    verdict: Verdict = "NoHarmYet" if sums[SETTLED + CANARY] else "InsufficientData"
    if _is_safe(plan, safety, holds, promote_alpha):
        verdict = "Safe"
    if log_e >= threshold:
        verdict = "Harm"
    suspect = harm.suspect if verdict == "Harm" else -1
    shown = [
        _objective_judgement(o, [_shown(row, o, j) for row in totals])
        for j, o in enumerate(objectives)
    ]
    return Judgement(
        verdict=verdict,
        log_e=log_e,
        threshold=threshold,
        suspect=objectives[suspect].name if suspect >= 0 else "",
        objectives=tuple(
            _concluded(
                one,
                log_e=eprocess.safe_log(harm.largest[j]),
                promote_log_e=safety.logs[j],
                threshold=threshold,
                promote_threshold=math.log(1 / promote_alpha),
                suspect=j == suspect,
            )
            for j, one in enumerate(shown)
        ),
        holds=holds,
        assigned=(sums[ASSIGNED], sums[ASSIGNED + 1]),
        settled=(sums[SETTLED], sums[SETTLED + 1]),
        audits=sums[AUDITS_ENDED],
        coverage=coverage,
        sample_ratio_log_e=sample_log,
        bad_served=sums[BAD] + sums[CANARY_HARMED] + sums[BOTH_HARMED],
    )


def _is_safe(plan: Plan, safety: Safety, holds: Sequence[str], promote_alpha: float) -> bool:
    """Return whether every gate's evidence has crossed on a record that misses nothing."""
    rows = zip(safety.logs, plan.shares, plan.safe, strict=True)
    gates = [log for log, share, parts in rows if share and parts]
    covered = all(
        settled >= LEAST_COVERAGE * assigned > 0
        for assigned, settled in zip(safety.assigned, safety.settled, strict=True)
    )
    blocked = "SampleRatioMismatch" in holds or "OutcomesMissing" in holds
    return min(gates, default=-1.0) >= math.log(1 / promote_alpha) and covered and not blocked


def _sample_ratio(view: View, totals: Sequence[Sequence[int]]) -> float:
    """Return ln E against the arms having been drawn with the weights on record.

    Sessions newly seen by one boot are independent draws; those of several boots are not, so
    their evidence is averaged.
    """
    rows = zip(view.starts, totals, strict=True)
    boots = [[(weight_bp, (row[ASSIGNED], row[ASSIGNED + 1])) for (_, weight_bp), row in rows]]
    if view.sessions:
        boots = view.units
    bet = eprocess.sample_ratio_bet()
    values = []
    for boot in boots:
        spans = ((weight_bp, canary, stable) for weight_bp, (stable, canary) in boot)
        masses = (0.0 if at else 1.0 for at in range(len(boot)))
        chain = tuple((mass, *span) for mass, span in zip(masses, spans, strict=True))
        values.append(eprocess.e_value(bet, chain, 0.0 if chain else 1.0))
    return eprocess.safe_log(sum(values) / len(values)) if values else 0.0


def _holds(
    view: View,
    objectives: Sequence[Objective],
    harm: Harm,
    totals: Sequence[Sequence[int]],
    sums: Sequence[int],
    sample_log: float,
    threshold: float,
) -> tuple[tuple[str, ...], float]:
    """Return the reasons to stand still, and the coverage of what is past the horizon."""
    past = [sum(column) for column in zip(*view.base, strict=True)] or [0] * FAILED
    coverage = 1.0
    for arm in (STABLE, CANARY):
        # What a router's end cut off is missing for a known reason.
        assigned = past[ASSIGNED + arm] - sum(lost[arm] for lost in view.lost)
        if assigned >= LEAST_ASSIGNED:
            coverage = min(coverage, past[SETTLED + arm] / assigned)
    begun = past[AUDITS_BEGUN]
    dropped = max(begun - past[AUDITS_ENDED], sums[AUDITS_DROPPED])
    begun = max(begun, sums[AUDITS_ENDED] + sums[AUDITS_DROPPED])
    holds = []
    if any(_is_over_lately(view, totals, objectives[j], j) for j in harm.unhealthy):
        holds.append("StableUnhealthy")
    if sample_log >= math.log(1 / SAMPLE_RATIO_ALPHA):
        holds.append("SampleRatioMismatch")
    if coverage < LEAST_COVERAGE or (
        begun >= LEAST_AUDITS and dropped > (1 - LEAST_AUDIT_COVERAGE) * begun
    ):
        holds.append("OutcomesMissing")
    for j, o in enumerate(objectives):
        if o.mode == "Hold" and eprocess.safe_log(harm.largest[j]) >= threshold:
            holds.append(f"Objective/{o.name}")
    return tuple(holds), coverage


def _is_over_lately(
    view: View, totals: Sequence[Sequence[int]], objective: Objective, at: int
) -> bool:
    """Return whether stable is above a ceiling in its latest epochs, as many as can tell.

    Only a hold hangs on it, so a plain rate may decide: no α is at stake. Epochs are of ten
    minutes at most, so what was mended is forgotten in time; a new one that has hardly begun
    clears nothing.
    """
    failed = settled = 0
    for row in reversed(totals):
        failed_now, _, settled_now, _ = _shown(row, objective, at)
        failed += failed_now
        settled += settled_now
        if settled * objective.max_rate >= LATELY_FAILURES:
            break
    sampled_by = 1 if objective.event == "Harm" else 1 << view.level
    return failed * sampled_by > objective.max_rate * settled


Shown = tuple[int, int, int, int]
"""Failures of stable and canary, settled of stable and canary."""


def _shown(row: Sequence[int], objective: Objective, at: int) -> Shown:
    if objective.event == "Harm":
        both = row[BOTH_HARMED]
        ended = row[AUDITS_ENDED]
        return (row[STABLE_HARMED] + both, row[CANARY_HARMED] + both, ended, ended)
    place = FAILED + 2 * at
    return (row[place], row[place + 1], row[SETTLED], row[SETTLED + 1])


def _objective_judgement(objective: Objective, rows: Sequence[Shown]) -> ObjectiveJudgement:
    """Return what is shown of one objective, by epoch in `rows`; nothing concluded yet."""
    ratio, low, high = rate_ratio(rows)
    settled = (sum(r[2] for r in rows), sum(r[3] for r in rows))
    return ObjectiveJudgement(
        name=objective.name,
        event=objective.event,
        mode=objective.mode,
        verdict="NoHarmYet" if settled[CANARY] else "InsufficientData",
        log_e=0.0,
        promote_log_e=0.0,
        failed=(sum(r[0] for r in rows), sum(r[1] for r in rows)),
        settled=settled,
        ratio=ratio,
        low=low,
        high=high,
    )


def _concluded(
    shown: ObjectiveJudgement,
    *,
    log_e: float,
    promote_log_e: float,
    threshold: float,
    promote_threshold: float,
    suspect: bool,
) -> ObjectiveJudgement:
    verdict = shown.verdict
    if promote_log_e >= promote_threshold:
        verdict = "Safe"
    if log_e >= threshold:
        verdict = "Harm"
    return replace(
        shown, verdict=verdict, log_e=log_e, promote_log_e=promote_log_e, suspect=suspect
    )


def rate_ratio(rows: Sequence[Shown]) -> tuple[float, float, float]:
    """Return canary's rate over stable's with a plain 95 % interval, for display only.

    Epochs are strata, so that a drifting baseline under a changing weight does not show as a
    ratio: expected shares of the failures after Peto ("Beta blockade during and after
    myocardial infarction", Yusuf et al. 1985, appendix), log-normal interval with 0.5 added.
    """
    stable = sum(row[0] for row in rows)
    canary = sum(row[1] for row in rows)
    if not stable + canary:
        return 0.0, 0.0, 1e9
    expected = [0.0, 0.0]
    for failed_s, failed_c, settled_s, settled_c in rows:
        settled = settled_s + settled_c
        if settled:
            expected[STABLE] += (failed_s + failed_c) * settled_s / settled
            expected[CANARY] += (failed_s + failed_c) * settled_c / settled
    if not all(expected):
        return 0.0, 0.0, 1e9
    odds = expected[CANARY] / expected[STABLE]
    centre = math.log((canary + 0.5) / (stable + 0.5) / odds)
    radius = 1.96 * math.sqrt(1 / (canary + 0.5) + 1 / (stable + 0.5))
    ratio = canary / stable / odds if stable else 0.0
    return ratio, math.exp(centre - radius), math.exp(centre + radius)
