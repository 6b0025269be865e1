"""All that one route of a standalone router tells of itself, as plain JSON values."""

from collections.abc import Mapping
from typing import Any

from weir_core.history import RevisionRecord, find
from weir_router.standing import Happened, SavedRoute

Totals = Mapping[str, Mapping[str, float]]
"""Requests, tokens and cost by tier."""

NOTHING = {"requests": 0, "inputTokens": 0, "outputTokens": 0, "costPico": 0}


def described(route: SavedRoute, status: Mapping[str, Any], totals: Totals) -> dict[str, Any]:
    """Return status, events, tiers with what they cost, and the history of revisions."""
    return {
        "namespace": route.namespace,
        "name": route.name,
        "modelNames": list(route.model_names),
        "created": route.created_s,
        "status": status,
        "events": [_event(happened) for happened in route.events],
        "history": [_revision(record) for record in route.state.records],
        **_tiers(route, totals),
    }


def _event(happened: Happened) -> dict[str, Any]:
    return {
        "at": happened.at_s,
        "type": "Warning" if happened.transition.warning else "Normal",
        "reason": happened.transition.reason,
        "message": happened.transition.message,
    }


def _revision(record: RevisionRecord) -> dict[str, Any]:
    return {
        "revision": record.revision.name,
        "outcome": record.outcome,
        "attempt": record.attempt,
        "since": record.since_s,
        "reason": record.reason,
    }


def _tiers(route: SavedRoute, totals: Totals) -> dict[str, Any]:
    """Return what each tier served, cheapest first, and what the last alone would have cost."""
    stable = find(route.state.records, route.state.stable)
    if stable is None:
        return {"tiers": dict(totals)}
    tiers = stable.revision.behaviour.tiers
    ordered = {tier.name: totals.get(tier.name, NOTHING) for tier in tiers} | dict(totals)
    last = tiers[-1]
    cost_pico = sum(
        row["inputTokens"] * last.backend.input_price_pico
        + row["outputTokens"] * last.backend.output_price_pico
        for row in ordered.values()
    )
    return {"tiers": ordered, "alwaysLast": {"tier": last.name, "costPico": cost_pico}}
