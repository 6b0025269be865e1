"""From a namespace that has routes to its routers: Deployment, Services, budget, snapshot.

Pure. One object stands for all of them, the ServiceAccount (`anchor`): every ModelRoute of the
namespace owns it, and it owns the rest. So the cluster's own garbage collector removes all of it
after the last route, operator or not, and a namespace of a thousand routes writes their names
into one object only. Nothing here has a finalizer. It refuses to know what a snapshot says.
"""

import base64
import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from weir_core import reasons
from weir_core.errors import Problem
from weir_operator.objects import ROUTER, Obj, Owner, common_labels, metadata, stamped

NAME, PODS, SNAPSHOT, KEYS = (
    "weir-router",
    "weir-router-pods",
    "weir-router-snapshot",
    "weir-router-keys",
)
"""Of the Deployment and what goes with it, the headless Service, the ConfigMap, the Secret."""

PORT, MANAGEMENT_PORT = 8080, 8081
AUDIENCE = "weir"
TOKEN_S = 3_600
SNAPSHOT_DIR = "/etc/weir/snapshot"
KEYS_DIR = "/etc/weir/keys"
STATE_DIR = "/var/lib/weir"
TOKEN_DIR = "/var/run/secrets/weir"
MAX_SNAPSHOT = 1 << 20
"""Bytes of all data that Kubernetes takes in one ConfigMap."""
ENDING_S = 10
"""Of the grace period: what is left after the longest deadline."""

SELECTOR = {ROUTER: "deployment"}


def _resources(cpu: str, *, requested: str, most: str) -> Obj:
    return {"requests": {"cpu": cpu, "memory": requested}, "limits": {"memory": most}}


class RouterSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the chart says of routers.

    `feed` is host:port of the operator. `grace_s` is the least time for requests in flight, from
    the end of a pod's readiness. `run_as_user` None leaves the user to the image. `sidecar_*` are
    of sidecars alone; `overrides` are other values of these fields, by namespace.
    """

    image: str
    feed: str
    command: tuple[str, ...] = ("python", "-m", "weir_router")
    image_pull_policy: str = "IfNotPresent"
    image_pull_secrets: tuple[Obj, ...] = ()
    replicas: int = 2
    resources: Obj = msgspec.field(
        default_factory=lambda: _resources("500m", requested="256Mi", most="1Gi")
    )
    sidecar_resources: Obj = msgspec.field(
        default_factory=lambda: _resources("50m", requested="128Mi", most="512Mi")
    )
    env: dict[str, str] = {}
    run_as_user: int | None = 65_532
    pre_stop_s: int = 5
    grace_s: int = 120
    node_selector: dict[str, str] = {}
    tolerations: tuple[Obj, ...] = ()
    affinity: Obj = {}
    priority_class_name: str = ""
    pod_labels: dict[str, str] = {}
    pod_annotations: dict[str, str] = {}
    service_type: str = "ClusterIP"
    service_annotations: dict[str, str] = {}
    overrides: dict[str, dict[str, Any]] = {}


def settings_for(settings: RouterSettings, namespace: str) -> RouterSettings:
    """Return the settings of one namespace. Raises msgspec.ValidationError that names a field."""
    changes = settings.overrides.get(namespace)
    if not changes:
        return settings
    fields = msgspec.structs.asdict(settings) | changes | {"overrides": {}}
    return msgspec.convert(fields, RouterSettings)


def anchor(namespace: str, routes: Sequence[Owner]) -> Obj:
    """Return the ServiceAccount, which every route owns. It must be applied first."""
    return stamped(
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": metadata(NAME, namespace, _labels(), owners=routes),
            "automountServiceAccountToken": False,
        }
    )


def router_objects(
    namespace: str, *, settings: RouterSettings, owner: Owner, deadline_ms: int = 0
) -> list[Obj]:
    """Return what routes a namespace's requests, belonging to the anchor.

    The snapshot comes before these: a volume of a ConfigMap that is not there yet is filled a
    minute late. `deadline_ms` is the longest of the namespace's routes.
    """
    settings = settings_for(settings, namespace)
    made: list[Obj] = [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": _metadata(NAME, namespace, owner, settings.service_annotations),
            "spec": {
                "type": settings.service_type,
                "selector": SELECTOR,
                "ports": [_port("http", 80, "http")],
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": _metadata(PODS, namespace, owner),
            "spec": {
                "clusterIP": "None",
                # Whoever asks every router how it does asks those that are not ready too.
                "publishNotReadyAddresses": True,
                "selector": SELECTOR,
                "ports": [_port("management", MANAGEMENT_PORT, "management")],
            },
        },
        {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": _metadata(NAME, namespace, owner),
            "spec": {
                "maxUnavailable": 1,
                "unhealthyPodEvictionPolicy": "AlwaysAllow",
                "selector": {"matchLabels": SELECTOR},
            },
        },
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": _metadata(NAME, namespace, owner),
            "spec": {
                "replicas": settings.replicas,
                "revisionHistoryLimit": 2,
                "strategy": {
                    "type": "RollingUpdate",
                    "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
                },
                "selector": {"matchLabels": SELECTOR},
                "template": _template(settings, deadline_ms),
            },
        },
    ]
    return [stamped(one) for one in made]


def snapshot_object(
    namespace: str, *, packed: bytes, authority: str, owner: Owner
) -> Obj | Problem:
    """Return the ConfigMap that a router starts from while it cannot reach the operator.

    `authority` is the PEM text of the certificates that the feed's is signed by. A snapshot that
    is too large is a Problem: the feed is not bound by it, so routers that run do not suffer.
    """
    size = len(packed) + len(authority.encode())
    if size > MAX_SNAPSHOT:
        return Problem(
            object=f"ConfigMap {namespace}/{SNAPSHOT}",
            field="binaryData.snapshot",
            seen=f"{size:,} bytes",
            wanted=f"at most {MAX_SNAPSHOT:,}: move some ModelRoutes to another namespace",
            reason=reasons.SNAPSHOT_TOO_LARGE,
            condition="Programmed",
        )
    return stamped(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": _metadata(SNAPSHOT, namespace, owner),
            "data": {"ca.crt": authority},
            "binaryData": {"snapshot": base64.b64encode(packed).decode()},
        }
    )


def grace_s(settings: RouterSettings, deadline_ms: int) -> int:
    """Return a termination grace period that the longest deadline fits in.

    It doubles rather than follow deadlines closely: a change of it replaces every router.
    """
    needed = settings.pre_stop_s + math.ceil(deadline_ms / 1000) + ENDING_S
    grace = settings.pre_stop_s + max(settings.grace_s, ENDING_S)
    while grace < needed:
        grace *= 2
    return grace


def container(settings: RouterSettings, environment: Sequence[Obj], resources: Obj) -> Obj:
    """Return a router's container as far as Deployments and sidecars agree."""
    return {
        "name": NAME,
        "image": settings.image,
        "imagePullPolicy": settings.image_pull_policy,
        "command": list(settings.command),
        "env": [
            _field("WEIR_NAMESPACE", "metadata.namespace"),
            _field("WEIR_POD_NAME", "metadata.name"),
            _field("WEIR_POD_UID", "metadata.uid"),
            _value("WEIR_FEED", settings.feed),
            _value("WEIR_SNAPSHOT_DIR", SNAPSHOT_DIR),
            _value("WEIR_TOKEN_FILE", f"{TOKEN_DIR}/token"),
            _value("WEIR_STATE_DIR", STATE_DIR),
            *environment,
            *(_value(name, text) for name, text in sorted(settings.env.items())),
        ],
        "resources": resources,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
            **({} if settings.run_as_user is None else {"runAsUser": settings.run_as_user}),
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": "weir-snapshot", "mountPath": SNAPSHOT_DIR, "readOnly": True},
            {"name": "weir-token", "mountPath": TOKEN_DIR, "readOnly": True},
            {"name": "weir-state", "mountPath": STATE_DIR},
        ],
    }


def volumes() -> list[Obj]:
    """Return the volumes that every router has."""
    token = {"audience": AUDIENCE, "expirationSeconds": TOKEN_S, "path": "token"}
    return [
        {"name": "weir-snapshot", "configMap": {"name": SNAPSHOT, "optional": True}},
        {"name": "weir-token", "projected": {"sources": [{"serviceAccountToken": token}]}},
        {"name": "weir-state", "emptyDir": {}},
    ]


def probes(port: int | str) -> Obj:
    """Return how a router is asked whether it has started and still lives."""
    alive = {"path": "/healthz", "port": port}
    return {
        "startupProbe": {
            "httpGet": dict(alive),
            "periodSeconds": 1,
            "timeoutSeconds": 5,
            "failureThreshold": 120,
        },
        "livenessProbe": {
            "httpGet": dict(alive),
            "periodSeconds": 10,
            "timeoutSeconds": 5,
            "failureThreshold": 6,
        },
    }


def _template(settings: RouterSettings, deadline_ms: int) -> Obj:
    ready = {"path": "/readyz", "port": "management"}
    environment = [
        _value("WEIR_KEYS_DIR", KEYS_DIR),
        _field("WEIR_POD_IP", "status.podIP"),
        _value("WEIR_PEERS", f"{PODS}:{MANAGEMENT_PORT}"),
    ]
    told = container(settings, environment, settings.resources)
    told |= probes("management") | {
        "readinessProbe": {"httpGet": ready, "periodSeconds": 2, "timeoutSeconds": 5},
        "ports": [
            {"name": "http", "containerPort": PORT, "protocol": "TCP"},
            {"name": "management", "containerPort": MANAGEMENT_PORT, "protocol": "TCP"},
        ],
        "volumeMounts": [
            *told["volumeMounts"],
            {"name": "weir-keys", "mountPath": KEYS_DIR, "readOnly": True},
        ],
    }
    if settings.pre_stop_s:
        told["lifecycle"] = {"preStop": {"sleep": {"seconds": settings.pre_stop_s}}}
    keys = {"name": "weir-keys", "secret": {"secretName": KEYS, "optional": True}}
    meta: Obj = {"labels": {**settings.pod_labels, **_labels(), **SELECTOR}}
    if settings.pod_annotations:
        meta["annotations"] = dict(settings.pod_annotations)
    spec: Obj = {
        "serviceAccountName": NAME,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": grace_s(settings, deadline_ms),
        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [told],
        "volumes": [*volumes(), keys],
        "topologySpreadConstraints": [
            _spread("kubernetes.io/hostname"),
            _spread("topology.kubernetes.io/zone"),
        ],
    }
    optional: Mapping[str, Any] = {
        "imagePullSecrets": list(settings.image_pull_secrets),
        "nodeSelector": settings.node_selector,
        "tolerations": list(settings.tolerations),
        "affinity": settings.affinity,
        "priorityClassName": settings.priority_class_name,
    }
    return {"metadata": meta, "spec": spec | {name: one for name, one in optional.items() if one}}


def _spread(key: str) -> Obj:
    return {
        "maxSkew": 1,
        "topologyKey": key,
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": SELECTOR},
    }


def _labels() -> dict[str, str]:
    return common_labels("router")


def _metadata(
    name: str, namespace: str, owner: Owner, annotations: Mapping[str, str] | None = None
) -> Obj:
    return metadata(name, namespace, _labels(), controller=owner, annotations=annotations)


def _port(name: str, port: int, target: str) -> Obj:
    return {"name": name, "port": port, "targetPort": target, "protocol": "TCP"}


def _field(name: str, path: str) -> Obj:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def _value(name: str, text: str) -> Obj:
    return {"name": name, "value": text}
