"""When the evidence crosses if every outcome is known at once: the yardstick of a detection.

It takes each request in the order of assignment with the outcome that it will have. What a run
needs until then is the price of information; what it takes from then to the trip is delay. It
refuses to know ledgers, and shares with them only the bet and the masses of its starts.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from weir_core.eprocess import Bet, e_value
from weir_core.evidence import CANARY, FAILED, STABLE, Tally
from weir_core.merging import PERIOD_S, Label, order


class Crossing(NamedTuple):
    """The first request at which the evidence crossed.

    `canary` counts the canary's requests up to it; `mass` is that of the start that found it;
    from `answered_s` on nothing up to it is open that could lower the evidence.
    """

    at_s: float
    canary: int
    mass: float
    answered_s: float


class Truth:
    """Evidence about one objective over requests that are units of their own."""

    def __init__(self, bet: Bet, alpha: float, past: Sequence[Tally]) -> None:
        self._bet = bet
        self._alpha = alpha
        self._first: dict[Label, int] = {}
        self._failed: dict[Label, list[int]] = {}
        self._canary = 0
        self._answered_s = 0.0
        self.crossing: Crossing | None = None
        for epoch in (epoch for tally in past for epoch in tally.epochs):
            label = (epoch.period, epoch.weight_bp)
            self._first[label] = epoch.first_s
            self._failed[label] = list(epoch.counts[FAILED : FAILED + 2])

    def assign(
        self, at_s: float, weight_bp: int, *, arm: int, failed: bool, settles_s: float
    ) -> None:
        """Take one request, assigned after all before it."""
        if self.crossing is not None:
            return
        label = (int(at_s) // PERIOD_S, weight_bp)
        if label not in self._first:
            self._first[label] = int(at_s)
            self._failed[label] = [0, 0]
        self._canary += arm == CANARY
        if failed == (arm == CANARY):
            self._answered_s = max(self._answered_s, settles_s)
        if failed:
            self._failed[label][arm] += 1
            if arm == CANARY:
                self._look(at_s)

    def _look(self, at_s: float) -> None:
        index, view = order(self._first, int(at_s) // PERIOD_S)
        failed = [[0, 0] for _ in view.starts]
        for label, counts in self._failed.items():
            for arm in (STABLE, CANARY):
                failed[index[label]][arm] += counts[arm]
        spans = tuple(
            (mass, weight_bp, counts[CANARY], counts[STABLE])
            for (mass, weight_bp), counts in zip(view.starts, failed, strict=True)
        )
        if e_value(self._bet, spans, view.rest) < 1 / self._alpha:
            return
        alone = [
            e_value(self._bet, (*((0.0, *span[1:]) for span in spans[:at]), *_only(spans[at:])))
            for at in range(len(spans))
        ]
        mass = spans[max(range(len(spans)), key=alone.__getitem__)][0]
        self.crossing = Crossing(at_s, self._canary, mass, self._answered_s)


def _only(spans: Sequence[tuple[float, int, int, int]]) -> tuple[tuple[float, int, int, int], ...]:
    """Return epochs of which only the first is a start."""
    return (spans[0], *((0.0, *span[1:]) for span in spans[1:]))


def information_bound(canary: float, stable: float, w: float, alpha: float) -> float:
    """Return the fewest canary requests that any level-α test of power one needs on average.

    Wald's bound with an unknown concurrent baseline:
    w·ln(1/α)/[w·KL(p1‖p̄) + (1 − w)·KL(p0‖p̄)], p̄ = w·p1 + (1 − w)·p0.
    """
    if canary >= 1:
        canary = 1 - 1e-12
    mixed = w * canary + (1 - w) * stable
    information = w * _kl(canary, mixed) + (1 - w) * _kl(stable, mixed)
    return w * math.log(1 / alpha) / information


def _kl(p: float, q: float) -> float:
    return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
