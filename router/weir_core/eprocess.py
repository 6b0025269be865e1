"""Formulas of the evidence: test martingales as bets on where failures fall.

A bet is a mixture of simple alternatives. What a bet has grown to after counts (x, y) is a
product, so it is linear in the counts on the log scale and epochs simply multiply. Under the
null hypothesis the expectation is at most 1 at every stopping time (Ville's inequality:
P(ever ≥ 1/α) ≤ α; Ramdas, Grünwald, Vovk, Shafer, "Game-theoretic statistics and safe
anytime-valid inference", Statistical Science 2023, section 2). The module refuses to know what
the counts mean and where they come from (`sequential`).
"""

import math
import operator
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

from weir_core.snapshot import FULL_BP

HARM_RATIOS = ((1.5, 0.1), (2.0, 0.2), (3.0, 0.2), (5.0, 0.2), (10.0, 0.2), (40.0, 0.1))
"""Ratios above the allowed one and their mass: within 10 % of grids of 5 to 12 points."""

SAFE_RATIOS = (0.25, 0.5, 0.75, 1.0)
"""Ratios to the allowed one that promotion bets on, of equal mass."""

CEILING_RATIOS = (1.5, 2.0, 3.0, 5.0, 10.0)
FLOOR_RATIOS = (0.01, 0.1, 0.3, 0.6)
SAMPLE_ODDS = (0.5, 0.8, 0.95, 1.05, 1.25, 2.0)

MOST_RATE = 0.98
"""An alternative's failure rate at most: no alternative says that all fail."""

MOST_LOG, MOST_VALUE = 300.0, 1e150
"""A bet grows no further in one epoch, in all: their product still fits a float.

What a cap withholds only lowers the evidence, and a bet that has come so far is long decided.
"""

LEAST_LOG = -745.0
"""Log of what is 0 to a float."""

Line = tuple[float, float]
"""What one more x and one more y add to the log of one alternative."""


class Bet:
    """A mixture of alternatives against one null; `lines` gives their slopes at a weight."""

    __slots__ = ("lines", "masses")

    def __init__(self, masses: Iterable[float], lines: Callable[[int], tuple[Line, ...]]) -> None:
        self.masses = tuple(masses)
        self.lines = lines


@lru_cache(maxsize=64)
def harm_bet(max_ratio: float) -> Bet:
    """Bet on ratios above `max_ratio`; x canary failures, y stable failures.

    Given a failure it is the canary's with probability w·r/(1 + w(r − 1)), whatever the
    baseline is and however it drifts. Likelihood ratio of r over r0 for one canary failure:
    (r/r0)·(1 + w(r0−1))/(1 + w(r−1)), for one of stable without the factor r/r0. Its mean is at
    most 1 whenever p_canary ≤ r0·p_stable, for r > r0 (Lindon, Malek, "Anytime-valid inference
    for multinomial count data", NeurIPS 2022, section 3, conditional on the failures).
    """
    ratios = tuple((max_ratio * step, mass) for step, mass in HARM_RATIOS)
    return _label_bet(ratios, max_ratio)


@lru_cache(maxsize=64)
def safe_bet(max_ratio: float, promote_ratio: float) -> Bet:
    """Bet on ratios below promote_ratio × max_ratio, the same form with r < r0."""
    bound = max_ratio * promote_ratio
    scale = max_ratio if promote_ratio > 1 else bound / 2
    return _label_bet(tuple((scale * step, 0.25) for step in SAFE_RATIOS), bound)


@lru_cache(maxsize=1)
def sample_ratio_bet() -> Bet:
    """Bet on other odds of assignment than w, both ways; x canary units, y stable units."""
    return _label_bet(tuple((odds, 1 / len(SAMPLE_ODDS)) for odds in SAMPLE_ODDS), 1.0)


def _label_bet(ratios: Sequence[tuple[float, float]], bound: float) -> Bet:
    @lru_cache(maxsize=512)
    def lines(weight_bp: int) -> tuple[Line, ...]:
        w = weight_bp / FULL_BP
        null = math.log1p(w * (bound - 1))
        stable = [null - math.log1p(w * (r - 1)) for r, _ in ratios]
        return tuple(
            (math.log(r / bound) + line, line) for (r, _), line in zip(ratios, stable, strict=True)
        )

    return Bet((mass for _, mass in ratios), lines)


@lru_cache(maxsize=64)
def harm_pairs_bet(max_ratio: float) -> Bet:
    """Bet on canary-only over stable-only harms above `max_ratio`; x canary-only, y stable-only.

    Both arms answered the same request: of a discordant pair the canary is the one that harmed
    with probability r/(1 + r). ln E = b ln r − (b + c) ln((1 + r)/2) at max_ratio 1: McNemar's
    conditioning (Psychometrika 1947) as a test martingale.
    """
    ratios = tuple((max_ratio * step, mass) for step, mass in HARM_RATIOS)
    return _pairs_bet(ratios, max_ratio)


@lru_cache(maxsize=64)
def safe_pairs_bet(max_ratio: float, promote_ratio: float) -> Bet:
    """Bet on canary-only over stable-only harms below promote_ratio × max_ratio."""
    bound = max_ratio * promote_ratio
    scale = max_ratio if promote_ratio > 1 else bound / 2
    return _pairs_bet(tuple((scale * step, 0.25) for step in SAFE_RATIOS), bound)


def _pairs_bet(ratios: Sequence[tuple[float, float]], bound: float) -> Bet:
    stable = [math.log1p(bound) - math.log1p(r) for r, _ in ratios]
    lines = tuple(
        (math.log(r / bound) + line, line) for (r, _), line in zip(ratios, stable, strict=True)
    )
    return Bet((mass for _, mass in ratios), lambda _weight_bp: lines)


@lru_cache(maxsize=64)
def ceiling_bet(max_rate: float) -> Bet:
    """Bet on a failure rate above `max_rate` in one arm; x failures, y trials.

    Product of (q/p)^F·((1 − q)/(1 − p))^(n − F) (Wald, "Sequential tests of statistical
    hypotheses", Annals of Mathematical Statistics 1945, section 5.1), mixed over q.
    """
    return _rate_bet(max_rate, tuple(min(MOST_RATE, max_rate * k) for k in CEILING_RATIOS))


@lru_cache(maxsize=64)
def floor_bet(negligible_rate: float) -> Bet:
    """Bet on a failure rate below `negligible_rate` in one arm; x failures, y trials."""
    return _rate_bet(negligible_rate, tuple(negligible_rate * k for k in FLOOR_RATIOS))


def _rate_bet(bound: float, rates: Sequence[float]) -> Bet:
    bound = min(bound, 1 - 1e-9)
    good = [math.log((1 - q) / (1 - bound)) for q in rates]
    lines = tuple((math.log(q / bound) - line, line) for q, line in zip(rates, good, strict=True))
    return Bet([1 / len(lines)] * len(lines), lambda _weight_bp: lines)


@lru_cache(maxsize=8_192)
def growth(bet: Bet, weight_bp: int, x: int, y: int) -> tuple[float, ...]:
    """Return the factor by which each alternative grows on the counts of one epoch."""
    return tuple(
        math.exp(min(MOST_LOG, x * per_x + y * per_y)) for per_x, per_y in bet.lines(weight_bp)
    )


Span = tuple[float, int, int, int]
"""One epoch of a bet: the mass of starting with it, its weight in basis points, x, y."""


def grown(bet: Bet, state: Sequence[float], span: Span) -> Sequence[float]:
    """Return `state` (one value an alternative) after one further epoch.

    state ← (state + mass)·growth is Σ_s mass_s·E(epochs from s on): a mixture over start epochs
    is a mixture of e-processes, so it is one, and a long clean past does not weigh on the later
    starts (Shin, Ramdas, Rinaldo, "E-detectors", NEJSDS 2023, section 2, with summable masses).
    """
    mass, weight_bp, x, y = span
    if x or y:
        factors = growth(bet, weight_bp, x, y)
        return [min(MOST_VALUE, (v + mass) * f) for v, f in zip(state, factors, strict=True)]
    return [v + mass for v in state] if mass else state


@lru_cache(maxsize=8_192)
def state_after(bet: Bet, spans: tuple[Span, ...]) -> tuple[float, ...]:
    """Return the values of all alternatives after these epochs."""
    state: Sequence[float] = [0.0] * len(bet.masses)
    for span in spans:
        state = grown(bet, state, span)
    return tuple(state)


def worth(bet: Bet, state: Sequence[float], span: Span) -> float:
    """Return the mixture's value after one further epoch."""
    mass, weight_bp, x, y = span
    seeds = [own * (value + mass) for own, value in zip(bet.masses, state, strict=True)]
    grown_seeds: float = sum(map(operator.mul, seeds, growth(bet, weight_bp, x, y)))
    return grown_seeds


@lru_cache(maxsize=8_192)
def e_value(bet: Bet, spans: tuple[Span, ...], rest: float = 0.0) -> float:
    """Return the e-value after all epochs; `rest` is the mass of starts yet to come."""
    state = state_after(bet, spans)
    return sum(m * v for m, v in zip(bet.masses, state, strict=True)) + rest


def safe_log(value: float) -> float:
    """Return ln(value), finite also where the value is 0 to a float."""
    return math.log(value) if value > 0 else LEAST_LOG


FIRST_HOUR = 0.85
FIRST_TURNS = (0.9, 0.02, 0.02, 0.02, 0.02, 0.02)
TURNS = (0.4, 0.12, 0.12, 0.12, 0.12, 0.12)
PLACES = (0.9, 0.06, 0.03, 0.01)
"""Mass of the starts: of the first hour, of its periods, of a later hour's, of their weights."""


def start_mass(hours: int, turn: int, place: int) -> float:
    """Return the mass of starting at the `place`-th weight of a period.

    It is the `turn`-th period (from the attempt's first in its first hour) of the hour `hours`
    after the first. The masses sum to 1: 0.85 + Σ 0.15/(h(h + 1)) = 1 over the hours. They hang
    on these numbers alone, so they stay what they are when epochs are joined later. The first
    start has more than the 1/2 of 1/((s + 1)(s + 2)): most bad canaries are bad from the start.
    """
    if place >= len(PLACES):
        return 0.0
    return _hour_mass(hours) * _turns(hours)[turn] * PLACES[place]


def mass_ahead(hours: int, turn: int, place: int) -> float:
    """Return the mass of all starts that come after this one."""
    later_hours = (1 - FIRST_HOUR) / (hours + 1)
    turns = _turns(hours)
    this_hour = sum(turns[turn + 1 :]) + turns[turn] * sum(PLACES[place + 1 :])
    return later_hours + _hour_mass(hours) * this_hour


def _turns(hours: int) -> tuple[float, ...]:
    return TURNS if hours else FIRST_TURNS


def _hour_mass(hours: int) -> float:
    return FIRST_HOUR if hours == 0 else (1 - FIRST_HOUR) / (hours * (hours + 1))


def level_mass(level: int) -> float:
    """Return the mass of the evidence of sessions sampled at `level`; sums to 1 over all.

    Each level is an e-process of its own. The one in use changes when the set is full, which
    hangs on the data: so all of them are mixed, and the others' share is forgone.
    """
    return 0.9 if level == 0 else 0.1 / (level * (level + 1))
