"""Labels of people: held back in the ledger until all of one second have had as long."""

import itertools

import msgspec
import pytest

from support.ledgers import CANARY, NOW, STABLE, counts, judged, only, serve
from support.routes import policy, revision
from weir_core.evidence import BAD, FAILED
from weir_core.merging import merge, retire
from weir_core.sequential import horizon_s, judge
from weir_core.snapshot import Monitoring, Objective, RolloutPolicy
from weir_router.labels import MAX_HELD_SESSIONS, STRETCHES, Receipts
from weir_router.ledger import Ledger

WITHIN_S = 600
ERRORS = Objective(name="errors", event="Error")
THUMBS = Objective(name="thumbs", event="Feedback", within_ms=WITHIN_S * 1_000)
LABELS = FAILED + 2
"""Place of stable's labels in a row; the canary's is the next."""


def labelled(weight_bp=5_000, *, unit="Request", objectives=(ERRORS, THUMBS)):
    return policy(
        canary=revision("assistant-0000000002"),
        attempt=1,
        weight_bp=weight_bp,
        monitoring=Monitoring(objectives=objectives),
        rollout=RolloutPolicy(unit=unit),
    )


ROUTE = labelled()
SESSIONS = labelled(unit="Session")
DUE_S = 1 + horizon_s(ROUTE) + WITHIN_S
"""From the second of assignment until its labels count."""


@pytest.fixture
def ledger():
    return Ledger(router="r", boot="1")


def ask(ledger, arm, *, route=ROUTE, now_s=NOW, **more):
    return serve(ledger, arm, route=route, now_s=now_s, **more)


def thumbs(ledger, now_s, route=ROUTE):
    return judged(ledger, now_s, route).objectives[1]


# When a label counts.


def test_label_counts_when_its_window_is_over_and_not_before(ledger):
    ledger.label(ask(ledger, CANARY), True, NOW + 5)
    assert thumbs(ledger, NOW + DUE_S - 0.1).failed == (0, 0)
    assert thumbs(ledger, NOW + DUE_S).failed == (0, 1)


def test_labels_of_one_second_count_at_one_moment_however_late_they_came(ledger):
    early, late = ask(ledger, CANARY), ask(ledger, STABLE)
    ledger.label(early, True, NOW + 1)
    ledger.label(late, True, NOW + WITHIN_S)
    seen = [thumbs(ledger, NOW + second).failed for second in range(WITHIN_S, DUE_S + 2)]
    assert set(seen) == {(0, 0), (1, 1)}


def test_labels_count_in_the_order_of_assignment(ledger):
    tickets = [ask(ledger, arm, now_s=NOW + arm) for arm in (STABLE, CANARY)]
    for delay, ticket in enumerate(reversed(tickets)):
        ledger.label(ticket, True, NOW + 5 + delay)
    assert thumbs(ledger, NOW + DUE_S).failed == (1, 0)
    assert thumbs(ledger, NOW + DUE_S + 1).failed == (1, 1)


def test_window_is_counted_from_the_reply(ledger):
    """Who answers sooner would be labelled longer, if it were counted from the request."""
    ticket = ask(ledger, STABLE, takes_s=30.0)
    assert ledger.label(ticket, True, NOW + 30 + WITHIN_S) == "held"
    assert thumbs(ledger, NOW + DUE_S).failed == (1, 0)


def test_late_label_is_no_evidence(ledger):
    ticket = ask(ledger, CANARY)
    assert ledger.label(ticket, True, NOW + WITHIN_S + 0.6) == "late"
    assert thumbs(ledger, NOW + 2 * DUE_S).failed == (0, 0)


def test_label_of_a_reply_that_came_past_the_horizon_is_late(ledger):
    ticket = ask(ledger, CANARY, takes_s=40.0)
    assert ledger.label(ticket, True, NOW + 41) == "late"


def test_label_may_be_late_for_one_objective_and_not_for_another(ledger):
    quick = Objective(name="quick", event="Feedback", within_ms=60_000)
    route = labelled(objectives=(quick, THUMBS))
    ticket = ask(ledger, CANARY, route=route)
    assert ledger.label(ticket, True, NOW + 61) == "held"
    failed = [one.failed for one in judged(ledger, NOW + DUE_S, route).objectives]
    assert failed == [(0, 0), (0, 1)]


def test_first_label_of_a_request_counts(ledger):
    praised, blamed = ask(ledger, CANARY), ask(ledger, CANARY)
    told = [ledger.label(praised, harm, NOW + 5) for harm in (False, True)]
    told += [ledger.label(blamed, True, NOW + 5) for _ in range(2)]
    assert told == ["fine", "again", "held", "again"]
    assert thumbs(ledger, NOW + DUE_S).failed == (0, 1)


def test_label_without_such_an_objective_is_taken_and_proves_nothing(ledger):
    route = labelled(objectives=(ERRORS,))
    assert ledger.label(ask(ledger, CANARY, route=route), True, NOW + 1) == "unused"
    assert counts(ledger, NOW + DUE_S)[FAILED:] == [0, 0]


def test_label_counts_for_the_weight_that_its_request_was_drawn_with(ledger):
    ticket = ask(ledger, CANARY)
    ask(ledger, STABLE, route=labelled(1_000), now_s=NOW + 100)
    ledger.label(ticket, True, NOW + 200)
    tally = only(ledger, NOW + DUE_S + 60)
    assert {e.weight_bp: e.counts[LABELS + 1] for e in tally.epochs} == {5_000: 1, 1_000: 0}


def test_labels_of_a_day_ago_find_their_joined_epoch(ledger):
    day = msgspec.structs.replace(THUMBS, within_ms=86_400_000)
    route = labelled(objectives=(ERRORS, day))
    tickets = [ask(ledger, CANARY, route=route, now_s=NOW + 600 * turn) for turn in range(200)]
    last_s = NOW + 600 * 200
    told = [ledger.label(ticket, True, last_s) for ticket in tickets]
    assert set(told) == {"late", "held"}
    judgement = judged(ledger, last_s + 90_000, route)
    assert judgement.objectives[1].failed == (0, told.count("held"))


# What follows.


def blame(ledger, n=12, *, arm=CANARY, route=ROUTE, session=""):
    for _ in range(n):
        ledger.label(ask(ledger, arm, route=route, session=session), True, NOW + 5)


def test_harmful_labels_roll_back(ledger):
    blame(ledger)
    assert judged(ledger, NOW + DUE_S - 1, ROUTE).verdict == "NoHarmYet"
    judgement = judged(ledger, NOW + DUE_S, ROUTE)
    assert (judgement.verdict, judgement.suspect) == ("Harm", "thumbs")


def test_equal_canary_whose_answers_are_labelled_sooner_is_not_rolled_back(ledger):
    """Its labels come after 5 s, stable's after eight minutes: alone they would be proof."""
    waiting = []
    worst = 0.0
    for second in range(1_200):
        now_s = NOW + second
        if second < 300:
            arm = second % 2
            waiting.append((now_s + (5 if arm else 480), ask(ledger, arm, now_s=now_s)))
        for due_s, ticket in [one for one in waiting if one[0] == now_s]:
            ledger.label(ticket, True, due_s)
        worst = max(worst, judged(ledger, now_s, ROUTE).log_e)
    assert thumbs(ledger, now_s).failed == (150, 150)
    assert worst < 1


def test_a_label_makes_a_bad_answer_once(ledger):
    worse = ask(ledger, CANARY, failed=1)
    bad = ask(ledger, CANARY)
    for ticket in (worse, bad, ask(ledger, STABLE)):
        ledger.label(ticket, True, NOW + 5)
    assert counts(ledger, NOW + 6)[BAD] == 2


def test_restart_loses_what_is_held_back_and_keeps_what_counted(ledger):
    ledger.label(ask(ledger, CANARY), True, NOW + 5)
    counted = only(ledger, NOW + DUE_S)
    ledger.label(ask(ledger, STABLE, now_s=NOW + DUE_S), True, NOW + DUE_S + 5)
    again = Ledger(router="r", boot="2")
    again.restore(ledger.tallies(NOW + DUE_S + 6), NOW + DUE_S + 6)
    assert thumbs(again, NOW + 3 * DUE_S).failed == (0, 1)
    assert counted.epochs[0].counts[LABELS + 1] + counted.cells[0].counts[LABELS + 1] == 1


# Sessions.


def test_session_is_labelled_once_by_its_earliest_request(ledger):
    tickets = [
        ask(ledger, CANARY, route=SESSIONS, session="ann", now_s=NOW + turn) for turn in range(3)
    ]
    for ticket in reversed(tickets):
        ledger.label(ticket, True, NOW + 10)
    assert thumbs(ledger, NOW + DUE_S, SESSIONS).failed == (0, 1)
    assert thumbs(ledger, NOW + DUE_S + 9, SESSIONS).failed == (0, 1)


def test_session_that_erred_can_still_be_labelled(ledger):
    """Else the arm with fewer errors would be watched longer, and labelled more often."""
    ask(ledger, CANARY, failed=1, route=SESSIONS, session="ann")
    ticket = ask(ledger, CANARY, route=SESSIONS, session="ann")
    ledger.label(ticket, True, NOW + 5)
    assert thumbs(ledger, NOW + DUE_S, SESSIONS).failed == (0, 1)


def test_session_labelled_at_three_routers_counts_once():
    ledgers = [Ledger(router=name, boot="1") for name in "abc"]
    for ledger in ledgers:
        blame(ledger, 1, route=SESSIONS, session="ann")
    assert united(ledgers, NOW + DUE_S + 2).failed == (0, 1)


def test_very_many_labelled_sessions_are_sampled_in_both_arms(ledger):
    """Half of them is too many still, a quarter is not."""
    for number in range(5 * MAX_HELD_SESSIONS // 2):
        ticket = ask(ledger, number % 2, route=SESSIONS, session=str(number))
        ledger.label(ticket, True, NOW + 5)
    held = ledger._current[SESSIONS.uid].held
    assert held._sessions <= MAX_HELD_SESSIONS
    judgement = thumbs(ledger, NOW + DUE_S, SESSIONS)
    assert held._sessions == 0
    assert sum(judgement.failed) == pytest.approx(5 * MAX_HELD_SESSIONS / 8, rel=0.1)
    assert judgement.failed[0] == pytest.approx(judgement.failed[1], rel=0.1)
    assert judgement.verdict != "Harm"


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["in order", "the later one first"])
def test_session_that_moved_to_the_canary_is_labelled_where_it_was_first(ledger, order):
    """The window of a day is released in stretches of minutes: both are in one."""
    day = msgspec.structs.replace(THUMBS, within_ms=86_400_000)
    route = labelled(unit="Session", objectives=(ERRORS, day))
    begin_s = NOW // 144 * 144
    tickets = [
        ask(ledger, arm, route=route, session="ann", now_s=begin_s + 9 * arm) for arm in (0, 1)
    ]
    for turn in order:
        ledger.label(tickets[turn], True, begin_s + 20)
    assert thumbs(ledger, begin_s + 90_000, route).failed == (1, 0)


# Several routers.


def united(ledgers, now_s, *, reported=()):
    reports = [tally for ledger in ledgers for tally in ledger.tallies(now_s)]
    judgement = judge(
        [*reports, *reported],
        ROUTE.monitoring.objectives,
        alpha=0.01,
        promote_alpha=0.05,
        promote_ratio=2.0,
        now_s=now_s,
        horizon_s=horizon_s(ROUTE),
    )
    return judgement.objectives[1]


def test_reports_are_cut_at_the_second_that_all_routers_have_released():
    """The other's labels of that second may be stable's; alone the first would be believed."""
    first, other = (Ledger(router=name, boot="1") for name in "ab")
    blame(first)
    ask(other, STABLE)
    behind = other.tallies(NOW + DUE_S - 3)
    ahead = first.tallies(NOW + DUE_S + 1)
    assert united([], NOW + DUE_S + 1, reported=(*behind, *ahead)).log_e == pytest.approx(0)
    whole = united([first, other], NOW + DUE_S + 2)
    assert whole.log_e == pytest.approx(thumbs(first, NOW + DUE_S).log_e)


def test_labels_of_a_router_that_is_gone_stay(ledger):
    blame(ledger)
    merged = merge(ledger.tallies(NOW + DUE_S))
    kept = retire(merged, "r", "1", horizon_s=horizon_s(ROUTE))
    judgement = judge(
        kept,
        ROUTE.monitoring.objectives,
        alpha=0.01,
        promote_alpha=0.05,
        promote_ratio=2.0,
        now_s=NOW + 5_000,
        horizon_s=horizon_s(ROUTE),
    )
    assert judgement.objectives[1].failed == (0, 12)
    assert judgement.verdict == "Harm"


def test_labels_leave_the_cells_of_the_report(ledger):
    for second in range(100):
        ticket = ask(ledger, CANARY, now_s=NOW + second)
        ledger.label(ticket, True, NOW + second + 5)
        ledger.judge(ROUTE, alpha=0.01, now_s=NOW + second)
    late = only(ledger, NOW + DUE_S + 200)
    assert late.cells == ()
    assert late.epochs[0].counts[LABELS + 1] == 100


# Bounds.


def test_labels_of_a_day_are_held_in_a_bounded_number_of_stretches(ledger):
    day = msgspec.structs.replace(THUMBS, within_ms=86_400_000)
    route = labelled(objectives=(ERRORS, day))
    for second in range(0, 86_400, 20):
        ledger.label(ask(ledger, CANARY, route=route, now_s=NOW + second), True, NOW + 86_400)
    held = ledger._current[route.uid].held
    assert len(held._stretches) <= STRETCHES + 86_400 // 600 + 2
    assert judged(ledger, NOW + 3 * 86_400, route).objectives[1].failed == (0, 4_320)


def test_oldest_reply_is_forgotten_for_room(ledger):
    receipts = Receipts(most=3)
    forgone = [receipts.keep(str(n), ask(ledger, STABLE, now_s=NOW + n)) for n in range(5)]
    assert forgone == [False, False, False, True, True]
    assert [receipts.find(str(n)) is not None for n in range(5)] == [False] * 2 + [True] * 3


def test_reply_forgotten_for_room_after_its_window_is_not_missed(ledger):
    receipts = Receipts(most=1)
    receipts.keep("old", ask(ledger, STABLE))
    assert not receipts.keep("new", ask(ledger, STABLE, now_s=NOW + WITHIN_S))


def test_replies_are_forgotten_after_twice_their_window(ledger):
    for n in range(3):
        ledger.receipts.keep(str(n), ask(ledger, STABLE, now_s=NOW + n))
    ledger.tallies(NOW + 2 * WITHIN_S + 1.6)
    assert [ledger.receipts.find(str(n)) is not None for n in range(3)] == [False, False, True]


# The same counts by every way.


@pytest.mark.parametrize("unit", ["Request", "Session"])
def test_every_order_of_labels_ends_in_the_same_tally(unit):
    route = labelled(unit=unit)
    asked = [(STABLE, "a"), (CANARY, "b"), (CANARY, "b"), (STABLE, "")]
    tallies = []
    for order in itertools.permutations(range(4)):
        ledger = Ledger(router="r", boot="1")
        tickets = [
            ask(ledger, arm, route=route, session=session, now_s=NOW + turn)
            for turn, (arm, session) in enumerate(asked)
        ]
        for turn, which in enumerate(order):
            ledger.label(tickets[which], True, NOW + 10 + turn)
        tallies.append(msgspec.structs.replace(only(ledger, NOW + DUE_S + 5), seq=0))
    assert all(one == tallies[0] for one in tallies)
