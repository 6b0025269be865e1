"""What a backend is: its identity, and the frozen facts that a revision of a route holds of it.

The identity changes with whatever could change an answer: model, image, flags, containers. What
only moves or sizes the pods (replicas, placement, probes, drain, limits) is neutral.
"""

from collections.abc import Mapping
from typing import Any

from weir_core.backend_spec import Pricing, Vllm
from weir_core.canonical import canonical, hex_of
from weir_core.defaults import DEFAULTS
from weir_core.forms import pico
from weir_core.resources import ModelBackend
from weir_core.snapshot import Backend, Limits

PORT = 8000
"""Of the headless Service of an identity that Weir runs."""

NEUTRAL_METADATA = frozenset({"labels"})
NEUTRAL_POD = frozenset(
    {
        "affinity",
        "imagePullSecrets",
        "nodeSelector",
        "priorityClassName",
        "schedulerName",
        "terminationGracePeriodSeconds",
        "tolerations",
        "topologySpreadConstraints",
    }
)
NEUTRAL_CONTAINER = frozenset(
    {"lifecycle", "livenessProbe", "readinessProbe", "startupProbe", "terminationMessagePolicy"}
)


def identity_of(backend: ModelBackend) -> str:
    """Return `<backend>-<10 hex>`, the same for whatever answers alike."""
    return f"{backend.metadata.name}-{hex_of(canonical(_content(backend)))}"


def frozen_backend(backend: ModelBackend) -> Backend:
    """Return the facts of a backend as a revision keeps them."""
    spec, identity = backend.spec, identity_of(backend)
    url = f"http://{identity}.{backend.metadata.namespace}.svc:{PORT}"
    key = ""
    if spec.external is not None:
        url = spec.external.url
        key = spec.external.api_key_ref.key if spec.external.api_key_ref else ""
    input_pico, output_pico = _prices(spec.pricing)
    return Backend(
        name=backend.metadata.name,
        identity=identity,
        url=url,
        model=spec.model.served_name,
        key=key,
        input_price_pico=input_pico,
        output_price_pico=output_pico,
        capabilities=_capabilities(spec.capabilities),
        context_window=spec.context_window or 0,
    )


def limits_of(backend: ModelBackend) -> Limits:
    """Return how much one router sends to a backend, an older identity of it included."""
    limits = backend.spec.limits
    queue = limits.queue if limits else None
    length = queue.max_length if queue else None
    wait_ms = queue.max_wait_ms if queue else None
    return Limits(
        max_in_flight=(limits and limits.max_in_flight) or DEFAULTS.max_in_flight,
        queue_length=DEFAULTS.queue_length if length is None else length,
        queue_wait_ms=DEFAULTS.queue_wait_ms if wait_ms is None else wait_ms,
    )


def _prices(pricing: Pricing | None) -> tuple[int, int]:
    """Return pico units per token of prompt and of answer."""
    if pricing is None:
        return 0, 0
    return (
        pico(pricing.input_per_million_tokens, per=1_000_000),
        pico(pricing.output_per_million_tokens, per=1_000_000),
    )


def _capabilities(written: tuple[str, ...] | None) -> tuple[str, ...]:
    return tuple(sorted(set(DEFAULTS.capabilities if written is None else written)))


def _content(backend: ModelBackend) -> object:
    spec = backend.spec
    if spec.external is not None:
        return {"url": spec.external.url, "model": spec.model.served_name}
    assert spec.vllm is not None, "crosscheck lets exactly one of vllm and external through"
    return _pruned(
        {
            "model": spec.model.uri,
            "revision": spec.model.revision,
            "servedName": spec.model.served_name,
            "vllm": _vllm_content(spec.vllm),
        }
    )


def _vllm_content(vllm: Vllm) -> dict[str, Any]:
    parallelism = vllm.parallelism
    tensor = (parallelism and parallelism.tensor) or DEFAULTS.tensor
    pipeline = (parallelism and parallelism.pipeline) or DEFAULTS.pipeline
    return {
        "image": vllm.image,
        "args": vllm.args,
        "tensor": None if tensor == DEFAULTS.tensor else tensor,
        "pipeline": None if pipeline == DEFAULTS.pipeline else pipeline,
        "podTemplate": _telling_pod(vllm.pod_template or {}),
    }


def _telling_pod(template: Mapping[str, Any]) -> dict[str, Any]:
    """Return a pod template without its neutral fields."""
    told = dict(template)
    if isinstance(told.get("metadata"), dict):
        told["metadata"] = _without(told["metadata"], NEUTRAL_METADATA)
    if isinstance(told.get("spec"), dict):
        spec = _without(told["spec"], NEUTRAL_POD)
        for name in ("containers", "initContainers"):
            if isinstance(spec.get(name), list):
                spec[name] = [_telling_container(one) for one in spec[name]]
        told["spec"] = spec
    return told


def _telling_container(container: Any) -> Any:
    if not isinstance(container, dict):
        return container
    told = _without(container, NEUTRAL_CONTAINER)
    if isinstance(told.get("resources"), dict):
        told["resources"] = _without(told["resources"], frozenset({"requests"}))
    return told


def _without(mapping: Mapping[str, Any], names: frozenset[str]) -> dict[str, Any]:
    return {name: value for name, value in mapping.items() if name not in names}


def _pruned(value: Any) -> Any:
    """Return `value` without what says nothing: nulls and empty objects and lists in objects."""
    if isinstance(value, dict):
        told = {name: _pruned(one) for name, one in value.items()}
        return {name: one for name, one in told.items() if one not in (None, {}, [], ())}
    if isinstance(value, list | tuple):
        return [_pruned(one) for one in value]
    return value
