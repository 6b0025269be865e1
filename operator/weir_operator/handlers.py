"""The event streams: kopf's of what people write, plain watches of what Weir makes.

kopf is given event handlers alone, in standalone mode and without posting: it then writes
nothing, so no annotation or finalizer of its ever stands on an object. Objects of Weir's carry
one label, which the server selects by; kopf would stream every pod of the cluster.
"""

import asyncio
import logging
from collections.abc import Awaitable, Sequence
from typing import Any

import kopf

from weir_operator.cache import Cache
from weir_operator.kube import GROUP, Kube, KubeError

WRITTEN = ("ModelRoute", "ModelBackend", "ModelRevision")
"""Kinds of Weir's own API."""

MADE = ("Deployment", "Pod", "Service", "PodDisruptionBudget", "ServiceAccount", "ConfigMap")
"""Kinds that Weir makes objects of, all of them labelled."""

SELECTOR = "app.kubernetes.io/managed-by=weir"
RETRY_S = 2.0
log = logging.getLogger("weir.operator")


async def prime(kube: Kube, cache: Cache, namespaces: Sequence[str]) -> dict[tuple[str, str], str]:
    """List everything once and return the versions by (kind, namespace).

    Asks until it is told: an API server that has just been given the CRDs needs a moment.
    """
    versions = {}
    for kind in (*WRITTEN, *MADE):
        for namespace in namespaces or ("",):
            while not (  # noqa: ASYNC110 - it asks a server, nobody rings.
                version := await _listed(kube, cache, kind, namespace)
            ):
                await asyncio.sleep(RETRY_S)
            versions[kind, namespace] = version
    return versions


def registry(cache: Cache) -> kopf.OperatorRegistry:
    """Return handlers that do nothing but remember what they are told."""
    handlers = kopf.OperatorRegistry()

    @kopf.on.startup(registry=handlers)
    async def quiet(settings: kopf.OperatorSettings, **_: Any) -> None:
        settings.posting.enabled = False
        settings.batching.batch_window = 0.02
        settings.scanning.disabled = True
        settings.networking.request_timeout = 30
        settings.watching.server_timeout = 280
        settings.watching.client_timeout = 300

    @kopf.on.login(registry=handlers)
    async def login(**given: Any) -> kopf.ConnectionInfo | None:
        account = kopf.login_with_service_account(**given)
        return account or kopf.login_with_kubeconfig(**given)

    async def heard(type: str | None, body: kopf.Body, **_: Any) -> None:
        obj = _plain(body)
        if type == "DELETED":
            cache.drop(obj)
        else:
            cache.put(obj)

    for plural in ("modelroutes", "modelbackends", "modelrevisions"):
        kopf.on.event(GROUP, "v1alpha1", plural, registry=handlers)(heard)
    return handlers


def _plain(value: Any) -> Any:
    """Return kopf's views as dicts and lists."""
    if isinstance(value, dict) or hasattr(value, "items"):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value


def kopf_operator(cache: Cache, namespaces: Sequence[str], stop: asyncio.Event) -> Awaitable[None]:
    """Return kopf's own loop, to be awaited beside the rest."""
    return kopf.operator(
        registry=registry(cache),
        standalone=True,
        clusterwide=not namespaces,
        namespaces=tuple(namespaces),
        stop_flag=stop,
    )


async def follow(kube: Kube, cache: Cache, kind: str, namespace: str, version: str) -> None:
    """Watch one kind of Weir's objects for ever; what a watch cannot tell is listed again."""
    while True:
        try:
            async for type, obj in kube.watch(kind, namespace, SELECTOR, version):
                version = str(obj["metadata"]["resourceVersion"])
                obj.setdefault("kind", kind)
                if type == "DELETED":
                    cache.drop(obj)
                elif type != "BOOKMARK":
                    cache.put(obj)
        except KubeError as error:
            if error.status != 410:
                log.warning("watch ended", extra={"kind": kind, "error": str(error)})
            await asyncio.sleep(RETRY_S)
            version = await _listed(kube, cache, kind, namespace) or version


async def _listed(kube: Kube, cache: Cache, kind: str, namespace: str) -> str:
    selector = "" if kind in WRITTEN else SELECTOR
    try:
        items, version = await kube.every(kind, namespace, selector)
    except KubeError as error:
        log.warning("list failed", extra={"kind": kind, "error": str(error)})
        return ""
    cache.replace(kind, items, version, namespace)
    return version
