"""What a route says of itself."""

import json

import pytest
from msgspec.structs import replace

from support.rollouts import (
    HARM,
    PROVE,
    SAFE,
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
    trip,
    weight,
)
from weir_core.errors import Problem
from weir_core.snapshot import Backend, Behaviour, Objective, Tier
from weir_core.status import COLUMNS, Observed, columns, route_status

ERRORS = Objective(name="errors", event="Error")


def status_of(course: Course, **observed):
    told = {
        "policy": course.policy,
        "target": course.told["target"].name if course.told["target"] else "",
        "generation": 7,
        "routers": 6,
        "routers_serving": 6,
        "routers_in_sync": 6,
        **observed,
    }
    return route_status(course.state, Observed(**told), now_s=course.now_s)


def _held_at_load() -> Course:
    course = started()
    course.tell(judgement=judged(canary=112, holds=("Objective/load",)))
    return course


def _inconclusive() -> Course:
    course = started(max_duration_ms=60_000)
    course.tell(after_s=60, judgement=judged(canary=112))
    return course


def _proving() -> Course:
    return started(weight(50), PROVE)


def _healthy() -> Course:
    course = Course()
    course.tell()
    return course


def _loading() -> Course:
    course = Course()
    course.tell()
    course.tell(target=B, capacity_bp=0)
    return course


NO_BACKEND = Problem(
    object="ModelRoute llm/chat",
    field="spec.behaviour.tiers[0].backendRef",
    seen="small",
    wanted="a ModelBackend that is there",
    reason="BackendNotFound",
    condition="ResolvedRefs",
)


@pytest.mark.parametrize(
    ("course", "observed", "message"),
    [
        pytest.param(
            started,
            {"judgement": judged(canary=112), "objectives": (ERRORS,)},
            f"step 2/6 (hold): 5% to {B.name}, no harm (E 1.8 of 125), 112 of 200 canary requests,"
            " a doubling of errors takes at least 1,205 canary requests to be seen",
            id="on the way",
        ),
        pytest.param(
            started,
            {"judgement": judged(canary=1_205), "objectives": (ERRORS,)},
            f"step 2/6 (hold): 5% to {B.name}, no harm (E 1.8 of 125), 1205 of 200 canary requests",
            id="a doubling would have been seen",
        ),
        pytest.param(
            started, {}, f"step 2/6 (hold): 5% to {B.name}, no evidence yet", id="no reports yet"
        ),
        pytest.param(
            _held_at_load,
            {"judgement": judged(canary=112, holds=("Objective/load",))},
            f"paused (Objective/load), step 2/6 (hold): 5% to {B.name}, no harm (E 1.8 of 125), "
            "112 of 200 canary requests",
            id="held",
        ),
        pytest.param(
            _inconclusive,
            {"judgement": judged(canary=112)},
            f"paused (Inconclusive), step 2/6 (hold): 5% to {B.name}, no harm (E 1.8 of 125), "
            "112 of 200 canary requests; promote, abort or resume it by command",
            id="inconclusive",
        ),
        pytest.param(
            _proving,
            {"judgement": judged(canary=112)},
            f"step 2/2 (prove): 50% to {B.name}, no harm (E 1.8 of 125), proof 3.2 of 20 "
            "(errors has least)",
            id="proving",
        ),
        pytest.param(
            baking,
            {"judgement": SAFE_STILL},
            f"bake until 1970-01-01T01:16:43Z: 90% to {B.name}, shown to be safe (E 1.8 of 125)",
            id="baking",
        ),
        pytest.param(
            baking,
            {"judgement": SAFE},
            "bake waits for a canary request, at least until 1970-01-01T01:16:43Z: "
            f"90% to {B.name}, shown to be safe (E 1.8 of 125)",
            id="baking without traffic",
        ),
        pytest.param(
            rolled_back,
            {},
            f"{B.name} attempt 1 rolled back from 5% by controller: Harm on errors "
            "(canary 9/812, stable 171/15420), E 132 of 125 "
            f"after 143 canary requests, 9 of them bad; keeps revision {A.name} serving; "
            "change the behaviour, or retry it",
            id="rolled back",
        ),
        pytest.param(_healthy, {}, f"{A.name} serves everything", id="healthy"),
        pytest.param(
            Course,
            {},
            "no revision yet: the spec has a problem, see condition Accepted",
            id="nothing yet",
        ),
        pytest.param(
            Course,
            {"problems": (NO_BACKEND,)},
            "no revision yet: the spec has a problem, see condition ResolvedRefs",
            id="nothing yet, of something that is not there",
        ),
        pytest.param(
            _loading,
            {},
            f"waits (NoCapacity), step 1/6 (setWeight): 0% to {B.name}, no evidence yet",
            id="waits for its model",
        ),
    ],
)
def test_one_sentence_says_it_with_the_numbers(course, observed, message):
    assert status_of(course(), **observed)["message"] == message


def test_a_refused_first_revision_says_what_to_do():
    course = Course(stable_revision=A.name)
    course.tell(target=B)
    assert "apply the behaviour of" in status_of(course)["message"]


@pytest.mark.parametrize(
    ("course", "observed", "row"),
    [
        pytest.param(
            started,
            {"judgement": judged(canary=112)},
            ("Progressing", "2/6", "5%", "NoHarmYet", "1.8", A.name, B.name, "2d4h"),
            id="on the way",
        ),
        pytest.param(
            _inconclusive,
            {"judgement": judged(canary=112)},
            ("Paused", "2/6", "5%", "Inconclusive", "1.8", A.name, B.name, "2d4h"),
            id="inconclusive",
        ),
        pytest.param(
            baking,
            {"judgement": judged("Safe", 900)},
            ("Progressing", "bake", "90%", "Safe", "1.8", A.name, B.name, "2d4h"),
            id="baking",
        ),
        pytest.param(
            rolled_back,
            {},
            ("Degraded", "", "0%", "Harm", "", A.name, B.name, "2d4h"),
            id="rolled back",
        ),
        pytest.param(_healthy, {}, ("Healthy", "", "0%", "", "", A.name, "", "2d4h"), id="healthy"),
    ],
)
def test_a_row_of_kubectl_get(course, observed, row):
    shown = columns(status_of(course(), **observed), age_s=187_200)
    assert shown == row
    assert len(shown) == len(COLUMNS)


def test_an_objective_shows_counts_ratio_and_evidence():
    objective = status_of(started(), judgement=judged(canary=112))["evidence"]["objectives"][0]
    assert objective == {
        "name": "errors",
        "event": "Error",
        "mode": "Enforce",
        "verdict": "NoHarmYet",
        "canary": "9/812",
        "stable": "171/15420",
        "ratio": "1",
        "interval": "0.4-2.1",
        "eValue": "1.8",
        "promoteEValue": "3.2",
        "suspect": False,
        "requestsToDetect": "",
    }


def test_the_last_rollback_is_told_in_full():
    last = status_of(rolled_back())["lastRollback"]
    assert last["message"].startswith(f"{B.name} attempt 1 rolled back")
    assert {k: last[k] for k in ("reason", "suspect", "eValue", "badServed", "decidedBy")} == {
        "reason": "Harm",
        "suspect": "errors",
        "eValue": "132",
        "badServed": 9,
        "decidedBy": "controller",
    }


def test_the_last_rollback_stays_after_a_good_rollout():
    course = rolled_back(weight(50), PROVE)
    course.order("retry")
    course.tell(judgement=judged("Safe", 900))
    assert status_of(course)["lastRollback"]["attempt"] == 1


def test_a_trip_without_counts_shows_its_evidence():
    course = started()
    course.tell(trips=(trip(),))
    assert "router/r-2: Harm on errors, E 665" in status_of(course)["message"]


def test_the_last_command_is_acknowledged():
    course = started()
    course.order("abort", of="chat-cccccccccc")
    last = status_of(course)["lastCommand"]
    assert (last["result"], last["command"]) == ("Refused", "abort@chat-cccccccccc#1003")
    assert B.name in last["message"]


def test_the_weight_measured_stands_beside_the_weight_set():
    course = started()
    assert status_of(course, actual_weight_bp=497.4)["weight"] == {"set": "5%", "actual": "4.97%"}


def test_weights_below_one_percent_are_shown():
    assert status_of(started(weight(0.5), hold(10)))["weight"]["set"] == "0.5%"


def _many_objectives():
    objective = judged().objectives[0]
    return judged(canary=3, objectives=(objective,) * 50)


@pytest.mark.parametrize("course", [started, rolled_back, baking, _inconclusive, Course])
def test_a_status_is_small_plain_json(course):
    status = status_of(course(), judgement=_many_objectives())
    assert json.loads(json.dumps(status, allow_nan=False)) == status
    assert len(json.dumps(status)) < 16_000


def test_coverage_of_nothing_is_not_told():
    status = status_of(started(), judgement=judged(canary=0))
    assert status["evidence"]["coverage"] == ""


def test_a_refused_spec_is_told_beside_what_serves():
    problem = Problem(object="ModelRoute llm/chat", field="spec", seen="x", wanted="y")
    assert status_of(_healthy(), problems=(problem,))["message"] == (
        f"{A.name} serves everything; the spec has a problem, see condition Accepted"
    )


@pytest.mark.parametrize(
    ("course", "told"),
    [
        (started, []),
        (_healthy, []),
        (rolled_back, []),
        (_held_at_load, [("ObjectiveHeld", "Objective/load: the objective is worse")]),
        (_inconclusive, [("Inconclusive", "nothing was decided within maxDuration")]),
        (lambda: started(weight(5), pause()), [("Paused", "paused by step 2/2 (pause); resume")]),
        (
            lambda: started(weight(5), pause(), paused=True),
            [("Paused", "paused by spec.rollout.paused; it goes on")],
        ),
    ],
    ids=["moving", "idle", "rolled back", "held", "inconclusive", "at a pause", "paused by spec"],
)
def test_what_stands_still_says_why(course, told):
    shown = status_of(course())["standstill"]
    assert [one["reason"] for one in shown] == [reason for reason, _ in told]
    assert all(one["message"].startswith(text) for one, (_, text) in zip(shown, told, strict=True))


def _changing() -> Course:
    """A route that begins to ask less of its small tier's answers, on backends of its own."""
    course = Course()
    course.tell(target=replace(A, behaviour=_answered("small")))
    course.tell(target=replace(B, behaviour=_answered("tiny")))
    return course


def _answered(name: str) -> Behaviour:
    backend = Backend(name=name, identity=f"{name}-1", url=f"http://{name}", model=name)
    return Behaviour(deadline_ms=1_000, max_attempts=1, tiers=(Tier(name="one", backend=backend),))


def test_what_the_canary_changes_is_told():
    status = status_of(_changing())
    assert status["canary"]["changes"] == ["tiers[one].backendRef: small → tiny"]
    (progressing,) = (one for one in status["conditions"] if one["type"] == "Progressing")
    assert progressing["message"].endswith("; it changes tiers[one].backendRef: small → tiny")


def test_the_event_that_starts_a_rollout_tells_the_change():
    assert "; it changes tiers[one].backendRef: small → tiny" in _changing().messages()


def test_what_no_router_serves_yet_is_not_healthy():
    told = status_of(_healthy(), routers=0, routers_serving=0, routers_in_sync=0)
    assert told["phase"] == "Progressing"
    assert told["message"].endswith("no ready router has acknowledged it yet")
    assert status_of(_healthy())["phase"] == "Healthy"


def test_a_first_spec_with_a_problem_is_degraded():
    course = Course()
    course.tell(target=None)
    problem = Problem(object="ModelRoute llm/assistant", field="spec", seen="x", wanted="y")
    told = status_of(course, problems=(problem,), target="")
    assert (told["phase"], told["stable"]["revision"]) == ("Degraded", "")


def test_an_outage_comes_first_and_is_no_health():
    status = status_of(_changing(), ejected={"small-1": "Connect"})
    assert status["phase"] == "Degraded"
    assert status["message"].startswith(
        f"no healthy backend for {A.name}'s 95% of the requests: tier one (small: Connect); step"
    )


def test_evidence_of_another_time_is_not_shown():
    status = status_of(rolled_back(), judgement=HARM)
    assert status["evidence"] == {"objectives": []}
