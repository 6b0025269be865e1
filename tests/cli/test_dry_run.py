"""What an API server says against manifests, placed in the files; and who is older."""

import pytest

from weir_cli.dry_run import further, joined, refused_fields
from weir_cli.validate import validated
from weir_core.errors import Problem
from weir_core.manifests import objects

ROUTE = """\
apiVersion: inference.weir.dev/v1alpha1
kind: ModelRoute
metadata: {name: NAME, namespace: llm}
spec:
  modelNames: [assistant]
  behaviour:
    deadline: 30s
    tiers:
    - {name: small, backendRef: {name: small}}
"""
BACKEND = {
    "apiVersion": "inference.weir.dev/v1alpha1",
    "kind": "ModelBackend",
    "metadata": {"name": "small", "namespace": "llm"},
    "spec": {"model": {"servedName": "s"}, "external": {"url": "http://a:1"}},
}


def route(name="assistant"):
    return ROUTE.replace("NAME", name)


def written():
    (one,) = objects("r.yaml", route())
    return one


def standing(name, created="2026-01-01T00:00:00Z"):
    (one,) = objects("x", route(name))
    metadata = {**one.value["metadata"], "creationTimestamp": created, "uid": "u"}
    return {**one.value, "metadata": metadata, "status": {"phase": "Healthy"}}


def sentences(*objs, text=None):
    return [
        problem.sentence()
        for problem in validated(
            {"r.yaml": text or route()}, {}, cluster=True, standing=objs
        ).problems
    ]


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (
            "Invalid value: wanted each name once in this list",
            "saw an invalid value, wanted (by the API server) each name once in this list",
        ),
        (
            'Invalid value: "object": wanted exactly one of vllm and external',
            'saw "object", wanted (by the API server) exactly one of vllm and external',
        ),
        (
            'Unsupported value: "X": supported values: "A", "B"',
            'saw "X", wanted (by the API server) supported values: "A", "B"',
        ),
        ("Required value", "saw nothing, wanted (by the API server) a value that it takes"),
        ("no such thing", "saw no such thing, wanted (by the API server) an object that it takes"),
        (
            "Forbidden: replicas belong to vllm",
            "saw what is forbidden, wanted (by the API server) replicas belong to vllm",
        ),
        (
            "Too many: 20: must have at most 16 items",
            "saw 20, wanted (by the API server) must have at most 16 items",
        ),
    ],
)
def test_cause_becomes_a_problem_at_its_line(message, told):
    causes = [{"field": "spec.behaviour.tiers[0]", "message": message}]
    (problem,) = refused_fields(written(), "all of it", causes)
    assert problem.sentence().startswith(
        f"r.yaml:9: ModelRoute llm/assistant: spec.behaviour.tiers[0]: {told}"
    )


def test_rules_that_were_not_checked_are_no_problem_of_their_own():
    unchecked = {"field": "<nil>", "message": "Invalid value: null: some were not checked"}
    cause = {"field": "spec.modelNames", "message": "Required value"}
    (problem,) = refused_fields(written(), "all of it", [cause, unchecked])
    assert problem.field == "spec.modelNames"


def test_field_of_a_typed_patch_is_placed():
    message = (
        "failed to create typed patch object (llm/a; inference.weir.dev/v1alpha1, "
        "Kind=ModelRoute): .spec.behaviour.deadline: expected string, got 1"
    )
    (problem,) = refused_fields(written(), message, [])
    assert problem.source == "r.yaml:7"
    assert problem.seen == "expected string, got 1"


def test_other_refusals_are_of_the_whole_object():
    (problem,) = refused_fields(written(), "admission webhook says no", [])
    assert (problem.source, problem.field) == ("r.yaml:1", "")
    assert problem.seen == "admission webhook says no"


def at(field, object="ModelRoute llm/a"):
    return Problem(object=object, field=field, seen="", wanted="")


@pytest.mark.parametrize(
    ("server", "ours", "told"),
    [
        ("spec.a", "spec.a", False),
        ("spec.rollout.steps", "spec.rollout.steps[1].setWeight", False),
        ("spec.a.b", "spec.a", False),
        ("spec.ab", "spec.a", True),
        ("spec.a", "", True),
    ],
)
def test_what_is_known_is_not_told_again(server, ours, told):
    assert bool(further([at(server)], [at(ours)])) is told


def test_same_field_of_another_object_is_told():
    assert further([at("spec.a")], [at("spec.a", object="ModelRoute llm/b")])


def test_reference_may_be_in_the_cluster():
    assert "wanted a ModelBackend in namespace llm" in sentences()[0]
    assert sentences(BACKEND) == []


def test_backend_of_the_cluster_that_is_invalid_is_told_from_a_missing_one():
    broken = {**BACKEND, "spec": {}}
    assert "which is invalid itself" in sentences(broken)[0]


def test_new_route_claims_no_name_of_one_in_the_cluster():
    (told,) = sentences(BACKEND, standing("first"))
    assert "saw 'assistant', which the older ModelRoute llm/first has" in told


def test_changed_route_keeps_its_age():
    younger = standing("second", created="2026-02-01T00:00:00Z")
    assert sentences(BACKEND, standing("assistant"), younger) == []


def test_objects_of_the_cluster_are_judged_only_where_files_have_them():
    lost = standing("lost")
    lost["spec"] = {
        **lost["spec"],
        "modelNames": ["lost"],
        "behaviour": {**lost["spec"]["behaviour"]},
    }
    lost["spec"]["behaviour"]["tiers"] = [{"name": "a", "backendRef": {"name": "gone"}}]
    assert sentences(BACKEND, lost) == []


def test_files_count_where_both_have_an_object():
    resources, known = joined([], [BACKEND, standing("first")])
    assert known == {"ModelBackend llm/small", "ModelRoute llm/first"}
    assert len(resources) == 2


def test_namespace_of_the_command_is_that_of_objects_without_one(weir_command, tmp_path):
    (tmp_path / "r.yaml").write_text(route().replace(", namespace: llm", ""))
    ran = weir_command("validate", str(tmp_path), "-n", "apps", "--offline")
    assert "ModelRoute apps/assistant" in ran.out
