"""How busy this router is, and what that forbids: moves, audits, canary draws, requests.

Over its caps audits are shed first, then draws for the canary, never stable.
"""

import msgspec

from weir_router.patience import Turnover


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """What keeps a router standing in a storm; counts are of requests at one time.

    `moves_share` of the requests in flight (but at least `moves_minimum`) may be repeated
    elsewhere after a failure.
    """

    in_flight: int = 2_048
    escalations_per_arm: int = 512
    audits: int = 64
    moves_share: float = 0.25
    moves_minimum: int = 16


class Load:
    """Counters of what is going on now."""

    __slots__ = ("audits", "bounds", "escalating", "in_flight", "moving", "turnover")

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.in_flight = 0
        self.moving = 0
        self.audits = 0
        self.escalating = {"stable": 0, "canary": 0}
        self.turnover = Turnover()

    def full(self) -> bool:
        """Whether one more request would be too many."""
        return self.in_flight >= self.bounds.in_flight

    def wait_s(self, now_s: float) -> float:
        """Return about how long until as many requests have ended as are in flight now."""
        return self.turnover.wait_s(self.in_flight, now_s)

    def may_move(self) -> bool:
        """Whether one more failed call may be repeated elsewhere."""
        share = self.bounds.moves_share * self.in_flight
        return self.moving < max(self.bounds.moves_minimum, share)

    def may_audit(self) -> bool:
        """Whether one more audit may start: escalations at half their cap shed audits."""
        busy = max(self.escalating.values()) * 2 >= self.bounds.escalations_per_arm
        return not busy and self.audits < self.bounds.audits

    def may_draw_canary(self) -> bool:
        """Whether the canary may get new requests."""
        return self.escalating["canary"] < self.bounds.escalations_per_arm
