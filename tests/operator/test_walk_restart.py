"""An operator's process that ends anywhere, and the next one: what routers are told meanwhile."""

import asyncio
import base64

from msgspec.structs import replace

from support.walking import SPACE, Listener, operators, routed, trip_of, until
from weir_core.wire import pack, unpack

STATUS = ("apply status", "ModelRoute", "assistant")
SNAPSHOT = ("ConfigMap", SPACE, "weir-router-snapshot")


async def crash_after_persist():
    """The raise is in the status, no router was told, and one is not heard at first."""
    async with operators("r1", "r2") as ring:
        await ring.serving()
        ring.api.mute = lambda *call: call == STATUS
        ring.api.write(routed("20s"))
        await until(lambda: ring.api.status()["weight"]["set"] == "5%")
        await asyncio.sleep(0.3)
        assert ring.weight() == 0
        await ring.kill()
        ring.api.mute = lambda *call: False
        ring.routers["r2"].silent = True
        await ring.start()
        await asyncio.sleep(1.0)
        assert ring.weight() == 0
        assert all(policy.weight_bp == 0 for policy in ring.told)
        ring.routers["r2"].silent = False
        ring.wake(SPACE)
        await until(lambda: ring.weight() == 500)


def test_a_raise_of_just_before_a_crash_waits_for_every_ready_router():
    asyncio.run(crash_after_persist())


async def edited_while_nobody_led():
    async with operators("r1", "r2") as ring:
        await ring.serving()
        await ring.kill()
        ring.api.write(routed("40s"))
        for router in ring.routers.values():
            router.silent = True
        happened = ring.events()
        await ring.start()
        await until(lambda: ring.condition("Accepted")["observedGeneration"] == 2)
        assert ring.condition("Ready")["status"] == "True"
        assert "NoRouters" not in ring.events()[len(happened) :]


def test_an_edit_that_meets_a_new_leader_takes_nothing_from_ready():
    """Its routers need a moment to be heard, and serve meanwhile."""
    asyncio.run(edited_while_nobody_led())


async def restarted():
    async with operators("r1", "r2") as ring:
        await ring.serving()
        await ring.canary()
        await until(lambda: snapshot_weight(ring) == 500)
        obeyed = [router.orders.acks for router in ring.routers.values()]
        happened = ring.events()
        await ring.kill()
        written = len(ring.api.calls)
        await ring.start()
        await until(lambda: ring.told)
        assert ring.told[0].weight_bp == 500
        assert [router.orders.acks for router in ring.routers.values()] == obeyed
        await until(lambda: len(ring.api.calls) > written + 3)
        await asyncio.sleep(0.5)
        assert ring.condition("Ready")["status"] == "True"
        assert ring.events() == happened
        assert ring.weight() == 500


def snapshot_weight(ring):
    data = ring.api.objects.get(SNAPSHOT, {}).get("binaryData", {}).get("snapshot")
    policy = unpack(base64.b64decode(data)).routes["default/assistant"].policy if data else None
    return policy.weight_bp if policy else None


def test_a_restart_changes_nothing_for_routers():
    asyncio.run(restarted())


async def lowered_before_crash():
    """Routers hold a lowering of which neither status nor snapshot knows."""
    async with operators("r1") as ring:
        await ring.serving()
        before = await ring.canary()
        await until(lambda: snapshot_weight(ring) == 500)
        ring.api.waits = lambda verb, kind, name: verb != "get"
        ring.routers["r1"].trips = (trip_of(before),)
        ring.wake(SPACE)
        await until(lambda: ring.weight() == 0)
        await ring.kill()
        ring.api.waits = lambda *call: False
        ring.routers["r1"].silent = True
        await ring.start()
        await until(lambda: ring.told)
        await asyncio.sleep(0.5)
        assert ring.weight() == 0


def test_a_lowering_of_just_before_a_crash_is_not_undone():
    asyncio.run(lowered_before_crash())


async def no_snapshot():
    async with operators("r1", "r2") as ring:
        await ring.serving()
        await ring.canary()
        await ring.kill()
        ring.api.objects.pop(SNAPSHOT)
        ring.routers["r1"].deaf = True
        await ring.start()
        await until(lambda: ring.told)
        await asyncio.sleep(0.5)
        assert {policy.weight_bp for policy in ring.told} == {0}
        ring.routers["r1"].deaf = False
        ring.air.reach()
        await until(lambda: ring.weight() == 500)


def test_a_canary_that_no_snapshot_knows_begins_at_nothing():
    asyncio.run(no_snapshot())


async def unreadable():
    async with operators("r1") as ring:
        await ring.serving()
        held = ring.routers["r1"].policy
        await ring.kill()
        ring.api.objects.pop(SNAPSHOT)
        broken = routed("30s")
        broken["spec"]["modelNames"] = "no list"
        ring.api.write(broken)
        await ring.start()
        await until(lambda: ring.condition("Accepted").get("status") == "False")
        assert ring.told == []
        assert ring.routers["r1"].policy == held
        ring.api.write(routed("30s"))
        await until(lambda: ring.condition("Accepted").get("status") == "True")
        assert ring.routers["r1"].policy.model_names == ("assistant",)


def test_a_route_that_cannot_be_read_leaves_routers_what_they_have():
    asyncio.run(unreadable())


async def lost(then):
    async with operators("r1") as ring:
        await ring.serving()
        held = ring.routers["r1"].policy
        await ring.kill()
        ring.api.objects.pop(SNAPSHOT)
        ring.api.drop("ModelRevision", held.stable.name)
        ring.api.write(routed("20s"))
        await ring.start()
        await until(lambda: ring.condition("Ready").get("reason") == "StableLost")
        assert held.stable.name in ring.condition("Ready")["message"]
        assert "AttemptRefused" in ring.events()
        assert ring.told == []
        assert ring.routers["r1"].policy == held
        await ring.kill()
        await ring.start()
        await until(lambda: ring.air.told)
        await asyncio.sleep(0.3)
        assert ring.told == []
        await then(ring, held)


def test_another_spec_does_not_take_the_place_of_a_lost_stable_revision():
    async def applied_again(ring, held):
        ring.api.write(routed("30s"))
        await until(lambda: ring.condition("Promoted").get("status") == "True")
        assert ring.routers["r1"].policy.stable == held.stable

    asyncio.run(lost(applied_again))


def test_a_person_may_let_another_revision_take_its_place():
    async def retried(ring, held):
        import time

        name = ring.api.status()["canary"]["revision"]
        obj = ring.api.objects["ModelRoute", SPACE, "assistant"]
        command = {"inference.weir.dev/command": f"retry@{name}#{time.time():.0f}"}
        ring.api.write({**obj, "metadata": {**obj["metadata"], "annotations": command}})
        await until(lambda: ring.routers["r1"].policy.stable.name == name)

    asyncio.run(lost(retried))


async def born_later():
    async with operators("r1") as ring:
        await ring.serving()
        await ring.canary()
        ring.routers["r2"] = Listener("r2")
        ring.air.reach()
        assert ring.routers["r2"].policy.weight_bp == 500


def test_a_router_that_is_born_gets_all_that_is_told():
    asyncio.run(born_later())


async def deleted_lease():
    """Who led last had a clock an hour ahead, and nothing but the snapshot knows its term."""
    async with operators("r1") as ring:
        await ring.serving()
        await until(lambda: snapshot_weight(ring) == 0)
        await ring.kill()
        data = unpack(base64.b64decode(ring.api.objects[SNAPSHOT]["binaryData"]["snapshot"]))
        later = ring.leader.term + 3_600
        routes = {key: replace(one, version=(later, 1)) for key, one in data.routes.items()}
        packed = base64.b64encode(pack(replace(data, routes=routes))).decode()
        ring.api.objects[SNAPSHOT]["binaryData"]["snapshot"] = packed
        del ring.api.objects["Lease", "weir", "weir-operator"]
        await ring.start()
        first = ring.leader.term
        assert first < later
        await asyncio.wait_for(ring.leader.keep(), 20)
        await ring.leader.acquire()
        assert ring.leader.term > later


def test_a_term_that_only_the_snapshot_knows_is_exceeded():
    asyncio.run(deleted_lease())


async def heard_in_part():
    """Both were lowered for what one saw; that one is not heard by the next process."""
    async with operators("r1", "r2") as ring:
        await ring.serving()
        before = await ring.canary()
        await until(lambda: snapshot_weight(ring) == 500)
        ring.api.waits = lambda verb, kind, name: verb != "get"
        ring.routers["r1"].trips = (trip_of(before),)
        ring.wake(SPACE)
        await until(lambda: ring.weight() == 0)
        await ring.kill()
        ring.api.waits = lambda *call: False
        ring.routers["r1"].silent = True
        await ring.start()
        await until(lambda: ring.told)
        await asyncio.sleep(1.5)
        assert ring.weight() == 0
        ring.routers["r1"].trips = ()
        ring.routers["r1"].silent = False
        ring.wake(SPACE)
        await until(lambda: ring.weight() == 500)


def test_a_router_that_stays_silent_keeps_what_was_lowered_low(monkeypatch):
    monkeypatch.setattr("weir_operator.memory.RESUME_S", 0.3)
    asyncio.run(heard_in_part())
