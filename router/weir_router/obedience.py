"""What this router obeys of its orders, and what it reports: latches, the brake's trips, health.

Orders say what should be. Beside them stand this router's own lowerings, which no order undoes:
trips of its brake, canaries under which it died, and a sidecar's rule when it is cut off. What a
sidecar lowers is its own affair: it dies of its application as often as of a canary.
"""

import logging
from collections.abc import Callable, Mapping

from msgspec.structs import replace

from weir_core.evidence import Trip
from weir_core.rollout import braked
from weir_core.snapshot import RoutePolicy, Snapshot
from weir_core.wire import Nack, Packed, Push, Report, Version
from weir_router.orders import Orders
from weir_router.past import Past, PastFile, killers, noted, started, tripped
from weir_router.serve import Router
from weir_router.trial import problem

log = logging.getLogger("weir")


class Obedience:
    """Brings orders to one router. `on_news` hears that there is something to report at once.

    `name` is the pod's. A sidecar has no test of its own: its brake is off, and while `cut_off`,
    or of a route whose newest form it refuses, it sends nothing to a canary.
    """

    def __init__(
        self, *, name: str, sidecar: bool, file: PastFile, clock: Callable[[], float]
    ) -> None:
        self._name = name
        self._sidecar = sidecar
        self._file = file
        self._clock = clock
        past = file.read()
        self._was_clean = past.clean
        self._past = started(past)
        if not file.write(self._past):
            self._past = replace(self._past, start=max(self._past.start, int(clock())))
        self._orders = Orders(problem, past.obeyed)
        self._router: Router | None = None
        self._number = 0
        self._acks: dict[str, Version] = {}
        self._refused: dict[str, Nack] = {}
        self._behind = False
        self._cut_off = sidecar
        self._out: Callable[[], Mapping[str, str]] = dict
        self.draining = False
        self.on_news: Callable[[], None] = lambda: None

    @property
    def start(self) -> int:
        """How often this pod's router has started, this time included."""
        return self._past.start

    @property
    def any(self) -> bool:
        """Whether there ever was a snapshot."""
        return self._orders.any

    def attach(self, router: Router, out: Callable[[], Mapping[str, str]] = dict) -> None:
        """Say which router obeys, and why which backends are out; before anything else."""
        self._router, self._out = router, out

    # Orders in.

    def push(self, push: Push) -> None:
        """Obey a push. Raises OldTermError, having changed nothing."""
        self._behind |= self._orders.push(push)
        self._apply()

    def mount(self, packed: Packed) -> None:
        """Obey what a mounted snapshot has beyond the pushes."""
        self._behind |= self._orders.mount(packed)
        self._apply()

    def hear(self, *, cut_off: bool) -> None:
        """Take note whether the operator can be heard; matters to a sidecar alone."""
        if not self._sidecar or cut_off == self._cut_off:
            return
        self._cut_off, self._behind = cut_off, True
        log.warning("cut off: no canary" if cut_off else "the operator is heard again")
        self._apply()

    def _apply(self) -> None:
        """Bring the router up to the orders; what failed half-way is done again the next time."""
        if not self._behind:
            return
        assert self._router is not None
        policies = [self._lowered(policy) for policy in self._orders.policies]
        obeyed = self._orders.obeyed
        past = noted(self._past, policies)
        now_s = self._clock()
        for trip in killers(past, policies, router=self._name, now_s=now_s):
            log.error("died twice with a canary", extra={"revision": trip.revision})
            past = tripped(past, trip)
        if past is not self._past:
            # Before it gets traffic: the canary may kill this router with its first request.
            self._remember(replace(past, obeyed=obeyed))
            policies = [self._lowered(policy) for policy in policies]
        self._number += 1
        self._router.apply(
            Snapshot(
                version=(self.start, self._number),
                routes=tuple(policies),
                limits=self._orders.limits,
            )
        )
        if obeyed != self._past.obeyed:
            # Before it is acknowledged; what is lowered does not wait for the disk.
            self._remember(replace(self._past, obeyed=obeyed))
        self._behind = False
        self._acks = self._orders.acks
        for key, nack in self._orders.nacks.items():
            if self._refused.get(key) != nack:
                log.warning("route refused", extra={"route": key, "why": nack.reason})
        self._refused = dict(self._orders.nacks)
        self.on_news()

    def _lowered(self, policy: RoutePolicy) -> RoutePolicy:
        policy = braked(policy, self._past.latched(policy.uid))
        if not self._sidecar:
            return policy
        is_behind = f"{policy.namespace}/{policy.name}" in self._orders.nacks
        weight_bp = 0 if self._cut_off or is_behind else policy.weight_bp
        return replace(policy, brake_alpha=0.0, weight_bp=weight_bp)

    # The router's own doings.

    def tripped(self, trip: Trip) -> None:
        """Remember a trip of the router's brake, which has stopped the canary already."""
        self._remember(tripped(self._past, trip))
        self.on_news()

    def drain(self) -> None:
        """Take note that this router is about to end."""
        self.draining = True
        self.on_news()

    def end(self) -> None:
        """Write that this was an orderly end."""
        self._remember(replace(self._past, clean=True))

    def _remember(self, past: Past) -> None:
        self._past = past
        self._file.write(past)

    # Reports out.

    def report(self, *, final: bool) -> Report:
        """Return what is to be told, but for the tallies."""
        return Report(
            start=self.start,
            as_of_s=self._clock(),
            clean=final or self._was_clean,
            unclean=self._past.unclean,
            acks=self._acks,
            nacks=dict(self._orders.nacks),
            trips=self._untold(),
            ejected=dict(self._out()),
            draining=self.draining or final,
        )

    def _untold(self) -> tuple[Trip, ...]:
        """Return the trips that the snapshot does not hold, of canaries that it has."""
        if self._sidecar:
            return ()
        if not self._orders.any:
            return self._past.trips
        live = {
            (policy.uid, policy.canary.name, policy.attempt)
            for policy in self._orders.policies
            if policy.canary is not None
            and (policy.canary.name, policy.attempt) not in policy.latched
        }
        trips = self._past.trips
        return tuple(t for t in trips if (t.route_uid, t.revision, t.attempt) in live)
