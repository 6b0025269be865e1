"""Which of the wanted model servers have their replicas now, and why the others have not.

What is stable anywhere always has them. Of the rest, one at a time loads in each accelerator
pool; one that found no room or did not start within its budget is given up until somebody asks
again; one that was rolled back gives its devices back after a while. All of it follows from
what stands in the cluster: a restart changes nothing. Pure.
"""

import datetime
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from weir_core import reasons
from weir_core.canonical import canonical, hex_of
from weir_core.figures import duration, instant
from weir_core.history import find
from weir_operator.backends import (
    MARK,
    Identity,
    asked_replicas,
    called,
    named,
    ours,
    replicas,
    startup_budget_s,
)
from weir_operator.gather import World, ready
from weir_operator.memory import RouteMemory
from weir_operator.workloads import PULL_MARGIN_S

Obj = dict[str, Any]
Memories = Mapping[str, RouteMemory]
Pool = tuple[str, tuple[tuple[str, str], ...]]
"""(resource name, node selector): devices that the same nodes have."""

ROLLED_BACK_GRACE_S = 300.0
"""What a rolled-back identity keeps its replicas for, so that a quick retry loads nothing."""

WAITS_FOR_POOL, STARTUP_FAILED = "WaitsForPool", "StartupFailed"


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """That an identity was given up; written on its ModelRevision, so that it stays so.

    `keep` are the replicas that serve a canary already. `asked` names what people had asked for
    by then: another backend spec, route spec or attempt is a new try.
    """

    reason: str
    message: str
    asked: str
    since: str
    keep: int = 0


def decided(
    world: World, wanted: Sequence[Identity], memories: Memories, *, now_s: float
) -> list[Identity]:
    """Return the wanted identities with the replicas that each may have now, in that order."""
    stable = _stable(world, memories)
    found = [
        one
        if one.name in stable or (not one.routes and not one.newest) or not asked_replicas(one)
        else _tried(world, one, memories, now_s)
        for one in wanted
    ]
    waiting = _waiting(world, [one for one in found if one.name not in stable and not one.reason])
    return [waiting.get(one.name, one) for one in found]


def parked(identities: Iterable[Identity]) -> dict[str, tuple[str, str]]:
    """Return (reason, message) of those that have not the replicas that their spec asks for."""
    return {one.name: (one.reason, one.message) for one in identities if one.reason}


def _tried(world: World, one: Identity, memories: Memories, now_s: float) -> Identity:
    """Return an identity that nothing depends on yet, as far as it may have its replicas."""
    text = _mark_text(world, one.name)
    mark = _read(text)
    if mark is None or mark.asked != _asked(world, one, memories):
        text, mark = "", _given_up(world, one, memories, now_s)
    rolled_back = _rolled_back(world, one, memories, now_s)
    if rolled_back:
        given_up = text or (_text(mark) if mark else "")
        return replace(
            one, replicas=0, reason=reasons.ROLLED_BACK, message=rolled_back, mark=given_up
        )
    if mark is None:
        return one
    keep = min(mark.keep, asked_replicas(one))
    return replace(
        one, replicas=keep, reason=mark.reason, message=mark.message, mark=text or _text(mark)
    )


def _stable(world: World, memories: Memories) -> set[str]:
    found = (find(memory.state.records, memory.state.stable) for memory in memories.values())
    return {
        backend.identity
        for record in found
        if record is not None
        for backend in called(record.revision)
        if ours(backend, world.namespace)
    }


def _asked(world: World, one: Identity, memories: Memories) -> str:
    """Return what names the wishes that an identity is tried for."""
    backend = one.backend.metadata.name
    meta = world.backends.get(backend, {}).get("metadata", {})
    routes = []
    for name, memory in memories.items():
        parsed = world.route(name)
        if name in one.routes or (parsed is not None and backend in named(parsed)):
            about = world.routes[name]["metadata"] if name in world.routes else {}
            uid, generation = about.get("uid", ""), int(about.get("generation", 0))
            routes.append([name, uid, generation, memory.state.attempt])
    return hex_of(canonical([meta.get("uid", ""), meta.get("generation", 0), sorted(routes)]))


# Given up.


def _given_up(world: World, one: Identity, memories: Memories, now_s: float) -> Mark | None:
    answering, running = replicas(world, one.name)
    deployment = world.deployments.get(one.name)
    if deployment is None or not running or answering >= running:
        return None
    why = _overdue(world, one, deployment, now_s)
    if why is None:
        return None
    serves = any(
        memory.state.live and memory.state.weight_bp and name in one.routes
        for name, memory in memories.items()
    )
    keep = answering if serves else 0
    kept = f"{keep} of {running} replicas stay" if keep else "it is scaled to 0"
    message = (
        f"{why[1]}; {kept} until the backend or its route is edited, or the attempt is retried"
    )
    return Mark(
        reason=why[0],
        message=message[:600],
        asked=_asked(world, one, memories),
        since=instant(now_s),
        keep=keep,
    )


def _overdue(world: World, one: Identity, deployment: Obj, now_s: float) -> tuple[str, str] | None:
    """Return (reason, why) of an identity whose pods had their time and are not all ready."""
    budget_s = startup_budget_s(one)
    failed: tuple[str, str] | None = None
    for pod in world.served.get(one.name, ()):
        if ready(pod):
            continue
        lacks = _condition(pod, "PodScheduled")
        if lacks.get("status") == "False":
            if _since(lacks, pod, now_s) > budget_s:
                told = f"no room within {duration(budget_s)}: {lacks.get('message', '')}"
                return reasons.NO_CAPACITY, told[:400].rstrip(" .")
        elif _since(_condition(pod, "Ready"), pod, now_s) > budget_s + PULL_MARGIN_S:
            failed = STARTUP_FAILED, f"not ready within {duration(budget_s)}"
    if failed is None and _deadline_exceeded(deployment):
        unplaced = [_condition(pod, "PodScheduled") for pod in world.served.get(one.name, ())]
        lacks = next((c for c in unplaced if c.get("status") == "False"), {})
        if lacks:
            return reasons.NO_CAPACITY, f"no room: {lacks.get('message', '')}"[:400].rstrip(" .")
        return STARTUP_FAILED, f"not ready within {duration(budget_s)}"
    return failed


def _deadline_exceeded(deployment: Obj) -> bool:
    status = deployment.get("status") or {}
    if status.get("observedGeneration") != deployment["metadata"].get("generation"):
        return False
    found = _condition(deployment, "Progressing")
    return found.get("reason") == "ProgressDeadlineExceeded"


def _condition(obj: Obj, kind: str) -> Mapping[str, Any]:
    found = (obj.get("status") or {}).get("conditions") or ()
    return next((one for one in found if one.get("type") == kind), {})


def _since(condition: Mapping[str, Any], pod: Obj, now_s: float) -> float:
    """Return seconds since a condition turned, since the pod was made where it never did."""
    text = condition.get("lastTransitionTime") or pod["metadata"].get("creationTimestamp")
    try:
        return now_s - datetime.datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return 0.0


def _mark_text(world: World, identity: str) -> str:
    meta = world.revisions.get(identity, {}).get("metadata", {})
    return str((meta.get("annotations") or {}).get(MARK, ""))


def _read(text: str) -> Mark | None:
    try:
        return msgspec.json.decode(text, type=Mark) if text else None
    except msgspec.DecodeError:
        return None


def _text(mark: Mark) -> str:
    return msgspec.json.encode(mark).decode()


# Rolled back.


def _rolled_back(world: World, one: Identity, memories: Memories, now_s: float) -> str:
    """Return why nobody needs an identity that was tried, "" while somebody may."""
    if one.routes:
        return ""
    left = {}
    for name, memory in memories.items():
        state = memory.state
        record = find(state.records, state.canary) if state.stage == "RolledBack" else None
        if record is not None and one.name in {b.identity for b in called(record.revision)}:
            left[name] = state.since_s
    if not left or now_s - max(left.values()) <= ROLLED_BACK_GRACE_S:
        return ""
    routes = ", ".join(sorted(left)[:5])
    return f"rolled back in {routes}, nothing uses it; a retry there brings it back"


# The queue.


def _waiting(world: World, free: Sequence[Identity]) -> dict[str, Identity]:
    """Return those whose turn to load in their pool has not come, by name."""
    pools: dict[Pool, list[Identity]] = {}
    for one in free:
        pool = pool_of(one)
        asked = asked_replicas(one)
        if pool is not None and asked and replicas(world, one.name)[0] < asked:
            pools.setdefault(pool, []).append(one)
    waiting: dict[str, Identity] = {}
    for pool, pending in pools.items():
        # Who has replicas keeps them: a load that is cut off has cost its time for nothing.
        going = [one for one in pending if _has_replicas(world, one.name)]
        first = going or sorted(pending, key=lambda one: _age(world, one))[:1]
        for one in pending:
            if one not in first:
                told = f"{first[0].name} loads on {_pool_text(pool)} first, one at a time"
                waiting[one.name] = replace(one, replicas=0, reason=WAITS_FOR_POOL, message=told)
    return waiting


def pool_of(one: Identity) -> Pool | None:
    """Return the accelerators that an identity asks for, None for none."""
    vllm = one.backend.spec.vllm
    accelerator = vllm.accelerator if vllm else None
    if accelerator is None or not accelerator.count:
        return None
    return accelerator.resource_name, tuple(sorted((accelerator.node_selector or {}).items()))


def _pool_text(pool: Pool) -> str:
    labels = ",".join(f"{key}={value}" for key, value in pool[1])
    return f"{pool[0]} ({labels})" if labels else pool[0]


def _has_replicas(world: World, identity: str) -> bool:
    return identity in world.deployments and replicas(world, identity)[1] > 0


def _age(world: World, one: Identity) -> tuple[bool, str, str]:
    made = world.revisions.get(one.name, {}).get("metadata", {}).get("creationTimestamp", "")
    return not made, made, one.name
