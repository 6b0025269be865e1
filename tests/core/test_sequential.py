"""Verdicts: harm, safety, holds, and what must not count as either."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.routes import policy, revision
from weir_core.defaults import DEFAULTS
from weir_core.evidence import (
    ASSIGNED,
    AUDITS_BEGUN,
    AUDITS_DROPPED,
    AUDITS_ENDED,
    BOTH_HARMED,
    CANARY_HARMED,
    FAILED,
    SETTLED,
    STABLE_HARMED,
    Cell,
    Epoch,
    Key,
    Tally,
    row_length,
)
from weir_core.sequential import fingerprint, horizon_s, judge
from weir_core.snapshot import Audits, Check, Monitoring, Objective

KEY = Key(route_uid="u", revision="r-1", attempt=1, objectives="0123456789")
NOW = 1_700_000_000
HORIZON_S = 32
ERRORS = Objective(name="errors", event="Error")
QUALITY = Objective(name="quality", event="Harm")


def row(assigned=(0, 0), failed=((0, 0),), *, open=(0, 0), audits=None):
    """Counts of requests, of which `open` are not settled; audits are (n, both, b, c, dropped)."""
    counts = [0] * row_length(len(failed))
    for arm in (0, 1):
        counts[ASSIGNED + arm] = assigned[arm]
        counts[SETTLED + arm] = assigned[arm] - open[arm]
        for j, pair in enumerate(failed):
            counts[FAILED + 2 * j + arm] = pair[arm]
    if audits:
        ended, both, canary, stable, dropped = audits
        counts[AUDITS_BEGUN] = ended + dropped
        counts[AUDITS_ENDED], counts[AUDITS_DROPPED] = ended, dropped
        counts[BOTH_HARMED], counts[CANARY_HARMED], counts[STABLE_HARMED] = both, canary, stable
    return tuple(counts)


def tally(*rows, cells=(), weight_bp=1_000, weights=None, as_of_s=float(NOW)):
    """One tally with an epoch an hour for each row, the last in the running hour."""
    periods = [NOW // 600 - 6 * back for back in reversed(range(len(rows)))]
    epochs = tuple(
        Epoch(weights[at] if weights else weight_bp, periods[at], periods[at] * 600, (0, 0), counts)
        for at, counts in enumerate(rows)
    )
    return Tally(key=KEY, router="a", boot="1", seq=1, as_of_s=as_of_s, epochs=epochs, cells=cells)


def verdict(*tallies, objectives=(ERRORS,), alpha=0.01, now_s=NOW, **settings_):
    return judge(
        tallies,
        objectives,
        alpha=alpha,
        promote_alpha=0.05,
        promote_ratio=settings_.pop("promote_ratio", 2.0),
        now_s=now_s,
        horizon_s=HORIZON_S,
        **settings_,
    )


def test_nothing_seen_is_insufficient_data():
    for judgement in (verdict(), verdict(tally(row())), verdict(tally(row((90, 0))))):
        assert judgement.verdict == "InsufficientData"
        assert judgement.log_e == pytest.approx(0)


def test_dead_canary_is_harm_after_a_handful_of_requests():
    judgement = verdict(tally(row((40, 5), ((0, 5),))))
    assert judgement.verdict == "Harm"
    assert judgement.suspect == "errors"
    assert judgement.objectives[0].suspect


def test_equal_failures_are_no_harm():
    assert verdict(tally(row((9_000, 1_000), ((90, 10),)))).verdict != "Harm"


def test_threshold_is_the_given_alpha():
    judgement = verdict(tally(row((9, 1))), alpha=0.002)
    assert judgement.threshold == pytest.approx(math.log(500))


def test_objective_may_allow_a_ratio():
    allowed = Objective(name="load", event="Escalated", max_ratio=3.0)
    counts = row((1_000, 1_000), ((20, 60),))
    assert verdict(tally(counts, weight_bp=5_000)).verdict == "Harm"
    assert verdict(tally(counts, weight_bp=5_000), objectives=(allowed,)).verdict != "Harm"


# Assignment order.


def cell(second, *, assigned, failed=(0, 0), open=(0, 0)):
    return Cell(NOW + second, 0, row(assigned, (failed,), open=open))


def young(*cells):
    return verdict(tally(row(), cells=cells, as_of_s=NOW + 20.0), now_s=NOW + 20)


def test_open_stable_requests_count_as_failed():
    settled = young(cell(0, assigned=(40, 4), failed=(0, 4)))
    open_ = young(cell(0, assigned=(40, 4), failed=(0, 4), open=(36, 0)))
    assert open_.log_e < settled.log_e - 2


def test_open_canary_requests_are_no_harm():
    assert young(cell(0, assigned=(0, 50), open=(0, 50))).log_e == pytest.approx(0)


def test_later_open_requests_do_not_hide_earlier_failures():
    early = cell(0, assigned=(40, 5), failed=(0, 5))
    late = cell(9, assigned=(500, 50), open=(500, 50))
    assert young(early, late).log_e == pytest.approx(young(early).log_e)


def test_near_the_threshold_no_prefix_is_left_out():
    """The one that crosses is neither the oldest nor 0, 1, 2, 4, 8, … cells from the newest."""
    bad = [cell(15 + n / 8, assigned=(2, 1), failed=(0, n > 28)) for n in range(35)]
    hung = [cell(15 + n / 8, assigned=(9, 1), failed=(0, 1), open=(9, 0)) for n in range(35, 40)]
    assert young(*bad, *hung).verdict == "Harm"
    assert young(*bad, *hung).log_e == pytest.approx(young(*bad).log_e)
    assert young(*bad[:31], *hung).verdict != "Harm"


def test_request_past_the_horizon_counts_as_failed():
    hung = tally(row(), cells=(cell(0, assigned=(40, 5), open=(0, 5)),), as_of_s=NOW + 40.0)
    assert verdict(hung, now_s=NOW + 40).verdict == "Harm"


COUNTS = st.tuples(*[st.integers(0, 6)] * 2)


@st.composite
def histories(draw):
    """Cells of assigned requests with their fates: (good, failed) by arm, and what is open."""
    cells = []
    first_s, width_s = draw(st.sampled_from([(0, 1), (18, 0.125), (14, 0.5)]))
    for n in range(draw(st.integers(1, 8))):
        good, failed = draw(COUNTS), draw(COUNTS)
        seen = [draw(st.integers(0, failed[arm])) for arm in (0, 1)]
        waiting = [draw(st.integers(0, good[arm])) for arm in (0, 1)]
        assigned = tuple(g + f for g, f in zip(good, failed, strict=True))
        hidden = tuple(w + f - s for w, f, s in zip(waiting, failed, seen, strict=True))
        cells.append((first_s + n * width_s, assigned, tuple(failed), tuple(seen), hidden))
    return cells


@settings(max_examples=200, deadline=None)
@given(histories())
def test_evidence_never_exceeds_that_of_a_prefix_with_all_outcomes_known(history):
    partial = young(*(cell(s, assigned=a, failed=seen, open=o) for s, a, _, seen, o in history))
    prefixes = [
        young(*(cell(s, assigned=a, failed=f) for s, a, f, _, _ in history[:end])).log_e
        for end in range(len(history) + 1)
    ]
    assert partial.log_e <= max(prefixes) + 1e-9


# Epochs.


def test_regression_after_a_million_clean_requests_is_still_found():
    clean = row((750_000, 250_000), ((7_500, 2_500),))
    bad = row((300, 100), ((3, 16),))
    judgement = verdict(tally(clean, row(), row(), bad, weight_bp=2_500))
    assert judgement.verdict == "Harm"


def test_ramp_with_a_drifting_baseline_is_no_harm():
    rows = [row((950, 50), ((10, 1),)), row((900, 100), ((27, 3),)), row((500, 500), ((30, 30),))]
    judgement = verdict(tally(*rows, weights=(500, 1_000, 5_000)))
    assert judgement.log_e < 1
    assert judgement.objectives[0].low < 1 < judgement.objectives[0].high


# Several objectives.


def test_objectives_are_averaged_by_share():
    double = (ERRORS, Objective(name="slow", event="Slow", share=3))
    counts = row((40, 5), ((0, 5), (0, 0)))
    alone = verdict(tally(row((40, 5), ((0, 5),))))
    assert verdict(tally(counts), objectives=double).log_e < alone.log_e - 1.2


def test_suspect_has_the_largest_share_of_the_evidence():
    both = (ERRORS, Objective(name="slow", event="Slow"))
    assert verdict(tally(row((40, 9), ((0, 1), (0, 9)))), objectives=both).suspect == "slow"


def test_hold_objective_holds_and_does_not_roll_back():
    held = (ERRORS, Objective(name="load", event="Escalated", mode="Hold"))
    judgement = verdict(tally(row((40, 9), ((0, 0), (0, 9)))), objectives=held)
    assert judgement.verdict == "NoHarmYet"
    assert judgement.holds == ("Objective/load",)


def test_observed_objective_is_only_shown():
    seen = (ERRORS, Objective(name="load", event="Escalated", mode="Observe"))
    judgement = verdict(tally(row((40, 9), ((0, 0), (0, 9)))), objectives=seen)
    assert (judgement.verdict, judgement.holds) == ("NoHarmYet", ())
    assert judgement.objectives[1].verdict == "Harm"


def test_without_enforced_objectives_nothing_is_proved():
    observed = (Objective(name="load", event="Escalated", mode="Observe"),)
    judgement = verdict(tally(row((40_000, 40_000), ((999, 0),))), objectives=observed)
    assert judgement.verdict == "NoHarmYet"


def test_without_objectives_nothing_is_judged():
    one = Tally(key=KEY, router="a", boot="1", seq=1, as_of_s=NOW)
    assert verdict(one, objectives=()).verdict == "InsufficientData"


# Ceilings.

CAPPED = Objective(name="errors", event="Error", max_rate=0.02)


def test_ceiling_finds_harm_sooner_than_the_ratio_does():
    tallied = tally(row((100, 100), ((2, 14),)), weight_bp=5_000)
    assert verdict(tallied, alpha=0.001).verdict != "Harm"
    assert verdict(tallied, objectives=(CAPPED,), alpha=0.001).verdict == "Harm"


@pytest.mark.parametrize("weight_bp", [5_000, 9_000, 9_900])
@pytest.mark.parametrize("down", [40, 400])
def test_outage_of_both_arms_is_not_laid_to_the_canary(weight_bp, down):
    """Stable has few requests at a high weight, too few to prove the outage by its own."""
    canary = down * weight_bp // 10_000
    counts = row((10_000 - weight_bp, weight_bp), ((down - canary, canary),))
    assert verdict(tally(counts, weight_bp=weight_bp), objectives=(CAPPED,)).verdict != "Harm"


def test_ceiling_that_stable_breaks_too_is_no_fault_of_the_canary():
    judgement = verdict(tally(row((900, 100), ((180, 20),))), objectives=(CAPPED,))
    assert judgement.verdict != "Harm"
    assert judgement.holds == ("StableUnhealthy",)


def test_healthy_stable_is_not_called_unhealthy_while_its_requests_are_open():
    late = cell(9, assigned=(500, 50), failed=(0, 6), open=(500, 0))
    counted = tally(row((900, 100)), cells=(late,), as_of_s=NOW + 20.0)
    assert verdict(counted, objectives=(CAPPED,), now_s=NOW + 20).holds == ()


# Quality.


def test_pairs_find_a_loss_of_quality():
    counts = row((600, 200), ((0, 0),), audits=(150, 10, 24, 3, 0))
    assert verdict(tally(counts), objectives=(QUALITY,)).verdict == "Harm"


def test_balanced_pairs_are_no_harm():
    counts = row((600, 200), ((0, 0),), audits=(150, 10, 14, 13, 0))
    judgement = verdict(tally(counts), objectives=(QUALITY,))
    assert judgement.verdict == "NoHarmYet"
    assert judgement.objectives[0].failed == (23, 24)


def test_hung_requests_are_no_quality_harm():
    counts = row((600, 60), ((0, 0),), open=(0, 60))
    assert verdict(tally(counts), objectives=(QUALITY,)).log_e == pytest.approx(0, abs=1e-9)


def test_many_dropped_audits_hold():
    counts = row((1_800, 200), ((0, 0),), audits=(90, 0, 0, 0, 10))
    assert verdict(tally(counts), objectives=(QUALITY,)).holds == ("OutcomesMissing",)


# Promotion.

FLOORED = Objective(name="errors", event="Error", negligible_rate=0.01)


def test_equal_canary_with_enough_failures_is_safe():
    counts = row((9_000, 9_000), ((180, 180),))
    assert verdict(tally(counts, weight_bp=5_000)).verdict == "Safe"


def test_canary_without_failures_is_safe_by_its_floor_alone():
    counts = row((600, 600))
    assert verdict(tally(counts, weight_bp=5_000)).verdict == "NoHarmYet"
    assert verdict(tally(counts, weight_bp=5_000), objectives=(FLOORED,)).verdict == "Safe"


def test_twice_as_bad_canary_is_not_safe():
    counts = row((900, 900), ((18, 36),))
    assert verdict(tally(counts, weight_bp=5_000), alpha=1e-9).verdict == "NoHarmYet"


def test_every_gate_must_be_passed():
    gates = (FLOORED, Objective(name="slow", event="Slow"))
    counts = row((600, 600), ((0, 0), (0, 0)))
    assert verdict(tally(counts, weight_bp=5_000), objectives=gates).verdict == "NoHarmYet"


@pytest.mark.parametrize("open", [(0, 12), (200, 0)])
def test_missing_outcomes_hold_and_keep_from_promotion(open):
    counts = row((9_000, 900), ((900, 20),), open=open)
    judgement = verdict(tally(counts))
    assert judgement.verdict != "Safe"
    assert judgement.holds == ("OutcomesMissing",)
    assert judgement.coverage < 0.99


def test_wrong_sample_ratio_holds_and_keeps_from_promotion():
    counts = row((9_000, 5_000), ((180, 10),))
    judgement = verdict(tally(counts, weight_bp=5_000))
    assert judgement.verdict == "NoHarmYet"
    assert judgement.holds == ("SampleRatioMismatch",)


def test_open_requests_put_promotion_off():
    counts = row((300, 300))
    late = Cell(NOW + 1, 0, row((300, 300), open=(0, 1)))
    some = tally(counts, cells=(late,), weight_bp=5_000, as_of_s=NOW + 5.0)
    whole = verdict(tally(row((600, 600)), weight_bp=5_000), objectives=(FLOORED,))
    part = verdict(some, objectives=(FLOORED,), now_s=NOW + 5)
    assert part.objectives[0].promote_log_e < whole.objectives[0].promote_log_e


# Names of evidence.


def test_fingerprint_is_that_of_the_last_release():
    """Else an upgrade would void the evidence of every canary that is out."""
    assert fingerprint(Monitoring(objectives=DEFAULTS.objectives)) == "b0e4de487a"
    audits = Audits(reference="large")
    assert fingerprint(Monitoring(objectives=(QUALITY,), audits=audits)) == "7a457c3f44"


def test_fingerprint_follows_what_a_failure_means():
    base = Monitoring(objectives=(ERRORS,), audits=Audits(reference="large", percent_bp=100))
    more = Monitoring(objectives=(ERRORS,), audits=Audits(reference="large", percent_bp=900))
    others = (
        Monitoring(objectives=(CAPPED,), audits=base.audits),
        Monitoring(objectives=(ERRORS,), audits=Audits(reference="small")),
        Monitoring(objectives=(ERRORS,), monitors=(Check(name="pii", type="Pattern"),)),
    )
    assert fingerprint(base) == fingerprint(more)
    assert len({fingerprint(one) for one in (base, *others)}) == 4
    assert len(fingerprint(base)) == 10


def test_horizon_is_the_longer_deadline_and_a_little():
    slow = revision("assistant-0000000002", deadline_ms=45_500)
    assert horizon_s(policy()) == 32
    assert horizon_s(policy(canary=slow)) == 48
