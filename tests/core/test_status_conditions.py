"""Conditions: what pipelines and GitOps tools go by."""

import pytest
from msgspec.structs import replace

from support.rollouts import A, B, Course, baked, baking, judged, rolled_back, started
from support.routes import behaviour
from weir_core.errors import Problem
from weir_core.reach import LOADING
from weir_core.snapshot import Objective, Revision
from weir_core.status import Observed, route_status, sentence, turned

MISSING = Problem(
    object="ModelRoute llm/chat",
    field="spec.behaviour.tiers[0].backendRef",
    seen='"qwen"',
    wanted="the name of a ModelBackend",
    reason="BackendNotFound",
    condition="ResolvedRefs",
)


def conditions(course: Course, old=None, **observed) -> dict[str, dict[str, str]]:
    told = {
        "policy": course.policy,
        "target": course.told["target"].name if course.told["target"] else "",
        "generation": 7,
        "routers": 6,
        "routers_serving": 6,
        "routers_in_sync": 6,
        **observed,
    }
    status = route_status(course.state, Observed(**told), now_s=course.now_s, old=old)
    return {c["type"]: c for c in status["conditions"]}


def _healthy() -> Course:
    course = Course()
    course.tell()
    return course


def _paused() -> Course:
    course = started()
    course.order("pause")
    return course


def _inconclusive() -> Course:
    course = started(max_duration_ms=60_000)
    course.tell(after_s=60)
    return course


def _nothing_yet() -> Course:
    course = Course()
    course.tell(target=None)
    return course


TRUE = {
    "first revision": (_healthy, "Accepted Programmed Promoted Ready ResolvedRefs"),
    "on the way": (started, "Accepted Programmed Progressing Ready Reconciling ResolvedRefs"),
    "paused": (_paused, "Accepted Programmed Ready Reconciling ResolvedRefs"),
    "inconclusive": (_inconclusive, "Accepted Programmed Ready ResolvedRefs Stalled"),
    "in the bake": (baking, "Accepted Programmed Progressing Ready Reconciling ResolvedRefs"),
    "after the bake": (baked, "Accepted Programmed Promoted Ready ResolvedRefs"),
    "rolled back": (rolled_back, "Accepted Programmed Ready ResolvedRefs RolledBack Stalled"),
    "nothing yet": (_nothing_yet, "Accepted Programmed ResolvedRefs"),
}


@pytest.mark.parametrize(("course", "true"), TRUE.values(), ids=TRUE)
def test_what_is_true(course, true):
    shown = conditions(course())
    assert sorted(k for k, c in shown.items() if c["status"] == "True") == true.split()


@pytest.mark.parametrize("course", [started, baking, rolled_back, _paused])
def test_a_pipeline_that_waits_for_promoted_is_never_told_too_early(course):
    assert conditions(course())["Promoted"]["status"] == "False"


def test_back_at_stable_is_promoted():
    """The spec asks for what serves everything: nothing is left to wait for."""
    course = started()
    course.tell(target=A)
    assert conditions(course)["Promoted"]["status"] == "True"


@pytest.mark.parametrize(
    ("course", "kind", "reason"),
    [
        (started, "Progressing", "Stepping"),
        (baking, "Promoted", "Baking"),
        (_paused, "Progressing", "Paused"),
        (_inconclusive, "Stalled", "Inconclusive"),
        (rolled_back, "RolledBack", "Harm"),
        (rolled_back, "Promoted", "RolledBack"),
        (_nothing_yet, "Ready", "NoStableRevision"),
    ],
)
def test_a_condition_carries_its_reason(course, kind, reason):
    assert conditions(course())[kind]["reason"] == reason


def test_a_problem_says_what_serves_and_what_to_do():
    course = _healthy()
    course.tell(target=None)
    shown = conditions(course, problems=(MISSING,))
    assert shown["ResolvedRefs"] == {
        "type": "ResolvedRefs",
        "status": "False",
        "reason": "BackendNotFound",
        "message": f"keeps revision {A.name} serving; ModelRoute llm/chat: "
        'spec.behaviour.tiers[0].backendRef: saw "qwen", wanted the name of a ModelBackend',
        "observedGeneration": 7,
        "lastTransitionTime": "1970-01-01T00:16:42Z",
    }
    assert (shown["Promoted"]["status"], shown["Stalled"]["status"]) == ("False", "True")


def test_many_problems_are_counted():
    course = _nothing_yet()
    told = conditions(course, problems=(MISSING,) * 8)["ResolvedRefs"]["message"]
    assert told.startswith("nothing serves yet; ")
    assert told.endswith("; and 3 more")


@pytest.mark.parametrize(
    ("routers", "in_sync", "reason"),
    [(0, 0, "NoRouters"), (6, 5, "RoutersOutOfSync"), (6, 6, "Programmed")],
)
def test_programmed_only_when_every_ready_router_acknowledged(routers, in_sync, reason):
    shown = conditions(_healthy(), routers=routers, routers_in_sync=in_sync)["Programmed"]
    assert (shown["reason"], shown["status"]) == (reason, str(reason == "Programmed"))


CAPPED = Objective(name="errors", event="Error", max_rate=0.05)


@pytest.mark.parametrize(
    ("judgement", "objectives", "status", "reason"),
    [
        (None, (CAPPED,), "Unknown", "NotTried"),
        (judged(canary=0), (CAPPED,), "Unknown", "NoData"),
        (judged(canary=50), (CAPPED,), "True", "NoAlarm"),
        (judged(canary=50), (replace(CAPPED, max_rate=0.0),), "Unknown", "NoCeiling"),
        (judged(canary=50, holds=("StableUnhealthy",)), (CAPPED,), "False", "StableUnhealthy"),
    ],
    ids=["no rollout", "no data yet", "measured well", "nothing to measure by", "above it"],
)
def test_stable_health_is_what_a_rollout_measured(judgement, objectives, status, reason):
    shown = conditions(started(), judgement=judgement, objectives=objectives)["StableHealthy"]
    assert (shown["status"], shown["reason"]) == (status, reason)


def _answered() -> Course:
    """A route of two tiers that serves."""
    course = Course()
    course.tell(target=Revision(name=A.name, behaviour=behaviour(), content="a"))
    return course


@pytest.mark.parametrize(
    ("ejected", "status", "reason", "message"),
    [
        ({}, "True", "Serving", f"{A.name} serves"),
        (
            {"large-1": "Timeout"},
            "True",
            "ServingInPart",
            f"{A.name} serves, without tier large (large: Timeout)",
        ),
        (
            {"large-1": "Timeout", "small-1": "Connect"},
            "False",
            "NoHealthyBackend",
            "no healthy backend: tier small (small: Connect), tier large (large: Timeout)",
        ),
    ],
    ids=["all well", "one tier out", "all out"],
)
def test_a_route_is_ready_while_a_backend_is(ejected, status, reason, message):
    shown = conditions(_answered(), ejected=ejected)["Ready"]
    assert (shown["status"], shown["reason"], shown["message"]) == (status, reason, message)


def test_the_sentence_tells_what_serves_in_part():
    course = _answered()
    observed = Observed(policy=course.policy, target=A.name, routers_serving=1)
    told = replace(observed, ejected={"large-1": "Timeout"})
    assert sentence(course.state, observed) == f"{A.name} serves everything"
    assert sentence(course.state, told) == f"{A.name} serves, without tier large (large: Timeout)"


def _all(course: Course, **observed) -> list[dict[str, str]]:
    return list(conditions(course, **observed).values())


OUT = {"large-1": "Timeout", "small-1": "Connect"}


def test_an_outage_is_one_event_and_its_end_another():
    well, out = _all(_answered()), _all(_answered(), ejected=OUT)
    assert [(one.reason, one.warning) for one in turned(well, out)] == [("NoHealthyBackend", True)]
    assert [(one.reason, one.warning) for one in turned(out, well)] == [("Serving", False)]
    assert turned(out, out) == turned(well, well) == ()


def test_the_outage_of_a_route_that_never_was_ready_is_an_event():
    begins = _all(_answered(), routers=0, routers_serving=0, routers_in_sync=0)
    loads = _all(_answered(), ejected=dict.fromkeys(OUT, LOADING))
    out = _all(_answered(), ejected=OUT)
    assert turned((), begins) == turned(begins, loads) == ()
    for before in (begins, loads):
        (told,) = turned(before, out)
        assert (told.reason, told.warning) == ("NoHealthyBackend", True)
    assert turned(out, out) == ()


def test_a_tier_that_is_out_and_its_return_are_an_event_each():
    well, part = _all(_answered()), _all(_answered(), ejected={"large-1": "Timeout"})
    (lost,), (back,) = turned(well, part), turned(part, well)
    told = f"{A.name} serves, without tier large (large: Timeout)"
    assert (lost.reason, lost.message, lost.warning) == ("ServingInPart", told, True)
    assert (back.reason, back.message, back.warning) == ("Serving", f"{A.name} serves", False)
    assert turned(part, part) == ()


def test_what_serves_in_part_after_an_outage_is_told_once():
    part, out = _all(_answered(), ejected={"large-1": "Timeout"}), _all(_answered(), ejected=OUT)
    assert [one.reason for one in turned(out, part)] == ["ServingInPart"]


def test_a_refused_spec_is_an_event():
    refused = _all(_healthy(), problems=(MISSING,))
    assert [one.reason for one in turned(_all(_healthy()), refused)] == ["BackendNotFound"]


def test_of_what_was_not_known_before_only_bad_news_is_an_event():
    assert turned((), _all(_answered())) == ()
    assert len(turned((), _all(_answered(), ejected=OUT))) == 1


def test_a_condition_keeps_its_time_while_its_status_stays():
    course = started()
    told = Observed(policy=course.policy, target=B.name, routers_serving=1)
    old = route_status(course.state, told, now_s=5_000.0)
    course.tell(judgement=judged(canary=200))
    shown = conditions(course, old=old)
    assert shown["Accepted"]["lastTransitionTime"] == "1970-01-01T01:23:20Z"
    assert shown["Progressing"]["lastTransitionTime"] == "1970-01-01T00:16:43Z"


def test_router_that_cannot_be_made_is_an_event_and_so_is_its_end_but_no_lag():
    foreign = Problem(
        object="ModelRoute llm/assistant",
        field="",
        seen="Service llm/weir-router: one without the label",
        wanted="that name",
        reason="ForeignObject",
        condition="Programmed",
    )
    well, lagging = _all(_answered()), _all(_answered(), routers_in_sync=5)
    out = _all(_answered(), problems=(foreign,))
    (programmed,) = (one for one in out if one["type"] == "Programmed")
    assert programmed["status"] == "False"
    assert [(one.reason, one.warning) for one in turned(well, out)] == [("ForeignObject", True)]
    assert [(one.reason, one.warning) for one in turned(out, well)] == [("Programmed", False)]
    assert turned(well, lagging) == turned(lagging, well) == ()
