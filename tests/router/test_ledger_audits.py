"""The ledger's audits: pairs count whenever they end."""

import pytest

from support.ledgers import (
    HORIZON_S,
    NOW,
    ROUTE,
    counts,
    fresh,
    judged,
    only,
    restarted,
)
from weir_core.evidence import AUDITS_BEGUN


@pytest.fixture
def ledger():
    return fresh()


def test_audit_pairs_are_counted(ledger):
    for canary, stable in ((True, False), (True, False), (False, True), (True, True)):
        ledger.audit_end(ledger.audit_begin(ROUTE, NOW), canary, stable, NOW + 2)
    quality = judged(ledger, NOW + 3).objectives[2]
    assert quality.failed == (2, 3)
    assert quality.settled == (4, 4)


def test_audit_ends_or_is_dropped_once(ledger):
    audit = ledger.audit_begin(ROUTE, NOW)
    ledger.audit_drop(audit, NOW + 1)
    ledger.audit_end(audit, True, False, NOW + 1)
    assert judged(ledger, NOW + 2).audits == 0


def test_abandoned_audit_was_never_begun(ledger):
    for _ in range(25):
        audit = ledger.audit_begin(ROUTE, NOW)
        ledger.audit_abandon(audit)
        ledger.audit_abandon(audit)
        ledger.audit_end(audit, True, False, NOW + 1)
    late = ledger.audit_begin(ROUTE, NOW)
    only(ledger, NOW + 3 * HORIZON_S)
    ledger.audit_abandon(late)
    judgement = judged(ledger, NOW + 3 * HORIZON_S)
    assert (judgement.audits, judgement.holds) == (0, ())
    assert counts(ledger, NOW + 3 * HORIZON_S)[AUDITS_BEGUN] == 0


def test_audits_open_past_the_horizon_are_held_against_every_verdict(ledger):
    """Those that harm in one arm may last longer than the others."""
    now_s = NOW + 2 * HORIZON_S
    for _ in range(12):
        ledger.audit_end(ledger.audit_begin(ROUTE, NOW), True, False, NOW + 1)
        ledger.audit_end(ledger.audit_begin(ROUTE, NOW), False, True, NOW + 1)
    for canary in (True, False):
        late = [ledger.audit_begin(ROUTE, NOW) for _ in range(12)]
        before = judged(ledger, now_s).objectives[2]
        for audit in late:
            ledger.audit_end(audit, canary, not canary, now_s)
        after = judged(ledger, now_s).objectives[2]
        assert before.log_e <= after.log_e + 1e-9
        assert before.promote_log_e <= after.promote_log_e + 1e-9


def test_audits_that_a_restart_cut_off_are_held_against_every_verdict(ledger):
    for _ in range(12):
        ledger.audit_end(ledger.audit_begin(ROUTE, NOW), True, False, NOW + 1)
    alone = judged(restarted(ledger), NOW + 2).objectives[2]
    for _ in range(12):
        ledger.audit_begin(ROUTE, NOW)
    cut_off = judged(restarted(ledger), NOW + 2).objectives[2]
    assert cut_off.log_e < alone.log_e
    assert cut_off.promote_log_e < alone.promote_log_e


def test_audit_that_ends_past_the_horizon_still_counts(ledger):
    audit = ledger.audit_begin(ROUTE, NOW)
    ledger.audit_end(audit, True, False, NOW + 3 * HORIZON_S)
    assert judged(ledger, NOW + 3 * HORIZON_S).audits == 1


def test_open_audits_do_not_speak_for_harm(ledger):
    for _ in range(12):
        ledger.audit_end(ledger.audit_begin(ROUTE, NOW), True, False, NOW + 1)
    alone = judged(ledger, NOW + 1).log_e
    for _ in range(12):
        ledger.audit_begin(ROUTE, NOW)
    assert judged(ledger, NOW + 1).log_e < alone
