"""Lowerings that no order undoes: trips, canaries that killed their router; and orderly ends."""

from pathlib import Path

import msgspec

from support.feeds import PodFiles, RouterPod, operating, rolling, routing
from support.http_wire import run, until
from support.routes import broken, policy
from weir_core.evidence import CANARY, STABLE, Trip
from weir_core.snapshot import RoutePolicy

ONE = policy()
CANARY_NAME = "assistant-0000000002"


def latched(route: RoutePolicy) -> RoutePolicy:
    return msgspec.structs.replace(route, latched=((CANARY_NAME, route.attempt),))


def _trip_now(pod: RouterPod) -> None:
    pod.serve(STABLE, times=40)
    pod.serve(CANARY, failed=1, times=40)
    pod.router.brake()


def test_a_trip_is_told_until_the_snapshot_holds_it(tmp_path: Path) -> None:
    async def scene() -> None:
        async with operating() as operator, routing(tmp_path, operator) as pod:
            await until(operator.obeyed(operator.publish(rolling())))
            _trip_now(pod)
            assert pod.policy().weight_bp == 0
            await until(lambda: operator.seen().report.trips)
            (trip,) = operator.seen().report.trips
            assert (trip.revision, trip.attempt, trip.suspect) == (CANARY_NAME, 1, "errors")
            assert trip.decided_by == f"router/{operator.seen().pod_name}"
            # A snapshot that does not know of it yet raises nothing.
            await until(operator.obeyed(operator.publish(rolling())))
            assert pod.policy().weight_bp == 0
            assert operator.seen().report.trips
            await until(operator.obeyed(operator.publish(latched(rolling(weight_bp=0)))))
            await until(lambda: operator.seen().report.trips == ())

    run(scene())


def test_what_another_router_tripped_gets_no_traffic_here(tmp_path: Path) -> None:
    async def scene() -> None:
        async with operating() as operator, routing(tmp_path, operator) as pod:
            await until(operator.obeyed(operator.publish(latched(rolling()))))

            assert pod.policy().weight_bp == 0

    run(scene())


def test_a_retry_is_a_new_attempt_and_gets_traffic(tmp_path: Path) -> None:
    async def scene() -> None:
        async with operating() as operator, routing(tmp_path, operator) as pod:
            await until(operator.obeyed(operator.publish(rolling())))
            _trip_now(pod)
            again = msgspec.structs.replace(rolling(attempt=2), latched=((CANARY_NAME, 1),))
            await until(operator.obeyed(operator.publish(again)))

            assert pod.policy().weight_bp == 5_000
            await until(lambda: operator.seen().report.trips == ())

    run(scene())


def test_a_latch_survives_the_container_and_is_told_again(tmp_path: Path) -> None:
    async def scene() -> None:
        async with operating() as operator:
            routes = operator.publish(rolling())
            async with routing(tmp_path, operator) as pod:
                await until(operator.obeyed(routes))
                _trip_now(pod)
                first = pod.obedience.start
            async with routing(tmp_path, operator) as pod:
                await until(lambda: pod.router.table.routes)
                assert pod.policy().weight_bp == 0
                await until(lambda: operator.seen().report.start == first + 1)
                await until(lambda: operator.seen().report.trips)

    run(scene())


def test_what_the_operator_lowered_survives_the_container_under_an_old_mount(
    tmp_path: Path,
) -> None:
    """The kubelet mounts late, and the operator may have died before it wrote the snapshot."""

    async def scene() -> None:
        async with operating() as operator:
            PodFiles(tmp_path).mount(operator.publish(rolling(2_500)))
            async with routing(tmp_path, operator) as pod:
                await until(lambda: pod.router.table.routes)
                assert pod.policy().weight_bp == 2_500
                over = msgspec.structs.replace(ONE, latched=((CANARY_NAME, 1),))
                await until(operator.obeyed(operator.publish(over)))
        async with routing(tmp_path) as pod:
            await until(lambda: pod.router.table.routes)
            assert pod.policy().weight_bp == 0
            pod.files.mount(operator.publish(rolling(attempt=2)))
            await until(lambda: pod.policy().weight_bp == 5_000)

    run(scene())


def test_two_unclean_ends_stop_the_canary_and_are_told(tmp_path: Path) -> None:
    async def scene() -> None:
        async with operating() as operator:
            routes = operator.publish(rolling())
            for _ in range(2):
                async with routing(tmp_path, operator) as pod:
                    await until(lambda one=pod: operator.start_seen() == one.obedience.start)
                    await until(operator.obeyed(routes))
                    assert pod.policy().weight_bp == 5_000
            async with routing(tmp_path, operator) as pod:
                await until(lambda: pod.router.table.routes)
                assert pod.policy().weight_bp == 0
                await until(lambda: operator.seen().report.unclean == 2)
                await until(lambda: operator.seen().report.trips)
                (trip,) = operator.seen().report.trips

                assert trip.reason == "UncleanBoots"

    run(scene())


def test_a_sidecar_that_dies_twice_stops_the_canary_for_itself_alone(tmp_path: Path) -> None:
    """It may die of its application, that nothing is known of."""

    async def scene() -> None:
        async with operating() as operator:
            routes = operator.publish(rolling())
            for _ in range(2):
                async with routing(tmp_path, operator, sidecar=True) as pod:
                    await until(lambda one=pod: operator.start_seen() == one.obedience.start)
                    await until(operator.obeyed(routes))
                    await until(lambda one=pod: one.policy().weight_bp == 5_000)
            async with routing(tmp_path, operator, sidecar=True) as pod:
                await until(lambda: operator.start_seen() == pod.obedience.start)
                await until(operator.obeyed(routes))

                assert pod.policy().weight_bp == 0
                assert pod.obedience.report(final=False).trips == ()

    run(scene())


def test_a_sidecar_that_refuses_what_is_new_gives_nothing_to_the_canary_it_has(
    tmp_path: Path,
) -> None:
    """It may be the rollback that it refuses, and it has no brake."""

    async def scene() -> None:
        async with operating() as operator, routing(tmp_path, operator, sidecar=True) as pod:
            await until(operator.obeyed(operator.publish(rolling())))
            await until(lambda: pod.policy().weight_bp == 5_000)
            bad = operator.routed(msgspec.structs.replace(broken("assistant"), uid=ONE.uid))
            operator.feed.publish("llm", bad, {})
            await until(lambda: operator.seen().report.nacks)

            assert pod.policy().weight_bp == 0
            assert pod.policy().canary is not None
            await until(operator.obeyed(operator.publish(rolling())))
            assert pod.policy().weight_bp == 5_000

    run(scene())


def test_orderly_ends_stop_nothing(tmp_path: Path) -> None:
    async def scene() -> None:
        async with operating() as operator:
            routes = operator.publish(rolling())
            starts = []
            for _ in range(4):
                async with routing(tmp_path, operator) as pod:
                    starts.append(pod.obedience.start)
                    await until(lambda: operator.start_seen() == starts[-1])
                    await until(operator.obeyed(routes))
                    await pod.feed.end()
                    pod.obedience.end()

            report = operator.seen().report
            assert (report.start, report.unclean, report.clean) == (starts[0] + 3, 0, True)

    run(scene())


def test_the_last_report_holds_the_last_outcome(tmp_path: Path) -> None:
    async def scene() -> None:
        async with operating() as operator, routing(tmp_path, operator) as pod:
            await until(operator.obeyed(operator.publish(rolling())))
            pod.serve(CANARY, times=3)
            await pod.feed.end()
            await until(lambda: not operator.seen().alive)

            assert operator.assigned() == (0, 3)
            assert operator.seen().report.draining
            assert operator.seen().report.clean

    run(scene())


def test_a_trip_of_the_past_about_another_canary_is_not_told(tmp_path: Path) -> None:
    async def scene() -> None:
        async with operating() as operator, routing(tmp_path, operator) as pod:
            old = Trip(
                route_uid=ONE.uid,
                revision="assistant-0000000001",
                attempt=3,
                decided_by="",
                reason="Harm",
                suspect="",
                log_e=5.0,
                at_s=1.0,
            )
            pod.obedience.tripped(old)
            await until(operator.obeyed(operator.publish(rolling())))

            assert operator.seen().report.trips == ()
            assert pod.policy().weight_bp == 5_000

    run(scene())
