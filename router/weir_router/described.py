"""All that one route of a standalone router tells of itself, as plain JSON values."""

from collections.abc import Iterable, Mapping
from typing import Any

from weir_core.errors import Problem
from weir_core.history import RevisionRecord, find
from weir_core.reach import backends_of
from weir_core.revision_spec import record_status
from weir_core.snapshot import Backend
from weir_router.standing import Happened, SavedRoute
from weir_router.upstreams import Ejection

Totals = Mapping[str, Mapping[str, float]]
"""Requests, tokens and cost by tier."""

NOTHING = {"requests": 0, "inputTokens": 0, "outputTokens": 0, "costPico": 0}


def described(
    route: SavedRoute,
    status: Mapping[str, Any],
    totals: Totals,
    *,
    ejected: Iterable[Ejection] = (),
    problems: Iterable[Problem] = (),
) -> dict[str, Any]:
    """Return status, problems, events, backends, tiers with what they cost, and the history."""
    return {
        "namespace": route.namespace,
        "name": route.name,
        "modelNames": list(route.model_names),
        "created": route.created_s,
        "status": status,
        "problems": [problem.sentence() for problem in problems],
        "backends": _backends(route, ejected),
        "events": [_event(happened) for happened in route.events],
        "history": [_revision(record) for record in route.state.records],
        **_tiers(route, totals),
    }


def ejected_backends(ejected: Iterable[Ejection]) -> list[dict[str, Any]]:
    """Return the backends that are out, whatever route calls them."""
    return [
        {"name": one.backend.name, "url": one.backend.url, "ejected": _ejection(one)}
        for one in ejected
    ]


def _backends(route: SavedRoute, ejected: Iterable[Ejection]) -> list[dict[str, Any]]:
    """Return what the revisions that serve may call, the stable one's first."""
    out = {one.backend.identity: one for one in ejected}
    rows: dict[str, dict[str, Any]] = {}
    for arm, name in (
        ("stable", route.state.stable),
        ("canary", route.state.canary if route.state.live else ""),
    ):
        record = find(route.state.records, name)
        for part, backend in backends_of(record.revision.behaviour) if record else ():
            ejection = out.get(backend.identity)
            row = rows.setdefault(backend.identity, backend_row(backend, ejection))
            for known, new in ((row["arms"], arm), (row["parts"], part)):
                if new not in known:
                    known.append(new)
    return list(rows.values())


def backend_row(backend: Backend, ejection: Ejection | None = None) -> dict[str, Any]:
    """Return what is told of a backend, as yet without who calls it."""
    return {
        "name": backend.name,
        "identity": backend.identity,
        "url": backend.url,
        "model": backend.model,
        "arms": [],
        "parts": [],
        "ejected": _ejection(ejection),
    }


def _ejection(one: Ejection | None) -> dict[str, Any] | None:
    if one is None:
        return None
    return {"cause": one.cause, "failures": one.failures, "since": one.since_s}


def _event(happened: Happened) -> dict[str, Any]:
    return {
        "at": happened.at_s,
        "type": "Warning" if happened.transition.warning else "Normal",
        "reason": happened.transition.reason,
        "message": happened.transition.message,
    }


def _revision(record: RevisionRecord) -> dict[str, Any]:
    told = record_status(record)
    return {
        "revision": record.revision.name,
        "outcome": record.outcome,
        "attempt": record.attempt,
        "since": record.since_s,
        "reason": record.reason,
        "eValue": told.get("eValue", ""),
        "suspect": told.get("suspect", ""),
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
