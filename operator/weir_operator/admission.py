"""Which edit of a backend counts: an edit waits while an earlier one is under way and no place
is left for another model server.

A place is an identity that some route's stable or canary revision calls. An edit waits only for
a canary that is under way: where three are stable, in different routes, nothing would ever come.
Until then routes compile against the newest edit that was let in. Pure.
"""

from collections.abc import Mapping

from msgspec.structs import replace

from weir_core.history import find
from weir_core.identity import identity_of
from weir_core.resources import ModelBackend
from weir_operator.backends import MAX_IDENTITIES, called, live_revisions, ours, resolved
from weir_operator.gather import World
from weir_operator.memory import RouteMemory


def admitted(world: World, memories: Mapping[str, RouteMemory]) -> World:
    """Return the namespace with each backend as it was last let in; `waits` says which wait."""
    waits: dict[str, str] = {}
    parsed = list(world.parsed)
    for place, one in enumerate(parsed):
        if isinstance(one, ModelBackend) and one.spec.vllm is not None:
            before = _before(world, one, memories)
            if before is not None:
                parsed[place] = _as(before, one)
                waits[one.metadata.name] = _why(identity_of(before))
    return replace(world, parsed=tuple(parsed), waits=waits) if waits else world


def _before(
    world: World, backend: ModelBackend, memories: Mapping[str, RouteMemory]
) -> ModelBackend | None:
    """Return the edit that goes on before this one, None where this one may begin."""
    name = backend.metadata.name
    used, stable = set[str](), set[str]()
    for memory in memories.values():
        for revision in live_revisions(memory.state):
            used |= _identities(world, name, called(revision))
        record = find(memory.state.records, memory.state.stable)
        stable |= _identities(world, name, called(record.revision)) if record else set()
    under_way = used - stable
    if len(used) < MAX_IDENTITIES or identity_of(backend) in used or not under_way:
        return None
    latest = max(under_way, key=lambda one: (_made(world, one), one))
    return resolved(world.revisions.get(latest))


def _identities(world: World, name: str, backends: tuple) -> set[str]:  # type: ignore[type-arg]
    return {b.identity for b in backends if b.name == name and ours(b, world.namespace)}


def _as(before: ModelBackend, now: ModelBackend) -> ModelBackend:
    """Return the earlier spec as the object of today: its name, uid and annotations."""
    return now.model_copy(update={"spec": before.spec})


def _made(world: World, identity: str) -> str:
    meta = world.revisions.get(identity, {}).get("metadata", {})
    return str(meta.get("creationTimestamp", ""))


def _why(identity: str) -> str:
    return (
        f"{MAX_IDENTITIES} versions are in use and {identity} is still being tried; this edit "
        "begins when that is promoted or rolled back: promote or abort it to go on at once"
    )
