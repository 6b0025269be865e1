"""What is deleted, and what is known again, when a write failed or was torn."""

import asyncio
import base64
import copy

import pytest

from support.servers import loaded, servers, vllm
from support.walking import KEY, SPACE, operators, order, routed, until
from weir_core.wire import unpack
from weir_operator.memory import OUTCOME
from weir_operator.unapplied import REFUSALS


def stored_servers(ring):
    """Return the model servers that a router which begins now would call for stable."""
    snapshot = ring.api.objects["ConfigMap", SPACE, "weir-router-snapshot"]
    routes = unpack(base64.b64decode(snapshot["binaryData"]["snapshot"])).routes
    return {tier.backend.identity for tier in routes[KEY].policy.stable.behaviour.tiers}


async def old_snapshot(status):
    async with operators("r1") as ring:
        ring.api.write(vllm(), routed("30s", bake={"duration": "0s", "holdback": 10}))
        await ring.start()
        (old,) = await until(lambda: servers(ring))
        await until(lambda: old in servers(ring, "Deployment"))
        loaded(ring)
        await until(lambda: ring.condition("Ready").get("status") == "True")
        await until(lambda: stored_servers(ring) == {old})
        ring.api.write(vllm("next"))
        await until(lambda: len(servers(ring, "Deployment")) == 2)
        loaded(ring)
        await until(lambda: ring.weight() > 0)
        new = ring.told[-1].canary.name
        ring.api.fails = lambda verb, kind, name: status if (verb, kind) == WRITE else 0
        order(ring, "promote-full", new)
        await until(lambda: ring.told[-1].stable.name == new and ring.told[-1].canary is None)
        await asyncio.sleep(1.5)
        assert stored_servers(ring) == {old}
        assert old in servers(ring)
        if status in REFUSALS:
            return  # It is asked again after a while only.
        ring.api.fails = lambda *call: 0
        await until(lambda: old not in servers(ring))
        assert stored_servers(ring) == set(servers(ring))


WRITE = ("apply", "ConfigMap")


@pytest.mark.parametrize("status", [500, 403])
def test_a_server_stays_that_the_snapshot_of_routers_still_names(status):
    asyncio.run(old_snapshot(status))


async def torn():
    async with operators("r1") as ring:
        await ring.serving()
        name = (await ring.canary()).canary.name
        await ring.kill()
        obj = copy.deepcopy(ring.api.objects["ModelRevision", SPACE, name])
        assert obj["status"]["outcome"] == "Canary"
        obj["metadata"]["labels"][OUTCOME] = "RolledBack"
        ring.api.write(obj)
        await ring.start()
        await until(lambda: ring.weight() == 0)
        await until(lambda: ring.condition("RolledBack").get("status") == "True")
        found = ring.api.objects["ModelRevision", SPACE, name]
        assert found["metadata"]["labels"][OUTCOME] == found["status"]["outcome"] == "RolledBack"


def test_a_rollback_of_which_only_the_label_was_written_stands():
    asyncio.run(torn())
