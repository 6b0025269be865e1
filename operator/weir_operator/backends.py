"""Which model servers a namespace needs now, how they do, and what that allows a rollout.

An identity is wanted while a backend's spec asks for it or a route's stable or canary revision
calls it, and until every router has heard that none does any more. An older one is kept as its
ModelRevision resolved it, so it can be repaired after the edit. It refuses to know how a pod
looks (`workloads`) and which of them may have their replicas now (`standing`).
"""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from weir_core.backend_status import EDIT_WAITS, BackendSeen, IdentitySeen
from weir_core.compile import Compiled
from weir_core.defaults import DEFAULTS
from weir_core.errors import Problem
from weir_core.history import find
from weir_core.identity import PORT
from weir_core.reach import NOT_READY
from weir_core.resources import ModelBackend, ModelRoute
from weir_core.rollout import RolloutState
from weir_core.snapshot import FULL_BP, Backend, Revision
from weir_operator.gather import World
from weir_operator.memory import RouteMemory
from weir_operator.revisions import StoredBackend, stored_backend
from weir_operator.trouble import loading, trouble

Obj = dict[str, Any]

MARK = "inference.weir.dev/given-up"
"""Annotation of a ModelRevision: why its pods are not tried any more (`standing.Mark`)."""

MAX_IDENTITIES = 3
"""Of one backend; a further edit waits."""


class Capacity(msgspec.Struct, frozen=True):
    """The largest canary weight that ready replicas carry, and what is missing."""

    weight_bp: int = FULL_BP
    message: str = ""


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """One model server that should run: the backend as resolved for it, and who uses it.

    `replicas` None are those of its spec; fewer have a `reason`. `mark` is kept on its
    ModelRevision.
    """

    name: str
    backend: ModelBackend
    newest: bool
    routes: tuple[str, ...]
    replicas: int | None = None
    reason: str = ""
    message: str = ""
    mark: str = ""


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


def unready(world: World, state: RolloutState) -> dict[str, str]:
    """Return the model servers of Weir's that requests may meet and that have no ready pod."""
    return {
        backend.identity: NOT_READY
        for revision in live_revisions(state)
        for backend in called(revision)
        if ours(backend, world.namespace) and not replicas(world, backend.identity)[0]
    }


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


def identities(
    world: World, compiled: Compiled, memories: Mapping[str, RouteMemory]
) -> list[Identity]:
    """Return every model server that should run now."""
    users: dict[str, set[str]] = {}
    for name, memory in memories.items():
        for revision in live_revisions(memory.state):
            for backend in called(revision):
                if ours(backend, world.namespace):
                    users.setdefault(backend.identity, set()).add(name)
    wanted: dict[str, Identity] = {}
    for one in world.read.values():
        if isinstance(one, ModelBackend) and one.spec.vllm is not None:
            name = compiled.identities[f"{world.namespace}/{one.metadata.name}"]
            routes = tuple(sorted(users.pop(name, ())))
            wanted[name] = Identity(name=name, backend=one, newest=True, routes=routes)
    for name, others in users.items():
        older = resolved(world.revisions.get(name))
        if older is not None:
            wanted[name] = _older(world, name, older, tuple(sorted(others)))
    for name in _maybe_chosen(world, memories) - wanted.keys():
        older = resolved(world.revisions.get(name))
        if older is not None and name in world.deployments:
            wanted[name] = _older(world, name, older, ())
    return [wanted[name] for name in sorted(wanted)]


def _older(world: World, name: str, backend: ModelBackend, routes: tuple[str, ...]) -> Identity:
    """Return an identity that no spec asks for: it keeps the replicas that it last had.

    Its ModelRevision knows those of its first day only; an edit must not scale stable down.
    """
    running = _wanted(world, name) if name in world.deployments else 0
    return Identity(
        name=name,
        backend=backend,
        newest=False,
        routes=routes,
        replicas=running if running or not routes else None,
    )


def _maybe_chosen(world: World, memories: Mapping[str, RouteMemory]) -> set[str]:
    """Return identities that a router may still choose, for it obeys an earlier snapshot.

    Of a route that not every router has acknowledged, all that its revisions ever called.
    """
    found = set[str]()
    for name, memory in memories.items():
        if not _heard(world, memory, f"{world.namespace}/{name}"):
            for record in memory.state.records:
                backends = called(record.revision)
                found |= {b.identity for b in backends if ours(b, world.namespace)}
    return found


def _heard(world: World, memory: RouteMemory, key: str) -> bool:
    """Return whether all that may serve a route obey what was published last."""
    asked = world.routers | {one.pod_uid for one in world.connected if one.alive}
    acked = {
        one.pod_uid
        for one in world.connected
        if tuple(one.report.acks.get(key, ())) == memory.version
    }
    return asked <= acked


def asked_replicas(identity: Identity) -> int:
    """Return the replicas that an identity's spec asks for."""
    replicas = identity.backend.spec.replicas
    return DEFAULTS.replicas if replicas is None else replicas


def startup_budget_s(identity: Identity) -> float:
    """Return how long an identity's pods may load."""
    vllm = identity.backend.spec.vllm
    startup = vllm.startup if vllm else None
    return (startup.budget_ms if startup else DEFAULTS.startup_budget_ms) / 1_000


def devices(identity: Identity) -> int:
    """Return how many accelerators an identity has asked for now, over its replicas."""
    vllm = identity.backend.spec.vllm
    accelerator = vllm.accelerator if vllm else None
    wanted = asked_replicas(identity) if identity.replicas is None else identity.replicas
    return (accelerator.count if accelerator else 0) * wanted


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
    own: Iterable[Identity],
    memories: Mapping[str, RouteMemory],
    more: Iterable[Problem] = (),
) -> BackendSeen:
    """Return what the status of a backend tells, from its own identities and users.

    `more` are problems of its workload.
    """
    obj = world.backends[name]
    backend = world.backend(name)
    title = f"ModelBackend {world.namespace}/{name}"
    problems = tuple(p for p in (*world.problems, *compiled.problems, *more) if p.object == title)
    generation = int(obj["metadata"].get("generation", 0))
    identity = compiled.identities.get(f"{world.namespace}/{name}", "")
    stands = _stands(identity, memories)
    external = backend.spec.external if backend is not None else None
    return BackendSeen(
        generation=generation,
        external=external is not None,
        address=external.url if external else f"http://{identity}.{world.namespace}.svc:{PORT}",
        model=backend.spec.model.served_name if backend is not None else "",
        identities=tuple(_identity_seen(world, one) for one in own),
        problems=problems,
        waits=(EDIT_WAITS, world.waits[name]) if name in world.waits else None,
        undecided=stands["undecided"],
        promoted=stands["promoted"],
        rolled_back=stands["rolled_back"],
    )


def _identity_seen(world: World, one: Identity) -> IdentitySeen:
    ready, wanted = replicas(world, one.name)
    if one.reason:
        wanted = asked_replicas(one)
    reason, message, behind = one.reason, one.message, _behind(world, one.name)
    if not reason and (ready < wanted or behind):
        reason, message = trouble(world, one.name)
        if not reason:
            reason, message = loading(world, one.name, budget_s=startup_budget_s(one))
    return IdentitySeen(
        name=one.name,
        newest=one.newest,
        wanted=wanted,
        ready=ready,
        behind=behind,
        reason=reason,
        message=message,
        routes=one.routes,
    )


def _behind(world: World, identity: str) -> int:
    """Return how many replicas still run the pod template from before an edit in place."""
    deployment = world.deployments.get(identity) or {}
    status = deployment.get("status") or {}
    if status.get("observedGeneration") != deployment.get("metadata", {}).get("generation"):
        return 0
    return max(0, int(status.get("replicas") or 0) - int(status.get("updatedReplicas") or 0))


def _stands(identity: str, memories: Mapping[str, RouteMemory]) -> dict[str, tuple[str, ...]]:
    """Return the routes that use a backend by how its newest identity fares in them."""
    found: dict[str, list[str]] = {"undecided": [], "promoted": [], "rolled_back": []}
    for route, memory in memories.items():
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


def versions(identities: Iterable[Identity]) -> dict[str, list[Identity]]:
    """Return identities by backend."""
    found: dict[str, list[Identity]] = {}
    for one in identities:
        found.setdefault(one.backend.metadata.name, []).append(one)
    return found


def users(world: World, memories: Mapping[str, RouteMemory]) -> dict[str, dict[str, RouteMemory]]:
    """Return by backend the routes whose spec names it, with their memories."""
    found: dict[str, dict[str, RouteMemory]] = {}
    for route, memory in memories.items():
        parsed = world.route(route)
        for name in named(parsed) if parsed is not None else ():
            found.setdefault(name, {})[route] = memory
    return found


def named(route: ModelRoute) -> set[str]:
    """Return the backends that a route's spec names for requests."""
    behaviour = route.spec.behaviour
    refs = [tier.backend_ref.name for tier in behaviour.tiers]
    refs += [ref.name for ref in (behaviour.fallback.backend_refs if behaviour.fallback else ())]
    return set(refs)


def longest_ms(memories: Mapping[str, RouteMemory]) -> int:
    """Return the longest deadline of any revision that serves."""
    revisions = (one for memory in memories.values() for one in live_revisions(memory.state))
    return max((one.behaviour.deadline_ms for one in revisions), default=0)
