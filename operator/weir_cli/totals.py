"""What a route's tiers served, and whom routers obey: asked of their metrics, where allowed.

The API server hands the question on to each pod (`pods/proxy`), which the cluster's own view role
does not allow: then nothing is said of it, and nobody is told off. The numbers are since the
routers started; those of routers that are gone are gone with them.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from weir_cli.errors import CommandError
from weir_cli.kube import Api, quoted

MOST_ROUTERS = 20
"""Routers that are asked; of more, no sum is told rather than a wrong one."""
MANAGEMENT_PORT = 8081
ROUTERS = "inference.weir.dev/router=deployment"
PICO = 1e12
ANSWERED = "200"
"""Replies of any other status had no answer of the tier."""
DIRECTIONS = {"input": "inputTokens", "output": "outputTokens"}
Totals = dict[str, dict[str, float]]


class Told(NamedTuple):
    """What one router tells of a route: its tiers, the canary's share; if it hears the operator."""

    tiers: Totals
    weight: float
    hears: bool


def asked(api: Api, namespace: str, key: str) -> tuple[Told, ...] | None:
    """Return what each router tells; None where not all of them can be asked."""
    pods = f"/api/v1/namespaces/{quoted(namespace)}/pods"
    try:
        found = api.every(pods, labelSelector=ROUTERS, fieldSelector="status.phase=Running")
        if len(found) > MOST_ROUTERS:
            return None
        names = [one["metadata"]["name"] for one in found]
        told = [api.text("GET", f"{pods}/{name}:{MANAGEMENT_PORT}/proxy/metrics") for name in names]
    except CommandError:
        return None
    return tuple(counted(text, key) for text in told) or None


def unheard(routers: Sequence[Told], *, gives: bool) -> list[str]:
    """Return what a status cannot tell that `gives` the canary something: nobody writes it."""
    if any(one.hears for one in routers):
        return []
    told = "no router hears the operator: what stands here may be old, is one running?"
    if gives and not any(one.weight for one in routers):
        told += " By now no router gives the canary anything"
    return [told]


def counted(text: str, key: str) -> Told:
    """Return what one router's metrics say of a route."""
    from prometheus_client.parser import text_string_to_metric_families

    tiers: Totals = {}
    weight, hears = 0.0, False
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == "weir_feed_connected":
                hears = sample.value > 0
            elif sample.name == "weir_canary_weight" and sample.labels.get("route") == key:
                weight = sample.value
            field, value = _meaning(sample.name, sample.labels, sample.value)
            tier = sample.labels.get("tier")
            if field and tier and sample.labels.get("route") == key:
                row = tiers.setdefault(tier, {})
                row[field] = row.get(field, 0) + value
    return Told(tiers, weight, hears)


def summed(rows: Iterable[Totals]) -> Totals:
    """Return the sum of all routers' totals; each tier has every field."""
    tiers: Totals = {}
    for router in rows:
        for tier, found in router.items():
            row = tiers.setdefault(
                tier, {"requests": 0, "inputTokens": 0, "outputTokens": 0, "costPico": 0}
            )
            for field, value in found.items():
                row[field] += value
    return tiers


def _meaning(name: str, labels: Mapping[str, str], value: float) -> tuple[str, float]:
    """Return the field that a sample counts towards, "" for none."""
    match name:
        case "weir_requests_total":
            return "requests" if labels.get("code") == ANSWERED else "", value
        case "weir_tokens_total":
            return DIRECTIONS.get(labels.get("direction", ""), ""), value
        case "weir_cost_total":
            return "costPico", value * PICO
    return "", 0.0
