"""What no object of the cluster can hold is a problem of its route."""

import pytest

from support.objects import backend, compiled, route
from weir_core.revision_spec import MAX_CONTENT, too_large

PROMPT = 32_768


def large(letter):
    tiers = [
        {"name": f"t{n}", "backendRef": {"name": "small"}, "systemPrompt": letter * PROMPT}
        for n in range(8)
    ]
    return route("large", tiers=tiers)


def test_a_content_is_measured_as_it_is_stored():
    assert too_large("x" * MAX_CONTENT) is None
    assert too_large("x" * (MAX_CONTENT + 1)) is not None
    assert too_large('"' * (MAX_CONTENT // 2)) is None
    assert too_large('"' * (MAX_CONTENT // 2 + 1)) is not None
    assert too_large("ü" * (MAX_CONTENT // 2 + 1)) is not None


def test_a_route_that_cannot_be_stored_harms_no_other():
    found = compiled(backend(), route(), large('"'), cluster=True)
    (problem,) = found.problems
    assert (problem.condition, problem.reason) == ("Accepted", "TooLarge")
    assert f"{MAX_CONTENT:,}" in problem.wanted
    assert int(problem.seen.split()[0].replace(",", "")) > MAX_CONTENT
    assert set(found.routes) == {"default/assistant"}


@pytest.mark.parametrize(
    ("letter", "cluster"), [("x", True), ('"', False)], ids=["fits", "no cluster"]
)
def test_other_routes_have_no_such_problem(letter, cluster):
    found = compiled(backend(), large(letter), cluster=cluster)
    assert found.problems == ()
