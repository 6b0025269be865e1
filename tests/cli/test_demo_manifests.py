"""What the demo's team writes compiles, and every edit means what the demo says it means."""

import json

import pytest

from weir_cli.demo_manifests import PROVEN, changes, edited, facts, manifests, request
from weir_core.compile import compile_world
from weir_core.manifests import parse
from weir_lab.questions import load

URLS = {
    "small": "http://127.0.0.1:1",
    "large": "http://127.0.0.1:2",
    "small-5-levels": "http://127.0.0.1:3",
}
CHANGES = changes(facts())
GOOD, BAD = CHANGES[0], CHANGES[1:]


@pytest.fixture
def files():
    return manifests(facts(), URLS)


def compiled(files):
    parsed = parse(files)
    found = compile_world(parsed.resources, cluster=False)
    assert [problem.sentence() for problem in (*parsed.problems, *found.problems)] == []
    return {route.name: route for route in found.routes.values()}


def after(files, change):
    return {**files, change.file: edited(files[change.file], change)}


def test_manifests_compile_without_a_problem(files):
    assert sorted(compiled(files)) == ["assistant", "large", "small"]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.name)
def test_each_change_is_a_new_revision_of_its_route_alone(files, change):
    before = after(files, GOOD) if change in BAD else files
    old, new = compiled(before), compiled(after(before, change))
    changed = [name for name in old if old[name].revision != new[name].revision]
    assert changed == [change.route]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.name)
def test_no_change_touches_how_it_is_judged(files, change):
    before = after(files, GOOD) if change in BAD else files
    old, new = compiled(before), compiled(after(before, change))
    for name in old:
        assert old[name].monitoring == new[name].monitoring
        assert old[name].rollout == new[name].rollout


def test_all_routes_that_change_are_judged_alike(files):
    routes = compiled(files)
    assert routes["assistant"].monitoring == routes["small"].monitoring
    assert routes["assistant"].rollout == routes["small"].rollout


def test_edit_that_does_not_fit_is_refused(files):
    with pytest.raises(ValueError, match="not once"):
        edited(files["large.yaml"], GOOD)


def test_proof_that_is_shown_is_the_one_that_promotes(files):
    assert pytest.approx(PROVEN) == 1 / compiled(files)["assistant"].rollout.promote_alpha


def test_a_quarter_is_audited_only_during_rollouts(files):
    audits = compiled(files)["assistant"].monitoring.audits
    assert (audits.percent_bp, audits.during_rollout_bp) == (0, 2_500)


def test_prices_are_in_proportion_to_arithmetic(files):
    tiers = compiled(files)["assistant"].revision.behaviour.tiers
    small, large = (tier.backend.output_price_pico for tier in tiers)
    assert large / small == pytest.approx(3_440_640 / 181_248, rel=1e-5)


def test_expectations_name_objectives_that_there_are(files):
    known = {one.name for one in compiled(files)["assistant"].monitoring.objectives}
    assert {suspect for change in CHANGES for suspect in change.suspects} <= known


def test_one_change_is_good_and_all_others_are_not():
    assert [change.expected for change in CHANGES] == ["Promoted"] + 4 * ["RolledBack"]


def test_requests_do_not_carry_the_label():
    for question in load():
        body = json.dumps(request(question.body("assistant")))
        assert f'"{question.intent}"' not in body
        assert question.intent not in body or question.intent in question.text
