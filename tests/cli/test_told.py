"""From a cluster's objects to the JSON of a standalone Weir: one screen for both."""

import io
import json

import pytest
from msgspec.structs import replace
from rich.console import Console

from support.rollouts import A
from support.routes import behaviour
from weir_cli.describe import as_text
from weir_cli.frame import render
from weir_cli.get import as_objects, listing
from weir_cli.objects import GROUP_VERSION, created_s, key_of, seconds_of, whole
from weir_cli.told import backend_state, happened, told_of
from weir_core import resources
from weir_core.canonical import canonical
from weir_core.history import RevisionRecord
from weir_core.revision_spec import RevisionOf, record_status, revision_object
from weir_core.rollout import RolloutState
from weir_core.snapshot import Revision
from weir_operator.memory import Checkpoint, RouteMemory, stored

NOW_S = 1_234.0


def route(status=None, *, generation=1):
    made = {
        "apiVersion": GROUP_VERSION,
        "kind": "ModelRoute",
        "metadata": {
            "namespace": "llm",
            "name": "assistant",
            "uid": "u",
            "generation": generation,
            "creationTimestamp": "1970-01-01T00:10:00Z",
        },
        "spec": {"modelNames": ["assistant"]},
    }
    return made if status is None else {**made, "status": status}


def revision(record, **status):
    made = revision_object(
        kind="Route",
        name=record.revision.name,
        namespace="llm",
        of=RevisionOf(name="assistant", uid="u"),
        content=record.revision.content,
    )
    made["metadata"]["labels"] = {"inference.weir.dev/route": "assistant"}
    return {**made, "status": {**record_status(record), **status}}


def stable(name=A.name):
    served = behaviour()
    made = Revision(name=name, behaviour=served, content=canonical(served))
    return RevisionRecord(revision=made, outcome="Stable", since_s=900.0, promoted_s=900.0)


def as_stored(status):
    """Return a status as the API server gives it back: without nulls."""
    return {
        key: value for key, value in json.loads(json.dumps(status)).items() if value is not None
    }


def drawn(told):
    console = Console(file=io.StringIO(), width=100, color_system=None)
    console.print(render(told, 100, now_s=NOW_S))
    return console.file.getvalue()


def test_group_version_is_that_of_the_core():
    assert GROUP_VERSION == resources.GROUP_VERSION


def test_status_of_a_cluster_is_the_one_that_was_written(scene):
    _, told = scene
    assert whole(as_stored(told["status"])) == told["status"]


def test_notes_of_the_operator_are_not_shown(scenes):
    status = scenes["healthy"]()["status"]
    assert "rollout" not in whole({**status, "rollout": {"state": "{}"}})


@pytest.mark.parametrize("status", [None, {}, {"phase": "Healthy"}])
def test_route_that_nobody_looked_at_has_every_screen(status):
    told = told_of(route(status), revisions=[])
    assert "Name:        assistant" in as_text(told, now_s=NOW_S)
    assert "llm/assistant" in drawn(told)
    assert "assistant" in listing({"routes": {"llm/assistant": whole(status)}}, now_s=NOW_S)


def test_route_that_nobody_looked_at_says_so():
    told = told_of(route(), revisions=[])
    assert told["status"]["phase"] == "Unknown"
    assert "is the operator running" in told["problems"][0]


def test_operator_that_lags_behind_is_told_of(scenes):
    status = {**scenes["healthy"]()["status"], "observedGeneration": 2}
    assert told_of(route(status, generation=2), revisions=[])["problems"] == []
    (problem,) = told_of(route(status, generation=3), revisions=[])["problems"]
    assert "(2/3)" in problem


def test_frame_is_that_of_standalone(scenes):
    """Of the same status, all that does not come from elsewhere looks the same."""
    alone = scenes["progressing"]()
    told = told_of(route(as_stored(alone["status"])), revisions=[])
    whole_lines = drawn({**alone, "tiers": {}, "alwaysLast": {}, "events": []}).splitlines()
    lines = drawn({**told, "problems": []}).splitlines()
    assert lines == whole_lines


def test_history_shows_outcomes_and_their_evidence():
    gone = RevisionRecord(
        revision=Revision(
            name="chat-bbbbbbbbbb", behaviour=behaviour(), content=canonical(behaviour())
        ),
        outcome="RolledBack",
        since_s=1_000.0,
        attempt=1,
        tripped=1,
        reason="Harm",
    )
    found = [revision(stable()), revision(gone, eValue="6881", suspect="quality")]
    told = told_of(route({"stable": {"revision": A.name}}), revisions=found)
    lines = as_text(told, now_s=NOW_S).partition("Revisions:\n")[2].splitlines()
    assert lines[1].split() == ["chat-bbbbbbbbbb", "RolledBack", "1", "3m54s", "Harm", "6881"]
    assert lines[2].split()[:2] == [A.name, "Stable"]


def test_revision_of_which_only_the_labels_are_left_has_no_age():
    lost = revision(stable())
    lost["status"] = {}
    lost["metadata"]["labels"] |= {
        "inference.weir.dev/outcome": "RolledBack",
        "inference.weir.dev/attempt": "1",
    }
    told = told_of(route(), revisions=[lost])
    line = as_text(told, now_s=NOW_S).partition("Revisions:\n")[2].splitlines()[1]
    assert line.split() == [A.name, "RolledBack", "1", "-", "-", "-"]


def test_backends_stand_as_their_workloads_do():
    small = {
        "metadata": {"name": "small"},
        "status": {"identities": [{"name": "small-1", "replicas": "0/1", "reason": "Loading"}]},
    }
    found = told_of(
        route({"stable": {"revision": A.name}}), revisions=[revision(stable())], backends=[small]
    )
    states = {row["name"]: row["state"] for row in found["backends"]}
    assert states["small"] == "0/1 ready, Loading"
    assert states["large"] == "the ModelBackend is gone"
    assert "0/1 ready, Loading" in as_text(found, now_s=NOW_S)


def _left(version, *, stage="RolledBack"):
    """Return how `describe` shows a version of small that no arm calls."""
    served = behaviour()
    newer = {"identity": "small-2", "url": "http://small-2.llm.svc:8000"}
    tier = replace(served.tiers[0], backend=replace(served.tiers[0].backend, **newer))
    tried = replace(served, tiers=(tier, *served.tiers[1:]))
    gone = RevisionRecord(
        revision=Revision(name="chat-bbbbbbbbbb", behaviour=tried, content=canonical(tried)),
        outcome="RolledBack",
        since_s=1_000.0,
        attempt=1,
        tripped=1,
        reason="Harm",
    )
    state = RolloutState(
        stable=A.name,
        canary=gone.revision.name,
        stage=stage,
        attempt=1,
        since_s=1_000.0,
        records=(stable(), gone),
    )
    small = {
        "metadata": {"name": "small"},
        "status": {"identities": [{"name": "small-1", "replicas": "1/1"}, version]},
    }
    told = told_of(
        route({"rollout": stored(RouteMemory(state, Checkpoint()), state)}),
        revisions=[revision(stable()), revision(gone)],
        backends=[small],
    )
    lines = as_text(told, now_s=NOW_S).partition("Backends:\n")[2].partition("\n\n")[0].splitlines()
    assert len(lines) == 4
    return " ".join(lines[-1].split())


@pytest.mark.parametrize(
    ("version", "shown"),
    [
        (
            {"newest": True, "replicas": "1/1"},
            "1/1 ready; rolled back, kept until 1970-01-01T00:21:40Z for a retry",
        ),
        (
            {"newest": True, "replicas": "0/1", "reason": "RolledBack"},
            "0/1 ready, RolledBack; nothing calls it",
        ),
        ({"replicas": "1/1", "routes": ["other"]}, "1/1 ready; used by other"),
    ],
    ids=["within the grace", "scaled to 0", "used elsewhere"],
)
def test_server_that_was_rolled_back_is_told_as_long_as_it_stands(version, shown):
    assert _left({"name": "small-2", **version}) == f"small-2 s tier small - {shown}"


def test_server_that_nothing_calls_is_told_with_why_it_stands():
    shown = _left({"name": "small-2", "replicas": "1/1"}, stage="Idle")
    assert shown.endswith("1/1 ready; kept until every router has heard that nothing calls it")
    shown = _left({"name": "small-2", "newest": True, "replicas": "1/1"}, stage="Idle")
    assert shown.endswith("1/1 ready; its spec asks for it")


@pytest.mark.parametrize(
    ("status", "shown"),
    [
        ({"reason": "External"}, "external"),
        ({"reason": "InvalidSpec"}, "InvalidSpec"),
        ({}, "unknown"),
        ({"identities": [{"name": "a-1", "replicas": "1/1", "reason": ""}]}, "1/1 ready"),
    ],
)
def test_state_of_a_backend_is_one_phrase(status, shown):
    assert backend_state(status, "a-1") == shown


def test_tiers_are_shown_only_where_their_totals_are_known():
    found = [revision(stable())]
    status = {"stable": {"revision": A.name}}
    assert "Tiers:" not in as_text(told_of(route(status), revisions=found), now_s=NOW_S)
    row = {"requests": 3, "inputTokens": 1, "outputTokens": 1, "costPico": 0}
    told = told_of(route(status), revisions=found, totals={"large": row})
    tiers = as_text(told, now_s=NOW_S).partition("Tiers:\n")[2].splitlines()
    assert [line.split()[:2] for line in tiers[1:3]] == [["small", "0"], ["large", "3"]]


def test_the_last_command_is_told_in_words():
    last = {
        "command": "promote-full@assistant-abc#12.5",
        "result": "Done",
        "message": "obeyed",
        "at": "1970-01-01T00:00:20Z",
    }
    told = told_of(route({"lastCommand": last}), revisions=[])
    (line,) = [one for one in as_text(told, now_s=25.0).splitlines() if "Command:" in one]
    assert " ".join(line.split()) == (
        "Command: promote-full of assistant-abc, 5s ago: Done, obeyed"
    )


def test_events_are_told_oldest_first_whatever_writes_them():
    found = [
        {"reason": "Late", "message": "b", "eventTime": "1970-01-01T00:00:20.5Z"},
        {"reason": "Early", "type": "Warning", "lastTimestamp": "1970-01-01T00:00:10Z"},
    ]
    first, second = happened(found)
    assert (first.at_s, first.transition.reason, first.transition.warning) == (10.0, "Early", True)
    assert (second.at_s, second.transition.message) == (20.5, "b")


def test_objects_are_given_whole_where_they_are_known():
    told = {"routes": {"llm/assistant": whole(None)}, "objects": {"llm/assistant": route()}}
    assert as_objects(told, alone=True) == route()


def test_facts_of_an_object():
    assert key_of(route()) == "llm/assistant"
    assert created_s(route()) == 600.0
    assert seconds_of(None) == seconds_of("yesterday") == 0.0
