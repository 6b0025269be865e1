"""What keeps a model server from being ready, in the kubelet's word and a sentence that helps.

Pods say only what happened; here is also what to do about it. Pure: a namespace as gathered in,
(reason, message) out.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from weir_core.figures import duration
from weir_operator.gather import World, ready
from weir_operator.overlay import CONTAINER

Obj = dict[str, Any]
Told = tuple[str, str]
"""(reason, message)."""

CRASHING, OUT_OF_MEMORY, TOO_SLOW = "CrashLoopBackOff", "OOMKilled", "StartupBudgetExceeded"
UNSCHEDULABLE, NO_PODS = "Unschedulable", "FailedCreate"
PULLING = {"ErrImagePull": "ImagePullBackOff"}
"""Words of the kubelet's that take turns: one is told."""
BEGINNING = (None, "ContainerCreating", "PodInitializing")
"""Why a container waits when all is well."""
LOADING = "Loading"
NEW_S = 35.0
"""Longer than a router rests between two tries of a backend that failed it (`upstreams`)."""
BEGIN_S = 5.0
"""From a pod's begin until the kubelet has said that it is not ready yet."""
SLACK_S = 15
"""What a kubelet may be late by."""
MAX_SAID = 300
"""Characters of what Kubernetes says."""

_IMAGE = "correct spec.vllm.image, or give the nodes that image (imagePullSecrets: podTemplate)"
ADVICE = {
    UNSCHEDULABLE: "it starts by itself when a node has room; spec.vllm.accelerator, replicas and "
    "podTemplate say what it asks for",
    NO_PODS: "raise the quota or mend what the message names; it is tried again by itself",
    "ImagePullBackOff": _IMAGE,
    "ErrImageNeverPull": _IMAGE,
    "InvalidImageName": _IMAGE,
    "CreateContainerConfigError": "make what is missing in this namespace (it then starts by "
    "itself), or correct spec.vllm",
    OUT_OF_MEMORY: "give it more memory: resources of container vllm in spec.vllm.podTemplate",
    TOO_SLOW: "raise spec.vllm.startup.budget if loading takes longer",
    CRASHING: "correct spec.model or spec.vllm",
}
"""What a person can do about each."""
CLAIM, NO_VOLUME = (
    "persistentvolumeclaim",
    (
        "make that PersistentVolumeClaim in this namespace (it then starts by itself), or correct "
        "spec.model.uri or spec.vllm.weightsCache"
    ),
)


def trouble(world: World, identity: str) -> Told:
    """Return (reason, message) of what keeps an identity's pods from being ready, ("", "")."""
    if identity in world.parked:
        return world.parked[identity]
    pods = world.served.get(identity, ())
    found = next((told for pod in pods for told in _of_pod(pod)), None)
    if found is None and not pods:
        found = _of_deployment(world.deployments.get(identity) or {})
    if found is None:
        return "", ""
    reason, message = found
    advice = NO_VOLUME if CLAIM in message else ADVICE.get(reason)
    return reason, f"{message}; {advice}" if advice else message


def loading(world: World, identity: str, *, budget_s: float) -> Told:
    """Return since when pods without trouble have been loading, and for how long they may."""
    starts = [
        str((pod.get("status") or {}).get("startTime"))
        for pod in world.served.get(identity, ())
        if not ready(pod) and (pod.get("status") or {}).get("startTime")
    ]
    since = f"loading since {min(starts)}" if starts else "its pods are being made"
    return LOADING, f"{since}; spec.vllm.startup.budget is {duration(budget_s)}"


def load_s(world: World, identity: str, *, budget_s: float) -> float | None:
    """Return how long the model took to load: from its container's start until the pod was ready.

    The shortest of the pods, since one may have turned ready again later; None while not known.
    """
    ready_pods = [pod for pod in world.served.get(identity, ()) if ready(pod)]
    took = (_ready_since_s(pod) - _server_began_s(pod) for pod in ready_pods)
    return min((one for one in took if 0 <= one <= budget_s + SLACK_S), default=None)


def _server_began_s(pod: Obj) -> float:
    """Return since when the model server's container runs, Unix seconds; 0 where it does not."""
    containers = (pod.get("status") or {}).get("containerStatuses") or ()
    server: Obj = next((one for one in containers if one.get("name") == CONTAINER), {})
    running = (server.get("state") or {}).get("running") or {}
    return _seconds(running.get("startedAt"))


def newly_ready(world: World, identity: str, *, now_s: float) -> bool:
    """Return whether an identity has pods, none of them ready for as long as NEW_S.

    A router that met them while they loaded rests before it tries them again.
    """
    pods = world.served.get(identity, ())
    since_s = (_ready_since_s(pod) for pod in pods if ready(pod))
    return bool(pods) and all(now_s - at_s < NEW_S for at_s in since_s)


def was_ready(pod: Obj) -> bool:
    """Return whether a pod is ready or was: else it turned unready as it began, and never since."""
    began_s = _seconds((pod.get("status") or {}).get("startTime"))
    return ready(pod) or _ready_since_s(pod) - began_s > BEGIN_S


def _ready_since_s(pod: Obj) -> float:
    """Return since when a pod is ready, or is not, Unix seconds; 0 where it does not say."""
    conditions = (pod.get("status") or {}).get("conditions") or ()
    told: Obj = next((one for one in conditions if one.get("type") == "Ready"), {})
    return _seconds(told.get("lastTransitionTime"))


def _seconds(instant: object) -> float:
    try:
        return datetime.fromisoformat(str(instant)).timestamp()
    except ValueError:
        return 0.0


def _of_deployment(deployment: Obj) -> Told | None:
    """Return why no pod can be made: a quota, a ServiceAccount that is not there."""
    for one in (deployment.get("status") or {}).get("conditions") or ():
        if one.get("type") == "ReplicaFailure" and one.get("status") == "True":
            return NO_PODS, f"no pod could be made: {_said(one)}"
    return None


def _of_pod(pod: Obj) -> Iterator[Told]:
    status = pod.get("status") or {}
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            said = _said(condition)
            where = "no volume" if CLAIM in said else "no node"
            yield UNSCHEDULABLE, f"{where} for the pod: {said}"
    for kind in ("initContainerStatuses", "containerStatuses"):
        for container in status.get(kind) or ():
            yield from _of_container(pod, container)


def _of_container(pod: Obj, container: Obj) -> Iterator[Told]:
    now, before = container.get("state") or {}, container.get("lastState") or {}
    ended = now.get("terminated") or before.get("terminated") or {}
    if ended and not container.get("ready"):
        yield _ended(pod, container, ended)
    waiting = now.get("waiting") or {}
    reason = waiting.get("reason")
    if reason not in BEGINNING:
        yield PULLING.get(reason, reason), _said(waiting) or f"the container waits: {reason}"


def _ended(pod: Obj, container: Obj, ended: Mapping[str, Any]) -> Told:
    """Return how a server ends again and again, in the same words before and after a restart."""
    meta = pod["metadata"]
    code = ended.get("exitCode")
    if ended.get("reason") == "OOMKilled":
        return OUT_OF_MEMORY, f"the server took more memory than it may (exit code {code})"
    budget_s = _budget_s(pod, str(container.get("name")))
    grace_s = int((pod.get("spec") or {}).get("terminationGracePeriodSeconds") or 0)
    # Longer than that it had answered once: the kubelet ends those for other reasons.
    in_time = budget_s <= _lasted_s(ended) <= budget_s + grace_s + SLACK_S
    if budget_s and in_time and not container.get("started"):
        return TOO_SLOW, f"the server did not answer within {budget_s} s and was ended"
    lines = str(ended.get("message") or "").strip().splitlines()
    said = f": {lines[-1][:200]}" if lines else ""
    log = f"kubectl logs -n {meta.get('namespace')} {meta.get('name')} --previous"
    return CRASHING, f"the server ended with exit code {code}{said}; its log: `{log}`"


def _budget_s(pod: Obj, name: str) -> int:
    """Return for how long a container's startup probe lets it load, 0 for no bound."""
    containers = (pod.get("spec") or {}).get("containers") or ()
    probe = next((one.get("startupProbe") for one in containers if one.get("name") == name), None)
    probe = probe or {}
    return int(probe.get("periodSeconds", 10)) * int(probe.get("failureThreshold", 0))


def _lasted_s(ended: Mapping[str, Any]) -> float:
    try:
        began, end = (
            datetime.fromisoformat(str(ended.get(one))) for one in ("startedAt", "finishedAt")
        )
    except ValueError:
        return 0.0
    return (end - began).total_seconds()


def _said(what: Mapping[str, Any]) -> str:
    return str(what.get("message") or "")[:MAX_SAID].rstrip(" .")
