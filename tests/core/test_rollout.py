"""Attempts: how they begin, go up their steps, and end in a promotion."""

import pytest
from msgspec.structs import replace

from support.rollouts import (
    PROVE,
    SAFE,
    SAFE_STILL,
    A,
    B,
    C,
    Course,
    baked,
    baking,
    hold,
    judged,
    pause,
    rolled_back,
    started,
    weight,
)
from weir_core.rollout import (
    RolloutState,
    effective_alpha,
    evidence_key,
    next_raise_bp,
    policy_for,
    weight_order,
)
from weir_core.snapshot import Monitoring, RolloutPolicy


def test_first_revision_is_stable_at_once():
    course = Course()
    assert course.tell() == ("RevisionCreated", "Promoted")
    assert (course.state.stable, course.state.phase) == (A.name, "Healthy")


def test_route_without_a_good_spec_waits_for_its_first():
    course = Course()
    assert course.tell(target=None) == ()
    assert course.state.stable == ""


def test_new_target_begins_with_its_first_weight():
    course = started()
    assert (course.state.canary, course.state.attempt, course.state.weight_bp) == (B.name, 1, 500)
    assert course.state.phase == "Progressing"


def test_a_good_revision_goes_all_the_way():
    course = started(bake_ms=60_000, holdback_bp=1_000)
    assert "StepCompleted" in course.tell(judgement=judged(canary=200))
    assert course.state.phase == "Paused"
    course.order("resume")
    assert course.tell(judgement=SAFE) == (
        "Proved",
        "StepCompleted",
        "WeightUpdated",
        "BakeStarted",
    )
    assert (course.state.stable, course.state.weight_bp) == (A.name, 9_000)
    assert course.tell(after_s=60, judgement=SAFE_STILL) == ("BakeCompleted", "Promoted")
    assert (course.state.stable, course.state.canary, course.state.weight_bp) == (B.name, "", 0)


def test_without_a_bake_the_proof_promotes():
    course = started(weight(50), PROVE)
    assert course.tell(judgement=SAFE)[-1] == "Promoted"
    assert course.state.stable == B.name


def test_steps_without_a_proof_promote_when_they_are_done():
    course = started(weight(50), hold(10))
    assert course.tell(judgement=judged(canary=10))[-1] == "Promoted"


def test_no_steps_are_an_immediate_switch():
    course = Course()
    course.tell()
    course.edit(steps=(), bake_ms=60_000)
    assert course.tell(target=B)[-1] == "BakeStarted"


@pytest.mark.parametrize(
    ("gate", "seconds", "settled", "passes"),
    [
        pytest.param(hold(200), 0, 199, False, id="one request short"),
        pytest.param(hold(200), 0, 200, True, id="as many requests as wanted"),
        pytest.param(hold(200, 60), 59, 999, False, id="enough requests, too early"),
        pytest.param(hold(200, 60), 86_400, 199, False, id="a day is not a request"),
        pytest.param(hold(0, 60), 60, 1, True, id="time alone, and one request was seen"),
        pytest.param(hold(0, 60), 60, 0, False, id="time alone says nothing without requests"),
        pytest.param(pause(60), 59, 9, False, id="a timed pause lasts"),
        pytest.param(pause(60), 60, 9, True, id="a timed pause ends"),
        pytest.param(pause(60), 60, 0, False, id="no raise before the first outcome"),
        pytest.param(pause(), 86_400, 999, False, id="a manual pause waits for a person"),
    ],
)
def test_a_gate_passes(gate, seconds, settled, passes):
    course = started(weight(5), gate, weight(25), PROVE)
    course.tell(judgement=judged(canary=settled), after_s=seconds)
    assert (course.state.weight_bp == 2_500) is passes


def test_a_hold_counts_the_requests_of_its_own_step():
    course = started(weight(5), hold(200), weight(25), hold(200), PROVE)
    course.tell(judgement=judged(canary=250))
    course.tell(judgement=judged(canary=449))
    assert course.state.step == 3
    course.tell(judgement=judged(canary=450))
    assert course.state.step == 4


def test_requests_lost_with_a_router_are_not_waited_for_twice():
    course = started(weight(5), hold(200), weight(25), hold(200), PROVE)
    course.tell(judgement=judged(canary=250))
    course.tell(judgement=judged(canary=50))
    course.tell(judgement=judged(canary=250))
    assert course.state.step == 4


def test_a_hold_counts_nothing_of_before_it_where_evidence_was_away():
    course = started(weight(5), pause(60), hold(200), weight(25), PROVE)
    course.tell(after_s=60)
    course.tell(judgement=judged(canary=300))
    course.tell(judgement=judged(canary=499))
    assert course.state.step == 2
    course.tell(judgement=judged(canary=500))
    assert course.state.step == 4


def test_a_hold_at_no_weight_waits_for_no_requests():
    course = started(weight(0), hold(200, 60), weight(5), PROVE)
    course.tell(after_s=60)
    assert course.state.weight_bp == 500


def test_weights_edited_on_the_way_count_from_the_next_step():
    course = started(weight(5), hold(200), weight(25), PROVE)
    course.edit(steps=(weight(1), hold(900), weight(10), PROVE))
    course.tell(judgement=judged(canary=200))
    assert (course.state.step, course.state.weight_bp) == (3, 1_000)


def test_shortened_steps_still_owe_their_proof():
    course = started(weight(5), hold(200), weight(25), hold(200), weight(50), PROVE)
    course.edit(steps=(weight(5), PROVE))
    course.tell(judgement=judged(canary=200))
    course.tell(judgement=judged(canary=900))
    assert (course.state.stage, course.state.stable) == ("Steps", A.name)
    assert "Proved" in course.tell(judgement=SAFE)


def test_a_lower_weight_needs_no_permission():
    course = started(weight(50), hold(10), weight(5), PROVE)
    course.tell(judgement=judged(canary=10), routers_in_sync=False, capacity_bp=0)
    assert course.state.weight_bp == 500


def test_a_new_target_on_the_way_supersedes_the_canary():
    course = started()
    reasons = course.tell(target=C)
    assert reasons == ("RevisionSuperseded", "RevisionCreated", "RolloutStarted", "WeightUpdated")
    state = course.state
    assert (state.stable, state.canary, state.step, state.attempt) == (A.name, C.name, 1, 1)


def test_the_evidence_of_the_superseded_says_nothing_of_the_next():
    course = started()
    course.tell(target=C, judgement=SAFE)
    assert (course.state.canary, course.state.stage) == (C.name, "Steps")


def test_a_superseded_revision_comes_back_as_another_attempt():
    course = started()
    course.tell(target=C)
    course.tell(target=B)
    assert (course.state.canary, course.state.attempt) == (B.name, 2)


def test_back_to_stable_drains_the_canary_without_steps():
    course = started()
    assert course.tell(target=A) == ("RevisionSuperseded",)
    assert (course.state.phase, course.state.weight_bp, course.state.canary) == ("Healthy", 0, "")


def test_a_revision_that_was_stable_before_skips_the_steps():
    course = baked()
    assert course.tell(target=A) == ("RolloutStarted", "WeightUpdated", "BakeStarted")
    assert (course.state.stable, course.state.weight_bp) == (B.name, 9_000)


def test_a_rolled_back_target_does_not_begin_again():
    course = rolled_back()
    course.tell(target=A)
    assert course.tell(target=B) == ("AttemptRefused",)
    assert (course.state.phase, course.state.weight_bp) == ("Degraded", 0)


def test_a_new_target_leads_out_of_degraded():
    course = rolled_back()
    course.tell(target=C)
    assert (course.state.phase, course.state.canary) == ("Progressing", C.name)


def test_back_to_stable_leads_out_of_degraded():
    course = rolled_back()
    course.tell(target=A)
    assert (course.state.phase, course.state.canary) == ("Healthy", "")


def test_a_new_retry_token_begins_the_next_attempt():
    course = rolled_back()
    course.edit(retry_token="again")
    assert course.tell() == ("RolloutStarted", "WeightUpdated")
    assert (course.state.attempt, course.state.weight_bp) == (2, 500)


def test_a_retry_token_counts_once():
    course = rolled_back()
    course.edit(retry_token="again")
    course.tell()
    course.tell(judgement=judged("Harm", 50))
    course.tell(judgement=None)
    assert (course.state.phase, course.state.attempt) == ("Degraded", 2)


def test_a_token_from_before_the_harm_is_no_retry():
    course = started()
    course.edit(retry_token="early")
    course.tell(judgement=judged("Harm", 50))
    assert course.state.phase == "Degraded"


def test_a_spec_back_at_stable_after_a_rollback_says_so():
    course = rolled_back()
    assert course.tell(target=A) == ("Reverted",)
    assert f"the spec is back at {A.name}" in course.messages()


def test_a_target_rolled_back_before_begins_with_a_new_token():
    course = rolled_back()
    course.tell(target=A)
    course.edit(retry_token="again")
    course.tell(target=B)
    assert (course.state.canary, course.state.attempt, course.state.live) == (B.name, 2, True)


def test_a_spec_with_a_problem_stops_a_rollout_and_keeps_what_serves():
    course = started()
    assert course.tell(target=None, judgement=judged(canary=999)) == ("NotAccepted",)
    assert (course.state.weight_bp, course.state.canary) == (500, B.name)
    assert "Resumed" in course.tell(target=B)


@pytest.mark.parametrize(
    ("attempt", "alpha"), [(1, 0.01), (2, 0.005), (3, 0.0025)], ids=["first", "second", "third"]
)
def test_retries_halve_alpha(attempt, alpha):
    assert effective_alpha(RolloutPolicy(alpha=0.01), attempt) == alpha


def test_evidence_is_keyed_by_the_attempt():
    key = evidence_key(started().state, route_uid="u", objectives="o")
    assert key is not None
    assert (key.revision, key.attempt, key.objectives) == (B.name, 1, "o")


def test_no_canary_has_no_evidence():
    assert evidence_key(rolled_back().state, route_uid="u", objectives="o") is None


def _promoting() -> Course:
    course = started(weight(50), PROVE, bake_ms=60_000)
    course.tell(judgement=SAFE, routers_in_sync=False)
    return course


@pytest.mark.parametrize(
    ("course", "weight_bp"),
    [(Course, 500), (rolled_back, 500), (started, 2_500), (_promoting, 9_000), (baking, 10_000)],
    ids=["before", "rolled back", "at 5%", "promoting", "in the bake"],
)
def test_capacity_is_wanted_for_the_next_raise(course, weight_bp):
    course = course()
    assert next_raise_bp(course.state, course.policy) == weight_bp


def test_after_the_last_raise_of_the_steps_capacity_is_wanted_for_the_bake():
    course = started(weight(50), PROVE, bake_ms=60_000)
    assert next_raise_bp(course.state, course.policy) == 9_000


def test_each_of_two_raises_in_a_row_is_asked_for_its_capacity():
    course = Course(weight(5), weight(25), PROVE)
    course.tell()
    course.tell(target=B, capacity_bp=2_499)
    course.tell(judgement=judged(canary=9))
    assert (course.state.weight_bp, course.state.holds) == (500, ("NoCapacity",))


def _states() -> dict[str, RolloutState]:
    course = Course()
    course.tell()
    states = {"healthy": course.state}
    course.tell(target=B)
    states["at 5%"] = course.state
    states["at 5% again"] = replace(course.state, attempt=course.state.attempt + 1)
    course.tell(judgement=judged(canary=200))
    states["at 25%"] = course.state
    states["rolled back"] = rolled_back().state
    course = baking()
    states["bake"] = course.state
    course.tell(after_s=3_600, judgement=SAFE_STILL)
    states["promoted"] = course.state
    return states


@pytest.mark.parametrize(
    ("old", "new", "order"),
    [
        ("healthy", "at 5%", "raise"),
        ("at 5%", "at 25%", "raise"),
        ("at 5%", "at 5% again", "raise"),
        ("bake", "promoted", "raise"),
        ("at 25%", "rolled back", "lower"),
        ("bake", "rolled back", "lower"),
        ("at 25%", "healthy", "lower"),
        ("at 25%", "at 25%", "same"),
        ("healthy", "rolled back", "same"),
    ],
    ids=lambda value: str(value),
)
def test_raises_are_persisted_first_and_lowerings_published_first(old, new, order):
    states = _states()
    assert weight_order(states[old], states[new]) == order


def _policy(course: Course):
    return policy_for(
        course.state,
        uid="u",
        namespace="llm",
        name="chat",
        model_names=("chat",),
        monitoring=Monitoring(),
        rollout=course.policy,
        brake_alpha=0.002,
    )


def test_routers_obey_both_arms_while_a_canary_is_on():
    policy = _policy(started())
    assert (policy.stable, policy.canary, policy.attempt) == (A, B, 1)
    assert (policy.weight_bp, policy.brake_alpha) == (500, 0.002)


def test_routers_never_see_what_was_rolled_back():
    policy = _policy(rolled_back())
    assert (policy.canary, policy.weight_bp, policy.latched) == (None, 0, ((B.name, 1),))


def test_a_route_without_a_stable_revision_has_no_policy():
    assert _policy(Course()) is None
