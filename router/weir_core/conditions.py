"""The conditions of a ModelRoute: what pipelines, GitOps tools and `kubectl wait` go by.

Every condition is always present. None of them may be True on hope: Promoted only after the
bake, Programmed only when every ready router acknowledged.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import msgspec

from weir_core import reasons
from weir_core.attempts import lost_text, rollback_text
from weir_core.changes import Change, changes, summed_up
from weir_core.errors import Problem
from weir_core.evidence import STABLE, Judgement
from weir_core.figures import instant
from weir_core.history import find
from weir_core.reach import gaps, is_loading, outage
from weir_core.rollout_state import RolloutState, Transition
from weir_core.snapshot import Objective, RolloutPolicy

MAX_MESSAGE = 1_000
"""Characters of one message; Kubernetes allows 32,768, people fewer."""

MAX_PROBLEMS = 5
"""Problems told at once; the rest are counted."""

Truth = Literal["True", "False", "Unknown"]
Condition = tuple[Truth, str, str]
"""(status, reason, message)."""


class Observed(msgspec.Struct, frozen=True, kw_only=True):
    """What a status tells beside the state, as seen at one moment.

    `target` is the revision that the spec asks for, "" while it has problems. `routers` are the
    ready ones; `routers_serving` acknowledged any version of the route, `routers_in_sync` the
    latest. `judgement` is about the state's canary, and `objectives` are those that it judged;
    `actual_weight_bp` is the share measured, if any. `ejected` gives the reason by identity of the
    backends that no ready router can reach. `capacity_message` says what the canary's backends
    lack. `clock_off_s` is how far most routers' clocks are ahead, 0 while clocks agree.
    """

    policy: RolloutPolicy
    target: str = ""
    generation: int = 0
    routers: int = 0
    routers_serving: int = 0
    routers_in_sync: int = 0
    judgement: Judgement | None = None
    problems: tuple[Problem, ...] = ()
    objectives: tuple[Objective, ...] = ()
    actual_weight_bp: float | None = None
    ejected: Mapping[str, str] = {}
    capacity_message: str = ""
    clock_off_s: float = 0.0


def route_conditions(
    state: RolloutState,
    observed: Observed,
    *,
    message: str,
    old: Sequence[Mapping[str, Any]],
    now_s: float,
) -> list[dict[str, Any]]:
    """Return all conditions; `message` is the status's sentence, used where it fits.

    A lastTransitionTime of `old` is kept while the condition's status is.
    """
    before = {str(c.get("type")): c for c in old}
    return [
        stamped(
            kind,
            rule(state, observed, message),
            generation=observed.generation,
            before=before.get(kind),
            now_s=now_s,
        )
        for kind, rule in CONDITIONS.items()
    ]


TOLD_OF = ("Accepted", "ResolvedRefs", "Ready")
"""Conditions whose turns are Events; of the others the rollout itself tells."""
_WELL = {"Ready": reasons.SERVING, "Programmed": reasons.PROGRAMMED}
"""What a condition's reason was where nobody knows it."""
LAGGING = (reasons.NO_ROUTERS, reasons.ROUTERS_OUT_OF_SYNC)
"""Reasons of Programmed that come and go with every change: no Events."""


def turned(
    before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]
) -> tuple[Transition, ...]:
    """Return what turned between two lists of conditions, as far as it is worth an Event.

    Of what was not known before only bad news is told, and not that its routers begin.
    """
    known = {one["type"]: one for one in before}
    return tuple(
        Transition(reason=one["reason"], message=one["message"], warning=_is_bad(one))
        for one in after
        if (_is_news(one, known.get(one["type"], {"status": "True"})) or _is_late(one, known))
        and (known or one["reason"] != reasons.NO_ROUTERS)
    )


def _is_news(condition: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    if condition["type"] in TOLD_OF and condition["status"] != before["status"]:
        return True
    now, was = condition["reason"], before.get("reason", _WELL.get(condition["type"]))
    if condition["type"] == "Ready":
        # What was told of a tier that is out must not be the last word once it is back.
        return bool(condition["status"] == "True" and now != was)
    is_trouble = {now, was} - {reasons.PROGRAMMED, *LAGGING}
    return bool(
        condition["type"] == "Programmed" and now != was and is_trouble and now not in LAGGING
    )


def _is_late(condition: Mapping[str, Any], known: Mapping[str, Mapping[str, Any]]) -> bool:
    """Return whether an outage is of a route that was not Ready before, while it began."""
    stalled = condition["type"] == "Stalled" and condition["status"] == "True"
    if not stalled or condition["reason"] != reasons.NO_HEALTHY_BACKEND:
        return False
    was = {kind: known.get(kind, {}).get("status") for kind in ("Stalled", "Ready")}
    return was == {"Stalled": "False", "Ready": "False"}


def _is_bad(condition: Mapping[str, Any]) -> bool:
    bad = "True" if condition["type"] == "Stalled" else "False"
    return bool(condition["status"] == bad or condition["reason"] == reasons.SERVING_IN_PART)


def stamped(
    kind: str,
    condition: Condition,
    *,
    generation: int,
    before: Mapping[str, Any] | None,
    now_s: float,
) -> dict[str, Any]:
    """Return a condition as the API has it; one like that `before` keeps its time."""
    status, reason, message = condition
    unchanged = before is not None and before.get("status") == status
    since = before.get("lastTransitionTime") if before is not None and unchanged else None
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message[:MAX_MESSAGE],
        "observedGeneration": generation,
        "lastTransitionTime": since or instant(now_s),
    }


def serving(state: RolloutState) -> str:
    """Return what goes on serving, whatever else is wrong."""
    if state.lost:
        return f"routers that run keep what they hold of {state.lost}"
    return f"keeps revision {state.stable} serving" if state.stable else "nothing serves yet"


def _problem(kind: str, state: RolloutState, observed: Observed) -> Condition | None:
    problems = [p for p in observed.problems if p.condition == kind]
    if not problems:
        return None
    told = [p.sentence() for p in problems[:MAX_PROBLEMS]]
    more = len(problems) - len(told)
    if more:
        told.append(f"and {more} more")
    # What serves comes first: a long list of problems may be cut.
    return "False", problems[0].reason, f"{serving(state)}; {'; '.join(told)}"


def _accepted(state: RolloutState, observed: Observed, message: str) -> Condition:
    """The spec is valid."""
    problem = _problem("Accepted", state, observed)
    return problem or ("True", reasons.ACCEPTED, "the spec is valid")


def _resolved(state: RolloutState, observed: Observed, message: str) -> Condition:
    """Everything that the spec names was found."""
    problem = _problem("ResolvedRefs", state, observed)
    return problem or ("True", reasons.RESOLVED, "everything that the spec names was found")


def _programmed(state: RolloutState, observed: Observed, message: str) -> Condition:
    """Every ready router acknowledged what is published."""
    problem = _problem("Programmed", state, observed)
    if problem:
        return problem
    if not observed.routers:
        return "False", reasons.NO_ROUTERS, "no ready router has connected"
    told = f"{observed.routers_in_sync} of {observed.routers} ready routers acknowledged"
    if observed.routers_in_sync < observed.routers:
        return "False", reasons.ROUTERS_OUT_OF_SYNC, told
    return "True", reasons.PROGRAMMED, told


def _progressing(state: RolloutState, observed: Observed, message: str) -> Condition:
    """A canary is under way and nothing stops it."""
    if state.phase == "Progressing":
        found = summed_up(canary_changes(state))
        changing = f"; it changes {found}" if found else ""
        return "True", standstill(state), f"{message}{changing}"
    return "False", standstill(state), message


def canary_changes(state: RolloutState) -> tuple[Change, ...]:
    """Return what the canary does otherwise than stable; nothing while there are not both."""
    records = (find(state.records, name) for name in (state.stable, state.canary))
    stable, canary = (record and record.revision.behaviour for record in records)
    return changes(stable, canary) if stable and canary else ()


def _stage_reason(state: RolloutState) -> str:
    return {"Steps": reasons.STEPPING, "Promoting": reasons.PROMOTING}.get(
        state.stage, reasons.BAKING
    )


def standstill(state: RolloutState) -> str:
    """Return why a rollout does not move: people's pauses first, since only they can lift them."""
    if state.lost:
        return reasons.STABLE_LOST
    if state.stage == "Idle":
        return reasons.HEALTHY
    if state.stage == "RolledBack":
        return reasons.ROLLED_BACK
    if state.stage == "Refused":
        return reasons.ATTEMPT_REFUSED
    if state.pauses:
        return reasons.PAUSED
    if state.inconclusive:
        return reasons.INCONCLUSIVE
    return reasons.hold_reason(state.holds[0]) if state.holds else _stage_reason(state)


def _promoted(state: RolloutState, observed: Observed, message: str) -> Condition:
    """The revision that the spec asks for is stable, its bake is over: the old one may go."""
    if state.stable and state.stage == "Idle" and state.stable == observed.target:
        return "True", reasons.PROMOTED, f"{state.stable} is stable and serves everything"
    if not observed.target:
        return "False", reasons.NOT_ACCEPTED, f"the spec has a problem; {serving(state)}"
    return "False", _stage_reason(state) if state.live else standstill(state), message


def _rolled_back(state: RolloutState, observed: Observed, message: str) -> Condition:
    """The revision that the spec asks for was rolled back and waits for a retry or an edit."""
    if state.stage != "RolledBack":
        return "False", reasons.NOT_TRIED, "no revision in question was rolled back"
    why = state.last_rollback
    return (
        "True",
        why.reason if why else reasons.ROLLED_BACK,
        rollback_text(why) if why else message,
    )


def _stable_healthy(state: RolloutState, observed: Observed, message: str) -> Condition:
    """Stable is below its own ceilings, as far as a rollout's evidence tells."""
    if state.lost:
        return "False", reasons.STABLE_LOST, lost_text(state, observed.target)
    if not state.stable:
        return "False", reasons.NO_STABLE, "no revision is stable yet"
    judgement = observed.judgement
    unwell = (*state.holds, *(judgement.holds if judgement else ()))
    if reasons.STABLE_UNHEALTHY in unwell:
        return "False", reasons.STABLE_UNHEALTHY, reasons.hold_message(reasons.STABLE_UNHEALTHY)
    if judgement is None:
        return "Unknown", reasons.NOT_TRIED, "only a rollout measures it"
    if not judgement.settled[STABLE]:
        return "Unknown", reasons.NO_DATA, f"no outcome of {state.stable} is known yet"
    if not any(one.max_rate for one in observed.objectives):
        return "Unknown", reasons.NO_CEILING, "no objective has a maxRate, so nothing measures it"
    return "True", reasons.NO_ALARM, f"{state.stable} is below its ceilings"


def _ready(state: RolloutState, observed: Observed, message: str) -> Condition:
    """Requests are answered, by whichever revision."""
    if state.lost:
        return "False", reasons.STABLE_LOST, lost_text(state, observed.target)
    if not state.stable:
        return "False", reasons.NO_STABLE, "no revision is stable yet"
    if not observed.routers_serving:
        return "False", reasons.NO_ROUTERS, "no ready router has acknowledged this route"
    out = outage(state, observed.ejected)
    if out:
        return "False", reasons.NO_HEALTHY_BACKEND, out
    silent = gaps(state, observed.ejected)
    if silent:
        return "True", reasons.SERVING_IN_PART, f"{state.stable} serves, without {silent}"
    return "True", reasons.SERVING, f"{state.stable} serves"


def _reconciling(state: RolloutState, observed: Observed, message: str) -> Condition:
    """kstatus: the controller still has work to do with this spec; never beside Stalled."""
    stalled, why, what = _stalled(state, observed, message)
    if stalled == "True":
        return "False", why, what
    if state.live:
        return "True", standstill(state), message
    programmed, reason, told = _programmed(state, observed, message)
    if programmed != "True":
        return "True", reason, told
    loading = outage(state, observed.ejected)
    if loading:
        return "True", reasons.NO_HEALTHY_BACKEND, loading
    return "False", reasons.HEALTHY, message


def _stalled(state: RolloutState, observed: Observed, message: str) -> Condition:
    """kstatus: nothing will move until a person, or what is out, does something."""
    for problem in (_problem(k, state, observed) for k in ("Accepted", "ResolvedRefs")):
        if problem:
            return "True", problem[1], problem[2]
    for stuck in (p for p in observed.problems if p.condition == "Programmed"):
        if stuck.reason in reasons.NEEDS_PERSON:
            return "True", stuck.reason, f"{serving(state)}; {stuck.sentence()}"
    out = outage(state, observed.ejected)
    if out and not is_loading(state, observed.ejected):
        return "True", reasons.NO_HEALTHY_BACKEND, out
    if state.phase == "Degraded" or state.inconclusive or state.lost:
        return "True", standstill(state), message
    return "False", reasons.NO_ALARM, "no person is needed"


CONDITIONS: dict[str, Callable[[RolloutState, Observed, str], Condition]] = {
    "Accepted": _accepted,
    "ResolvedRefs": _resolved,
    "Programmed": _programmed,
    "Progressing": _progressing,
    "Promoted": _promoted,
    "RolledBack": _rolled_back,
    "StableHealthy": _stable_healthy,
    "Ready": _ready,
    "Reconciling": _reconciling,
    "Stalled": _stalled,
}
