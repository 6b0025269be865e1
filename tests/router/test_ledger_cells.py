"""Cells: fine while young, joined later, and always holding the same counts."""

import pytest

from support.ledgers import (
    CANARY,
    ERROR,
    HORIZON_S,
    NOW,
    ROUTE,
    SESSIONS,
    SLOW,
    STABLE,
    counts,
    fresh,
    judged,
    only,
    rolling,
)
from weir_core.evidence import ASSIGNED, AUDITS_ENDED, CANARY_HARMED, FAILED, SETTLED
from weir_core.merging import SLACK_S


@pytest.fixture
def ledger():
    return fresh()


def assigned(ledger, *arms, route=ROUTE, session=""):
    """Tickets of requests assigned one by one, each in a cell of its own."""
    return [ledger.assign(route, arm, session, NOW + at / 8) for at, arm in enumerate(arms)]


def begins_s(ledger, now_s):
    return [cell.begin_s - NOW for cell in only(ledger, now_s).cells]


def test_cells_are_joined_when_they_are_no_longer_fresh(ledger):
    assigned(ledger, STABLE, CANARY, STABLE)
    assert begins_s(ledger, NOW + 1) == [0, 0.125, 0.25]
    ledger.assign(ROUTE, STABLE, "", NOW + 15)
    assert begins_s(ledger, NOW + 15) == [0, 15]
    assert counts(ledger, NOW + 15)[ASSIGNED : ASSIGNED + 2] == [3, 1]


def test_cells_of_two_weights_are_not_joined(ledger):
    assigned(ledger, STABLE, STABLE)
    other = rolling(2_500)
    ledger.assign(other, CANARY, "", NOW + 0.5)
    assert begins_s(ledger, NOW + 15) == [0, 0.5]


@pytest.mark.parametrize("after_s", [1, 15, 31])
def test_request_settles_in_whatever_cell_it_is_by_then(ledger, after_s):
    _, ticket, _ = assigned(ledger, STABLE, CANARY, STABLE)
    judged(ledger, NOW + after_s)
    ledger.settle(ticket, ERROR | SLOW, NOW + after_s)
    row = counts(ledger, NOW + after_s)
    assert row[SETTLED : SETTLED + 2] == [0, 1]
    assert row[FAILED : FAILED + 4] == [0, 1, 0, 1]
    assert judged(ledger, NOW + after_s).objectives[0].failed == (0, 1)


def test_all_of_a_joined_cell_is_late_at_one_moment(ledger):
    first, last = assigned(ledger, CANARY, CANARY)
    ledger.settle(first, ERROR, NOW + HORIZON_S + 0.9)
    ledger.settle(last, ERROR, NOW + HORIZON_S + 1)
    assert counts(ledger, NOW + HORIZON_S + 1)[SETTLED + 1] == 1


@pytest.mark.parametrize("after_s", [1, 15])
def test_session_fails_in_whatever_cell_it_is_by_then(ledger, after_s):
    assigned(ledger, STABLE, route=SESSIONS, session="bob")
    (ticket,) = assigned(ledger, CANARY, route=SESSIONS, session="ann")
    judged(ledger, NOW + after_s, SESSIONS)
    ledger.settle(ticket, ERROR, NOW + after_s)
    for now_s in (NOW + after_s, NOW + HORIZON_S + 2):
        assert judged(ledger, now_s, SESSIONS).objectives[0].failed == (0, 1)
    (failure,) = only(ledger, NOW + after_s).failures
    assert failure.begin_s == NOW


@pytest.mark.parametrize("after_s", [1, 15, HORIZON_S + 2, HORIZON_S + SLACK_S + 2])
def test_audit_ends_in_whatever_cell_it_is_by_then(ledger, after_s):
    assigned(ledger, STABLE)
    audit = ledger.audit_begin(ROUTE, NOW + 0.5)
    judged(ledger, NOW + after_s)
    ledger.audit_end(audit, canary_harm=True, stable_harm=False, now_s=NOW + after_s)
    row = counts(ledger, NOW + after_s)
    assert (row[AUDITS_ENDED], row[CANARY_HARMED]) == (1, 1)
    assert judged(ledger, NOW + after_s).audits == 1
