"""The ledger after a restart: what was cut off speaks for no verdict."""

import pytest

from support.ledgers import (
    CANARY,
    ERROR,
    HORIZON_S,
    NOW,
    ROUTE,
    STABLE,
    fresh,
    judged,
    restarted,
    rolling,
    serve,
)
from weir_router.ledger import Ledger


@pytest.fixture
def ledger():
    return fresh()


def test_restored_evidence_is_judged_and_shown_again(ledger):
    for _ in range(8):
        serve(ledger, CANARY, ERROR)
    before = judged(ledger, NOW + 2)
    again = Ledger(router="r", boot="2")
    again.restore(ledger.tallies(NOW + 2), NOW + 3)
    again.open(ROUTE, NOW + 3)
    assert judged(again, NOW + 3).log_e == pytest.approx(before.log_e)
    assert set(ledger.tallies(NOW + 2)) <= set(again.tallies(NOW + 3))


def test_slow_canary_is_not_blamed_for_what_a_restart_cut_off(ledger):
    for _ in range(9):
        ledger.assign(ROUTE, CANARY, "", NOW)
    judgement = judged(restarted(ledger), NOW + 2)
    assert judgement.assigned == (0, 9)
    assert judgement.log_e < 1e-9


def test_stable_failures_that_a_restart_cut_off_still_speak_for_the_canary(ledger):
    for _ in range(4):
        serve(ledger, CANARY, ERROR)
    alone = judged(restarted(ledger), NOW + 2).log_e
    for _ in range(20):
        ledger.assign(ROUTE, STABLE, "", NOW)
    assert judged(restarted(ledger), NOW + 2).log_e < alone - 1


def test_failures_that_a_restart_cut_off_in_stable_alone_are_not_laid_to_the_canary(ledger):
    """The canary fails fast and answers slowly, stable the other way round; both are as good."""
    for _ in range(8):
        serve(ledger, CANARY, ERROR)
        for arm in (STABLE, STABLE, CANARY, CANARY):
            ledger.assign(rolling(5_000), arm, "", NOW)
    assert judged(restarted(ledger), NOW + 2).log_e < 0


def test_what_had_failed_before_a_restart_is_not_forgiven_by_it(ledger):
    for _ in range(30):
        serve(ledger, STABLE)
        ledger.assign(ROUTE, CANARY, "", NOW)
    now_s = NOW + HORIZON_S + 1
    assert judged(ledger, now_s).verdict == "Harm"
    again = Ledger(router="r", boot="2")
    again.restore(ledger.tallies(now_s), now_s)
    assert judged(again, now_s).verdict == "Harm"


def test_what_a_restart_cut_off_has_failed_in_a_canary_to_be_promoted(ledger):
    for _ in range(40):
        serve(ledger, STABLE, ERROR)
    alone = judged(restarted(ledger), NOW + 2).objectives[0].promote_log_e
    for _ in range(4):
        ledger.assign(ROUTE, CANARY, "", NOW)
    assert judged(restarted(ledger), NOW + 2).objectives[0].promote_log_e < alone


def test_what_a_restart_cut_off_does_not_count_as_missing(ledger):
    for _ in range(100):
        serve(ledger, STABLE)
        ledger.assign(ROUTE, STABLE, "", NOW)
    judgement = judged(restarted(ledger), NOW + 2)
    assert "OutcomesMissing" not in judgement.holds
    assert judgement.coverage == 1.0


def test_own_tallies_are_not_restored(ledger):
    serve(ledger, STABLE)
    tallies = ledger.tallies(NOW)
    ledger.restore(tallies, NOW)
    assert ledger.tallies(NOW) == tallies


def test_many_restarts_keep_a_bounded_number_of_tallies():
    tallies = ()
    for boot in range(40):
        ledger = Ledger(router="r", boot=str(boot))
        ledger.restore(tallies, NOW + boot)
        serve(ledger, STABLE, now_s=NOW + boot)
        tallies = ledger.tallies(NOW + boot + 0.9)
    assert len(tallies) <= 10
    assert judged(ledger, NOW + 41).assigned == (40, 0)


def test_restoring_after_opening_counts_as_well(ledger):
    serve(ledger, STABLE)
    again = Ledger(router="r", boot="2")
    again.open(ROUTE, NOW + 2)
    again.restore(ledger.tallies(NOW), NOW + 2)
    assert judged(again, NOW + 2).assigned == (1, 0)
