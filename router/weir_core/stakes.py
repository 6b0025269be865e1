"""What is bet on for each objective: which bets, with what mass, on which counts.

All masses hang on the objectives alone and are settled before the first request, so the mixture
of a canary's bets is one e-process. The module refuses to know the counts (`prefixes`).
"""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from weir_core import eprocess
from weir_core.eprocess import Bet
from weir_core.evidence import CANARY, Pair
from weir_core.snapshot import Objective

# A reading is a row in the light that a prefix is judged in: trials of the arms, audits with
# their pairs and harms, and from READ on failures as in a row of counts.
TRIALS, PAIRS, ONLY_CANARY, ONLY_STABLE, HARMS, READ = 0, 2, 3, 4, 5, 7


class Part(NamedTuple):
    """One bet of an objective: its mass, and the places of x and y in a reading.

    `mirror` are the places for the same bet on stable, of ceilings only.
    """

    bet: Bet
    mass: float
    x: int
    y: int
    mirror: Pair | None = None

    @property
    def is_paired(self) -> bool:
        """Whether its units are audited requests, not those of the arms."""
        return self.y in (PAIRS, ONLY_STABLE)


class Plan(NamedTuple):
    """What is bet on: parts by objective, for harm and for safety, and combination weights."""

    harm: tuple[tuple[Part, ...], ...]
    safe: tuple[tuple[Part, ...], ...]
    """None for labels: of those who gave none it is not known whether all was well."""
    shares: tuple[float, ...]
    """Of the objectives in Enforce; 0 for the others."""
    counted: tuple[int, ...]
    """Objectives that every request shows at its end: neither Harm nor Feedback."""
    at_once: tuple[int, ...]
    """Objectives that prefixes up to now show: all but those in `labelled`."""
    labelled: tuple[int, ...]
    """Feedback: known when its window is over, for all that was assigned a window ago."""
    ceilings: bool


@lru_cache(maxsize=64)
def plan_for(objectives: tuple[Objective, ...], promote_ratio: float) -> Plan:
    """Return the bets on these objectives."""
    whole = sum(o.share for o in objectives if o.mode == "Enforce")
    return Plan(
        harm=tuple(_harm_parts(o, j) for j, o in enumerate(objectives)),
        safe=tuple(_safe_parts(o, j, promote_ratio) for j, o in enumerate(objectives)),
        shares=tuple(o.share / whole if o.mode == "Enforce" else 0.0 for o in objectives),
        counted=_places(objectives, lambda event: event not in ("Harm", "Feedback")),
        at_once=_places(objectives, lambda event: event != "Feedback"),
        labelled=_places(objectives, lambda event: event == "Feedback"),
        ceilings=any(o.max_rate > 0 for o in objectives),
    )


def _places(objectives: tuple[Objective, ...], fits: Callable[[str], bool]) -> tuple[int, ...]:
    return tuple(j for j, o in enumerate(objectives) if fits(o.event))


def _harm_parts(objective: Objective, at: int) -> tuple[Part, ...]:
    """Return the bets on harm; their masses are settled before any data, so α holds."""
    o, stable, canary = objective, READ + 2 * at, READ + 2 * at + 1
    if o.event == "Harm":
        mass = 0.75
        ratio = Part(eprocess.harm_pairs_bet(o.max_ratio), 1.0, ONLY_CANARY, ONLY_STABLE)
        x, y, mirror = HARMS + CANARY, PAIRS, (HARMS, PAIRS)
    else:
        mass = 0.5
        ratio = Part(eprocess.harm_bet(o.max_ratio), 1.0, canary, stable)
        x, y, mirror = canary, TRIALS + CANARY, (stable, TRIALS)
    if o.max_rate <= 0:
        return (ratio,)
    ceiling = Part(eprocess.ceiling_bet(o.max_rate), 1 - mass, x, y, mirror)
    return (ratio._replace(mass=mass), ceiling)


def _safe_parts(objective: Objective, at: int, promote_ratio: float) -> tuple[Part, ...]:
    """Return the bets on safety: a ratio below the bound, and a negligible rate where given."""
    o, stable, canary = objective, READ + 2 * at, READ + 2 * at + 1
    if o.event == "Feedback":
        return ()
    if o.event == "Harm":
        bet = eprocess.safe_pairs_bet(o.max_ratio, promote_ratio)
        ratio = Part(bet, 1.0, ONLY_CANARY, ONLY_STABLE)
        x, y = HARMS + CANARY, PAIRS
    else:
        ratio = Part(eprocess.safe_bet(o.max_ratio, promote_ratio), 1.0, canary, stable)
        x, y = canary, TRIALS + CANARY
    if o.negligible_rate <= 0:
        return (ratio,)
    floor = Part(eprocess.floor_bet(o.negligible_rate), 0.5, x, y)
    return (ratio._replace(mass=0.5), floor)
