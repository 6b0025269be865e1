"""What one router has reported, taken with care: it may be old, broken, or not ours to believe.

A report is evidence of the routes of its router's namespace alone, under the router's own name:
its pod's uid and start count. It refuses to know what the evidence proves (`think`).
"""

import logging
from collections.abc import Mapping
from itertools import chain

import msgspec
from msgspec.structs import replace

from weir_core.evidence import Key, Tally, Trip
from weir_core.merging import fits
from weir_core.sequential import fingerprint
from weir_core.wire import MAX_WHY, Nack, Report, Routed
from weir_operator.gatekeeper import Caller

EARLIER_S = 60.0
"""The last word of a router's earlier start is kept this long beside the new one's."""
MAX_KEYS = 4
"""Bodies of evidence kept of one route; the longest unheard of is dropped first."""
MAX_TRIPS = 1_024
MAX_JUDGEMENT = 65_536
"""Bytes of the judgement that a trip may carry into a route's status."""
MAX_COUNT = 1 << 53
AHEAD_S = 60.0
"""Evidence from further ahead of this clock than that is refused: some clock is wrong."""
MAX_EJECTED = 1_024
MAX_STARTS = 64
"""Starts that are over and remembered of one pod."""
MAX_NAME = 253
Refused = dict[str, int]
"""What was not believed, by reason: "start", "clock", "evidence", "trip"."""
log = logging.getLogger("weir.operator")


class Connected(msgspec.Struct, frozen=True, kw_only=True):
    """A router as its reports show it, on a stream or lately lost.

    `report` holds all that is known of it: every tally, under (pod uid, start count) as
    (router, boot). `seen_s` is when its last report came.
    """

    pod_uid: str
    pod_name: str
    sidecar: bool
    report: Report
    seen_s: float
    alive: bool


class Published(msgspec.Struct, frozen=True):
    """What a namespace's routers shall obey, and what evidence of it may look like.

    `shapes` are (fingerprint of the objectives, their count) by route uid.
    """

    routes: Mapping[str, Routed]
    shapes: Mapping[str, tuple[str, int]]


def published(routes: Mapping[str, Routed], before: Published | None = None) -> Published:
    """Return a namespace's routes with the shapes of their evidence."""
    shapes = {}
    for key, routed in routes.items():
        policy = routed.policy
        if policy is None:
            continue
        old = before.routes.get(key) if before is not None else None
        same = before is not None and old is not None and old.version == routed.version
        known = before.shapes.get(policy.uid) if before is not None and same else None
        monitoring = policy.monitoring
        shapes[policy.uid] = known or (fingerprint(monitoring), len(monitoring.objectives))
    return Published(routes, shapes)


class Inbox:
    """All that one pod has reported over its streams and starts."""

    def __init__(self, caller: Caller) -> None:
        self.caller = caller
        self.seen_s = 0.0
        self.streams = 0
        self._report: Report | None = None
        self._tallies: dict[Key, Tally] = {}
        self._earlier: tuple[float, tuple[Tally, ...]] = (0.0, ())
        self._over: tuple[int, ...] = ()
        self._clock_told = False
        self._shown: Connected | None = None

    def take(self, report: Report, routes: Published, now_s: float) -> tuple[bool, Refused]:
        """Take a report; return whether it says anything new, and how much was refused, by reason.

        A start that another one followed is over. The counts themselves need not grow: a router
        that could not write its own down took one by the time.
        """
        before = self._report
        if report.start in self._over:
            return False, {"start": 1}
        if before is not None and report.start != before.start:
            self._earlier = (now_s, tuple(self._all()))
            self._tallies = {}
            self._over = (*self._over, before.start)[-MAX_STARTS:]
        timely = [tally for tally in report.tallies if not _is_ahead(tally, now_s)]
        tallies = [tally for tally in timely if _is_ours(tally, routes)]
        # A sidecar's brake is off, and what it dies of is its application's: it has none to tell.
        told = () if self.caller.sidecar else report.trips[:MAX_TRIPS]
        trips = [trip for trip in told if trip.route_uid in routes.shapes]
        taken = replace(
            report,
            # What was refused may have changed: the others' time does not hold for it.
            whole=report.whole and len(tallies) == len(report.tallies),
            acks={key: version for key, version in report.acks.items() if key in routes.routes},
            nacks=_short_nacks(report.nacks, routes),
            tallies=(),
            trips=tuple(self._signed(trip) for trip in trips),
            ejected=_short(report.ejected),
        )
        refused = {
            "clock": len(report.tallies) - len(timely),
            "evidence": len(timely) - len(tallies),
            "trip": len(report.trips) - len(trips),
        }
        self._tell_of_clock(report, refused["clock"], now_s)
        grown = self._keep(tallies, routes, str(report.start))
        self._report, self.seen_s, self._shown = taken, now_s, None
        is_new = before is None or grown or _told(taken) != _told(before)
        return is_new, {why: count for why, count in refused.items() if count}

    def _tell_of_clock(self, report: Report, refused: int, now_s: float) -> None:
        """Say once that a router's clock and this one disagree, and again when it comes back."""
        if refused and not self._clock_told:
            fields = {
                "namespace": self.caller.namespace,
                "pod": self.caller.pod_name,
                "router_s": round(report.as_of_s, 3),
                "operator_s": round(now_s, 3),
            }
            log.warning("evidence of the future refused: some clock is wrong", extra=fields)
        if report.tallies:
            self._clock_told = bool(refused)

    def _signed(self, trip: Trip) -> Trip:
        judgement = trip.judgement
        is_long = judgement is not None and len(msgspec.json.encode(judgement)) > MAX_JUDGEMENT
        return replace(
            trip,
            decided_by=f"router/{self.caller.pod_name}",
            reason=trip.reason[:MAX_NAME],
            suspect=trip.suspect[:MAX_NAME],
            judgement=None if is_long else judgement,
        )

    def _keep(self, tallies: list[Tally], routes: Published, boot: str) -> bool:
        """Keep the newest tally of each key; return whether any has grown."""
        grown = False
        for tally in tallies:
            known = self._tallies.pop(tally.key, None)
            if known is None or tally.seq >= known.seq:
                grown |= known is None or tally.seq > known.seq
                known = replace(tally, router=self.caller.pod_uid, boot=boot)
            self._tallies[tally.key] = known
        if grown:
            self._forget(routes)
        return grown

    def _forget(self, routes: Published) -> None:
        kept: dict[str, int] = {}
        for key in reversed(list(self._tallies)):
            kept[key.route_uid] = kept.get(key.route_uid, 0) + 1
            if key.route_uid not in routes.shapes or kept[key.route_uid] > MAX_KEYS:
                del self._tallies[key]

    def _all(self) -> list[Tally]:
        report = self._report
        if report is None or not report.whole:
            return list(self._tallies.values())
        as_of_s = report.as_of_s
        return [replace(t, as_of_s=max(t.as_of_s, as_of_s)) for t in self._tallies.values()]

    def connected(self, now_s: float) -> Connected | None:
        """Return the router as known now, None before its first report."""
        if self._report is None:
            return None
        alive = self.streams > 0
        shown = self._shown
        if shown is not None and shown.alive == alive and not self._earlier[1]:
            return shown
        since_s, earlier = self._earlier
        if earlier and now_s - since_s > EARLIER_S:
            self._earlier, earlier = (0.0, ()), ()
        self._shown = Connected(
            pod_uid=self.caller.pod_uid,
            pod_name=self.caller.pod_name,
            sidecar=self.caller.sidecar,
            report=replace(self._report, tallies=(*self._all(), *earlier)),
            seen_s=self.seen_s,
            alive=alive,
        )
        return self._shown


def _is_ahead(tally: Tally, now_s: float) -> bool:
    """Return whether a tally is of a time that is not yet."""
    latest_s = now_s + AHEAD_S
    return tally.as_of_s > latest_s or any(epoch.first_s > latest_s for epoch in tally.epochs)


def _is_ours(tally: Tally, routes: Published) -> bool:
    """Return whether a tally is of a route of this namespace and has the shape that it must."""
    shape = routes.shapes.get(tally.key.route_uid)
    if shape is None or tally.key.objectives != shape[0] or not fits(tally, shape[1]):
        return False
    rows = chain((epoch.counts for epoch in tally.epochs), (cell.counts for cell in tally.cells))
    return (
        all(epoch.first_s >= 0 for epoch in tally.epochs)
        and all(max(row) <= MAX_COUNT for row in rows)
        # Only the operator itself knows of a boot that ended.
        and not any(any(epoch.lost) for epoch in tally.epochs)
    )


def _told(report: Report) -> tuple[object, ...]:
    """Return all of a report that changes only when something happened."""
    return (
        report.start,
        report.clean,
        report.unclean,
        report.acks,
        report.nacks,
        report.trips,
        report.ejected,
        report.draining,
    )


def _short_nacks(nacks: Mapping[str, Nack], routes: Published) -> dict[str, Nack]:
    return {
        key: Nack(nack.version, nack.reason[:MAX_WHY])
        for key, nack in nacks.items()
        if key in routes.routes
    }


def _short(ejected: Mapping[str, str]) -> dict[str, str]:
    kept = list(ejected.items())[:MAX_EJECTED]
    return {name[:MAX_NAME]: why[:MAX_WHY] for name, why in kept}
