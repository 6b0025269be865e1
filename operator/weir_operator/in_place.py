"""When an edit that is neutral goes into the pods of a model server that runs.

At once, unless it would end a server that answers before another one can begin: the new pods
might never come, for a Secret that is missing or a node that has no such label. Pure.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from weir_core import reasons
from weir_core.errors import Problem
from weir_core.resources import ModelBackend, title_of
from weir_operator.drift import MAX_FIELDS, differing
from weir_operator.objects import Obj
from weir_operator.overlay import CONTAINER
from weir_operator.workloads import (
    RENDERED,
    Rendering,
    WorkloadSettings,
    digest_of,
    is_scarce,
    rendered_now,
)

RESTARTED = "kubectl.kubernetes.io/restartedAt"
"""Annotation of pods by which `kubectl rollout restart` has them made anew."""


def rendering_for(
    backend: ModelBackend,
    live: Mapping[str, Any] | None,
    *,
    identity: str,
    newest: bool,
    answering: bool = False,
    settings: WorkloadSettings | None = None,
    stored: Obj | None = None,
) -> tuple[Rendering, tuple[str, ...]]:
    """Return the pods that an identity's Deployment should have, and the fields that wait.

    The newest identity follows its spec; while that and the chart's settings stay, what was
    rendered last stays too, so that upgrading Weir restarts no model server. An older identity
    stays as it was last applied, without a Deployment as its ModelRevision `stored` it.

    While one is `answering` and must end before another can begin, what it was rendered as stays
    until people have its pods made anew: the new pods might never come.
    """
    settings = settings or WorkloadSettings()
    known, restarted = _last_rendered(live), _restarted(live)
    if known is not None and not newest:
        return replace(known, restarted=restarted), ()
    if not newest and stored:
        return Rendering(of=digest_of(backend, settings), template=stored), ()
    if known is not None and known.of == digest_of(backend, settings):
        return replace(known, restarted=restarted), ()
    now = replace(rendered_now(backend, identity, settings), restarted=restarted)
    if known is None or not answering or not is_scarce(backend) or restarted != known.restarted:
        return now, ()
    fields = differing(known.template, now.template)
    return (known, fields) if fields else (now, ())


def deferral(backend: ModelBackend, identity: str, fields: Sequence[str]) -> Problem:
    """Return that an edit in place waits, of which `fields` of the pods, and how to force it."""
    namespace = backend.metadata.namespace
    told = ", ".join(fields[:MAX_FIELDS])
    more = f" and {len(fields) - MAX_FIELDS} more" if len(fields) > MAX_FIELDS else ""
    return Problem(
        object=title_of(backend),
        field="spec.vllm",
        seen=f"an edit of {told}{more} in pods of {identity}, which answers and whose devices "
        "a new pod would wait for",
        wanted="nobody to lose a server that answers: the edit is applied when none does, or at "
        f"once by `kubectl rollout restart deployment/{identity} --namespace {namespace}`; an edit "
        "of image or args makes a second server beside it instead",
        reason=reasons.EDIT_DEFERRED,
        condition="WorkloadReady",
    )


def answers(deployment: Mapping[str, Any] | None, pods: Iterable[Mapping[str, Any]]) -> bool:
    """Return whether an identity has a server that is ready, or was and still runs.

    One that is busy or hangs may be not ready for a moment; its weights are loaded all the same.
    """
    ready = ((deployment or {}).get("status") or {}).get("readyReplicas")
    return bool(ready) or any(map(has_started, pods))


def has_started(pod: Mapping[str, Any]) -> bool:
    """Return whether a pod's model server runs and has answered its startup probe."""
    containers = (pod.get("status") or {}).get("containerStatuses") or ()
    return any(one.get("started") for one in containers if one.get("name") == CONTAINER)


def _last_rendered(live: Mapping[str, Any] | None) -> Rendering | None:
    """Return what a Deployment's annotation says, None when it has no sound one."""
    annotations = ((live or {}).get("metadata") or {}).get("annotations") or {}
    try:
        found = msgspec.json.decode(annotations.get(RENDERED, ""), type=Rendering)
    except msgspec.DecodeError:
        return None
    return found if "spec" in found.template else None


def _restarted(live: Mapping[str, Any] | None) -> str:
    """Return when people last had a Deployment's pods made anew, "" for never."""
    template = ((live or {}).get("spec") or {}).get("template") or {}
    annotations = (template.get("metadata") or {}).get("annotations") or {}
    return str(annotations.get(RESTARTED, ""))
