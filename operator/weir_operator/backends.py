"""Which model servers a namespace needs now, how they do, and what that allows a rollout.

An identity is wanted while a backend's spec asks for it or a route's stable or canary revision
calls it. An older one is kept as its ModelRevision resolved it, so it can be repaired after the
edit. It refuses to know how a pod looks (`workloads`).
"""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from weir_core.backend_status import BackendSeen, IdentitySeen
from weir_core.compile import Compiled
from weir_core.errors import Problem
from weir_core.history import find
from weir_core.identity import PORT, identity_of
from weir_core.resources import ModelBackend
from weir_core.rollout import RolloutState
from weir_core.snapshot import FULL_BP, Backend, Revision
from weir_operator.gather import World
from weir_operator.memory import RouteMemory
from weir_operator.revisions import StoredBackend, stored_backend

Obj = dict[str, Any]

IDENTITY = "inference.weir.dev/identity"
MAX_IDENTITIES = 3
"""Of one backend; a further edit waits."""

BLOCKING = ("ErrImageNeverPull", "ImagePullBackOff", "ErrImagePull", "InvalidImageName")


class Capacity(msgspec.Struct, frozen=True):
    """The largest canary weight that ready replicas carry, and what is missing."""

    weight_bp: int = FULL_BP
    message: str = ""


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """One model server that should run: the backend as resolved for it, and who uses it."""

    name: str
    backend: ModelBackend
    newest: bool
    routes: tuple[str, ...]


def ours(backend: Backend, namespace: str) -> bool:
    """Return whether Weir runs this backend (its address is that of an identity's Service)."""
    return backend.url == f"http://{backend.identity}.{namespace}.svc:{PORT}"


def called(revision: Revision) -> tuple[Backend, ...]:
    """Return every backend that a revision may call."""
    return (*(tier.backend for tier in revision.behaviour.tiers), *revision.behaviour.fallback)


def capacity_of(world: World, state: RolloutState, target: Revision | None) -> Capacity:
    """Return what the target's own model servers carry, against stable's of the same backend."""
    stable = find(state.records, state.stable)
    if target is None or stable is None or target.name == stable.revision.name:
        return Capacity()
    serving = {backend.name: backend.identity for backend in called(stable.revision)}
    least = Capacity()
    for backend in called(target):
        known = serving.get(backend.name)
        if known == backend.identity or not ours(backend, world.namespace):
            continue
        ready, wanted = replicas(world, backend.identity)
        full = max(1, _wanted(world, known) if known else wanted)
        weight_bp = min(FULL_BP, FULL_BP * ready // full)
        if weight_bp < least.weight_bp:
            why = trouble(world, backend.identity)[1]
            told = f"{ready} of {full} replicas of {backend.identity} are ready"
            least = Capacity(weight_bp, f"{told}: {why}" if why else told)
    return least


def replicas(world: World, identity: str) -> tuple[int, int]:
    """Return (ready, wanted) replicas of an identity's Deployment; (0, 1) while there is none."""
    deployment = world.deployments.get(identity)
    if deployment is None:
        return 0, 1
    status = deployment.get("status") or {}
    return int(status.get("readyReplicas") or 0), _wanted(world, identity)


def _wanted(world: World, identity: str) -> int:
    deployment = world.deployments.get(identity)
    spec = (deployment or {}).get("spec") or {}
    return int(spec.get("replicas", 1))


def trouble(world: World, identity: str) -> tuple[str, str]:
    """Return (reason, message) of what keeps an identity's pods from being ready, ("", "")."""
    for pod in world.pods.values():
        if (pod["metadata"].get("labels") or {}).get(IDENTITY) == identity:
            found = _pod_trouble(pod)
            if found[0]:
                return found
    return "", ""


def _pod_trouble(pod: Obj) -> tuple[str, str]:
    status = pod.get("status") or {}
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return "NoCapacity", str(condition.get("message", ""))[:300]
    for container in status.get("containerStatuses") or ():
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
            return str(waiting["reason"]), str(waiting.get("message", waiting["reason"]))[:300]
        ended = (container.get("lastState") or {}).get("terminated") or {}
        if ended and not container.get("ready"):
            return str(ended.get("reason") or "Error"), f"exit code {ended.get('exitCode')}"
    return "", ""


def identities(world: World, memories: Mapping[str, RouteMemory]) -> list[Identity]:
    """Return every model server that should run now."""
    users: dict[str, set[str]] = {}
    for name, memory in memories.items():
        for revision in live_revisions(memory.state):
            for backend in called(revision):
                if ours(backend, world.namespace):
                    users.setdefault(backend.identity, set()).add(name)
    wanted: dict[str, Identity] = {}
    for one in world.parsed:
        if isinstance(one, ModelBackend) and one.spec.vllm is not None:
            name = identity_of(one)
            routes = tuple(sorted(users.pop(name, ())))
            wanted[name] = Identity(name=name, backend=one, newest=True, routes=routes)
    for name, others in users.items():
        older = resolved(world.revisions.get(name))
        if older is not None:
            routes = tuple(sorted(others))
            wanted[name] = Identity(name=name, backend=older, newest=False, routes=routes)
    return [wanted[name] for name in sorted(wanted)]


def devices(identity: Identity) -> int:
    """Return how many accelerators an identity asks for, over its replicas."""
    spec = identity.backend.spec
    accelerator = spec.vllm.accelerator if spec.vllm else None
    return (accelerator.count if accelerator else 0) * (
        1 if spec.replicas is None else spec.replicas
    )


def live_revisions(state: RolloutState) -> Iterable[Revision]:
    """Return the revisions that a route's requests may meet."""
    names = [state.stable, *([state.canary] if state.live else [])]
    found = (find(state.records, name) for name in names if name)
    return [record.revision for record in found if record is not None]


def resolved(obj: Obj | None) -> ModelBackend | None:
    """Return the backend that a ModelRevision was made of, None for one that is of none."""
    stored = stored_backend(obj) if obj is not None else None
    return stored.backend if isinstance(stored, StoredBackend) else None


def seen_of(
    world: World,
    compiled: Compiled,
    name: str,
    wanted: Iterable[Identity],
    memories: Mapping[str, RouteMemory],
    more: Iterable[Problem] = (),
) -> BackendSeen:
    """Return what the status of a backend tells; `more` are problems of its workload."""
    obj = world.backends[name]
    backend = world.backend(name)
    title = f"ModelBackend {world.namespace}/{name}"
    problems = tuple(p for p in (*world.problems, *compiled.problems, *more) if p.object == title)
    generation = int(obj["metadata"].get("generation", 0))
    own = [one for one in wanted if one.backend.metadata.name == name]
    identity = identity_of(backend) if backend is not None else ""
    stands = _stands(world, identity, name, memories)
    external = backend.spec.external if backend is not None else None
    return BackendSeen(
        generation=generation,
        external=external is not None,
        address=external.url if external else f"http://{identity}.{world.namespace}.svc:{PORT}",
        model=backend.spec.model.served_name if backend is not None else "",
        identities=tuple(_identity_seen(world, one) for one in own),
        problems=problems,
        undecided=stands["undecided"],
        promoted=stands["promoted"],
        rolled_back=stands["rolled_back"],
    )


def _identity_seen(world: World, one: Identity) -> IdentitySeen:
    ready, wanted = replicas(world, one.name)
    reason, message = trouble(world, one.name) if ready < wanted else ("", "")
    return IdentitySeen(
        name=one.name,
        newest=one.newest,
        wanted=wanted,
        ready=ready,
        reason=reason,
        message=message,
        routes=one.routes,
    )


def _stands(
    world: World, identity: str, name: str, memories: Mapping[str, RouteMemory]
) -> dict[str, tuple[str, ...]]:
    """Return the routes that use a backend by how its newest identity fares in them."""
    found: dict[str, list[str]] = {"undecided": [], "promoted": [], "rolled_back": []}
    for route, memory in memories.items():
        parsed = world.route(route)
        if parsed is None or name not in _named(parsed):
            continue
        state = memory.state
        stable = find(state.records, state.stable)
        serves = stable is not None and identity in {b.identity for b in called(stable.revision)}
        if state.stage == "Idle" and serves:
            found["promoted"].append(route)
        elif state.stage in ("RolledBack", "Refused") and not serves:
            found["rolled_back"].append(route)
        else:
            found["promoted" if serves else "undecided"].append(route)
    return {kind: tuple(sorted(routes)) for kind, routes in found.items()}


def _named(route: Any) -> set[str]:
    behaviour = route.spec.behaviour
    refs = [tier.backend_ref.name for tier in behaviour.tiers]
    refs += [ref.name for ref in (behaviour.fallback.backend_refs if behaviour.fallback else ())]
    return set(refs)
