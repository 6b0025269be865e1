"""One namespace as it is now: what people wrote, what Weir made, which routers report."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from weir_core.clocks import routers_off_s
from weir_core.errors import Problem
from weir_core.resources import ConfigMap, ModelBackend, ModelRoute, from_object
from weir_operator.cache import Cache
from weir_operator.feed import Connected
from weir_operator.objects import IDENTITY, is_router

Obj = dict[str, Any]
Read = ModelRoute | ModelBackend | ConfigMap


class World(msgspec.Struct, frozen=True, kw_only=True):
    """All that one walk of one namespace goes by.

    `routes` and `backends` hold the objects as read, by name, also broken ones; `read` those
    that can be compiled, by kind and name. `revisions` are ModelRevision objects, by name.
    `routers` are ready pods of the router Deployment, by uid; `pods` all of Weir's pods that are
    not ending, and `served` those of model servers by identity.
    `waits` says of a backend why its spec is that of an earlier edit (`admission`); `parked`
    gives (reason, message) of identities that had not their replicas when last decided.
    """

    namespace: str
    routes: Mapping[str, Obj]
    backends: Mapping[str, Obj]
    revisions: Mapping[str, Obj]
    deployments: Mapping[str, Obj]
    pods: Mapping[str, Obj]
    routers: frozenset[str]
    served: Mapping[str, tuple[Obj, ...]]
    read: Mapping[tuple[str, str], Read]
    problems: tuple[Problem, ...]
    connected: tuple[Connected, ...]
    waits: Mapping[str, str] = {}
    parked: Mapping[str, tuple[str, str]] = {}

    def route(self, name: str) -> ModelRoute | None:
        """Return a route that can be compiled."""
        found = self.read.get(("ModelRoute", name))
        return found if isinstance(found, ModelRoute) else None

    def backend(self, name: str) -> ModelBackend | None:
        """Return a backend that can be compiled."""
        found = self.read.get(("ModelBackend", name))
        return found if isinstance(found, ModelBackend) else None


class Reader:
    """Reads objects once for each generation; one namespace's."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[object, Read | tuple[Problem, ...]]] = {}

    def read(self, objects: Sequence[Obj]) -> list[tuple[Obj, Read | tuple[Problem, ...]]]:
        """Return each object with what it says, or with its problems; forgets all others."""
        known: dict[str, tuple[object, Read | tuple[Problem, ...]]] = {}
        for obj in objects:
            meta = obj["metadata"]
            version = meta.get("generation") or meta.get("resourceVersion")
            before = self._known.get(meta["uid"])
            if before is None or before[0] != version:
                before = version, from_object(_without_status(obj))
            known[meta["uid"]] = before
        self._known = known
        return [(obj, known[obj["metadata"]["uid"]][1]) for obj in objects]


def gather(
    cache: Cache,
    namespace: str,
    *,
    config_maps: Sequence[Obj],
    connected: Sequence[Connected],
    reader: Reader | None = None,
) -> World:
    """Read a namespace out of the cache; `config_maps` are those that routes refer to.

    A `reader` remembers between walks what it has read.
    """
    routes = _alive(cache.of("ModelRoute", namespace))
    backends = _alive(cache.of("ModelBackend", namespace))
    read: dict[tuple[str, str], Read] = {}
    problems: list[Problem] = []
    everything = (*routes.values(), *backends.values(), *config_maps)
    for obj, found in (reader or Reader()).read(everything):
        if isinstance(found, tuple):
            problems += found
        else:
            read[obj["kind"], obj["metadata"]["name"]] = found
    pods = {obj["metadata"]["uid"]: obj for obj in cache.of("Pod", namespace) if not _ends(obj)}
    return World(
        namespace=namespace,
        routes=routes,
        backends=backends,
        revisions=_by_name(cache.of("ModelRevision", namespace)),
        deployments=_by_name(cache.of("Deployment", namespace)),
        pods=pods,
        routers=frozenset(uid for uid, pod in pods.items() if is_router(pod) and ready(pod)),
        served=_served(pods.values()),
        read=read,
        problems=tuple(problems),
        connected=tuple(connected),
    )


def calibrations(routes: Sequence[Obj]) -> set[str]:
    """Return the names of the ConfigMaps that routes refer to, as far as can be seen."""
    names = set()
    for route in routes:
        behaviour = (route.get("spec") or {}).get("behaviour") or {}
        for tier in behaviour.get("tiers") or ():
            for check in (isinstance(tier, dict) and tier.get("accept")) or ():
                ref = isinstance(check, dict) and check.get("calibrationRef")
                if isinstance(ref, dict) and isinstance(ref.get("name"), str):
                    names.add(ref["name"])
    return names


def clock_off_s(world: World) -> float | None:
    """Return how far the clocks of most ready routers are ahead of this one's; 0 while they agree.

    By their last reports, as of when those came: a router that is silent has no time, and
    without any it is None.
    """
    return routers_off_s(
        one.report.as_of_s - one.seen_s
        for one in world.connected
        if one.alive and one.pod_uid in world.routers
    )


def ready(pod: Obj) -> bool:
    """Return whether a pod's Ready condition is True."""
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)


def _served(pods: Iterable[Obj]) -> dict[str, tuple[Obj, ...]]:
    found: dict[str, tuple[Obj, ...]] = {}
    for pod in pods:
        identity = (pod["metadata"].get("labels") or {}).get(IDENTITY)
        if identity:
            found[identity] = (*found.get(identity, ()), pod)
    return found


def _ends(obj: Obj) -> bool:
    return bool(obj["metadata"].get("deletionTimestamp"))


def _alive(objects: Sequence[Obj]) -> dict[str, Obj]:
    return {obj["metadata"]["name"]: obj for obj in objects if not _ends(obj)}


def _by_name(objects: Sequence[Obj]) -> dict[str, Obj]:
    return {obj["metadata"]["name"]: obj for obj in objects}


def _without_status(obj: Obj) -> Obj:
    return {key: value for key, value in obj.items() if key != "status"}
