"""Rolling back: at once, from anywhere, for good."""

import pytest

from support.rollouts import (
    HARM,
    SAFE,
    A,
    B,
    Course,
    baked,
    baking,
    judged,
    rolled_back,
    started,
    trip,
)
from weir_core.evidence import Key
from weir_core.rollout import brake, braked, latches, policy_for, rebuild
from weir_core.snapshot import Monitoring


def _paused_by_spec() -> Course:
    course = started()
    course.edit(paused=True)
    course.tell()
    return course


def _paused_by_command() -> Course:
    course = started()
    course.order("pause")
    return course


def _at_a_pause() -> Course:
    course = started()
    course.tell(judgement=judged(canary=200))
    return course


def _held() -> Course:
    course = started()
    course.tell(judgement=judged(canary=50, holds=("SampleRatioMismatch",)))
    return course


def _inconclusive() -> Course:
    course = started(max_duration_ms=60_000)
    course.tell(after_s=60)
    return course


def _promoting() -> Course:
    course = started(bake_ms=60_000)
    course.order("promote", full=True)
    return course


LIVE = {
    "in a step": started,
    "paused by the spec": _paused_by_spec,
    "paused by a command": _paused_by_command,
    "at a pause step": _at_a_pause,
    "held by evidence": _held,
    "inconclusive": _inconclusive,
    "baking after a promote in full": _promoting,
    "in the bake": baking,
}


@pytest.mark.parametrize("course", LIVE.values(), ids=LIVE)
@pytest.mark.parametrize(
    "news",
    [{"judgement": HARM}, {"trips": (trip(),)}, {"unclean_boots": 2}],
    ids=["harm", "a router's trip", "two unclean boots"],
)
def test_bad_news_set_the_canary_to_0_from_anywhere(course, news):
    course = course()
    assert "RolledBack" in course.tell(**news)
    state = course.state
    assert (state.phase, state.weight_bp, state.stable) == ("Degraded", 0, A.name)


@pytest.mark.parametrize("course", LIVE.values(), ids=LIVE)
def test_bad_news_count_though_routers_and_capacity_do_not(course):
    course = course()
    course.tell(judgement=HARM, routers_in_sync=False, capacity_bp=0)
    assert course.state.phase == "Degraded"


@pytest.mark.parametrize(
    "stale",
    [trip(attempt=2), trip(revision=A.name), trip(revision="chat-cccccccccc")],
    ids=["of another attempt", "of the stable revision", "of another revision"],
)
def test_a_stale_trip_changes_nothing(stale):
    course = started()
    assert course.tell(trips=(stale,)) == ()
    assert course.state.weight_bp == 500


@pytest.mark.parametrize(
    "about",
    [{"attempt": 2}, {"revision": "chat-cccccccccc"}, {"objectives": "others"}],
    ids=["of another attempt", "of another revision", "of other objectives"],
)
def test_a_stale_verdict_changes_nothing(about):
    course = started()
    told = {"route_uid": "u", "revision": B.name, "attempt": 1, "objectives": "", **about}
    assert course.tell(judgement=HARM, judged=Key(**told)) == ()


def test_a_verdict_about_nothing_changes_nothing():
    course = started()
    assert course.tell(judgement=HARM, judged=None) == ()


def test_one_unclean_boot_is_no_reason():
    course = started()
    assert course.tell(unclean_boots=1) == ()


def test_boots_before_the_first_traffic_are_not_the_canarys():
    course = Course()
    course.tell()
    course.tell(target=B, unclean_boots=7)
    course.tell(unclean_boots=8)
    assert course.state.phase == "Progressing"
    course.tell(unclean_boots=9)
    assert course.state.phase == "Degraded"


def test_what_was_rolled_back_stays_at_0():
    course = rolled_back()
    for _ in range(3):
        course.tell(after_s=86_400, judgement=SAFE)
    assert (course.state.phase, course.state.weight_bp) == ("Degraded", 0)


def test_a_late_trip_after_the_bake_changes_nothing():
    course = baked()
    assert course.tell(trips=(trip(),)) == ()
    assert course.state.stable == B.name


def test_a_trip_of_the_last_attempt_does_not_stop_the_next():
    course = started()
    course.tell(trips=(trip(),))
    course.order("retry")
    assert (course.state.attempt, course.state.weight_bp) == (2, 500)


def test_the_last_rollback_tells_why_and_on_what():
    why = rolled_back().state.last_rollback
    assert why is not None
    assert (why.reason, why.suspect, why.weight_bp) == ("Harm", "errors", 500)
    assert (why.canary_requests, why.bad_served, why.requests) == (143, 9, 2_860)


def test_a_trip_tells_which_router_decided():
    course = started()
    course.tell(trips=(trip(),))
    assert course.state.last_rollback is not None
    assert course.state.last_rollback.decided_by == "router/r-2"


def test_infinite_evidence_is_stored_as_a_number():
    course = started()
    course.tell(judgement=judged("Harm", 3, log_e=float("inf")))
    assert course.state.last_rollback is not None
    assert course.state.last_rollback.log_e == 1e6


def test_a_rolled_back_revision_is_no_longer_proven():
    course = baked()
    course.tell(target=A)
    course.tell(judgement=HARM)
    course.order("retry")
    assert (course.state.canary, course.state.stage) == (A.name, "Steps")


def test_an_earlier_attempt_stays_latched_during_the_next():
    course = rolled_back()
    course.order("retry")
    assert latches(course.state.records) == ((B.name, 1),)


def test_a_router_brakes_alone():
    result = brake(started().state, trip(), now_s=1_003.0)
    assert [t.reason for t in result.transitions] == ["BrakeTripped", "RolledBack"]
    assert result.state.weight_bp == 0


def test_a_router_brakes_for_no_other_attempt():
    state = started().state
    assert brake(state, trip(attempt=9), now_s=1_003.0).state == state


def test_a_latched_attempt_is_not_revived_by_a_snapshot():
    course = started()
    policy = policy_for(
        course.state,
        uid="u",
        namespace="llm",
        name="chat",
        model_names=(),
        monitoring=Monitoring(),
        rollout=course.policy,
    )
    assert policy is not None
    assert braked(policy, ((B.name, 1),)).weight_bp == 0
    assert braked(policy, ((B.name, 2),)).weight_bp == 500


def test_harm_and_a_new_target_at_once_remember_the_harm():
    course = started()
    course.tell(judgement=HARM, target=A)
    assert course.state.phase == "Healthy"
    assert rebuild(course.state.records).records[-1].outcome == "RolledBack"


def test_advance_takes_the_router_at_its_word_before_a_person():
    course = started()
    course.told["trips"] = (trip(),)
    reasons = course.order("promote", full=True)
    assert reasons == ("BrakeTripped", "RolledBack", "CommandRefused")
