"""Standing still: by people, by evidence, by time; and going on again."""

import pytest

from support.rollouts import (
    PROVE,
    SAFE,
    SAFE_STILL,
    A,
    B,
    Course,
    baking,
    hold,
    judged,
    started,
    weight,
)

AT_25 = (weight(5), hold(200), weight(25), PROVE)


def _ready_to_rise(**policy) -> Course:
    """Return a route whose next raise waits for its 200th request."""
    return started(*AT_25, **policy)


@pytest.mark.parametrize(
    ("stop", "go_on", "reason"),
    [
        ({"routers_in_sync": False}, {"routers_in_sync": True}, "RoutersOutOfSync"),
        ({"capacity_bp": 2_499}, {"capacity_bp": 2_500}, "NoCapacity"),
        ({"target": None}, {"target": B}, "NotAccepted"),
    ],
    ids=["routers out of sync", "no capacity", "a spec with a problem"],
)
def test_a_raise_waits_and_goes_on_by_itself(stop, go_on, reason):
    course = _ready_to_rise()
    assert reason in course.tell(judgement=judged(canary=200), **stop)
    assert (course.state.phase, course.state.weight_bp) == ("Paused", 500)
    assert "WeightUpdated" in course.tell(judgement=judged(canary=200), **go_on)
    assert (course.state.phase, course.state.weight_bp) == ("Progressing", 2_500)


def test_what_only_waits_to_begin_was_not_paused_and_is_not_resumed():
    course = Course()
    course.tell()
    told = course.tell(target=B, capacity_bp=0)
    assert (course.state.phase, told[-1]) == ("Progressing", "NoCapacity")
    assert course.tell(target=B, capacity_bp=10_000) == ("WeightUpdated",)


def test_a_person_who_pauses_what_waits_to_begin_resumes_it():
    course = Course()
    course.tell()
    course.tell(target=B, capacity_bp=0)
    assert course.order("pause") == ("Paused",)
    assert course.state.phase == "Paused"
    course.tell(capacity_bp=10_000)
    assert course.order("resume")[0] == "Resumed"


@pytest.mark.parametrize(
    ("hold_", "reason"),
    [
        ("StableUnhealthy", "StableUnhealthy"),
        ("SampleRatioMismatch", "SampleRatioMismatch"),
        ("OutcomesMissing", "OutcomesMissing"),
        ("Objective/load", "ObjectiveHeld"),
        ("SomethingNewer", "SomethingNewer"),
    ],
)
def test_a_hold_of_evidence_pauses_and_clears_by_itself(hold_, reason):
    course = _ready_to_rise()
    assert course.tell(judgement=judged(canary=200, holds=(hold_,))) == (reason,)
    assert (course.state.phase, course.state.holds) == ("Paused", (hold_,))
    assert course.tell(judgement=judged(canary=200))[0] == "Resumed"
    assert course.state.weight_bp == 2_500


def test_holds_stay_while_evidence_is_away():
    course = _ready_to_rise()
    course.tell(judgement=judged(canary=200, holds=("SampleRatioMismatch",)))
    assert course.tell(judgement=None) == ()
    assert course.state.holds == ("SampleRatioMismatch",)


def test_routers_on_their_way_are_no_event_while_no_raise_is_due():
    course = _ready_to_rise()
    assert course.tell(routers_in_sync=False, capacity_bp=0) == ()
    assert course.state.phase == "Progressing"


def test_the_first_traffic_waits_for_capacity():
    course = Course()
    course.tell()
    reasons = course.tell(target=B, capacity_bp=0, capacity_message="0 of 2 replicas")
    assert reasons == ("RevisionCreated", "RolloutStarted", "NoCapacity")
    assert "0 of 2 replicas" in course.messages()
    assert course.happened[-1].warning
    course.tell(capacity_bp=10_000)
    assert course.state.weight_bp == 500


def test_a_model_that_loads_is_no_warning():
    course = Course()
    course.tell()
    reasons = course.tell(target=B, capacity_bp=0, capacity_loads=True)
    assert reasons[-1] == "NoCapacity"
    assert not course.happened[-1].warning


def test_no_raise_after_a_restart_before_evidence_is_back():
    course = _ready_to_rise()
    course.order("promote")
    assert course.state.holds == ("EvidenceMissing",)
    course.tell(judgement=judged(canary=1))
    assert course.state.weight_bp == 2_500


def test_the_end_of_the_bake_is_a_raise_too():
    course = baking()
    course.tell(after_s=3_600, judgement=SAFE_STILL, routers_in_sync=False)
    assert (course.state.stable, course.state.holds) == (A.name, ("RoutersOutOfSync",))
    assert course.tell(routers_in_sync=True)[-1] == "Promoted"


def test_a_paused_spec_keeps_the_weight_and_says_so_once():
    course = _ready_to_rise()
    course.edit(paused=True)
    assert course.tell(judgement=judged(canary=500)) == ("Paused",)
    assert course.tell(after_s=86_400) == ()
    assert course.state.weight_bp == 500
    course.edit(paused=False)
    assert course.tell()[0] == "Resumed"
    assert course.state.weight_bp == 2_500


def test_a_new_revision_of_a_paused_spec_gets_no_traffic():
    course = Course(paused=True)
    course.tell()
    course.tell(target=B)
    assert (course.state.canary, course.state.weight_bp, course.state.phase) == (
        B.name,
        0,
        "Paused",
    )


def test_pauses_are_ored():
    course = _ready_to_rise()
    course.edit(paused=True)
    course.tell()
    course.order("pause")
    course.edit(paused=False)
    assert course.tell(judgement=judged(canary=500)) == ()
    assert course.state.pauses == ("Command",)


@pytest.mark.parametrize(
    ("policy", "reasons", "phase"),
    [
        ("Hold", ("Inconclusive",), "Paused"),
        ("Promote", ("Inconclusive", "WeightUpdated", "BakeStarted"), "Progressing"),
        ("RollBack", ("Inconclusive", "RolledBack"), "Degraded"),
    ],
)
def test_past_max_duration_the_owner_has_said_what_to_do(policy, reasons, phase):
    course = started(max_duration_ms=60_000, on_inconclusive=policy, bake_ms=60_000)
    assert course.tell(after_s=60, judgement=judged(canary=20)) == reasons
    assert course.state.phase == phase


def test_without_a_bound_a_rollout_waits_as_long_as_it_takes():
    course = started()
    assert course.tell(after_s=365 * 86_400) == ()


def test_inconclusive_holds_until_there_is_more_time():
    course = started(*AT_25, max_duration_ms=60_000)
    course.tell(after_s=60, judgement=judged(canary=20))
    course.tell(judgement=judged(canary=500))
    assert course.state.weight_bp == 500
    course.edit(max_duration_ms=120_000)
    assert course.tell()[0] == "Resumed"
    assert course.state.weight_bp == 2_500


def test_inconclusive_is_decided_again_when_the_policy_is_edited():
    course = started(max_duration_ms=60_000)
    course.tell(after_s=60)
    course.edit(on_inconclusive="RollBack")
    course.tell()
    assert course.state.phase == "Degraded"


def test_proof_at_hand_beats_the_clock():
    course = started(weight(50), PROVE, max_duration_ms=60_000)
    assert course.tell(after_s=61, judgement=SAFE)[0] == "Proved"


def test_the_pauses_of_people_cost_no_time():
    course = started(max_duration_ms=60_000)
    course.tell(after_s=30, judgement=judged(canary=20))
    course.order("pause")
    course.tell(after_s=86_400)
    course.order("resume")
    assert course.tell(after_s=20) == ()
    assert course.tell(after_s=10) == ("Inconclusive",)


def test_the_holds_of_evidence_cost_time():
    course = started(max_duration_ms=60_000)
    course.tell(judgement=judged(canary=20, holds=("OutcomesMissing",)))
    assert course.tell(after_s=60) == ("Inconclusive",)


def test_waiting_for_capacity_costs_no_time():
    course = Course(max_duration_ms=60_000)
    course.tell()
    course.tell(target=B, capacity_bp=0)
    assert course.tell(after_s=86_400) == ()
    course.tell(capacity_bp=10_000)
    assert course.tell(after_s=59) == ()
    assert course.tell(after_s=1) == ("Inconclusive",)


def test_the_bake_is_not_bound_by_max_duration():
    course = baking(max_duration_ms=60_000)
    assert course.tell(after_s=600) == ()


def test_a_proof_that_edited_steps_put_at_no_weight_says_that_it_waits():
    """Each list is a good one; the step that is waited on is the second of the second list."""
    course = started(weight(0), hold(0, 60), weight(5), PROVE)
    course.edit(steps=(weight(5), PROVE))
    course.tell(after_s=60)
    assert (course.state.phase, course.state.holds) == ("Paused", ("EvidenceMissing",))
    course.order("promote", full=True)
    assert course.state.stable == B.name


def test_a_proof_at_no_weight_can_be_waived():
    course = started(weight(0), hold(0, 60), weight(5), PROVE)
    course.edit(steps=(weight(5), PROVE, weight(50), hold(10)))
    course.tell(after_s=60)
    course.order("promote")
    assert course.state.weight_bp == 5_000


@pytest.mark.parametrize("hold_", ["SampleRatioMismatch", "OutcomesMissing", "StableUnhealthy"])
def test_a_hold_that_may_never_clear_names_the_way_out(hold_):
    course = _ready_to_rise()
    course.tell(judgement=judged(canary=200, holds=(hold_,)))
    assert "`weir rollout promote --full`" in course.messages()
