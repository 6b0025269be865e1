"""From a cluster's objects to what a standalone Weir tells of its routes: the same JSON.

Pure: objects as the API server gives them go in.
"""

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

from weir_cli.objects import UNSEEN, Obj, created_s, seconds_of, whole
from weir_core.figures import instant
from weir_core.policies import monitoring_of, rollout_of
from weir_core.reach import backends_of
from weir_core.resources import ModelRoute, from_object
from weir_core.rollout import RolloutState, Transition
from weir_core.snapshot import Monitoring, RolloutPolicy
from weir_operator.memory import recall, records_of
from weir_operator.standing import ROLLED_BACK_GRACE_S
from weir_router.described import Totals, backend_row, described
from weir_router.standing import Happened, SavedRoute


def saved_route(obj: Obj, revisions: Iterable[Obj], events: Iterable[Obj] = ()) -> SavedRoute:
    """Return a route as the operator would remember it: its state, its revisions, its events.

    Of a route whose spec has a problem, the monitoring and rollout are unknown.
    """
    memory = recall(obj.get("status"), records_of([dict(one) for one in revisions]))
    read = from_object({name: value for name, value in obj.items() if name != "status"})
    monitoring, rollout = Monitoring(), RolloutPolicy()
    if isinstance(read, ModelRoute):
        monitoring = monitoring_of(read.spec.monitoring)
        rollout = rollout_of(read.spec.rollout)
    return SavedRoute(
        uid=obj["metadata"].get("uid", ""),
        namespace=obj["metadata"]["namespace"],
        name=obj["metadata"]["name"],
        model_names=tuple(_model_names(obj)),
        monitoring=monitoring,
        rollout=rollout,
        state=memory.state,
        events=tuple(happened(events)),
        created_s=created_s(obj),
    )


def told_of(
    obj: Obj,
    *,
    revisions: Sequence[Obj],
    events: Iterable[Obj] = (),
    backends: Iterable[Obj] = (),
    totals: Totals | None = None,
) -> dict[str, Any]:
    """Return all about a route. Without `totals` nothing is said of what its tiers served."""
    route = saved_route(obj, revisions, events)
    told = described(route, whole(obj.get("status")), totals or {})
    if totals is None:
        told["tiers"], told["alwaysLast"] = {}, {}
    told["problems"] = _unseen(obj)
    evidence = {one["metadata"]["name"]: one.get("status") or {} for one in revisions}
    for row in told["history"]:
        shown = evidence.get(row["revision"], {})
        row["eValue"], row["suspect"] = shown.get("eValue", ""), shown.get("suspect", "")
    standing = {one["metadata"]["name"]: one.get("status") or {} for one in backends}
    for row in told["backends"]:
        row["state"] = backend_state(standing.get(row["name"]), row["identity"])
    told["backends"] += _left(route.state, standing, {row["identity"] for row in told["backends"]})
    return told


def _left(state: RolloutState, standing: Mapping[str, Obj], shown: Set[str]) -> list[Obj]:
    """Return the model servers that no arm calls any more and that run still, each with why."""
    rows: dict[str, dict[str, Any]] = {}
    for record in reversed(state.records):
        for part, backend in backends_of(record.revision.behaviour):
            status = standing.get(backend.name)
            version = _version(status, backend.identity)
            if backend.identity in shown or status is None or version is None:
                continue
            is_canary = state.stage == "RolledBack" and record.revision.name == state.canary
            why = _kept(version, rolled_back_s=state.since_s if is_canary else None)
            told = f"{backend_state(status, backend.identity)}; {why}"
            row = rows.setdefault(backend.identity, {**backend_row(backend), "state": told})
            if part not in row["parts"]:
                row["parts"].append(part)
    return list(rows.values())


def _kept(version: Obj, *, rolled_back_s: float | None) -> str:
    """Return why a model server that no arm of a route calls is there, or why it is not."""
    if version.get("routes"):
        return f"used by {', '.join(version['routes'])}"
    if version.get("reason"):
        return "nothing calls it"
    if rolled_back_s is not None:
        end = instant(rolled_back_s + ROLLED_BACK_GRACE_S)
        return f"rolled back, kept until {end} for a retry"
    if version.get("newest"):
        return "its spec asks for it"
    return "kept until every router has heard that nothing calls it"


def happened(events: Iterable[Obj]) -> list[Happened]:
    """Return Events of the core API, oldest first."""
    found = [
        Happened(
            at_s=seconds_of(
                one.get("eventTime") or one.get("lastTimestamp") or one.get("firstTimestamp")
            ),
            transition=Transition(
                reason=str(one.get("reason") or ""),
                message=str(one.get("message") or ""),
                warning=one.get("type") == "Warning",
            ),
        )
        for one in events
    ]
    return sorted(found, key=lambda one: one.at_s)


def backend_state(status: Obj | None, identity: str) -> str:
    """Return how the workload of one identity stands, "" for a backend without one."""
    if status is None:
        return "the ModelBackend is gone"
    version = _version(status, identity)
    if version is not None:
        why = f", {version['reason']}" if version.get("reason") else ""
        return f"{version.get('replicas', '')} ready{why}"
    if status.get("reason") == "External":
        return "external"
    return str(status.get("reason") or "unknown")


def _version(status: Obj | None, identity: str) -> Obj | None:
    """Return what a backend's status tells of one of its model servers, if it is there."""
    versions = (status or {}).get("identities") or ()
    return next((one for one in versions if one.get("name") == identity), None)


def _unseen(obj: Obj) -> list[str]:
    """Return what the status does not tell of yet, if the operator lags behind."""
    generation = int(obj["metadata"].get("generation") or 0)
    seen = int((obj.get("status") or {}).get("observedGeneration") or 0)
    if seen >= generation:
        return []
    if not seen:
        return [f"{UNSEEN}: is the operator running, and does it serve this namespace?"]
    return [f"the operator has not looked at the last change of the spec yet ({seen}/{generation})"]


def _model_names(obj: Obj) -> list[str]:
    names = (obj.get("spec") or {}).get("modelNames") or ()
    return [name for name in names if isinstance(name, str)]
