"""What the API server fails at harms one model server, and is told when it lasts."""

import asyncio
import copy
import time

import pytest

from support.objects import backend, vllm
from support.thinking import NOW, Space
from support.walking import SPACE, Api, operators, routed, until
from weir_core.identity import identity_of
from weir_core.resources import from_object
from weir_core.wire import Packed
from weir_operator.apply import Applier
from weir_operator.backends import identities
from weir_operator.cache import Cache
from weir_operator.leader import Leader
from weir_operator.routers import RouterSettings
from weir_operator.workloads import WorkloadSettings

ROUTERS = RouterSettings(image="weir:1", feed="weir-operator:8443")


def name_of(obj):
    made = copy.deepcopy(obj)
    made["metadata"]["namespace"] = SPACE
    return identity_of(from_object(made))


FIRST, SECOND = name_of(vllm("a")), name_of(vllm("b"))


def condition(ring, name, kind):
    status = ring.api.objects["ModelBackend", SPACE, name].get("status") or {}
    return next((c for c in status.get("conditions", ()) if c["type"] == kind), {})


def failing(status, *calls):
    return lambda *call: status if call in calls else 0


async def beside(status, call):
    async with operators("r1") as ring:
        ring.api.write(vllm("a"), vllm("b"))
        ring.api.fails = failing(status, call)
        await ring.start()
        await until(lambda: ("Deployment", SPACE, SECOND) in ring.api.objects)
        await until(lambda: condition(ring, "b", "WorkloadReady"))
        await until(lambda: ring.api.calls.count(call) > 1)
        return ring.api.objects


@pytest.mark.parametrize("status", [409, 429, 503])
@pytest.mark.parametrize("kind", ["ModelRevision", "Service", "Deployment"])
def test_one_model_server_that_cannot_be_applied_holds_up_no_other(kind, status):
    objects = asyncio.run(beside(status, ("apply", kind, FIRST)))
    assert (kind, SPACE, FIRST) not in objects


def mistaken(*call):
    if call == ("apply", "Service", FIRST):
        raise RuntimeError("a mistake")
    return 0


async def broken():
    async with operators("r1") as ring:
        ring.api.write(vllm("a"), vllm("b"))
        ring.api.fails = mistaken
        await ring.start()
        await until(lambda: ("Deployment", SPACE, SECOND) in ring.api.objects)


def test_one_model_server_that_meets_a_mistake_of_ours_holds_up_no_other():
    asyncio.run(broken())


async def no_routers():
    async with operators("r1") as ring:
        ring.api.write(vllm("a"), backend(), routed("30s"))
        ring.api.fails = failing(503, ("apply", "Service", "weir-router"))
        await ring.start()
        await until(lambda: ("Deployment", SPACE, FIRST) in ring.api.objects)
        later(ring)
        await until(lambda: ring.condition("Programmed").get("reason") == "NotApplied")
        assert ring.told, "routers that run obey the route none the less"
        ring.api.fails = lambda *call: 0
        await until(lambda: ring.condition("Programmed").get("status") == "True")


def test_routers_that_cannot_be_applied_hold_up_no_model_server_and_are_told():
    asyncio.run(no_routers())


def test_one_status_that_cannot_be_written_holds_up_no_other():
    objects = asyncio.run(beside(409, ("apply status", "ModelBackend", "a")))
    assert ("Deployment", SPACE, FIRST) in objects
    assert "status" not in objects["ModelBackend", SPACE, "a"]


async def undeletable():
    async with operators("r1") as ring:
        ring.api.write(vllm("a"))
        await ring.start()
        await until(lambda: ("Deployment", SPACE, FIRST) in ring.api.objects)
        ring.api.fails = failing(503, ("delete", "ModelRevision", FIRST))
        ring.api.write(vllm("a", image="vllm:2"), vllm("b"))
        await until(lambda: ("Deployment", SPACE, SECOND) in ring.api.objects)
        await until(lambda: ring.api.calls.count(("delete", "ModelRevision", FIRST)) > 1)
        later(ring)
        await until(lambda: condition(ring, "a", "WorkloadReady").get("reason") == "NotApplied")
        assert condition(ring, "b", "WorkloadReady")["reason"] == "Loading"
        ring.api.fails = lambda *call: 0
        await until(lambda: ("ModelRevision", SPACE, FIRST) not in ring.api.objects)
        await until(lambda: condition(ring, "a", "WorkloadReady").get("reason") == "Loading")


def later(ring):
    """Have what failed have done so for a while."""
    ring.applier._applied._clock = lambda: time.monotonic() + 3_600
    ring.wake(SPACE)


def test_a_revision_that_cannot_be_deleted_holds_up_nothing_and_is_told():
    asyncio.run(undeletable())


async def resting():
    call = ("apply", "Service", FIRST)
    async with operators("r1") as ring:
        ring.api.write(vllm("a"))
        ring.api.fails = failing(503, call)
        await ring.start()
        await until(lambda: ring.api.calls.count(call) > 1)
        stopped_s = time.monotonic()
        ring.applier._applied._clock = lambda: stopped_s
        await until(lambda: condition(ring, "a", "WorkloadReady"))
        before = ring.api.calls.count(call)
        ring.api.write(vllm("b"))
        await until(lambda: ("Deployment", SPACE, SECOND) in ring.api.objects)
        ring.api.write(vllm("b", image="vllm:2"))
        await until(lambda: len(ring.api.of("Deployment")) > 1)
        assert ring.api.calls.count(call) <= before + 1
        later(ring)
        await until(lambda: ring.api.calls.count(call) > before + 1)


def test_what_fails_is_tried_ever_more_rarely_while_all_else_goes_on():
    asyncio.run(resting())


async def told():
    async with operators("r1") as ring:
        ring.api.write(vllm("a"))
        ring.api.fails = failing(503, ("apply", "Service", FIRST))
        await ring.start()
        await until(lambda: ring.api.calls.count(("apply", "Service", FIRST)) > 1)
        assert condition(ring, "a", "WorkloadReady")["reason"] == "Loading"
        later(ring)
        await until(lambda: condition(ring, "a", "WorkloadReady").get("reason") == "NotApplied")
        found = condition(ring, "a", "WorkloadReady")
        assert f"apply Service {FIRST}" in found["message"]
        assert condition(ring, "a", "Accepted")["status"] == "True"
        assert condition(ring, "a", "Reconciling")["status"] == "True"
        await until(lambda: "NotApplied" in ring.events())
        ring.api.fails = lambda *call: 0
        await until(lambda: condition(ring, "a", "WorkloadReady").get("reason") == "Loading")


def test_what_the_api_server_fails_at_is_told_when_it_lasts_and_no_longer():
    asyncio.run(told())


async def lost():
    """Lose the lead in the middle of an apply; return what was written then."""
    now, space, api = [0.0], Space(), Api()
    leader = Leader(api, namespace="weir", name="weir", identity="p", clock=lambda: now[0])
    await leader.acquire()
    applier = Applier(api, Cache(), leader=leader, routers=ROUTERS, workloads=WorkloadSettings())
    space.write(vllm("a"), vllm("b"))
    world = space.world()
    wanted = identities(world, space.thinker.compiled(world), {}, now_s=NOW)

    def late(verb, kind, name):
        now[0] += 60 * ((verb, kind) == ("apply", "Service"))
        return 0

    api.calls, api.fails = [], late
    await applier.apply(world, wanted=wanted, packed=Packed(), deadline_ms=1_000)
    return [call for call in api.calls if call[0] != "get"]


def test_who_leads_no_more_writes_no_more():
    written = asyncio.run(lost())
    assert written == [("apply", "ModelRevision", FIRST), ("apply", "Service", FIRST)]


async def fought_over():
    async with operators("r1") as ring:
        await ring.serving()
        name = ("Deployment", SPACE, "weir-router")
        wanted = ring.api.objects[name]["spec"]["replicas"]

        def scale():
            live = copy.deepcopy(ring.api.objects[name])
            live["spec"]["replicas"] = wanted + 7
            live["metadata"]["managedFields"] = [{"manager": "hpa", "time": "2026-01-01T00:00:00Z"}]
            ring.api.write(live)

        def is_back():
            return ring.api.objects[name]["spec"]["replicas"] == wanted

        for _ in range(5):
            scale()
            await until(is_back)
        scale()
        await asyncio.sleep(1.5)
        assert not is_back()
        assert ring.events().count("PutBack") == 1
        ring.applier._contest._clock = lambda: time.monotonic() + 600
        later(ring)
        await until(is_back)
        await until(lambda: ring.events().count("PutBack") == 2)
        notes = [one["note"] for one in ring.api.of("Event") if one["reason"] == "PutBack"]
        assert "spec.replicas changed by hpa, put back" in notes[1]
        assert "5 times since this was last told" in notes[1]


def test_fight_over_an_object_is_put_back_more_slowly_and_told_once():
    asyncio.run(fought_over())


async def deferred():
    gpu = {"accelerator": {"resourceName": "nvidia.com/gpu", "count": 1}}
    token = {"secretKeyRef": {"name": "absent", "key": "token"}}
    async with operators("r1") as ring:
        ring.api.write(vllm("a", **gpu))
        await ring.start()
        key = ("Deployment", SPACE, name_of(vllm("a", **gpu)))
        await until(lambda: key in ring.api.objects)
        set_status(ring, key, readyReplicas=1)
        await until(lambda: condition(ring, "a", "Ready").get("status") == "True")
        before = ring.api.objects[key]["spec"]["template"]
        ring.api.write(vllm("a", huggingFaceToken=token, **gpu))
        await until(lambda: condition(ring, "a", "WorkloadReady").get("reason") == "EditDeferred")
        assert ring.api.objects[key]["spec"]["template"] == before
        assert "env[HF_TOKEN]" in condition(ring, "a", "WorkloadReady")["message"]
        for kind, status in (("Ready", "True"), ("Reconciling", "False"), ("Stalled", "False")):
            assert condition(ring, "a", kind)["status"] == status
        await until(lambda: "EditDeferred" in ring.events())
        set_status(ring, key, readyReplicas=0)
        await until(lambda: ring.api.objects[key]["spec"]["template"] != before)
        await until(lambda: condition(ring, "a", "WorkloadReady").get("reason") == "Loading")


def set_status(ring, key, **status):
    """Write a status as the Deployment controller does."""
    live = copy.deepcopy(ring.api.objects[key])
    ring.api.write({**live, "status": status})


def test_edit_of_a_server_that_answers_waits_is_told_and_goes_in_when_it_ends():
    asyncio.run(deferred())
