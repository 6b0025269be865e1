"""The feed's messages: what a release older or newer says is read, what is broken harms itself."""

import json
import zlib
from typing import Any

import msgspec
import pytest

from support.ledgers import ROUTE, fresh, rolling, serve
from support.routes import policy
from weir_core import wire
from weir_core.evidence import Trip
from weir_core.snapshot import Limits
from weir_core.wire import (
    Nack,
    Packed,
    Push,
    Report,
    Routed,
    WireError,
    decode_push,
    decode_report,
    encode,
    filled,
    pack,
    unpack,
)

TRIP = Trip(
    route_uid="llm/assistant",
    revision="assistant-0000000002",
    attempt=1,
    decided_by="router/r",
    reason="Harm",
    suspect="errors",
    log_e=5.0,
    at_s=1.0,
)


def a_tally() -> Any:
    ledger = fresh()
    serve(ledger, 1, failed=1)
    return ledger.tallies(1_700_000_001.0)[0]


REPORT = Report(
    start=3,
    as_of_s=12.5,
    clean=False,
    unclean=2,
    acks={"llm/assistant": (1, 7)},
    nacks={"llm/other": Nack((1, 8), "tiers: saw none")},
    tallies=(a_tally(),),
    trips=(TRIP,),
    ejected={"small-1": "Connect"},
    draining=True,
)
PUSH = Push(
    term=4,
    complete=True,
    routes={
        "llm/assistant": Routed(version=(4, 1), policy=rolling()),
        "llm/gone": Routed(version=(3, 9)),
    },
    limits={"small-1": Limits(max_in_flight=3)},
)


def changed(data: bytes, change: Any) -> bytes:
    """Return a JSON message after `change` was done to it."""
    message = json.loads(data)
    change(message)
    return json.dumps(message).encode()


def test_a_report_survives_the_wire() -> None:
    assert decode_report(encode(REPORT)) == (REPORT, 0)


def test_a_push_survives_the_wire() -> None:
    assert decode_push(encode(PUSH)) == PUSH


def test_a_snapshot_survives_packing_and_is_smaller() -> None:
    many = {f"llm/r{n}": Routed(version=(1, n), policy=policy(name=f"r{n}")) for n in range(100)}
    packed = Packed(routes=many, limits={"small-1": Limits()})

    assert unpack(pack(packed)) == packed
    assert len(pack(packed)) < len(encode(packed)) / 10


def test_the_same_snapshot_packs_to_the_same_bytes() -> None:
    one = Packed(routes={"a/a": Routed(version=(1, 1)), "b/b": Routed(version=(1, 2))})
    other = Packed(routes=dict(reversed(one.routes.items())))

    assert pack(one) == pack(other)


def test_a_newer_release_may_say_more() -> None:
    def more(message: Any) -> None:
        message["format"] = 2
        message["mood"] = "good"
        message["routes"]["llm/assistant"]["colour"] = "red"
        message["routes"]["llm/assistant"]["policy"]["rollout"]["tempo"] = {"beats": 4}

    read = decode_push(changed(encode(PUSH), more))

    assert read.routes == PUSH.routes


def test_a_newer_router_may_say_more() -> None:
    def more(message: Any) -> None:
        message["format"] = 2
        message["mood"] = "good"
        message["tallies"][0]["weather"] = 3
        message["trips"][0]["colour"] = "red"

    read, unread = decode_report(changed(encode(REPORT), more))

    assert (read.tallies, read.trips, unread) == (REPORT.tallies, REPORT.trips, 0)


def test_an_older_release_said_only_this() -> None:
    report, unread = decode_report(b'{"start": 1, "as_of_s": 2.0}')
    push = decode_push(b'{"term": 1, "routes": {"llm/a": {"version": [1, 2]}}}')

    assert (report, unread) == (Report(start=1, as_of_s=2.0), 0)
    assert push == Push(term=1, routes={"llm/a": Routed(version=(1, 2))})


def test_a_format_two_ahead_is_not_read() -> None:
    with pytest.raises(WireError, match="format 3"):
        decode_push(b'{"term": 1, "format": 3}')


def test_a_route_of_an_unknown_kind_harms_itself_only() -> None:
    def unknown(message: Any) -> None:
        routes = message["routes"]
        routes["llm/new"] = json.loads(json.dumps(routes["llm/assistant"]))
        tier = routes["llm/new"]["policy"]["stable"]["behaviour"]["tiers"][0]
        tier["accept"][0]["type"] = "Oracle"

    read = decode_push(changed(encode(PUSH), unknown))

    assert read.routes["llm/assistant"] == PUSH.routes["llm/assistant"]
    assert read.routes["llm/new"].policy is None
    assert "accept[0].type" in read.routes["llm/new"].unreadable


def test_a_tally_that_cannot_be_read_is_counted_and_left_out() -> None:
    def broken(message: Any) -> None:
        message["tallies"].append({"key": "none"})
        message["trips"].append(7)

    read, unread = decode_report(changed(encode(REPORT), broken))

    assert (read, unread) == (REPORT, 2)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b'{"start": "x"}', b"\xff\xfe"])
def test_nonsense_is_refused_with_what_was_wanted(data: bytes) -> None:
    with pytest.raises(WireError, match="wanted format 1"):
        decode_report(data)


def test_a_packed_snapshot_cut_short_is_refused() -> None:
    with pytest.raises(WireError, match="cut short"):
        unpack(pack(Packed(routes=PUSH.routes))[:-8])


def test_a_small_file_that_unpacks_to_too_much_is_refused() -> None:
    with pytest.raises(WireError, match="bytes unpacked"):
        unpack(zlib.compress(b" " * (wire.MAX_PACKED + 1)))


def test_what_is_no_packed_snapshot_is_refused() -> None:
    with pytest.raises(WireError, match="wanted a packed snapshot"):
        unpack(b"routes: {}")


def test_a_report_holds_as_many_tallies_as_fit() -> None:
    tally = a_tally()
    size = len(msgspec.json.encode(tally))
    data, count = filled(Report(start=1, as_of_s=1.0), [tally] * 3, most=2 * size + 10)
    report, _ = decode_report(data)

    assert count == len(report.tallies) == 2
    assert not report.whole


def test_a_report_with_all_its_tallies_is_whole() -> None:
    data, count = filled(Report(start=1, as_of_s=1.0, trips=(TRIP,)), [a_tally()])
    report, _ = decode_report(data)

    assert count == 1
    assert report == Report(start=1, as_of_s=1.0, trips=(TRIP,), tallies=(a_tally(),))
    assert report.tallies[0].key.route_uid == ROUTE.uid


def test_a_tally_larger_than_a_report_goes_alone() -> None:
    _, count = filled(Report(start=1, as_of_s=1.0), [a_tally()] * 3, most=1)

    assert count == 1
