"""What a canary really gets, and how soon a doubling would be seen."""

import math

import pytest

from weir_core.evidence import Judgement, ObjectiveJudgement
from weir_core.outlook import Marks, actual_bp, marked, requests_to_detect
from weir_core.snapshot import Objective

ERRORS = Objective(name="errors", event="Error")
SLOW = Objective(name="slow", event="Slow")


def judged(*names, failed=(100, 0), settled=(10_000, 100), alpha=0.008):
    shown = tuple(
        ObjectiveJudgement(
            name=name,
            event="Error",
            mode="Enforce",
            verdict="NoHarmYet",
            log_e=0.0,
            promote_log_e=0.0,
            failed=failed,
            settled=settled,
        )
        for name in names or ("errors",)
    )
    return Judgement(verdict="NoHarmYet", log_e=0.0, threshold=-math.log(alpha), objectives=shown)


def wanted(judgement, *objectives, weight_bp=1_000):
    return requests_to_detect(judgement, objectives or (ERRORS,), weight_bp=weight_bp)


@pytest.mark.parametrize(
    ("weight_bp", "with_successes"), [(500, 1_317), (1_000, 1_410), (5_000, 2_800)]
)
def test_it_is_the_information_bound_of_failures(weight_bp, with_successes):
    """Of a bench that knows successes too; at 1 % failures alone keep 98.5 % of it."""
    requests = wanted(judged(), weight_bp=weight_bp)["errors"]
    assert with_successes < requests < with_successes / 0.98


def test_a_share_of_alpha_takes_longer():
    alone = wanted(judged())["errors"]
    both = wanted(judged("errors", "slow"), ERRORS, SLOW)
    assert both["errors"] == both["slow"]
    assert both["errors"] == pytest.approx(alone * (1 + math.log(2) / -math.log(0.008)), abs=2)


def test_an_allowance_takes_longer():
    allowed = Objective(name="errors", event="Error", max_ratio=1.5)
    assert wanted(judged(), allowed)["errors"] > 2 * wanted(judged())["errors"]


@pytest.mark.parametrize(
    ("judgement", "objective", "weight_bp"),
    [
        (judged(failed=(0, 9)), ERRORS, 1_000),
        (judged(failed=(0, 0), settled=(0, 0)), ERRORS, 1_000),
        (judged(failed=(6_000, 0)), ERRORS, 1_000),
        (judged(), ERRORS, 0),
        (judged(), ERRORS, 10_000),
        (judged(), Objective(name="errors", event="Error", max_ratio=2.0), 1_000),
        (judged(), Objective(name="errors", event="Error", mode="Hold"), 1_000),
        (judged(), Objective(name="errors", event="Harm"), 1_000),
    ],
    ids=[
        "stable never failed",
        "nothing is known",
        "it cannot double",
        "no canary",
        "no stable",
        "a doubling is allowed",
        "it is not enforced",
        "it is counted in audits",
    ],
)
def test_an_unknown_is_not_told(judgement, objective, weight_bp):
    assert wanted(judgement, objective, weight_bp=weight_bp) == {}


# The share measured.


def run(*assigned, every_s=1.0, about="a"):
    marks = Marks()
    for at, pair in enumerate(assigned):
        marks = marked(marks, about, pair, 1_000 + at * every_s)
    return marks


def test_the_share_is_of_what_was_assigned_meanwhile():
    marks = run((900, 100), (920, 105))
    assert actual_bp(marks, (920, 105)) == pytest.approx(2_000)


def test_the_share_is_of_the_last_minute():
    """A minute with all of it to stable, then one with a tenth to the canary."""
    minutes = [(10 * at, 0) for at in range(60)] + [(590 + 9 * at, at) for at in range(61)]
    assert actual_bp(run(*minutes), minutes[-1]) == pytest.approx(1_000)


def test_a_few_requests_are_no_share():
    assert actual_bp(run((0, 0)), (18, 1)) is None
    assert actual_bp(run((0, 0)), (19, 1)) == pytest.approx(500)
    assert actual_bp(Marks(), (900, 100)) is None


@pytest.mark.parametrize(
    ("about", "assigned"), [("b", (920, 105)), ("a", (0, 0))], ids=["other", "counted afresh"]
)
def test_another_weight_or_body_of_evidence_begins_anew(about, assigned):
    marks = marked(run((900, 100)), about, assigned, 1_001)
    assert marks.at == ((1_001, assigned),)


def test_a_clock_set_back_begins_anew():
    assert len(marked(run((1, 0), (2, 0)), "a", (3, 0), 5).at) == 1


def test_marks_are_bounded():
    marks = run(*((at, 0) for at in range(3_000)), every_s=0.1)
    assert len(marks.at) <= 62
