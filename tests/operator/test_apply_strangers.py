"""Objects that others made, changed or are deleting: told, and harming nothing else."""

import asyncio
import copy

import pytest

from support.objects import backend
from support.walking import SPACE, operators, routed, until
from weir_operator.kube import KubeError

STRANGERS = ("ServiceAccount", "Service", "Deployment", "PodDisruptionBudget", "ConfigMap")


def stranger(kind):
    name = "weir-router-snapshot" if kind == "ConfigMap" else "weir-router"
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "labels": {"a": "b"}}}


async def held_up(kind):
    async with operators("r1") as ring:
        ring.api.write(stranger(kind), backend(), routed("30s"))
        await ring.start()
        await until(lambda: ring.condition("Programmed").get("reason") == "ForeignObject")
        await until(lambda: "ForeignObject" in ring.events())
        return ring.condition("Programmed"), ring.api.objects, ring.told


@pytest.mark.parametrize("kind", STRANGERS)
def test_somebody_elses_object_with_a_routers_name_is_told_on_the_route(kind):
    condition, objects, told = asyncio.run(held_up(kind))
    name = stranger(kind)["metadata"]["name"]
    assert condition["status"] == "False"
    assert f"saw {kind} {SPACE}/{name}: one without the label" in condition["message"]
    assert "rename or delete the object, or move the routes" in condition["message"]
    assert objects[kind, SPACE, name]["metadata"]["labels"] == {"a": "b"}
    assert told, "routers that run obey the route none the less"


async def freed():
    async with operators("r1") as ring:
        ring.api.write(stranger("Service"), backend(), routed("30s"))
        await ring.start()
        await until(lambda: ring.condition("Programmed").get("reason") == "ForeignObject")
        ring.api.drop("Service", "weir-router")
        ring.applier._applied._clock = lambda: float("inf")
        ring.wake(SPACE)
        await until(lambda: ring.condition("Programmed").get("status") == "True")
        await until(lambda: "Programmed" in ring.events())


def test_route_is_programmed_when_the_name_is_free():
    asyncio.run(freed())


async def ending():
    async with operators("r1") as ring:
        await ring.serving()

        def fails(verb, kind, name):
            if verb == "create" or kind == "Deployment":
                why = f"namespaces {SPACE} forbids: because it is being terminated"
                raise KubeError(403, why)
            return 0

        ring.api.fails = fails
        ring.api.drop("Deployment", "weir-router")
        ring.wake(SPACE)
        await until(lambda: ring.condition("Programmed").get("reason") == "NamespaceTerminating")
        message = ring.condition("Programmed")["message"]
        assert "wanted a namespace that stays" in message
        ring.api.fails = lambda verb, kind, name: 0
        ring.applier._applied._clock = lambda: float("inf")
        ring.wake(SPACE)
        await until(lambda: ring.condition("Programmed").get("status") == "True")


def test_namespace_that_is_being_deleted_is_told_and_walked_on():
    asyncio.run(ending())


async def scaled():
    async with operators("r1") as ring:
        await ring.serving()
        live = copy.deepcopy(ring.api.objects["Deployment", SPACE, "weir-router"])
        wanted, live["spec"]["replicas"] = live["spec"]["replicas"], 9
        ring.api.write(live)
        await until(lambda: ring.api.of("Deployment")[0]["spec"]["replicas"] == wanted)
        await until(lambda: "PutBack" in ring.events())
        (event,) = (one for one in ring.api.of("Event") if one["reason"] == "PutBack")
        assert event["regarding"]["kind"] == "Deployment"
        assert f"Deployment {SPACE}/weir-router: spec.replicas changed, put back" in event["note"]


def test_hand_edit_of_the_routers_is_put_back_and_told():
    asyncio.run(scaled())
