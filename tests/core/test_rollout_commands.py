"""What people may tell a rollout, what it does then, and what it says when it does not."""

import pytest

from support.rollouts import (
    PROVE,
    A,
    B,
    C,
    Course,
    baking,
    hold,
    judged,
    pause,
    rolled_back,
    started,
    trip,
    weight,
)
from weir_core.commands import Command, command_text, parse_command
from weir_core.errors import Problem

REFUSED = ("CommandRefused",)


def test_abort_takes_the_canary_away_for_good():
    course = started()
    assert course.order("abort") == ("RolledBack",)
    assert course.state.last_rollback is not None
    assert (course.state.last_rollback.reason, course.state.phase) == ("Aborted", "Degraded")


def test_abort_works_in_the_bake():
    course = baking()
    course.order("abort")
    assert (course.state.stable, course.state.weight_bp) == (A.name, 0)


def test_promote_skips_one_gate_only():
    course = started(weight(5), hold(200), weight(25), hold(200), PROVE)
    course.tell(judgement=judged(canary=3))
    course.order("promote")
    assert (course.state.step, course.state.weight_bp) == (3, 2_500)


def test_promote_skips_the_proof():
    course = started(weight(50), PROVE, bake_ms=60_000)
    course.tell(judgement=judged(canary=3))
    assert course.order("promote") == ("StepCompleted", "WeightUpdated", "BakeStarted")


def test_promote_ends_the_bake():
    assert baking().order("promote")[-1] == "Promoted"


def test_promote_in_full_goes_to_the_bake_where_the_brake_is_armed():
    course = started(bake_ms=60_000)
    assert course.order("promote", full=True) == ("StepsSkipped", "WeightUpdated", "BakeStarted")
    course.tell(judgement=judged("Harm", 30))
    assert course.state.phase == "Degraded"


def test_promote_in_full_overrides_the_holds_of_evidence():
    course = started(bake_ms=60_000)
    course.tell(judgement=judged(canary=300, holds=("StableUnhealthy",)))
    course.order("promote", full=True)
    assert (course.state.stage, course.state.holds) == ("Bake", ())


def test_promote_in_full_does_not_override_routers_or_capacity():
    course = started(bake_ms=60_000)
    course.tell(routers_in_sync=False, capacity_bp=0)
    course.order("promote", full=True)
    assert course.state.holds == ("RoutersOutOfSync", "NoCapacity")
    assert course.state.weight_bp == 500


def test_promote_cannot_skip_what_a_raise_waits_for():
    course = started(weight(5), hold(1), weight(25), PROVE)
    course.tell(judgement=judged(canary=1), capacity_bp=0)
    assert course.order("promote") == REFUSED
    assert "NoCapacity" in course.messages()


def test_promote_is_refused_while_the_spec_is_paused():
    course = started()
    course.edit(paused=True)
    course.tell()
    assert course.order("promote") == REFUSED
    assert "spec.rollout.paused" in course.messages()


def test_promote_lifts_the_pause_of_a_command():
    course = started(weight(5), hold(200), weight(25), PROVE)
    course.tell(judgement=judged(canary=3))
    course.order("pause")
    course.order("promote")
    assert (course.state.phase, course.state.weight_bp) == ("Progressing", 2_500)


@pytest.mark.parametrize("verb", ["promote", "resume"])
def test_a_person_gives_an_inconclusive_rollout_its_time_again(verb):
    course = started(max_duration_ms=60_000)
    course.tell(after_s=60, judgement=judged(canary=20))
    course.order(verb)
    assert not course.state.inconclusive
    assert course.tell(after_s=59) == ()


def test_pause_keeps_the_weight_and_evidence_goes_on():
    course = started(weight(5), hold(200), weight(25), PROVE)
    assert course.order("pause") == ("Paused",)
    course.tell(judgement=judged(canary=500))
    assert (course.state.phase, course.state.weight_bp) == ("Paused", 500)
    course.tell(judgement=judged("Harm", 501))
    assert course.state.phase == "Degraded"


def test_resume_clears_only_its_own_pause():
    course = started()
    course.order("pause")
    course.edit(paused=True)
    course.order("resume")
    assert course.state.pauses == ("Spec",)


def test_resume_ends_a_pause_step():
    course = started(weight(5), pause(), weight(25), PROVE)
    course.tell(judgement=judged(canary=1))
    assert course.order("resume") == ("Resumed", "StepCompleted", "WeightUpdated")


def test_resume_of_a_command_at_a_pause_step_leaves_the_step():
    course = started(weight(5), pause(), weight(25), PROVE)
    course.tell(judgement=judged(canary=1))
    course.order("pause")
    course.order("resume")
    assert (course.state.pauses, course.state.weight_bp) == (("Step",), 500)
    assert course.order("resume") == ("Resumed", "StepCompleted", "WeightUpdated")


def test_resume_of_what_no_command_paused_says_what_it_waits_for():
    course = started()
    course.edit(paused=True)
    course.tell()
    assert course.order("resume") == REFUSED
    assert "Spec" in course.messages()


def test_retry_begins_the_next_attempt_from_its_first_step():
    course = rolled_back()
    assert course.order("retry") == ("RolloutStarted", "WeightUpdated")
    assert (course.state.attempt, course.state.step, course.state.weight_bp) == (2, 1, 500)


def test_retry_of_what_the_spec_no_longer_asks_for_is_refused():
    course = rolled_back()
    assert "CommandRefused" in course.order("retry", of="chat-cccccccccc")
    course.tell(target=A)
    assert course.order("retry", of=B.name) == REFUSED


@pytest.mark.parametrize(
    ("course", "verb", "why"),
    [
        (started, "retry", "under way"),
        (started, "resume", "not paused"),
        (rolled_back, "pause", "no traffic already"),
        (rolled_back, "promote", "retry it"),
    ],
)
def test_a_command_that_does_not_fit_is_refused_with_the_reason(course, verb, why):
    course = course()
    assert course.order(verb) == REFUSED
    assert why in course.messages()
    assert course.state.last_command is not None
    assert course.state.last_command.result == "Refused"


def test_an_abort_of_what_was_rolled_back_is_done_and_says_by_whom():
    course = rolled_back()
    before = course.state.last_rollback
    assert course.order("abort") == ()
    assert course.state.last_command is not None
    assert course.state.last_command.result == "Done"
    assert course.state.last_command.message == "already rolled back by controller: Harm"
    assert course.state.last_rollback == before


def test_a_trip_is_told_before_the_abort_that_comes_with_it():
    course = started()
    course.told["trips"] = (trip(),)
    assert course.order("abort") == ("BrakeTripped", "RolledBack")
    assert course.state.last_rollback is not None
    assert course.state.last_rollback.decided_by == "router/r-2"
    assert course.state.last_command is not None
    assert course.state.last_command.message == "already rolled back by router/r-2: Harm"


@pytest.mark.parametrize(
    ("verb", "age_s", "why"),
    [("abort", 301, "ago"), ("promote", 301, "ago"), ("promote", -302, "in the future")],
    ids=["a lowering of before", "older than five minutes", "from a clock that is ahead"],
)
def test_an_untimely_command_is_refused(verb, age_s, why):
    course = started()
    assert course.order(verb, age_s=age_s) == REFUSED
    assert why in course.messages()
    assert course.state.weight_bp == 500


@pytest.mark.parametrize("verb", ["abort", "pause"])
@pytest.mark.parametrize(
    ("age_s", "off_s"),
    [(-3_600, 0.0), (-3_600, 3_600.0), (3_600, -3_600.0)],
    ids=["one clock is behind", "the operator's clock is behind", "the operator's clock is ahead"],
)
def test_what_lowers_is_obeyed_although_clocks_differ(verb, age_s, off_s):
    course = started()
    course.tell(after_s=2 * 3_600, clock_off_s=off_s)
    assert REFUSED[0] not in course.order(verb, age_s=age_s)
    assert course.state.phase in ("Degraded", "Paused")
    # Nobody is locked out by a time that is not yet.
    course.told["clock_off_s"] = 0.0
    assert REFUSED[0] not in course.order("retry" if verb == "abort" else "resume")


def test_an_old_abort_is_not_obeyed_because_clocks_differ():
    course = started()
    course.tell(after_s=2 * 3_600, clock_off_s=-3_600.0)
    assert REFUSED[0] in course.order("abort", age_s=3_600 + 301)
    assert course.state.live


def test_a_command_for_another_revision_is_refused():
    course = started()
    assert course.order("abort", of=C.name) == REFUSED
    assert B.name in course.messages()


def test_a_command_when_nothing_is_on_is_refused():
    course = Course()
    course.tell()
    assert course.order("abort", of=B.name) == REFUSED


def test_ten_digits_name_a_revision():
    course = started()
    course.order("abort", of="bbbbbbbbbb")
    assert course.state.phase == "Degraded"


def test_a_command_is_obeyed_once():
    course = started()
    course.order("abort")
    course.order("retry")
    command = course.told["command"]
    course.tell(judgement=judged("Harm", 50))
    course.tell(command=command)
    assert (course.state.phase, course.state.attempt) == ("Degraded", 2)


def test_an_older_command_than_the_last_is_refused():
    course = started()
    course.order("pause")
    assert course.order("abort", age_s=60) == REFUSED


def test_a_command_given_while_the_clock_was_ahead_does_not_lock_out_the_next():
    course = started()
    course.now_s += 3 * 86_400
    course.order("pause")
    course.now_s -= 3 * 86_400
    course.order("abort")
    assert course.state.phase == "Degraded"


def test_a_mark_of_clocks_that_differ_a_little_still_counts():
    course = started()
    course.order("pause", age_s=-200)
    assert course.order("abort") == REFUSED


def test_a_refused_command_does_not_shut_the_door_on_an_older_good_one():
    course = started()
    course.order("abort", of=C.name)
    course.order("abort", age_s=30)
    assert course.state.phase == "Degraded"


def test_a_command_is_acknowledged():
    course = started()
    course.order("abort")
    last = course.state.last_command
    assert last is not None
    assert (last.result, last.message) == ("Done", f"abort obeyed for {B.name}")


def test_a_pause_by_command_ends_with_its_revision():
    course = started()
    course.order("pause")
    course.tell(target=C)
    assert (course.state.canary, course.state.weight_bp) == (C.name, 500)


@pytest.mark.parametrize(
    "command",
    [
        Command(verb="abort", revision="8d1aa4c0f2", issued_s=1_767_225_600),
        Command(verb="promote", revision="chat-8d1aa4c0f2", issued_s=1.5, full=True),
    ],
    ids=["plain", "in full, with a fraction"],
)
def test_a_command_survives_its_annotation(command):
    assert parse_command(command_text(command)) == command


@pytest.mark.parametrize(
    "text",
    [
        "",
        "abort",
        "abort@x",
        "abort@#1",
        "drop@x#1",
        "abort-full@x#1",
        "abort@x#soon",
        "abort@x#1 now",
    ],
)
def test_a_malformed_command_is_a_problem(text):
    assert isinstance(parse_command(text), Problem)
