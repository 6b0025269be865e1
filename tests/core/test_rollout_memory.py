"""What survives: lost status, torn writes, a rebuilt cluster, another version's state."""

import pytest
from msgspec.structs import replace

from support.rollouts import (
    HARM,
    PROVE,
    SAFE,
    A,
    B,
    C,
    Course,
    baked,
    baking,
    judged,
    revision,
    rolled_back,
    started,
    weight,
)
from weir_core.history import MAX_LATCHES, MAX_RECORDS, Latch, RevisionRecord, find, put, remember
from weir_core.rollout import RolloutState, latches, rebuild, recalled, remembered


def _lost(course: Course) -> Course:
    """Return the route after its status was lost and its revisions' records were not."""
    again = Course(state=rebuild(course.state.records))
    again.policy, again.now_s = course.policy, course.now_s
    return again


def _outcomes(course: Course) -> dict[str, str]:
    return {r.revision.content: r.outcome for r in course.state.records}


@pytest.mark.parametrize(
    ("course", "outcomes"),
    [
        (started, {"a": "Stable", "b": "Canary"}),
        (rolled_back, {"a": "Stable", "b": "RolledBack"}),
        (baking, {"a": "Stable", "b": "Canary"}),
    ],
    ids=["on the way", "rolled back", "in the bake"],
)
def test_records_tell_what_became_of_each_revision(course, outcomes):
    assert _outcomes(course()) == outcomes


def test_the_promoted_is_stable_and_the_old_one_superseded():
    course = baked()
    assert _outcomes(course) == {"a": "Superseded", "b": "Stable"}


def test_a_lost_status_of_a_rolled_back_route_stays_degraded():
    course = _lost(rolled_back())
    assert course.tell(target=B) == ("AttemptRefused",)
    assert (course.state.phase, course.state.stable, course.state.attempt) == (
        "Degraded",
        A.name,
        1,
    )


def test_a_lost_status_on_the_way_begins_the_steps_again_in_the_same_attempt():
    course = _lost(started())
    assert (course.state.canary, course.state.attempt, course.state.weight_bp) == (B.name, 1, 0)
    course.tell(target=B)
    assert course.state.weight_bp == 500


def test_a_rebuilt_rollout_counts_no_requests_of_before():
    course = _lost(started())
    course.tell(target=B, judgement=judged(canary=500))
    assert (course.state.step, course.state.weight_bp) == (1, 500)


def test_a_rolled_back_revision_alone_does_not_come_back_as_the_first():
    records = tuple(r for r in rolled_back().state.records if r.outcome == "RolledBack")
    course = Course(state=rebuild(records))
    assert course.tell(target=B) == ("AttemptRefused",)
    assert (course.state.stable, course.state.phase) == ("", "Degraded")
    assert course.tell(target=B) == ()


def test_a_rolled_back_revision_alone_may_be_taken_by_a_person():
    records = tuple(r for r in rolled_back().state.records if r.outcome == "RolledBack")
    course = Course(state=rebuild(records))
    course.tell(target=B)
    assert course.order("retry") == ("Promoted",)
    assert course.state.stable == B.name


def test_another_target_leads_out_of_a_refused_first_revision():
    records = tuple(r for r in rolled_back().state.records if r.outcome == "RolledBack")
    course = Course(state=rebuild(records))
    course.tell(target=B)
    course.tell(target=C)
    assert (course.state.stable, course.state.phase) == (C.name, "Healthy")


def test_the_pin_keeps_an_unproven_revision_from_being_the_first():
    course = Course(stable_revision=A.name)
    assert course.tell(target=B) == ("AttemptRefused",)
    assert A.name in course.messages()
    assert course.state.stable == ""
    course.tell(target=A)
    assert course.state.stable == A.name


def test_a_pinned_revision_that_is_known_is_stable():
    records = tuple(RevisionRecord(revision=r, outcome="Superseded", since_s=1.0) for r in (A, B))
    course = Course(state=rebuild(records), stable_revision="aaaaaaaaaa")
    course.tell(target=B)
    assert (course.state.stable, course.state.canary) == (A.name, B.name)


def test_the_pin_does_not_undo_a_promotion():
    course = baked(stable_revision=A.name)
    assert course.tell() == ()
    assert course.state.stable == B.name


def test_of_two_that_say_stable_the_last_promoted_is():
    records = tuple(
        RevisionRecord(revision=r, outcome="Stable", since_s=t, promoted_s=t)
        for r, t in ((B, 2.0), (A, 1.0))
    )
    state = rebuild(records)
    assert state.stable == B.name
    assert [r.outcome for r in state.records] == ["Stable", "Superseded"]


def test_without_a_stable_record_the_last_proven_serves():
    records = (
        RevisionRecord(revision=A, outcome="Superseded", since_s=1.0, promoted_s=1.0),
        RevisionRecord(revision=B, outcome="Canary", since_s=2.0, attempt=1),
    )
    state = rebuild(records)
    assert (state.stable, state.canary) == (A.name, B.name)


def test_a_rollback_that_reached_only_the_record_is_taken_from_it():
    before, after = started(), rolled_back()
    state = rebuild(after.state.records, before.state)
    assert (state.phase, state.weight_bp, state.last_rollback) == (
        "Degraded",
        0,
        after.state.last_rollback,
    )


def test_a_promotion_that_reached_only_the_records_is_not_believed():
    before = baking()
    after = baked()
    state = rebuild(after.state.records, before.state)
    assert (state.stable, state.canary) == (A.name, B.name)
    assert {r.outcome for r in state.records} == {"Stable", "Canary"}


def test_a_canary_whose_record_is_gone_is_dropped():
    course = started()
    state = rebuild(course.state.records[:1], course.state)
    assert (state.stable, state.canary, state.weight_bp) == (A.name, "", 0)


def test_an_earlier_attempts_rollback_does_not_stop_the_present_one():
    course = rolled_back()
    course.order("retry")
    assert rebuild(course.state.records, course.state) == course.state


@pytest.mark.parametrize("course", [started, rolled_back, baking])
def test_what_is_stored_is_recalled(course):
    state = course().state
    assert recalled(remembered(state), state.records) == state


@pytest.mark.parametrize(
    "stored", [None, {"stage": "Flying"}, {"weight_bp": "all"}], ids=["none", "newer", "broken"]
)
def test_an_unreadable_state_is_rebuilt(stored):
    records = started().state.records
    assert recalled(stored, records) == rebuild(records)


def test_what_is_stored_beside_the_records_holds_no_bodies():
    assert "content" not in str(remembered(started().state))


def test_no_records_rebuild_to_nothing():
    assert rebuild(()) == RolloutState()


def _record(letter: str, outcome: str, at_s: float) -> RevisionRecord:
    return RevisionRecord(revision=revision(letter), outcome=outcome, since_s=at_s)  # type: ignore[arg-type]


def test_superseded_revisions_are_forgotten_before_rolled_back_ones():
    records = tuple(
        _record(letter, "RolledBack" if letter == "a" else "Superseded", at_s)
        for at_s, letter in enumerate("abcdefghij")
    )
    kept = put(records, _record("k", "Canary", 11.0), keep=())
    assert len(kept) == MAX_RECORDS
    assert find(kept, A.name) is not None
    assert find(kept, B.name) is None


def test_the_stable_revision_is_never_forgotten():
    course = Course()
    course.tell()
    for letter in "bcdefghijklmnop":
        course.tell(target=revision(letter))
    assert len(course.state.records) == MAX_RECORDS
    assert find(course.state.records, A.name) is not None


def _forgotten(course: Course) -> Course:
    """Return the route after so many other revisions that B's record is gone."""
    for letter in "cdefghijklmno":
        course.tell(target=revision(letter))
        course.tell(judgement=HARM)
    assert find(course.state.records, B.name) is None
    return course


def test_a_rolled_back_revision_whose_body_is_forgotten_does_not_begin_again():
    course = _forgotten(rolled_back())
    assert course.tell(target=B) == ("AttemptRefused",)
    assert (course.state.phase, course.state.attempt) == ("Degraded", 1)


def test_the_refusal_of_a_forgotten_revision_tells_of_its_own_rollback():
    course = _forgotten(rolled_back())
    course.tell(target=B)
    why = course.state.last_rollback
    assert why is not None
    assert (why.revision, why.attempt, why.reason, why.weight_bp) == (B.name, 1, "Harm", 500)


def test_a_retry_of_a_forgotten_revision_is_another_attempt():
    course = _forgotten(rolled_back())
    course.tell(target=B)
    course.order("retry")
    assert (course.state.live, course.state.attempt) == (True, 2)


def test_a_new_token_retries_a_forgotten_revision_in_another_attempt():
    course = _forgotten(rolled_back())
    course.edit(retry_token="again")
    course.tell(target=B)
    assert (course.state.live, course.state.attempt) == (True, 2)


def test_a_forgotten_revision_stays_latched():
    state = _forgotten(rolled_back()).state
    assert (B.name, 1) in latches(state.records, state.latched)
    assert len(latches(state.records, state.latched)) == 14


def test_a_forgotten_revision_is_not_taken_for_the_first():
    course = _forgotten(rolled_back())
    bad = tuple(r for r in course.state.records if r.outcome == "RolledBack")
    again = Course(state=rebuild(bad, course.state))
    assert again.tell(target=B) == ("AttemptRefused",)
    assert again.state.stable == ""


def test_a_revision_that_was_good_after_its_retry_may_begin_again_when_forgotten():
    course = rolled_back(weight(50), PROVE)
    course.order("retry")
    course.tell(judgement=SAFE)
    assert course.state.stable == B.name
    course.tell(target=C)
    course.tell(judgement=SAFE)
    _forgotten(course)
    course.tell(target=B)
    assert (course.state.live, course.state.attempt) == (True, 3)


def test_rollbacks_of_an_older_state_are_kept_before_their_records_go():
    course = rolled_back()
    course.state = replace(course.state, latched=())
    assert _forgotten(course).tell(target=B) == ("AttemptRefused",)


def test_what_is_kept_of_forgotten_revisions_survives_a_restart():
    state = _forgotten(rolled_back()).state
    assert recalled(remembered(state), state.records) == state


def test_the_oldest_of_very_many_latches_goes():
    latched = tuple(
        Latch(name=f"chat-{n:010}", attempt=1, tripped=1, out=True) for n in range(MAX_LATCHES)
    )
    record = replace(_record("k", "RolledBack", 1.0), attempt=1, tripped=1)
    kept = remember(latched, (record,))
    assert len(kept) == MAX_LATCHES
    assert (kept[0], kept[-1].name) == (latched[1], "chat-kkkkkkkkkk")


def _proven(outcome: str, letter: str, at_s: float, **fields: object) -> RevisionRecord:
    return replace(_record(letter, outcome, at_s), promoted_s=at_s, **fields)


def test_a_rollback_of_stable_that_the_state_does_not_know_of_is_taken_from_the_record():
    """A leader that froze wrote a promotion after the next one had rolled it back."""
    records = (_proven("Superseded", "a", 1.0), *rolled_back().state.records[1:])
    state = rebuild(records, RolloutState(stable=B.name))
    assert (state.stable, state.canary, state.stage) == (A.name, B.name, "RolledBack")
    assert {r.revision.name: r.outcome for r in state.records} == {
        A.name: "Stable",
        B.name: "RolledBack",
    }


def test_a_rollback_that_stable_got_over_does_not_come_back():
    records = (_proven("Superseded", "a", 1.0), *rolled_back().state.records[1:])
    over = Latch(name=B.name, attempt=2, tripped=1, out=False)
    assert rebuild(records, RolloutState(stable=B.name, latched=(over,))).stable == B.name


def test_the_only_revision_that_ever_served_goes_on():
    records = rolled_back().state.records[1:]
    assert rebuild(records, RolloutState(stable=B.name)).stable == B.name


def test_of_many_records_stable_canary_and_the_newest_are_recalled():
    letters = "bcdefghijklmnop"
    records = (
        _proven("Stable", "a", 1.0),
        *(replace(_record(x, "RolledBack", 2.0 + n), tripped=1) for n, x in enumerate(letters)),
    )
    stored = RolloutState(stable=A.name, canary=B.name, attempt=1, stage="RolledBack")
    state = rebuild(records, stored)
    assert len(state.records) == MAX_RECORDS
    assert [r.revision.content for r in state.records] == ["a", "b", *letters[-8:]]
    assert {name for name, _ in latches(state.records, state.latched)} == {
        r.revision.name for r in records[1:]
    }
