"""ModelRevisions are owned by all that use them, and hold enough to make a model server again."""

import pytest

from support.admission import refusals
from support.rendering import backend, matches_golden, written
from weir_core.errors import Problem
from weir_core.identity import identity_of
from weir_core.revision_spec import read_revision
from weir_operator.revisions import (
    adopted,
    backend_revision,
    route_revision,
    stored_backend,
    stored_template,
)
from weir_operator.workloads import render_template

WRITTEN = written()
IDENTITY = identity_of(backend())
TEMPLATE = render_template(backend(), identity=IDENTITY)


def route(name):
    return {
        "apiVersion": "inference.weir.dev/v1alpha1",
        "kind": "ModelRoute",
        "metadata": {"name": name, "namespace": "llm", "uid": f"u-{name}"},
    }


def of_backend(**more):
    return backend_revision(WRITTEN, identity=IDENTITY, template=TEMPLATE, **more)


def of_route(**more):
    name = "assistant-0123456789"
    return route_revision(route("assistant"), name=name, content='{"a":1}', **more)


def owners(obj):
    return {one["name"] for one in obj["metadata"]["ownerReferences"]}


def test_revisions_are_those_of_the_golden_file():
    made = [of_backend(routes=[route("assistant")]), of_route(backends=[WRITTEN])]
    assert matches_golden("revisions", made)


@pytest.mark.parametrize("obj", [of_backend(), of_route()], ids=["backend", "route"])
def test_api_server_takes_the_revision(obj):
    assert refusals(obj) == []


def test_backends_revision_is_owned_by_it_and_its_users_and_controlled_by_none():
    obj = of_backend(routes=[route("a"), route("b"), route("a")])
    assert owners(obj) == {"qwen3-8b", "a", "b"}
    assert len(obj["metadata"]["ownerReferences"]) == 3
    assert not any("controller" in one for one in obj["metadata"]["ownerReferences"])


def test_routes_revision_outlives_the_route_while_a_backend_is_there():
    assert owners(of_route(backends=[WRITTEN])) == {"assistant", "qwen3-8b"}


def test_further_labels_do_not_take_weirs_away():
    obj = of_route(labels={"x": "y", "inference.weir.dev/route": "other"})
    assert obj["metadata"]["labels"]["x"] == "y"
    assert obj["metadata"]["labels"]["inference.weir.dev/route"] == "assistant"


def test_revision_in_the_cluster_keeps_its_spec():
    """It is immutable: another release would render another template into it."""
    known = of_backend()
    again = backend_revision(WRITTEN, identity=IDENTITY, template={"spec": {}}, known=known)
    assert again["spec"] == known["spec"]
    assert of_route(known={"spec": "kept"})["spec"] == "kept"


def test_revision_is_adopted_by_those_who_still_use_it():
    known = of_backend(routes=[route("a"), route("b")])
    known["metadata"] |= {"resourceVersion": "7", "managedFields": [], "uid": "u"}
    kept = adopted(known | {"status": {}}, [route("b")])
    assert owners(kept) == {"b"}
    assert kept["spec"] == known["spec"]
    assert kept["metadata"]["labels"] == known["metadata"]["labels"]
    assert not {"resourceVersion", "managedFields", "uid"} & kept["metadata"].keys()
    assert "status" not in kept


def test_stored_backend_is_the_one_that_was_written():
    found = stored_backend(of_backend())
    assert found.backend == backend()
    assert identity_of(found.backend) == IDENTITY
    assert found.template == TEMPLATE == stored_template(of_backend())


def changed(content):
    """Return the revision of another content, with the fingerprint that belongs to it."""
    broken = {**WRITTEN, "spec": content}
    return backend_revision(broken, identity=IDENTITY, template=TEMPLATE)


def test_revision_that_was_cut_is_not_used():
    obj = of_backend()
    obj["spec"]["content"] = obj["spec"]["content"][:-1]
    assert isinstance(stored_backend(obj), Problem)
    assert stored_template(obj) is None


def test_revision_of_a_backend_that_today_cannot_be_read_says_so():
    problem = stored_backend(changed({"model": {}}))
    assert problem.object == f"ModelRevision llm/{IDENTITY}"
    assert problem.field.startswith("spec.content: spec.model")


def test_routes_revision_is_no_backends():
    problem = stored_backend(of_route())
    assert (problem.field, problem.seen) == ("spec.kind", "Route")


def test_route_content_under_a_backends_name_is_no_backend():
    obj = of_route()
    obj["spec"]["kind"] = "Backend"
    assert stored_backend(obj).field == "spec.content"


def test_no_revision_has_no_template():
    assert stored_template(None) is None


def test_revision_can_be_read_back():
    spec = read_revision(of_backend())
    assert (spec.kind, spec.revision, spec.of.name) == ("Backend", IDENTITY, "qwen3-8b")
