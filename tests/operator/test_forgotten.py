"""Which ModelRevisions of routes stay, and which go at last."""

import asyncio

from msgspec.structs import replace

from support.objects import backend, revision, route
from support.thinking import NOW, SPACE, Space, live
from support.walking import Api, operators, routed, trip_of, until
from weir_core.history import MAX_RECORDS, RevisionRecord
from weir_core.revision_spec import record_status
from weir_core.rollout import RolloutState
from weir_core.snapshot import RolloutPolicy
from weir_core.status import Observed
from weir_operator.cache import Cache
from weir_operator.forgotten import (
    MAX_ORPHANS,
    MAX_ROLLED_BACK,
    ORPHANED_S,
    Orphans,
    forgettable,
)
from weir_operator.memory import labels_of
from weir_operator.persist import Persister
from weir_operator.revisions import route_revision
from weir_operator.think import Thought

ROUTE = live(route())
BODY = revision(backend(), route())


def made(number, outcome="RolledBack", route=ROUTE):
    """Return a ModelRevision whose outcome came about at second `number`."""
    record = RevisionRecord(
        revision=replace(BODY, name=f"assistant-{number:010}"),
        outcome=outcome,
        since_s=NOW + number,
        attempt=1,
        tripped=outcome == "RolledBack",
    )
    obj = route_revision(route, name=record.revision.name, content=record.revision.content)
    obj["metadata"]["labels"] |= labels_of(record)
    return live(obj) | {"status": record_status(record)}


def names(objects):
    return [int(obj["metadata"]["name"][-10:]) for obj in objects]


def test_the_newest_that_were_rolled_back_stay():
    many = [made(n) for n in range(MAX_ROLLED_BACK + 3)]
    assert names(forgettable(many, kept=set())) == [0, 1, 2]


def test_what_a_route_remembers_or_asks_for_stays_however_old_it_is():
    many = [made(n) for n in range(MAX_ROLLED_BACK + 3)]
    kept = {"assistant-0000000001"}
    assert names(forgettable(many, kept=kept)) == [0, 2]


def test_what_gave_way_goes_at_once_and_what_cannot_be_read_stays():
    cut = made(2, "Superseded")
    cut["spec"]["content"] = "{"
    assert names(forgettable([made(1, "Superseded"), cut], kept=set())) == [1]


def world_of(*objects):
    space = Space()
    for obj in objects:
        space.put(obj)
    return space.world()


def test_revisions_of_a_route_that_is_gone_wait_a_day_for_it():
    orphans, world = Orphans(), world_of(made(1), made(2, "Stable"))
    assert orphans.over(world, NOW) == []
    assert orphans.over(world, NOW + ORPHANED_S) == []
    assert names(orphans.over(world, NOW + ORPHANED_S + 1)) == [2, 1]


def test_a_route_that_came_back_keeps_its_revisions():
    orphans, world = Orphans(), world_of(made(1))
    orphans.over(world, NOW)
    assert orphans.over(world_of(made(1), ROUTE), NOW + ORPHANED_S) == []
    assert orphans.over(world, NOW + ORPHANED_S + 1) == []


def test_too_many_without_a_route_go_oldest_first():
    world = world_of(*(made(n) for n in range(MAX_ORPHANS + 2)))
    assert names(Orphans().over(world, NOW)) == [1, 0]


async def asked_for():
    api = Api()
    many = [made(n) for n in range(MAX_ROLLED_BACK + 4)]
    api.write(*many)
    thought = Thought(
        name="assistant",
        base=RolloutState(),
        state=RolloutState(stable="assistant-0000000002", canary="assistant-0000000001"),
        order="same",
        transitions=(),
        policy=None,
        observed=Observed(policy=RolloutPolicy(), target="assistant-0000000000"),
    )
    persister = Persister(api, Cache())
    await persister.forget(world_of(*many, ROUTE), thought)
    assert names(api.of("ModelRevision"))[:4] == [0, 1, 2, 4]


def test_what_the_spec_asks_for_is_not_forgotten():
    """Without it a lost status would let the revision in again."""
    asyncio.run(asked_for())


async def rolled_back_often():
    """The same route is changed for the worse again and again; its status is lost at last."""
    async with operators("r1") as ring:
        await ring.serving()
        most = MAX_RECORDS + MAX_ROLLED_BACK
        for turn in range(most + 3):
            ring.api.write(routed(f"{turn + 31}s"))
            await until(lambda: ring.weight() > 0)
            ring.routers["r1"].trips = (trip_of(ring.told[-1]),)
            ring.wake(SPACE)
            await until(lambda: ring.weight() == 0)
        await until(lambda: ring.condition("RolledBack").get("status") == "True")
        await until(lambda: len(ring.api.of("ModelRevision")) <= most)
        last = ring.api.status()["canary"]["revision"]
        assert ("ModelRevision", SPACE, last) in ring.api.objects
        await ring.kill()
        obj = ring.api.objects["ModelRoute", SPACE, "assistant"]
        ring.api.write({**obj, "status": {}})
        ring.routers["r1"].trips = ()
        await ring.start()
        await until(lambda: ring.condition("RolledBack").get("status") == "True")
        memory = next(iter(ring.walker._namespaces.values())).thinker.memories["assistant"]
        assert len(memory.state.records) == MAX_RECORDS


def test_a_route_that_is_rolled_back_for_ever_fills_neither_cluster_nor_memory():
    asyncio.run(rolled_back_often())


async def deleted_route():
    async with operators("r1") as ring:
        await ring.serving()
        ring.api.drop("ModelRoute", "assistant")
        await asyncio.sleep(0.3)
        assert len(ring.api.of("ModelRevision")) == 1
        await until(lambda: not ring.api.of("ModelRevision"))


def test_revisions_of_a_deleted_route_are_deleted_in_the_end(monkeypatch):
    monkeypatch.setattr("weir_operator.forgotten.ORPHANED_S", 1.0)
    monkeypatch.setattr("weir_operator.walk.IDLE_S", 0.2)
    asyncio.run(deleted_route())
