"""What a walk finds out by itself: what loads, what was deleted, what came later."""

import asyncio
import time

from msgspec.structs import replace

from support.objects import CALIBRATION, calibration, route
from support.servers import loaded, servers, vllm
from support.walking import SPACE, operators, order, routed, until


async def loading():
    async with operators("r1") as ring:
        ring.api.write(vllm(), routed("30s"))
        await ring.start()
        await until(lambda: ring.condition("Ready").get("reason") == "NoHealthyBackend")
        assert "its model loads" in ring.condition("Ready")["message"]
        assert ring.api.status()["phase"] == "Progressing"
        await until(lambda: servers(ring, "Deployment"))
        loaded(ring)
        await until(lambda: ring.condition("Ready").get("status") == "True")
        assert ring.api.status()["phase"] == "Healthy"


def test_a_route_whose_model_loads_is_not_ready():
    asyncio.run(loading())


async def deleted():
    async with operators("r1") as ring:
        ring.api.write(vllm(), routed("30s"))
        await ring.start()
        (old,) = await until(lambda: servers(ring))
        await until(lambda: old in servers(ring, "Deployment"))
        loaded(ring)
        await until(lambda: ring.condition("Ready").get("status") == "True")
        before = servers(ring)[old]["spec"]
        ring.api.write(vllm(revision="next"))
        await until(lambda: len(servers(ring)) == 2)
        ring.api.drop("ModelRevision", old, SPACE)
        await until(lambda: old in servers(ring))
        assert servers(ring)[old]["spec"] == before


def test_a_deleted_revision_of_stables_model_server_is_made_again():
    asyncio.run(deleted())


async def came_later():
    made = route("assistant", deadline="30s")
    sure = {"name": "sure", "type": "Confidence", "method": "Logprob", "minProbability": "0.5"}
    made["spec"]["behaviour"]["tiers"][0]["accept"] = [{**sure, "calibrationRef": {"name": "cal"}}]
    async with operators("r1") as ring:
        ring.api.write(vllm(), made)
        await ring.start()
        await until(lambda: ring.condition("ResolvedRefs").get("reason") == "CalibrationNotFound")
        ring.api.write(calibration(**CALIBRATION))
        await until(lambda: ring.condition("ResolvedRefs").get("status") == "True", 6)


def test_a_calibration_that_comes_after_its_route_is_found():
    asyncio.run(came_later())


async def gone():
    async with operators("r1") as ring:
        await ring.serving()
        order(ring, "dance", "assistant-0")
        await until(lambda: "CommandRefused" in ring.events())
        space = ring.walker._namespaces[SPACE]
        assert list(space.refused) == ["assistant"]
        ring.api.drop("ModelRoute", "assistant")
        await until(lambda: not space.refused)


def test_what_was_noted_of_a_route_goes_with_it():
    asyncio.run(gone())


async def clocks():
    async with operators("r1") as ring:
        await ring.serving()
        await ring.canary()
        report = ring.routers["r1"].report
        ring.routers["r1"].report = lambda: replace(report(), as_of_s=time.time() + 600)
        ring.wake(SPACE)
        await until(lambda: ring.condition("Progressing").get("reason") == "ClocksDisagree")
        assert "ClocksDisagree" in ring.events()
        assert ring.weight() == 500, "what serves goes on"
        ring.routers["r1"].report = report
        ring.wake(SPACE)
        await until(lambda: ring.condition("Progressing").get("reason") != "ClocksDisagree")


def test_clocks_that_disagree_are_told_and_hold_the_canary_where_it_is():
    asyncio.run(clocks())
