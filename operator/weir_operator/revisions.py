"""ModelRevisions as objects: of a route's behaviour, and of what a backend runs.

Pure. A revision is owned, not controlled, by what it is of and by all that use it, so it goes
with the last of them and holds nothing up. Its spec is written once: what the cluster has is
kept as it is, only the owners follow.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from weir_core.errors import Problem
from weir_core.resources import ModelBackend, from_object, title_of_object
from weir_core.revision_spec import (
    BackendContent,
    RevisionOf,
    backend_content,
    backend_of,
    read_revision,
    revision_object,
)
from weir_operator.objects import (
    BACKEND,
    IDENTITY,
    ROUTE,
    Obj,
    common_labels,
    metadata,
    owner_of,
)


class StoredBackend(msgspec.Struct, frozen=True):
    """What a backend's revision holds: the backend as it was, and the pods as rendered then."""

    backend: ModelBackend
    template: Obj


def route_revision(
    route: Mapping[str, Any],
    *,
    name: str,
    content: str,
    backends: Sequence[Mapping[str, Any]] = (),
    labels: Mapping[str, str] | None = None,
    known: Mapping[str, Any] | None = None,
) -> Obj:
    """Return the ModelRevision of a route's behaviour, owned by the route and its backends.

    So a route that is deleted and applied again finds its history as long as a backend is there.
    `labels` are further ones; `known` is the revision as the cluster has it, None before it is
    written.
    """
    labels = {**(labels or {}), **common_labels("revision"), ROUTE: route["metadata"]["name"]}
    made = revision_object(
        kind="Route",
        name=name,
        namespace=route["metadata"]["namespace"],
        of=_of(route),
        content=content,
    )
    return _owned(made, labels, [route, *backends], known)


def backend_revision(
    backend: Mapping[str, Any],
    *,
    identity: str,
    template: Obj,
    routes: Sequence[Mapping[str, Any]] = (),
    known: Mapping[str, Any] | None = None,
) -> Obj:
    """Return the ModelRevision of what a backend runs, owned by it and the routes that use it.

    `backend` is the object that people wrote, `template` its pods as rendered now; both are
    passed over where the cluster has the revision (`known`).
    """
    name = backend["metadata"]["name"]
    labels = common_labels("revision") | {BACKEND: name, IDENTITY: identity}
    made = revision_object(
        kind="Backend",
        name=identity,
        namespace=backend["metadata"]["namespace"],
        of=_of(backend),
        content=backend_content(BackendContent(spec=backend["spec"], pod_template=template)),
    )
    return _owned(made, labels, [backend, *routes], known)


def adopted(known: Mapping[str, Any], owners: Iterable[Mapping[str, Any]]) -> Obj:
    """Return a revision of the cluster with these owners, for what it is of may be gone."""
    made = {name: known[name] for name in ("apiVersion", "kind", "metadata", "spec")}
    return _owned(made, known["metadata"].get("labels") or {}, owners, known)


def stored_backend(revision: Mapping[str, Any]) -> StoredBackend | Problem:
    """Return what a backend's revision holds, or why it must not be used."""
    spec = read_revision(revision)
    if isinstance(spec, Problem):
        return spec
    title = title_of_object(revision)
    if spec.kind != "Backend":
        return Problem(object=title, field="spec.kind", seen=spec.kind, wanted="Backend")
    try:
        content = backend_of(spec)
    except msgspec.DecodeError as error:
        return Problem(object=title, field="spec.content", seen=str(error), wanted="a backend")
    found = from_object(
        {
            "apiVersion": revision["apiVersion"],
            "kind": "ModelBackend",
            "metadata": {
                "name": spec.of.name,
                "namespace": revision["metadata"]["namespace"],
                "uid": spec.of.uid,
            },
            "spec": content.spec,
        }
    )
    if isinstance(found, tuple):
        return replace(found[0], object=title, field=f"spec.content: {found[0].field}")
    assert isinstance(found, ModelBackend), "the kind is written above"
    return StoredBackend(found, content.pod_template)


def stored_template(revision: Mapping[str, Any] | None) -> Obj | None:
    """Return the pod template that a backend's revision holds, None without a sound one."""
    found = stored_backend(revision) if revision is not None else None
    return found.template if isinstance(found, StoredBackend) else None


def _of(obj: Mapping[str, Any]) -> RevisionOf:
    return RevisionOf(name=obj["metadata"]["name"], uid=obj["metadata"]["uid"])


def _owned(
    made: Obj,
    labels: Mapping[str, str],
    owners: Iterable[Mapping[str, Any]],
    known: Mapping[str, Any] | None,
) -> Obj:
    unique = {owner.uid: owner for owner in map(owner_of, owners)}
    meta = made["metadata"]
    spec = made["spec"] if known is None else known["spec"]
    return {
        **made,
        "metadata": metadata(
            meta["name"], meta["namespace"], labels, owners=tuple(unique.values())
        ),
        "spec": spec,
    }
