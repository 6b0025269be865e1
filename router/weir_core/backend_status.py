"""What a backend says of itself: the .status of a ModelBackend.

Plain JSON values, as `status` gives them for a route. A backend is Ready when the identity that
its spec asks for answers; whether that identity serves anybody yet is Promoted's to say, over
all routes that use it, with this object's own observedGeneration.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from weir_core import reasons
from weir_core.conditions import MAX_MESSAGE, MAX_PROBLEMS, Condition, stamped
from weir_core.errors import Problem
from weir_core.figures import duration
from weir_core.rollout_state import Transition

EDIT_WAITS = "PreviousEditInFlight"
"""The reason of a backend whose spec waits for an earlier edit of it."""

QUIET = ("Loading", "NoWorkload", "External", "WaitsForPool")
"""Reasons of a workload that are everyday work; any other is a Warning."""

GIVEN_UP = (reasons.NO_CAPACITY, "StartupFailed", reasons.ROLLED_BACK)
"""Reasons of a workload that nothing but an edit or a retry changes."""

HOPELESS = ("InvalidImageName", "ErrImageNeverPull")
"""The kubelet's words for what no waiting mends."""

MAX_IDENTITIES = 8
"""Identities shown; no more than three are kept."""


class IdentitySeen(msgspec.Struct, frozen=True, kw_only=True):
    """One identity's workload: replicas wanted and ready, and what its pods suffer from.

    `behind` are replicas that still run as before an edit in place. `reason` is a CamelCase word
    of the pods' own ("ImagePullBackOff"), "" when all is well. It took `load_s` to load.
    """

    name: str
    newest: bool = False
    wanted: int = 0
    ready: int = 0
    behind: int = 0
    reason: str = ""
    message: str = ""
    routes: tuple[str, ...] = ()
    load_s: float | None = None


class BackendSeen(msgspec.Struct, frozen=True, kw_only=True):
    """What a backend's status tells, as seen at one moment.

    `external` backends have no workload of ours. `undecided`, `promoted` and `rolled_back` name
    the routes whose rollout of the newest identity stands so; a route that does not use the
    backend is in none. `waits` is (reason, message) of a spec that is not followed yet.
    """

    generation: int = 0
    external: bool = False
    address: str = ""
    model: str = ""
    identities: tuple[IdentitySeen, ...] = ()
    problems: tuple[Problem, ...] = ()
    waits: tuple[str, str] | None = None
    undecided: tuple[str, ...] = ()
    promoted: tuple[str, ...] = ()
    rolled_back: tuple[str, ...] = ()

    @property
    def newest(self) -> IdentitySeen | None:
        """The identity that the spec asks for."""
        return next((one for one in self.identities if one.newest), None)


def backend_status(
    seen: BackendSeen, *, now_s: float, old: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the whole status; `old` is the one before, for the times of its conditions."""
    newest = seen.newest
    conditions = {
        "Accepted": _problem("Accepted", seen) or ("True", "Accepted", "the spec is valid"),
        "ResolvedRefs": _problem("ResolvedRefs", seen)
        or ("True", "ResolvedRefs", "everything that the spec names was found"),
        "WorkloadReady": _workload(seen),
        "ModelLoaded": _loaded(seen),
        "Degraded": _degraded(seen),
        "Ready": _ready(seen),
        "Promoted": _promoted(seen),
        "RolledBack": _rolled_back(seen),
    }
    conditions |= _kstatus(conditions)
    ready = conditions["Ready"]
    before = {str(c.get("type")): c for c in (old or {}).get("conditions") or ()}
    return {
        "observedGeneration": seen.generation,
        "model": seen.model,
        "address": seen.address,
        "identity": newest.name if newest else "",
        "replicas": "" if seen.external or newest is None else f"{newest.ready}/{newest.wanted}",
        "ready": ready[0],
        "reason": ready[1],
        "message": ready[2][:MAX_MESSAGE],
        "loadedRevision": _loaded_revision(seen),
        "lastLoadDuration": _load(newest, old or {}),
        "identities": [_identity(one) for one in seen.identities[:MAX_IDENTITIES]],
        "conditions": [
            stamped(
                kind,
                condition,
                generation=seen.generation,
                before=before.get(kind),
                now_s=now_s,
            )
            for kind, condition in conditions.items()
        ],
    }


def backend_news(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[Transition, ...]:
    """Return what an Event should tell of between two statuses of a backend.

    A workload's turns are told once each, and everyday work not at all; what routes decided of an
    edit is told in short, they have the numbers. Of what was not known only bad news is told.
    """
    before, after = _by_type(old), _by_type(new)
    told = []
    for kind in ("Accepted", "ResolvedRefs"):
        was, now = before.get(kind, {}).get("status", "True"), after[kind]
        if now["status"] == "False" != was:
            told.append(_news(now, warning=True))
    was, now = before.get("WorkloadReady", {}), after["WorkloadReady"]
    turned = (was.get("status"), was.get("reason")) != (now["status"], now["reason"])
    if turned and now["status"] == "False" and now["reason"] not in QUIET:
        told.append(_news(now, warning=True))
    elif turned and now["reason"] in ("ReplicasReady", "WaitsForPool"):
        told.append(_news(now, warning=False))
    for kind in ("Promoted", "RolledBack"):
        was, now = before.get(kind, {}).get("status"), after[kind]
        if now["status"] == "True" != was and (was == "False" or kind == "RolledBack"):
            told.append(_news(now, warning=kind == "RolledBack"))
    return tuple(told)


def _by_type(status: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {str(one.get("type")): one for one in status.get("conditions") or ()}


def _news(condition: Mapping[str, Any], *, warning: bool) -> Transition:
    return Transition(
        reason=str(condition["reason"]), message=str(condition["message"]), warning=warning
    )


def _problem(kind: str, seen: BackendSeen) -> Condition | None:
    found = [problem for problem in seen.problems if problem.condition == kind]
    if not found:
        return None
    told = [problem.sentence() for problem in found[:MAX_PROBLEMS]]
    more = [f"and {len(found) - len(told)} more"] if len(found) > len(told) else []
    return "False", found[0].reason, "; ".join((*told, *more))


def _workload(seen: BackendSeen) -> Condition:
    """The newest identity has all the replicas that the spec asks for, and as it asks for them."""
    newest = seen.newest
    if seen.external:
        return "True", "External", "somebody else runs it"
    if seen.waits is not None:
        return "False", *seen.waits
    lacks = _problem("WorkloadReady", seen)
    whole = newest is not None and newest.ready >= newest.wanted and not newest.behind
    if lacks is not None and (whole or lacks[1] != reasons.EDIT_DEFERRED):
        return lacks
    if newest is None:
        return "False", "NoWorkload", "nothing has been made of the spec yet"
    told = f"{newest.ready} of {newest.wanted} replicas of {newest.name} are ready"
    if newest.behind:
        told = f"{told}, {newest.behind} still as before the edit"
    elif newest.ready >= newest.wanted:
        return "True", "ReplicasReady", told
    if newest.reason:
        return "False", newest.reason, f"{told}: {newest.message}"
    return "False", "Loading", told


def _loaded(seen: BackendSeen) -> Condition:
    """The model that the spec asks for answers somewhere."""
    newest = seen.newest
    if seen.external:
        return "Unknown", "External", "Weir does not load it"
    if newest is not None and newest.ready:
        return "True", "Loaded", f"{newest.name} answers"
    reason = newest.reason if newest is not None and newest.reason else "Loading"
    return "False", reason, newest.message if newest and newest.message else "not loaded yet"


def _degraded(seen: BackendSeen) -> Condition:
    """Some identity that is in use lacks replicas; one that a canary waits for is not yet."""
    for one in seen.identities:
        awaited = one.newest and not seen.promoted and one.reason in ("", *QUIET)
        if one.routes and one.ready < one.wanted and not awaited:
            why = f": {one.message}" if one.message else ""
            told = f"{one.ready} of {one.wanted} replicas of {one.name} are ready{why}"
            return "True", one.reason or "ReplicasMissing", told
    return "False", "AsWanted", "every identity in use has its replicas"


def _ready(seen: BackendSeen) -> Condition:
    """The identity that the spec asks for answers."""
    for kind in ("Accepted", "ResolvedRefs"):
        problem = _problem(kind, seen)
        if problem:
            return problem
    newest = seen.newest
    if seen.external:
        return "True", "External", f"requests go to {seen.address}"
    if seen.waits is not None:
        return _workload(seen)
    if newest is not None and newest.ready and newest.ready >= min(1, newest.wanted):
        return "True", "Loaded", f"{newest.ready} of {newest.wanted} replicas answer"
    if newest is not None and not newest.wanted:
        return "False", "ScaledToZero", "spec.replicas is 0"
    return _workload(seen)


def _promoted(seen: BackendSeen) -> Condition:
    """Every route that uses this backend serves its newest identity as stable."""
    if seen.rolled_back:
        return "False", "RolledBack", f"rolled back in {_listed(seen.rolled_back)}"
    if seen.undecided:
        return "False", "Progressing", f"under way in {_listed(seen.undecided)}"
    if seen.promoted:
        return "True", "Promoted", f"stable in {_listed(seen.promoted)}"
    return "Unknown", "NotUsed", "no route uses it"


def _rolled_back(seen: BackendSeen) -> Condition:
    """Some route that uses this backend rolled its newest identity back."""
    if seen.rolled_back:
        return "True", "RolledBack", f"rolled back in {_listed(seen.rolled_back)}"
    return "False", "NotTried", "no route rolled it back"


def _kstatus(conditions: Mapping[str, Condition]) -> dict[str, Condition]:
    """Reconciling and Stalled, of which at most one is True."""
    workload, rolled_back = conditions["WorkloadReady"], conditions["RolledBack"]
    wrong = [conditions[kind] for kind in ("Accepted", "ResolvedRefs")]
    stuck = [one for one in wrong if one[0] == "False"]
    if workload[0] == "False" and workload[1] in reasons.NEEDS_PERSON.union(GIVEN_UP, HOPELESS):
        stuck.append(workload)
    if rolled_back[0] == "True":
        stuck.append(rolled_back)
    if stuck:
        _, reason, message = stuck[0]
        return {"Reconciling": ("False", reason, message), "Stalled": ("True", reason, message)}
    status, reason, message = workload
    under_way = status == "False" and reason != reasons.EDIT_DEFERRED
    return {
        "Reconciling": ("True" if under_way else "False", reason, message),
        "Stalled": ("False", "NoAlarm", "no person is needed"),
    }


def _loaded_revision(seen: BackendSeen) -> str:
    return next((one.name for one in seen.identities if one.newest and one.ready), "")


def _load(newest: IdentitySeen | None, old: Mapping[str, Any]) -> str:
    """Return how long the newest identity took to load; what its pods told once is kept."""
    if newest is None:
        return ""
    if newest.load_s is not None:
        return duration(newest.load_s)
    return str(old.get("lastLoadDuration", "")) if old.get("identity") == newest.name else ""


def _identity(one: IdentitySeen) -> dict[str, Any]:
    return {
        "name": one.name,
        "newest": one.newest,
        "replicas": f"{one.ready}/{one.wanted}",
        "reason": one.reason,
        "routes": list(one.routes[:MAX_IDENTITIES]),
    }


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(sorted(names)[:MAX_PROBLEMS])
    return f"{shown} and {len(names) - MAX_PROBLEMS} more" if len(names) > MAX_PROBLEMS else shown
