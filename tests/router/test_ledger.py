"""The ledger: what is counted, and when it is too late."""

import msgspec
import pytest

from support.ledgers import (
    CANARY,
    ERROR,
    HORIZON_S,
    NOW,
    OBJECTIVES,
    ROUTE,
    SLOW,
    STABLE,
    counts,
    fresh,
    judged,
    only,
    rolling,
    serve,
)
from support.routes import policy
from weir_core.evidence import ASSIGNED, BAD, FAILED, SETTLED, Tally
from weir_core.sequential import judge
from weir_core.snapshot import Monitoring, Objective
from weir_router.book import key_of
from weir_router.ledger import Ledger


@pytest.fixture
def ledger():
    return fresh()


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


def test_escalated_request_is_not_bad_served(ledger):
    route = msgspec.structs.replace(
        ROUTE, monitoring=Monitoring(objectives=(Objective(name="load", event="Escalated"),))
    )
    serve(ledger, CANARY, 1, route=route)
    judgement = judged(ledger, NOW + 1, route)
    assert judgement.objectives[0].failed == (0, 1)
    assert judgement.bad_served == 0


@pytest.mark.parametrize(("failed", "bad", "seen"), [(ERROR, False, 0), (0, True, 1)])
def test_who_knows_what_reached_the_client_says_what_is_bad(ledger, failed, bad, seen):
    for arm in (STABLE, CANARY):
        ticket = ledger.assign(ROUTE, arm, "", NOW)
        ledger.settle(ticket, failed, NOW + 1, bad=bad)
    assert judged(ledger, NOW + 1).bad_served == seen


def test_canary_harms_found_by_audits_are_bad_served(ledger):
    for canary, stable in ((True, False), (True, True), (False, True), (False, False)):
        ledger.audit_end(ledger.audit_begin(ROUTE, NOW), canary, stable, NOW + 2)
    assert judged(ledger, NOW + 3).bad_served == 2


@pytest.mark.parametrize("weight_bp", [0, 10_000])
def test_request_that_was_not_drawn_is_no_evidence(ledger, weight_bp):
    assert ledger.assign(rolling(weight_bp), CANARY, "", NOW) is None


def test_route_without_canary_has_no_evidence(ledger):
    assert ledger.assign(policy(), STABLE, "", NOW) is None
    assert ledger.audit_begin(policy(), NOW) is None


def test_judging_without_canary_is_refused(ledger):
    with pytest.raises(ValueError, match="no canary"):
        ledger.judge(policy(), alpha=0.01, now_s=NOW)


def test_new_weight_or_ten_minutes_begin_an_epoch(ledger):
    serve(ledger, STABLE)
    serve(ledger, STABLE, route=rolling(5_000))
    serve(ledger, STABLE)
    serve(ledger, STABLE, now_s=NOW + 600)
    labels = [(e.period - int(NOW) // 600, e.weight_bp) for e in only(ledger, NOW + 600).epochs]
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
