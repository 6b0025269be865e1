"""One request's walk through the tiers, as a pure step machine: step(state, event).

The shell performs the returned actions and feeds back events; every path is tested without a
socket. One deadline, one budget and one attempt counter hold over all calls of a request.
The machine refuses to know sockets, JSON and verifiers: it sees that a call was answered, what
it cost, and which check (if any) did not accept it.
"""

from collections.abc import Callable

import msgspec

from weir_core.snapshot import Backend, Tier
from weir_core.turns import (
    Action,
    Answered,
    Call,
    Cancel,
    ClientGone,
    Commit,
    Event,
    Fail,
    Failed,
    FirstBytes,
    Held,
    Hold,
    Plan,
    Recalled,
    Reply,
    Verified,
    Verify,
)

MAX_HOPS = 4
"""Routers one request may pass through; more is a loop."""


class State(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Where a request stands. `call` is the id of the call in flight, 0 when there is none.

    `answer` is the last complete answer's call id, `held` that of a prefix that is judged; `calls`
    numbers calls over all plans. `caught` names the check that last refused an answer.

    Costs are pico units: `reserved` is the worst case of the call in flight, `spent` what finished
    calls told, and all that was reserved for those that did not come to tell it (cut off by a
    time-out, a recall or a refused prefix, or answered without usage): they may have cost it. So
    the budget holds whatever an upstream bills. Without a budget nothing is reserved.
    """

    plan: Plan
    tier: int
    backend: Backend | None = None
    call: int = 0
    calls: int = 0
    held: int = 0
    attempts: int = 0
    spent_pico: int = 0
    reserved_pico: int = 0
    avoid: tuple[str, ...] = ()
    answer: int = 0
    caught: str = ""
    cause: str = ""
    cause_status: int = 0
    errored: bool = False
    escalated: bool = False
    committed: bool = False
    over: bool = False


Steps = tuple[State, tuple[Action, ...]]


def begin(plan: Plan, *, now_s: float) -> Steps:
    """Return the first state and actions of a request."""
    state = State(plan=plan, tier=plan.start)
    if plan.hops > MAX_HOPS:
        return _fail(state, 508, "loop_detected", f"passed through {plan.hops} routers")
    return _call_tier(state, now_s)


def step(state: State, event: Event) -> Steps:
    """Return the next state and what to do. Events after the end or of stale calls do nothing."""
    if state.over:
        return state, ()
    return _STEPS[type(event)](state, event)


def _first_bytes(state: State, event: FirstBytes) -> Steps:
    if event.id != state.call or state.committed:
        return state, ()
    if _commits_early(state):
        return _commit(state)
    behaviour = state.plan.behaviour
    if behaviour.commit == "Prefix":
        return state, (Hold(event.id, behaviour.prefix_tokens),)
    return state, ()


def _held(state: State, event: Held) -> Steps:
    if event.id != state.call or state.committed:
        return state, ()
    return msgspec.structs.replace(state, held=event.id), (Verify(event.id, state.tier, True),)


def _answered(state: State, event: Answered) -> Steps:
    if event.id != state.call:
        return state, ()
    plan = state.plan
    state = State(
        plan=plan,
        tier=state.tier,
        backend=state.backend,
        call=event.id,
        calls=state.calls,
        attempts=state.attempts,
        spent_pico=state.spent_pico + event.cost_pico,
        avoid=state.avoid,
        answer=event.id,
        caught=state.caught,
        cause=state.cause,
        cause_status=state.cause_status,
        errored=state.errored,
        escalated=state.escalated,
        committed=state.committed,
    )
    if not state.committed and plan.behaviour.tiers[state.tier].accept:
        return state, (Verify(event.id, state.tier),)
    return _reply(state)


def _verified(state: State, event: Verified) -> Steps:
    if event.id != state.call:
        return state, ()
    if state.held == event.id:
        return _prefix_verified(state, event)
    if state.answer != event.id:
        return state, ()
    if not event.refused_by:
        return _reply(state)
    state = msgspec.structs.replace(state, caught=event.refused_by, call=0)
    if state.tier < state.plan.end:
        higher = msgspec.structs.replace(state, tier=state.tier + 1, escalated=True)
        return _call_tier(higher, event.now_s)
    return _exhausted(state, f"the last answer was not accepted by {event.refused_by!r}")


def _prefix_verified(state: State, event: Verified) -> Steps:
    """Commit to an accepted prefix; go on to the next tier from one that is not, nothing sent."""
    if not event.refused_by:
        return _commit(state)
    state = msgspec.structs.replace(
        state, caught=event.refused_by, escalated=state.escalated or state.tier < state.plan.end
    )
    cut = msgspec.structs.replace(
        state,
        call=0,
        held=0,
        spent_pico=state.spent_pico + state.reserved_pico,
        reserved_pico=0,
    )
    if state.tier < state.plan.end:
        after, actions = _call_tier(msgspec.structs.replace(cut, tier=state.tier + 1), event.now_s)
    else:
        why = f"the last answer was not accepted by {event.refused_by!r}"
        after, actions = _exhausted(cut, why)
    wants_last = state.plan.behaviour.on_exhausted == "ReturnLast"
    if wants_last and type(actions[0]) is not Call and _left_ms(state, event.now_s) > 0:
        return _commit(state)  # Nobody else can be asked: what is held is the last answer.
    return after, (Cancel(event.id), *actions)


def _commit(state: State) -> Steps:
    return msgspec.structs.replace(state, committed=True, held=0), (Commit(state.call),)


def _failed(state: State, event: Failed) -> Steps:
    if event.id != state.call:
        return state, ()
    assert state.backend is not None
    spent = state.reserved_pico if event.billed else 0
    state = msgspec.structs.replace(
        state,
        call=0,
        held=0,
        attempts=state.attempts if event.asked else state.attempts - 1,
        spent_pico=state.spent_pico + spent,
        reserved_pico=0,
        avoid=(*state.avoid, state.backend.identity),
        cause=event.cause,
        cause_status=event.status,
        errored=True,
    )
    if state.committed:
        return _broken(state, event)
    if not event.may_move:
        return _fail(state, 503, "overloaded", f"{event.cause}, and no room to go elsewhere")
    return _elsewhere(state, event)


def _broken(state: State, event: Failed) -> Steps:
    if event.cause == "Timeout":
        return _fail(state, 504, "deadline_exceeded", "the stream did not end in time")
    return _fail(state, 502, "upstream_stream_broken", "the stream broke after its first byte")


def _elsewhere(state: State, event: Failed) -> Steps:
    """Fall back for a declared cause, else go to the next tier, else give up."""
    behaviour = state.plan.behaviour
    if _left_ms(state, event.now_s) <= 0:
        return _late(state)
    if event.cause in behaviour.fallback_on:
        for backend in behaviour.fallback:
            if backend.identity not in state.avoid:
                return _call(state, behaviour.tiers[state.tier], backend, event.now_s)
    if state.tier < state.plan.end:
        return _call_tier(msgspec.structs.replace(state, tier=state.tier + 1), event.now_s)
    return _exhausted(state, f"the last call failed: {event.cause}")


def _client_gone(state: State, event: ClientGone) -> Steps:
    cancel = (Cancel(state.call),) if state.call else ()
    gone = Fail(499, "client_gone", "the client went away")
    return msgspec.structs.replace(state, over=True, call=0), (*cancel, gone)


def _recalled(state: State, event: Recalled) -> Steps:
    if state.committed:
        return state, ()
    cancel = (Cancel(state.call),) if state.call else ()
    # One attempt is left to stable, though the canary had the last: the brake took that call back.
    # The budget is no larger for that: the call may have cost its worst case.
    left = min(state.attempts, event.plan.behaviour.max_attempts - 1)
    again = msgspec.structs.replace(
        state,
        plan=msgspec.structs.replace(event.plan, deadline_s=state.plan.deadline_s),
        tier=event.plan.start,
        call=0,
        held=0,
        attempts=left,
        spent_pico=state.spent_pico + state.reserved_pico,
        reserved_pico=0,
        answer=0,
        caught="",
    )
    state, actions = _call_tier(again, event.now_s)
    return state, (*cancel, *actions)


_STEPS: dict[type, Callable[..., Steps]] = {
    FirstBytes: _first_bytes,
    Held: _held,
    Answered: _answered,
    Verified: _verified,
    Failed: _failed,
    ClientGone: _client_gone,
    Recalled: _recalled,
}


def _call_tier(state: State, now_s: float) -> Steps:
    """Call the tier of the state, or the next ones while its backend has already failed."""
    tiers = state.plan.behaviour.tiers
    for position in range(state.tier, state.plan.end + 1):
        tier = tiers[position]
        if tier.backend.identity not in state.avoid:
            return _call(_at(state, position), tier, tier.backend, now_s)
    return _exhausted(state, "every backend of the route has failed")


def _at(state: State, position: int) -> State:
    return state if state.tier == position else msgspec.structs.replace(state, tier=position)


def _call(state: State, tier: Tier, backend: Backend, now_s: float) -> Steps:
    """Start one call if deadline, attempts and budget allow it."""
    plan = state.plan
    behaviour = plan.behaviour
    left_ms = _left_ms(state, now_s)
    if left_ms <= 0:
        return _late(state)
    if state.attempts >= behaviour.max_attempts:
        return _exhausted(state, f"all {behaviour.max_attempts} attempts were used")
    cap = _token_cap(plan.max_tokens, tier.max_tokens)
    reserved = 0
    if behaviour.max_cost_pico:
        cap = _affordable(state, backend, cap)
        if cap < 1:
            return _exhausted(state, f"tier {tier.name!r} does not fit the budget of the request")
        reserved = _worst_cost(plan, backend, cap)
    id = state.calls + 1
    state = State(
        plan=plan,
        tier=state.tier,
        backend=backend,
        call=id,
        calls=id,
        attempts=state.attempts + 1,
        spent_pico=state.spent_pico,
        reserved_pico=reserved,
        avoid=state.avoid,
        answer=state.answer,
        caught=state.caught,
        cause=state.cause,
        cause_status=state.cause_status,
        errored=state.errored,
        escalated=state.escalated,
    )
    timeout = min(left_ms, tier.timeout_ms) if tier.timeout_ms else left_ms
    ask = cap if cap != plan.max_tokens else 0
    return state, (Call(id, state.tier, backend, timeout, ask, plan.stream),)


def _token_cap(asked: int, tier_cap: int) -> int:
    if asked and tier_cap:
        return min(asked, tier_cap)
    return asked or tier_cap


def _affordable(state: State, backend: Backend, cap: int) -> int:
    """Return the largest output cap whose worst case still fits the budget; below 1: none.

    A cap that Weir adds must not pass the context window, or the upstream refuses the request;
    `prompt_tokens` is an upper bound (bytes), about four times the truth.
    """
    budget = state.plan.behaviour.max_cost_pico
    left = budget - state.spent_pico - state.plan.prompt_tokens * backend.input_price_pico
    if left < 0:
        return 0
    window = backend.context_window
    room = max(window - state.plan.prompt_tokens, window // 4) if window else 1 << 20
    most = left // backend.output_price_pico if backend.output_price_pico else room
    return min(cap, most) if cap else min(room, most)


def _worst_cost(plan: Plan, backend: Backend, cap: int) -> int:
    return plan.prompt_tokens * backend.input_price_pico + cap * backend.output_price_pico


def _commits_early(state: State) -> bool:
    """Nothing is to be verified, or the route prefers the first token to verification."""
    behaviour = state.plan.behaviour
    return behaviour.commit == "FirstToken" or not behaviour.tiers[state.tier].accept


def _left_ms(state: State, now_s: float) -> int:
    return int((state.plan.deadline_s - now_s) * 1000)


def _late(state: State) -> Steps:
    deadline_ms = state.plan.behaviour.deadline_ms
    return _fail(state, 504, "deadline_exceeded", f"no answer within {deadline_ms} ms")


def _reply(state: State) -> Steps:
    return msgspec.structs.replace(state, over=True), (Reply(state.answer),)


def _exhausted(state: State, why: str) -> Steps:
    """No tier is left: the last complete answer if the route wants it, else an error."""
    if state.answer and state.plan.behaviour.on_exhausted == "ReturnLast":
        return _reply(state)
    if state.cause == "Rejected" and not state.caught:
        return _fail(state, state.cause_status, "upstream_rejected", "the model refused it")
    if state.cause == "Overload" and state.cause_status == 429:
        return _fail(state, 429, "rate_limit_exceeded", why)
    if state.caught:
        return _fail(state, 502, "no_acceptable_answer", why)
    return _fail(state, 503, "no_backend_available", why)


def _fail(state: State, status: int, code: str, message: str) -> Steps:
    return msgspec.structs.replace(state, over=True, call=0), (Fail(status, code, message),)
