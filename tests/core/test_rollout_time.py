"""Time: what it may decide alone, and what the clock cannot be believed about."""

import msgspec
import pytest

from support.rollouts import (
    HARM,
    PROVE,
    SAFE_STILL,
    A,
    B,
    Course,
    baking,
    hold,
    judged,
    pause,
    rolled_back,
    started,
    weight,
)
from weir_core.clocks import routers_off_s
from weir_core.rollout import RolloutState, rested

HOUR_S = 3_600.0


def _rest(course: Course) -> None:
    """Let the route be unserved for an hour, as a shell tells it."""
    course.now_s += HOUR_S
    course.state = rested(course.state, gap_s=HOUR_S, now_s=course.now_s)


def test_a_bake_without_a_request_waits():
    course = baking()
    assert course.tell(after_s=86_400) == ()
    assert (course.state.stable, course.state.weight_bp) == (A.name, 9_000)


def test_a_bake_that_waited_ends_with_its_first_request():
    course = baking()
    course.tell(after_s=86_400)
    assert course.tell(judgement=SAFE_STILL) == ("BakeCompleted", "Promoted")


def test_a_request_does_not_shorten_the_bake():
    course = baking()
    assert course.tell(after_s=3_599, judgement=SAFE_STILL) == ()


def test_a_bake_whose_evidence_is_away_waits():
    course = baking()
    course.tell(judgement=SAFE_STILL)
    assert course.tell(after_s=86_400, judgement=None) == ()


def test_a_bake_begun_without_evidence_counts_from_the_first_it_hears_of():
    course = started(bake_ms=60_000)
    course.order("promote", full=True)
    course.tell(after_s=60, judgement=judged(canary=40))
    assert course.state.stage == "Bake"
    assert "Promoted" in course.tell(judgement=judged(canary=41))


def test_a_bake_entered_with_the_first_traffic_counts_from_none():
    course = Course(bake_ms=60_000)
    course.tell()
    course.edit(steps=())
    course.tell(target=B)
    assert course.state.stage == "Bake"
    assert "Promoted" in course.tell(after_s=60, judgement=judged(canary=1))


def test_promote_in_full_does_not_end_the_bake_it_leads_to():
    course = started(bake_ms=60_000)
    course.order("promote", full=True)
    assert course.tell(after_s=86_400) == ()
    assert course.state.stage == "Bake"


def test_a_command_ends_a_bake_without_a_request():
    course = baking()
    course.tell(after_s=86_400, judgement=None)
    course.order("promote", full=True)
    assert course.state.stable == B.name


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        pytest.param((weight(5), hold(0, 600), weight(25), PROVE), {}, id="a hold"),
        pytest.param((weight(5), pause(600), weight(25), PROVE), {}, id="a timed pause"),
    ],
)
def test_a_step_does_not_pass_while_nothing_is_served(steps, told):
    course = started(*steps)
    course.tell(judgement=judged(canary=50), after_s=1)
    _rest(course)
    course.tell()
    assert course.state.weight_bp == 500
    course.tell(after_s=600)
    assert course.state.weight_bp == 2_500


def test_a_bake_does_not_pass_while_nothing_is_served():
    course = baking(bake_s=600)
    course.tell(judgement=SAFE_STILL)
    _rest(course)
    assert course.tell() == ()
    assert "Promoted" in course.tell(after_s=600)


def test_time_in_which_nothing_was_served_is_not_of_max_duration():
    course = started(max_duration_ms=600_000)
    course.tell(judgement=judged(canary=1))
    _rest(course)
    assert course.tell() == ()


def test_a_pause_of_people_outlasts_a_rest_at_no_cost():
    course = started(max_duration_ms=600_000)
    course.tell(after_s=590, judgement=judged(canary=1))
    course.order("pause")
    _rest(course)
    course.order("resume")
    assert course.tell(after_s=5) == ()
    assert course.tell(after_s=5) == ("Inconclusive",)


@pytest.mark.parametrize("gap_s", [0.0, -60.0], ids=["no gap", "a clock set back"])
def test_no_rest_changes_nothing(gap_s):
    course = started()
    assert rested(course.state, gap_s=gap_s, now_s=course.now_s) == course.state


def test_a_rest_never_leads_past_the_present():
    course = started()
    state = rested(course.state, gap_s=86_400.0, now_s=course.now_s)
    assert (state.step_since_s, state.clock_s) == (course.now_s, course.now_s)


@pytest.mark.parametrize("course", [Course, rolled_back], ids=["nothing yet", "rolled back"])
def test_what_is_not_under_way_does_not_rest(course):
    state = course().state
    assert rested(state, gap_s=HOUR_S, now_s=1e6) == state


def test_a_clock_put_right_during_a_bake_costs_no_more_than_the_bake():
    course = baking(bake_s=600)
    course.now_s -= 900
    course.tell(judgement=SAFE_STILL)
    assert "Promoted" in course.tell(after_s=600)


def test_a_clock_put_right_gives_max_duration_its_beginning():
    course = started(max_duration_ms=600_000)
    course.now_s -= 900
    course.tell(judgement=judged(canary=1))
    assert course.tell(after_s=600) == ("Inconclusive",)


def test_a_clock_put_right_during_a_pause_keeps_the_time_that_was_used():
    course = started(max_duration_ms=600_000)
    course.tell(after_s=200, judgement=judged(canary=1))
    course.order("pause")
    course.now_s -= 900
    course.tell()
    course.order("resume")
    assert course.tell(after_s=390) == ()
    assert course.tell(after_s=10) == ("Inconclusive",)


def test_an_older_state_knows_no_restarts_and_no_latches():
    stored = msgspec.to_builtins(started().state)
    del stored["restarts"], stored["latched"]
    assert msgspec.convert(stored, RolloutState) == started().state


# Clocks that disagree.


AHEAD = {"clock_off_s": -HOUR_S}
"""Who leads is an hour ahead of the routers."""


@pytest.mark.parametrize(
    ("course", "judgement"),
    [
        (lambda: started(weight(5), hold(1, 600), weight(50)), judged(canary=5)),
        (lambda: started(weight(5), pause(600), weight(50)), judged(canary=5)),
        (lambda: baking(bake_s=600), SAFE_STILL),
    ],
    ids=["a hold", "a timed pause", "a bake"],
)
def test_nothing_that_is_timed_ends_while_clocks_disagree(course, judgement):
    """And when the clock is right again, what it ran ahead is of no step."""
    one = course()
    before = one.state
    happened = one.tell(after_s=HOUR_S, judgement=judgement, **AHEAD)
    assert happened == ("ClocksDisagree",)
    assert "1h behind the operator's: set the clocks of the nodes right" in one.messages()
    assert one.happened[0].warning
    assert (one.state.weight_bp, one.state.stage) == (before.weight_bp, before.stage)
    one.tell(after_s=60 - HOUR_S, judgement=judgement, clock_off_s=0.0)
    assert one.state.holds == ()
    assert one.tell(after_s=500, judgement=judgement) == ()
    assert one.tell(after_s=100, judgement=judgement) != ()


@pytest.mark.parametrize(
    "course",
    [
        lambda: started(weight(5), hold(0, 600), weight(50)),
        lambda: started(weight(5), pause(600), weight(50)),
        lambda: baking(bake_s=600),
    ],
    ids=["a hold", "a timed pause", "a bake"],
)
def test_nothing_that_is_timed_ends_before_a_router_told_its_time(course):
    """A new leader has no clock to compare its own with until then."""
    one = course()
    before = one.state.step, one.state.stage
    one.tell(after_s=HOUR_S, judgement=SAFE_STILL, clock_known=False)
    assert (one.state.step, one.state.stage) == before
    one.tell(judgement=SAFE_STILL, clock_known=True)
    assert (one.state.step, one.state.stage) != before


def test_a_raise_that_is_due_waits_until_clocks_agree():
    course = started(weight(5), hold(200), weight(25), PROVE)
    assert "ClocksDisagree" in course.tell(judgement=judged(canary=200), clock_off_s=120.0)
    assert (course.state.weight_bp, course.state.phase) == (500, "Paused")
    assert "WeightUpdated" in course.tell(judgement=judged(canary=200), clock_off_s=0.0)


@pytest.mark.parametrize("on_inconclusive", ["Hold", "Promote", "RollBack"])
def test_max_duration_does_not_pass_while_clocks_disagree(on_inconclusive):
    course = started(weight(5), PROVE, max_duration_ms=1_800_000, on_inconclusive=on_inconclusive)
    assert course.tell(after_s=HOUR_S, judgement=judged(canary=5), **AHEAD) == ("ClocksDisagree",)
    assert course.state.stage == "Steps"


def test_harm_is_heeded_whatever_the_clocks_say():
    course = started()
    assert "RolledBack" in course.tell(after_s=HOUR_S, judgement=HARM, **AHEAD)
    assert course.state.weight_bp == 0


@pytest.mark.parametrize(
    ("offs_s", "off_s"),
    [
        ((), None),
        ((-1.0, 0.2), 0.0),
        ((60.0, -60.0), 0.0),
        ((3_600.0,), 3_600.0),
        ((3_600.0, 0.0), 0.0),
        ((-3_600.0, -3_605.0, 0.0), -3_600.0),
        ((3_600.0, -3_600.0), 0.0),
    ],
    ids=[
        "no router",
        "clocks that agree",
        "a minute",
        "an hour",
        "one of two",
        "two of three",
        "one on each side",
    ],
)
def test_most_routers_clocks_are_believed_and_no_single_one(offs_s, off_s):
    assert routers_off_s(offs_s) == off_s
