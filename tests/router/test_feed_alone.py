"""A router whose operator is dead, far or mad goes on serving; only the canary may lose."""

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from grpc.aio import _call

from support.feeds import Api, Operator, PodFiles, RouterPod, operating, rolling, routing
from support.http_wire import run, until
from support.routes import policy
from weir_core.evidence import CANARY, STABLE
from weir_core.snapshot import Snapshot
from weir_core.wire import Routed
from weir_router.cluster import Pod
from weir_router.feed import Pace
from weir_router.serve import Router

ONE, TWO = policy(), policy(name="other", uid="llm/other", model_names=("other",))


class Watched(Router):
    """A router that remembers the weights of every snapshot that it was given."""

    def apply(self, snapshot: Snapshot) -> None:
        """Take note, and obey."""
        weights = [one.weight_bp for one in snapshot.routes]
        self.given = [*getattr(self, "given", []), weights]
        super().apply(snapshot)


def at(number: int, *policies: Any, term: int = 1) -> dict[str, Routed]:
    version = (term, number)
    return {f"{p.namespace}/{p.name}": Routed(version=version, policy=p) for p in policies}


def ready(pod: RouterPod) -> str:
    return Pod(pod.router, pod.obedience, pod.feed).ready()


@contextlib.asynccontextmanager
async def alone(folder: Path, **told: Any) -> AsyncIterator[RouterPod]:
    """Run a router whose operator's port answers nobody."""
    files = PodFiles(folder)
    files.token.write_text("token")
    files.ca.write_bytes(b"")
    async with routing(folder, **told) as pod:
        yield pod


def test_without_any_snapshot_it_is_not_ready_and_says_why(tmp_path: Path) -> None:
    async def scene() -> None:
        async with alone(tmp_path) as pod:
            await until(lambda: "UNAVAILABLE" in ready(pod))

            assert ready(pod).startswith("no snapshot yet: ")

    run(scene())


def test_a_fresh_router_takes_the_mounted_snapshot(tmp_path: Path) -> None:
    async def scene() -> None:
        PodFiles(tmp_path).mount(at(1, ONE, TWO))
        async with alone(tmp_path) as pod:
            await until(lambda: ready(pod) == "")

            assert set(pod.router.table.routes) == {"llm/assistant", "llm/other"}

    run(scene())


def test_the_mounted_snapshot_is_read_again_when_it_changes(tmp_path: Path) -> None:
    async def scene() -> None:
        files = PodFiles(tmp_path)
        files.mount(at(5, rolling(1_000)))
        async with alone(tmp_path) as pod:
            await until(lambda: ready(pod) == "")
            files.mount(at(4, rolling(9_000)))
            await asyncio.sleep(0.2)
            assert pod.policy().weight_bp == 1_000
            files.mount(at(6, rolling(2_000)))
            await until(lambda: pod.policy().weight_bp == 2_000)

    run(scene())


def test_a_mounted_snapshot_that_cannot_be_read_changes_nothing(tmp_path: Path) -> None:
    async def scene() -> None:
        files = PodFiles(tmp_path)
        files.mount(at(1, ONE))
        async with alone(tmp_path) as pod:
            await until(lambda: ready(pod) == "")
            files.snapshot.write_bytes(b"half a snap")
            await asyncio.sleep(0.2)
            assert set(pod.router.table.routes) == {"llm/assistant"}
            files.mount(at(2, ONE, TWO))
            await until(lambda: len(pod.router.table.routes) == 2)

    run(scene())


def test_the_operator_is_asked_before_the_mounted_snapshot_is_believed(tmp_path: Path) -> None:
    """A mounted snapshot may be a minute old: the canary may have been rolled back since."""

    async def scene() -> None:
        PodFiles(tmp_path).mount(at(1, rolling()))
        async with operating() as operator:
            operator.feed.publish("llm", at(2, rolling(weight_bp=0)), {})
            async with routing(tmp_path, operator, kind=Watched) as pod:
                await until(lambda: pod.router.table.routes)

                assert pod.router.given == [[0]]  # type: ignore[attr-defined]

    run(scene())


def test_while_the_operator_is_heard_the_mounted_snapshot_is_not_looked_at(tmp_path: Path) -> None:
    """It lags behind: a route of it may be gone already."""

    async def scene() -> None:
        async with operating() as operator, routing(tmp_path, operator) as pod:
            operator.publish(ONE)
            await until(lambda: pod.router.table.routes)
            pod.files.mount(at(1, TWO))
            await asyncio.sleep(0.3)
            assert set(pod.router.table.routes) == {"llm/assistant"}
            await operator.feed.stop(0)
            await until(lambda: set(pod.router.table.routes) == {"llm/assistant", "llm/other"})

    run(scene())


def test_a_name_that_cannot_be_resolved_stops_nothing(tmp_path: Path) -> None:
    async def scene() -> None:
        PodFiles(tmp_path).mount(at(1, ONE))
        async with alone(tmp_path, host="no-such-name.invalid") as pod:
            await until(lambda: ready(pod) == "")
            await until(lambda: "no address" in pod.feed.why)

    run(scene())


def test_when_the_operator_dies_weights_stay_and_the_brake_is_armed(tmp_path: Path) -> None:
    async def scene() -> None:
        async with operating() as operator, routing(tmp_path, operator) as pod:
            operator.publish(rolling())
            await until(lambda: pod.router.table.routes)
            await operator.feed.stop(0)
            await until(lambda: pod.feed.why)
            assert pod.policy().weight_bp == 5_000
            pod.serve(STABLE, times=40)
            pod.serve(CANARY, failed=1, times=40)
            pod.router.brake()

            assert pod.policy().weight_bp == 0
            assert ready(pod) == ""

    run(scene())


def test_a_trip_without_an_operator_is_told_to_the_next_one(tmp_path: Path) -> None:
    async def scene() -> None:
        api = Api()
        async with operating(api) as first, routing(tmp_path, first) as pod:
            first.publish(rolling())
            await until(lambda: pod.router.table.routes)
            port, secret = first.port, first.secret
            await first.feed.stop(0)
            pod.serve(STABLE, times=40)
            pod.serve(CANARY, failed=1, times=40)
            pod.router.brake()
            async with operating(api, term=2, port=port, secret=secret) as second:
                second.publish(rolling())
                await until(lambda: second.feed.connected("llm"))
                await until(lambda: second.feed.connected("llm")[0].report.trips)

                assert pod.policy().weight_bp == 0

    run(scene())


def test_an_operator_that_hangs_is_left(tmp_path: Path) -> None:
    """Its sockets answer pings; it says nothing."""

    async def scene() -> None:
        pace = Pace(retry=0.05, silent=0.3)
        async with operating() as operator, routing(tmp_path, operator, pace=pace) as pod:
            await until(lambda: "nothing heard" in pod.feed.why)
            operator.publish(ONE)
            await until(lambda: pod.feed.why == "")

    run(scene())


class Noting(asyncio.SelectorEventLoop):
    """A loop that notes what is awaited of gRPC's core by its client."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[asyncio.Future[Any]] = []

    def create_future(self) -> "asyncio.Future[Any]":
        """Make one, and keep it if a call of gRPC's is what asks for it."""
        future = super().create_future()
        if sys._getframe(1).f_code.co_filename == _call.__file__:
            self.operations.append(future)
        return future


def test_no_operation_of_grpcs_is_cancelled(tmp_path: Path) -> None:
    """Its core would go on writing to what that frees (issue 43360 of grpc/grpc)."""

    async def scene() -> None:
        pace = Pace(retry=0.01, silent=0.1)
        async with operating() as operator:
            async with routing(tmp_path, operator, pace=pace) as pod:
                # Each stream that begins or ends wakes the operator.
                await until(lambda: operator.woken.count("llm") >= 4)
                assert "nothing heard" in pod.feed.why
            operator.publish(ONE)
            async with routing(tmp_path, operator) as pod:
                await until(lambda: pod.feed.why == "")

    with asyncio.Runner(loop_factory=Noting) as runner:
        runner.run(asyncio.wait_for(scene(), 20))
        loop = runner.get_loop()
        assert isinstance(loop, Noting)
        ended = [one.cancelled() for one in loop.operations]
    assert len(ended) > 10
    assert not any(ended)


# Sidecars.

CUT = Pace(retry=0.05, retry_most=0.1, first=0.2, look=0.05, cut_off=0.5)


async def _gone(operator: Operator, pod: RouterPod) -> None:
    await operator.feed.stop(0)
    await until(lambda: pod.feed.why)


def test_a_sidecar_that_is_cut_off_sends_nothing_to_the_canary_until_it_is_back(
    tmp_path: Path,
) -> None:
    async def scene() -> None:
        api = Api()
        async with operating(api) as first:
            async with routing(tmp_path, first, sidecar=True, pace=CUT) as pod:
                first.publish(rolling())
                await until(lambda: pod.router.table.routes)
                await until(lambda: pod.policy().weight_bp == 5_000)
                await _gone(first, pod)
                assert pod.policy().weight_bp == 5_000
                lost_s = time.monotonic()
                await until(lambda: pod.policy().weight_bp == 0)
                print(f"weight 0 after {time.monotonic() - lost_s:.2f} s of {CUT.cut_off} s")
                again = operating(api, term=2, port=first.port, secret=first.secret)
                async with again as second:
                    second.publish(rolling())
                    await until(lambda: pod.policy().weight_bp == 5_000)

    run(scene())


def test_a_sidecars_brake_is_off(tmp_path: Path) -> None:
    async def scene() -> None:
        async with operating() as operator:
            async with routing(tmp_path, operator, sidecar=True) as pod:
                operator.publish(rolling(brake_alpha=0.5))
                await until(lambda: pod.router.table.routes and pod.policy().weight_bp)
                pod.serve(CANARY, failed=1, times=60)
                pod.router.brake()

                assert pod.policy().brake_alpha == 0
                assert pod.policy().weight_bp == 5_000

    run(scene())


def test_a_sidecar_that_never_heard_the_operator_serves_stable_alone(tmp_path: Path) -> None:
    async def scene() -> None:
        PodFiles(tmp_path).mount(at(1, rolling()))
        async with alone(tmp_path, sidecar=True, kind=Watched) as pod:
            await until(lambda: ready(pod) == "")
            await asyncio.sleep(0.2)

            assert pod.router.given == [[0]]  # type: ignore[attr-defined]

    run(scene())


def test_a_router_of_the_deployment_goes_on_with_its_canary_when_cut_off(tmp_path: Path) -> None:
    async def scene() -> None:
        async with operating() as operator, routing(tmp_path, operator, pace=CUT) as pod:
            operator.publish(rolling())
            await until(lambda: pod.router.table.routes)
            await _gone(operator, pod)
            await asyncio.sleep(2 * CUT.cut_off)

            assert pod.policy().weight_bp == 5_000

    run(scene())


# What fails half-way.


class Clumsy(Router):
    """A router that fails to apply its first snapshot."""

    def apply(self, snapshot: Snapshot) -> None:
        """Fail once, then obey."""
        if not hasattr(self, "has_failed"):
            self.has_failed = True
            raise RuntimeError("no luck")
        super().apply(snapshot)


def test_what_could_not_be_applied_is_applied_and_acknowledged_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scene() -> None:
        async with operating() as operator, routing(tmp_path, operator, kind=Clumsy) as pod:
            version = operator.publish(ONE)["llm/assistant"].version
            await until(lambda: operator.feed.connected("llm"))
            acks = lambda: operator.feed.connected("llm")[0].report.acks
            await until(lambda: acks() == {"llm/assistant": version})

            assert pod.policy() == ONE
            assert "the feed failed" in caplog.text

    run(scene())


def test_without_a_folder_to_write_in_no_start_is_counted_twice(tmp_path: Path) -> None:
    def start(now_s: float) -> int:
        files = PodFiles(tmp_path)
        files.state = tmp_path / "missing" / "router.json"
        return RouterPod(files, clock=lambda: now_s).obedience.start

    assert start(1_700_000_001.5) > start(1_700_000_000.5) > 1_700_000_000
