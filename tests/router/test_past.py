"""What a router remembers across restarts of its container."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from support.feeds import rolling
from weir_core.evidence import Trip
from weir_core.snapshot import RoutePolicy
from weir_router.past import (
    MAX_OBEYED,
    MAX_TRIPS,
    Obeyed,
    Past,
    PastFile,
    killers,
    newest,
    noted,
    started,
    tripped,
)

NOW = 1_700_000_000.0
ROUTE = rolling()


def trip(attempt: int = 1, **changes: Any) -> Trip:
    told: dict[str, Any] = {
        "route_uid": ROUTE.uid,
        "revision": "assistant-0000000002",
        "decided_by": "router/r",
        "reason": "Harm",
        "suspect": "errors",
        "log_e": 5.0,
        "at_s": NOW,
    }
    return Trip(attempt=attempt, **(told | changes))


def file(folder: Path) -> PastFile:
    return PastFile(folder / "router.json", clock=lambda: NOW)


def died(past: Past, times: int = 1) -> Past:
    for _ in range(times):
        past = started(past)
    return past


def killed(past: Past, *policies: RoutePolicy) -> list[Trip]:
    return killers(past, policies, router="r-1", now_s=NOW)


def test_without_a_file_a_start_is_clean_and_later_than_any_that_was_lost(tmp_path: Path) -> None:
    past = started(file(tmp_path).read())

    assert (past.start, past.unclean) == (NOW + 1, 0)


def test_an_end_that_nobody_wrote_was_no_orderly_one(tmp_path: Path) -> None:
    file(tmp_path).write(started(Past()))
    past = started(file(tmp_path).read())

    assert (past.start, past.unclean) == (2, 1)


def test_an_orderly_end_is_counted_as_one(tmp_path: Path) -> None:
    file(tmp_path).write(msgspec.structs.replace(started(Past()), clean=True))
    past = started(file(tmp_path).read())

    assert (past.start, past.unclean) == (2, 0)


def test_trips_are_remembered_once_each(tmp_path: Path) -> None:
    past = tripped(tripped(tripped(Past(), trip()), trip()), trip(2))
    file(tmp_path).write(past)

    assert file(tmp_path).read().latched(ROUTE.uid) == (
        ("assistant-0000000002", 1),
        ("assistant-0000000002", 2),
    )


def test_the_oldest_trips_are_forgotten_first() -> None:
    past = Past()
    for attempt in range(1, MAX_TRIPS + 3):
        past = tripped(past, trip(attempt))

    assert len(past.trips) == MAX_TRIPS
    assert past.trips[-1].attempt == MAX_TRIPS + 2


def test_two_unclean_ends_within_an_attempt_stop_its_canary() -> None:
    past = noted(started(Past()), [ROUTE])

    assert killed(died(past), ROUTE) == []
    (found,) = killed(died(past, 2), ROUTE)
    assert (found.reason, found.revision, found.attempt) == (
        "UncleanBoots",
        "assistant-0000000002",
        1,
    )


def test_unclean_ends_before_the_attempt_do_not_count() -> None:
    past = noted(died(Past(), 3), [ROUTE])

    assert killed(died(past), ROUTE) == []


def test_a_new_attempt_is_counted_afresh() -> None:
    again = rolling(attempt=2)
    past = noted(died(noted(started(Past()), [ROUTE]), 2), [again])

    assert killed(past, again) == []


def test_a_canary_without_traffic_is_not_to_blame() -> None:
    past = noted(started(Past()), [rolling(weight_bp=0)])

    assert past.begun == {}
    assert killed(died(past, 5), ROUTE) == []


def test_an_attempt_goes_on_after_a_time_without_traffic() -> None:
    past = noted(noted(started(Past()), [ROUTE]), [rolling(weight_bp=0)])

    assert killed(died(past, 2), ROUTE)


def test_routes_that_are_gone_are_not_remembered() -> None:
    assert noted(noted(started(Past()), [ROUTE]), []).begun == {}


def test_what_was_obeyed_is_remembered(tmp_path: Path) -> None:
    obeyed = {"llm/assistant": Obeyed((3, 7), "a", "b", 2, 2_500), "llm/other": Obeyed((3, 8), "a")}
    file(tmp_path).write(Past(obeyed=obeyed))

    assert file(tmp_path).read().obeyed == obeyed


def test_of_what_was_obeyed_the_oldest_is_forgotten_first() -> None:
    obeyed = {f"llm/{n}": Obeyed((1, n), "a") for n in range(MAX_OBEYED + 2)}
    kept = newest(obeyed)

    assert len(kept) == MAX_OBEYED
    assert obeyed.keys() - kept.keys() == {"llm/0", "llm/1"}


@pytest.mark.parametrize("data", [b"", b"{", b'{"start": "x"}', b"\xff"])
def test_of_a_file_that_cannot_be_read_no_start_is_counted_twice(
    tmp_path: Path, data: bytes
) -> None:
    (tmp_path / "router.json").write_bytes(data)
    past = started(file(tmp_path).read())

    assert past.start > NOW
    assert past.unclean == 1


def test_a_folder_that_cannot_be_written_is_told_and_survived(tmp_path: Path) -> None:
    assert not file(tmp_path / "missing").write(Past())


def test_requests_wait_for_no_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is written on the loop that answers them."""

    def stands_still(file: int) -> None:
        raise AssertionError

    monkeypatch.setattr("os.fsync", stands_still)
    assert file(tmp_path).write(started(Past()))
    assert file(tmp_path).read().start == 1
