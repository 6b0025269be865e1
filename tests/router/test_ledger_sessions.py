"""The ledger where the unit is the session: first failures, first requests."""

import msgspec
import pytest

from support.ledgers import (
    CANARY,
    ERROR,
    HORIZON_S,
    NOW,
    SESSIONS,
    SLOW,
    STABLE,
    fresh,
    judged,
    only,
    rolling,
    serve,
)
from weir_core.sequential import judge
from weir_core.snapshot import Monitoring, Objective
from weir_router.book import MAX_SESSIONS
from weir_router.ledger import Ledger


@pytest.fixture
def ledger():
    return fresh()


def session_failures(ledger, now_s=NOW):
    return [(f.session, f.objective, f.arm) for f in only(ledger, now_s).failures]


def test_session_fails_once(ledger):
    for _ in range(3):
        serve(ledger, CANARY, ERROR, route=SESSIONS, session="ann")
    assert len(session_failures(ledger)) == 1
    assert judged(ledger, NOW + 1, SESSIONS).objectives[0].failed == (0, 1)


def test_session_is_evidence_for_eight_requests(ledger):
    tickets = [serve(ledger, STABLE, route=SESSIONS, session="ann") for _ in range(10)]
    assert [ticket is None for ticket in tickets] == [False] * 8 + [True] * 2


def test_session_that_failed_in_all_objectives_is_no_evidence_any_more(ledger):
    serve(ledger, STABLE, ERROR, route=SESSIONS, session="ann")
    assert serve(ledger, STABLE, SLOW, route=SESSIONS, session="ann") is not None
    assert serve(ledger, STABLE, route=SESSIONS, session="ann") is None


def test_earliest_assigned_failure_of_a_session_counts(ledger):
    early = ledger.assign(SESSIONS, STABLE, "ann", NOW)
    late = ledger.assign(SESSIONS, STABLE, "ann", NOW + 5)
    ledger.settle(late, ERROR, NOW + 6)
    ledger.settle(early, ERROR, NOW + 7)
    (failure,) = only(ledger, NOW + 8).failures
    assert failure.begin_s == NOW
    assert judged(ledger, NOW + 8, SESSIONS).objectives[0].failed == (1, 0)


def test_requests_without_session_are_units_of_their_own(ledger):
    for _ in range(3):
        serve(ledger, CANARY, ERROR, route=SESSIONS)
    assert judged(ledger, NOW + 1, SESSIONS).objectives[0].failed == (0, 3)
    assert only(ledger).epochs[0].units == (0, 3)


def test_sessions_are_counted_when_first_seen(ledger):
    for _ in range(4):
        serve(ledger, CANARY, route=SESSIONS, session="ann")
        serve(ledger, STABLE, route=SESSIONS, session="bob")
    assert only(ledger).epochs[0].units == (1, 1)


def test_sessions_in_the_report_are_hashes_salted_by_attempt(ledger):
    serve(ledger, CANARY, ERROR, route=SESSIONS, session="ann")
    other = Ledger(router="r", boot="1")
    second = rolling(unit="Session", attempt=2)
    serve(other, CANARY, ERROR, route=second, session="ann")
    assert "ann" not in session_failures(ledger)[0][0]
    assert session_failures(ledger) != session_failures(other)


def test_session_of_an_earlier_boot_does_not_fail_again(ledger):
    serve(ledger, CANARY, ERROR, route=SESSIONS, session="ann")
    again = Ledger(router="r", boot="2")
    again.restore(ledger.tallies(NOW + 1), NOW + 2)
    serve(again, CANARY, ERROR, route=SESSIONS, session="ann", now_s=NOW + 2)
    assert judged(again, NOW + 3, SESSIONS).objectives[0].failed == (0, 1)


def test_least_recent_session_is_forgotten_when_there_are_too_many(ledger):
    for number in range(MAX_SESSIONS + 1):
        ledger.assign(SESSIONS, STABLE, str(number), NOW)
    book = ledger._current[SESSIONS.uid]
    assert len(book.sessions) == MAX_SESSIONS
    assert "0" not in book.sessions


def test_sessions_are_not_counted_as_new_once_some_are_forgotten(ledger):
    for number in range(MAX_SESSIONS + 1):
        ledger.assign(SESSIONS, number % 10 == 0, str(number), NOW)
    seen = only(ledger).epochs[0].units
    for session in ("0", "0", "new", ""):
        ledger.assign(SESSIONS, CANARY, session, NOW)
    assert only(ledger).epochs[0].units == seen
    assert sum(seen) == MAX_SESSIONS + 1


def test_sessions_seen_by_several_routers_do_not_prove_a_negligible_rate():
    """One in eighty sessions fails, at one router; all make eight requests at each of three."""
    floored = (Objective(name="errors", event="Error", negligible_rate=0.01),)
    route = msgspec.structs.replace(SESSIONS, monitoring=Monitoring(objectives=floored))
    ledgers = [Ledger(router=router, boot="1") for router in "abc"]
    for number in range(600):
        for turn in range(24):
            failed = int(turn == number % 80 == 0)
            serve(ledgers[turn % 3], CANARY, failed, route=route, session=str(number))
    judgement = judge(
        [only(ledger, NOW + 1) for ledger in ledgers],
        floored,
        alpha=0.01,
        promote_alpha=0.05,
        promote_ratio=2.0,
        now_s=NOW + 1,
        horizon_s=HORIZON_S,
    )
    assert judgement.objectives[0].failed == (0, 8)
    assert judgement.objectives[0].promote_log_e < 0


def test_sessions_with_many_requests_do_not_prove_a_negligible_rate():
    """One in fifty sessions fails, its first request; the others answer eight requests each."""
    floored = (Objective(name="errors", event="Error", negligible_rate=0.01),)
    route = msgspec.structs.replace(SESSIONS, monitoring=Monitoring(objectives=floored))
    ledger = Ledger(router="r", boot="1")
    for number in range(1_000):
        for turn in range(8):
            serve(ledger, CANARY, int(number % 50 == turn == 0), route=route, session=str(number))
    assert judged(ledger, NOW + 1, route).objectives[0].promote_log_e < 0
