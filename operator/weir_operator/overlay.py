"""`spec.vllm.podTemplate`: laid over the pod that Weir makes, and what it may not reach for.

The operator makes pods with its own rights, so whoever may write a ModelBackend could otherwise
run as any account, read any Secret and reach any node of the namespace. Each refusal names the
field; the chart may allow a kind of it. What Weir's own Service, probes and identity hang on is
refused always.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args

import msgspec

from weir_core.errors import Problem
from weir_operator.objects import COMPONENT, GROUP, MANAGED_BY, PART_OF, key_of, keys_of

CONTAINER = "vllm"
"""The container that Weir makes; an overlay's container of that name is laid over it."""

Permission = Literal["HostNamespaces", "HostPath", "Privileged", "Secrets", "ServiceAccount"]
PERMISSIONS: tuple[Permission, ...] = get_args(Permission)

_UNITED = frozenset({"tolerations"})
"""Lists without keys that an overlay adds to instead of replacing."""

_POD_FIELDS: Mapping[str, Permission] = {
    "serviceAccountName": "ServiceAccount",
    "serviceAccount": "ServiceAccount",
    "automountServiceAccountToken": "ServiceAccount",
    "hostNetwork": "HostNamespaces",
    "hostPID": "HostNamespaces",
    "hostIPC": "HostNamespaces",
}
_SECURITY_FIELDS = (
    "privileged",
    "allowPrivilegeEscalation",
    "procMount",
    "seLinuxOptions",
    "sysctls",
    "windowsOptions",
)
_APPARMOR = "container.apparmor.security.beta.kubernetes.io/"
_VOLUMES = frozenset(
    {
        "configMap",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "image",
        "name",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
)
"""What volumes may be of; every other kind reaches beyond the namespace."""

_QUANTITY = re.compile(r"\+?([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?")
"""What Kubernetes takes as an amount, 0 or more: the API server's own refusal names no field."""

_OWNED_CONTAINER = {
    "image": "spec.vllm.image says it",
    "args": "spec.vllm.args says it",
}
_OWNED_ENV = {
    "VLLM_API_KEY": "routers call without a key, and keys do not belong in specs",
    "VLLM_SERVER_DEV_MODE": "it opens paths that change the server under its users",
    "HF_TOKEN": "spec.vllm.huggingFaceToken says it",
    "HUGGING_FACE_HUB_TOKEN": "spec.vllm.huggingFaceToken says it",
}


class _Found(msgspec.Struct, frozen=True):
    """One refusal; without a permission it is refused always."""

    field: str
    seen: str
    wanted: str
    permission: Permission | None = None


def overlay_problems(
    template: Mapping[str, Any],
    *,
    title: str,
    at: str = "spec.vllm.podTemplate",
    allow: frozenset[str] = frozenset(),
    secrets: frozenset[str] = frozenset(),
) -> tuple[Problem, ...]:
    """Return what an overlay may not have.

    `allow` is what the chart permits, `secrets` are names that the backend itself gives already.
    """
    found = list(_shapes(template, at))
    if not found:
        found = [one for one in _found(template, at, secrets) if one.permission not in allow]
    return tuple(
        Problem(
            object=title,
            field=one.field,
            seen=one.seen,
            wanted=one.wanted,
            reason="NotAllowed" if one.permission else "Invalid",
        )
        for one in found
    )


def laid_over(base: Any, overlay: Any, field: str = "") -> Any:
    """Return `base` with an overlay on it.

    Objects are merged, lists with keys item by item (containers and volumes by name), tolerations
    added, other lists and values replaced; null takes a field away.
    """
    if isinstance(base, Mapping) and isinstance(overlay, Mapping):
        told = dict(base)
        for name, value in overlay.items():
            if value is None:
                told.pop(name, None)
            else:
                told[name] = laid_over(base.get(name), value, name)
        return told
    if isinstance(overlay, Mapping):
        return laid_over({}, overlay)
    if isinstance(overlay, list | tuple):
        return _list_over(base if isinstance(base, list) else [], list(overlay), field)
    return overlay


def _list_over(base: list[Any], overlay: list[Any], field: str) -> list[Any]:
    if field in _UNITED:
        return base + [one for one in overlay if one not in base]
    keys = keys_of(field, [*base, *overlay])
    if keys is None:
        return [laid_over({}, one) if isinstance(one, Mapping) else one for one in overlay]
    told = {key_of(one, keys): one for one in base}
    for one in overlay:
        told[key_of(one, keys)] = laid_over(told.get(key_of(one, keys), {}), one)
    return list(told.values())


def _shapes(template: Mapping[str, Any], at: str) -> Iterator[_Found]:
    """Find what cannot be laid over a pod at all."""
    for name, value in template.items():
        if name not in ("metadata", "spec"):
            yield _Found(f"{at}.{name}", f"'{name}'", "metadata and spec alone")
        elif not isinstance(value, Mapping):
            yield _Found(f"{at}.{name}", _kind(value), "an object")
    spec = template.get("spec")
    for name in ("containers", "initContainers", "volumes"):
        items = spec.get(name) if isinstance(spec, Mapping) else None
        if items is not None and not isinstance(items, list):
            yield _Found(f"{at}.spec.{name}", _kind(items), "a list")
        for place, item in enumerate(items if isinstance(items, list) else ()):
            if not isinstance(item, Mapping) or not isinstance(item.get("name"), str):
                path = f"{at}.spec.{name}[{place}]"
                yield _Found(path, "an item without a name", "each with its name")


def _found(template: Mapping[str, Any], at: str, secrets: frozenset[str]) -> Iterator[_Found]:
    yield from _metadata(_child(template, "metadata"), f"{at}.metadata")
    spec, path = _child(template, "spec"), f"{at}.spec"
    for name, permission in _POD_FIELDS.items():
        if spec.get(name):
            yield _refused(f"{path}.{name}", spec[name], permission)
    yield from _security(_child(spec, "securityContext"), f"{path}.securityContext")
    for place, volume in enumerate(spec.get("volumes") or ()):
        yield from _volume(volume, f"{path}.volumes[{place}]", secrets)
    for name in ("initContainers", "containers"):
        for place, container in enumerate(spec.get(name) or ()):
            yield from _container(container, f"{path}.{name}[{place}]", secrets)
            if name == "containers" and container["name"] == CONTAINER:
                yield from _own_container(container, f"{path}.{name}[{place}]")


def _metadata(raw: Mapping[str, Any], path: str) -> Iterator[_Found]:
    for name in raw:
        if name not in ("labels", "annotations"):
            yield _Found(f"{path}.{name}", f"'{name}'", "labels and annotations alone")
    for name in _child(raw, "labels"):
        if name.startswith(f"{GROUP}/") or name in (MANAGED_BY, PART_OF, COMPONENT):
            wanted = "labels of your own: Weir's selectors go by this one"
            yield _Found(f"{path}.labels", f"'{name}'", wanted)
    for name, value in _child(raw, "annotations").items():
        if name.startswith(_APPARMOR) and value == "unconfined":
            yield _refused(f"{path}.annotations", value, "Privileged")


def _security(raw: Mapping[str, Any], path: str) -> Iterator[_Found]:
    for name in _SECURITY_FIELDS:
        if raw.get(name):
            yield _refused(f"{path}.{name}", raw[name], "Privileged")
    if _child(raw, "capabilities").get("add"):
        yield _refused(f"{path}.capabilities.add", raw["capabilities"]["add"], "Privileged")
    for name in ("seccompProfile", "appArmorProfile"):
        if _child(raw, name).get("type") == "Unconfined":
            yield _refused(f"{path}.{name}.type", "Unconfined", "Privileged")


def _volume(raw: Mapping[str, Any], path: str, secrets: frozenset[str]) -> Iterator[_Found]:
    for name in raw:
        if name == "csi":
            # Drivers of inline volumes hand out secrets of other stores.
            yield _refused(f"{path}.csi", raw[name], "Secrets")
        elif name not in _VOLUMES:
            yield _refused(f"{path}.{name}", raw[name], "HostPath")
    if (size := _child(raw, "emptyDir").get("sizeLimit")) is not None:
        yield from _amount(size, f"{path}.emptyDir.sizeLimit")
    secret = _child(raw, "secret")
    if secret and secret.get("secretName") not in secrets:
        yield _refused(f"{path}.secret", secret.get("secretName"), "Secrets")
    sources = _child(raw, "projected").get("sources")
    for place, source in enumerate(sources if isinstance(sources, list) else ()):
        at = f"{path}.projected.sources[{place}]"
        if _child(source, "secret") and source["secret"].get("name") not in secrets:
            yield _refused(f"{at}.secret", source["secret"].get("name"), "Secrets")
        for name in ("serviceAccountToken", "podCertificate"):
            if _child(source, name):
                yield _refused(f"{at}.{name}", {}, "ServiceAccount")


def _container(raw: Mapping[str, Any], path: str, secrets: frozenset[str]) -> Iterator[_Found]:
    yield from _security(_child(raw, "securityContext"), f"{path}.securityContext")
    for kind in ("requests", "limits"):
        for resource, amount in _child(_child(raw, "resources"), kind).items():
            yield from _amount(amount, f"{path}.resources.{kind}.{resource}")
    for place, port in enumerate(_items(raw, "ports")):
        if port.get("hostPort"):
            field = f"{path}.ports[{place}].hostPort"
            yield _refused(field, port["hostPort"], "HostNamespaces")
    for place, source in enumerate(_items(raw, "envFrom")):
        name = _child(source, "secretRef").get("name")
        if name and name not in secrets:
            yield _refused(f"{path}.envFrom[{place}].secretRef", name, "Secrets")
    for place, variable in enumerate(_items(raw, "env")):
        name = _child(_child(variable, "valueFrom"), "secretKeyRef").get("name")
        if name and name not in secrets:
            yield _refused(f"{path}.env[{place}].valueFrom.secretKeyRef", name, "Secrets")


def _amount(value: Any, field: str) -> Iterator[_Found]:
    if value is not None and not _QUANTITY.fullmatch(str(value)):
        yield _Found(field, _kind(value), "an amount such as 500m, 2 or 1.5Gi")


def _own_container(raw: Mapping[str, Any], path: str) -> Iterator[_Found]:
    for name, why in _OWNED_CONTAINER.items():
        if name in raw:
            yield _Found(f"{path}.{name}", _kind(raw[name]), f"no {name}: {why}")
    for place, variable in enumerate(_items(raw, "env")):
        owned = variable.get("name")
        if owned in _OWNED_ENV:
            wanted = f"no {owned}: {_OWNED_ENV[owned]}"
            yield _Found(f"{path}.env[{place}]", f"'{owned}'", wanted)


def _refused(field: str, value: Any, permission: Permission) -> _Found:
    name = field.rpartition(".")[2]
    wanted = f"no {name}, unless the chart's podTemplate.allow has {permission}"
    return _Found(field, _kind(value), wanted, permission)


def _kind(value: Any) -> str:
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    return str(value).lower() if isinstance(value, bool) else f"'{str(value)[:60]}'"


def _child(raw: Any, name: str) -> Mapping[str, Any]:
    found = raw.get(name) if isinstance(raw, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _items(raw: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    found = raw.get(name)
    return [one for one in found if isinstance(one, Mapping)] if isinstance(found, list) else []
