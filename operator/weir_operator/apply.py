"""Brings what a namespace should have into the cluster, and takes out what it should not.

Level-triggered: whatever differs from what was thought is applied again, so a hand-edit is put
back. An object of our name that is not ours is never touched, and told of.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from weir_core import reasons
from weir_core.backend_status import BackendSeen, backend_news, backend_status
from weir_core.errors import Problem
from weir_core.resources import title_of, title_of_object
from weir_core.revision_spec import MAX_CONTENT
from weir_core.rollout_state import Transition
from weir_core.wire import Packed
from weir_operator.applied import ROUTER, Applied
from weir_operator.backends import MARK, Identity
from weir_operator.cache import Cache
from weir_operator.drift import added, drifted, hand_edit, without_additions
from weir_operator.fit import fitting, too_large
from weir_operator.gather import World
from weir_operator.kube import FIELD_MANAGER, Kube, KubeError
from weir_operator.objects import BACKEND, foreign, owner_of
from weir_operator.persist import EVIDENCE_PACE_S, Persister, owned_alike, turned, with_status
from weir_operator.revisions import StoredBackend, adopted, backend_revision, stored_backend
from weir_operator.routers import (
    MAX_SNAPSHOT,
    RouterSettings,
    anchor,
    router_objects,
    snapshot_object,
)
from weir_operator.routers import NAME as ANCHOR
from weir_operator.workloads import (
    WorkloadSettings,
    identity_objects,
    template_for,
    workload_problems,
)

Obj = dict[str, Any]

ROUTER_OBJECTS = (
    ("ServiceAccount", "weir-router"),
    ("ConfigMap", "weir-router-snapshot"),
    ("Service", "weir-router"),
    ("Service", "weir-router-pods"),
    ("PodDisruptionBudget", "weir-router"),
    ("Deployment", "weir-router"),
)
IDENTITY_KINDS = ("ModelRevision", "Service", "PodDisruptionBudget", "Deployment")
REFUSALS = (400, 403, 413, 422)
"""Answers that asking again does not change."""
log = logging.getLogger("weir.operator")


class Applier:
    """Applies to one cluster. `authority` is the PEM of the feed's CAs, set from outside."""

    def __init__(
        self,
        kube: Kube,
        cache: Cache,
        *,
        routers: RouterSettings,
        workloads: WorkloadSettings,
    ) -> None:
        self._kube = kube
        self._cache = cache
        self._routers = routers
        self._workloads = workloads
        self._persister = Persister(kube, cache)
        self.authority = ""
        self._told: dict[str, dict[str, tuple[object, float]]] = {}
        self._applied = Applied(cache)

    async def apply(
        self, world: World, *, wanted: Sequence[Identity], packed: Packed, deadline_ms: int
    ) -> dict[str, tuple[Problem, ...]]:
        """Make the namespace as it should be; return problems of backends, by name.

        Raises KubeError at the first refusal: the next walk goes on from there.
        """
        problems: dict[str, tuple[Problem, ...]] = {}
        if world.routes:
            await self._routers_as_wanted(world, packed, deadline_ms)
        for identity in wanted:
            found = await self._identity_as_wanted(world, identity)
            if found:
                name = identity.backend.metadata.name
                problems[name] = (*problems.get(name, ()), *found)
        await self._remove_unwanted(world, {identity.name for identity in wanted})
        return problems

    def forget(self, namespace: str) -> None:
        """Forget a namespace that nothing is left of."""
        self._told.pop(namespace, None)
        self._applied.forget(namespace)

    async def _routers_as_wanted(self, world: World, packed: Packed, deadline_ms: int) -> None:
        """Apply what a namespace's routers are made of, unless nothing changed since."""
        versions = {key: routed.version for key, routed in packed.routes.items()}
        owners = [route["metadata"]["uid"] for route in world.routes.values()]
        asked = versions, dict(packed.limits), owners, deadline_ms, self.authority
        if self._applied.alike(world.namespace, ROUTER, asked, ROUTER_OBJECTS) is None:
            found = await self._apply_routers(world, packed, deadline_ms)
            self._applied.note(world.namespace, ROUTER, asked, ROUTER_OBJECTS, found)

    async def _identity_as_wanted(self, world: World, identity: Identity) -> tuple[Problem, ...]:
        """Apply what an identity is made of, unless nothing changed since; return its problems.

        What the API server refuses is a problem of this backend alone.
        """
        owners = [
            world.routes[name]["metadata"]["uid"]
            for name in identity.routes
            if name in world.routes
        ]
        backend = world.backends.get(identity.backend.metadata.name, {}).get("metadata", {})
        asked = identity, owners, backend.get("uid")
        objects = tuple((kind, identity.name) for kind in IDENTITY_KINDS)
        known = self._applied.alike(world.namespace, identity.name, asked, objects)
        if known is not None:
            return known
        try:
            found = await self._apply_identity(world, identity)
        except KubeError as error:
            if error.status not in REFUSALS:
                raise
            title = title_of(identity.backend)
            found = (replace(_refused(title, error), field="spec.vllm"),)
        except ValueError as error:
            seen = f"what a ModelRevision cannot hold: {error}"[:600]
            wanted = f"at most {MAX_CONTENT:,} characters of spec and rendered pods"
            found = (_too_large(identity, seen, wanted),)
        self._applied.note(world.namespace, identity.name, asked, objects, found)
        return found

    def router_problems(self, world: World) -> tuple[Problem, ...]:
        """Return what a namespace's routers lack, as a problem of each of its routes.

        What is of one route alone is told of that one.
        """
        found = self._applied.problems(world.namespace, ROUTER)
        own = tuple(one for one in found if one.object.startswith("ModelRoute "))
        shared = (one for one in found if one not in own)
        return own + tuple(_of_route(o, one) for one in shared for o in world.routes.values())

    async def _apply_routers(
        self, world: World, packed: Packed, deadline_ms: int
    ) -> tuple[Problem, ...]:
        """Apply a namespace's routers as far as it takes them; return what it does not take."""
        namespace = world.namespace
        owners = [owner_of(route) for route in world.routes.values()]
        try:
            account = await self._ensure(anchor(namespace, owners))
        except KubeError as error:
            if error.status not in REFUSALS:
                raise
            return (_refused(f"ServiceAccount {namespace}/{ANCHOR}", error),)
        if isinstance(account, Problem):
            return (account,)
        owner = owner_of(account)
        most = MAX_SNAPSHOT - len(self.authority.encode())
        data, left_out = await asyncio.to_thread(fitting, packed, most)
        snapshot = snapshot_object(namespace, packed=data, authority=self.authority, owner=owner)
        objects = router_objects(
            namespace, settings=self._routers, owner=owner, deadline_ms=deadline_ms
        )
        problems = [too_large(key, size, most) for key, size in left_out.items()]
        for obj in (snapshot, *objects):
            try:
                made = obj if isinstance(obj, Problem) else await self._ensure(obj, owner.uid)
            except KubeError as error:
                if error.status not in REFUSALS:
                    raise
                made = _refused(title_of_object(obj), error)
            if isinstance(made, Problem):
                problems.append(made)
        return tuple(problems)

    async def _apply_identity(self, world: World, identity: Identity) -> tuple[Problem, ...]:
        backend, namespace = identity.backend, world.namespace
        problems = workload_problems(backend, self._workloads)
        if problems:
            return problems
        known = self._cache.get("ModelRevision", namespace, identity.name)
        known = known or world.revisions.get(identity.name)
        stored = stored_backend(known) if known is not None else None
        template = template_for(
            backend,
            self._cache.get("Deployment", namespace, identity.name),
            identity=identity.name,
            newest=identity.newest,
            settings=self._workloads,
            stored=stored.template if isinstance(stored, StoredBackend) else None,
        )
        revision = await self._ensure_revision(world, identity, template, known)
        if revision is None:
            return ()
        objects = identity_objects(
            backend,
            revision=owner_of(revision),
            settings=self._workloads,
            template=template,
            replicas=identity.replicas,
        )
        title = title_of(backend)
        found = [await self._ensure(obj, revision["metadata"]["uid"]) for obj in objects]
        return tuple(
            replace(one, object=title, seen=f"{one.object}: {one.seen}")
            for one in found
            if isinstance(one, Problem)
        )

    async def _ensure_revision(
        self, world: World, identity: Identity, template: Obj, known: Obj | None
    ) -> Obj | None:
        """Write an identity's ModelRevision, or its owners; None where nobody owns it."""
        routes = [world.routes[name] for name in identity.routes if name in world.routes]
        backend = world.backends.get(identity.backend.metadata.name)
        if known is not None:
            made = adopted(known, [*([backend] if backend else []), *routes])
        elif backend is not None:
            made = backend_revision(
                backend, identity=identity.name, template=template, routes=routes
            )
        else:
            return None
        if identity.mark:
            made["metadata"]["annotations"] = {MARK: identity.mark}
        live = self._cache.get("ModelRevision", world.namespace, identity.name)
        if live is not None and owned_alike(live, made) and _mark_of(live) == identity.mark:
            return live
        done = await self._kube.apply(made)
        self._cache.put(done)
        return done

    async def _ensure(self, obj: Obj, owner_uid: str = "") -> Obj | Problem:
        """Apply an object where the live one differs, unless that is somebody else's."""
        meta = obj["metadata"]
        live = self._cache.get(obj["kind"], meta["namespace"], meta["name"])
        if live is None:
            # Somebody's own object of this name has no label of ours, so the cache has it not.
            live = await self._kube.get(obj["kind"], meta["namespace"], meta["name"])
        if live is not None:
            stranger = foreign({"kind": obj["kind"], **live}, owner_uid)
            if stranger is not None:
                return stranger
            live = {"apiVersion": obj["apiVersion"], "kind": obj["kind"], **live}
            more = obj["kind"] == "Deployment" and bool(added(live, obj))
            if not more and not drifted(live, obj):
                return live
            if more:
                await self._kube.merge(obj, without_additions(obj))
        done = await self._kube.apply(obj)
        self._cache.put(done)
        edit = hand_edit(live, obj, manager=FIELD_MANAGER) if live is not None else None
        if edit is not None:
            await self._tell_edit(done, edit)
        return done

    async def _tell_edit(self, obj: Obj, edit: Transition) -> None:
        """Tell that an object was put back, on it and on the ModelBackend that it is of."""
        log.warning(edit.reason, extra={"why": edit.message})
        await self._persister.tell(obj, (edit,))
        meta = obj["metadata"]
        name = meta["labels"].get(BACKEND, "")
        backend = self._cache.get("ModelBackend", meta["namespace"], name)
        if backend is not None:
            await self._persister.tell(backend, (edit,))

    async def _remove_unwanted(self, world: World, wanted: set[str]) -> None:
        """Delete revisions of backends that nobody asks for; the collector takes what they own."""
        self._applied.keep(world.namespace, wanted)
        uids = {one["metadata"]["uid"] for one in world.backends.values()}
        told = self._told.get(world.namespace, {})
        for uid in told.keys() - uids:
            del told[uid]
        for name, obj in world.revisions.items():
            spec = obj.get("spec") or {}
            if spec.get("kind") != "Backend" or name in wanted:
                continue
            if not obj["metadata"].get("deletionTimestamp"):
                uid = obj["metadata"]["uid"]
                await self._kube.delete("ModelRevision", world.namespace, name, uid)

    async def tell_backend(self, world: World, name: str, seen: BackendSeen, now_s: float) -> None:
        """Write a backend's status where it differs in more than numbers, or now and then."""
        obj = self._cache.get("ModelBackend", world.namespace, name)
        if obj is None:
            return
        told, key = self._told.setdefault(world.namespace, {}), obj["metadata"]["uid"]
        before, before_s = told.get(key, (None, float("-inf")))
        known = seen, obj["metadata"]["resourceVersion"]
        is_due = time.monotonic() - before_s > EVIDENCE_PACE_S
        if before == known and not is_due:
            return
        old = obj.get("status") or {}
        status = backend_status(seen, now_s=now_s, old=old)
        if status == old:
            told[key] = known, time.monotonic()
            return
        if turned(old, status) or is_due:
            self._cache.put(await self._kube.apply(with_status(obj, status), sub="status"))
            told[key] = None, time.monotonic()
            await self._persister.tell(obj, backend_news(old, status))


def _refused(title: str, error: KubeError) -> Problem:
    """Return what the API server does not take as a problem of the object that it is for."""
    ends = "because it is being terminated" in str(error)
    wanted = "pods and services that it takes; it is tried again by itself"
    return Problem(
        object=title,
        field="",
        seen=f"what the API server refuses: {error}"[:600],
        wanted="a namespace that stays: nothing new begins in this one" if ends else wanted,
        reason=reasons.NAMESPACE_ENDS if ends else reasons.REFUSED,
    )


def _of_route(route: Obj, problem: Problem) -> Problem:
    wanted = "that name for Weir's routers: rename or delete the object, or move the routes"
    return replace(
        problem,
        object=title_of_object(route),
        field="",
        seen=f"{problem.object}: {problem.seen}",
        wanted=wanted if problem.reason == reasons.FOREIGN_OBJECT else problem.wanted,
        condition="Programmed",
    )


def _too_large(identity: Identity, seen: str, wanted: str) -> Problem:
    title = title_of(identity.backend)
    return Problem(object=title, field="spec", seen=seen, wanted=wanted, reason="TooLarge")


def _mark_of(revision: Obj) -> str:
    return str((revision["metadata"].get("annotations") or {}).get(MARK, ""))
