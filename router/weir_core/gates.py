"""What lies between an attempt's begin and its end: the steps, their gates, the bake.

Each verb returns the state after it with its transitions, or None where there is nothing to do;
`rollout.advance` calls them in order until none has anything to do. Whether anything else
stops a rollout is found in `stops` and stands in the state.
"""

from msgspec.structs import replace

from weir_core import reasons
from weir_core.attempts import promoted
from weir_core.evidence import CANARY, Judgement
from weir_core.figures import duration, percent
from weir_core.rollout_state import (
    Advance,
    Inputs,
    RolloutState,
    Transition,
    judgement_of,
    with_clock_at,
)
from weir_core.snapshot import FULL_BP, RolloutPolicy, Step


def note_token(state: RolloutState, inputs: Inputs, now_s: float) -> Advance | None:
    """Remember a retryToken that there is nothing to retry for."""
    token = inputs.policy.retry_token
    if state.retry_token == token:
        return None
    return Advance(state=replace(state, retry_token=token))


def note_live_token(state: RolloutState, inputs: Inputs, now_s: float) -> Advance | None:
    """Use up a token that came while a canary was under way.

    It cannot have meant a rollback that nobody had seen yet.
    """
    return note_token(state, inputs, now_s) if state.live else None


def note_objectives(state: RolloutState, inputs: Inputs, now_s: float) -> Advance | None:
    """Begin the step, or the bake, again with fresh evidence when objectives were edited.

    A proof that only waited for its raise is asked for again, with a whole maxDuration. Before
    the first traffic nothing was looked at, so no α is spent.
    """
    if not state.live or state.objectives == inputs.objectives:
        return None
    after = replace(
        state,
        objectives=inputs.objectives,
        restarts=state.restarts + (state.clock_s is not None),
        step_since_s=now_s,
        step_settled=0,
        proved=False,
    )
    steps = inputs.policy.steps
    asked = any(step.kind == "prove" for step in steps)
    if state.stage == "Promoting" and state.proved and asked and not state.full:
        # Steps added since do not begin: only the proof is owed.
        step = max(state.step, len(steps))
        after = with_clock_at(replace(after, stage="Steps", step=step, since_s=now_s), now_s)
    message = f"objectives were edited: evidence on {state.canary} is counted afresh"
    return Advance(
        state=after,
        transitions=(Transition(reason=reasons.OBJECTIVES_CHANGED, message=message),),
    )


def note_settled(state: RolloutState, inputs: Inputs, now_s: float) -> Advance | None:
    """Mark where the step's own requests begin to count.

    Unknown until the first judgement after a restart; lowered when counts that died with a
    router made the total smaller, since a step would wait for them twice otherwise.
    """
    judgement = judgement_of(state, inputs)
    if judgement is None:
        return None
    settled = judgement.settled[CANARY]
    if state.step_settled is not None and state.step_settled <= settled:
        return None
    return Advance(state=replace(state, step_settled=settled))


# Steps.


def enter_step(state: RolloutState, inputs: Inputs, now_s: float) -> Advance | None:
    """Begin the next step as the spec has it now, or leave the steps behind.

    Steps edited on the way count from here. If fewer are left than were done, a prove step
    among them is still owed: shortening the list is no proof.
    """
    if state.stage != "Steps" or state.gate is not None:
        return None
    steps = inputs.policy.steps
    proofs = [step for step in steps if step.kind == "prove"]
    if state.step < len(steps):
        return Advance(state=_entered(state, steps[state.step], inputs, now_s))
    if proofs and not state.proved:
        return Advance(state=_entered(state, proofs[-1], inputs, now_s))
    return Advance(state=to_promoting(state, now_s))


def _entered(state: RolloutState, gate: Step, inputs: Inputs, now_s: float) -> RolloutState:
    judgement = judgement_of(state, inputs)
    settled = judgement.settled[CANARY] if judgement else state.step_settled
    return replace(state, gate=gate, waived=False, step_since_s=now_s, step_settled=settled)


def take_step(state: RolloutState, inputs: Inputs, now_s: float) -> Advance | None:
    """Pass the current gate if what it waits for has come and nothing else stops it."""
    gate = state.gate
    if state.stage != "Steps" or gate is None or state.frozen:
        return None
    if gate.kind == "setWeight":
        return _weighted(_passed(state, inputs), gate.weight_bp, inputs, now_s)
    came = _what_came(state, gate, inputs, now_s)
    if not came:
        return None
    is_proof = gate.kind == "prove"
    proof = (Transition(reason=reasons.PROVED, message=f"{state.canary}: {came}"),)
    done = Transition(
        reason=reasons.STEP_COMPLETED, message=f"{step_text(state, inputs.policy)}: {came}"
    )
    after = replace(_passed(state, inputs), proved=state.proved or is_proof)
    by_evidence = is_proof and not state.waived
    return Advance(state=after, transitions=(*(proof if by_evidence else ()), done))


def _passed(state: RolloutState, inputs: Inputs) -> RolloutState:
    return replace(
        state,
        step=state.step + 1,
        gate=None,
        waived=False,
        step_settled=_settled_so_far(state, inputs),
    )


def _settled_so_far(state: RolloutState, inputs: Inputs) -> int | None:
    """Return the attempt's settled canary requests, None while unknown."""
    judgement = judgement_of(state, inputs)
    if judgement is not None:
        return judgement.settled[CANARY]
    return state.step_settled if state.clock_s is None else None


def _what_came(state: RolloutState, gate: Step, inputs: Inputs, now_s: float) -> str:
    """Return why the gate may be passed, "" while it may not."""
    if state.waived:
        return "waived by a command"
    since_s = now_s - state.step_since_s
    long_enough = inputs.clock_known and gate.duration_ms <= since_s * 1_000
    if gate.kind == "pause":
        return f"paused {duration(since_s)}" if gate.duration_ms and long_enough else ""
    if gate.kind == "prove":
        return _proof(inputs.policy) if is_proved(state, inputs) else ""
    settled = settled_in_step(state, judgement_of(state, inputs))
    if not long_enough or settled < requests_wanted(state, gate):
        return ""
    if not settled:
        return f"no canary request settled in {duration(since_s)}, and the hold asks for none"
    return f"{settled} canary requests settled in {duration(since_s)} without harm"


def settled_in_step(state: RolloutState, judgement: Judgement | None) -> int:
    """Return the canary requests that settled since the step began; 0 while unknown.

    Those count that were drawn before the step and settled in it.
    """
    if judgement is None or state.step_settled is None:
        return 0
    return max(0, judgement.settled[CANARY] - state.step_settled)


def requests_wanted(state: RolloutState, gate: Step) -> int:
    """Return how many settled canary requests a hold waits for; none come at weight 0.

    A hold by time alone may end without any: the raise after it waits for the first outcome.
    """
    return gate.min_requests if state.weight_bp else 0


def is_proved(state: RolloutState, inputs: Inputs) -> bool:
    """Tell whether the current step asks for the proof that is at hand."""
    judgement = judgement_of(state, inputs)
    at_proof = state.gate is not None and state.gate.kind == "prove"
    return at_proof and judgement is not None and judgement.verdict == "Safe"


def _proof(policy: RolloutPolicy) -> str:
    return f"less than {policy.promote_ratio:g} times as bad as stable, or negligibly bad"


def _weighted(state: RolloutState, weight_bp: int, inputs: Inputs, now_s: float) -> Advance:
    """Set the weight; the first traffic starts the clock and the count of unclean boots."""
    if weight_bp == state.weight_bp:
        return Advance(state=state)
    after = replace(state, weight_bp=weight_bp)
    if after.clock_s is None and weight_bp > 0:
        after = replace(after, clock_s=now_s, boots_before=inputs.unclean_boots)
    message = f"{percent(weight_bp)} to {state.canary}, was {percent(state.weight_bp)}"
    return Advance(
        state=after, transitions=(Transition(reason=reasons.WEIGHT_UPDATED, message=message),)
    )


def step_text(state: RolloutState, policy: RolloutPolicy) -> str:
    """Return the current step as people count them: "step 4/8 (hold)"."""
    of = len(policy.steps)
    kind = f" ({state.gate.kind})" if state.gate else ""
    return f"step {min(state.step + 1, of)}/{of}{kind}"


# The bake.


def to_promoting(state: RolloutState, now_s: float) -> RolloutState:
    """End the steps; the raise into the bake still needs its permission."""
    return replace(
        state,
        stage="Promoting",
        gate=None,
        waived=False,
        inconclusive=False,
        since_s=now_s,
        step_since_s=now_s,
    )


def enter_bake(state: RolloutState, inputs: Inputs, now_s: float) -> Advance | None:
    """Give the canary nearly all; without a bake promote it at once."""
    if state.stage != "Promoting" or state.frozen:
        return None
    policy = inputs.policy
    if policy.bake_ms <= 0:
        return promoted(state, now_s)
    weighted = _weighted(state, bake_bp(policy), inputs, now_s)
    after = replace(
        weighted.state,
        stage="Bake",
        since_s=now_s,
        step_since_s=now_s,
        step_settled=_settled_so_far(state, inputs),
    )
    message = (
        f"{state.stable} keeps {percent(policy.holdback_bp)} and its capacity for "
        f"{duration(policy.bake_ms / 1_000)}; do not tear it down yet"
    )
    started = Transition(reason=reasons.BAKE_STARTED, message=message)
    return Advance(state=after, transitions=(*weighted.transitions, started))


def leave_bake(state: RolloutState, inputs: Inputs, now_s: float) -> Advance | None:
    """Promote the canary when its bake is over."""
    if state.stage != "Bake" or state.frozen or not is_baked(state, inputs, now_s):
        return None
    return promoted(state, now_s)


def is_baked(state: RolloutState, inputs: Inputs, now_s: float) -> bool:
    """Tell whether the bake lasted as long as it should and saw traffic, or a person ended it."""
    lasted = inputs.policy.bake_ms <= (now_s - state.step_since_s) * 1_000
    long_enough = inputs.clock_known and lasted
    return state.waived or (long_enough and settled_in_step(state, judgement_of(state, inputs)) > 0)


def bake_bp(policy: RolloutPolicy) -> int:
    """Return the canary's weight after its steps."""
    return FULL_BP - policy.holdback_bp if policy.bake_ms > 0 else FULL_BP
