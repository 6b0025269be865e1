"""The verdict's consequences: how a change of behaviour is let in, promoted, or shut out.

`advance` is the whole state machine: one state and all inputs in, one state and what happened
out. It is level-triggered: told the same twice, it does nothing the second time. Its rules
stand in `attempts` (begin and end), `gates` and `stops` (all between) and `obey` (commands);
its nouns in `rollout_state` and `history`, named here again for callers.
It refuses to know how evidence is judged (`sequential`) and who publishes (the shells).
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import msgspec
from msgspec.structs import replace

from weir_core.attempts import first_revision, follow_target, pull_brake, tripped
from weir_core.commands import Acknowledgement, Command, command_text, parse_command
from weir_core.evidence import Key, Trip
from weir_core.gates import (
    enter_bake,
    enter_step,
    leave_bake,
    note_live_token,
    note_objectives,
    note_settled,
    note_token,
    take_step,
)
from weir_core.history import (
    Outcome,
    Records,
    RevisionRecord,
    Rollback,
    agreed,
    bounded,
    find,
    latches,
    remember,
)
from weir_core.obey import obey_command
from weir_core.rollout_state import (
    Advance,
    Inputs,
    Phase,
    RolloutState,
    Stage,
    Transition,
    believed,
    idle,
    rested,
    tried,
)
from weir_core.snapshot import FULL_BP, Monitoring, RolloutPolicy, RoutePolicy
from weir_core.stops import next_raise_bp, note_overdue, note_stops

__all__ = [
    "Acknowledgement",
    "Advance",
    "Command",
    "Inputs",
    "Outcome",
    "Phase",
    "RevisionRecord",
    "Rollback",
    "RolloutState",
    "Stage",
    "Transition",
    "advance",
    "brake",
    "braked",
    "command_text",
    "effective_alpha",
    "evidence_key",
    "latches",
    "next_raise_bp",
    "parse_command",
    "policy_for",
    "rebuild",
    "recalled",
    "remembered",
    "rested",
    "weight_order",
]

MAX_HALVINGS = 60
"""Of α; 1e-18 of it is as good as nothing, and still a number."""

Rule = Callable[[RolloutState, Inputs, float], Advance | None]

RULES: tuple[Rule, ...] = (
    note_live_token,
    first_revision,
    pull_brake,
    obey_command,
    follow_target,
    note_token,
    note_objectives,
    note_settled,
    note_stops,
    note_overdue,
    enter_step,
    take_step,
    enter_bake,
    leave_bake,
)
"""In order of precedence: harm before wishes, wishes before progress."""


def advance(state: RolloutState, inputs: Inputs, *, now_s: float) -> Advance:
    """Apply the first rule that has something to do, until none has.

    So the result is a fixed point: the same inputs at the same time change it no further.
    """
    state = believed(state, now_s)
    transitions: tuple[Transition, ...] = ()
    # A gate takes at most four rules (enter, stop, go on, take), an attempt's turn at most twelve.
    for _ in range(24 + 4 * len(inputs.policy.steps)):
        applied = _first(state, inputs, now_s)
        if applied is None:
            break
        state, transitions = applied.state, (*transitions, *applied.transitions)
    else:
        raise AssertionError(f"rollout of {state.canary} never comes to rest: {transitions[-4:]}")
    return Advance(state=state, transitions=transitions)


def _first(state: RolloutState, inputs: Inputs, now_s: float) -> Advance | None:
    for rule in RULES:
        applied = rule(state, inputs, now_s)
        if applied is not None:
            return applied
    return None


def brake(state: RolloutState, trip: Trip, *, now_s: float) -> Advance:
    """Obey a trip alone, at once; one of another canary or attempt changes nothing."""
    if not state.live or (trip.revision, trip.attempt) != tried(state):
        return Advance(state=state)
    return tripped(state, trip, None, now_s)


def braked(policy: RoutePolicy, latched: tuple[tuple[str, int], ...]) -> RoutePolicy:
    """Return what a router obeys when it, or the snapshot, has latched this canary's attempt."""
    known = (*policy.latched, *(pair for pair in latched if pair not in policy.latched))
    name = policy.canary.name if policy.canary else ""
    stopped = (name, policy.attempt) in known
    return replace(policy, latched=known, weight_bp=0 if stopped else policy.weight_bp)


def rebuild(records: Records, state: RolloutState | None = None) -> RolloutState:
    """Return a state that agrees with the revisions' own records, at the lower exposure.

    Without a state (lost, restored, another cluster) the last promoted revision is stable and
    the newest canary begins its steps again, with no traffic and in the same attempt. With one,
    only bad news is taken from the records: that its canary or its stable revision was rolled
    back, which it does not know of, that the canary is gone, or that stable is lost. Of more
    than MAX_RECORDS those that rolled back leave a latch.
    """
    if state is not None and find(records, state.lost) is not None:
        state = replace(idle(state), stable=state.lost, lost="")
    if state is not None and find(records, state.stable) is not None:
        base = _corrected(records, state)
    elif state is not None and (state.stable or state.lost):
        lost = state.stable or state.lost
        kept = state.stage == "Refused" and not state.stable
        base = replace(state if kept else idle(state), stable="", lost=lost)
    else:
        base = _from_records(records, state or RolloutState())
    canary = base.canary if base.live else ""
    found = agreed(records, stable=base.stable, canary=canary)
    stay = bounded(found, keep=(base.stable, base.canary))
    forgotten = (r for r in found if find(stay, r.revision.name) is None)
    return replace(base, records=stay, latched=remember(base.latched, forgotten))


def remembered(state: RolloutState) -> dict[str, Any]:
    """Return what a shell must store beside the records, as plain JSON values."""
    stored: dict[str, Any] = msgspec.to_builtins(replace(state, records=()))
    return stored


def recalled(stored: Mapping[str, Any] | None, records: Records) -> RolloutState:
    """Return the state from what was stored and the records; unreadable is as good as lost."""
    try:
        state = None if stored is None else msgspec.convert(stored, RolloutState)
    except msgspec.ValidationError:
        state = None
    return rebuild(records, state)


def _proven(records: Iterable[RevisionRecord]) -> str:
    """Return the name of the revision that was promoted last and not rolled back since."""
    # More than one may say Stable when a crash tore a promotion: the last one to be promoted was.
    proven = [r for r in records if r.promoted_s is not None and r.outcome != "RolledBack"]
    proven.sort(key=lambda r: (r.outcome == "Stable", r.promoted_s or 0.0))
    return proven[-1].revision.name if proven else ""


def _from_records(records: Records, base: RolloutState) -> RolloutState:
    stable = _proven(records)
    if not stable and base.stage == "Refused":
        return base
    canaries = [r for r in records if r.outcome == "Canary" and r.revision.name != stable]
    after = replace(idle(base), stable=stable, records=records)
    if not canaries or not stable:
        return after
    newest = max(canaries, key=lambda r: r.since_s)
    return replace(
        after,
        canary=newest.revision.name,
        attempt=newest.attempt,
        stage="Steps" if newest.promoted_s is None else "Promoting",
        since_s=newest.since_s,
        step_since_s=newest.since_s,
        step_settled=None,
    )


def _corrected(records: Records, state: RolloutState) -> RolloutState:
    stable, record = find(records, state.stable), find(records, state.canary)
    proven = _proven([r for r in records if r.revision.name != state.stable])
    if stable is not None and proven and _is_news(state, stable):
        return _shut_out(replace(state, stable=proven), stable)
    if not state.live:
        return state
    if record is None:
        return idle(state)
    return _shut_out(state, record) if record.tripped >= state.attempt else state


def _is_news(state: RolloutState, record: RevisionRecord) -> bool:
    """Return whether a record tells of a rollback that the state has not got over."""
    known = next((one for one in state.latched if one.name == record.revision.name), None)
    let_in_again = known is not None and not known.out and known.tripped >= record.tripped
    return record.outcome == "RolledBack" and not let_in_again


def _shut_out(state: RolloutState, record: RevisionRecord) -> RolloutState:
    return replace(
        idle(state),
        canary=record.revision.name,
        attempt=record.tripped,
        stage="RolledBack",
        since_s=record.since_s,
        last_rollback=record.rollback or state.last_rollback,
    )


def effective_alpha(policy: RolloutPolicy, attempt: int, *, restarts: int = 0) -> float:
    """Return the α of one body of evidence: of an attempt, from 1, begun afresh so many times.

    Each retry and each fresh start halves it. All fresh starts of one attempt share twice its
    α, all of one revision four times the first. It never gets to 0, which would mean no brake.
    """
    halvings = max(attempt, 1) - 1 + restarts
    return float(policy.alpha * 2.0 ** -min(halvings, MAX_HALVINGS))


def evidence_key(state: RolloutState, *, route_uid: str, objectives: str) -> Key | None:
    """Return what today's evidence is about; None while no canary is under way."""
    if not state.live:
        return None
    return Key(
        route_uid=route_uid,
        revision=state.canary,
        attempt=state.attempt,
        objectives=objectives,
    )


def weight_order(old: RolloutState, new: RolloutState) -> Literal["raise", "lower", "same"]:
    """Tell which comes first: a raise is persisted, then published; a lowering the other way.

    A raise is any revision but the old stable one getting more of the traffic; a canary that is
    tried again, in another attempt, had none of it yet.
    """
    before, after = _exposure(old), _exposure(new)
    grown = {name for (name, of), share in after.items() if share > before.get((name, of), 0)}
    if grown - {old.stable}:
        return "raise"
    return "lower" if before != after else "same"


def _exposure(state: RolloutState) -> dict[tuple[str, int], int]:
    """Return the shares by revision and attempt, that of what is stable being 0."""
    weight_bp = state.weight_bp if state.live else 0
    shares = {(state.stable, 0): FULL_BP - weight_bp, (state.canary, state.attempt): weight_bp}
    return {about: share for about, share in shares.items() if about[0] and share}


def policy_for(
    state: RolloutState,
    *,
    uid: str,
    namespace: str,
    name: str,
    model_names: tuple[str, ...],
    monitoring: Monitoring,
    rollout: RolloutPolicy,
    brake_alpha: float = 0.0,
) -> RoutePolicy | None:
    """Return what routers obey of one route; None while no revision may serve.

    A canary without traffic rides along, so that routers are ready before its first request;
    one that was rolled back does not.
    """
    stable = find(state.records, state.stable)
    if stable is None:
        return None
    canary = find(state.records, state.canary) if state.live else None
    return RoutePolicy(
        uid=uid,
        namespace=namespace,
        name=name,
        model_names=model_names,
        stable=stable.revision,
        canary=canary.revision if canary else None,
        attempt=state.attempt if canary else 0,
        weight_bp=state.weight_bp if canary else 0,
        monitoring=monitoring,
        rollout=rollout,
        brake_alpha=brake_alpha if canary else 0.0,
        latched=latches(state.records, state.latched),
    )
