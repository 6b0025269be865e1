"""Who may connect to the feed, and what is believed of what they say."""

from collections.abc import Callable
from typing import Any

import pytest

from support.feeds import Api, line, operating, rolling, tally_of
from support.http_wire import run, until
from support.routes import policy
from weir_core.evidence import Trip
from weir_core.wire import MAX_REPORT

ONE = policy()


# Who may connect.

KEYLESS: list[Any] = [
    pytest.param(lambda api: None, "UNAUTHENTICATED", id="no token"),
    pytest.param(lambda api: "nonsense", "UNAUTHENTICATED", id="an unknown token"),
    pytest.param(lambda api: api.router(label="none"), "PERMISSION_DENIED", id="any other pod"),
]


@pytest.mark.parametrize(("make", "code"), KEYLESS)
def test_refused(make: Callable[[Api], str | None], code: str) -> None:
    async def scene() -> None:
        async with operating() as operator:
            operator.publish(ONE)
            async with line(operator, make(operator.api)) as router:
                status, words = await router.end()

                assert status == code
                assert words
                assert operator.feed.connected("llm") == ()

    run(scene())


def test_the_same_refusal_is_logged_once_in_a_while(caplog: pytest.LogCaptureFixture) -> None:
    async def scene() -> None:
        async with operating() as operator:
            for token in (None, None, "nonsense"):
                async with line(operator, token) as router:
                    assert (await router.end())[0] == "UNAUTHENTICATED"

    run(scene())
    told = [one for one in caplog.records if one.message == "router refused"]
    assert len({one.why for one in told}) == len(told) == 2  # type: ignore[attr-defined]


def test_a_token_of_another_namespaces_pod_opens_that_namespace_alone() -> None:
    async def scene() -> None:
        async with operating() as operator:
            operator.publish(ONE)
            operator.feed.publish("bank", {}, {})
            async with line(operator, operator.api.router(namespace="bank")) as router:
                push = await router.push()
                await router.tell(tallies=(tally_of(rolling()),), acks={"llm/assistant": (1, 1)})
                await until(lambda: operator.feed.connected("bank"))
                (seen,) = operator.feed.connected("bank")

                assert (push.complete, push.routes) == (True, {})
                assert (seen.report.tallies, seen.report.acks) == ((), {})
                assert operator.feed.connected("llm") == ()

    run(scene())


def test_a_client_that_does_not_trust_the_authority_gets_no_stream() -> None:
    async def scene() -> None:
        async with operating() as operator, operating() as impostor:
            async with line(operator, operator.api.router(), bundle=impostor.bundle) as router:
                status, _ = await router.end()

                assert status == "UNAVAILABLE"

    run(scene())


# Evidence up.


def test_a_report_is_shown_under_the_pods_own_name() -> None:
    async def scene() -> None:
        async with operating() as operator:
            routes = operator.publish(rolling())
            version = routes["llm/assistant"].version
            async with line(operator, operator.api.router("weir-router-5d8f9c7b6-abcde")) as router:
                await router.push()
                told = {"acks": {"llm/assistant": version}, "tallies": (tally_of(rolling()),)}
                await router.tell(start=3, **told)
                await until(lambda: operator.feed.connected("llm"))
                (seen,) = operator.feed.connected("llm")

                assert (seen.pod_name, seen.alive) == ("weir-router-5d8f9c7b6-abcde", True)
                assert seen.report.acks == {"llm/assistant": version}
                (tally,) = seen.report.tallies
                assert (tally.router, tally.boot) == ("uid-of-weir-router-5d8f9c7b6-abcde", "3")
                assert "llm" in operator.woken

    run(scene())


def test_the_walk_is_woken_by_a_trip_and_not_by_the_passing_of_time() -> None:
    trip = Trip(
        route_uid=rolling().uid,
        revision="assistant-0000000002",
        attempt=1,
        decided_by="",
        reason="Harm",
        suspect="errors",
        log_e=5.0,
        at_s=1.0,
    )

    async def scene() -> None:
        async with operating() as operator:
            operator.publish(rolling())
            async with line(operator, operator.api.router()) as router:
                await router.tell()
                await until(lambda: operator.feed.connected("llm"))
                operator.woken.clear()
                await router.tell()
                await router.tell()
                await router.tell(trips=(trip,))
                await until(lambda: operator.feed.connected("llm")[0].report.trips)

                assert operator.woken == ["llm"]

    run(scene())


def test_an_oversize_or_unreadable_report_is_dropped_and_the_stream_goes_on() -> None:
    async def scene() -> None:
        async with operating() as operator:
            operator.publish(ONE)
            async with line(operator, operator.api.router()) as router:
                big = {f"identity-{n}": "x" * 400 for n in range(MAX_REPORT // 400)}
                await router.tell(ejected=big)
                await router.call.write(b"nonsense")
                await router.tell(start=2)
                await until(lambda: operator.feed.connected("llm"))
                (seen,) = operator.feed.connected("llm")

                assert (seen.report.start, seen.report.ejected) == (2, {})

    run(scene())


def test_a_message_beyond_all_bounds_ends_the_stream() -> None:
    async def scene() -> None:
        async with operating() as operator:
            operator.publish(ONE)
            async with line(operator, operator.api.router()) as router:
                await router.call.wait_for_connection()
                await router.call.write(b"x" * (4 * MAX_REPORT + 1))

                assert (await router.end())[0] == "RESOURCE_EXHAUSTED"

    run(scene())


def test_a_newer_router_is_understood_and_an_older_one_too() -> None:
    async def scene() -> None:
        async with operating() as operator:
            operator.publish(ONE)
            async with line(operator, operator.api.router()) as router:
                newer = b'{"start":5,"as_of_s":1.0,"format":2,"mood":"good","tallies":[{"new":1}]}'
                await router.call.write(newer)
                await until(lambda: operator.feed.connected("llm"))
                assert operator.feed.connected("llm")[0].report.start == 5
                await router.call.write(b'{"start":6,"as_of_s":1.0}')
                await until(lambda: operator.feed.connected("llm")[0].report.start == 6)

    run(scene())


def test_refused_reports_are_counted_by_reason() -> None:
    async def scene() -> None:
        async with operating() as operator:
            operator.publish(ONE)
            async with line(operator, operator.api.router()) as router:
                await router.call.write(b"nonsense")
                await router.tell(tallies=(tally_of(rolling(uid="other/x")),))
                await router.tell(start=2)
                await router.tell(start=1)
                await until(lambda: len(operator.feed.refused) == 3)

                assert operator.feed.refused == {"unreadable": 1, "evidence": 1, "start": 1}

    run(scene())


def test_that_a_router_obeys_a_later_term_is_told_of() -> None:
    """It takes nothing of this one, of whichever route: somebody must know."""

    async def scene() -> None:
        async with operating(term=7) as operator:
            operator.publish(ONE)
            async with line(operator, operator.api.router()) as router:
                await router.tell(acks={"llm/assistant": (7, 1)})
                await router.tell(acks={"llm/other": (9, 3), "llm/assistant": (7, 1)})
                await until(lambda: operator.terms)

                assert operator.terms == [9]

    run(scene())


def test_a_sidecar_that_tells_of_a_later_term_is_not_heeded() -> None:
    """Whoever may run one could end every lead."""

    async def scene() -> None:
        async with operating(term=7) as operator:
            operator.publish(ONE)
            operator.api.users.add(("system:serviceaccount:llm:app", "llm"))
            app = operator.api.router("app-1", label="sidecar", account="app")
            async with line(operator, app) as router:
                await router.tell(acks={"llm/assistant": (9, 3)})
                await router.call.write(b"nonsense")  # Read in order.
                await until(lambda: operator.feed.refused.get("unreadable"))
                assert operator.seen().sidecar

                assert operator.terms == []

    run(scene())
