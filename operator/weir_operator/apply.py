"""Brings what a namespace should have into the cluster, and takes out what it should not.

Level-triggered: whatever differs from what was thought is applied again, so a hand-edit is put
back. An object of our name that is not ours is never touched, and told of. What the API server
fails at harms only the model server or the routers that it is of.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from msgspec.structs import replace

from weir_core.errors import Problem
from weir_core.resources import title_of, title_of_object
from weir_core.rollout_state import Transition
from weir_core.wire import Packed, Version
from weir_operator.applied import ROUTER, Applied, Objects
from weir_operator.backends import MARK, Identity
from weir_operator.cache import Cache
from weir_operator.contest import Contest
from weir_operator.drift import added, drifted, hand_edit, without_additions
from weir_operator.fit import fitting, too_large
from weir_operator.gather import World
from weir_operator.in_place import answers, deferral, rendering_for
from weir_operator.kube import FIELD_MANAGER, Kube, KubeError
from weir_operator.leader import Leader
from weir_operator.objects import BACKEND, foreign, owner_of
from weir_operator.persist import Persister, owned_alike
from weir_operator.revisions import StoredBackend, adopted, backend_revision, stored_backend
from weir_operator.routers import (
    MAX_SNAPSHOT,
    RouterSettings,
    anchor,
    router_objects,
    snapshot_object,
)
from weir_operator.routers import NAME as ANCHOR
from weir_operator.unapplied import REFUSALS, content_too_large, failing, of_route, refused
from weir_operator.workloads import WorkloadSettings, identity_objects, workload_problems

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
LONG_S = 1.0
"""What parts may take together while something waits to be saved."""
log = logging.getLogger("weir.operator")


class Applier:
    """Applies to one cluster while `leader` leads, and writes nothing otherwise.

    `authority` is the PEM of the feed's CAs, set from outside.
    """

    def __init__(
        self,
        kube: Kube,
        cache: Cache,
        *,
        leader: Leader,
        routers: RouterSettings,
        workloads: WorkloadSettings,
    ) -> None:
        self._kube = kube
        self._cache = cache
        self._leader = leader
        self._routers = routers
        self._workloads = workloads
        self._persister = Persister(kube, cache)
        self.authority = ""
        self._applied = Applied(cache)
        self._contest = Contest()
        self._stored: dict[str, dict[str, Version]] = {}
        self._turns: dict[str, str] = {}

    async def apply(
        self,
        world: World,
        *,
        wanted: Sequence[Identity],
        packed: Packed,
        deadline_ms: int,
        hurried: Callable[[], bool] = lambda: False,
    ) -> tuple[dict[str, tuple[Problem, ...]], float | None]:
        """Make the namespace as it should be, each part whatever becomes of the others.

        Returns problems of backends, by name, and in how many seconds to go on with what failed
        or was left, None where nothing was. Only what fails for a while is a problem. An API
        server that is slow gets no more than a part at a time while somebody is `hurried`.
        """
        namespace = world.namespace
        problems: dict[str, tuple[Problem, ...]] = {}
        again: list[float | None] = []
        if world.routes:
            doing = self._routers_as_wanted(world, packed, deadline_ms)
            title = f"Deployment {namespace}/{ANCHOR}"
            again.append(await self._tried(namespace, ROUTER, title, doing))
        began_s = time.monotonic()
        for identity in self._in_turn(namespace, wanted):
            if time.monotonic() - began_s > LONG_S and hurried():
                self._turns[namespace] = identity.name
                again.append(0.0)
                break
            title, doing = title_of(identity.backend), self._identity_as_wanted(world, identity)
            again.append(await self._tried(namespace, identity.name, title, doing))
        for identity in wanted:
            name = identity.backend.metadata.name
            found = self._applied.problems(namespace, identity.name)
            problems[name] = (*problems.get(name, ()), *found)
        unwanted = self._unwanted(world, {identity.name for identity in wanted})
        if world.routes and self._stored.get(namespace) != _versions(packed):
            # Routers that begin now are told by an older snapshot, which may still name these.
            unwanted = []
        for revision in unwanted:
            name, of = revision["metadata"]["name"], revision["spec"]["of"]["name"]
            title, doing = f"ModelBackend {namespace}/{of}", self._remove(revision)
            again.append(await self._tried(namespace, name, title, doing))
            problems[of] = (*problems.get(of, ()), *self._applied.problems(namespace, name))
        return problems, min((pause_s for pause_s in again if pause_s is not None), default=None)

    def _in_turn(self, namespace: str, wanted: Sequence[Identity]) -> Sequence[Identity]:
        """Return what is wanted, from where it was left the last time."""
        names, at = [identity.name for identity in wanted], self._turns.pop(namespace, None)
        begin = names.index(at) if at in names else 0
        return (*wanted[begin:], *wanted[:begin])

    async def _tried(
        self, namespace: str, name: str, title: str, doing: Coroutine[Any, Any, None]
    ) -> float | None:
        """Do one part, unless it failed just now; return when to try it again if it fails."""
        if self._applied.rests(namespace, name):
            doing.close()
            return None
        try:
            await doing
        except KubeError as error:
            failed = error
            level = logging.INFO if error.status == 409 else logging.WARNING
            log.log(level, "not applied", extra={"object": title, "why": str(error)[:500]})
        except Exception as error:
            failed = KubeError(0, repr(error)[:300])
            log.exception("not applied", extra={"object": title})
        else:
            self._applied.came_right(namespace, name)
            return None
        return self._applied.failed(namespace, name, failing(title, failed))

    def _must_lead(self) -> None:
        if not self._leader.leads:
            raise KubeError(0, "the lease is not fresh: nothing is written")

    def forget(self, namespace: str) -> None:
        """Forget a namespace that nothing is left of."""
        self._stored.pop(namespace, None)
        self._turns.pop(namespace, None)
        self._applied.forget(namespace)

    async def _routers_as_wanted(self, world: World, packed: Packed, deadline_ms: int) -> None:
        """Apply what a namespace's routers are made of, unless nothing changed since."""
        owners = [route["metadata"]["uid"] for route in world.routes.values()]
        asked = _versions(packed), dict(packed.limits), owners, deadline_ms, self.authority
        if self._applied.alike(world.namespace, ROUTER, asked, ROUTER_OBJECTS) is None:
            found = await self._apply_routers(world, packed, deadline_ms)
            self._note(world.namespace, ROUTER, asked, ROUTER_OBJECTS, found)

    async def _identity_as_wanted(self, world: World, identity: Identity) -> None:
        """Apply what an identity is made of, unless nothing changed since.

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
        if self._applied.alike(world.namespace, identity.name, asked, objects) is not None:
            return
        try:
            found = await self._apply_identity(world, identity)
        except KubeError as error:
            if error.status not in REFUSALS:
                raise
            title = title_of(identity.backend)
            found = (replace(refused(title, error), field="spec.vllm"),)
        except ValueError as error:
            found = (content_too_large(title_of(identity.backend), error),)
        self._note(world.namespace, identity.name, asked, objects, found)

    def _note(
        self,
        namespace: str,
        name: str,
        asked: object,
        objects: Objects,
        found: tuple[Problem, ...],
    ) -> None:
        whole = not any(self._contest.stands((kind, namespace, one)) for kind, one in objects)
        self._applied.note(namespace, name, asked, objects, found, whole=whole)

    def router_problems(self, world: World) -> tuple[Problem, ...]:
        """Return what a namespace's routers lack, as a problem of each of its routes.

        What is of one route alone is told of that one.
        """
        found = self._applied.problems(world.namespace, ROUTER)
        own = tuple(one for one in found if one.object.startswith("ModelRoute "))
        shared = (one for one in found if one not in own)
        return own + tuple(of_route(o, one) for one in shared for o in world.routes.values())

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
            return (refused(f"ServiceAccount {namespace}/{ANCHOR}", error),)
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
                made = refused(title_of_object(obj), error)
            if isinstance(made, Problem):
                problems.append(made)
            elif obj is snapshot:
                self._stored[namespace] = _versions(packed)
        return tuple(problems)

    async def _apply_identity(self, world: World, identity: Identity) -> tuple[Problem, ...]:
        backend, namespace = identity.backend, world.namespace
        problems = workload_problems(backend, self._workloads)
        if problems:
            return problems
        known = self._cache.get("ModelRevision", namespace, identity.name)
        known = known or world.revisions.get(identity.name)
        stored = stored_backend(known) if known is not None else None
        live = self._cache.get("Deployment", namespace, identity.name)
        rendering, waiting = rendering_for(
            backend,
            live,
            identity=identity.name,
            newest=identity.newest,
            answering=answers(live, world.served.get(identity.name, ())),
            settings=self._workloads,
            stored=stored.template if isinstance(stored, StoredBackend) else None,
        )
        revision = await self._ensure_revision(world, identity, rendering.template, known)
        if revision is None:
            return ()
        objects = identity_objects(
            backend,
            revision=owner_of(revision),
            settings=self._workloads,
            rendering=rendering,
            replicas=identity.replicas,
        )
        title = title_of(backend)
        found = [await self._ensure(obj, revision["metadata"]["uid"]) for obj in objects]
        problems = tuple(
            replace(one, object=title, seen=f"{one.object}: {one.seen}")
            for one in found
            if isinstance(one, Problem)
        )
        return (*problems, deferral(backend, identity.name, waiting)) if waiting else problems

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
        self._must_lead()
        done = await self._kube.apply(made)
        self._cache.put(done)
        return done

    async def _ensure(self, obj: Obj, owner_uid: str = "") -> Obj | Problem:
        """Apply an object where the live one differs, unless that is somebody else's."""
        meta, edit = obj["metadata"], None
        key = obj["kind"], meta["namespace"], meta["name"]
        live = self._cache.get(*key)
        if live is None:
            # Somebody's own object of this name has no label of ours, so the cache has it not.
            live = await self._kube.get(*key)
        if live is not None:
            stranger = foreign({"kind": obj["kind"], **live}, owner_uid)
            if stranger is not None:
                return stranger
            live = {"apiVersion": obj["apiVersion"], "kind": obj["kind"], **live}
            more = obj["kind"] == "Deployment" and bool(added(live, obj))
            if not more and not drifted(live, obj):
                self._contest.gone(key)
                return live
            edit = hand_edit(live, obj, manager=FIELD_MANAGER)
            if edit is not None and self._contest.is_early(key):
                return live
            self._must_lead()
            if more:
                await self._kube.merge(obj, without_additions(obj))
        self._must_lead()
        done = await self._kube.apply(obj)
        self._cache.put(done)
        told = self._contest.put_back(key, edit) if edit is not None else None
        if told is not None:
            await self._tell_edit(done, told)
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

    def _unwanted(self, world: World, wanted: set[str]) -> list[Obj]:
        """Return revisions of backends that nobody asks for, and forget what is gone."""
        found = {
            name: obj
            for name, obj in world.revisions.items()
            if (obj.get("spec") or {}).get("kind") == "Backend"
            and name not in wanted
            and not obj["metadata"].get("deletionTimestamp")
        }
        self._applied.keep(world.namespace, wanted | found.keys())
        return list(found.values())

    async def _remove(self, revision: Obj) -> None:
        """Delete a revision; the cluster's collector takes what it owns."""
        meta = revision["metadata"]
        self._must_lead()
        await self._kube.delete("ModelRevision", meta["namespace"], meta["name"], meta["uid"])


def _versions(packed: Packed) -> dict[str, Version]:
    return {key: routed.version for key, routed in packed.routes.items()}


def _mark_of(revision: Obj) -> str:
    return str((revision["metadata"].get("annotations") or {}).get(MARK, ""))
