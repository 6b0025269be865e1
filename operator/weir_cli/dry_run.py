"""What a cluster says against manifests before they are applied: its schemas, its objects.

Every object is applied as a dry run, so nothing changes; what the API server refuses comes back as
problems of the files. References are looked up in the cluster where the files do not have them.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from weir_cli.errors import CommandError, MissingError
from weir_cli.kube import APPLY, Api, RefusedError, path_to, quoted
from weir_cli.objects import GROUP_VERSION, Obj
from weir_core.errors import Problem
from weir_core.manifests import Written
from weir_core.resources import (
    DEFAULT_NAMESPACE,
    KINDS,
    ModelRoute,
    Resource,
    from_object,
    title_of,
    title_of_object,
)
from weir_operator.gather import calibrations

NEW = "9999"
"""The creationTimestamp of routes that are not in the cluster: they claim no name of older ones."""
DRY = {"dryRun": "All", "force": "true", "fieldValidation": "Strict"}
_CAUSE = re.compile(
    r'([A-Z][a-z ]+?)(?:: ("(?:[^"\\]|\\.)*"|-?[\d.]+|true|false|null))?(?:: (?:wanted )?(.*))?',
    re.S,
)
_SEEN = {"Required value": "nothing", "Forbidden": "what is forbidden"}
_TYPED = re.compile(r"failed to create typed patch object .*?:\s+(?:errors:\s+)?(\..*)", re.S)
_TYPED_FIELD = re.compile(r"^\s*\.(\S+): (.*)$", re.M)
"""What server-side apply says of a field that its schema does not have, or has otherwise."""


def beside(api: Api, written: Sequence[Written]) -> list[Obj]:
    """Return the cluster's routes, backends and calibrations in the namespaces of the files."""
    found: list[Obj] = []
    for namespace in sorted({_namespace(one.value) for one in written}):
        routes = api.every(path_to("ModelRoute", namespace))
        found += [*routes, *api.every(path_to("ModelBackend", namespace))]
        own = [one.value for one in written if _namespace(one.value) == namespace]
        wanted = calibrations([*routes, *(one for one in own if _kind(one) == "ModelRoute")])
        for name in sorted(wanted):
            try:
                obj = api.get(f"/api/v1/namespaces/{quoted(namespace)}/configmaps/{quoted(name)}")
            except MissingError:
                continue
            found.append({"apiVersion": "v1", "kind": "ConfigMap", **obj})
    return found


def joined(own: Iterable[Resource], standing: Iterable[Obj]) -> tuple[list[Resource], set[str]]:
    """Return the files' resources with those of the cluster, and the titles that the latter have.

    Of an object that both have the files' counts, with the age that it has in the cluster.
    """
    created = {
        title_of_object(one): one["metadata"].get("creationTimestamp", "") for one in standing
    }
    made = {title_of(one): _aged(one, created.get(title_of(one), NEW)) for one in own}
    for one in standing:
        read = from_object({name: value for name, value in one.items() if name != "status"})
        if not isinstance(read, tuple):
            made.setdefault(title_of(read), read)
    return list(made.values()), set(created)


def refusals(api: Api, written: Iterable[Written]) -> list[Problem]:
    """Return what the API server says against objects of Weir's kinds, with file and line."""
    problems = []
    for one in written:
        path = _path(one.value)
        if not path:
            continue
        try:
            api.patch(path, _plain(one.value), form=APPLY, **DRY)
        except RefusedError as refused:
            if refused.status in (401, 403):
                hint = "--offline leaves the API server out"
                raise CommandError(f"{one.source.of('')}: {refused}; {hint}") from None
            problems += refused_fields(one, str(refused), refused.causes)
        except MissingError as missing:
            problems.append(_problem(one, "metadata.namespace", str(missing), "one that is there"))
    return problems


def refused_fields(
    one: Written, message: str, causes: Sequence[Mapping[str, Any]]
) -> list[Problem]:
    """Return one problem for each field that the API server names, or one for all."""
    # Of no field is alone that more rules may follow once the others are mended.
    causes = [cause for cause in causes if cause.get("field") != "<nil>"] or causes
    if causes:
        return [_of_cause(one, cause) for cause in causes]
    found = _TYPED.search(message)
    if found:
        wanted = "what the CRD's schema has there"
        fields = _TYPED_FIELD.findall(found[1])
        return [_problem(one, field, seen[:200], wanted) for field, seen in fields]
    return [_problem(one, "", message, "an object that it takes")]


def further(found: Iterable[Problem], known: Sequence[Problem]) -> list[Problem]:
    """Return the problems at other fields than those where the object has one already."""
    places = {(one.object, one.field) for one in known}
    return [one for one in found if not _is_at(one, places)]


def _is_at(problem: Problem, places: set[tuple[str, str]]) -> bool:
    """Whether a place is known: the very field, one inside it, or one that it is in.

    The API server tells of a rule at the object that has it, which may be all of `spec`.
    """
    for title, field in places:
        if title == problem.object and (
            field == problem.field
            or field.startswith((f"{problem.field}.", f"{problem.field}["))
            or (field and problem.field.startswith((f"{field}.", f"{field}[")))
        ):
            return True
    return False


def _of_cause(one: Written, cause: Mapping[str, Any]) -> Problem:
    message = " ".join(str(cause.get("message", "")).split())
    field = str(cause.get("field", ""))
    found = _CAUSE.fullmatch(message)
    if found is None:
        return _problem(one, field, message, "an object that it takes")
    what, value, wanted = found.groups()
    seen = value or _SEEN.get(what, f"an {what.lower()}")
    return _problem(one, field, seen, wanted or "a value that it takes")


def _problem(one: Written, field: str, seen: str, wanted: str) -> Problem:
    return Problem(
        object=title_of_object(one.value),
        field=field,
        seen=seen,
        wanted=f"(by the API server) {wanted}",
        source=one.source.of(field),
    )


def _aged(resource: Resource, created: str) -> Resource:
    if not isinstance(resource, ModelRoute):
        return resource
    metadata = resource.metadata.model_copy(update={"creation_timestamp": created})
    return resource.model_copy(update={"metadata": metadata})


def _plain(obj: Obj) -> dict[str, Any]:
    """Return an object as a person would apply it: a server's own fields are not sent back."""
    kept = ("name", "namespace", "labels", "annotations")
    meta = {name: obj["metadata"][name] for name in kept if name in obj["metadata"]}
    return {**{name: one for name, one in obj.items() if name != "status"}, "metadata": meta}


def _path(obj: Any) -> str:
    """Return where an object is applied to, "" for one that cannot be."""
    kind, metadata = _kind(obj), obj.get("metadata") if isinstance(obj, dict) else None
    name = metadata.get("name") if isinstance(metadata, dict) else None
    if kind not in KINDS or not isinstance(name, str) or not name:
        return ""
    namespace = _namespace(obj)
    if kind == "ConfigMap":
        return f"/api/v1/namespaces/{quoted(namespace)}/configmaps/{quoted(name)}"
    return path_to(kind, namespace, name) if obj.get("apiVersion") == GROUP_VERSION else ""


def _kind(obj: Any) -> str:
    kind = obj.get("kind") if isinstance(obj, dict) else None
    return kind if isinstance(kind, str) else ""


def _namespace(obj: Any) -> str:
    metadata = obj.get("metadata") if isinstance(obj, dict) else None
    namespace = metadata.get("namespace") if isinstance(metadata, dict) else None
    return namespace if isinstance(namespace, str) and namespace else DEFAULT_NAMESPACE
