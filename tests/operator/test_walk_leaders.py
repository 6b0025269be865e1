"""A leader that stands still in the middle of a write, and the next one's word."""

import asyncio
import copy

from support.objects import backend
from support.walking import SPACE, operators, order, routed, trip_of, until

OUTCOME, ATTEMPT = "inference.weir.dev/outcome", "inference.weir.dev/attempt"


def revision(ring, name):
    return ring.api.objects["ModelRevision", SPACE, name]


def outcome(ring, name):
    return revision(ring, name)["metadata"]["labels"][OUTCOME]


def hang(ring, verb, name):
    """Have calls of one verb for one ModelRevision hang."""
    ring.api.waits = lambda *call: call == (verb, "ModelRevision", name)


async def frozen_promotion(ring):
    """Let a leader freeze while it writes that the canary is stable; return what routers obeyed."""
    ring.api.write(routed("30s", bake={"duration": "0s", "holdback": 10}))
    await ring.start()
    await until(lambda: ring.condition("Programmed").get("status") == "True")
    ring.api.write(routed("20s", bake={"duration": "0s", "holdback": 10}))
    await until(lambda: ring.weight() == 500)
    before = ring.told[-1]
    hang(ring, "apply", before.canary.name)
    order(ring, "promote-full", before.canary.name)
    call = ("apply", "ModelRevision", before.canary.name)
    await until(lambda: ring.api.calls.count(call) >= 1)
    return ring.told[-1]


async def rolled_back_meanwhile(ring, held):
    """Let the next leader roll the canary back."""
    await ring.start()
    await until(lambda: ring.weight() > 0 and ring.told)
    ring.routers["r1"].trips = (trip_of(held),)
    ring.wake(SPACE)
    await until(lambda: ring.condition("RolledBack").get("status") == "True")
    await until(lambda: outcome(ring, held.stable.name) == "Stable")
    ring.routers["r1"].trips = ()


async def lose_status_and_restart(ring):
    await ring.kill()
    obj = ring.api.objects["ModelRoute", SPACE, "assistant"]
    ring.api.write({**obj, "status": {}})
    await ring.start()
    await until(lambda: ring.told)
    await until(lambda: ring.condition("Programmed").get("status") == "True")


async def overtaken_promotion():
    async with operators("r1") as frozen:
        frozen.api.write(backend())
        held = await frozen_promotion(frozen)
        next_one = frozen.successor()
        try:
            await rolled_back_meanwhile(next_one, held)
            frozen.api.waits = lambda *call: False
            await asyncio.sleep(0.5)
            assert outcome(next_one, held.canary.name) == "RolledBack"
            await frozen.kill()
            await lose_status_and_restart(next_one)
            assert next_one.routers["r1"].policy.stable == held.stable
            assert next_one.condition("RolledBack")["status"] == "True"
        finally:
            await next_one.kill()


def test_a_thawed_leaders_promotion_does_not_undo_the_next_ones_rollback():
    asyncio.run(overtaken_promotion())


async def overtaken_creation():
    """The frozen one is about to create a revision that the next one has made and rolled back."""
    async with operators("r1") as frozen:
        await frozen.serving()
        frozen.api.waits = lambda verb, kind, name: (
            kind == "ModelRevision" and verb in ("create", "apply") and name not in known
        )
        known = {obj["metadata"]["name"] for obj in frozen.api.of("ModelRevision")}
        frozen.api.write(routed("20s"))
        calls = frozen.api.calls
        await until(lambda: any(kind == "ModelRevision" for _, kind, _ in calls[-3:]))
        next_one = frozen.successor()
        try:
            await next_one.start()
            await until(lambda: next_one.weight() == 500)
            held = next_one.told[-1]
            next_one.routers["r1"].trips = (trip_of(held),)
            next_one.wake(SPACE)
            await until(lambda: next_one.condition("RolledBack").get("status") == "True")
            frozen.api.waits = lambda *call: False
            await asyncio.sleep(0.5)
            assert outcome(next_one, held.canary.name) == "RolledBack"
        finally:
            await next_one.kill()


def test_a_thawed_leader_creates_nothing_over_what_is_there():
    asyncio.run(overtaken_creation())


async def lease_lost_in_a_save():
    async with operators("r1") as frozen:
        frozen.api.write(backend())
        held = await frozen_promotion(frozen)
        status = frozen.api.status()
        frozen.frozen_s = 60.0
        frozen.api.waits = lambda *call: False
        await until(lambda: outcome(frozen, held.canary.name) == "Stable")
        await asyncio.sleep(0.3)
        told = revision(frozen, held.canary.name)["status"]
        assert told["outcome"] == "Canary"
        assert frozen.api.status() == status


def test_a_leader_without_its_lease_stops_in_the_middle_of_a_save():
    """The write that was under way gets there, no other does."""
    asyncio.run(lease_lost_in_a_save())


def stands_for(obj, outcome, *, attempt=1, **status):
    """Return a ModelRevision as another leader would have written it."""
    made = copy.deepcopy(obj)
    made["metadata"]["labels"] |= {OUTCOME: outcome, ATTEMPT: str(attempt)}
    made["status"] = {"outcome": outcome, "attempt": attempt, "reason": "", **status}
    return made


async def weakened():
    async with operators("r1") as ring:
        await ring.serving()
        held = await ring.canary()
        ring.routers["r1"].trips = (trip_of(held),)
        ring.wake(SPACE)
        await until(lambda: ring.condition("RolledBack").get("status") == "True")
        ring.api.write(stands_for(revision(ring, held.canary.name), "Stable"))
        await until(lambda: outcome(ring, held.canary.name) == "RolledBack")
        await until(lambda: revision(ring, held.canary.name)["status"].get("tripped") == 1)


def test_an_outcome_that_is_not_the_leaders_is_written_again(monkeypatch):
    monkeypatch.setattr("weir_operator.attention.AGE_S", 0.2)
    asyncio.run(weakened())


async def rolled_back_elsewhere():
    async with operators("r1") as ring:
        await ring.serving()
        held = await ring.canary()
        await asyncio.sleep(1.0)  # Nothing else is news by then.
        obj = revision(ring, held.canary.name)
        ring.api.write(stands_for(obj, "RolledBack", tripped=1))
        await until(lambda: ring.weight() == 0)
        await until(lambda: ring.condition("RolledBack").get("status") == "True")
        assert outcome(ring, held.canary.name) == "RolledBack"


def test_a_rollback_that_only_the_revision_tells_of_counts():
    asyncio.run(rolled_back_elsewhere())
