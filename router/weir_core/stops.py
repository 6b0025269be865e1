"""Standing still and going on: the pauses of people, the holds of evidence, maxDuration.

A raise needs a permission (`raise_blockers`), a lowering never does. All that stops a rollout
by itself clears by itself; what waits for a person says for what.
"""

from msgspec.structs import replace

from weir_core import reasons
from weir_core.attempts import rolled_back
from weir_core.clocks import clocks_text
from weir_core.evidence import CANARY
from weir_core.figures import duration, percent
from weir_core.gates import bake_bp, is_baked, is_proved, step_text, to_promoting
from weir_core.rollout_state import (
    Advance,
    Inputs,
    Pause,
    RolloutState,
    Transition,
    clocked_s,
    judgement_of,
)
from weir_core.snapshot import FULL_BP, RolloutPolicy

OWN_HOLDS = (
    reasons.ROUTERS_OUT_OF_SYNC,
    reasons.NO_CAPACITY,
    reasons.EVIDENCE_MISSING,
    reasons.CLOCKS_DISAGREE,
    reasons.NOT_ACCEPTED,
)
"""Holds that the rollout finds itself; the others come with the judgement."""


def note_stops(state: RolloutState, inputs: Inputs, now_s: float) -> Advance | None:
    """Bring pauses and holds up to date; the pauses of people stop the clock of maxDuration."""
    if not state.live:
        return None
    pauses, holds = _pauses(state, inputs), _holds(state, inputs, now_s)
    if pauses == state.pauses and holds == state.holds:
        return None
    after = replace(_clock_for(state, bool(pauses), now_s), pauses=pauses, holds=holds)
    new_pauses = (_paused(after, inputs, p) for p in pauses if p not in state.pauses)
    new_holds = (_held(after, inputs, h) for h in holds if h not in state.holds)
    transitions = (*new_pauses, *new_holds)
    if not pauses and not holds and not state.inconclusive:
        message = f"nothing stops {state.canary} any more, at {percent(state.weight_bp)}"
        resumed = Transition(reason=reasons.RESUMED, message=message)
        transitions = () if state.begins else (resumed,)
    return Advance(state=after, transitions=transitions)


def _pauses(state: RolloutState, inputs: Inputs) -> tuple[Pause, ...]:
    at_pause = state.stage == "Steps" and state.gate is not None and state.gate.kind == "pause"
    on: tuple[tuple[Pause, bool], ...] = (
        ("Spec", inputs.policy.paused),
        ("Step", at_pause and not state.waived),
        ("Command", state.commanded_pause),
    )
    return tuple(pause for pause, is_on in on if is_on)


def _holds(state: RolloutState, inputs: Inputs, now_s: float) -> tuple[str, ...]:
    judgement = judgement_of(state, inputs)
    # An unknown never counts as a pass: without a judgement the last one's holds stay.
    seen = judgement.holds if judgement else state.holds
    found = () if state.full else tuple(h for h in seen if h not in OWN_HOLDS)
    return (*found, *raise_blockers(state, inputs, now_s))


def raise_blockers(state: RolloutState, inputs: Inputs, now_s: float) -> tuple[str, ...]:
    """Return what forbids the raise that is due, nothing when none is due.

    Routers and capacity are asked for only then: a snapshot on its way is no event. The first
    traffic of an attempt needs no evidence, every later raise needs some. So does a proof: where
    edited steps put it at no weight, none ever comes.
    """
    always = (
        (reasons.NOT_ACCEPTED, inputs.target is None),
        (reasons.CLOCKS_DISAGREE, bool(inputs.clock_off_s)),
    )
    broken = tuple(reason for reason, is_on in always if is_on)
    wanted_bp = _due_bp(state, inputs, now_s)
    if wanted_bp is None:
        return (*broken, reasons.EVIDENCE_MISSING) if _proves_nothing(state) else broken
    judgement = judgement_of(state, inputs)
    seen = judgement is not None and judgement.settled[CANARY] > 0
    unknown = state.weight_bp > 0 and not (seen or state.full or state.waived)
    blockers = (
        (reasons.ROUTERS_OUT_OF_SYNC, not inputs.routers_in_sync),
        (reasons.NO_CAPACITY, inputs.capacity_bp < wanted_bp),
        (reasons.EVIDENCE_MISSING, unknown),
    )
    return (*broken, *(reason for reason, is_on in blockers if is_on))


def _proves_nothing(state: RolloutState) -> bool:
    at_proof = state.stage == "Steps" and state.gate is not None and state.gate.kind == "prove"
    return at_proof and state.weight_bp == 0 and not state.waived


def _due_bp(state: RolloutState, inputs: Inputs, now_s: float) -> int | None:
    """Return the weight of the raise that waits for nothing but its permission."""
    if state.stage == "Bake":
        return FULL_BP if is_baked(state, inputs, now_s) else None
    if state.stage == "Promoting":
        return bake_bp(inputs.policy)
    gate = state.gate
    rises = gate is not None and gate.kind == "setWeight" and gate.weight_bp > state.weight_bp
    return gate.weight_bp if gate is not None and rises else None


def next_raise_bp(state: RolloutState, policy: RolloutPolicy) -> int:
    """Return the weight that capacity is wanted for next, FULL_BP when all raises are done.

    For a rollout that has not begun it is the first raise of the steps.
    """
    if state.stage == "Bake":
        return FULL_BP
    if state.stage == "Promoting":
        return bake_bp(policy)
    walking = state.stage == "Steps"
    gate = (state.gate,) if walking and state.gate else ()
    ahead = (*gate, *policy.steps[state.step + len(gate) if walking else 0 :])
    raises = (s.weight_bp for s in ahead if s.kind == "setWeight")
    return next((bp for bp in raises if bp > state.weight_bp), bake_bp(policy))


def _clock_for(state: RolloutState, paused: bool, now_s: float) -> RolloutState:
    if paused == (state.paused_since_s is not None):
        return state
    if paused:
        return replace(state, paused_since_s=now_s)
    started_s = None if state.clock_s is None else now_s - clocked_s(state, now_s)
    return replace(state, clock_s=started_s, paused_since_s=None)


def _paused(state: RolloutState, inputs: Inputs, pause: Pause) -> Transition:
    told = pause_text(state, inputs.policy, pause)
    message = f"{state.canary} stays at {percent(state.weight_bp)}: {told}"
    return Transition(reason=reasons.PAUSED, message=message)


def pause_text(state: RolloutState, policy: RolloutPolicy, pause: Pause) -> str:
    """Return who paused it and how it goes on."""
    by = {
        "Spec": "spec.rollout.paused; it goes on when that is false",
        "Step": f"{step_text(state, policy)}; {_end_of_pause(state)}",
        "Command": "a command; resume it by command",
    }[pause]
    return f"paused by {by}"


def _end_of_pause(state: RolloutState) -> str:
    length_ms = state.gate.duration_ms if state.gate else 0
    return f"for {duration(length_ms / 1_000)}" if length_ms else "resume or promote by command"


def _held(state: RolloutState, inputs: Inputs, hold: str) -> Transition:
    more = inputs.capacity_message if hold == reasons.NO_CAPACITY else ""
    if hold == reasons.CLOCKS_DISAGREE:
        more = clocks_text(inputs.clock_off_s)
    told = f"{reasons.hold_message(hold)}; {more}" if more else reasons.hold_message(hold)
    message = f"{state.canary} stays at {percent(state.weight_bp)}: {told}"
    # Waiting for routers and for a model to load is everyday work, all else is worth a look.
    loads = hold == reasons.NO_CAPACITY and inputs.capacity_loads
    everyday = loads or hold == reasons.ROUTERS_OUT_OF_SYNC
    return Transition(reason=reasons.hold_reason(hold), message=message, warning=not everyday)


def note_overdue(state: RolloutState, inputs: Inputs, now_s: float) -> Advance | None:
    """Do what onInconclusive says once the steps took longer than maxDuration.

    Proof at hand comes first: Safe in a prove step is a decision.
    """
    if state.stage != "Steps" or inputs.clock_off_s or not inputs.clock_known:
        return None
    policy = inputs.policy
    overdue = 0 < policy.max_duration_ms <= clocked_s(state, now_s) * 1_000
    if not overdue:
        return _conclusive_again(state)
    if state.inconclusive and policy.on_inconclusive == "Hold":
        return None
    if not state.inconclusive and not state.frozen and is_proved(state, inputs):
        return None
    length = duration(policy.max_duration_ms / 1_000)
    told = Transition(
        reason=reasons.INCONCLUSIVE,
        message=f"nothing decided on {state.canary} within {length} (maxDuration), at "
        f"{step_text(state, policy)}: {_consequence(policy)}",
        warning=True,
    )
    if policy.on_inconclusive == "RollBack":
        after = rolled_back(
            state, reasons.INCONCLUSIVE, now_s, judgement=judgement_of(state, inputs)
        )
        return Advance(state=after.state, transitions=(told, *after.transitions))
    if policy.on_inconclusive == "Promote":
        return Advance(state=to_promoting(state, now_s), transitions=(told,))
    return Advance(state=replace(state, inconclusive=True), transitions=(told,))


def _conclusive_again(state: RolloutState) -> Advance | None:
    if not state.inconclusive:
        return None
    message = f"there is time again to decide on {state.canary}"
    return Advance(
        state=replace(state, inconclusive=False),
        transitions=(Transition(reason=reasons.RESUMED, message=message),),
    )


def _consequence(policy: RolloutPolicy) -> str:
    return {
        "Hold": "it stays as it is; promote, abort or resume it by command",
        "Promote": "onInconclusive says Promote",
        "RollBack": "onInconclusive says RollBack",
    }[policy.on_inconclusive]
