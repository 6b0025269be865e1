"""An API server of dictionaries behind real HTTP: lists, watches, applies, and falls silent.

It knows what the operator and kopf ask of one; conflicts are of resourceVersions alone.
"""

import asyncio
import contextlib
import copy
import itertools
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from aiohttp import web
from kubernetes.aio import client

from weir_operator.kube import PATHS, Kube

Obj = dict[str, Any]
KINDS = {path: kind for kind, path in PATHS.items()} | {
    ("api/v1", "namespaces"): "Namespace",
    ("apis/apiextensions.k8s.io/v1", "customresourcedefinitions"): "CustomResourceDefinition",
}


class ApiServer:
    """Objects by (kind, namespace, name). While `silent` no request gets an answer.

    Who asks anything of a namespace in `shut` is refused: no Role allows it. With a `page` that
    is all it says; with a `token` it knows nobody who has another one.
    """

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str], Obj] = {}
        self.silent = False
        self.page = self.token = ""
        self.shut: set[str] = set()
        self.asked: list[tuple[str, str]] = []
        self.port = 0
        self._versions = itertools.count(1)
        self._now = 0
        self._past: list[tuple[int, str, Obj]] = []
        self._news = asyncio.Event()

    def write(self, kind: str, obj: Obj) -> Obj:
        """Write an object whole."""
        meta = obj["metadata"]
        key = (kind, meta.get("namespace", ""), meta["name"])
        known = self.objects.get(key, {}).get("metadata", {})
        self._now = next(self._versions)
        kept = {"uid": known.get("uid", f"uid-{self._now}"), "generation": 1}
        meta = {**kept, **meta, "resourceVersion": str(self._now)}
        done = {**copy.deepcopy(obj), "kind": kind, "metadata": meta}
        self.objects[key] = done
        self._tell("MODIFIED" if known else "ADDED", done)
        return done

    def drop(self, kind: str, namespace: str, name: str, *, tell: bool = True) -> None:
        """Delete an object; not told, it is as if it happened while nobody could watch."""
        lost = self.objects.pop((kind, namespace, name))
        self._now = next(self._versions)
        lost["metadata"]["resourceVersion"] = str(self._now)
        if tell:
            self._tell("DELETED", lost)

    def hush(self) -> None:
        """Answer nothing from now on and cut every watch."""
        self.silent = True
        self._news.set()

    def _tell(self, type: str, obj: Obj) -> None:
        self._past.append((self._now, type, copy.deepcopy(obj)))
        self._news.set()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer whatever is asked."""
        while self.silent:
            await asyncio.sleep(0.05)
        if self.page:
            return web.Response(text=self.page, content_type="text/html")
        if self.token and request.headers.get("Authorization") != f"bearer {self.token}":
            return web.json_response({"message": "Unauthorized"}, status=401)
        parts = request.path.strip("/").split("/")
        if (found := _discovered(parts)) is not None:
            return web.json_response(found)
        root = "/".join(parts[:2] if parts[0] == "api" else parts[:3])
        rest = parts[2:] if parts[0] == "api" else parts[3:]
        namespace = ""
        if rest[0] == "namespaces" and len(rest) > 2:
            namespace, rest = rest[1], rest[2:]
        kind = KINDS[root, rest[0]]
        self.asked.append((request.method, kind))
        if namespace in self.shut:
            return web.json_response({"message": f"{rest[0]} is forbidden"}, status=403)
        if len(rest) > 1:
            body = await request.json() if request.can_read_body else {}
            return self._one(request.method, (kind, namespace, rest[1]), body, rest[2:])
        if request.method == "POST":
            made = await request.json()
            made["metadata"] = {"name": f"made-{self._now}", **made.get("metadata", {})}
            return web.json_response(self.write(kind, made), status=201)
        if request.query.get("watch"):
            return await self._watched(request, kind, namespace)
        known = self.objects.items()
        items = [o for key, o in known if _is(key, o, kind, namespace, request.query)]
        listed = {"metadata": {"resourceVersion": str(self._now)}, "items": items}
        return web.json_response({"apiVersion": root.split("/", 1)[1], "kind": "List"} | listed)

    def _one(
        self, method: str, key: tuple[str, str, str], body: Obj, sub: list[str]
    ) -> web.Response:
        known = self.objects.get(key)
        if known is None and (method != "PATCH" or sub):
            return web.json_response({"message": f"{key} not found"}, status=404)
        if method == "DELETE":
            self.drop(*key)
            return web.json_response({})
        if method == "GET":
            return web.json_response(known)
        asked = body["metadata"].get("resourceVersion")
        if asked is not None and (known is None or known["metadata"]["resourceVersion"] != asked):
            return web.json_response({"message": "the object has been modified"}, status=409)
        old = known or {"metadata": {}}
        body["metadata"] = {**old["metadata"], **body["metadata"]}
        return web.json_response(self.write(key[0], {**old, **body} if method == "PATCH" else body))

    async def _watched(self, request: web.Request, kind: str, namespace: str) -> web.StreamResponse:
        response = web.StreamResponse()
        with contextlib.suppress(ConnectionError):
            await self._tell_on(response, request, kind, namespace)
        return response

    async def _tell_on(
        self, response: web.StreamResponse, request: web.Request, kind: str, namespace: str
    ) -> None:
        await response.prepare(request)
        seen = int(request.query.get("resourceVersion") or 0)
        while not self.silent and namespace not in self.shut:
            self._news.clear()
            for version, type, obj in list(self._past):
                key = (obj["kind"], obj["metadata"].get("namespace", ""), obj["metadata"]["name"])
                if version > seen and _is(key, obj, kind, namespace, request.query):
                    line = json.dumps({"type": type, "object": obj}).encode()
                    await response.write(line + b"\n")
            seen = max(seen, self._now)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), 0.1)

    def kube(self) -> Kube:
        """Return a client of it."""
        return Kube(client.ApiClient(client.Configuration(host=f"http://127.0.0.1:{self.port}")))

    def kubeconfig(self, folder: Path) -> Path:
        """Write what kopf logs in with."""
        path = folder / "kubeconfig"
        server = f"http://127.0.0.1:{self.port}"
        told = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "here",
            "clusters": [{"name": "here", "cluster": {"server": server}}],
            "users": [{"name": "here", "user": {}}],
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "here"}}],
        }
        path.write_text(json.dumps(told))
        return path


def _is(
    key: tuple[str, str, str], obj: Obj, kind: str, namespace: str, query: Mapping[str, str]
) -> bool:
    label, _, value = query.get("labelSelector", "").partition("=")
    labels = obj["metadata"].get("labels") or {}
    is_there = key[0] == kind and namespace in ("", key[1])
    return is_there and (not label or labels.get(label) == value)


def _discovered(parts: list[str]) -> Obj | None:
    """Return what the server says of its own paths, None for any other."""
    if parts == ["api"]:
        return {"versions": ["v1"]}
    if parts == ["apis"]:
        roots = sorted({root for root, _ in KINDS if root.startswith("apis/")})
        named = [root.split("/")[1:] for root in roots]
        return {
            "groups": [
                {
                    "name": group,
                    "versions": [{"version": version, "groupVersion": f"{group}/{version}"}],
                    "preferredVersion": {"version": version},
                }
                for group, version in named
            ]
        }
    of = [(plural, kind) for (root, plural), kind in KINDS.items() if root == "/".join(parts)]
    verbs = ["get", "list", "watch", "patch", "create"]
    return (
        {
            "resources": [
                {"name": plural, "kind": kind, "singularName": kind.lower(), "namespaced": True}
                | {"verbs": verbs}
                for plural, kind in of
            ]
        }
        if of
        else None
    )


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[ApiServer]:
    """Serve on loopback for the time of a test."""
    server = ApiServer()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.port = runner.addresses[0][1]
    try:
        yield server
    finally:
        server.hush()
        server.silent = False
        await runner.cleanup()
