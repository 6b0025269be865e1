"""What is too large to be stored is a problem of its own route alone."""

import asyncio
import random
import string

from msgspec.structs import replace

from support.objects import backend, route, vllm
from support.routes import policy, revision
from support.walking import SPACE, operators, until
from weir_core.wire import Packed, Routed, pack, unpack
from weir_operator.fit import fitting, too_large
from weir_operator.routers import MAX_SNAPSHOT

PROMPT = 32_768
TIERS = 8


def noise(seed):
    """Return a prompt that does not pack well."""
    letters = string.ascii_letters + string.digits
    return "".join(random.Random(seed).choices(letters, k=PROMPT))


def large(name, prompt):
    """Return a route of many tiers with long prompts, `prompt` giving each."""
    tiers = [
        {"name": f"t{n}", "backendRef": {"name": "small"}, "systemPrompt": prompt(n)}
        for n in range(TIERS)
    ]
    return route(name, tiers=tiers)


def packed(**sizes):
    """Return a snapshot of routes by name with prompts of so many characters."""
    routes = {}
    for name, size in sizes.items():
        text = "".join(random.Random(name).choices(string.printable, k=size))
        made = policy(name=name, stable=replace(revision(name), content=text))
        routes[f"llm/{name}"] = Routed(version=(1, 1), policy=made)
    return Packed(routes=routes)


def test_a_snapshot_that_fits_is_packed_whole():
    small = packed(a=100, b=200)
    assert fitting(small, 100_000) == (pack(small), {})


def test_the_largest_routes_are_left_out():
    data, left_out = fitting(packed(a=100, b=30_000, c=9_000, d=100), 5_000)
    assert len(data) <= 5_000
    assert set(unpack(data).routes) == {"llm/a", "llm/d"}
    assert set(left_out) == {"llm/b", "llm/c"}
    assert left_out["llm/b"] > left_out["llm/c"] > 5_000


def test_a_route_that_is_left_out_is_told_its_size_and_the_limit():
    told = too_large("llm/a", 2_000_000, MAX_SNAPSHOT).sentence()
    assert "2,000,000" in told
    assert f"{MAX_SNAPSHOT:,}" in told


async def too_large_for_one_map():
    async with operators("r1") as ring:
        names = [f"noise-{n}" for n in range(6)]
        for n, name in enumerate(names):
            ring.api.write(large(name, lambda tier, n=n: noise((n, tier).__hash__())))
        await ring.serving()
        await until(lambda: all(ring.api.status(name).get("conditions") for name in names))
        await until(lambda: [n for n in names if reason(ring, n) == "SnapshotTooLarge"], 20)
        out = [name for name in names if reason(ring, name) == "SnapshotTooLarge"]
        assert 0 < len(out) < len(names)
        assert ring.condition("Programmed")["status"] == "True"
        assert {policy.name for policy in ring.routers["r1"].orders.policies} >= set(names)
        assert ("ConfigMap", SPACE, "weir-router-snapshot") in ring.api.objects


def reason(ring, name):
    return ring.condition("Programmed", name).get("reason")


def test_a_namespace_too_large_for_its_snapshot_serves_on():
    asyncio.run(too_large_for_one_map())


async def too_large_for_a_revision():
    async with operators("r1") as ring:
        ring.api.write(large("huge", lambda tier: '"' * PROMPT))
        await ring.serving()
        await ring.canary()
        await until(lambda: ring.condition("Accepted", "huge").get("status") == "False")
        told = ring.condition("Accepted", "huge")
        assert told["reason"] == "TooLarge"
        assert "1,048,576" in told["message"]
        tries = len(ring.api.calls)
        await asyncio.sleep(0.5)
        assert len([c for c in ring.api.calls[tries:] if "huge" in c[2]]) <= 1


def test_a_revision_that_no_object_can_hold_is_a_problem_of_its_route():
    asyncio.run(too_large_for_a_revision())


async def pods_too_large():
    async with operators("r1") as ring:
        made = vllm("huge")
        notes = {f"note-{n}": "x" * 60_000 for n in range(40)}
        made["spec"]["vllm"]["podTemplate"] = {"metadata": {"annotations": notes}}
        ring.api.write(made, backend())
        await ring.serving()
        await ring.canary()

        def told():
            obj = ring.api.objects["ModelBackend", SPACE, "huge"]
            conditions = (obj.get("status") or {}).get("conditions") or ()
            return [one for one in conditions if one["reason"] == "TooLarge"]

        await until(told)


def test_pods_that_no_object_can_hold_are_a_problem_of_their_backend():
    asyncio.run(pods_too_large())
