"""What the demo measured, its intervals, and the JSON of it. Pure arithmetic.

Gold labels come in here as counts of right answers; nothing in this module asks anybody.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from weir_cli.demo_manifests import Change

Z = 1.959964
"""Of a 95 % interval."""
Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Scored:
    """One answered question: right by its gold label, what it cost, who answered it."""

    right: bool
    cost: float
    tier: str
    arm: str


@dataclass(frozen=True, slots=True)
class Measured:
    """One route on all questions, in their order. Cost is in price units, of all together."""

    answers: tuple[Scored, ...]

    @property
    def accuracy(self) -> float:
        return sum(one.right for one in self.answers) / len(self.answers)

    @property
    def interval(self) -> Interval:
        return wilson(sum(one.right for one in self.answers), len(self.answers))

    @property
    def cost(self) -> float:
        return math.fsum(one.cost for one in self.answers)

    def share_of(self, tier: str) -> float:
        """Return the share of answers that came from a tier."""
        return sum(one.tier == tier for one in self.answers) / len(self.answers)


@dataclass(frozen=True, slots=True)
class Table:
    """The three side by side."""

    small: Measured
    large: Measured
    cascade: Measured

    @property
    def against_large(self) -> tuple[float, Interval]:
        """How far the cascade's accuracy is from always-large's, with its paired interval."""
        pairs = list(zip(self.cascade.answers, self.large.answers, strict=True))
        won = sum(one.right and not other.right for one, other in pairs)
        lost = sum(other.right and not one.right for one, other in pairs)
        return (won - lost) / len(pairs), paired(won, lost, len(pairs))

    @property
    def cost_ratio(self) -> float:
        """The cascade's cost as a share of always-large's."""
        return self.cascade.cost / self.large.cost


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one change ended: the product's verdict, and what clients saw until then.

    `e_value` and its `threshold` are of the harm that rolled it back, or of the proof that
    promoted it. `verdict` is Undecided when the demo's patience ended first. `stable_wrong` is
    the share of stable's answers that were wrong meanwhile.
    """

    change: Change
    verdict: str
    suspect: str
    decided_by: str
    e_value: float
    threshold: float
    requests: int
    canary_requests: int
    bad_served: int
    stable_wrong: float
    audits: int
    cost: float
    audit_cost: float
    seconds: float

    @property
    def as_expected(self) -> bool:
        """Whether the verdict is right, and for a right reason."""
        change = self.change
        return self.verdict == change.expected and (
            self.verdict != "RolledBack" or self.suspect in change.suspects
        )


def wilson(good: int, of: int) -> Interval:
    """Return the 95 % score interval of a share (Wilson, JASA 1927)."""
    share, spread = good / of, Z * Z / of
    centre = (share + spread / 2) / (1 + spread)
    radius = Z / (1 + spread) * math.sqrt(share * (1 - share) / of + spread / (4 * of))
    return centre - radius, centre + radius


def paired(won: int, lost: int, of: int) -> Interval:
    """Return the 95 % interval of a difference of shares on the same `of` questions.

    Half a question is added to each of the four cells (Agresti, Min, "Simple improved
    confidence intervals for comparing matched proportions", Statistics in Medicine 2005).
    """
    up, down, n = won + 0.5, lost + 0.5, of + 2
    centre = (up - down) / n
    radius = Z * math.sqrt(up + down - (up - down) ** 2 / n) / n
    return centre - radius, centre + radius


def as_json(
    *, seed: int, table: Table | None, outcomes: Sequence[Outcome], seconds: float
) -> dict[str, Any]:
    """Return everything as plain JSON values; costs are in price units (see the README)."""
    told: dict[str, Any] = {"seed": seed}
    if table is not None:
        difference, (low, high) = table.against_large
        told |= {
            "questions": len(table.small.answers),
            "small": _measured(table.small),
            "large": _measured(table.large),
            "cascade": {
                **_measured(table.cascade),
                "escalated": table.cascade.share_of("large"),
                "costRatio": table.cost_ratio,
                "againstLarge": {"difference": difference, "low": low, "high": high},
            },
        }
    return told | {"rollouts": [_rollout(one) for one in outcomes], "seconds": seconds}


def _measured(one: Measured) -> dict[str, float]:
    low, high = one.interval
    return {"accuracy": one.accuracy, "low": low, "high": high, "cost": one.cost}


def _rollout(one: Outcome) -> dict[str, Any]:
    return {
        "change": one.change.name,
        "route": one.change.route,
        "verdict": one.verdict,
        "expected": one.change.expected,
        "requests": one.requests,
        "canaryRequests": one.canary_requests,
        "badAnswersServed": one.bad_served,
        "eValue": one.e_value,
        "threshold": one.threshold,
        "suspect": one.suspect,
        "decidedBy": one.decided_by,
        "audits": one.audits,
        "cost": one.cost,
        "auditCost": one.audit_cost,
        "seconds": one.seconds,
    }
