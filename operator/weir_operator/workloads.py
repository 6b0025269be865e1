"""From a backend to the objects that run it: Deployment, headless Service, disruption budget.

Pure: resolved spec in, objects for server-side apply out. All are named by the backend's
identity, which `weir_core.identity` decides; what it calls neutral shows in the pods too. It
refuses to know which identities should run (`backends`), when an edit of them goes in
(`in_place`) and how objects get into the cluster.
"""

import math

import msgspec

from weir_core.backend_spec import Accelerator, Vllm
from weir_core.canonical import canonical, hex_of
from weir_core.crosscheck import ENDING_MS
from weir_core.defaults import DEFAULTS
from weir_core.errors import Problem
from weir_core.identity import PORT
from weir_core.resources import ModelBackend, title_of
from weir_operator.flags import MODEL_DIR, arguments, device_problems, weights_of
from weir_operator.objects import (
    BACKEND,
    GROUP,
    IDENTITY,
    Obj,
    Owner,
    common_labels,
    metadata,
    stamped,
)
from weir_operator.overlay import CONTAINER, Permission, laid_over, overlay_problems

RENDERED = f"{GROUP}/rendered"
"""Annotation of a Deployment: its `Rendering`."""

HOME = "/home/vllm"
"""Home of vLLM's own user, 2000:0, in its images; every cache of vLLM's is below it."""
CACHE_DIR = "/weights"
PROBE_S = 10
PULL_MARGIN_S = 600
"""Beside the startup budget: time for the image, which the budget does not count."""


class WorkloadSettings(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What the chart says of model servers.

    `allow` is what overlays may reach for. `run_as_user` and `run_as_group` None leave the user
    to the image (and to OpenShift).
    """

    allow: tuple[Permission, ...] = ()
    run_as_user: int | None = 2000
    run_as_group: int | None = 0


class Rendering(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A pod template as rendered, and the digest of what it is `of`.

    `restarted` is when people last had the pods made anew, in kubectl's words.
    """

    of: str
    template: Obj
    restarted: str = ""


def workload_problems(
    backend: ModelBackend, settings: WorkloadSettings | None = None
) -> tuple[Problem, ...]:
    """Return why a backend's pods must not be made; nothing of it may be applied then."""
    settings = settings or WorkloadSettings()
    vllm = backend.spec.vllm
    if vllm is None:
        return ()
    token = vllm.hugging_face_token
    overlay = overlay_problems(
        vllm.pod_template or {},
        title=title_of(backend),
        allow=frozenset(settings.allow),
        secrets=frozenset({token.secret_key_ref.name} if token else ()),
    )
    return (*device_problems(backend, vllm), *overlay)


def identity_objects(
    backend: ModelBackend,
    *,
    revision: Owner,
    settings: WorkloadSettings | None = None,
    replicas: int | None = None,
    rendering: Rendering | None = None,
) -> list[Obj]:
    """Return what runs a backend of vllm, named by and belonging to its ModelRevision.

    `replicas` None is as the spec says; `rendering` has the pod template to run
    (`in_place`), None one that is rendered now. The backend has no `workload_problems`.
    """
    settings = settings or WorkloadSettings()
    identity = revision.name
    rendering = rendering or rendered_now(backend, identity, settings)
    labels = _labels(backend, identity)
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(
            identity,
            backend.metadata.namespace,
            labels,
            controller=revision,
            annotations={RENDERED: msgspec.json.encode(rendering, order="sorted").decode()},
        ),
        "spec": _deployment_spec(backend, identity, replicas, rendering.template),
    }
    service = _service(backend, identity, labels, revision)
    budget = _budget(backend, identity, labels, revision)
    return [stamped(one) for one in (service, budget, deployment)]


def render_template(
    backend: ModelBackend, *, identity: str, settings: WorkloadSettings | None = None
) -> Obj:
    """Return the pod template of a backend of vllm, its overlay included."""
    settings = settings or WorkloadSettings()
    vllm = backend.spec.vllm
    assert vllm is not None, "only a vllm backend has pods"
    template = {
        "metadata": {"labels": _labels(backend, identity)},
        "spec": {
            "automountServiceAccountToken": False,
            # A Service called "vllm" would set VLLM_PORT, which vLLM takes for its own.
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": _grace_s(vllm),
            "securityContext": _pod_security(settings),
            "containers": [_container(backend, vllm)],
            "volumes": _volumes(backend, vllm),
            **_placement(vllm.accelerator),
        },
    }
    told: Obj = laid_over(template, vllm.pod_template or {})
    return told


def digest_of(backend: ModelBackend, settings: WorkloadSettings) -> str:
    """Return what tells one wish for pods from another, whichever release of Weir reads it."""
    spec = backend.spec.model_dump(
        mode="json", by_alias=True, include={"model", "vllm"}, exclude_none=True
    )
    return hex_of(canonical({"spec": spec, "settings": settings}))


def rendered_now(backend: ModelBackend, identity: str, settings: WorkloadSettings) -> Rendering:
    """Return the pods of a backend of vllm as this release of Weir renders them."""
    template = render_template(backend, identity=identity, settings=settings)
    return Rendering(of=digest_of(backend, settings), template=template)


def is_scarce(backend: ModelBackend) -> bool:
    """Return whether a pod must end before another one can have its devices."""
    accelerator = backend.spec.vllm.accelerator if backend.spec.vllm else None
    return accelerator is not None and accelerator.count > 0


def _labels(backend: ModelBackend, identity: str) -> dict[str, str]:
    return common_labels("backend") | {BACKEND: backend.metadata.name, IDENTITY: identity}


def _deployment_spec(
    backend: ModelBackend, identity: str, replicas: int | None, template: Obj
) -> Obj:
    vllm = backend.spec.vllm
    assert vllm is not None, "only a vllm backend has pods"
    if replicas is None:
        replicas = DEFAULTS.replicas if backend.spec.replicas is None else backend.spec.replicas
    scarce = is_scarce(backend)
    return {
        "replicas": replicas,
        "revisionHistoryLimit": 2,
        "progressDeadlineSeconds": _seconds(_budget_ms(vllm)) + PULL_MARGIN_S,
        # A surge would wait for devices that the old pod holds.
        "strategy": {
            "type": "RollingUpdate",
            "rollingUpdate": {"maxSurge": int(not scarce), "maxUnavailable": int(scarce)},
        },
        "selector": {"matchLabels": {IDENTITY: identity}},
        "template": template,
    }


def _service(backend: ModelBackend, identity: str, labels: dict[str, str], owner: Owner) -> Obj:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(identity, backend.metadata.namespace, labels, controller=owner),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": False,
            "selector": {IDENTITY: identity},
            "ports": [{"name": "http", "port": PORT, "targetPort": "http", "protocol": "TCP"}],
        },
    }


def _budget(backend: ModelBackend, identity: str, labels: dict[str, str], owner: Owner) -> Obj:
    """Return the disruption budget: one pod at a time.

    With one replica that lets every drain pass: it cannot be protected without blocking nodes
    for ever. Pods that are not ready may always go, so a crash loop blocks no node either.
    """
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(identity, backend.metadata.namespace, labels, controller=owner),
        "spec": {
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": {IDENTITY: identity}},
        },
    }


def _pod_security(settings: WorkloadSettings) -> Obj:
    told: Obj = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    if settings.run_as_user is not None:
        told["runAsUser"] = settings.run_as_user
    if settings.run_as_group is not None:
        told |= {"runAsGroup": settings.run_as_group, "fsGroup": settings.run_as_group}
        told["fsGroupChangePolicy"] = "OnRootMismatch"
    return told


def _container(backend: ModelBackend, vllm: Vllm) -> Obj:
    grace_s, delay_s = _grace_s(vllm), _delay_s(vllm)
    health = {"httpGet": {"path": "/health", "port": "http"}, "periodSeconds": PROBE_S}
    told: Obj = {
        "name": CONTAINER,
        "image": vllm.image,
        "command": ["vllm", "serve"],
        "args": arguments(backend, shutdown_s=max(1, grace_s - delay_s - _seconds(ENDING_MS))),
        "env": _environment(vllm),
        "ports": [{"name": "http", "containerPort": PORT, "protocol": "TCP"}],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
        "startupProbe": health
        | {
            "timeoutSeconds": 5,
            "failureThreshold": math.ceil(_budget_ms(vllm) / 1000 / PROBE_S),
        },
        "readinessProbe": health | {"periodSeconds": 5, "timeoutSeconds": 5, "failureThreshold": 3},
        # A saturated server answers slowly; a restart would only add the time of a load.
        "livenessProbe": health | {"timeoutSeconds": 10, "failureThreshold": 12},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": _mounts(backend, vllm),
    }
    if delay_s:
        told["lifecycle"] = {"preStop": {"sleep": {"seconds": delay_s}}}
    if vllm.accelerator is not None and vllm.accelerator.count:
        devices = {vllm.accelerator.resource_name: str(vllm.accelerator.count)}
        told["resources"] = {"limits": devices, "requests": dict(devices)}
    return told


def _environment(vllm: Vllm) -> list[Obj]:
    told: list[Obj] = [
        {"name": "HOME", "value": HOME},
        # The user may be none of the image's; PyTorch asks for a name.
        {"name": "USER", "value": "vllm"},
        {"name": "VLLM_NO_USAGE_STATS", "value": "1"},
    ]
    if vllm.weights_cache is not None:
        told.append({"name": "HF_HOME", "value": CACHE_DIR})
    if vllm.hugging_face_token is not None:
        key = vllm.hugging_face_token.secret_key_ref
        ref = {"secretKeyRef": {"name": key.name, "key": key.key}}
        told.append({"name": "HF_TOKEN", "valueFrom": ref})
    return told


def _mounts(backend: ModelBackend, vllm: Vllm) -> list[Obj]:
    told: list[Obj] = [
        {"name": "shm", "mountPath": "/dev/shm"},
        {"name": "home", "mountPath": HOME},
    ]
    if vllm.weights_cache is not None:
        told.append({"name": "weights", "mountPath": CACHE_DIR})
    weights = weights_of(backend.spec.model.uri or "", backend.spec.model.revision or "")
    if weights.claim or weights.image:
        told.append({"name": "model", "mountPath": MODEL_DIR, "readOnly": True})
    return told


def _volumes(backend: ModelBackend, vllm: Vllm) -> list[Obj]:
    size = vllm.shared_memory or DEFAULTS.shared_memory
    told: list[Obj] = [
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": size}},
        {"name": "home", "emptyDir": {}},
    ]
    if vllm.weights_cache is not None:
        claim = vllm.weights_cache.persistent_volume_claim.claim_name
        told.append({"name": "weights", "persistentVolumeClaim": {"claimName": claim}})
    weights = weights_of(backend.spec.model.uri or "", backend.spec.model.revision or "")
    if weights.claim:
        claimed = {"claimName": weights.claim, "readOnly": True}
        told.append({"name": "model", "persistentVolumeClaim": claimed})
    if weights.image:
        image = {"reference": weights.image, "pullPolicy": "IfNotPresent"}
        told.append({"name": "model", "image": image})
    return told


def _placement(accelerator: Accelerator | None) -> Obj:
    told: Obj = {}
    if accelerator is None:
        return told
    if accelerator.node_selector:
        told["nodeSelector"] = dict(accelerator.node_selector)
    if accelerator.count:
        # Nodes with devices are commonly tainted by the name of the resource.
        key = accelerator.resource_name
        told["tolerations"] = [{"key": key, "operator": "Exists", "effect": "NoSchedule"}]
    return told


def _budget_ms(vllm: Vllm) -> int:
    return vllm.startup.budget_ms if vllm.startup else DEFAULTS.startup_budget_ms


def _delay_s(vllm: Vllm) -> int:
    told = vllm.drain.pre_stop_delay_ms if vllm.drain else None
    return _seconds(DEFAULTS.pre_stop_delay_ms if told is None else told)


def _grace_s(vllm: Vllm) -> int:
    told = vllm.drain.grace_period_ms if vllm.drain else None
    return _seconds(DEFAULTS.grace_period_ms if told is None else told)


def _seconds(milliseconds: int) -> int:
    return math.ceil(milliseconds / 1000)
