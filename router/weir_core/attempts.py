"""How attempts begin and end: the first revision, a new target, a rollback, a promotion.

Each verb returns the state after it with its transitions, or None where there is nothing to do.
It refuses to know what happens between an attempt's begin and its end (`gates`).
"""

from typing import Literal

from msgspec.structs import replace

from weir_core import reasons
from weir_core.changes import changes, summed_up
from weir_core.evidence import CANARY, STABLE, Judgement, Trip
from weir_core.figures import duration, e_value, percent
from weir_core.history import RevisionRecord, Rollback, find, named
from weir_core.rollout_state import (
    Advance,
    Inputs,
    RolloutState,
    Transition,
    idle,
    judgement_of,
    known_of,
    tried,
    with_record,
)
from weir_core.snapshot import FULL_BP, Revision, RolloutPolicy

MAX_UNCLEAN_BOOTS = 2
"""Routers that died while the canary had traffic, before it is taken for the cause."""

LOST_VERDICT = "its verdict was lost with the status"

LARGEST_LOG = 1e6
"""Bound of stored logs: JSON has no infinity."""


def token_is_new(state: RolloutState, policy: RolloutPolicy) -> bool:
    """Tell whether the spec's retryToken changed since it was last seen."""
    return state.retry_token is not None and state.retry_token != policy.retry_token


# Beginning.


def first_revision(state: RolloutState, inputs: Inputs, now_s: float) -> Advance | None:
    """Give a route without a stable revision its first one, where that is safe.

    The pin `stableRevision` is for this moment only: a rebuilt cluster must not take the
    unproven half of a rollout for its first revision. Later the rollout itself knows better.
    """
    target, policy = inputs.target, inputs.policy
    if state.stable or target is None:
        return None
    pin = policy.stable_revision
    if state.lost and target.name != state.lost and not named(target.name, pin):
        return _without_stable(state, target, now_s)
    if pin and not named(target.name, pin):
        return _pinned(state, target, pin, now_s)
    known = known_of(state, target.name)
    if known is None or known.outcome != "RolledBack" or token_is_new(state, policy):
        return adopted(state, target, now_s)
    if state.canary == target.name and state.stage == "Refused":
        return None
    why = (
        f"{target.name} was rolled back before ({known.reason or LOST_VERDICT}) and no other "
        "revision is known; "
        f"change the behaviour, or retry {target.name}"
    )
    return _refused(state, target.name, known.attempt, why, now_s)


def _pinned(state: RolloutState, target: Revision, pin: str, now_s: float) -> Advance | None:
    known = next((r for r in state.records if named(r.revision.name, pin)), None)
    if known is not None and known.outcome != "RolledBack":
        return adopted(state, known.revision, now_s)
    if state.canary == target.name and state.stage == "Refused":
        return None
    why = (
        f"stableRevision pins {pin}, of which nothing is known here, and {target.name} is "
        f"unproven; apply the behaviour of {pin} first, or pin {target.name}"
    )
    return _refused(state, target.name, 0, why, now_s)


def _without_stable(state: RolloutState, target: Revision, now_s: float) -> Advance | None:
    """Let nothing take the place of a lost stable revision but what a person says."""
    if state.canary == target.name and state.stage == "Refused":
        return None
    return _refused(state, target.name, 0, lost_text(state, target.name), now_s)


def lost_text(state: RolloutState, target: str = "") -> str:
    """Return what was lost with a stable revision's body, and what a person can do."""
    other = f", or retry {target} to let it serve unproven" if target else ""
    return (
        f"the stable revision {state.lost} was lost: neither its ModelRevision nor the routers' "
        f"snapshot holds it any more; routers that run keep what they hold; apply the spec that "
        f"{state.lost} was made of{other}"
    )


def _refused(state: RolloutState, name: str, attempt: int, why: str, now_s: float) -> Advance:
    after = replace(
        idle(state), canary=name, attempt=attempt, stage="Refused", refusal=why, since_s=now_s
    )
    return Advance(
        state=after,
        transitions=(Transition(reason=reasons.ATTEMPT_REFUSED, message=why, warning=True),),
    )


def adopted(state: RolloutState, revision: Revision, now_s: float) -> Advance:
    """Make `revision` stable with nothing to compare it with."""
    known = known_of(state, revision.name)
    record = RevisionRecord(
        revision=revision,
        outcome="Stable",
        since_s=now_s,
        attempt=known.attempt if known else 0,
        reason=reasons.INITIAL,
        promoted_s=now_s,
        tripped=known.tripped if known else 0,
        rollback=known.rollback if known else None,
    )
    after = with_record(idle(state), record, keep=())
    after = replace(after, stable=revision.name, lost="", since_s=now_s)
    created = () if known else (_created(revision),)
    message = f"{revision.name} is the first revision and serves everything at once"
    return Advance(
        state=after,
        transitions=(*created, Transition(reason=reasons.PROMOTED, message=message)),
    )


def follow_target(state: RolloutState, inputs: Inputs, now_s: float) -> Advance | None:
    """Turn to the revision that the spec asks for, if the rollout is not about it yet."""
    target = inputs.target
    if target is None or not state.stable:
        return None
    if target.name == state.stable:
        return drained(state, f"the spec is back at {state.stable}", now_s)
    if target.name != state.canary:
        return _turned(state, target, inputs, now_s)
    if state.stage == "RolledBack" and token_is_new(state, inputs.policy):
        return begun(state, target, inputs, now_s)
    return None


def _turned(state: RolloutState, target: Revision, inputs: Inputs, now_s: float) -> Advance:
    why = f"the spec asks for {target.name}"
    away = drained(state, why, now_s) if state.live else None
    before = away or Advance(state=state)
    known = known_of(state, target.name)
    if known is None or known.outcome != "RolledBack" or token_is_new(state, inputs.policy):
        after = begun(before.state, target, inputs, now_s)
        return Advance(state=after.state, transitions=(*before.transitions, *after.transitions))
    why = (
        f"{target.name} was rolled back in attempt {known.attempt} "
        f"({known.reason or LOST_VERDICT}) and does not "
        "begin again by itself; change the behaviour, or retry it by command or retryToken"
    )
    refused = replace(
        idle(before.state),
        canary=target.name,
        attempt=known.attempt,
        stage="RolledBack",
        since_s=now_s,
        last_rollback=known.rollback or state.last_rollback,
    )
    transition = Transition(reason=reasons.ATTEMPT_REFUSED, message=why, warning=True)
    return Advance(state=refused, transitions=(*before.transitions, transition))


def drained(state: RolloutState, why: str, now_s: float) -> Advance | None:
    """Take a canary away undecided; None when there is none."""
    if not state.canary:
        return None
    after = replace(idle(state), since_s=now_s)
    if not state.live:
        message = f"{why}; {state.stable} serves everything"
        return Advance(
            state=after, transitions=(Transition(reason=reasons.REVERTED, message=message),)
        )
    record = find(state.records, state.canary)
    if record is not None:
        record = replace(record, outcome="Superseded", since_s=now_s, reason=why)
        after = with_record(after, record, keep=(state.stable,))
    message = f"{state.canary} gave way at {percent(state.weight_bp)}: {why}"
    return Advance(
        state=after,
        transitions=(Transition(reason=reasons.REVISION_SUPERSEDED, message=message),),
    )


def begun(state: RolloutState, target: Revision, inputs: Inputs, now_s: float) -> Advance:
    """Begin an attempt at `target` with no traffic yet.

    Attempts of one revision count on over its whole life, so that no evidence and no latch of
    an earlier one can be mistaken for this one's. A revision that was stable before and was not
    rolled back since skips the steps: the way back must be quick, and the bake watches it.
    """
    known = known_of(state, target.name)
    promoted_s = known.promoted_s if isinstance(known, RevisionRecord) else None
    proven = promoted_s is not None
    record = RevisionRecord(
        revision=target,
        outcome="Canary",
        since_s=now_s,
        attempt=(known.attempt if known else 0) + 1,
        promoted_s=promoted_s,
        tripped=known.tripped if known else 0,
        rollback=known.rollback if known else None,
    )
    after = replace(
        with_record(idle(state), record, keep=(state.stable,)),
        canary=target.name,
        attempt=record.attempt,
        stage="Promoting" if proven else "Steps",
        since_s=now_s,
        step_since_s=now_s,
        objectives=inputs.objectives,
        retry_token=inputs.policy.retry_token,
    )
    plan = (
        "it was stable before, so it goes to the bake at once"
        if proven
        else f"{len(inputs.policy.steps)} steps"
    )
    stable = find(state.records, state.stable)
    found = changes(stable.revision.behaviour, target.behaviour) if stable else ()
    changing = f"; it changes {summed_up(found)}" if found else ""
    message = f"attempt {record.attempt} of {target.name} against {state.stable}: {plan}{changing}"
    started = Transition(reason=reasons.ROLLOUT_STARTED, message=message)
    created = () if known else (_created(target),)
    return Advance(state=after, transitions=(*created, started))


def _created(revision: Revision) -> Transition:
    return Transition(
        reason=reasons.REVISION_CREATED, message=f"{revision.name} is a new behaviour"
    )


# Ending.


def pull_brake(state: RolloutState, inputs: Inputs, now_s: float) -> Advance | None:
    """Roll back on a router's trip, on harm, or when routers keep dying of the canary."""
    if not state.live:
        return None
    judgement = judgement_of(state, inputs)
    trip = next((t for t in inputs.trips if (t.revision, t.attempt) == tried(state)), None)
    if trip is not None:
        return tripped(state, trip, judgement, now_s)
    if judgement is not None and judgement.verdict == "Harm":
        return rolled_back(state, reasons.HARM, now_s, judgement=judgement)
    if state.boots_before is None:
        return None
    boots = inputs.unclean_boots - state.boots_before
    if boots >= MAX_UNCLEAN_BOOTS:
        return rolled_back(state, reasons.UNCLEAN_BOOTS, now_s, judgement=judgement)
    return None


def tripped(state: RolloutState, trip: Trip, judgement: Judgement | None, now_s: float) -> Advance:
    """Follow a router that set the canary to 0 by itself."""
    pulled = Transition(
        reason=reasons.BRAKE_TRIPPED,
        message=f"{trip.decided_by} set {trip.revision} to 0%: {trip.reason}",
        warning=True,
    )
    # The router's own counts are what it decided on; the merged ones are only known later.
    shown = trip.judgement or judgement
    after = rolled_back(state, trip.reason, now_s, judgement=shown, trip=trip)
    return Advance(state=after.state, transitions=(pulled, *after.transitions))


def rolled_back(
    state: RolloutState,
    reason: str,
    now_s: float,
    *,
    judgement: Judgement | None = None,
    trip: Trip | None = None,
    decided_by: Literal["controller", "command"] = "controller",
) -> Advance:
    """Set the canary to 0 and latch it on its attempt; only a retry revives it."""
    log_e = trip.log_e if trip else judgement.log_e if judgement else 0.0
    rollback = Rollback(
        revision=state.canary,
        attempt=state.attempt,
        reason=reason,
        decided_by=trip.decided_by if trip else decided_by,
        at_s=trip.at_s if trip else now_s,
        suspect=trip.suspect if trip else judgement.suspect if judgement else "",
        log_e=_storable(log_e),
        threshold=_storable(judgement.threshold) if judgement else 0.0,
        weight_bp=state.weight_bp,
        requests=sum(judgement.settled) if judgement else 0,
        canary_requests=judgement.settled[CANARY] if judgement else 0,
        bad_served=judgement.bad_served if judgement else 0,
        objectives=judgement.objectives if judgement else (),
    )
    after = idle(state)
    record = find(state.records, state.canary)
    if record is not None:
        record = replace(
            record,
            outcome="RolledBack",
            since_s=now_s,
            reason=reason,
            promoted_s=None,
            tripped=state.attempt,
            rollback=rollback,
        )
        after = with_record(after, record, keep=(state.stable,))
    after = replace(
        after,
        canary=state.canary,
        attempt=state.attempt,
        stage="RolledBack",
        since_s=now_s,
        last_rollback=rollback,
    )
    message = f"{rollback_text(rollback)}; {state.stable} serves everything"
    transition = Transition(reason=reasons.ROLLED_BACK, message=message, warning=True)
    return Advance(state=after, transitions=(transition,))


def _storable(log: float) -> float:
    return max(-LARGEST_LOG, min(LARGEST_LOG, log))


def rollback_text(rollback: Rollback) -> str:
    """Return who rolled back what, why, and on which numbers."""
    suspect = f" on {rollback.suspect}{_counts(rollback)}" if rollback.suspect else ""
    threshold = f" of {e_value(rollback.threshold)}" if rollback.threshold else ""
    evidence = f", E {e_value(rollback.log_e)}{threshold}" if rollback.log_e else ""
    bad = f", {rollback.bad_served} of them bad" if rollback.bad_served else ""
    served = ""
    if rollback.canary_requests:
        served = f" after {rollback.canary_requests} canary requests{bad}"
    return (
        f"{rollback.revision} attempt {rollback.attempt} rolled back from "
        f"{percent(rollback.weight_bp)} by {rollback.decided_by}: {rollback.reason}"
        f"{suspect}{evidence}{served}"
    )


def _counts(rollback: Rollback) -> str:
    """Return the suspect's failures in both arms, in brackets."""
    for one in rollback.objectives:
        if one.name == rollback.suspect:
            canary = f"{one.failed[CANARY]}/{one.settled[CANARY]}"
            return f" (canary {canary}, stable {one.failed[STABLE]}/{one.settled[STABLE]})"
    return ""


def promoted(state: RolloutState, now_s: float) -> Advance:
    """Make the canary stable; the old revision may be torn down from now on."""
    old, new = find(state.records, state.stable), find(state.records, state.canary)
    after = idle(state)
    if old is not None:
        why = f"{state.canary} was promoted"
        old = replace(old, outcome="Superseded", since_s=now_s, reason=why)
        after = with_record(after, old, keep=(state.canary,))
    if new is not None:
        new = replace(
            new, outcome="Stable", since_s=now_s, promoted_s=now_s, reason=reasons.PROMOTED
        )
        after = with_record(after, new, keep=(state.stable,))
    after = replace(after, stable=state.canary, since_s=now_s)
    message = f"{state.canary} is stable and serves {percent(FULL_BP)}; {state.stable} may go"
    done = Transition(reason=reasons.PROMOTED, message=message)
    if state.stage != "Bake":
        return Advance(state=after, transitions=(done,))
    baked = Transition(
        reason=reasons.BAKE_COMPLETED,
        message=f"{state.canary} baked {duration(now_s - state.step_since_s)} without harm",
    )
    return Advance(state=after, transitions=(baked, done))
