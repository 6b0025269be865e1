"""Brings what a namespace should have into the cluster, and takes out what it should not.

Level-triggered: whatever differs from what was thought is applied again, so a hand-edit is put
back. An object of our name that is not ours is never touched, and told of.
"""

import logging
import time
from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from weir_core.backend_status import BackendSeen, backend_news, backend_status
from weir_core.errors import Problem
from weir_core.resources import title_of
from weir_core.wire import Packed, pack
from weir_operator.applied import ROUTER, Applied
from weir_operator.backends import MARK, Identity
from weir_operator.cache import Cache
from weir_operator.drift import drifted
from weir_operator.gather import World
from weir_operator.kube import Kube, KubeError
from weir_operator.objects import foreign, owner_of
from weir_operator.persist import EVIDENCE_PACE_S, Persister, owned_alike, turned, with_status
from weir_operator.revisions import StoredBackend, adopted, backend_revision, stored_backend
from weir_operator.routers import RouterSettings, anchor, router_objects, snapshot_object
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
        self._told: dict[str, tuple[object, float]] = {}
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

    async def _routers_as_wanted(self, world: World, packed: Packed, deadline_ms: int) -> None:
        """Apply what a namespace's routers are made of, unless nothing changed since."""
        versions = {key: routed.version for key, routed in packed.routes.items()}
        owners = [route["metadata"]["uid"] for route in world.routes.values()]
        asked = versions, dict(packed.limits), owners, deadline_ms, self.authority
        if self._applied.alike(world.namespace, ROUTER, asked, ROUTER_OBJECTS) is None:
            await self._apply_routers(world, packed, deadline_ms)
            self._applied.note(world.namespace, ROUTER, asked, ROUTER_OBJECTS, ())

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
            found = (_refused(identity, error),)
        self._applied.note(world.namespace, identity.name, asked, objects, found)
        return found

    async def _apply_routers(self, world: World, packed: Packed, deadline_ms: int) -> None:
        namespace = world.namespace
        owners = [owner_of(route) for route in world.routes.values()]
        account = await self._ensure(anchor(namespace, owners))
        if isinstance(account, Problem):
            log.warning("router not made", extra={"problem": account.sentence()})
            return
        owner = owner_of(account)
        snapshot = snapshot_object(
            namespace, packed=pack(packed), authority=self.authority, owner=owner
        )
        objects = router_objects(
            namespace, settings=self._routers, owner=owner, deadline_ms=deadline_ms
        )
        for obj in (snapshot, *objects):
            try:
                made = obj if isinstance(obj, Problem) else await self._ensure(obj, owner.uid)
            except KubeError as error:
                if error.status not in REFUSALS:
                    raise
                log.warning("router object refused", extra={"error": str(error)[:500]})
                continue
            if isinstance(made, Problem):
                log.warning("router object not made", extra={"problem": made.sentence()})

    async def _apply_identity(self, world: World, identity: Identity) -> tuple[Problem, ...]:
        backend, namespace = identity.backend, world.namespace
        problems = workload_problems(backend, self._workloads)
        if problems:
            return problems
        known = self._cache.get("ModelRevision", namespace, identity.name)
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
        if known is not None and owned_alike(known, made) and _mark_of(known) == identity.mark:
            return known
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
            if not drifted(live, obj):
                return {"apiVersion": obj["apiVersion"], "kind": obj["kind"], **live}
        done = await self._kube.apply(obj)
        self._cache.put(done)
        return done

    async def _remove_unwanted(self, world: World, wanted: set[str]) -> None:
        """Delete revisions of backends that nobody asks for; the collector takes what they own."""
        self._applied.keep(world.namespace, wanted)
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
        key = obj["metadata"]["uid"]
        before, before_s = self._told.get(key, (None, float("-inf")))
        known = seen, obj["metadata"]["resourceVersion"]
        is_due = time.monotonic() - before_s > EVIDENCE_PACE_S
        if before == known and not is_due:
            return
        old = obj.get("status") or {}
        status = backend_status(seen, now_s=now_s, old=old)
        if status == old:
            self._told[key] = known, time.monotonic()
            return
        if turned(old, status) or is_due:
            self._cache.put(await self._kube.apply(with_status(obj, status), sub="status"))
            self._told[key] = None, time.monotonic()
            await self._persister.tell(obj, backend_news(old, status))


def _refused(identity: Identity, error: KubeError) -> Problem:
    return Problem(
        object=title_of(identity.backend),
        field="spec.vllm",
        seen=f"what the API server refuses: {error}"[:600],
        wanted="pods that it takes",
        reason="Refused",
    )


def _mark_of(revision: Obj) -> str:
    return str((revision["metadata"].get("annotations") or {}).get(MARK, ""))
