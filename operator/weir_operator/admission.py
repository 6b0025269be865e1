"""Which edit of a backend counts: an edit waits while an earlier one is under way and no place
is left for another model server.

A place is an identity that some route's stable or canary revision calls. An edit waits only for
a canary that is under way: where three are stable, in different routes, nothing would ever come.
Until then routes compile against the newest edit that was let in. Pure.
"""

from collections.abc import Mapping

from msgspec.structs import replace

from weir_core.identity import identity_of
from weir_core.resources import ModelBackend
from weir_operator.backends import MAX_IDENTITIES, called, live_revisions, ours, resolved
from weir_operator.gather import World
from weir_operator.memory import RouteMemory


def admitted(world: World, memories: Mapping[str, RouteMemory]) -> World:
    """Return the namespace with each backend as it was last let in; `waits` says which wait."""
    waits: dict[str, str] = {}
    read = dict(world.read)
    for name, (used, stable) in _in_use(world, memories).items():
        one = world.backend(name)
        if one is None or one.spec.vllm is None or len(used) < MAX_IDENTITIES:
            continue
        under_way = used - stable
        if not under_way or identity_of(one) in used:
            continue
        latest = max(under_way, key=lambda identity: (_made(world, identity), identity))
        before = resolved(world.revisions.get(latest))
        if before is not None:
            read["ModelBackend", name] = _as(before, one)
            waits[name] = _why(latest)
    return replace(world, read=read, waits=waits) if waits else world


def _in_use(
    world: World, memories: Mapping[str, RouteMemory]
) -> dict[str, tuple[set[str], set[str]]]:
    """Return by backend the identities that routes use, and those that are stable in one."""
    found: dict[str, tuple[set[str], set[str]]] = {}
    for memory in memories.values():
        for revision in live_revisions(memory.state):
            for backend in called(revision):
                if ours(backend, world.namespace):
                    used, stable = found.setdefault(backend.name, (set(), set()))
                    used.add(backend.identity)
                    if revision.name == memory.state.stable:
                        stable.add(backend.identity)
    return found


def _as(before: ModelBackend, now: ModelBackend) -> ModelBackend:
    """Return the earlier spec in the object of today, with what sizes it taken from today."""
    today = {"replicas": now.spec.replicas, "limits": now.spec.limits}
    return now.model_copy(update={"spec": before.spec.model_copy(update=today)})


def _made(world: World, identity: str) -> str:
    meta = world.revisions.get(identity, {}).get("metadata", {})
    return str(meta.get("creationTimestamp", ""))


def _why(identity: str) -> str:
    return (
        f"{MAX_IDENTITIES} versions are in use and {identity} is still being tried; this edit "
        "begins when that is promoted or rolled back: promote or abort it to go on at once"
    )
