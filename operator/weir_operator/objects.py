"""What every object that Weir makes has in common: its labels, its owners, and whose it is."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from weir_core.canonical import canonical, hex_of
from weir_core.errors import Problem
from weir_core.resources import title_of_object

Obj = dict[str, Any]

GROUP = "inference.weir.dev"
BACKEND, IDENTITY = f"{GROUP}/backend", f"{GROUP}/identity"
ROUTE, ROUTER = f"{GROUP}/route", f"{GROUP}/router"
MANAGED_BY = "app.kubernetes.io/managed-by"
PART_OF = "app.kubernetes.io/part-of"
COMPONENT = "app.kubernetes.io/component"
MANAGER = "weir"
ROUTER_NAME = "weir-router"
"""Of a namespace's router Deployment, and of its ServiceAccount."""

APPLIED = f"{GROUP}/applied"
"""Annotation: digest of all that was applied, so that a field left out since counts as drift."""

Keys = tuple[str, ...]
MERGE_KEYS: Mapping[str, tuple[Keys, ...]] = {
    "containers": (("name",),),
    "env": (("name",),),
    "ephemeralContainers": (("name",),),
    "hostAliases": (("ip",),),
    "imagePullSecrets": (("name",),),
    "initContainers": (("name",),),
    "ownerReferences": (("uid",),),
    "ports": (("containerPort", "protocol"), ("port", "protocol")),
    "resourceClaims": (("name",),),
    "topologySpreadConstraints": (("topologyKey", "whenUnsatisfiable"),),
    "volumeDevices": (("devicePath",),),
    "volumeMounts": (("mountPath",),),
    "volumes": (("name",),),
}
"""Lists whose items the API server knows by these fields; every other list is one value."""
_KEY_DEFAULTS = {"protocol": "TCP"}


class Owner(msgspec.Struct, frozen=True, kw_only=True):
    """An object that others belong to: with the last of its owners an object is removed."""

    api_version: str
    kind: str
    name: str
    uid: str

    def reference(self, *, controller: bool = False) -> Obj:
        """Return an owner reference. It never blocks the owner's deletion."""
        told: Obj = {
            "apiVersion": self.api_version,
            "kind": self.kind,
            "name": self.name,
            "uid": self.uid,
        }
        return told | {"controller": True} if controller else told


def owner_of(obj: Mapping[str, Any]) -> Owner:
    """Return an object of the API server as an owner."""
    meta = obj["metadata"]
    return Owner(
        api_version=obj["apiVersion"], kind=obj["kind"], name=meta["name"], uid=meta["uid"]
    )


def common_labels(component: str) -> dict[str, str]:
    """Return the labels of every object that Weir makes."""
    return {MANAGED_BY: MANAGER, PART_OF: MANAGER, COMPONENT: component}


def metadata(
    name: str,
    namespace: str,
    labels: Mapping[str, str],
    *,
    owners: Sequence[Owner] = (),
    controller: Owner | None = None,
    annotations: Mapping[str, str] | None = None,
) -> Obj:
    """Return an object's metadata; `owners` share it, `controller` has it alone."""
    told: Obj = {"name": name, "namespace": namespace, "labels": dict(labels)}
    if annotations:
        told["annotations"] = dict(annotations)
    references = [owner.reference() for owner in sorted(owners, key=lambda one: one.uid)]
    if controller is not None:
        references.append(controller.reference(controller=True))
    if references:
        told["ownerReferences"] = references
    return told


def stamped(obj: Obj) -> Obj:
    """Return an object with the digest of itself as an annotation."""
    meta = obj["metadata"]
    annotations = {**meta.get("annotations", {}), APPLIED: hex_of(canonical(obj))}
    return {**obj, "metadata": {**meta, "annotations": annotations}}


def foreign(obj: Mapping[str, Any], expected_owner_uid: str = "") -> Problem | None:
    """Return why an object that has a name of Weir's must not be written over.

    Weir's are those that the expected owner owns, and labelled ones without another owner (as a
    restored backup has them). Without an expected owner the label alone decides.
    """
    meta = obj.get("metadata") or {}
    owners = meta.get("ownerReferences") or []
    labelled = (meta.get("labels") or {}).get(MANAGED_BY) == MANAGER
    if expected_owner_uid and any(one.get("uid") == expected_owner_uid for one in owners):
        return None
    if labelled and not (expected_owner_uid and owners):
        return None
    seen = f"one without the label {MANAGED_BY}: {MANAGER}"
    if labelled:
        seen = "one of another owner: " + ", ".join(
            f"{one.get('kind')} {one.get('name')}" for one in owners
        )
    return Problem(
        object=title_of_object(obj),
        field="metadata.name",
        seen=seen,
        wanted="a free name: delete that object, or name what Weir makes it for differently",
        reason="ForeignObject",
    )


def is_router(pod: Obj) -> bool:
    """Return whether a pod is one of its namespace's router Deployment, not only labelled so.

    Its label, its controller and its ServiceAccount say so: what else calls itself a router may
    not connect, so nothing may wait for it.
    """
    meta = pod["metadata"]
    return (
        (meta.get("labels") or {}).get(ROUTER) == "deployment"
        and (pod.get("spec") or {}).get("serviceAccountName") == ROUTER_NAME
        and any(_is_router_set(owner) for owner in meta.get("ownerReferences") or ())
    )


def _is_router_set(owner: Obj) -> bool:
    """Return whether an owner is the controller, and a ReplicaSet of the router Deployment."""
    return bool(
        owner.get("controller")
        and owner.get("kind") == "ReplicaSet"
        and str(owner.get("apiVersion", "")).startswith("apps/")
        and str(owner.get("name", "")).rpartition("-")[0] == ROUTER_NAME
    )


def keys_of(field: str, items: Sequence[Any]) -> Keys | None:
    """Return the fields that a list's items are known by, None for a list that is one value."""
    for keys in MERGE_KEYS.get(field, ()):
        if all(isinstance(one, Mapping) and keys[0] in one for one in items):
            return keys
    return None


def key_of(item: Mapping[str, Any], keys: Keys) -> tuple[str, ...]:
    """Return what an item of a list is known by, as text, since people may write anything."""
    return tuple(str(item.get(key, _KEY_DEFAULTS.get(key))) for key in keys)
