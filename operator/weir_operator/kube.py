"""The Kubernetes API as the operator uses it: plain dict objects, server-side apply, few verbs.

Every write of an object of Weir's is an apply with one field manager; the operator never writes
a `spec` of people's. Errors are `KubeError` with the API's own reason.
"""

import asyncio
import contextlib
import datetime
import json
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from kubernetes.aio import client, config
from kubernetes.aio.client.exceptions import ApiException

Obj = dict[str, Any]

FIELD_MANAGER = "weir-operator"
GROUP = "inference.weir.dev"
TIMEOUT_S = 20.0
WATCH_S = 290
QUIET_S = 150.0
"""A watch that not even a bookmark came by for so long is over: they come every minute or so."""
UNAUTHORIZED = 401
log = logging.getLogger("weir.operator")

PATHS: Mapping[str, tuple[str, str]] = {
    "ModelRoute": ("apis/inference.weir.dev/v1alpha1", "modelroutes"),
    "ModelBackend": ("apis/inference.weir.dev/v1alpha1", "modelbackends"),
    "ModelRevision": ("apis/inference.weir.dev/v1alpha1", "modelrevisions"),
    "Deployment": ("apis/apps/v1", "deployments"),
    "PodDisruptionBudget": ("apis/policy/v1", "poddisruptionbudgets"),
    "Lease": ("apis/coordination.k8s.io/v1", "leases"),
    "Service": ("api/v1", "services"),
    "ServiceAccount": ("api/v1", "serviceaccounts"),
    "ConfigMap": ("api/v1", "configmaps"),
    "Secret": ("api/v1", "secrets"),
    "Pod": ("api/v1", "pods"),
    "Event": ("apis/events.k8s.io/v1", "events"),
    "TokenReview": ("apis/authentication.k8s.io/v1", "tokenreviews"),
    "LocalSubjectAccessReview": ("apis/authorization.k8s.io/v1", "localsubjectaccessreviews"),
}
"""API path and plural of every kind that the operator touches."""


class KubeError(Exception):
    """A request that the API refused or that did not get there (`status` 0)."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def path_to(kind: str, namespace: str = "", name: str = "", sub: str = "") -> str:
    """Return the URL path of a kind, of one object, of its subresource."""
    root, plural = PATHS[kind]
    scope = f"/namespaces/{namespace}" if namespace else ""
    return "/" + "/".join(part for part in (root + scope, plural, name, sub) if part)


class Kube:
    """One connection pool to the API server.

    `calls` counts requests by verb, kind and status, 0 where no answer came. `on_missing` hears
    the kind of an object that should have been written and is not there. `renew` reads the
    account's token anew.
    """

    def __init__(self, api: client.ApiClient, renew: Callable[[], None] = lambda: None) -> None:
        self._api = api
        self._renew = renew
        self.calls: dict[tuple[str, str, int], int] = {}
        self.on_missing: Callable[[str], None] = lambda kind: None

    @classmethod
    async def connect(cls) -> "Kube":
        """Use the pod's own account, else the user's kubeconfig. Raises KubeError."""
        found, in_pod = client.Configuration(), True
        try:
            try:
                config.load_incluster_config(found)
            except config.ConfigException:
                await config.load_kube_config(client_configuration=found)
                in_pod = False
        except config.ConfigException as error:
            raise KubeError(0, f"no way to the Kubernetes API: {error}") from error
        # A watch keeps its connection, and there is one for each kind and named namespace.
        found.connection_pool_maxsize = 0
        # Else aiohttp reads netrc and environment again for every request, in two threads.
        found.client_session_kwargs = {"trust_env": False}
        found.proxy = found.proxy or _proxy_to(found.host)
        api = client.ApiClient(found)
        return cls(api, lambda: config.load_incluster_config(found)) if in_pod else cls(api)

    async def close(self) -> None:
        """Close the pool."""
        await self._api.close()

    async def get(self, kind: str, namespace: str, name: str) -> Obj | None:
        """Return one object, None where there is none."""
        try:
            return await self._call("GET", kind, path_to(kind, namespace, name))
        except KubeError as error:
            if error.status == 404:
                return None
            raise

    async def every(
        self, kind: str, namespace: str = "", selector: str = ""
    ) -> tuple[list[Obj], str]:
        """Return all objects of a kind with kind and apiVersion set, and the list's version."""
        query = {"labelSelector": selector} if selector else {}
        found = await self._call("GET", kind, path_to(kind, namespace), query=query)
        version = found.get("apiVersion", "v1")
        items = [{"apiVersion": version, "kind": kind, **item} for item in found.get("items") or ()]
        return items, str((found.get("metadata") or {}).get("resourceVersion", ""))

    async def apply(self, obj: Obj, *, sub: str = "") -> Obj:
        """Apply an object (or its status) on the server, taking fields over from hands."""
        meta = obj["metadata"]
        path = path_to(obj["kind"], meta.get("namespace", ""), meta["name"], sub)
        query = {"fieldManager": FIELD_MANAGER, "force": "true", "fieldValidation": "Strict"}
        return await self._call(
            "PATCH", obj["kind"], path, query=query, body=obj, form="application/apply-patch+yaml"
        )

    async def merge(self, obj: Obj, change: Obj) -> Obj:
        """Merge a change into an object, whose lists it replaces whole."""
        meta = obj["metadata"]
        path = path_to(obj["kind"], meta.get("namespace", ""), meta["name"])
        query = {"fieldManager": FIELD_MANAGER}
        form = "application/merge-patch+json"
        return await self._call("PATCH", obj["kind"], path, query=query, body=change, form=form)

    async def create(self, obj: Obj) -> Obj:
        """Create an object that must not be there yet."""
        path = path_to(obj["kind"], obj["metadata"].get("namespace", ""))
        query = {"fieldManager": FIELD_MANAGER}
        return await self._call("POST", obj["kind"], path, query=query, body=obj)

    async def replace(self, obj: Obj) -> Obj:
        """Replace an object as of its resourceVersion (409 when it has moved on)."""
        meta = obj["metadata"]
        path = path_to(obj["kind"], meta.get("namespace", ""), meta["name"])
        return await self._call("PUT", obj["kind"], path, body=obj)

    async def delete(self, kind: str, namespace: str, name: str, uid: str = "") -> None:
        """Delete an object, of that uid alone where one is given; gone already is fine."""
        body: Obj = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}
        if uid:
            body["preconditions"] = {"uid": uid}
        try:
            await self._call("DELETE", kind, path_to(kind, namespace, name), body=body)
        except KubeError as error:
            if error.status not in (404, 409):
                raise

    async def watch(
        self, kind: str, namespace: str, selector: str, version: str
    ) -> AsyncIterator[tuple[str, Obj]]:
        """Yield (type, object) from a version on until the server ends the watch.

        Raises KubeError, with status 410 when the version is too old: list again.
        """
        query = {
            "watch": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(WATCH_S),
            "allowWatchBookmarks": "true",
        }
        if selector:
            query["labelSelector"] = selector
        path = path_to(kind, namespace)
        try:
            response = await self._send("GET", path, query, None, "", WATCH_S + 30)
        except KubeError as error:
            self._count("WATCH", kind, error.status)
            raise
        self._count("WATCH", kind, response.status)
        try:
            if response.status >= 400:
                raise KubeError(response.status, await _text(response))
            content = response.response.content
            while line := await _line(content):
                type, obj = _event(line)
                if type == "ERROR":
                    raise KubeError(int(obj.get("code", 0)), str(obj.get("message", "")))
                yield type, obj
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise KubeError(0, f"watch of {kind} ended: {error!r}") from error
        finally:
            response.response.close()

    # What the feed's gatekeeper asks.

    async def token_review(self, token: str) -> Obj:
        """Return the status of a TokenReview for the audience that routers' tokens have."""
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": ["weir"]},
        }
        done = await self._call("POST", "TokenReview", path_to("TokenReview"), body=body)
        return dict(done.get("status") or {})

    async def access_review(self, user: str, groups: list[str], namespace: str) -> bool:
        """Whether a user may `use` the ModelRoutes of a namespace."""
        kind = "LocalSubjectAccessReview"  # Of one namespace: a Role can allow it.
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": kind,
            "metadata": {"namespace": namespace},
            "spec": {
                "user": user,
                "groups": groups,
                "resourceAttributes": {
                    "namespace": namespace,
                    "verb": "use",
                    "group": GROUP,
                    "resource": "modelroutes",
                },
            },
        }
        done = await self._call("POST", kind, path_to(kind, namespace), body=body)
        return bool((done.get("status") or {}).get("allowed"))

    async def pod(self, namespace: str, name: str) -> Obj | None:
        """Return a pod as it is now, None where there is none."""
        return await self.get("Pod", namespace, name)

    # The wire.

    async def _call(
        self,
        method: str,
        kind: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Obj | None = None,
        form: str = "application/json",
    ) -> Obj:
        try:
            response = await self._send(method, path, query or {}, body, form, TIMEOUT_S)
            text = await _text(response)
        except (aiohttp.ClientError, TimeoutError) as error:
            self._count(method, kind, 0)
            raise KubeError(0, f"{method} {path}: {error!r}") from error
        except KubeError as error:
            self._count(method, kind, error.status)
            raise
        self._count(method, kind, response.status)
        if response.status == 404 and method != "GET":
            self.on_missing(kind)
        if response.status == UNAUTHORIZED:
            self._log_in()
        if response.status >= 400:
            raise KubeError(response.status, f"{method} {path}: {_message(text)}")
        try:
            found = json.loads(text) if text else {}
        except ValueError:
            found = None
        if not isinstance(found, dict):
            seen = f"saw {response.status} with {text[:200]!r}, wanted a JSON object"
            raise KubeError(0, f"{method} {path}: {seen}")
        return found

    def _log_in(self) -> None:
        """Read the token anew; the client's own reading goes by a clock that may have jumped."""
        try:
            self._renew()
        except (config.ConfigException, OSError) as error:
            log.warning("token not read", extra={"error": str(error)})

    def _count(self, verb: str, kind: str, status: int) -> None:
        key = (verb, kind, status)
        self.calls[key] = self.calls.get(key, 0) + 1

    async def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Obj | None,
        form: str,
        timeout_s: float,
    ) -> Any:
        resource = f"{path}?{urlencode(query)}" if query else path
        header = {"Content-Type": form} if body is not None else {}
        try:
            method, url, headers, _, _ = await self._api.param_serialize(
                method,
                resource,
                header_params={"Accept": "application/json", **header},
                auth_settings=["BearerToken"],
            )
            return await self._api.call_api(
                method, url, headers, body=body, _request_timeout=timeout_s
            )
        except (
            aiohttp.ClientError,
            TimeoutError,
            OSError,
            config.ConfigException,
        ) as error:
            raise KubeError(0, f"{method} {path}: {error!r}") from error
        except ApiException as error:
            raise KubeError(error.status or 0, f"{method} {path}: {error.reason}") from error


def _proxy_to(url: str) -> str | None:
    """Return the proxy that the environment has for a URL."""
    asked = urlsplit(url)
    return None if proxy_bypass(asked.hostname or "") else getproxies().get(asked.scheme)


def _event(line: bytes) -> tuple[str, Obj]:
    """Return an event's type and object. Raises ValueError for what is no event."""
    event = json.loads(line)
    told = event if isinstance(event, dict) else {}
    type, obj = told.get("type"), told.get("object")
    meta = obj.get("metadata") if isinstance(obj, dict) else None
    if type != "ERROR" and not (isinstance(meta, dict) and meta.get("resourceVersion")):
        raise ValueError(f"saw {line[:200]!r}, wanted an event of a watch")
    return str(type), dict(obj or {})


async def _line(content: aiohttp.StreamReader) -> bytes:
    async with asyncio.timeout(QUIET_S):
        return await content.readline()


async def _text(response: Any) -> str:
    data: bytes = await response.read()
    return data.decode("utf8", "replace")


def _message(text: str) -> str:
    try:
        told = json.loads(text)
    except ValueError:
        return text[:300]
    return str(told.get("message", text))[:600] if isinstance(told, dict) else text[:300]


def now_text(*, micro: bool = False) -> str:
    """Return the time as Kubernetes writes it."""
    now = datetime.datetime.now(datetime.UTC)
    return now.strftime("%Y-%m-%dT%H:%M:%S.%fZ" if micro else "%Y-%m-%dT%H:%M:%SZ")


async def pause(seconds: float, until: asyncio.Event) -> None:
    """Sleep, or less when the event is set."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await until.wait()
