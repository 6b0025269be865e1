"""A problem that follows from another object's problem says so, and where that is."""

import pytest
import yaml

from support.objects import SURE, TIER, backend, calibration, route
from weir_core.compile import compile_world
from weir_core.manifests import parse


def problems(**objects):
    """Return the problems of files with one object each, in the order they are told."""
    parsed = parse({f"{name}.yaml": yaml.safe_dump(one) for name, one in objects.items()})
    compiled = compile_world(parsed.resources, cluster=False, place=parsed.place)
    return (*parsed.problems, *map(parsed.placed, compiled.problems))


def test_a_backend_with_a_problem_is_not_called_missing():
    first, follow_up = problems(small=backend(colour="red"), route=route())
    assert follow_up.reason == "BackendInvalid"
    assert follow_up.seen == f"'small', which is invalid itself ({first.source})"


def test_a_config_map_with_a_problem_is_not_called_missing():
    spoilt = {**calibration(), "data": {"calibration.json": 7}}
    tiers = [{**TIER, "accept": [SURE]}]
    capable = backend(capabilities=["Chat", "Logprobs"])
    first, follow_up = problems(cal=spoilt, small=capable, route=route(tiers=tiers))
    assert follow_up.condition == "ResolvedRefs"
    assert follow_up.seen == f"'cal', which is invalid itself ({first.source})"


def test_without_files_an_invalid_object_has_no_place():
    parsed = parse({"route.yaml": yaml.safe_dump(route())})
    places = {"ModelBackend default/small": ""}
    (problem,) = compile_world(
        parsed.resources, cluster=True, place=lambda title, field: places.get(title)
    ).problems
    assert problem.seen == "'small', which is invalid itself"


@pytest.mark.parametrize("cluster", [True, False])
def test_a_conflict_says_where_the_older_route_is(cluster):
    text = "\n---\n".join(yaml.safe_dump(route(name, models=["m"])) for name in "ab")
    parsed = parse({"backend.yaml": yaml.safe_dump(backend()), "routes.yaml": text})
    compiled = compile_world(parsed.resources, cluster=cluster, place=parsed.place)
    (problem,) = compiled.problems
    line = text.splitlines().index("  modelNames:") + 1
    assert f"ModelRoute default/a has (routes.yaml:{line})" in problem.seen


def test_a_place_is_the_field_s_or_the_first_problem_s():
    parsed = parse({"a.yaml": yaml.safe_dump(backend("a", colour="red"))})
    (problem,) = parsed.problems
    assert parsed.place("ModelBackend default/a", "") == problem.source
    assert parsed.place("ModelBackend default/a", "kind") != problem.source
    assert parsed.place("ModelBackend default/b", "") is None
