"""Somebody else writes a status, or wipes it; routers refuse what they are told."""

import asyncio
import copy
import json
import time

from support.walking import SPACE, Listener, operators, routed, trip_of, until

STATUS = ("apply status", "ModelRoute", "assistant")


def state_of(ring):
    return json.loads(ring.api.status()["rollout"]["state"])


def write_state(ring, **changes):
    """Write the stored state as another process would."""
    obj = copy.deepcopy(ring.api.objects["ModelRoute", SPACE, "assistant"])
    obj["status"]["rollout"]["state"] = json.dumps({**state_of(ring), **changes})
    ring.api.write(obj)


async def taken_over():
    async with operators("r1") as ring:
        await ring.serving()
        await ring.canary()
        write_state(ring, weight_bp=100, commanded_pause=True)
        await until(lambda: ring.weight() == 100)
        await asyncio.sleep(0.5)
        assert state_of(ring)["weight_bp"] == 100
        assert ring.api.status()["phase"] == "Paused"


def test_what_another_leader_wrote_is_taken_over():
    asyncio.run(taken_over())


async def older_raise():
    """What was rolled back and not written yet survives a status in which it still serves."""
    async with operators("r1") as ring:
        await ring.serving()
        before = await ring.canary()
        ring.api.waits = lambda verb, kind, name: verb.startswith("apply")
        ring.routers["r1"].trips = (trip_of(before),)
        ring.wake(SPACE)
        await until(lambda: ring.weight() == 0)
        write_state(ring, weight_bp=600)
        await asyncio.sleep(1.5)
        ring.api.waits = lambda *call: False
        await until(lambda: ring.condition("RolledBack").get("status") == "True")
        assert max(policy.weight_bp for policy in ring.told) == 500


def test_a_rollback_survives_a_status_that_does_not_know_of_it():
    asyncio.run(older_raise())


async def wiped():
    async with operators("r1") as ring:
        await ring.serving()
        before = await ring.canary()
        await asyncio.sleep(1.5)  # Nothing else is to be written by then.
        stored = state_of(ring)
        obj = ring.api.objects["ModelRoute", SPACE, "assistant"]
        wiped = {key: value for key, value in obj["status"].items() if key != "rollout"}
        ring.api.write({**obj, "status": wiped})
        await until(lambda: (ring.api.status().get("rollout") or {}).get("state"))
        assert {**state_of(ring), "step_settled": None} == {**stored, "step_settled": None}
        assert ring.told[-1] == before


def test_a_wiped_status_is_written_again_from_memory():
    asyncio.run(wiped())


async def own_writes():
    """Its own write comes back by the watch long before its answer does."""
    async with operators("r1") as ring:
        await ring.serving()
        ring.api.mute = lambda *call: call == STATUS
        ring.api.write(routed("20s"))
        await until(lambda: ring.api.status()["weight"]["set"] == "5%")
        await asyncio.sleep(1.5)
        assert all(policy.canary is None for policy in ring.told)
        ring.api.mute = lambda *call: False
        await until(lambda: ring.weight() == 500)
        assert ring.events().count("WeightUpdated") == 1


def test_its_own_write_is_nobody_elses():
    asyncio.run(own_writes())


def refuses(name):
    """Refuse what has a canary at weight 0 beside it or none, as a router with a bug might."""

    def why(policy):
        gone = policy.canary is None or policy.canary.name != name
        return "it cannot be compiled here" if gone else ""

    return why


async def refused():
    async with operators("r1", "r2") as ring:
        await ring.serving()
        before = await ring.canary()
        ring.routers["r1"].refuses = refuses(before.canary.name)
        ring.routers["r2"].trips = (trip_of(before),)
        ring.wake(SPACE)
        await until(lambda: ring.weight() == 0)
        for router in ring.routers.values():
            assert router.policy.stable == before.stable
            assert (before.canary.name, before.attempt) in router.policy.latched
        await until(lambda: "compiled here" in ring.condition("Programmed").get("message", ""))
        count = len(ring.told)
        await asyncio.sleep(0.6)
        assert len(ring.told) == count
        ring.routers["r1"].refuses = lambda policy: ""
        ring.api.write(routed("40s"))
        await until(lambda: ring.condition("Programmed").get("status") == "True")


def test_a_router_that_refuses_a_lowering_gets_it_in_the_form_that_it_has():
    asyncio.run(refused())


async def refused_until_a_restart():
    async with operators("r1", "r2") as ring:
        await ring.serving()
        ring.routers["r1"].refuses = lambda policy: "it cannot be compiled here"
        ring.api.write(routed("40s"))
        await until(lambda: ring.condition("Programmed").get("reason") == "RoutersRefuse")
        assert ring.condition("Ready")["status"] == "True"
        ring.routers["r1"] = Listener("r1", start=2)
        ring.air.reach()
        ring.wake(SPACE)
        await until(lambda: ring.condition("Programmed").get("status") == "True")


def test_a_refusal_takes_nothing_from_ready_and_ends_with_the_start_that_refused():
    """A container that starts anew may be of the release that understands it."""
    asyncio.run(refused_until_a_restart())


async def refused_by_a_sidecar():
    async with operators("r1") as ring:
        side = ring.routers["side"] = Listener("side")
        side.sidecar = True
        await ring.serving()
        side.refuses = lambda policy: "it cannot be compiled here" if policy.canary else ""
        before = await ring.canary()
        assert side.orders.nacks
        ring.api.write(routed("40s"))
        await until(lambda: ring.weight() > 0 and ring.told[-1].canary != before.canary)
        assert ring.condition("Programmed").get("status") == "True"


def test_a_sidecar_that_refuses_holds_nobody():
    asyncio.run(refused_by_a_sidecar())


async def old_command():
    async with operators("r1") as ring:
        await ring.serving()
        before = await ring.canary()
        obj = ring.api.objects["ModelRoute", SPACE, "assistant"]
        text = f"pause@{before.canary.name}#{time.time() - 3_000:.0f}"
        await ring.kill()
        command = {"inference.weir.dev/command": text}
        meta = {**obj["metadata"], "annotations": command}
        ring.api.write({**obj, "metadata": meta, "status": {}})
        await ring.start()
        await until(lambda: ring.api.status().get("lastCommand"))
        assert ring.api.status()["lastCommand"]["result"] == "Done"
        await ring.kill()
        await ring.start()
        await until(lambda: ring.air.told)
        await asyncio.sleep(0.5)
        assert "CommandRefused" not in ring.events()


def test_an_old_command_is_not_refused_after_the_status_was_lost():
    asyncio.run(old_command())


async def new_route_old_command():
    async with operators("r1") as ring:
        made = routed("30s")
        text = f"pause@assistant-0123456789#{time.time() - 3_000:.0f}"
        made["metadata"]["annotations"] = {"inference.weir.dev/command": text}
        ring.api.write(made)
        await ring.serving()
        assert "CommandRefused" in ring.events()


def test_an_old_command_on_a_new_route_is_refused():
    asyncio.run(new_route_old_command())
