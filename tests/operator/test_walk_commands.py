"""Commands that were given while nobody was there to obey, or before the status was lost."""

import asyncio
import time

from support.walking import SPACE, operators, trip_of, until


def order(ring, verb, name, *, age_s=0.0, **fields):
    obj = ring.api.objects["ModelRoute", SPACE, "assistant"]
    text = {"inference.weir.dev/command": f"{verb}@{name}#{time.time() - age_s:.3f}"}
    ring.api.write({**obj, "metadata": {**obj["metadata"], "annotations": text}, **fields})


async def aborted_while_away():
    """A router's brake trips and a person aborts, both with no operator there."""
    async with operators("r1", "r2") as ring:
        await ring.serving()
        held = await ring.canary()
        await ring.kill()
        order(ring, "abort", held.canary.name)
        ring.routers["r1"].trips = (trip_of(held),)
        ring.routers["r1"].silent = True
        await ring.start()
        await until(lambda: ring.told)
        await asyncio.sleep(0.8)
        ring.routers["r1"].silent = False
        ring.wake(SPACE)
        await until(lambda: ring.condition("RolledBack").get("status") == "True")
        await until(lambda: "RolledBack" in ring.events())
        rollback = ring.api.status()["lastRollback"]
        assert (rollback["decidedBy"], rollback["reason"]) == ("router/r1", "Harm")
        assert "BrakeTripped" in ring.events()
        acknowledged = ring.api.status()["lastCommand"]
        assert acknowledged["result"] == "Done"
        assert acknowledged["message"] == "already rolled back by router/r1: Harm"


def test_an_abort_does_not_hide_what_a_brake_found_meanwhile():
    asyncio.run(aborted_while_away())


async def aborted_and_nobody_heard():
    async with operators("r1", "r2") as ring:
        await ring.serving()
        held = await ring.canary()
        await ring.kill()
        order(ring, "abort", held.canary.name)
        ring.routers["r1"].silent = True
        await ring.start()
        await until(lambda: ring.condition("RolledBack").get("reason") == "Aborted")


def test_an_abort_does_not_wait_for_ever_for_a_silent_router(monkeypatch):
    monkeypatch.setattr("weir_operator.memory.RESUME_S", 0.5)
    asyncio.run(aborted_and_nobody_heard())


async def rolled_back(ring):
    """Have the canary rolled back; return its name."""
    held = await ring.canary()
    ring.routers["r1"].trips = (trip_of(held),)
    ring.wake(SPACE)
    await until(lambda: ring.condition("RolledBack").get("status") == "True")
    ring.routers["r1"].trips = ()
    return held.canary.name


async def lose_status(ring):
    await ring.kill()
    obj = ring.api.objects["ModelRoute", SPACE, "assistant"]
    ring.api.write({**obj, "status": {}})
    await ring.start()
    await until(lambda: ring.condition("Programmed").get("status") == "True")
    await asyncio.sleep(0.5)


async def retried_before(age_s):
    async with operators("r1") as ring:
        await ring.serving()
        name = await rolled_back(ring)
        await ring.kill()
        order(ring, "retry", name, age_s=age_s)
        for _ in range(2):
            await lose_status(ring)
            assert "CommandRefused" not in ring.events()
            assert ring.api.status()["lastCommand"]["result"] == "Done"
            assert ring.api.status()["canary"]["attempt"] == 1


def test_an_old_retry_is_neither_refused_nor_obeyed_whenever_the_status_is_lost():
    asyncio.run(retried_before(3_000))


def test_a_retry_that_was_obeyed_is_not_obeyed_again_when_the_status_is_lost():
    asyncio.run(retried_before(30))


async def retried_now():
    async with operators("r1") as ring:
        await ring.serving()
        name = await rolled_back(ring)
        await ring.kill()
        order(ring, "retry", name)
        await lose_status(ring)
        await until(lambda: ring.weight() == 500)
        assert ring.told[-1].attempt == 2
        assert "CommandRefused" not in ring.events()


def test_a_retry_that_comes_as_the_status_is_lost_is_obeyed():
    asyncio.run(retried_now())


async def unreadable_state():
    async with operators("r1") as ring:
        await ring.serving()
        held = await ring.canary()
        order(ring, "pause", held.canary.name, age_s=3_000)
        await until(lambda: "CommandRefused" in ring.events())
        obj = ring.api.objects["ModelRoute", SPACE, "assistant"]
        ring.api.write({**obj, "status": {**obj["status"], "rollout": {"state": "{}"}}})
        await asyncio.sleep(1.0)
        assert ring.events().count("CommandRefused") == 1


def test_an_old_command_is_not_refused_again_when_somebody_empties_the_state():
    asyncio.run(unreadable_state())
