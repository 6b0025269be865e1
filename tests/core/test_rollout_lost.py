"""A stable revision whose body is nowhere any more: nothing takes its place by itself."""

from support.rollouts import A, B, C, Course, baked, started
from weir_core.conditions import Observed, route_conditions
from weir_core.rollout import rebuild, recalled, remembered
from weir_core.status import sentence


def lost(course: Course) -> Course:
    """Return the route after the body of its stable revision was lost, its state was not."""
    others = tuple(r for r in course.state.records if r.revision.name != course.state.stable)
    again = Course(state=rebuild(others, course.state))
    again.policy, again.now_s = course.policy, course.now_s
    return again


def told(course: Course, kind: str) -> tuple[str, str]:
    """Return reason and message of a condition."""
    observed = Observed(policy=course.policy, target=B.name, routers_serving=1)
    conditions = route_conditions(course.state, observed, message="m", old=(), now_s=0)
    found = next(one for one in conditions if one["type"] == kind)
    assert found["status"] == ("True" if kind == "Stalled" else "False")
    return found["reason"], found["message"]


def test_the_specs_target_does_not_take_its_place():
    course = lost(started())
    assert course.tell(target=B) == ("AttemptRefused",)
    assert (course.state.stable, course.state.phase) == ("", "Degraded")
    assert course.tell(target=C) == ("AttemptRefused",)
    assert course.state.stable == ""


def test_a_revision_that_was_stable_before_does_not_take_its_place():
    course = lost(baked())
    assert course.tell(target=A) == ("AttemptRefused",)
    assert course.state.stable == ""


def test_the_spec_that_it_was_made_of_brings_it_back():
    course = lost(started())
    course.tell(target=B)
    assert course.tell(target=A) == ("RevisionCreated", "Promoted")
    assert (course.state.stable, course.state.lost) == (A.name, "")
    assert course.tell(target=B)[0] == "RolloutStarted"


def test_a_person_lets_another_take_its_place():
    course = lost(started())
    course.tell(target=B)
    assert course.order("retry") == ("Promoted",)
    assert (course.state.stable, course.state.lost) == (B.name, "")


def test_a_pin_lets_another_take_its_place():
    course = lost(started())
    course.edit(stable_revision=B.name)
    assert course.tell(target=B) == ("Promoted",)


def test_it_stays_lost_after_another_restart():
    course = lost(started())
    course.tell(target=B)
    assert recalled(remembered(course.state), course.state.records) == course.state


def test_its_body_that_is_found_again_serves_again():
    before = started()
    course = lost(before)
    course.tell(target=B)
    state = recalled(remembered(course.state), before.state.records)
    assert (state.stable, state.lost) == (A.name, "")


def test_conditions_say_what_was_lost_and_what_to_do():
    course = lost(started())
    for target in (None, B):
        course.tell(target=target)
        for kind in ("Ready", "StableHealthy", "Stalled"):
            assert told(course, kind)[0] == "StableLost"
        assert f"apply the spec that {A.name} was made of" in told(course, "Ready")[1]
    assert A.name in sentence(course.state, Observed(policy=course.policy, target=B.name))
