"""Which model servers a namespace needs now, how they do, and what that allows a rollout.

An identity is wanted while a backend's spec asks for it or a route's stable or canary revision
calls it, and until every router has heard that none does any more; a sidecar that will not hear
is waited for a while only. An older one is kept as its ModelRevision resolved it, so it can be
repaired after the edit. It refuses to know how a pod
looks (`workloads`) and which of them may have their replicas now (`standing`).
"""

from collections.abc import Iterable, Mapping, Set
from typing import Any

import msgspec

from weir_core import reasons
from weir_core.backend_status import EDIT_WAITS, BackendSeen, IdentitySeen
from weir_core.compile import Compiled
from weir_core.defaults import DEFAULTS
from weir_core.errors import Problem
from weir_core.history import find
from weir_core.identity import PORT
from weir_core.reach import LOADING, NOT_READY, PENDING
from weir_core.resources import ModelBackend, ModelRoute
from weir_core.rollout import RolloutState, Transition
from weir_core.snapshot import FULL_BP, Backend, Revision
from weir_operator.gather import World
from weir_operator.memory import NEVER, RouteMemory
from weir_operator.revisions import StoredBackend, stored_backend
from weir_operator.trouble import UNSCHEDULABLE, load_s, loading, trouble, was_ready

Obj = dict[str, Any]

MARK = "inference.weir.dev/given-up"
"""Annotation of a ModelRevision: why its pods are not tried any more (`standing.Mark`)."""

MAX_IDENTITIES = 3
"""Of one backend; a further edit waits."""

MAX_TOLD = 5
"""Pods named in one Event."""

LEFT_BEHIND_S = 300.0
"""Beside the longest deadline: for how long a sidecar that does not take what is published keeps
what it may still call. Routers of the Deployment keep it for as long as they run."""


class Capacity(msgspec.Struct, frozen=True):
    """The largest canary weight that ready replicas carry, and what is missing.

    `loads`: nothing is wrong with what is, it will come.
    """

    weight_bp: int = FULL_BP
    message: str = ""
    loads: bool = False


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
            least = Capacity(weight_bp, f"{told}: {why or LOADING}", loads=not why)
    return least


def unready(world: World, state: RolloutState) -> dict[str, str]:
    """Return the model servers of Weir's that requests may meet and that have no ready pod.

    Why is what their pods suffer from; one that waits for a node begins by itself.
    """
    return {
        backend.identity: _silence(world, backend.identity)
        for revision in live_revisions(state)
        for backend in called(revision)
        if ours(backend, world.namespace) and not replicas(world, backend.identity)[0]
    }


def _silence(world: World, identity: str) -> str:
    reason, _ = trouble(world, identity)
    if reason not in ("", UNSCHEDULABLE):
        return reason
    if any(was_ready(pod) for pod in world.served.get(identity, ())):
        return NOT_READY
    return PENDING if reason else LOADING


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
    world: World, compiled: Compiled, memories: Mapping[str, RouteMemory], *, now_s: float
) -> list[Identity]:
    """Return every model server that should run now.

    Memories note since when sidecars lag, and that it is to be told what goes for one.
    """
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
    running = world.deployments.keys() - wanted.keys()
    for name in _maybe_chosen(world, memories, running, now_s=now_s):
        older = resolved(world.revisions.get(name))
        if older is not None:
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


def _maybe_chosen(
    world: World, memories: Mapping[str, RouteMemory], running: Set[str], *, now_s: float
) -> set[str]:
    """Return those of `running` that a router may still choose, for it obeys an earlier snapshot.

    Of a route that not every router has acknowledged, all that its revisions ever called.
    """
    patience_s = LEFT_BEHIND_S + longest_ms(memories) / 1_000
    found, unheard = set[str](), dict[str, set[str]]()
    for name, memory in memories.items():
        late = _late(world, memory, f"{world.namespace}/{name}", now_s)
        records = memory.state.records if late else ()
        ever = {b.identity for r in records for b in called(r.revision)} & running
        if late and all(now_s - since_s > patience_s for since_s in late.values()):
            unheard[name] = ever
        else:
            found |= ever
    for name, ever in unheard.items():
        _let_go(world, memories[name], name, ever - found)
    return found


def _late(world: World, memory: RouteMemory, key: str, now_s: float) -> dict[str, float]:
    """Return what may serve a route and does not obey what was published last, by pod uid.

    With since when, of a sidecar whose last acknowledged version has not moved; of all others now.
    """
    at = {one.pod_uid: tuple(one.report.acks.get(key, ())) for one in world.connected}
    alive = {one.pod_uid: one for one in world.connected if one.alive}
    late = {uid for uid in world.routers | alive.keys() if at.get(uid) != memory.version}
    told = memory.version != NEVER
    sidecars = {uid for uid in late if told and uid in alive and alive[uid].sidecar}
    before = memory.lagging
    memory.lagging = {
        uid: before[uid] if uid in before and before[uid][0] == at[uid] else (at[uid], now_s)
        for uid in sidecars
    }
    return {uid: memory.lagging[uid][1] if uid in sidecars else now_s for uid in late}


def _let_go(world: World, memory: RouteMemory, route: str, names: Set[str]) -> None:
    """Have it told, once, that model servers go although a sidecar may still call them."""
    if not names - memory.let_go:
        return
    memory.let_go |= names
    late = [one for one in world.connected if one.pod_uid in memory.lagging]
    nacks = (one.report.nacks.get(f"{world.namespace}/{route}") for one in late)
    why = next((f" (refused: {nack.reason[:200]})" for nack in nacks if nack is not None), "")
    pods = ", ".join(sorted(one.pod_name for one in late)[:MAX_TOLD])
    told = (
        f"{len(late)} sidecars do not take the route as it is now, {pods}{why}; they may still "
        f"call {', '.join(sorted(names))}, kept for them until now: make those pods anew"
    )
    memory.untold += (Transition(reason=reasons.SIDECARS_LEFT, message=told, warning=True),)


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
    if one.newest or one.reason:
        # Its Deployment may not have heard yet, as after a retry of what was given up.
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
        load_s=load_s(world, one.name, budget_s=startup_budget_s(one)),
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
