"""What a router in a pod remembers across its own restarts: its starts, its trips, its orders.

One small file in a folder that lives as long as the pod. It is written at events, never per
request. A router that cannot write it serves all the same.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import msgspec
from msgspec.structs import replace

from weir_core import reasons
from weir_core.evidence import Trip
from weir_core.snapshot import RoutePolicy
from weir_core.wire import Version
from weir_router.disk import write_whole

MAX_TRIPS = 256
MAX_OBEYED = 4_096
UNCLEAN_ENDS = 2
"""So many within one attempt, and the canary may be what kills this router."""
log = logging.getLogger("weir")


class Begun(msgspec.Struct, frozen=True):
    """An attempt that got traffic here, and how many unclean ends there had been before."""

    revision: str
    attempt: int
    unclean: int


class Obeyed(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """What was last obeyed of a route: the version, and what it gave to whom."""

    version: Version
    stable: str
    canary: str = ""
    attempt: int = 0
    weight_bp: int = 0

    @staticmethod
    def of(version: Version, policy: RoutePolicy) -> "Obeyed":
        """Return what is remembered of an order."""
        name = policy.canary.name if policy.canary is not None else ""
        return Obeyed(version, policy.stable.name, name, policy.attempt, policy.weight_bp)


class Past(msgspec.Struct, frozen=True, kw_only=True):
    """All of it. `start` grows with every start; `begun` is by route uid, `obeyed` by route key."""

    start: int = 0
    clean: bool = True
    unclean: int = 0
    trips: tuple[Trip, ...] = ()
    begun: dict[str, Begun] = {}
    obeyed: dict[str, Obeyed] = {}

    def latched(self, uid: str) -> tuple[tuple[str, int], ...]:
        """Return the (revision, attempt) pairs of a route that were tripped here."""
        return tuple((t.revision, t.attempt) for t in self.trips if t.route_uid == uid)


def started(past: Past) -> Past:
    """Return the past of a router that has just started."""
    unclean = past.unclean + (0 if past.clean else 1)
    return replace(past, start=past.start + 1, unclean=unclean, clean=False)


def tripped(past: Past, trip: Trip) -> Past:
    """Return the past with one more trip, the oldest forgotten beyond MAX_TRIPS."""
    if (trip.revision, trip.attempt) in past.latched(trip.route_uid):
        return past
    return replace(past, trips=(*past.trips, trip)[-MAX_TRIPS:])


def capped(policy: RoutePolicy, later: Obeyed) -> RoutePolicy:
    """Return an order with no more for its canary than it got when a later one was obeyed.

    One that is stable in the later order was promoted since: the other's servers may be gone.
    """
    if policy.canary is None or policy.canary.name == later.stable:
        return policy
    same = (policy.canary.name, policy.attempt) == (later.canary, later.attempt)
    return replace(policy, weight_bp=min(policy.weight_bp, later.weight_bp if same else 0))


def newest(obeyed: Mapping[str, Obeyed]) -> dict[str, Obeyed]:
    """Return what was obeyed by route key, the oldest left out beyond MAX_OBEYED."""
    kept = sorted(obeyed, key=lambda key: obeyed[key].version)[-MAX_OBEYED:]
    return {key: obeyed[key] for key in sorted(kept)}


def noted(past: Past, policies: Iterable[RoutePolicy]) -> Past:
    """Return the past with every attempt that gets traffic now; of other routes none is kept."""
    begun = {}
    for policy in policies:
        known = past.begun.get(policy.uid)
        if policy.canary is not None and policy.weight_bp > 0:
            name, attempt = policy.canary.name, policy.attempt
            if known is None or (known.revision, known.attempt) != (name, attempt):
                known = Begun(name, attempt, past.unclean)
        if known is not None:
            begun[policy.uid] = known
    return past if begun == past.begun else replace(past, begun=begun)


def killers(
    past: Past, policies: Iterable[RoutePolicy], *, router: str, now_s: float
) -> list[Trip]:
    """Return a trip for each canary under which this router ended UNCLEAN_ENDS times."""
    trips = []
    for policy in policies:
        known = past.begun.get(policy.uid)
        if policy.canary is None or policy.weight_bp <= 0 or known is None:
            continue
        same = (known.revision, known.attempt) == (policy.canary.name, policy.attempt)
        if same and past.unclean - known.unclean >= UNCLEAN_ENDS:
            trips.append(
                Trip(
                    route_uid=policy.uid,
                    revision=known.revision,
                    attempt=known.attempt,
                    decided_by=f"router/{router}",
                    reason=reasons.UNCLEAN_BOOTS,
                    suspect="",
                    log_e=0.0,
                    at_s=now_s,
                )
            )
    return trips


class PastFile:
    """The file. One that cannot be written is told, never an error: serving comes first."""

    def __init__(self, path: Path, *, clock: Callable[[], float]) -> None:
        self._path = path
        self._clock = clock

    def read(self) -> Past:
        """Return what was written.

        Where there is none, starts are counted on from the time, so that no count is given twice:
        there may have been a file. One that cannot be read says that the last end was no orderly
        one.
        """
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=Past)
        except FileNotFoundError:
            return Past(start=int(self._clock()))
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            log.error("state unreadable", extra={"file": str(self._path), "error": str(error)})
            return Past(start=int(self._clock()), clean=False)

    def write(self, past: Past) -> bool:
        """Write it; return whether that could be done."""
        try:
            # Requests wait meanwhile, and a disk may take its time; a pod's state is of this node.
            write_whole(self._path, msgspec.json.encode(past), synced=False)
        except OSError as error:
            log.error("state not written", extra={"file": str(self._path), "error": str(error)})
            return False
        return True
