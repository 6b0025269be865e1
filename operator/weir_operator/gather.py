"""One namespace as it is now: what people wrote, what Weir made, which routers report."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from weir_core.errors import Problem
from weir_core.resources import ConfigMap, ModelBackend, ModelRoute, from_object, key_of
from weir_operator.cache import Cache
from weir_operator.feed import Connected

Obj = dict[str, Any]


class World(msgspec.Struct, frozen=True, kw_only=True):
    """All that one walk of one namespace goes by.

    `routes` and `backends` hold the objects as read, by name, also broken ones; `parsed` those
    that can be compiled. `revisions` are ModelRevision objects, by name. `routers` are ready
    pods of the router Deployment, by uid; `pods` all of Weir's pods that are not ending.
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
    parsed: tuple[ModelRoute | ModelBackend | ConfigMap, ...]
    problems: tuple[Problem, ...]
    connected: tuple[Connected, ...]
    waits: Mapping[str, str] = {}
    parked: Mapping[str, tuple[str, str]] = {}

    def route(self, name: str) -> ModelRoute | None:
        """Return a route that can be compiled."""
        key = f"{self.namespace}/{name}"
        found = (r for r in self.parsed if isinstance(r, ModelRoute) and key_of(r) == key)
        return next(found, None)

    def backend(self, name: str) -> ModelBackend | None:
        """Return a backend that can be compiled."""
        key = f"{self.namespace}/{name}"
        found = (b for b in self.parsed if isinstance(b, ModelBackend) and key_of(b) == key)
        return next(found, None)


def gather(
    cache: Cache,
    namespace: str,
    *,
    config_maps: Sequence[Obj],
    connected: Sequence[Connected],
) -> World:
    """Read a namespace out of the cache; `config_maps` are those that routes refer to."""
    routes = _alive(cache.of("ModelRoute", namespace))
    backends = _alive(cache.of("ModelBackend", namespace))
    parsed: list[ModelRoute | ModelBackend | ConfigMap] = []
    problems: list[Problem] = []
    for obj in (*routes.values(), *backends.values(), *config_maps):
        read = from_object(_without_status(obj))
        if isinstance(read, tuple):
            problems += read
        else:
            parsed.append(read)
    pods = {obj["metadata"]["uid"]: obj for obj in cache.of("Pod", namespace) if not _ends(obj)}
    return World(
        namespace=namespace,
        routes=routes,
        backends=backends,
        revisions=_by_name(cache.of("ModelRevision", namespace)),
        deployments=_by_name(cache.of("Deployment", namespace)),
        pods=pods,
        routers=frozenset(uid for uid, pod in pods.items() if _is_router(pod) and ready(pod)),
        parsed=tuple(parsed),
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


def ready(pod: Obj) -> bool:
    """Return whether a pod's Ready condition is True."""
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)


def _is_router(pod: Obj) -> bool:
    labels = pod["metadata"].get("labels") or {}
    return labels.get("inference.weir.dev/router") == "deployment"


def _ends(obj: Obj) -> bool:
    return bool(obj["metadata"].get("deletionTimestamp"))


def _alive(objects: Sequence[Obj]) -> dict[str, Obj]:
    return {obj["metadata"]["name"]: obj for obj in objects if not _ends(obj)}


def _by_name(objects: Sequence[Obj]) -> dict[str, Obj]:
    return {obj["metadata"]["name"]: obj for obj in objects}


def _without_status(obj: Obj) -> Obj:
    return {key: value for key, value in obj.items() if key != "status"}
