"""The ledger: what is counted, when it is too late, what a restart leaves."""

import msgspec
import pytest

from support.routes import policy, revision
from weir_core.evidence import ASSIGNED, BAD, FAILED, SETTLED, Tally
from weir_core.sequential import horizon_s, judge
from weir_core.snapshot import Audits, Monitoring, Objective, RolloutPolicy
from weir_router.book import MAX_SESSIONS, key_of
from weir_router.ledger import Ledger

NOW = 1_700_000_000.0
OBJECTIVES = (
    Objective(name="errors", event="Error"),
    Objective(name="slow", event="Slow", mode="Observe"),
    Objective(name="quality", event="Harm"),
)
ERROR, SLOW = 1, 2
STABLE, CANARY = 0, 1


def rolling(weight_bp=1_000, *, unit="Request", **changes):
    return policy(
        canary=revision("assistant-0000000002"),
        attempt=changes.pop("attempt", 1),
        weight_bp=weight_bp,
        monitoring=Monitoring(objectives=OBJECTIVES, audits=Audits(reference="large")),
        rollout=RolloutPolicy(unit=unit),
        **changes,
    )


ROUTE = rolling()
SESSIONS = rolling(unit="Session")
HORIZON_S = horizon_s(ROUTE)


@pytest.fixture
def ledger():
    one = Ledger(router="r", boot="1")
    one.open(ROUTE, NOW)
    return one


def only(ledger, now_s=NOW):
    (tally,) = ledger.tallies(now_s)
    return tally


def counts(ledger, now_s=NOW):
    tally = only(ledger, now_s)
    rows = [e.counts for e in tally.epochs] + [c.counts for c in tally.cells]
    return [sum(column) for column in zip(*rows, strict=True)]


def serve(ledger, arm, failed=0, *, route=ROUTE, session="", now_s=NOW, takes_s=0.5):
    ticket = ledger.assign(route, arm, session, now_s)
    if ticket is not None:
        ledger.settle(ticket, failed, now_s + takes_s)
    return ticket


def judged(ledger, now_s, route=ROUTE):
    return ledger.judge(route, alpha=0.01, now_s=now_s)


def test_settled_request_is_counted_by_arm(ledger):
    serve(ledger, STABLE)
    serve(ledger, CANARY, ERROR | SLOW)
    row = counts(ledger)
    assert row[ASSIGNED : ASSIGNED + 2] == [1, 1]
    assert row[SETTLED : SETTLED + 2] == [1, 1]
    assert row[FAILED : FAILED + 4] == [0, 1, 0, 1]


def test_settling_twice_counts_once(ledger):
    ticket = serve(ledger, CANARY)
    ledger.settle(ticket, ERROR, NOW + 1)
    row = counts(ledger)
    assert row[SETTLED + 1] == 1
    assert row[FAILED + 1] == 0


def test_settling_past_the_horizon_is_ignored_and_counts_as_failed(ledger):
    serve(ledger, CANARY, takes_s=HORIZON_S + 2)
    assert counts(ledger)[SETTLED + 1] == 0
    judgement = judged(ledger, NOW + HORIZON_S + 2)
    assert judgement.objectives[0].log_e > judged(Ledger(router="q", boot="1"), NOW).log_e


def test_request_settled_at_its_deadline_counts(ledger):
    serve(ledger, CANARY, takes_s=30.0)
    assert counts(ledger)[SETTLED + 1] == 1


def test_only_enforced_failures_are_bad_served(ledger):
    serve(ledger, CANARY, SLOW)
    serve(ledger, CANARY, ERROR | SLOW)
    serve(ledger, STABLE, ERROR)
    assert counts(ledger)[BAD] == 1
    assert judged(ledger, NOW + 1).bad_served == 1


@pytest.mark.parametrize("weight_bp", [0, 10_000])
def test_request_that_was_not_drawn_is_no_evidence(ledger, weight_bp):
    assert ledger.assign(rolling(weight_bp), CANARY, "", NOW) is None


def test_route_without_canary_has_no_evidence(ledger):
    assert ledger.assign(policy(), STABLE, "", NOW) is None
    assert ledger.audit_begin(policy(), NOW) is None


def test_judging_without_canary_is_refused(ledger):
    with pytest.raises(ValueError, match="no canary"):
        ledger.judge(policy(), alpha=0.01, now_s=NOW)


def test_new_weight_or_hour_begins_an_epoch(ledger):
    serve(ledger, STABLE)
    serve(ledger, STABLE, route=rolling(5_000))
    serve(ledger, STABLE)
    serve(ledger, STABLE, now_s=NOW + 3_600)
    labels = [(e.hour - int(NOW) // 3_600, e.weight_bp) for e in only(ledger, NOW + 3_600).epochs]
    assert labels == [(0, 1_000), (0, 5_000), (1, 1_000)]


def test_every_snapshot_of_the_same_evidence_goes_on(ledger):
    serve(ledger, STABLE)
    ledger.open(msgspec.structs.replace(ROUTE, model_names=("other",)), NOW)
    serve(ledger, STABLE)
    assert counts(ledger)[ASSIGNED] == 2
    assert len(only(ledger).cells) == 1


@pytest.mark.parametrize(
    "other",
    [rolling(attempt=2), msgspec.structs.replace(ROUTE, monitoring=Monitoring())],
    ids=["attempt", "objectives"],
)
def test_another_attempt_or_objective_is_other_evidence(ledger, other):
    serve(ledger, STABLE)
    ledger.open(other, NOW)
    assert key_of(other) != key_of(ROUTE)
    assert {t.key for t in ledger.tallies(NOW)} == {key_of(ROUTE), key_of(other)}


def test_a_route_keeps_its_last_book_and_no_older(ledger):
    for attempt in (2, 3, 4):
        ledger.open(rolling(attempt=attempt), NOW)
    assert {t.key.attempt for t in ledger.tallies(NOW)} == {3, 4}


def test_closed_book_is_forgotten(ledger):
    ledger.close(key_of(ROUTE))
    assert ledger.tallies(NOW) == ()


def test_seq_grows_with_changes_only(ledger):
    serve(ledger, STABLE)
    first = only(ledger, NOW + 1)
    idle = only(ledger, NOW + 2)
    serve(ledger, STABLE, now_s=NOW + 2)
    assert idle.seq == first.seq
    assert idle.as_of_s == NOW + 2
    assert only(ledger, NOW + 3).seq > first.seq


def test_cells_are_dropped_and_counts_stay(ledger):
    for second in range(200):
        serve(ledger, second % 2, now_s=NOW + second)
    tally = only(ledger, NOW + 300)
    assert tally.cells == ()
    assert tally.epochs[0].counts[ASSIGNED : ASSIGNED + 2] == (100, 100)


def test_clock_that_steps_back_breaks_nothing(ledger):
    serve(ledger, STABLE, now_s=NOW + 10)
    serve(ledger, STABLE, now_s=NOW)
    assert counts(ledger, NOW + 10)[SETTLED] == 2


def test_tally_and_own_view_give_the_same_judgement(ledger):
    for step in range(600):
        failed = ERROR if step % 23 == 0 else 0
        serve(ledger, int(step % 10 == 0), failed, now_s=NOW + step / 10)
    now_s = NOW + 60
    own = judged(ledger, now_s)
    raw = msgspec.json.encode(ledger.tallies(now_s))
    merged = judge(
        msgspec.json.decode(raw, type=tuple[Tally, ...]),
        OBJECTIVES,
        alpha=0.01,
        promote_alpha=0.05,
        promote_ratio=2.0,
        now_s=now_s,
        horizon_s=HORIZON_S,
    )
    assert merged == own


# Restarts.


def test_restored_evidence_is_judged_and_shown_again(ledger):
    for _ in range(8):
        serve(ledger, CANARY, ERROR)
    before = judged(ledger, NOW + 2)
    again = Ledger(router="r", boot="2")
    again.restore(ledger.tallies(NOW + 2), NOW + 3)
    again.open(ROUTE, NOW + 3)
    assert judged(again, NOW + 3).log_e == pytest.approx(before.log_e)
    assert set(ledger.tallies(NOW + 2)) <= set(again.tallies(NOW + 3))


def restarted(ledger):
    again = Ledger(router="r", boot="2")
    again.restore(ledger.tallies(NOW + 1), NOW + 2)
    again.open(ROUTE, NOW + 2)
    return again


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


def test_what_a_restart_cut_off_has_failed_in_a_canary_to_be_promoted(ledger):
    for _ in range(40):
        serve(ledger, STABLE, ERROR)
    alone = judged(restarted(ledger), NOW + 2).objectives[0].promote_log_e
    for _ in range(4):
        ledger.assign(ROUTE, CANARY, "", NOW)
    assert judged(restarted(ledger), NOW + 2).objectives[0].promote_log_e < alone


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


# Audits and labels.


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


def test_label_counts_once_for_its_arm(ledger):
    ticket = serve(ledger, CANARY)
    ledger.label(ticket, True, NOW + 5)
    ledger.label(ticket, True, NOW + 6)
    assert counts(ledger)[FAILED + 5] == 1


def test_label_long_after_the_horizon_counts(ledger):
    ticket = serve(ledger, STABLE)
    only(ledger, NOW + 500)
    ledger.label(ticket, True, NOW + 500)
    assert counts(ledger, NOW + 501)[FAILED + 4] == 1


def test_good_label_changes_nothing(ledger):
    ticket = serve(ledger, CANARY)
    ledger.label(ticket, False, NOW + 5)
    assert counts(ledger)[FAILED + 5] == 0


# Sessions.


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
    assert failure.second == NOW
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
