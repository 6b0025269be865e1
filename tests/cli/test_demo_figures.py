"""The demo's arithmetic: intervals, sums, what counts as the right verdict, the JSON."""

import json
from dataclasses import replace

import pytest

from weir_cli.demo_figures import Measured, Outcome, Scored, Table, as_json, paired, wilson
from weir_cli.demo_manifests import Change

CHANGE = Change(
    name="accepts everything",
    title="threshold 0",
    route="assistant",
    before="a",
    after="b",
    expected="RolledBack",
    suspects=("quality",),
)
OUTCOME = Outcome(
    change=CHANGE,
    verdict="RolledBack",
    suspect="quality",
    decided_by="router/one",
    e_value=170.0,
    threshold=100.0,
    requests=704,
    canary_requests=203,
    bad_served=46,
    stable_wrong=0.09,
    audits=140,
    cost=0.03,
    audit_cost=0.01,
    seconds=2.7,
)


def measured(rights, *, cost=1.0, tier="small"):
    return Measured(tuple(Scored(right == "1", cost, tier, "stable") for right in rights))


@pytest.fixture
def table():
    return Table(
        small=measured("1000", cost=0.1),
        large=measured("1110", cost=2.0, tier="large"),
        cascade=Measured(
            (
                Scored(True, 0.1, "small", "stable"),
                Scored(True, 2.1, "large", "stable"),
                Scored(False, 0.1, "small", "stable"),
                Scored(False, 0.1, "small", "stable"),
            )
        ),
    )


def test_wilson_agrees_with_the_published_example():
    """15 of 148: Newcombe, Statistics in Medicine 1998, table I, method 3."""
    assert wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=1e-4)


@pytest.mark.parametrize(("good", "of"), [(0, 10), (10, 10), (0, 1)])
def test_wilson_stays_within_0_and_1(good, of):
    low, high = wilson(good, of)
    assert 0 <= low < high <= 1 + 1e-12


def test_paired_interval_is_symmetric_in_its_arms():
    low, high = paired(3, 9, 100)
    assert paired(9, 3, 100) == pytest.approx((-high, -low))


def test_paired_interval_knows_questions_on_which_both_agree():
    """Ten lost of 100 or of 10,000 questions: the same answers, other certainties."""
    few, many = (high - low for low, high in (paired(5, 10, 100), paired(5, 10, 10_000)))
    assert many < few / 90


def test_paired_interval_of_no_difference_has_width():
    low, high = paired(0, 0, 100)
    assert low < 0 < high


def test_cascade_is_compared_question_by_question(table):
    difference, (low, high) = table.against_large
    assert difference == -0.25
    assert low < difference < high


def test_cost_ratio_is_of_all_questions_together(table):
    assert table.cost_ratio == pytest.approx(2.4 / 8)


def test_escalated_is_what_large_answered(table):
    assert table.cascade.share_of("large") == 0.25


@pytest.mark.parametrize(
    ("found", "is_right"),
    [
        ({}, True),
        ({"suspect": "errors"}, False),
        ({"verdict": "Promoted", "suspect": ""}, False),
        ({"verdict": "Undecided", "suspect": ""}, False),
    ],
)
def test_right_verdict_for_a_wrong_reason_is_not_as_expected(found, is_right):
    assert replace(OUTCOME, **found).as_expected is is_right


def test_promotion_needs_no_suspect():
    change = replace(CHANGE, expected="Promoted", suspects=())
    assert replace(OUTCOME, change=change, verdict="Promoted", suspect="").as_expected


def test_json_has_what_the_readme_promises(table):
    told = json.loads(json.dumps(as_json(seed=7, table=table, outcomes=[OUTCOME], seconds=50.0)))
    assert (told["seed"], told["questions"]) == (7, 4)
    for name in ("small", "large", "cascade"):
        assert {"accuracy", "low", "high", "cost"} <= told[name].keys()
    assert told["cascade"]["escalated"] == 0.25
    assert told["rollouts"][0] == {
        "change": "accepts everything",
        "route": "assistant",
        "verdict": "RolledBack",
        "expected": "RolledBack",
        "requests": 704,
        "canaryRequests": 203,
        "badAnswersServed": 46,
        "eValue": 170.0,
        "threshold": 100.0,
        "suspect": "quality",
        "decidedBy": "router/one",
        "audits": 140,
        "cost": 0.03,
        "auditCost": 0.01,
        "seconds": 2.7,
    }
