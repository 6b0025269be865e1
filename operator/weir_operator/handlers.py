"""The event streams: kopf's of what people write, plain watches of what Weir makes.

kopf is given event handlers alone, in standalone mode and without posting: it then writes
nothing, so no annotation or finalizer of its ever stands on an object. Objects of Weir's carry
one label, which the server selects by; kopf would stream every pod of the cluster.

kopf has a thread and a loop to itself: at its end it cancels every task of its loop, and it takes
the process's signals where it can. What it does not tell, that an object went while it heard
nothing, comes by lists (`look_again`).
"""

import asyncio
import contextlib
import logging
import random
import threading
from collections.abc import Callable, Sequence
from typing import Any

import kopf

from weir_operator.cache import Cache
from weir_operator.kube import GROUP, Kube, KubeError
from weir_operator.readable import Readable

WRITTEN = ("ModelRoute", "ModelBackend", "ModelRevision")
"""Kinds of Weir's own API."""

MADE = ("Deployment", "Pod", "Service", "PodDisruptionBudget", "ServiceAccount", "ConfigMap")
"""Kinds that Weir makes objects of, all of them labelled."""

SELECTOR = "app.kubernetes.io/managed-by=weir"
RETRY_S = 2.0
AGAIN_S = 0.2
"""Before a watch that the server ended is begun again: a proxy may end each at once."""
LIST_S, LEAST_S = 300.0, 5.0
"""How often what people write is listed again, and how often at most when there is a reason."""
KNOCK_S = 30.0
"""How often a namespace is tried that may not be read."""
log = logging.getLogger("weir.operator")


async def prime(kube: Kube, cache: Cache, readable: Readable) -> dict[tuple[str, str], str]:
    """List everything once and return the versions by (kind, namespace), "" where none is told.

    Asks until it is told: an API server that has just been given the CRDs needs a moment. Not of
    a named namespace that may not be read, which must not keep the others waiting.
    """
    versions = {}
    for namespace in readable.all:
        for kind in (*WRITTEN, *MADE):
            version = ""
            while namespace in readable.open and not version:
                version = await _listed(kube, cache, kind, namespace, readable, first=True)
                if not version and namespace in readable.open:
                    await asyncio.sleep(RETRY_S)
            versions[kind, namespace] = version
    return versions


async def look_again(
    kube: Kube,
    cache: Cache,
    readable: Readable,
    doubt: asyncio.Event,
    *,
    every_s: float = LIST_S,
    least_s: float = LEAST_S,
    chance: Callable[[], float] = random.random,
) -> None:
    """List what people write for ever: at times, and soon when there is a `doubt`.

    Only so is an object found to be gone that went while kopf heard nothing.
    """
    while True:
        await asyncio.sleep(least_s)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(every_s * (0.9 + 0.2 * chance())):
                await doubt.wait()
        doubt.clear()
        for kind in WRITTEN:
            for namespace in readable.open:
                listed = await _listed(kube, cache, kind, namespace, readable)
                if not listed and namespace in readable.open:
                    doubt.set()


async def knock(kube: Kube, cache: Cache, readable: Readable, *, every_s: float = KNOCK_S) -> None:
    """Try for ever to read what may not be read; what is read whole is open again."""
    while True:
        await asyncio.sleep(every_s)
        for namespace in readable.closed:
            for kind in (*WRITTEN, *MADE):
                if not await _listed(kube, cache, kind, namespace, readable):
                    break
            else:
                readable.reopen(namespace)


def registry(heard: Callable[[str | None, Any], None]) -> kopf.OperatorRegistry:
    """Return handlers that do nothing but hand on (type, object); type None is of a list."""
    handlers = kopf.OperatorRegistry()

    @kopf.on.startup(registry=handlers)
    async def quiet(settings: kopf.OperatorSettings, **_: Any) -> None:
        settings.posting.enabled = False
        settings.scanning.disabled = True
        settings.networking.request_timeout = 30
        settings.watching.server_timeout = 280
        settings.watching.client_timeout = 300
        settings.process.ultimate_exiting_timeout = None

    @kopf.on.login(registry=handlers)
    async def login(**given: Any) -> kopf.ConnectionInfo | None:
        account = kopf.login_with_service_account(**given)
        return account or kopf.login_with_kubeconfig(**given)

    async def hand_on(type: str | None, body: kopf.Body, **_: Any) -> None:
        heard(type, _plain(body))

    for plural in ("modelroutes", "modelbackends", "modelrevisions"):
        kopf.on.event(GROUP, "v1alpha1", plural, registry=handlers)(hand_on)
    return handlers


def _plain(value: Any) -> Any:
    """Return kopf's views as dicts and lists."""
    if isinstance(value, dict) or hasattr(value, "items"):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value


async def hear(cache: Cache, readable: Readable, doubt: asyncio.Event) -> None:
    """Have kopf feed the cache for ever; `doubt` is set when it may have missed something.

    Of two namespaces that it is given, one that may not be read would end it for both.
    """
    loop = asyncio.get_running_loop()

    def take(type: str | None, obj: Any) -> None:
        if type is None:
            doubt.set()
        if type == "DELETED":
            cache.drop(obj)
        else:
            cache.put(obj)

    while True:
        namespaces = readable.open
        doings = [asyncio.create_task(readable.turned(namespaces))]
        if namespaces:
            given = namespaces if readable.named else ()
            told = _kopf(lambda *told: loop.call_soon_threadsafe(take, *told), given)
            doings.append(asyncio.create_task(told))
        try:
            await asyncio.wait(doings, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in doings:
                task.cancel()
            ended = await asyncio.gather(*doings, return_exceptions=True)
        for error in (one for one in ended if isinstance(one, Exception)):
            log.error("kopf not started", extra={"error": repr(error)[:500]})
        doubt.set()
        await asyncio.sleep(RETRY_S)


async def _kopf(heard: Callable[[str | None, Any], Any], namespaces: Sequence[str]) -> None:
    """Run kopf until it ends by itself, which is told; when cancelled it ends soon after."""
    loop = asyncio.get_running_loop()
    stop, over = threading.Event(), asyncio.Event()

    async def whole() -> None:
        try:
            await kopf.operator(
                registry=registry(heard),
                standalone=True,
                clusterwide=not namespaces,
                namespaces=tuple(namespaces),
                stop_flag=stop,
            )
        finally:
            stop.set()  # A thread of kopf's waits for it.

    def run() -> None:
        try:
            asyncio.run(whole())
        except Exception as error:
            log.warning("kopf ended", extra={"error": repr(error)[:500]})
        with contextlib.suppress(RuntimeError):  # The other loop may be closed by now.
            loop.call_soon_threadsafe(over.set)

    threading.Thread(target=run, name="kopf", daemon=True).start()
    try:
        await over.wait()
    finally:
        stop.set()


async def follow(
    kube: Kube, cache: Cache, kind: str, namespace: str, version: str, readable: Readable
) -> None:
    """Watch one kind of Weir's objects for ever; what a watch cannot tell is listed again.

    `version` "" is of a namespace that could not be listed.
    """
    while True:
        if not version:
            await readable.until_open(namespace)
            version = await _listed(kube, cache, kind, namespace, readable)
            if not version:
                await asyncio.sleep(RETRY_S)
            continue
        try:
            async for type, obj in kube.watch(kind, namespace, SELECTOR, version):
                version = str(obj["metadata"]["resourceVersion"])
                obj.setdefault("kind", kind)
                if type == "DELETED":
                    cache.drop(obj)
                elif type != "BOOKMARK":
                    cache.put(obj)
            await asyncio.sleep(AGAIN_S)
        except KubeError as error:
            if error.status != 410:
                log.warning("watch ended", extra={"kind": kind, "error": str(error)})
            await asyncio.sleep(RETRY_S)
            listed = await _listed(kube, cache, kind, namespace, readable)
            version = listed or (version if namespace in readable.open else "")


async def _listed(
    kube: Kube,
    cache: Cache,
    kind: str,
    namespace: str,
    readable: Readable,
    *,
    first: bool = False,
) -> str:
    selector = "" if kind in WRITTEN else SELECTOR
    try:
        items, version = await kube.every(kind, namespace, selector)
    except KubeError as error:
        if not readable.refused(namespace, error, unread=first):
            log.warning("list failed", extra={"kind": kind, "error": str(error)})
        return ""
    cache.replace(kind, items, version, namespace)
    return version
