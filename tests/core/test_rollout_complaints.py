"""Users of other canary tools were left with these; each has its answer here.

Numbers are of the list of complaints that the design answers; those about statistics, routing
and the API are answered by other tests.
"""

import msgspec
import pytest

from support.rollouts import (
    HARM,
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
    revision,
    rolled_back,
    started,
    trip,
    weight,
)
from weir_core.rollout import brake, rebuild, remembered
from weir_core.status import Observed, route_status


def test_no_traffic_is_waited_for():
    """1, 23: no traffic reverts or fails a canary elsewhere."""
    course = started()
    for _ in range(10):
        assert course.tell(after_s=86_400, judgement=judged("InsufficientData", 0)) == ()
    assert course.state.phase == "Progressing"


def test_an_empty_result_is_no_verdict():
    """2: an empty result aborts elsewhere."""
    course = started()
    assert course.tell(judgement=None) == ()
    assert course.state.weight_bp == 500


def test_an_objective_can_pause_instead_of_abort():
    """4: pause, not abort, while trust in an objective grows."""
    course = started()
    course.tell(judgement=judged(canary=50, holds=("Objective/load",)))
    assert (course.state.phase, course.state.weight_bp) == ("Paused", 500)


def test_a_rollback_says_why():
    """6, 31: why it aborted, with the value and the threshold."""
    course = started()
    course.tell(judgement=HARM)
    assert course.messages() == (
        f"{B.name} attempt 1 rolled back from 5% by controller: Harm on errors "
        "(canary 9/812, stable 171/15420), E 132 of 125 "
        f"after 143 canary requests, 9 of them bad; {A.name} serves everything"
    )


@pytest.mark.parametrize("canary", [1, 200, 10_000])
def test_a_failed_analysis_stops_the_rollout(canary):
    """7: analysis failed and the rollout went on."""
    course = started()
    course.tell(judgement=judged("Harm", canary))
    assert course.state.weight_bp == 0


def test_no_step_is_taken_on_harm():
    """8: promotion went on while failures accumulated, the gate being met."""
    course = started()
    reasons = course.tell(judgement=judged("Harm", 200))
    assert "StepCompleted" not in reasons


@pytest.mark.parametrize("verb", ["promote", "abort", "resume"])
def test_inconclusive_has_ways_out(verb):
    """9: stuck or looping after Inconclusive."""
    course = started(max_duration_ms=60_000)
    course.tell(after_s=60, judgement=judged(canary=20))
    assert course.tell(after_s=60) == ()
    course.order(verb)
    assert not course.state.inconclusive


def test_a_restart_finds_nothing_to_cure():
    """10: stuck in Progressing until the controller was restarted."""
    course = started()
    course.tell(judgement=judged(canary=120))
    after_restart = Course(state=course.state)
    after_restart.told, after_restart.now_s = dict(course.told), course.now_s
    assert after_restart.tell(after_s=0) == ()
    assert after_restart.state == course.state


def test_nothing_is_retried_by_itself():
    """11: an unexplained retry after an abort."""
    course = started()
    course.order("abort")
    for _ in range(5):
        assert course.tell(after_s=3_600, judgement=None) == ()


def test_a_new_revision_on_the_way_is_not_ignored():
    """12: a new revision in the middle of a canary was ignored."""
    course = started()
    course.tell(target=C)
    assert course.state.canary == C.name


def test_stable_may_go_only_after_the_bake():
    """13: rollback overloaded a stable that had been scaled down."""
    course = baking()
    assert "Promoted" not in course.tell(after_s=3_599, judgement=SAFE_STILL)
    assert course.state.stable == A.name
    assert "Promoted" in course.tell(after_s=1)


def test_a_bad_stable_does_not_keep_a_good_canary_out():
    """14: a bad stable blocked a good canary."""
    course = started(bake_ms=60_000)
    course.tell(judgement=judged(canary=300, holds=("StableUnhealthy",)))
    course.order("promote", full=True)
    course.tell(after_s=60, judgement=judged(canary=301))
    assert course.state.stable == B.name


def test_the_way_back_to_a_proven_revision_is_one_step():
    """15: the way back ran all of the analysis."""
    course = baked()
    course.tell(target=A)
    assert course.state.weight_bp == 9_000


def test_weights_below_one_percent():
    """18: weights below 1 %."""
    course = started(weight(0.5), hold(10), weight(5), PROVE)
    assert course.state.weight_bp == 50
    assert "0.5% to" in course.messages()


def test_every_change_of_weight_is_told():
    """19: aborts and weights could not be counted."""
    course = started()
    assert [t.reason for t in course.happened][-1] == "WeightUpdated"
    assert course.tell(judgement=HARM) == ("RolledBack",)


def test_state_is_bounded():
    """20: a status overflowed etcd."""
    course = started()
    for turn in range(200):
        course.tell(target=revision("bcdefghijklmnopqrstuvwxyz"[turn % 25]))
        course.tell(judgement=judged("Harm", 50))
    assert len(msgspec.json.encode(remembered(course.state))) < 4_000
    assert len(course.state.records) == 10


def test_a_rollback_needs_no_git():
    """22: the rollback had to be written to Git; with the bad spec still there it came back."""
    course = rolled_back()
    course.tell(target=B, after_s=3_600)
    assert (course.state.phase, course.state.weight_bp) == ("Degraded", 0)


def test_a_breach_while_paused_rolls_back():
    """24: a breach during a gate never rolled back."""
    course = started()
    course.tell(judgement=judged(canary=200))
    assert course.state.phase == "Paused"
    course.tell(judgement=HARM)
    assert course.state.weight_bp == 0


@pytest.mark.parametrize(("verb", "phase"), [("abort", "Degraded"), ("promote", "Progressing")])
def test_people_decide_without_a_server_of_their_own(verb, phase):
    """26: failing or promoting by hand needed a webhook server."""
    course = started(weight(5), hold(200), weight(25), PROVE)
    course.tell(judgement=judged(canary=3))
    course.order(verb)
    assert course.state.phase == phase


def test_the_old_revision_is_warm_until_the_bake_ends():
    """27: instant rollback after promotion."""
    course = baking()
    course.tell(judgement=HARM)
    assert (course.state.stable, course.state.weight_bp) == (A.name, 0)


def test_promoting_says_what_it_waits_for_and_goes_on():
    """28: stuck in Promoting."""
    course = started(weight(50), PROVE, bake_ms=60_000)
    course.tell(judgement=SAFE, routers_in_sync=False)
    assert (course.state.stage, course.state.holds) == ("Promoting", ("RoutersOutOfSync",))
    course.tell(routers_in_sync=True)
    assert course.state.stage == "Bake"


def test_promoting_can_be_aborted():
    """28: stuck in Promoting."""
    course = started(weight(50), PROVE, bake_ms=60_000)
    course.tell(judgement=SAFE, capacity_bp=0)
    course.order("abort")
    assert course.state.phase == "Degraded"


def test_the_same_version_can_be_retried():
    """29: no way to retry the same version."""
    course = rolled_back()
    course.order("retry")
    assert (course.state.canary, course.state.attempt) == (B.name, 2)


def test_a_rebuilt_cluster_does_not_promote_the_unproven():
    """30: a cluster rebuilt in the middle of a canary promoted the unproven revision."""
    records = started().state.records
    course = Course(state=rebuild(records))
    course.tell(target=B)
    assert (course.state.stable, course.state.weight_bp) == (A.name, 500)


def test_a_cluster_rebuilt_from_git_alone_honours_the_pin():
    """30: nothing but Git is left; the pin says what had been proven."""
    course = Course(stable_revision=A.name)
    course.tell(target=B)
    assert course.state.stable == ""


def test_the_status_shows_the_value_and_the_threshold():
    """31: the value and the threshold that were used."""
    course = started()
    course.tell(judgement=judged(canary=50))
    seen = Observed(policy=course.policy, judgement=judged(canary=50))
    status = route_status(course.state, seen, now_s=course.now_s)
    assert (status["eValue"], status["threshold"]) == ("1.8", "125")


def test_few_gpus_delay_a_canary_and_say_so():
    """33: a canary was silently ignored; few GPUs."""
    course = Course()
    course.tell()
    course.tell(target=B, capacity_bp=0, capacity_message="no node has a free nvidia.com/gpu")
    assert (course.state.phase, course.state.holds) == ("Progressing", ("NoCapacity",))
    assert "nvidia.com/gpu" in course.messages()


def test_a_router_alone_can_only_abort():
    """35: an actor that may abort and never promote, built by hand."""
    state = started().state
    assert brake(state, trip(), now_s=1_003.0).state.weight_bp == 0
    assert brake(state, trip(attempt=2), now_s=1_003.0).state.weight_bp == 500
