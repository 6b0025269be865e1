"""Objectives edited on the way: evidence afresh, at its price."""

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
    rolled_back,
    started,
    weight,
)
from weir_core.rollout import effective_alpha
from weir_core.snapshot import RolloutPolicy


def _edit(course: Course, objectives: str = "new") -> tuple[str, ...]:
    """Edit the objectives; nothing is known of the new ones yet."""
    course.told.pop("judgement", None)
    return course.tell(objectives=objectives)


def test_edited_objectives_begin_the_step_again():
    course = started(weight(5), hold(200), weight(25), PROVE)
    course.tell(judgement=judged(canary=150))
    assert _edit(course) == ("ObjectivesChanged",)
    course.tell(judgement=judged(canary=150))
    assert course.state.weight_bp == 500
    course.tell(judgement=judged(canary=200))
    assert course.state.weight_bp == 2_500


def test_evidence_of_edited_objectives_is_counted_from_none():
    course = started(weight(5), hold(200), weight(25), hold(200), PROVE)
    course.tell(judgement=judged(canary=250))
    _edit(course)
    course.tell(judgement=judged(canary=200))
    assert course.state.step == 4


def test_proof_of_other_objectives_is_no_proof():
    course = started(weight(5), PROVE, weight(50), hold(10))
    course.tell(judgement=SAFE)
    _edit(course)
    course.tell(judgement=judged(canary=10))
    assert (course.state.stage, course.state.stable) == ("Steps", A.name)
    assert "Promoted" in course.tell(judgement=SAFE)


@pytest.mark.parametrize(
    ("attempt", "restarts", "alpha"),
    [
        pytest.param(1, 0, 0.01, id="first"),
        pytest.param(2, 0, 0.005, id="a retry"),
        pytest.param(1, 1, 0.005, id="one edit"),
        pytest.param(2, 2, 0.00125, id="a retry and two edits"),
    ],
)
def test_every_fresh_start_of_evidence_halves_alpha(attempt, restarts, alpha):
    assert effective_alpha(RolloutPolicy(alpha=0.01), attempt, restarts=restarts) == alpha


def test_alpha_is_never_0_which_would_mean_no_brake():
    assert effective_alpha(RolloutPolicy(alpha=0.01), 5_000, restarts=5_000) > 0


def test_fresh_starts_are_counted_within_an_attempt():
    course = started()
    for objectives in ("new", "newer", "new"):
        _edit(course, objectives)
    assert course.state.restarts == 3


def test_an_edit_before_the_first_traffic_spends_nothing():
    course = Course(paused=True)
    course.tell()
    course.tell(target=B)
    assert _edit(course) == ("ObjectivesChanged",)
    assert course.state.restarts == 0


def test_an_edit_between_attempts_spends_nothing():
    course = rolled_back()
    _edit(course)
    course.order("retry")
    assert (course.state.attempt, course.state.restarts) == (2, 0)


def _promoting(**told) -> Course:
    """Return a route whose proof is at hand and whose raise into the bake is not."""
    course = started(weight(50), PROVE, bake_ms=60_000)
    course.tell(judgement=SAFE, routers_in_sync=False, **told)
    assert course.state.stage == "Promoting"
    return course


def test_an_edit_while_promoting_asks_for_the_proof_again():
    course = _promoting()
    _edit(course)
    course.tell(routers_in_sync=True, judgement=judged(canary=10))
    assert (course.state.stage, course.state.weight_bp) == ("Steps", 5_000)
    assert "BakeStarted" in course.tell(judgement=SAFE)


def test_steps_added_meanwhile_do_not_begin_after_an_edit_while_promoting():
    course = _promoting()
    course.edit(steps=(weight(50), PROVE, weight(60), weight(70)))
    _edit(course)
    course.tell(routers_in_sync=True, judgement=judged(canary=10))
    assert course.state.weight_bp == 5_000


def test_an_edit_while_promoting_without_a_proof_step_asks_for_none():
    course = started(weight(50), hold(10), bake_ms=60_000)
    course.tell(judgement=judged(canary=10), routers_in_sync=False)
    _edit(course)
    assert course.state.stage == "Promoting"


def test_an_edit_does_not_undo_a_promote_in_full():
    course = started(weight(50), PROVE, bake_ms=60_000)
    course.tell(routers_in_sync=False)
    course.order("promote", full=True)
    _edit(course)
    assert course.state.stage == "Promoting"


def test_an_edit_in_the_bake_starts_its_clock_again():
    course = baking(bake_s=600)
    course.tell(after_s=599, judgement=SAFE_STILL)
    _edit(course)
    assert course.tell(after_s=599, judgement=judged(canary=900)) == ()
    assert course.tell(after_s=1)[-1] == "Promoted"


def test_an_edit_in_the_bake_needs_a_request_of_its_own():
    course = baking(bake_s=600)
    course.tell(judgement=SAFE_STILL)
    _edit(course)
    assert course.tell(after_s=86_400, judgement=judged(canary=0)) == ()
    assert course.tell(judgement=judged(canary=1))[-1] == "Promoted"
