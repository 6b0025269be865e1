"""The Kubernetes API as the commands need it: one request at a time, one line for each trouble.

The `kubernetes` package reads the kubeconfig (users, exec plugins, tokens) and sends; objects
stay plain JSON. What the objects mean is not known here.
"""

import json
import logging
import os
import re
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import urllib3
from kubernetes import client, config

from weir_cli.errors import CommandError, MissingError, UnreachableError
from weir_cli.objects import GROUP, GROUP_VERSION
from weir_cli.sources import Json

WEIR = f"/apis/{GROUP_VERSION}"
PLURALS: Mapping[str, str] = {
    "ModelRoute": "modelroutes",
    "ModelBackend": "modelbackends",
    "ModelRevision": "modelrevisions",
}
FIELD_MANAGER = "kubectl-weir"
TIMEOUT_S = 15.0
MERGE_PATCH, APPLY = "application/merge-patch+json", "application/apply-patch+yaml"
OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_ERRNO = re.compile(r"^\[Errno -?\d+\] ")
ROLES = "the chart adds what is needed to the ClusterRoles view and edit"


UNTYPED = "failed to create typed patch object"
"""What server-side apply says of a field that the schema has not, as if the fault were its own."""


class RefusedError(CommandError):
    """The API server refused: its HTTP status, and the fields that it names with its reasons."""

    def __init__(self, message: str, *, status: int, causes: list[Json]) -> None:
        super().__init__(message)
        self.status = status
        self.causes = causes


class Api:
    """One API server. `namespace` is that of the context, or of the pod that this runs in."""

    def __init__(self, sender: client.ApiClient, *, namespace: str, context: str) -> None:
        self.namespace = namespace
        self._sender = sender
        self._whose = f" (context {context})" if context else ""

    @classmethod
    def connect(cls, *, kubeconfig: str | None, context: str | None) -> "Api":
        """Find the cluster as kubectl does. Raises CommandError where none is named."""
        # What the package logs of a failed login plugin is told again in our own line.
        logging.getLogger("kubernetes").setLevel(logging.CRITICAL)
        settings = client.Configuration()
        try:
            known, current = config.list_kube_config_contexts(kubeconfig)
        except config.ConfigException as error:
            if kubeconfig is None and context is None and OWN_NAMESPACE.exists():
                return cls._inside(settings)
            raise CommandError(_unnamed(error, kubeconfig), code=2) from None
        chosen = (
            next((one for one in known if one["name"] == context), None) if context else current
        )
        if chosen is None:
            names = ", ".join(sorted(one["name"] for one in known)) or "none"
            raise CommandError(f"--context: saw {context}, wanted one of {names}", code=2)
        try:
            config.load_kube_config(
                kubeconfig, context=chosen["name"], client_configuration=settings
            )
        except (config.ConfigException, OSError, ValueError, KeyError) as error:
            raise CommandError(f"context {chosen['name']}: {error}", code=2) from None
        settings.retries = 0
        namespace = chosen["context"].get("namespace") or "default"
        return cls(client.ApiClient(settings), namespace=namespace, context=chosen["name"])

    @classmethod
    def _inside(cls, settings: client.Configuration) -> "Api":
        config.load_incluster_config(client_configuration=settings)
        settings.retries = 0
        return cls(client.ApiClient(settings), namespace=OWN_NAMESPACE.read_text(), context="")

    def every(self, path: str, **query: str) -> list[Json]:
        """Return the objects of a list with kind and apiVersion. Raises CommandError."""
        found = self.get(path, **query)
        kind = str(found.get("kind", "")).removesuffix("List")
        version = found.get("apiVersion", "v1")
        return [{"apiVersion": version, "kind": kind, **one} for one in found.get("items") or ()]

    def get(self, path: str, **query: str) -> Json:
        """Return one object or a whole list. Raises CommandError, MissingError."""
        found: Json = json.loads(self.text("GET", path, query=query))
        return found

    def patch(self, path: str, body: Json, *, form: str, **query: str) -> Json:
        """Change an object and return it. Raises CommandError, RefusedError, MissingError."""
        query = {"fieldManager": FIELD_MANAGER, **query}
        done: Json = json.loads(self.text("PATCH", path, query=query, body=body, form=form))
        return done

    def text(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Json | None = None,
        form: str = "",
    ) -> str:
        """Return what a request is answered with. Raises CommandError."""
        asked = f"{path}?{urllib.parse.urlencode(query)}" if query else path
        header = {"Accept": "application/json, */*", **({"Content-Type": form} if form else {})}
        try:
            method, url, headers, _, _ = self._sender.param_serialize(
                method, asked, header_params=header, auth_settings=["BearerToken"]
            )
            reply = self._sender.call_api(
                method, url, headers, body=body, _request_timeout=TIMEOUT_S
            )
            content = reply.read().decode("utf8", "replace")
        except (urllib3.exceptions.HTTPError, client.ApiException, OSError) as error:
            raise self._silent(error) from None
        if reply.status >= 400:
            raise refusal(int(reply.status), path, content, server=self._server)
        return str(content)

    def _silent(self, error: Exception) -> UnreachableError:
        why = getattr(error, "reason", None) or error
        said = _ERRNO.sub("", str(why).rpartition(": ")[2]) or type(why).__name__
        return UnreachableError(
            f"{self._server} does not answer ({said.lower()}); "
            "is the cluster up? name another by --context or --kubeconfig"
        )

    @property
    def _server(self) -> str:
        return f"{self._sender.configuration.host}{self._whose}"


def refusal(status: int, path: str, content: str, *, server: str) -> CommandError:
    """Return in one line what an API server's refusal means, and what to do."""
    message, details = _told(content)
    if status == 404 and path.startswith(WEIR) and not details.get("name"):
        return CommandError(
            f"{server} has no Weir: it does not know {GROUP_VERSION}; install the chart "
            "(helm install weir charts/weir -n weir-system --create-namespace)"
        )
    if status == 404:
        return MissingError(message)
    if status == 401:
        return CommandError(
            f"{server} does not know who asks ({message}): log in again, or name another --context"
        )
    if status == 500 and UNTYPED in message:
        return RefusedError(message, status=status, causes=[])
    if status >= 500 or status == 429:
        return UnreachableError(f"{server} cannot answer now (HTTP {status}): {message}")
    hint = f"; {ROLES}" if status == 403 and GROUP in path else ""
    return RefusedError(f"{message}{hint}", status=status, causes=list(details.get("causes") or ()))


def path_to(kind: str, namespace: str = "", name: str = "") -> str:
    """Return the path of a kind of Weir's: of all, of a namespace, or of one object."""
    scope = f"/namespaces/{quoted(namespace)}" if namespace else ""
    return f"{WEIR}{scope}/{PLURALS[kind]}{f'/{quoted(name)}' if name else ''}"


def quoted(part: str) -> str:
    """Return a part of a path, whatever was typed."""
    return urllib.parse.quote(part, safe="")


def _unnamed(error: Exception, kubeconfig: str | None) -> str:
    where = kubeconfig or os.environ.get("KUBECONFIG") or "~/.kube/config"
    there = any(Path(one).expanduser().exists() for one in where.split(os.pathsep) if one)
    why = " ".join(str(error).split()) if there else "no such file"
    return f"kubeconfig {where}: {why}; name one that has a cluster by --kubeconfig or KUBECONFIG"


def _told(content: str) -> tuple[str, Mapping[str, Any]]:
    """Return the message and details of a Status, or the text itself in one line."""
    try:
        told = json.loads(content)
        return str(told["message"]), told.get("details") or {}
    except (ValueError, KeyError, TypeError):
        return " ".join(content.split())[:300], {}
