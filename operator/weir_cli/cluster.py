"""A cluster as the commands ask it: what stands in Weir's objects, and commands by annotation.

Nothing is asked of the operator itself: it reads the annotation and answers in the status.
"""

import argparse
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

from weir_cli.errors import CommandError, MissingError, UnreachableError
from weir_cli.kube import MERGE_PATCH, Api, RefusedError, path_to, quoted
from weir_cli.objects import created_s, key_of, whole
from weir_cli.sources import Json
from weir_core.commands import Command, Verb, command_text, parse_command
from weir_core.errors import Problem

COMMAND = "inference.weir.dev/command"
ROUTE_LABEL = "inference.weir.dev/route"
PATIENCE_S = 15.0
"""How long a command waits for the operator; it walks a namespace every second or so."""
LOOK_S = 0.2
FRESH_S = 5.0
"""How long what was listed around a route is good for while the route itself stays as it was."""


class Cluster:
    """One cluster, one namespace of it, or ("" for `namespace`) all of it."""

    def __init__(self, api: Api, namespace: str) -> None:
        self._api = api
        self._namespace = namespace
        self._last: tuple[str, float, Json] | None = None

    @classmethod
    def of(cls, args: argparse.Namespace) -> "Cluster":
        """Connect as the command's options say. Raises CommandError."""
        api = Api.connect(kubeconfig=args.kubeconfig, context=args.context)
        if getattr(args, "all_namespaces", False):
            return cls(api, "")
        return cls(api, args.namespace or api.namespace)

    @property
    def spaced(self) -> bool:
        """Namespaces are shown where all are listed, as kubectl does."""
        return not self._namespace

    @property
    def where(self) -> str:
        """Return where is looked, in words."""
        return f"in namespace {self._namespace}" if self._namespace else "in any namespace"

    def statuses(self, names: Sequence[str] = ()) -> Json:
        """Return the statuses of the namespace's routes, or of those that are named."""
        found = self.objects("ModelRoute", names)
        return {
            "routes": {key_of(one): whole(one.get("status")) for one in found},
            "created": {key_of(one): created_s(one) for one in found},
            "objects": {key_of(one): one for one in found},
            "problems": [],
        }

    def objects(self, kind: str, names: Sequence[str] = ()) -> list[Json]:
        """Return the namespace's objects of a kind, or those that are named."""
        if names:
            return [self._object(kind, *self._split(kind, name)) for name in names]
        found = self._api.every(path_to(kind, self._namespace))
        return [_without_managers(one) for one in found]

    def key(self, name: str) -> str:
        """Return which route is meant. Raises MissingError where there is none."""
        namespace, bare = self._split("ModelRoute", name)
        self._object("ModelRoute", namespace, bare)
        return f"{namespace}/{bare}"

    def route(self, key: str) -> Json:
        """Return all about one route."""
        from weir_cli.told import told_of
        from weir_cli.totals import asked, summed, unheard

        namespace, _, name = key.partition("/")
        obj = self._object("ModelRoute", namespace, name)
        version, now_s = obj["metadata"]["resourceVersion"], time.monotonic()
        if self._last is not None:
            seen, at_s, told = self._last
            if seen == version and now_s - at_s < FRESH_S:
                return told
        notes: list[str] = []
        routers = asked(self._api, namespace, key)
        told = told_of(
            obj,
            revisions=self._revisions(namespace, name),
            events=self._events(obj, notes),
            backends=self._api.every(path_to("ModelBackend", namespace)),
            totals=summed(one.tiers for one in routers) if routers else None,
        )
        gives = (told["status"].get("weight") or {}).get("set", "0%") != "0%"
        told["problems"] += notes + (unheard(routers, gives=gives) if routers else [])
        self._last = (version, now_s, told)
        return told

    def command(self, key: str, *, verb: Verb, revision: str, full: bool) -> Json:
        """Write a command on the route and wait until the operator has acknowledged it."""
        command = Command(verb=verb, revision=revision, full=full, issued_s=time.time())
        text = command_text(command)
        read = parse_command(text, object=f"ModelRoute {key}")
        if isinstance(read, Problem):
            raise CommandError(read.sentence(), code=2)
        namespace, _, name = key.partition("/")
        path = path_to("ModelRoute", namespace, name)
        change = {"metadata": {"annotations": {COMMAND: text}}}
        self._api.patch(path, change, form=MERGE_PATCH)
        end_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < end_s:
            # The command stands; who cannot be asked for a moment is asked again.
            with suppress(UnreachableError):
                done = acknowledgement(self._api.get(path), text)
                if done is not None:
                    return done
            time.sleep(LOOK_S)
        raise CommandError(
            f"{key}: {text} stands on the object, but no operator acknowledged it within "
            f"{PATIENCE_S:.0f} s: is one running (kubectl get deployments -A -l "
            "app.kubernetes.io/component=operator), and does it serve this namespace? One that "
            "comes within 5 minutes still obeys it"
        )

    def explain(self, body: str, headers: Mapping[str, str]) -> Json:
        """Return what routers would decide by the revisions that serve in the namespace."""
        from weir_cli.told import saved_route
        from weir_core.snapshot import Snapshot
        from weir_router.explain import explain
        from weir_router.standing import policy_of
        from weir_router.table import empty

        oldest_first = sorted(self.objects("ModelRoute"), key=created_s)
        known = self._revisions(self._namespace)
        policies = [
            policy_of(saved_route(one, of_route(known, one["metadata"]["name"])))
            for one in oldest_first
        ]
        snapshot = Snapshot(routes=tuple(one for one in policies if one is not None))
        told = explain(empty().next(snapshot, ()), body.encode(errors="replace"), dict(headers))
        if told.get("refused", {}).get("code") == "model_not_found":
            told["refused"]["why"] += f" {self.where}"
        return told

    def _split(self, kind: str, name: str) -> tuple[str, str]:
        namespace, slash, bare = name.partition("/")
        if slash:
            return namespace, bare
        if self._namespace:
            return self._namespace, name
        keys = [f"{one['metadata']['namespace']}/{name}" for one in self._named(kind, name)]
        if len(keys) > 1:
            raise CommandError(f"{name} is ambiguous, wanted one of {', '.join(keys)}", code=2)
        if not keys:
            raise MissingError(f"no {kind} {name} in any namespace")
        return keys[0].partition("/")[0], name

    def _named(self, kind: str, name: str) -> list[Json]:
        return self._api.every(path_to(kind), fieldSelector=f"metadata.name={name}")

    def _object(self, kind: str, namespace: str, name: str) -> Json:
        """Return one object. Raises MissingError with the names that there are."""
        try:
            return _without_managers(self._api.get(path_to(kind, namespace, name)))
        except MissingError:
            known = [one["metadata"]["name"] for one in self._api.every(path_to(kind, namespace))]
        there = ", ".join(sorted(known)) or "none"
        raise MissingError(f"no {kind} {name} in namespace {namespace}; there is {there}")

    def _revisions(self, namespace: str, route: str = "") -> list[Json]:
        selector = {"labelSelector": f"{ROUTE_LABEL}={route}" if route else ROUTE_LABEL}
        return self._api.every(path_to("ModelRevision", namespace), **selector)

    def _events(self, obj: Json, notes: list[str]) -> list[Json]:
        """Return the Events about a route; who may not list them hears of it."""
        meta = obj["metadata"]
        path = f"/api/v1/namespaces/{quoted(meta['namespace'])}/events"
        try:
            return self._api.every(path, fieldSelector=f"involvedObject.uid={meta['uid']}")
        except RefusedError as refused:
            notes.append(f"events are not shown: {refused}")
            return []


def acknowledgement(obj: Json, text: str) -> Json | None:
    """Return what came of the command `text`, None as long as nothing did.

    Raises CommandError where another command has taken its place on the object.
    """
    last = (obj.get("status") or {}).get("lastCommand") or {}
    if last.get("command") == text:
        return {"result": last["result"], "message": last["message"]}
    stands = (obj["metadata"].get("annotations") or {}).get(COMMAND, "")
    if stands != text:
        instead = f"{stands} took its place" if stands else "somebody took it away"
        raise CommandError(f"{text} was not acknowledged: {instead}")
    return None


def of_route(revisions: Sequence[Json], name: str) -> list[Json]:
    """Return the ModelRevisions of one route."""
    return [one for one in revisions if one["metadata"]["labels"].get(ROUTE_LABEL) == name]


def _without_managers(obj: Json) -> Json:
    """Return an object as kubectl shows it."""
    meta = {name: value for name, value in obj["metadata"].items() if name != "managedFields"}
    return {**obj, "metadata": meta}
