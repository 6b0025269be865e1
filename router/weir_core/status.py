"""What a route says of itself: the .status of a ModelRoute, and all that `weir` prints of it.

Plain JSON values with camelCase keys, decimals as strings, bounded in size. It refuses to
decide anything: it tells what `rollout` did and what `conditions` follow.
"""

import math
from collections.abc import Mapping
from typing import Any

from weir_core import reasons
from weir_core.attempts import lost_text, rollback_text
from weir_core.changes import listed
from weir_core.clocks import clocks_text
from weir_core.commands import Acknowledgement, command_text
from weir_core.conditions import (
    MAX_MESSAGE,
    Observed,
    canary_changes,
    route_conditions,
    serving,
    turned,
)
from weir_core.evidence import CANARY, STABLE, Judgement, ObjectiveJudgement
from weir_core.figures import duration, e_value, instant, percent, ratio
from weir_core.gates import requests_wanted, settled_in_step, step_text
from weir_core.history import Rollback
from weir_core.outlook import requests_to_detect
from weir_core.reach import gaps, is_loading, outage
from weir_core.rollout_state import RolloutState
from weir_core.snapshot import FULL_BP
from weir_core.stops import pause_text

__all__ = ["COLUMNS", "Observed", "columns", "route_status", "turned"]

MAX_CHANGES = 16
"""Changes of a canary that are shown; the rest are counted."""

MAX_OBJECTIVES = 16
"""Objectives shown; the API allows no more."""

UNBOUNDED = 1e9
"""An interval's upper end from which on there is none."""

COLUMNS = ("PHASE", "STEP", "WEIGHT", "VERDICT", "E-VALUE", "STABLE", "CANARY", "AGE")


def route_status(
    state: RolloutState, observed: Observed, *, now_s: float, old: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the whole status; `old` is the one before, for the times of its conditions."""
    message = sentence(state, observed)[:MAX_MESSAGE]
    judgement = observed.judgement if state.live else None
    return {
        "observedGeneration": observed.generation,
        "phase": _phase(state, observed),
        "message": message,
        "stable": {"revision": state.stable},
        "canary": {
            "revision": state.canary,
            "attempt": state.attempt,
            "changes": listed(canary_changes(state), most=MAX_CHANGES),
        },
        "standstill": _standstill(state, observed),
        "step": _step(state, observed),
        "weight": _weight(state, observed),
        "routers": {"inSync": observed.routers_in_sync, "of": observed.routers},
        "verdict": _verdict(state, judgement),
        "eValue": e_value(judgement.log_e) if judgement else "",
        "threshold": e_value(judgement.threshold) if judgement else "",
        "promoteThreshold": e_value(-math.log(observed.policy.promote_alpha)),
        "evidence": _evidence(judgement, _outlook(state, observed)),
        "lastRollback": _last_rollback(state.last_rollback),
        "lastCommand": _last_command(state.last_command),
        "conditions": route_conditions(
            state,
            observed,
            message=message,
            old=(old or {}).get("conditions") or (),
            now_s=now_s,
        ),
    }


def columns(status: Mapping[str, Any], *, age_s: float | None = None) -> tuple[str, ...]:
    """Return one line of `kubectl get` or `weir get`, in the order of COLUMNS."""
    return (
        status["phase"],
        status["step"]["progress"],
        status["weight"]["set"],
        status["verdict"],
        status["eValue"],
        status["stable"]["revision"],
        status["canary"]["revision"],
        "" if age_s is None else duration(age_s),
    )


def _phase(state: RolloutState, observed: Observed) -> str:
    """Return the one word; what no router serves yet is not healthy."""
    if observed.problems and not state.stable:
        return "Degraded"
    if outage(state, observed.ejected):
        return "Progressing" if is_loading(state, observed.ejected) else "Degraded"
    if state.phase == "Healthy" and not (state.stable and observed.routers_serving):
        return "Progressing"
    return state.phase


# One sentence.


def sentence(state: RolloutState, observed: Observed) -> str:
    """Return what is going on, with the numbers, and what a person could do where one is needed.

    What is worst comes first: an outage, then what the rollout does, then what is refused.
    """
    out = outage(state, observed.ejected)
    parts = [out] if out else []
    if not out or state.stage != "Idle":
        parts.append(_rollout(state, observed))
    if observed.problems and state.stable:
        parts.append(f"the spec has a problem, see condition {observed.problems[0].condition}")
    return "; ".join(parts)


def _rollout(state: RolloutState, observed: Observed) -> str:
    if state.stage == "Idle":
        return _idle(state, observed)
    if state.stage == "Refused":
        return f"{state.refusal}; {serving(state)}"
    if state.stage == "RolledBack":
        why = state.last_rollback
        told = rollback_text(why) if why else f"{state.canary} was rolled back"
        return f"{told}; {serving(state)}; change the behaviour, or retry it"
    parts = [_where(state, observed), _conclusion(observed.judgement)]
    if state.phase == "Paused":
        parts.insert(0, f"paused ({_stops(state)})")
    elif state.holds:
        parts.insert(0, f"waits ({_stops(state)})")
    parts += [part for part in (_progress(state, observed), _slowest(state, observed)) if part]
    advice = "; promote, abort or resume it by command" if state.inconclusive else ""
    return ", ".join(parts) + advice


def _idle(state: RolloutState, observed: Observed) -> str:
    if state.lost:
        return lost_text(state, observed.target)
    if not state.stable:
        found = (p.condition for p in observed.problems if p.condition != "Programmed")
        return f"no revision yet: the spec has a problem, see condition {next(found, 'Accepted')}"
    if not observed.routers_serving:
        return f"{state.stable} is stable; no ready router has acknowledged it yet"
    silent = gaps(state, observed.ejected)
    return (
        f"{state.stable} serves, without {silent}"
        if silent
        else f"{state.stable} serves everything"
    )


def _stops(state: RolloutState) -> str:
    people = {"Spec": "by spec.rollout.paused", "Step": "by a step", "Command": "by a command"}
    inconclusive = (reasons.INCONCLUSIVE,) if state.inconclusive else ()
    return ", ".join((*(people[p] for p in state.pauses), *inconclusive, *state.holds))


def _where(state: RolloutState, observed: Observed) -> str:
    share = f"{percent(state.weight_bp)} to {state.canary}"
    if state.stage == "Steps":
        return f"{step_text(state, observed.policy)}: {share}"
    if state.stage == "Promoting":
        return f"promoting: {share}"
    end = instant(state.step_since_s + observed.policy.bake_ms / 1_000)
    if state.waived or settled_in_step(state, observed.judgement):
        return f"bake until {end}: {share}"
    return f"bake waits for a canary request, at least until {end}: {share}"


def _conclusion(judgement: Judgement | None) -> str:
    if judgement is None:
        return "no evidence yet"
    numbers = f"(E {e_value(judgement.log_e)} of {e_value(judgement.threshold)})"
    suspect = f" on {judgement.suspect}" if judgement.suspect else ""
    return {
        "InsufficientData": f"too little evidence yet {numbers}",
        "NoHarmYet": f"no harm {numbers}",
        "Harm": f"harm{suspect} {numbers}",
        "Safe": f"shown to be safe {numbers}",
    }[judgement.verdict]


def _progress(state: RolloutState, observed: Observed) -> str:
    gate, judgement = state.gate, observed.judgement
    if gate is None or judgement is None:
        return ""
    if gate.kind == "prove":
        gates = [o for o in judgement.objectives if o.mode == "Enforce" and o.event != "Feedback"]
        if not gates:
            return ""
        least = min(gates, key=lambda o: o.promote_log_e)
        wanted = e_value(-math.log(observed.policy.promote_alpha))
        return f"proof {e_value(least.promote_log_e)} of {wanted} ({least.name} has least)"
    if gate.kind != "hold":
        return ""
    wanted_requests = requests_wanted(state, gate)
    settled = settled_in_step(state, judgement)
    return f"{settled} of {wanted_requests} canary requests" if wanted_requests else ""


def _slowest(state: RolloutState, observed: Observed) -> str:
    """Return for how long yet "no harm" says little of some objective."""
    judgement, wanted = observed.judgement, _outlook(state, observed)
    if judgement is None or judgement.verdict in ("Harm", "Safe") or not wanted:
        return ""
    name, requests = max(wanted.items(), key=lambda one: one[1])
    if requests <= judgement.settled[CANARY]:
        return ""
    return f"a doubling of {name} takes at least {requests:,} canary requests to be seen"


def _outlook(state: RolloutState, observed: Observed) -> Mapping[str, int]:
    if observed.judgement is None or not state.live:
        return {}
    return requests_to_detect(observed.judgement, observed.objectives, weight_bp=state.weight_bp)


# Parts.


def _step(state: RolloutState, observed: Observed) -> dict[str, Any]:
    of = len(observed.policy.steps)
    index = min(state.step + 1, of) if state.stage == "Steps" else of if state.live else 0
    progress = {"Steps": f"{index}/{of}", "Promoting": "promoting", "Bake": "bake"}
    return {
        "index": index,
        "of": of,
        "kind": state.gate.kind if state.gate else "",
        "progress": progress.get(state.stage, ""),
    }


def _hold(hold: str, observed: Observed) -> str:
    lacks = observed.capacity_message if hold == reasons.NO_CAPACITY else ""
    if hold == reasons.CLOCKS_DISAGREE:
        lacks = clocks_text(observed.clock_off_s)
    return "; ".join(filter(None, (reasons.hold_message(hold), lacks)))


def _standstill(state: RolloutState, observed: Observed) -> list[dict[str, str]]:
    """Return all that stops a rollout, each in one sentence; nothing while it moves."""
    if not state.live:
        return []
    pauses = [(reasons.PAUSED, pause_text(state, observed.policy, pause)) for pause in state.pauses]
    undecided = [(reasons.INCONCLUSIVE, reasons.UNDECIDED)] if state.inconclusive else []
    holds = [(reasons.hold_reason(hold), _hold(hold, observed)) for hold in state.holds]
    return [
        {"reason": reason, "message": message} for reason, message in (*pauses, *undecided, *holds)
    ]


def _weight(state: RolloutState, observed: Observed) -> dict[str, str]:
    actual = observed.actual_weight_bp if state.live else None
    return {
        "set": percent(state.weight_bp),
        "actual": "" if actual is None else percent(actual),
    }


def _verdict(state: RolloutState, judgement: Judgement | None) -> str:
    if state.inconclusive:
        return reasons.INCONCLUSIVE
    if state.stage == "RolledBack":
        return state.last_rollback.reason if state.last_rollback else reasons.ROLLED_BACK
    if not state.live:
        return ""
    return judgement.verdict if judgement else "InsufficientData"


def _evidence(judgement: Judgement | None, outlook: Mapping[str, int]) -> dict[str, Any]:
    if judgement is None:
        return {"objectives": []}
    objectives = judgement.objectives[:MAX_OBJECTIVES]
    return {
        "assigned": _versus(judgement.assigned),
        "settled": _versus(judgement.settled),
        "coverage": percent(judgement.coverage * FULL_BP) if any(judgement.settled) else "",
        "sampleRatioEValue": e_value(judgement.sample_ratio_log_e),
        "audits": judgement.audits,
        "badServed": judgement.bad_served,
        "objectives": [
            {**_objective(o), "requestsToDetect": str(outlook.get(o.name, ""))} for o in objectives
        ],
    }


def _versus(pair: tuple[int, int]) -> dict[str, int]:
    return {"canary": pair[CANARY], "stable": pair[STABLE]}


def _objective(o: ObjectiveJudgement) -> dict[str, Any]:
    high = ratio(o.high) if o.high < UNBOUNDED else ""
    return {
        "name": o.name,
        "event": o.event,
        "mode": o.mode,
        "verdict": o.verdict,
        "canary": f"{o.failed[CANARY]}/{o.settled[CANARY]}",
        "stable": f"{o.failed[STABLE]}/{o.settled[STABLE]}",
        "ratio": ratio(o.ratio) if o.failed[STABLE] else "",
        "interval": f"{ratio(o.low)}-{high}",
        "eValue": e_value(o.log_e),
        "promoteEValue": e_value(o.promote_log_e),
        "suspect": o.suspect,
    }


def _last_rollback(rollback: Rollback | None) -> dict[str, Any] | None:
    if rollback is None:
        return None
    return {
        "revision": rollback.revision,
        "attempt": rollback.attempt,
        "reason": rollback.reason,
        "suspect": rollback.suspect,
        "eValue": e_value(rollback.log_e) if rollback.threshold else "",
        "threshold": e_value(rollback.threshold) if rollback.threshold else "",
        "weight": percent(rollback.weight_bp),
        "requests": rollback.requests,
        "canaryRequests": rollback.canary_requests,
        "badServed": rollback.bad_served,
        "objectives": [_objective(o) for o in rollback.objectives[:MAX_OBJECTIVES]],
        "decidedBy": rollback.decided_by,
        "at": instant(rollback.at_s),
        "message": rollback_text(rollback)[:MAX_MESSAGE],
    }


def _last_command(last: Acknowledgement | None) -> dict[str, Any] | None:
    if last is None:
        return None
    return {
        "command": command_text(last.command),
        "result": last.result,
        "message": last.message[:MAX_MESSAGE],
        "at": instant(last.at_s),
    }
