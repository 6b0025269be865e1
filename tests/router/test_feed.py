"""The router's end of the feed against the real operator's end, over TLS on loopback."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from support.feeds import Api, Operator, PodFiles, RouterPod, operating, rolling, routing
from support.http_wire import run, until
from support.routes import behaviour, broken, policy
from weir_core.evidence import CANARY, STABLE
from weir_core.snapshot import Limits, Snapshot
from weir_operator.feed import Pace as OperatorPace
from weir_router.feed import Pace
from weir_router.serve import Router

ONE = policy()


# Policy.


def test_what_is_published_is_obeyed_and_then_acknowledged(tmp_path: Path) -> None:
    async def scene() -> None:
        async with operating() as operator, routing(tmp_path, operator) as pod:
            await until(operator.obeyed(operator.publish(ONE)))
            assert pod.policy() == ONE
            await until(operator.obeyed(operator.publish(rolling())))
            assert pod.policy().weight_bp == 5_000
            await until(operator.obeyed(operator.publish()))
            assert pod.router.table.routes == {}

    run(scene())


class Counting(Router):
    """A router that counts the snapshots that it was given."""

    given = 0

    def apply(self, snapshot: Snapshot) -> None:
        """Count, and obey."""
        self.given += 1
        super().apply(snapshot)


def test_a_push_that_says_nothing_new_is_not_applied(tmp_path: Path) -> None:
    async def scene() -> None:
        often = OperatorPace(heartbeat=0.02, stream=0.3)
        async with operating(pace=often) as operator:
            async with routing(tmp_path, operator, kind=Counting) as pod:
                await until(operator.obeyed(operator.publish(ONE)))
                await until(lambda: len(operator.woken) > 4)
                await asyncio.sleep(0.2)

                assert pod.router.given == 1  # type: ignore[attr-defined]

    run(scene())


def test_limits_of_backends_come_with_it(tmp_path: Path) -> None:
    async def scene() -> None:
        async with operating() as operator, routing(tmp_path, operator) as pod:
            operator.publish(ONE, limits={"small-1": Limits(max_in_flight=3)})
            await until(lambda: pod.router.table.routes)

            assert pod.router.table.snapshot.limits == {"small-1": Limits(max_in_flight=3)}

    run(scene())


def test_a_route_that_cannot_be_compiled_is_refused_and_the_others_obeyed(tmp_path: Path) -> None:
    async def scene() -> None:
        async with operating() as operator, routing(tmp_path, operator) as pod:
            good = operator.publish(ONE)
            await until(operator.obeyed(good))
            bad = operator.routed(msgspec.structs.replace(broken("assistant"), uid=ONE.uid))
            other = operator.routed(policy(name="other", uid="llm/other", model_names=("other",)))
            operator.feed.publish("llm", bad | other, {})
            await until(lambda: operator.seen().report.nacks)
            report = operator.seen().report

            assert pod.policy() == ONE
            assert report.acks == {
                "llm/assistant": good["llm/assistant"].version,
                "llm/other": other["llm/other"].version,
            }
            assert report.nacks["llm/assistant"].version == bad["llm/assistant"].version
            assert report.nacks["llm/assistant"].reason

    run(scene())


def test_a_deposed_operator_is_not_obeyed(tmp_path: Path) -> None:
    async def scene() -> None:
        api = Api()
        async with operating(api, term=2) as leader:
            routes = leader.publish(ONE)
            port, secret = leader.port, leader.secret
            async with routing(tmp_path, leader) as pod:
                await until(leader.obeyed(routes))
                await leader.feed.stop(0)
                async with operating(api, term=1, port=port, secret=secret) as deposed:
                    deposed.publish()
                    await until(lambda: "term 1" in pod.feed.why)

                    assert pod.policy() == ONE

    run(scene())


# Evidence.


def test_evidence_reaches_the_operator_as_it_grows(tmp_path: Path) -> None:
    async def scene() -> None:
        async with operating() as operator, routing(tmp_path, operator) as pod:
            await until(operator.obeyed(operator.publish(rolling())))
            pod.serve(STABLE, times=3)
            pod.serve(CANARY, times=2)
            await until(lambda: operator.assigned() == (3, 2))
            pod.serve(CANARY)
            await until(lambda: operator.assigned() == (3, 3))
            (tally,) = operator.seen().report.tallies

            boot = str(pod.obedience.start)
            assert (tally.router, tally.boot) == (operator.seen().pod_uid, boot)

    run(scene())


def test_an_idle_router_reports_all_the_same(tmp_path: Path) -> None:
    async def scene() -> None:
        pace = Pace(retry=0.05, idle=0.1)
        async with operating() as operator, routing(tmp_path, operator, pace=pace):
            await until(operator.obeyed(operator.publish(ONE)))
            before_s = operator.seen().report.as_of_s
            await until(lambda: operator.seen().report.as_of_s > before_s + 0.3)

    run(scene())


def test_when_the_operator_was_away_the_evidence_is_the_same_and_there_once(tmp_path: Path) -> None:
    async def scene() -> None:
        api = Api()
        async with routing_with(api, tmp_path) as (pod, first):
            secret, port = first.secret, first.port
            await until(first.obeyed(first.publish(rolling())))
            pod.serve(CANARY, times=4)
            await until(lambda: first.assigned() == (0, 4))
            await first.feed.stop(0)
            await until(lambda: pod.feed.why)
            pod.serve(STABLE, times=2)
            async with operating(api, term=2, port=port, secret=secret) as second:
                await until(second.obeyed(second.publish(rolling())))
                await until(lambda: second.assigned() == (2, 4))

                assert len(second.seen().report.tallies) == 1
                assert pod.policy().weight_bp == 5_000

    run(scene())


@contextlib.asynccontextmanager
async def routing_with(api: Api, folder: Path) -> AsyncIterator[tuple[RouterPod, Operator]]:
    """Run an operator that may be stopped early, and a router of it."""
    async with operating(api) as operator, routing(folder, operator) as pod:
        yield pod, operator


def test_evidence_that_the_operator_could_not_place_is_told_again_when_it_can(
    tmp_path: Path,
) -> None:
    """A route is unpublished for a while, so that the operator forgets what it knew of it."""

    async def scene() -> None:
        one, two = rolling(), rolling(name="two", uid="llm/two", model_names=("two",))
        # Patient, for on a new stream all is told anyway.
        pace = Pace(silent=60.0)
        async with operating() as operator, routing(tmp_path, operator, pace=pace) as pod:
            uids = lambda: {t.key.route_uid for t in operator.seen().report.tallies}
            await until(operator.obeyed(operator.publish(one, two)))
            pod.serve(STABLE, times=3)
            await until(lambda: operator.assigned() == (3, 0))
            await until(operator.obeyed(operator.publish(two)))
            pod.serve(STABLE, key="llm/two")
            await until(lambda: uids() == {two.uid})
            await until(operator.obeyed(operator.publish(one, two)))
            await until(lambda: uids() == {one.uid, two.uid})

            assert operator.assigned() == (4, 0)

    run(scene())


# Health of backends.


def test_an_ejected_backend_is_told(tmp_path: Path) -> None:
    async def scene() -> None:
        async with operating() as operator, routing(tmp_path, operator) as pod:
            await until(operator.obeyed(operator.publish(ONE)))
            small = behaviour().tiers[0].backend
            for _ in range(5):
                pod.upstreams.get(small).failed("Connect", pod.clock())
            await until(lambda: operator.seen().report.ejected == {"small-1": "Connect"})
            pod.upstreams.get(small).succeeded()
            await until(lambda: operator.seen().report.ejected == {})

    run(scene())


# Files.


def test_token_and_authority_are_read_again_at_each_dial(tmp_path: Path) -> None:
    async def scene() -> None:
        async with operating() as operator:
            operator.publish(ONE)
            files = PodFiles(tmp_path)
            files.token.write_text("not yet")
            async with routing(tmp_path, operator) as pod:
                await until(lambda: "UNAUTHENTICATED" in pod.feed.why)
                files.ca.write_bytes(b"")
                files.token.write_text(operator.api.router() + "\n")
                await until(lambda: "UNAUTHENTICATED" not in pod.feed.why)
                files.ca.write_bytes(operator.bundle)
                await until(lambda: pod.feed.why == "")
                await until(lambda: pod.router.table.routes)

    run(scene())
