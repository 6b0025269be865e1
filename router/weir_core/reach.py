"""Whether a revision can be answered at all: which of its backends are out.

A router ejects a backend that fails many times in a row: it gets a probe now and then and nothing
else. The module refuses to know how that is found out (`upstreams` of the router does).
"""

from collections.abc import Iterable, Iterator, Mapping

from weir_core.figures import percent
from weir_core.history import find
from weir_core.rollout_state import RolloutState
from weir_core.snapshot import FULL_BP, Backend, Behaviour, Revision

Ejected = Mapping[str, str]
"""Why, by identity, of the backends that no router can reach."""
LOADING = "its model loads"
"""Why of a model server that has not answered yet, while nothing is wrong with its pods."""
PENDING = "its pod waits for a node or a volume"
"""Why of one that could not begin to load yet."""
NOT_READY = "no pod is ready"
"""Why of one that answered before; a router that was asked knows better."""


def outage(state: RolloutState, ejected: Ejected) -> str:
    """Return who cannot be answered, "" while at least half of the requests can.

    A revision is out when none of its backends is left, fallbacks included.
    """
    out = [one for one in _serving(state) if _is_out(one[0].behaviour, ejected)]
    share_bp = sum(share_bp for _, share_bp in out)
    if 2 * share_bp < FULL_BP:
        return ""
    whose = ", ".join(f"{revision.name}'s {percent(bp)}" for revision, bp in out)
    part = "" if share_bp == FULL_BP else f" for {whose} of the requests"
    return f"no healthy backend{part}: {_silent((revision for revision, _ in out), ejected)}"


def is_loading(state: RolloutState, ejected: Ejected) -> bool:
    """Return whether what serves only waits for model servers that begin."""
    identities = {
        backend.identity
        for revision, _ in _serving(state)
        for _, backend in backends_of(revision.behaviour)
    }
    found = {ejected[one] for one in identities & ejected.keys()}
    return bool(found) and found <= {LOADING, PENDING}


def gaps(state: RolloutState, ejected: Ejected) -> str:
    """Return which parts of what serves have no healthy backend, "" when none."""
    return _silent((revision for revision, _ in _serving(state)), ejected)


def backends_of(behaviour: Behaviour) -> Iterator[tuple[str, Backend]]:
    """Give every backend with the part that calls it: "tier small", "fallback"."""
    for tier in behaviour.tiers:
        yield f"tier {tier.name}", tier.backend
    for backend in behaviour.fallback:
        yield "fallback", backend


def _serving(state: RolloutState) -> Iterator[tuple[Revision, int]]:
    """Give the revisions that get requests, each with its share in basis points."""
    canary_bp = state.weight_bp if state.live else 0
    for name, share_bp in ((state.stable, FULL_BP - canary_bp), (state.canary, canary_bp)):
        record = find(state.records, name)
        if record is not None and share_bp:
            yield record.revision, share_bp


def _is_out(behaviour: Behaviour, ejected: Ejected) -> bool:
    called = [backend.identity for _, backend in backends_of(behaviour)]
    return bool(called) and all(identity in ejected for identity in called)


def _silent(revisions: Iterable[Revision], ejected: Ejected) -> str:
    parts = {
        f"{part} ({backend.name}: {ejected[backend.identity]})": None
        for revision in revisions
        for part, backend in backends_of(revision.behaviour)
        if backend.identity in ejected
    }
    return ", ".join(parts)
