"""What the operator believes of a report, without a wire in between."""

from typing import Any

import msgspec
import pytest

from support.feeds import rolling
from support.routes import policy
from weir_core.evidence import Judgement, Tally, Trip
from weir_core.merging import merge
from weir_core.wire import Nack, Report, Routed
from weir_operator.gatekeeper import Caller
from weir_operator.inbox import EARLIER_S, MAX_KEYS, Inbox, Published, published
from weir_router.ledger import Ledger

NOW = 1_700_000_000.0
ROUTE = rolling()
CALLER = Caller(
    namespace="llm",
    pod_uid="uid-1",
    pod_name="r-1",
    service_account="weir-router",
    sidecar=False,
    expires_s=NOW + 600,
)


def routes(*policies: Any) -> Published:
    return published(
        {f"{p.namespace}/{p.name}": Routed(version=(1, 1), policy=p) for p in policies}
    )


OURS = routes(ROUTE)


def a_tally(policy: Any = ROUTE, served: int = 3, now_s: float = NOW) -> Tally:
    """Return what a ledger reports that calls itself somebody else."""
    ledger = Ledger(router="uid-of-a-rival", boot="99")
    for n in range(served):
        ticket = ledger.assign(policy, n % 2, "", now_s)
        assert ticket is not None
        ledger.settle(ticket, n % 2, now_s)
    return ledger.tallies(now_s)[0]


def report(**told: Any) -> Report:
    return Report(**({"start": 1, "as_of_s": NOW} | told))


def taken(*reports: Report, known: Published = OURS) -> Inbox:
    inbox = Inbox(CALLER)
    for one in reports:
        inbox.take(one, known, NOW)
    return inbox


def shown(inbox: Inbox, now_s: float = NOW) -> Report:
    connected = inbox.connected(now_s)
    assert connected is not None
    return connected.report


def change(tally: Tally, **changes: Any) -> Tally:
    return msgspec.structs.replace(tally, **changes)


def trip(**changes: Any) -> Trip:
    told: dict[str, Any] = {
        "route_uid": ROUTE.uid,
        "revision": "assistant-0000000002",
        "attempt": 1,
        "decided_by": "router/somebody-else",
        "reason": "Harm",
        "suspect": "errors",
        "log_e": 5.0,
        "at_s": NOW,
    }
    return Trip(**(told | changes))


def test_evidence_bears_the_name_of_the_pod_that_sent_it() -> None:
    (tally,) = shown(taken(report(start=4, tallies=(a_tally(),)))).tallies

    assert (tally.router, tally.boot) == ("uid-1", "4")


def test_a_router_is_known_from_its_first_report_on() -> None:
    assert Inbox(CALLER).connected(NOW) is None


def _of_an_epoch(**changes: Any) -> Tally:
    tally = a_tally()
    return change(tally, epochs=(msgspec.structs.replace(tally.epochs[0], **changes),))


def _of_a_cell(**changes: Any) -> Tally:
    tally = a_tally()
    return change(tally, cells=(msgspec.structs.replace(tally.cells[0], **changes),))


ELSEWHERE = rolling(uid="other/assistant", namespace="other")
STRICTER = rolling(monitoring=msgspec.structs.replace(ROUTE.monitoring, objectives=()))
REFUSED: list[Any] = [
    pytest.param(a_tally(ELSEWHERE), "evidence", id="of another namespace's route"),
    pytest.param(a_tally(STRICTER), "evidence", id="of other objectives"),
    pytest.param(_of_a_cell(counts=(1, 2)), "evidence", id="of a row too short"),
    pytest.param(_of_a_cell(counts=(-1,) * 13), "evidence", id="of counts below nought"),
    pytest.param(_of_a_cell(counts=(10**30,) * 13), "evidence", id="of counts beyond reason"),
    pytest.param(_of_a_cell(epoch=5), "evidence", id="of an epoch that is not there"),
    pytest.param(_of_an_epoch(weight_bp=20_000), "evidence", id="of a weight over all"),
    pytest.param(_of_an_epoch(first_s=-5), "evidence", id="of before there was time"),
    pytest.param(_of_an_epoch(first_s=int(NOW) + 9_999), "clock", id="of the future"),
    pytest.param(
        _of_an_epoch(lost=(1, 0)), "evidence", id="of losses that only the operator knows of"
    ),
    pytest.param(change(a_tally(), as_of_s=NOW + 9_999), "clock", id="as of the future"),
    pytest.param(change(a_tally(), level=40), "evidence", id="of a sampling that is none"),
]


@pytest.mark.parametrize(("tally", "why"), REFUSED)
def test_refused_evidence(tally: Tally, why: str) -> None:
    inbox = Inbox(CALLER)
    _, refused = inbox.take(report(tallies=(tally,)), OURS, NOW)

    assert refused == {why: 1}
    assert shown(inbox).tallies == ()


def test_beside_what_is_refused_the_rest_is_believed() -> None:
    inbox = taken(report(tallies=(a_tally(ELSEWHERE), a_tally())))

    assert [tally.key.route_uid for tally in shown(inbox).tallies] == [ROUTE.uid]


def test_trips_are_signed_by_the_pod_and_of_its_namespace() -> None:
    inbox = taken(report(trips=(trip(), trip(route_uid="other/assistant"))))
    (kept,) = shown(inbox).trips

    assert kept.decided_by == "router/r-1"


def test_a_sidecar_has_no_trips_to_tell() -> None:
    """Whoever may use a namespace's routes can be one; it stops no canary for all."""
    inbox = Inbox(msgspec.structs.replace(CALLER, sidecar=True))
    _, refused = inbox.take(report(trips=(trip(),)), OURS, NOW)

    assert refused == {"trip": 1}
    assert shown(inbox).trips == ()


def test_a_judgement_too_long_for_a_status_is_left_out() -> None:
    long = Judgement(verdict="Harm", log_e=5.0, threshold=4.6, holds=("x" * 100_000,))
    (kept,) = shown(taken(report(trips=(trip(judgement=long),)))).trips

    assert kept.judgement is None


def test_acks_and_nacks_are_of_published_routes() -> None:
    told = report(
        acks={"llm/assistant": (1, 1), "other/assistant": (1, 1)},
        nacks={"llm/assistant": Nack((1, 2), "x" * 9_999), "other/x": Nack((1, 2), "no")},
    )
    kept = shown(taken(told))

    assert set(kept.acks) == {"llm/assistant"}
    assert set(kept.nacks) == {"llm/assistant"}
    assert len(kept.nacks["llm/assistant"].reason) == 500


def test_what_was_not_sent_again_is_as_old_as_the_report() -> None:
    inbox = taken(report(tallies=(a_tally(),)), report(as_of_s=NOW + 7))

    assert [tally.as_of_s for tally in shown(inbox).tallies] == [NOW + 7]


def test_not_when_the_report_says_that_more_is_to_come() -> None:
    inbox = taken(report(tallies=(a_tally(),)), report(as_of_s=NOW + 7, whole=False))

    assert [tally.as_of_s for tally in shown(inbox).tallies] == [NOW]


def test_not_when_some_of_it_was_refused() -> None:
    later = report(as_of_s=NOW + 7, tallies=(change(a_tally(), as_of_s=NOW + 9_999),))
    inbox = taken(report(tallies=(a_tally(),)), later)

    assert [tally.as_of_s for tally in shown(inbox).tallies] == [NOW]


def test_the_higher_seq_stays_whatever_comes_after() -> None:
    old, new = change(a_tally(), seq=4), change(a_tally(served=5), seq=5)
    inbox = taken(report(tallies=(new,)), report(tallies=(old,)))

    assert [tally.seq for tally in shown(inbox).tallies] == [5]


def test_the_same_report_again_is_no_news() -> None:
    inbox = Inbox(CALLER)
    told = report(tallies=(a_tally(),), acks={"llm/assistant": (1, 1)})

    assert inbox.take(told, OURS, NOW) == (True, {})
    assert inbox.take(told, OURS, NOW) == (False, {})
    assert inbox.take(report(start=1, acks={}), OURS, NOW) == (True, {})


def test_the_last_word_of_an_earlier_start_is_kept_for_a_minute() -> None:
    inbox = taken(report(tallies=(a_tally(),)), report(start=2, tallies=(a_tally(served=1),)))

    assert {t.boot for t in shown(inbox, NOW + EARLIER_S).tallies} == {"1", "2"}
    assert {t.boot for t in shown(inbox, NOW + EARLIER_S + 1).tallies} == {"2"}


def test_an_earlier_start_that_speaks_again_is_not_heard() -> None:
    inbox = taken(report(start=1), report(start=2, tallies=(a_tally(),)))
    again = report(start=1, tallies=(a_tally(served=9),))

    assert inbox.take(again, OURS, NOW) == (False, {"start": 1})
    assert {t.boot for t in shown(inbox).tallies} == {"2"}


def test_a_start_of_a_lower_count_is_heard_after_one_that_took_its_count_from_the_time() -> None:
    """Its file could not be written once, so the count of before stands there."""
    by_time = report(start=1_700_000_000, tallies=(a_tally(),))
    inbox = taken(report(start=6), by_time, report(start=7, tallies=(a_tally(served=1),)))

    assert shown(inbox).start == 7
    assert {t.boot for t in shown(inbox).tallies} == {"1700000000", "7"}
    assert inbox.take(by_time, OURS, NOW) == (False, {"start": 1})


@pytest.mark.parametrize("off_s", [-3_600.0, 3_600.0], ids=["behind", "ahead"])
def test_a_clock_an_hour_off_keeps_no_trip_and_no_ack_from_being_heard(off_s: float) -> None:
    told = report(
        as_of_s=NOW + off_s,
        acks={"llm/assistant": (1, 1)},
        trips=(trip(at_s=NOW + off_s),),
        tallies=(a_tally(now_s=NOW + off_s),),
    )
    kept = shown(taken(told))

    assert len(kept.trips) == 1
    assert kept.acks == {"llm/assistant": (1, 1)}


def test_a_clock_that_is_ahead_is_told_once_with_both_times(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ahead = report(as_of_s=NOW + 3_600, tallies=(a_tally(now_s=NOW + 3_600),))
    taken(ahead, ahead)
    (record,) = caplog.records

    assert vars(record)["router_s"] - vars(record)["operator_s"] == 3_600
    assert vars(record)["pod"] == "r-1"


def test_only_the_latest_bodies_of_evidence_of_a_route_are_kept() -> None:
    attempts = range(1, MAX_KEYS + 4)
    inbox = taken(*(report(tallies=(a_tally(rolling(attempt=n)),)) for n in attempts))

    kept = [tally.key.attempt for tally in shown(inbox).tallies]
    assert kept == list(attempts)[-MAX_KEYS:]


def test_three_routers_evidence_adds_up() -> None:
    parts = []
    for n in range(3):
        inbox = Inbox(msgspec.structs.replace(CALLER, pod_uid=f"uid-{n}"))
        inbox.take(report(tallies=(a_tally(),)), OURS, NOW)
        parts += shown(inbox).tallies
    merged = merge(parts)

    assert len(merged.tallies) == 3
    assert sum(sum(cell.counts[:2]) for tally in merged.tallies for cell in tally.cells) == 9


def test_shapes_follow_the_objectives_that_are_published() -> None:
    before = routes(ROUTE)
    after = published(
        {
            "llm/assistant": Routed(version=(1, 2), policy=STRICTER),
            "llm/gone": Routed(version=(1, 2)),
        },
        before,
    )

    assert after.shapes[ROUTE.uid] != before.shapes[ROUTE.uid]
    assert list(after.shapes) == [policy().uid]
