"""What a route tells of itself, in the pieces that `describe` and `watch` both show.

Pure: from the JSON of the management API to words and small values, with time as an argument.
"""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from weir_core.figures import duration

PICO = 1e-12
Told = Mapping[str, Any]
"""Plain JSON: what GET /weir/v1/routes/{namespace}/{name} returns, or a part of it."""


class TierShare(msgspec.Struct, frozen=True, kw_only=True):
    """What one tier served: requests answered, its share of them in [0, 1], tokens, price units."""

    name: str
    requests: int
    share: float
    input_tokens: int
    output_tokens: int
    cost: float


class Saving(msgspec.Struct, frozen=True, kw_only=True):
    """What the cascade cost, beside what the last tier alone would have cost for the same."""

    last_tier: str
    cost: float
    instead_of: float

    @property
    def share(self) -> float:
        """The part saved, negative for a loss."""
        return 1 - self.cost / self.instead_of

    def text(self) -> str:
        """Return it in one sentence."""
        verb = "Saved" if self.share >= 0 else "Lost"
        spent, otherwise = (
            money(cost, like=self.instead_of) for cost in (self.cost, self.instead_of)
        )
        told = f"{verb} {abs(self.share):.0%} against always {self.last_tier}"
        return f"{told} ({spent} instead of {otherwise})"


def tier_shares(told: Told) -> list[TierShare]:
    """Return the tiers in the order the server gives them."""
    tiers: Mapping[str, Told] = told["tiers"]
    total = sum(row["requests"] for row in tiers.values())
    return [
        TierShare(
            name=name,
            requests=int(row["requests"]),
            share=row["requests"] / total if total else 0.0,
            input_tokens=int(row["inputTokens"]),
            output_tokens=int(row["outputTokens"]),
            cost=row.get("costPico", 0) * PICO,
        )
        for name, row in tiers.items()
    ]


def costs(tiers: Sequence[TierShare]) -> list[str]:
    """Return the tiers' costs, all with the decimals of the largest."""
    like = max((tier.cost for tier in tiers), default=0.0)
    return [money(tier.cost, like=like) for tier in tiers]


def saving(told: Told) -> Saving | None:
    """Return what was saved; None while nothing was served or no prices are known."""
    last = told.get("alwaysLast") or {}
    instead_of = last.get("costPico", 0) * PICO
    if not instead_of:
        return None
    cost = sum(tier.cost for tier in tier_shares(told))
    return Saving(last_tier=last["tier"], cost=cost, instead_of=instead_of)


def money(units: float, *, like: float) -> str:
    """Return an amount in price units, with the decimals that show three digits of `like`."""
    decimals = 2 if like >= 1 or like <= 0 else 2 - math.floor(math.log10(like))
    return f"{units:,.{decimals}f}"


def number(text: str) -> float:
    """Return a figure of a status as a number: "<0.01" is 0.01, "5%" is 5, "" is 0."""
    return float(text.removeprefix("<").removesuffix("%") or 0)


def e_fraction(e_value: str, threshold: str) -> float:
    """Return how far E has come from 1 to the threshold, on a log scale, in [0, 1]."""
    e, end = number(e_value), number(threshold)
    if e <= 1 or end <= 1:
        return 0.0
    return min(1.0, math.log(e) / math.log(end)) if math.isfinite(e) else 1.0


def interval(objective: Told) -> str:
    """Return the ratio with its interval: "1.3 (0.2–4)"; no upper end is ∞.

    The interval is smoothed, the ratio is not: of no failures the lower end is none.
    """
    if not objective["ratio"]:
        return "-"
    low, _, high = objective["interval"].partition("-")
    low = min(low, objective["ratio"], key=number)
    return f"{objective['ratio']} ({low}–{high or '∞'})"


def weight(status: Told) -> str:
    """Return the canary's weight, with the measured share where that is known."""
    actual = status["weight"]["actual"]
    return f"{status['weight']['set']} ({actual} measured)" if actual else status["weight"]["set"]


def is_refused(status: Told) -> bool:
    """Tell whether the revision named as canary must not serve: rolled back, or never let in."""
    return bool(status["canary"]["revision"]) and not status["step"]["progress"]


def standstill(status: Told) -> list[str]:
    """Return why a rollout stands still, one sentence each."""
    return [str(one["message"]) for one in status.get("standstill", ())]


def outages(told: Told, now_s: float) -> list[str]:
    """Return one sentence for each backend that is out: of a route, or of all of them."""
    backends = told.get("backends", told.get("ejected", ()))
    return [f"backend {one['name']}: {out(one, now_s)}" for one in backends if one["ejected"]]


def out(backend: Told, now_s: float) -> str:
    """Return since when a backend is out, and why."""
    why = backend["ejected"]
    failures = f"{why['failures']} failures in a row"
    return f"out for {age(why['since'], now_s)} ({why['cause']}, {failures}; {backend['url']})"


def evidence(status: Told) -> str:
    """Return the combined evidence and what is concluded from it, "" without any."""
    verdict = str(status["verdict"])
    if not status["eValue"]:
        return verdict
    return f"{verdict}, E {status['eValue']} of {status['threshold']}"


def age(at_s: float, now_s: float) -> str:
    """Return the time since a moment, both in seconds since the epoch."""
    return duration(now_s - at_s)


def age_of(instant: str, now_s: float) -> str:
    """Return the time since a moment as Kubernetes writes it."""
    return age(datetime.fromisoformat(instant).timestamp(), now_s)


def latest_s(told: Told) -> float:
    """Return the latest moment that a route tells of, 0 for none."""
    moments: Sequence[float] = [one["at"] for one in told["events"]]
    return max([*moments, *(one["since"] for one in told["history"])], default=0.0)
