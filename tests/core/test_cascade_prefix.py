"""Streams that are held until their first tokens are judged (`streaming.commit: Prefix`)."""

from support.routes import LARGE, SMALL, WHOLE, behaviour
from weir_core.cascade import State, begin, step
from weir_core.snapshot import Tier
from weir_core.turns import (
    Action,
    Answered,
    Call,
    Cancel,
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


def plan(**changes: object) -> Plan:
    fields: dict[str, object] = {
        "revision": "r",
        "behaviour": prefix(),
        "start": 0,
        "end": 1,
        "deadline_s": 30.0,
        "stream": True,
    }
    return Plan(**(fields | changes))  # type: ignore[arg-type]


def prefix(**changes: object):  # type: ignore[no-untyped-def]
    return behaviour(commit="Prefix", prefix_tokens=16, **changes)


def walk(plan: Plan, *events: Event) -> tuple[State, tuple[Action, ...]]:
    state, actions = begin(plan, now_s=0.0)
    for event in events:
        state, actions = step(state, event)
    return state, actions


REFUSED = (FirstBytes(1, 0.5), Held(1, 1.0), Verified(1, 1.0, "whole"))


def test_the_first_tokens_are_held() -> None:
    state, actions = walk(plan(), FirstBytes(1, 0.5))

    assert actions == (Hold(1, 16),)
    assert not state.committed


def test_what_is_held_is_verified_as_a_prefix() -> None:
    _, actions = walk(plan(), FirstBytes(1, 0.5), Held(1, 1.0))

    assert actions == (Verify(1, 0, True),)


def test_an_accepted_prefix_commits_and_its_rest_is_the_reply() -> None:
    accepted = (FirstBytes(1, 0.5), Held(1, 1.0), Verified(1, 1.0, ""))
    state, actions = walk(plan(), *accepted)
    assert actions == (Commit(1),)
    assert state.committed

    _, actions = walk(plan(), *accepted, Answered(1, 2.0, 5))
    assert actions == (Reply(1),)


def test_a_refused_prefix_escalates_and_is_cut_off() -> None:
    state, actions = walk(plan(), *REFUSED)

    assert actions == (Cancel(1), Call(2, 1, LARGE, 29_000, 0, True))
    assert (state.caught, state.escalated, state.errored) == ("whole", True, False)
    assert not state.committed


def test_an_answer_that_ends_before_enough_tokens_is_verified_as_a_whole() -> None:
    _, actions = walk(plan(), FirstBytes(1, 0.5), Answered(1, 1.0, 5))

    assert actions == (Verify(1, 0),)


def test_an_unchecked_tier_commits_at_once() -> None:
    _, actions = walk(plan(start=1), FirstBytes(1, 0.5))

    assert actions == (Commit(1),)


def test_a_whole_answer_is_verified_as_a_whole() -> None:
    _, actions = walk(plan(stream=False), Answered(1, 1.0, 5))

    assert actions == (Verify(1, 0),)


def test_a_stream_that_breaks_while_it_is_held_goes_elsewhere() -> None:
    state, actions = walk(plan(), FirstBytes(1, 0.5), Failed(1, 1.0, "BrokenStream"))

    assert isinstance(actions[0], Call)
    assert state.errored


def test_a_stream_that_is_held_can_be_recalled() -> None:
    stable = plan(revision="stable")
    _, actions = walk(plan(), FirstBytes(1, 0.5), Recalled(1.0, stable))

    assert actions == (Cancel(1), Call(2, 0, SMALL, 29_000, 0, True))


def test_a_prefix_refused_at_the_last_tier_is_an_error() -> None:
    _, actions = walk(plan(end=0), *REFUSED)

    assert actions[0] == Cancel(1)
    assert isinstance(actions[1], Fail)
    assert actions[1].code == "no_acceptable_answer"


def test_return_last_serves_the_refused_stream_that_nobody_can_better() -> None:
    """No tier is left, or no attempt: what is held is the last answer."""
    last = prefix(on_exhausted="ReturnLast")
    state, actions = walk(plan(behaviour=last, end=0), *REFUSED)
    assert actions == (Commit(1),)
    assert (state.caught, state.escalated) == ("whole", False)

    single = prefix(on_exhausted="ReturnLast", max_attempts=1)
    state, actions = walk(plan(behaviour=single), *REFUSED)
    assert actions == (Commit(1),)
    assert (state.caught, state.escalated) == ("whole", True)


def test_a_prefix_refused_after_the_deadline_is_not_served() -> None:
    late = (FirstBytes(1, 0.5), Held(1, 30.0), Verified(1, 30.0, "whole"))
    _, actions = walk(plan(behaviour=prefix(on_exhausted="ReturnLast")), *late)

    assert isinstance(actions[1], Fail)
    assert actions[1].status == 504


def test_a_call_that_was_cut_off_may_have_cost_its_worst_case() -> None:
    """Refused, recalled or late, it did not come to tell its usage: the budget counts it all."""
    budget = plan(behaviour=prefix(max_cost_pico=100_000), prompt_tokens=100, max_tokens=10)
    worst = 100 * SMALL.input_price_pico + 10 * SMALL.output_price_pico
    begun, _ = begin(budget, now_s=0.0)
    assert begun.reserved_pico == worst

    for cut in (
        REFUSED,
        (Recalled(1.0, budget),),
        (Failed(1, 1.0, "Timeout", billed=True),),
    ):
        state, _ = walk(budget, *cut)
        assert state.spent_pico == worst

    never_sent, _ = walk(budget, Failed(1, 1.0, "Connect", billed=False))
    assert never_sent.spent_pico == 0


def test_a_budget_that_a_cut_off_call_may_have_used_up_allows_no_other() -> None:
    tight = prefix(
        max_cost_pico=1_500,
        tiers=(
            Tier(name="small", backend=SMALL, accept=(WHOLE,)),
            Tier(name="large", backend=SMALL),
        ),
    )
    _, actions = walk(plan(behaviour=tight, prompt_tokens=100, max_tokens=25), *REFUSED)

    assert isinstance(actions[1], Fail)


def test_events_of_a_cut_off_call_change_nothing() -> None:
    before, _ = walk(plan(), *REFUSED)

    for late in (Held(1, 2.0), Verified(1, 2.0, ""), Answered(1, 2.0, 5), FirstBytes(1, 2.0)):
        assert step(before, late) == (before, ())
