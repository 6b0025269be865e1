"""An API server that refuses revisions, or is slow at others: what is told, and how soon."""

import asyncio
import contextlib
import time

import pytest

from support.objects import backend, route, vllm
from support.virtual import run
from support.walking import operators, routed, trip_of, until
from weir_operator.kube import KubeError

ENDING = "NamespaceTerminating"
ENDS = "unable to create new content in namespace default because it is being terminated"


@contextlib.asynccontextmanager
async def leading(*routers):
    """Give a ring whose operator, the present one, renews its lease."""
    async with operators(*routers) as ring:

        async def keep():
            while True:
                await asyncio.sleep(3)
                if ring.walker is not None:
                    await ring.leader._try()

        keeping = asyncio.create_task(keep())
        yield ring
        keeping.cancel()


def no_revision(status):
    return lambda verb, kind, name: status * (kind == "ModelRevision" and verb != "get")


async def first_refused(status):
    async with leading("r1") as ring:
        ring.api.fails = no_revision(status)
        ring.api.write(backend(), routed("30s"))
        await ring.start()
        await until(lambda: ring.condition("Programmed").get("reason") == "Refused", 30)
        assert (
            "wanted ModelRevisions and a status that it takes"
            in ring.condition("Programmed")["message"]
        )
        assert ring.condition("Stalled")["status"] == "True"
        assert ring.condition("Ready")["status"] == "False"
        assert ring.events().count("Refused") == 1
        await asyncio.sleep(60)
        assert ring.events().count("Refused") == 1
        assert ring.routers["r1"].policy is None
        ring.api.fails = lambda *call: 0
        await until(lambda: ring.condition("Programmed").get("status") == "True", 30)
        assert ring.condition("Stalled")["status"] == "False"


@pytest.mark.parametrize("status", [403, 422])
def test_a_route_whose_revision_is_refused_says_so(status, monkeypatch):
    run(first_refused(status), monkeypatch)


async def ending():
    """The API server makes nothing new there, not even Events; what stands may change."""
    async with leading("r1") as ring:
        await ring.serving()
        called = ring.api._called

        async def ends(verb, kind, name):
            await called(verb, kind, name)
            if verb == "create":
                raise KubeError(403, f"{kind} {name} is forbidden: {ENDS}")

        ring.api._called = ends
        ring.api.write(routed("20s"))
        await until(lambda: ring.condition("Programmed").get("reason") == ENDING, 30)
        assert "wanted a namespace that stays" in ring.condition("Programmed")["message"]
        assert ring.condition("Ready")["status"] == "True"


def test_an_edit_in_a_namespace_that_is_being_deleted_is_told_so(monkeypatch):
    run(ending(), monkeypatch)


async def edit_refused():
    async with leading("r1") as ring:
        await ring.serving()
        serves = ring.routers["r1"].policy.stable.name
        ring.api.fails = no_revision(403)
        ring.api.write(routed("20s"))
        await until(lambda: ring.condition("Programmed").get("reason") == "Refused", 30)
        assert ring.condition("Ready")["status"] == "True"
        assert ring.condition("Promoted")["status"] == "False"
        assert ring.api.status()["observedGeneration"] == 2
        assert ring.weight() == 0
        await ring.kill()
        await ring.start()
        await asyncio.sleep(30)
        assert (ring.routers["r1"].policy.stable.name, ring.weight()) == (serves, 0)
        ring.api.fails = lambda *call: 0
        await until(lambda: ring.weight() == 500, 60)


def test_an_edit_whose_revision_is_refused_says_so_and_waits(monkeypatch):
    run(edit_refused(), monkeypatch)


async def rollback_refused():
    async with leading("r1") as ring:
        await ring.serving()
        before = await ring.canary()
        ring.api.fails = no_revision(403)
        ring.routers["r1"].trips = (trip_of(before),)
        ring.wake("default")
        await until(lambda: ring.weight() == 0, 5)
        await until(lambda: ring.condition("RolledBack").get("status") == "True", 5)
        await until(lambda: ring.events().count("RolledBack") == 1, 5)
        ring.api.fails = lambda *call: 0
        await asyncio.sleep(30)
        assert ring.events().count("RolledBack") == 1
        labels = [one["metadata"]["labels"] for one in ring.api.of("ModelRevision")]
        assert "RolledBack" in [one.get("inference.weir.dev/outcome") for one in labels]


def test_a_rollback_is_told_though_its_revision_is_refused(monkeypatch):
    run(rollback_refused(), monkeypatch)


SLOW_S, MANY = 10.0, 10


async def slow_others():
    """Somebody's webhook hangs at every Deployment of a model server, and then fails."""
    async with leading("r1") as ring:
        await ring.serving()
        before = await ring.canary()
        called = ring.api._called

        async def slow(verb, kind, name):
            if kind == "Deployment" and verb == "apply" and name != "weir-router":
                ring.api.calls.append((verb, kind, name))
                await asyncio.sleep(SLOW_S)
                raise KubeError(500, "failed calling webhook: context deadline exceeded")
            await called(verb, kind, name)

        ring.api._called = slow
        for number in range(MANY):
            made = route(f"r{number}", models=[f"r{number}"])
            made["spec"]["behaviour"]["tiers"][0]["backendRef"]["name"] = f"v{number}"
            ring.api.write(vllm(f"v{number}"), made)
        await asyncio.sleep(3 * SLOW_S)
        ring.routers["r1"].trips = (trip_of(before),)
        tripped_s = time.monotonic()
        ring.wake("default")
        await until(lambda: ring.weight() == 0, 5)
        await until(lambda: ring.condition("RolledBack").get("status") == "True", 200)
        assert time.monotonic() - tripped_s < 2 * SLOW_S
        await asyncio.sleep(3 * MANY * SLOW_S)
        tried = {name for verb, kind, name in ring.api.calls if kind == "Deployment"}
        assert len(tried - {"weir-router"}) == MANY, "each has its turn"


def test_others_that_are_slow_to_apply_hold_up_no_save_by_more_than_one_of_them(monkeypatch):
    run(slow_others(), monkeypatch)
