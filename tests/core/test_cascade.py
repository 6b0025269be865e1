"""The step machine: every path of one request, without a socket."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.routes import LARGE, SMALL, SPARE, WHOLE, behaviour
from weir_core.cascade import MAX_HOPS, State, begin, step
from weir_core.snapshot import Tier
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
    Plan,
    Recalled,
    Reply,
    Verified,
    Verify,
)


def plan(**changes: object) -> Plan:
    fields: dict[str, object] = {
        "revision": "r",
        "behaviour": behaviour(),
        "start": 0,
        "end": 1,
        "deadline_s": 30.0,
    }
    return Plan(**(fields | changes))  # type: ignore[arg-type]


def walk(plan: Plan, *events: Event) -> tuple[State, tuple[Action, ...]]:
    state, actions = begin(plan, now_s=0.0)
    for event in events:
        state, actions = step(state, event)
    return state, actions


def test_the_first_call_goes_to_the_first_tier() -> None:
    state, actions = walk(plan())

    assert actions == (Call(1, 0, SMALL, 30_000, 0, False),)
    assert state.attempts == 1


def test_an_answer_of_a_checked_tier_is_verified() -> None:
    _, actions = walk(plan(), Answered(1, 1.0, 5))

    assert actions == (Verify(1, 0),)


def test_an_accepted_answer_is_the_reply() -> None:
    state, actions = walk(plan(), Answered(1, 1.0, 5), Verified(1, 1.0, ""))

    assert actions == (Reply(1),)
    assert state.over
    assert state.spent_pico == 5


def test_an_answer_that_is_not_accepted_escalates() -> None:
    state, actions = walk(plan(), Answered(1, 1.0, 5), Verified(1, 1.0, "sure"))

    assert actions == (Call(2, 1, LARGE, 29_000, 0, False),)
    assert state.escalated
    assert state.caught == "sure"
    assert not state.errored


def test_an_unchecked_tier_needs_no_verification() -> None:
    _, actions = walk(plan(start=1), Answered(1, 1.0, 5))

    assert actions == (Reply(1),)


def test_a_refused_answer_at_the_last_tier_is_an_error() -> None:
    _, actions = walk(plan(end=0), Answered(1, 1.0, 5), Verified(1, 1.0, "whole"))

    assert isinstance(actions[0], Fail)
    assert (actions[0].status, actions[0].code) == (502, "no_acceptable_answer")


def test_return_last_serves_a_refused_answer_when_no_tier_is_left() -> None:
    last = behaviour(on_exhausted="ReturnLast")
    _, actions = walk(plan(behaviour=last, end=0), Answered(1, 1.0, 5), Verified(1, 1.0, "whole"))

    assert actions == (Reply(1),)


def test_a_failed_call_goes_to_the_next_tier_without_counting_as_escalated() -> None:
    state, actions = walk(plan(), Failed(1, 1.0, "Connect"))

    assert isinstance(actions[0], Call)
    assert actions[0].backend is LARGE
    assert state.errored
    assert not state.escalated


def test_a_declared_cause_falls_back_before_the_next_tier() -> None:
    fallback = behaviour(fallback_on=("Connect",), fallback=(SPARE,))
    _, actions = walk(plan(behaviour=fallback), Failed(1, 1.0, "Connect"))

    assert isinstance(actions[0], Call)
    assert (actions[0].backend, actions[0].tier) == (SPARE, 0)


def test_an_undeclared_cause_does_not_fall_back() -> None:
    fallback = behaviour(fallback_on=("Timeout",), fallback=(SPARE,))
    _, actions = walk(plan(behaviour=fallback), Failed(1, 1.0, "Connect"))

    assert isinstance(actions[0], Call)
    assert actions[0].backend is LARGE


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        pytest.param(Failed(2, 1.0, "Connect"), 503, "no_backend_available", id="all down: 503"),
        pytest.param(
            Failed(2, 1.0, "Overload", 429), 429, "rate_limit_exceeded", id="told to slow down: 429"
        ),
        pytest.param(Failed(2, 30.0, "Timeout"), 504, "deadline_exceeded", id="too late: 504"),
        pytest.param(
            Failed(2, 1.0, "Rejected", 422), 422, "upstream_rejected", id="refused: its own status"
        ),
        pytest.param(
            Failed(2, 1.0, "Connect", may_move=False), 503, "overloaded", id="no moves left: 503"
        ),
    ],
)
def test_the_last_failure_says_how_the_request_fails(
    failure: Failed, status: int, code: str
) -> None:
    _, actions = walk(plan(), Failed(1, 0.5, "ServerError", 500), failure)

    assert isinstance(actions[0], Fail)
    assert (actions[0].status, actions[0].code) == (status, code)


def test_a_tier_time_out_bounds_its_call() -> None:
    tiers = (Tier(name="small", backend=SMALL, timeout_ms=700), Tier(name="l", backend=LARGE))
    _, actions = walk(plan(behaviour=behaviour(tiers=tiers)))

    assert isinstance(actions[0], Call)
    assert actions[0].timeout_ms == 700


def test_a_stream_of_an_unchecked_tier_commits_at_its_first_bytes() -> None:
    state, actions = walk(plan(start=1, stream=True), FirstBytes(1, 1.0))

    assert actions == (Commit(1),)
    assert state.committed


def test_a_stream_of_a_checked_tier_waits_for_verification() -> None:
    state, actions = walk(plan(stream=True), FirstBytes(1, 1.0))

    assert actions == ()
    assert not state.committed


def test_first_token_commits_before_verification() -> None:
    early = behaviour(commit="FirstToken")
    _, actions = walk(plan(behaviour=early, stream=True), FirstBytes(1, 1.0), Answered(1, 2.0, 3))

    assert actions == (Reply(1),)


def test_a_stream_that_breaks_before_its_commit_goes_elsewhere() -> None:
    _, actions = walk(plan(stream=True), FirstBytes(1, 1.0), Failed(1, 2.0, "BrokenStream"))

    assert isinstance(actions[0], Call)


def test_a_stream_that_breaks_after_its_commit_ends_with_an_error() -> None:
    _, actions = walk(
        plan(start=1, stream=True), FirstBytes(1, 1.0), Failed(1, 2.0, "BrokenStream")
    )

    assert isinstance(actions[0], Fail)
    assert actions[0].code == "upstream_stream_broken"


def test_a_client_that_goes_cancels_the_call() -> None:
    state, actions = walk(plan(), ClientGone(1.0))

    assert actions[0] == Cancel(1)
    assert state.over


def test_a_recalled_request_starts_again_at_stable_with_the_old_deadline() -> None:
    stable = plan(revision="stable", deadline_s=99.0)
    state, actions = walk(plan(), Recalled(1.0, stable))

    assert actions == (Cancel(1), Call(2, 0, SMALL, 29_000, 0, False))
    assert state.plan.revision == "stable"
    assert state.plan.deadline_s == 30.0
    assert state.attempts == 2


def test_a_recalled_request_has_an_attempt_left_though_the_canary_had_the_last() -> None:
    single = behaviour(max_attempts=1)
    again = plan(revision="stable", behaviour=single)
    state, actions = walk(plan(behaviour=single), Recalled(1.0, again))

    assert isinstance(actions[1], Call)
    assert state.attempts == 1


def test_a_backend_that_was_not_even_asked_costs_no_attempt() -> None:
    state, actions = walk(plan(), Failed(1, 1.0, "Connect", asked=False))

    assert isinstance(actions[0], Call)
    assert actions[0].tier == 1
    assert state.attempts == 1


def test_a_committed_request_is_not_recalled() -> None:
    before, _ = walk(plan(start=1, stream=True), FirstBytes(1, 1.0))
    after, actions = step(before, Recalled(2.0, plan(revision="stable")))

    assert (after, actions) == (before, ())


def test_events_of_a_cancelled_call_change_nothing() -> None:
    before, _ = walk(plan(), Recalled(1.0, plan(revision="stable")))

    assert step(before, Answered(1, 2.0, 5)) == (before, ())


def test_a_loop_between_routers_is_refused() -> None:
    _, actions = walk(plan(hops=MAX_HOPS + 1))

    assert isinstance(actions[0], Fail)
    assert actions[0].status == 508


def test_a_budget_caps_the_tokens_that_are_asked_for() -> None:
    """100 prompt tokens at 10 and 20 a token leave 50 tokens of 2,000 pico."""
    budget = behaviour(max_cost_pico=2_000)
    _, actions = walk(plan(behaviour=budget, prompt_tokens=100))

    assert isinstance(actions[0], Call)
    assert actions[0].max_tokens == 50


def test_a_tier_that_does_not_fit_the_budget_is_not_called() -> None:
    budget = behaviour(max_cost_pico=2_000, on_exhausted="ReturnLast")
    state, actions = walk(
        plan(behaviour=budget, prompt_tokens=100), Answered(1, 1.0, 1_500), Verified(1, 1.0, "sure")
    )

    assert actions == (Reply(1),)
    assert state.attempts == 1


PLANS = st.builds(
    lambda fallback, commit, budget, exhausted, attempts, accept, start, stream, hops: plan(
        behaviour=behaviour(
            fallback_on=("Connect", "Timeout", "ServerError"),
            fallback=fallback,
            commit=commit,
            prefix_tokens=8 if commit == "Prefix" else 0,
            max_cost_pico=budget,
            on_exhausted=exhausted,
            max_attempts=attempts,
            tiers=(
                Tier(name="small", backend=SMALL, accept=(WHOLE,), max_tokens=64),
                Tier(name="large", backend=LARGE, accept=accept),
            ),
        ),
        start=start,
        stream=stream,
        hops=hops,
        prompt_tokens=40,
        max_tokens=32,
    ),
    st.sampled_from([(), (SPARE,)]),
    st.sampled_from(["AfterVerify", "Prefix", "FirstToken"]),
    st.sampled_from([0, 1_200, 20_000]),
    st.sampled_from(["ReturnError", "ReturnLast"]),
    st.integers(1, 5),
    st.sampled_from([(), (WHOLE,)]),
    st.integers(0, 1),
    st.booleans(),
    st.integers(0, MAX_HOPS + 1),
)
KINDS = st.lists(
    st.tuples(
        st.sampled_from(["first", "held", "answer", "fail", "verify", "recall", "stale"]),
        st.floats(0.0, 4.0),
        st.sampled_from(["Connect", "Timeout", "Overload", "ServerError", "Rejected"]),
        st.booleans(),
    ),
    max_size=40,
)


def _event(kind: str, state: State, now_s: float, cause: str, coin: bool) -> Event:
    """Return an event that a correct shell could send now; Timeout when nothing else fits."""
    assert state.backend is not None
    waits_verification = state.call in (state.answer, state.held) and state.call != 0
    if kind == "recall":
        return Recalled(now_s, plan(revision="stable", behaviour=state.plan.behaviour))
    if kind == "stale":
        return Failed(state.call + 7, now_s, "Connect")
    if waits_verification:
        return Verified(state.call, now_s, "whole" if coin else "")
    if kind == "first" and state.plan.stream:
        return FirstBytes(state.call, now_s)
    prefixed = state.plan.behaviour.commit == "Prefix" and state.plan.stream
    if (
        kind == "held"
        and prefixed
        and not state.committed
        and state.plan.behaviour.tiers[state.tier].accept
    ):
        return Held(state.call, now_s)
    if kind == "answer":
        return Answered(state.call, now_s, state.reserved_pico if coin else 0)
    return Failed(state.call, now_s, cause, 500, billed=coin)  # type: ignore[arg-type]


@given(PLANS, KINDS)
def test_any_walk_ends_once_with_a_reply_and_keeps_its_limits(
    start: Plan, script: list[tuple[str, float, str, bool]]
) -> None:
    """Attempts, deadline and budget hold; no (tier, backend) is called twice by one plan."""
    now_s, called, ends = 0.0, [], 0
    state, actions = begin(start, now_s=0.0)
    script = [*script, *[("fail", 1.0, "Connect", True)] * 12]
    for kind, later_s, cause, coin in [("", 0.0, "", False), *script]:
        now_s += later_s
        if kind and not state.over:
            event = _event(kind, state, now_s, cause, coin)
            if isinstance(event, Recalled) and not state.committed:
                called = []
            state, actions = step(state, event)
        elif kind:
            before = state
            state, actions = step(state, Answered(state.call, now_s, 1))
            assert state is before
        for action in actions:
            if isinstance(action, Call):
                called.append((action.tier, action.backend.identity))
                assert action.timeout_ms <= (start.deadline_s - now_s) * 1000
            ends += isinstance(action, Reply | Fail)
        budget = start.behaviour.max_cost_pico
        assert not budget or state.spent_pico + state.reserved_pico <= budget
        assert state.attempts <= start.behaviour.max_attempts
    assert len(called) == len(set(called))
    assert ends == 1
    assert state.over


def test_state_is_plain_data() -> None:
    state, _ = walk(plan())

    assert msgspec.json.decode(msgspec.json.encode(state), type=State) == state
