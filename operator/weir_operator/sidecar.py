"""The router beside an application: one template, put into pods by two hands.

`sidecar_patch` does it for `kubectl weir inject`, `admission_policy` lets the API server itself
do it to pods that ask by their label. Both are made of the same container and volumes. Sidecars
carry no keys of providers: external tiers go through the router Service.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from weir_operator.objects import COMPONENT, MANAGER, PART_OF, ROUTER, Obj
from weir_operator.routers import NAME, RouterSettings, container, probes, volumes

PORT, MANAGEMENT_PORT = 8089, 8088
"""On 127.0.0.1 for the application, and for the kubelet's probes; 8080 and 8081 are often taken."""
BASE_URL = "OPENAI_BASE_URL"
"""What the application's containers get, unless they set it themselves."""
POLICY = "weir-sidecar"
LABEL = {ROUTER: "sidecar"}


def sidecar(settings: RouterSettings) -> tuple[Obj, list[Obj]]:
    """Return the native sidecar's container and the volumes that it needs.

    It has no readiness probe: an application is not taken out of its Service because its router
    has nothing to route yet.
    """
    environment = [
        {"name": "WEIR_SIDECAR", "value": "1"},
        {"name": "WEIR_HOST", "value": "127.0.0.1"},
        {"name": "WEIR_PORT", "value": str(PORT)},
        {"name": "WEIR_MANAGEMENT_PORT", "value": str(MANAGEMENT_PORT)},
    ]
    told = container(settings, environment, settings.sidecar_resources)
    return told | {"restartPolicy": "Always"} | probes(MANAGEMENT_PORT), volumes()


def base_url() -> Obj:
    """Return the variable by which an application finds its router."""
    return {"name": BASE_URL, "value": f"http://127.0.0.1:{PORT}/v1"}


def sidecar_patch(pod: Mapping[str, Any], settings: RouterSettings) -> Obj:
    """Return a pod, or a pod template, with the router in it; once is as good as twice."""
    made, mounted = sidecar(settings)
    meta, spec = dict(pod.get("metadata") or {}), dict(pod.get("spec") or {})
    meta["labels"] = {**(meta.get("labels") or {}), **LABEL}
    spec["initContainers"] = [made, *_others(spec.get("initContainers"), [made])]
    spec["volumes"] = [*_others(spec.get("volumes"), mounted), *mounted]
    spec["containers"] = [_with_url(one) for one in spec.get("containers") or ()]
    return {**pod, "metadata": meta, "spec": spec}


def admission_policy(
    settings: RouterSettings, *, version: str = "admissionregistration.k8s.io/v1"
) -> list[Obj]:
    """Return the MutatingAdmissionPolicy and its binding.

    `failurePolicy: Fail` holds for labelled pods alone: none of them ever starts without its
    router and talks to the outside instead. Beside `version`, Kubernetes 1.34 and 1.35 know
    v1beta1 where it is switched on.
    """
    policy = {
        "matchConstraints": {
            "matchPolicy": "Equivalent",
            "objectSelector": {"matchLabels": LABEL},
            "resourceRules": [
                {
                    "apiGroups": [""],
                    "apiVersions": ["v1"],
                    "operations": ["CREATE"],
                    "resources": ["pods"],
                }
            ],
        },
        "matchConditions": [
            {
                "name": "no-router-yet",
                "expression": "!has(object.spec.initContainers) || "
                f"!object.spec.initContainers.exists(c, c.name == {_literal(NAME)})",
            }
        ],
        "failurePolicy": "Fail",
        "reinvocationPolicy": "Never",
        "mutations": [
            {"patchType": "JSONPatch", "jsonPatch": {"expression": expression}}
            for expression in (_insertion(*sidecar(settings)), _urls())
        ],
    }
    return [
        _cluster_object(version, "MutatingAdmissionPolicy", policy),
        _cluster_object(version, "MutatingAdmissionPolicyBinding", {"policyName": POLICY}),
    ]


def cel(value: Any) -> str:
    """Return plain data as a CEL expression.

    Every value is `dyn`: CEL's maps and lists are of one type, and typed objects with lists of
    objects in them break the API server (Kubernetes 1.36).
    """
    if isinstance(value, Mapping):
        inner = ", ".join(f"{_literal(name)}: {cel(one)}" for name, one in value.items())
        return f"dyn({{{inner}}})"
    if isinstance(value, list | tuple):
        return f"dyn([{', '.join(map(cel, value))}])"
    return f"dyn({_literal(value)})"


def _literal(value: Any) -> str:
    """Return a JSON scalar, which CEL writes alike."""
    return json.dumps(value, ensure_ascii=False)


def _insertion(made: Obj, mounted: Sequence[Obj]) -> str:
    """Return CEL that puts the router first, and its volumes last, into lists that may be none."""
    added = [_patch("/spec/initContainers/0", cel(made))]
    added += [_patch("/spec/volumes/-", cel(volume)) for volume in mounted]
    lists = [
        f"(has(object.spec.{name}) ? [] : [{_patch(f'/spec/{name}', '[]')}])"
        for name in ("initContainers", "volumes")
    ]
    inserted = "[\n  " + ",\n  ".join(added) + "\n]"
    return " +\n".join([*lists, inserted])


def _urls() -> str:
    """Return CEL that adds the base URL to each container that does not set it itself."""
    at = '"/spec/containers/" + string(i) + "/env'
    lists = f'JSONPatch{{op: "add", path: {at}", value: []}}'
    added = f'JSONPatch{{op: "add", path: {at}/-", value: {cel(base_url())}}}'
    unset = f"!has(c.env) || !c.env.exists(e, e.name == {_literal(BASE_URL)})"
    return (
        f"object.spec.containers.transformList(i, c, !has(c.env), {lists}) +\n"
        f"object.spec.containers.transformList(i, c, {unset}, {added})"
    )


def _patch(path: str, value: str) -> str:
    return f'JSONPatch{{op: "add", path: {_literal(path)}, value: {value}}}'


def _cluster_object(version: str, kind: str, spec: Obj) -> Obj:
    meta = {"name": POLICY, "labels": {PART_OF: MANAGER, COMPONENT: "router"}}
    return {"apiVersion": version, "kind": kind, "metadata": meta, "spec": spec}


def _others(items: Sequence[Obj] | None, made: Sequence[Obj]) -> list[Obj]:
    names = {one["name"] for one in made}
    return [one for one in items or () if one.get("name") not in names]


def _with_url(one: Mapping[str, Any]) -> Obj:
    environment = list(one.get("env") or ())
    if any(variable.get("name") == BASE_URL for variable in environment):
        return dict(one)
    return {**one, "env": [*environment, base_url()]}
