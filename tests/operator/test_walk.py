"""A namespace's walk: what routers are told before and after what the cluster is told."""

import asyncio
import time

from support.objects import backend
from support.virtual import run
from support.walking import SPACE, operators, routed, trip_of, until

STATUS = ("apply status", "ModelRoute", "assistant")


def slow(verb, kind, name):
    """Every call hangs, as with an API server that is gone."""
    return True


async def first_canary_replaced():
    async with operators("r1", "r2") as ring:
        await ring.serving()
        before = await ring.canary("20s")
        ring.api.waits = slow
        ring.api.write(routed("10s"))
        await until(lambda: ring.weight() == 0, 3)
        replaced = ring.told[-1]
        assert replaced.stable == before.stable
        assert before.canary.name in str(ring.api.status()["canary"])
        ring.api.waits = lambda *call: False
        await until(lambda: ring.weight() == 500)
        assert ring.told[-1].canary.name != before.canary.name
        assert ring.told[-1].canary.name == ring.api.status()["canary"]["revision"]


def test_a_replaced_canary_loses_its_traffic_before_anything_is_written():
    asyncio.run(first_canary_replaced())


async def tripped_while_slow():
    async with operators("r1", "r2") as ring:
        await ring.serving()
        before = await ring.canary()
        ring.api.waits = slow
        ring.routers["r1"].trips = (trip_of(before),)
        ring.wake(SPACE)
        await until(lambda: ring.weight() == 0, 3)
        assert (before.canary.name, before.attempt) in ring.told[-1].latched
        ring.api.waits = lambda *call: False
        await until(lambda: ring.condition("RolledBack").get("status") == "True")


def test_a_rollback_waits_for_no_write():
    asyncio.run(tripped_while_slow())


async def raise_waits():
    async with operators() as ring:
        await ring.serving()
        ring.api.waits = lambda verb, kind, name: (verb, kind) == ("apply status", "ModelRoute")
        ring.api.write(routed("20s"))
        written = len(ring.api.calls)
        await until(lambda: STATUS in ring.api.calls[written:])
        await asyncio.sleep(0.8)
        assert ring.weight() == 0
        ring.api.waits = lambda *call: False
        await until(lambda: ring.weight() == 500)


def test_a_raise_waits_for_its_write():
    asyncio.run(raise_waits())


async def lowered_while_saved():
    """The raise is saved, and its route was aborted before the answer came."""
    async with operators() as ring:
        await ring.serving()
        ring.api.mute = lambda *call: call == STATUS
        ring.api.write(routed("20s"))
        await until(lambda: ring.api.status()["weight"]["set"] == "5%")
        ring.api.write(routed("30s"))
        await asyncio.sleep(1.5)
        ring.api.mute = lambda *call: False
        await until(lambda: ring.api.status().get("observedGeneration") == 3)
        await until(lambda: ring.condition("Promoted").get("status") == "True")
        assert all(policy.canary is None for policy in ring.told)


def test_a_raise_that_was_lowered_while_it_was_saved_is_not_published():
    asyncio.run(lowered_while_saved())


async def one_in_trouble():
    async with operators() as ring:
        ring.api.fails = lambda verb, kind, name: 500 * (name == "broken" and "apply" in verb)
        ring.api.write(routed("5s", name="broken"))
        await ring.serving()
        await ring.canary()
        assert ring.condition("Programmed")["status"] == "True"
        tries = [call for call in ring.api.calls if call[2].startswith("broken")]
        assert 1 <= len(tries) < 30


def test_a_route_that_cannot_be_written_stops_no_other():
    asyncio.run(one_in_trouble())


async def conflicts():
    """Labels and annotations change under the operator's hands all the time."""
    async with operators() as ring:
        await ring.serving()
        for turn in range(5):
            obj = ring.api.objects["ModelRoute", SPACE, "assistant"]
            noted = {**obj["metadata"], "annotations": {"turn": str(turn)}}
            ring.api.write({**obj, "metadata": noted})
            await asyncio.sleep(0.05)
        await ring.canary()
        assert ring.api.status()["observedGeneration"] == 2


def test_conflicts_are_walked_again():
    asyncio.run(conflicts())


async def gone():
    async with operators() as ring:
        await ring.serving()
        for kind in ("ModelRoute", "ModelBackend", "ModelRevision"):
            for obj in ring.api.of(kind):
                ring.api.drop(kind, obj["metadata"]["name"])
        await until(lambda: ring.routers["r1"].policy is None)
        ring.routers["r1"].silent = True
        await until(lambda: not ring.walker.namespaces)
        assert ring.air.forgotten == [SPACE]
        ring.routers["r1"].silent = False
        ring.api.write(routed("30s"))
        await until(lambda: ring.condition("ResolvedRefs").get("status") == "False")


def test_a_namespace_that_nothing_is_left_of_is_forgotten(monkeypatch):
    monkeypatch.setattr("weir_operator.walk.FORGET_S", 0.2)
    monkeypatch.setattr("weir_operator.walk.IDLE_S", 0.2)
    asyncio.run(gone())


async def broken():
    """What is asked of the feed between two walks has a bug, once."""
    async with operators("r1") as ring:
        await ring.start()
        connected, raised = ring.air.connected, []

        def once(namespace):
            # The first to ask is whether the namespace is over, outside of any walk.
            raised.append(namespace)
            if len(raised) == 1:
                raise ValueError("a bug")
            return connected(namespace)

        ring.air.connected = once
        await until(lambda: raised)
        ring.api.write(backend(), routed("30s"))
        await until(lambda: ring.condition("Programmed").get("status") == "True")


def test_a_namespace_whose_walk_ends_by_a_bug_is_begun_anew(monkeypatch, caplog):
    monkeypatch.setattr("weir_operator.walk.RETRY_MAX_S", 0.2)
    asyncio.run(broken())
    (told,) = [one for one in caplog.records if one.getMessage() == "namespace begun anew"]
    assert told.exc_info is not None


async def saved_late():
    steps = [{"setWeight": 20}, {"pause": {"duration": "10s"}}, {"setWeight": 60}]
    async with operators("r1") as ring:
        await ring.serving(steps=steps)
        leading = asyncio.create_task(ring.leader.keep())
        hung_s = time.monotonic() + 30
        ring.api.waits = lambda *call: call == STATUS and time.monotonic() < hung_s
        ring.api.write(routed("20s", steps=steps))
        await until(lambda: ring.weight() == 2_000, 60)
        told_s = time.monotonic()
        assert told_s >= hung_s
        await until(lambda: ring.condition("Progressing").get("reason") == "Paused")
        await until(lambda: ring.condition("Progressing").get("reason") != "Paused", 60)
        assert time.monotonic() - told_s >= 10
        leading.cancel()


def test_a_timed_step_counts_from_when_routers_are_told(monkeypatch):
    run(saved_late(), monkeypatch)
