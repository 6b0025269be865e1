"""What the operator writes of revisions comes back whole, also what a release before this wrote."""

import json
import os
from pathlib import Path

import msgspec
import pytest

from support.admission import refusals
from support.rollouts import Course, baking, rolled_back, started
from weir_core.canonical import canonical
from weir_core.errors import Problem
from weir_core.evidence import ObjectiveJudgement
from weir_core.history import RevisionRecord, Rollback
from weir_core.revision_spec import (
    MAX_CONTENT,
    BackendContent,
    RevisionOf,
    backend_content,
    backend_of,
    fingerprint_of,
    read_revision,
    record_of,
    record_status,
    revision_object,
)
from weir_core.snapshot import Behaviour, Revision

GOLDEN = Path(__file__).parents[1] / "golden"
OF = RevisionOf(name="chat", uid="7f0c")


def record(**changes):
    behaviour = Behaviour(deadline_ms=30_000, max_attempts=4, tiers=())
    revision = Revision(name="chat-1", behaviour=behaviour, content=canonical(behaviour))
    told = {"revision": revision, "outcome": "Canary", "since_s": 1_767_225_600.25, "attempt": 1}
    return RevisionRecord(**{**told, **changes})


def rollback(**changes):
    objective = ObjectiveJudgement(
        name="errors",
        event="Error",
        mode="Enforce",
        verdict="Harm",
        log_e=5.5,
        promote_log_e=-3.0,
        failed=(1, 9),
        settled=(400, 40),
        ratio=9.0,
    )
    told = {
        "revision": "chat-1",
        "attempt": 2,
        "reason": "Harm",
        "decided_by": "router/r-2",
        "at_s": 1_767_225_700.5,
        "suspect": "errors",
        "log_e": 4.875,
        "threshold": 4.83,
        "weight_bp": 2_500,
        "requests": 440,
        "canary_requests": 40,
        "bad_served": 9,
        "objectives": (objective,),
    }
    return Rollback(**{**told, **changes})


ROLLED_BACK = record(outcome="RolledBack", attempt=2, tripped=2, reason="Harm", rollback=rollback())


def written(one, **status):
    obj = revision_object(
        kind="Route", name=one.revision.name, namespace="llm", of=OF, content=one.revision.content
    )
    return {**obj, "status": {**record_status(one), **status}}


# A route's revision.


@pytest.mark.parametrize(
    "one",
    [
        pytest.param(record(), id="a canary"),
        pytest.param(record(outcome="Stable", promoted_s=1.5), id="a stable one"),
        pytest.param(ROLLED_BACK, id="one rolled back"),
        pytest.param(
            record(outcome="Stable", attempt=3, tripped=2, rollback=rollback()),
            id="one proven after a rollback",
        ),
    ],
)
def test_record_comes_back_whole(one):
    assert record_of(written(one)) == one


@pytest.mark.parametrize(
    "course", [started(), baking(), rolled_back()], ids=["steps", "bake", "rolled back"]
)
def test_records_of_a_rollout_come_back_whole(course: Course):
    for one in course.state.records:
        content = canonical(one.revision.behaviour)
        one = msgspec.structs.replace(
            one, revision=msgspec.structs.replace(one.revision, content=content)
        )
        assert record_of(written(one)) == one


def test_people_see_why_it_was_rolled_back():
    status = written(ROLLED_BACK)["status"]
    shown = {name: value for name, value in status.items() if name != "record"}
    assert shown == {
        "outcome": "RolledBack",
        "attempt": 2,
        "tripped": 2,
        "reason": "Harm",
        "transitionTime": "2026-01-01T00:00:00Z",
        "suspect": "errors",
        "eValue": "131",
        "logE": "4.875",
        "weight": "25%",
        "requests": 440,
        "canaryRequests": 40,
        "badServed": 9,
        "decidedBy": "router/r-2",
    }


def test_trip_without_a_test_shows_no_evidence():
    aborted = rollback(reason="Aborted", threshold=0.0, log_e=0.0)
    status = record_status(record(outcome="RolledBack", rollback=aborted))
    assert (status["eValue"], status["logE"]) == ("", "")


def test_revision_without_a_status_was_never_decided_on():
    obj = {**written(record()), "status": None}
    assert record_of(obj) == record(outcome="Superseded", since_s=0.0, attempt=0)


@pytest.mark.parametrize("lost", ["", "not JSON", 7, None, '{"outcome": "Later"}'])
def test_rolled_back_one_stays_so_where_its_record_is_lost(lost):
    read = record_of(written(ROLLED_BACK, record=lost))
    assert (read.outcome, read.attempt, read.tripped) == ("RolledBack", 2, 2)


def test_stable_one_is_no_more_than_superseded_where_its_record_is_lost():
    read = record_of(written(record(outcome="Stable", promoted_s=1.0), record=""))
    assert (read.outcome, read.promoted_s) == ("Superseded", None)


# Content that was not written by Weir.


def test_content_that_was_edited_is_told():
    obj = written(record())
    obj["spec"]["content"] = obj["spec"]["content"].replace("4", "5")
    problem = record_of(obj)
    assert isinstance(problem, Problem)
    assert problem.sentence() == (
        "ModelRevision llm/chat-1: spec.content: saw content of another fingerprint, "
        "wanted the content that was written"
    )


@pytest.mark.parametrize("content", ["{}", "[]", '{"deadline_ms": "x"}', "{{"])
def test_content_of_no_behaviour_is_told(content):
    obj = written(record())
    obj["spec"] |= {"content": content, "fingerprint": fingerprint_of(content)}
    assert record_of(obj).field == "spec.content"


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        (None, "spec"),
        ({}, "spec.kind"),
        ({"kind": "Router"}, "spec.kind"),
        ({"kind": "Route", "of": {"name": "a"}}, "spec.of.uid"),
    ],
)
def test_spec_of_another_shape_is_told(spec, field):
    assert read_revision({**written(record()), "spec": spec}).field == field


def test_content_that_etcd_would_not_take_is_refused():
    with pytest.raises(ValueError, match="content"):
        revision_object(
            kind="Route", name="a-1", namespace="llm", of=OF, content="x" * (MAX_CONTENT + 1)
        )


# A backend's revision.


def test_backend_comes_back_whole():
    content = BackendContent(
        spec={"model": {"servedName": "m"}, "replicas": 2},
        pod_template={"spec": {"containers": [{"name": "vllm", "args": ["--x", "1e3"]}]}},
    )
    text = backend_content(content)
    obj = revision_object(kind="Backend", name="qwen-1", namespace="llm", of=OF, content=text)
    assert refusals(obj) == []
    assert backend_of(read_revision(obj)) == content


def test_equal_backends_have_equal_content():
    one = BackendContent(spec={"a": 1, "b": 2}, pod_template={})
    other = BackendContent(spec={"b": 2, "a": 1}, pod_template={})
    assert backend_content(one) == backend_content(other)


# What a release wrote.


def written_now(release):
    """Return a ModelRevision of each golden route, each with another outcome."""
    golden = json.loads((GOLDEN / release / "compiled.json").read_text())["routes"]
    outcomes = [
        {"outcome": "Stable", "promoted_s": 1_767_225_600.0},
        {"outcome": "RolledBack", "tripped": 1, "reason": "Harm", "rollback": rollback()},
        {"outcome": "Superseded"},
    ]
    objects = []
    for (key, one), changes in zip(golden.items(), outcomes, strict=True):
        behaviour = msgspec.convert(one["content"], Behaviour)
        revision = Revision(name=one["name"], behaviour=behaviour, content=canonical(behaviour))
        namespace, _, name = key.partition("/")
        obj = revision_object(
            kind="Route",
            name=one["name"],
            namespace=namespace,
            of=RevisionOf(name=name, uid="7f0c"),
            content=revision.content,
        )
        status = record_status(record(revision=revision, **changes))
        objects.append({**obj, "status": status})
    return objects


@pytest.mark.parametrize("release", sorted(path.name for path in GOLDEN.glob("v*")))
def test_revisions_of_a_release_are_read_as_they_were_meant(release):
    """Set WEIR_UPDATE_GOLDEN=1 to write the file anew, before the release only."""
    file = GOLDEN / release / "revisions.json"
    if os.environ.get("WEIR_UPDATE_GOLDEN"):
        file.write_text(json.dumps(written_now(release), indent=1, ensure_ascii=False) + "\n")
    for obj in json.loads(file.read_text()):
        assert refusals(obj) == []
        read = record_of(obj)
        assert canonical(read.revision.behaviour) == obj["spec"]["content"]
        assert {**obj["status"], **record_status(read)} == obj["status"]
