"""Labels of people in the verdict: judged apart from what requests show, a brake and no gate."""

import math

import pytest

from support.rollouts import started
from weir_core.evidence import ASSIGNED, FAILED, SETTLED, Cell, Epoch, Key, Tally, row_length
from weir_core.sequential import judge
from weir_core.snapshot import Objective, Step
from weir_core.status import Observed, route_status

KEY = Key(route_uid="u", revision="r-1", attempt=1, objectives="0123456789")
NOW = 1_700_000_000
HORIZON_S = 32
FLOORED = Objective(name="errors", event="Error", negligible_rate=0.01)
THUMBS = Objective(name="thumbs", event="Feedback", within_ms=600_000)
HELD = Objective(name="thumbs", event="Feedback", within_ms=600_000, mode="Hold")


def row(assigned, errors=(0, 0), labels=(0, 0)):
    counts = [0] * row_length(2)
    counts[ASSIGNED : ASSIGNED + 2] = counts[SETTLED : SETTLED + 2] = assigned
    counts[FAILED:] = [*errors, *labels]
    return tuple(counts)


def verdict(counts, *, cells=(), objectives=(FLOORED, THUMBS), alpha=0.01):
    epoch = Epoch(5_000, NOW // 600, NOW - NOW % 600, (0, 0), counts)
    tally = Tally(
        key=KEY, router="a", boot="1", seq=1, as_of_s=float(NOW), epochs=(epoch,), cells=cells
    )
    return judge(
        [tally],
        objectives,
        alpha=alpha,
        promote_alpha=0.05,
        promote_ratio=2.0,
        now_s=NOW,
        horizon_s=HORIZON_S,
    )


def test_labels_of_the_canary_alone_are_harm():
    judgement = verdict(row((500, 500), labels=(2, 30)))
    assert (judgement.verdict, judgement.suspect) == ("Harm", "thumbs")


def test_labels_of_both_arms_alike_are_no_harm():
    assert verdict(row((500, 500), labels=(20, 24)), alpha=0.5).verdict != "Harm"


def test_labels_pay_with_their_share_of_alpha():
    judgement = verdict(row((500, 500), labels=(2, 30)))
    assert judgement.log_e == pytest.approx(judgement.objectives[1].log_e + math.log(0.5))


def test_evidence_of_labels_and_of_requests_does_not_add_up():
    """They are known at different times: their sum is no e-process."""
    both = verdict(row((500, 500), errors=(2, 30), labels=(2, 30)))
    errors = verdict(row((500, 500), errors=(2, 30)))
    none = verdict(row((500, 500)))
    assert both.log_e == errors.log_e
    assert none.log_e == pytest.approx(math.log(0.5))


def test_only_labels_whose_window_is_over_are_judged():
    """Labels that came within the last horizon are shown: other routers may have more of them."""
    young = Cell(NOW - 5, 0, row((1, 1), errors=(1, 1), labels=(0, 30)))
    judgement = verdict(row((500, 500)), cells=(young,))
    assert judgement.objectives[1].failed == (0, 30)
    assert judgement.objectives[1].log_e == pytest.approx(0)


def test_canary_is_promoted_without_any_label():
    judgement = verdict(row((600, 600)))
    assert judgement.verdict == "Safe"
    assert judgement.objectives[1].promote_log_e == 0
    assert judgement.objectives[1].verdict == "NoHarmYet"


def test_labels_in_mode_hold_hold_and_do_not_roll_back():
    judgement = verdict(row((500, 500), labels=(2, 30)), objectives=(FLOORED, HELD))
    assert judgement.verdict != "Harm"
    assert judgement.holds == ("Objective/thumbs",)


def test_requests_that_never_settled_were_not_labelled():
    hung = list(row((500, 500)))
    hung[SETTLED + 1] = 450
    assert verdict(tuple(hung)).objectives[1].log_e == pytest.approx(0)


def test_labels_may_be_allowed_a_ratio():
    allowed = Objective(name="thumbs", event="Feedback", within_ms=600_000, max_ratio=3.0)
    counts = row((500, 500), labels=(20, 60))
    assert verdict(counts).verdict == "Harm"
    assert verdict(counts, objectives=(FLOORED, allowed)).verdict != "Harm"


def test_proof_that_is_lacking_is_never_that_of_labels():
    """They give none, however long one waits."""
    stages = (Step(kind="setWeight", weight_bp=5_000), Step(kind="prove"))
    course = started(*stages)
    observed = Observed(policy=course.policy, judgement=verdict(row((60, 60))))
    message = route_status(course.state, observed, now_s=course.now_s)["message"]
    assert "(errors has least)" in message
