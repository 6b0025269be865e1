"""What a route's tiers served: asked of the routers' metrics, where that is allowed.

The API server hands the question on to each pod (`pods/proxy`), which the cluster's own view role
does not allow: then nothing is said of it, and nobody is told off. The numbers are since the
routers started; those of routers that are gone are gone with them.
"""

from collections.abc import Iterable, Mapping

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


def of_route(api: Api, namespace: str, key: str) -> Totals | None:
    """Return answers, tokens and cost by tier; None where not all routers can be asked."""
    pods = f"/api/v1/namespaces/{quoted(namespace)}/pods"
    try:
        found = api.every(pods, labelSelector=ROUTERS, fieldSelector="status.phase=Running")
        if len(found) > MOST_ROUTERS:
            return None
        names = [one["metadata"]["name"] for one in found]
        told = [api.text("GET", f"{pods}/{name}:{MANAGEMENT_PORT}/proxy/metrics") for name in names]
    except CommandError:
        return None
    return summed(counted(text, key) for text in told) if told else None


def counted(text: str, key: str) -> Totals:
    """Return what one router's metrics say of a route, by tier."""
    from prometheus_client.parser import text_string_to_metric_families

    tiers: Totals = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            field, value = _meaning(sample.name, sample.labels, sample.value)
            tier = sample.labels.get("tier")
            if field and tier and sample.labels.get("route") == key:
                row = tiers.setdefault(tier, {})
                row[field] = row.get(field, 0) + value
    return tiers


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
