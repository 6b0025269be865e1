"""Formulas: null expectations are at most 1, limits are met, masses are masses."""

import math
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weir_core import eprocess
from weir_core.eprocess import (
    ceiling_bet,
    e_value,
    floor_bet,
    grown,
    growth,
    harm_bet,
    harm_pairs_bet,
    level_mass,
    mass_ahead,
    safe_bet,
    safe_log,
    safe_pairs_bet,
    sample_ratio_bet,
    start_mass,
    state_after,
    worth,
)

WEIGHTS = (1, 500, 1_000, 5_000, 9_999)


def step_mean(bet, weight_bp, canary_share):
    """Mean growth of each alternative over one failure that is the canary's with that chance."""
    on_canary = growth(bet, weight_bp, 1, 0)
    on_stable = growth(bet, weight_bp, 0, 1)
    return [
        canary_share * c + (1 - canary_share) * s for c, s in zip(on_canary, on_stable, strict=True)
    ]


@pytest.mark.parametrize(("weight_bp", "max_ratio"), list(product(WEIGHTS, (1.0, 1.5, 3.0))))
def test_harm_bet_is_fair_when_the_canary_is_as_bad_as_allowed(weight_bp, max_ratio):
    w = weight_bp / 10_000
    share = w * max_ratio / (w * max_ratio + 1 - w)
    assert step_mean(harm_bet(max_ratio), weight_bp, share) == pytest.approx([1] * 6)


@pytest.mark.parametrize(("weight_bp", "ratio"), list(product(WEIGHTS, (0.2, 0.9, 1.0))))
def test_harm_bet_loses_on_a_canary_that_is_no_worse(weight_bp, ratio):
    w = weight_bp / 10_000
    share = w * ratio / (w * ratio + 1 - w)
    assert all(mean <= 1 + 1e-12 for mean in step_mean(harm_bet(1.0), weight_bp, share))


@pytest.mark.parametrize(("weight_bp", "ratio"), list(product(WEIGHTS, (2.0, 3.0, 10.0))))
def test_safe_bet_loses_on_a_canary_as_bad_as_the_bound_or_worse(weight_bp, ratio):
    w = weight_bp / 10_000
    share = w * ratio / (w * ratio + 1 - w)
    assert all(mean <= 1 + 1e-12 for mean in step_mean(safe_bet(1.0, 2.0), weight_bp, share))


@pytest.mark.parametrize("promote_ratio", [0.8, 1.0, 1.2, 2.0, 5.0])
def test_safe_bet_only_bets_below_its_bound(promote_ratio):
    on_canary = growth(safe_bet(1.0, promote_ratio), 5_000, 1, 0)
    on_stable = growth(safe_bet(1.0, promote_ratio), 5_000, 0, 1)
    assert all(one < 1 for one in on_canary)
    assert all(one > 1 for one in on_stable)


def test_pairs_bet_is_fair_where_each_arm_harms_alone_as_often():
    assert step_mean(harm_pairs_bet(1.0), 500, 0.5) == pytest.approx([1] * 6)
    assert all(mean <= 1 + 1e-12 for mean in step_mean(safe_pairs_bet(1.0, 2.0), 500, 2 / 3))


def test_pairs_bet_is_the_formula_of_the_design():
    r, b, c = 3.0, 7, 2
    formula = b * math.log(r) - (b + c) * math.log((1 + r) / 2)
    assert math.log(growth(harm_pairs_bet(1.0), 500, b, c)[2]) == pytest.approx(formula)


def test_harm_bet_is_the_formula_of_the_design():
    r, r0, w, canary, stable = 3.0 * 1.5, 1.5, 0.25, 5, 11
    formula = canary * math.log(r / r0) - (canary + stable) * (
        math.log1p(w * (r - 1)) - math.log1p(w * (r0 - 1))
    )
    assert math.log(growth(harm_bet(1.5), 2_500, canary, stable)[2]) == pytest.approx(formula)


@pytest.mark.parametrize("rate", [0.001, 0.05, 0.5])
def test_ceiling_and_floor_are_fair_at_their_bound(rate):
    for bet in (ceiling_bet(rate), floor_bet(rate)):
        bad, good = growth(bet, 500, 1, 1), growth(bet, 500, 0, 1)
        means = [rate * b + (1 - rate) * g for b, g in zip(bad, good, strict=True)]
        assert means == pytest.approx([1] * len(means))


def test_ceiling_near_one_has_no_alternative_of_certainty():
    assert all(math.isfinite(one) for one in growth(ceiling_bet(0.9), 500, 3, 10))


def test_sample_ratio_bet_bets_both_ways():
    bet = sample_ratio_bet()
    even = e_value(bet, ((1.0, 1_000, 100, 900),))
    assert even < 1
    assert e_value(bet, ((1.0, 1_000, 300, 700),)) > 1e6
    assert e_value(bet, ((1.0, 1_000, 10, 990),)) > 1e6


@pytest.mark.parametrize(
    "bet", [harm_bet(1.0), safe_bet(1.0, 2.0), ceiling_bet(0.1), harm_pairs_bet(2.0)]
)
def test_masses_of_a_bet_sum_to_one(bet):
    assert sum(bet.masses) == pytest.approx(1)


def test_nothing_seen_is_worth_one():
    spans = ((start_mass(0, 0, 0), 500, 0, 0),)
    assert e_value(harm_bet(1.0), spans, mass_ahead(0, 0, 0)) == pytest.approx(1)


def test_start_masses_sum_to_one():
    starts = list(product(range(300), range(6), range(4)))
    assert sum(start_mass(*one) for one in starts) + mass_ahead(299, 5, 3) == pytest.approx(1)
    assert start_mass(0, 0, 4) == 0


@pytest.mark.parametrize("start", [(0, 0, 0), (0, 3, 1), (2, 0, 2), (7, 5, 3)])
def test_mass_ahead_is_that_of_the_later_starts(start):
    later = (one for one in product(range(300), range(6), range(4)) if one > start)
    whole = sum(start_mass(*one) for one in later) + mass_ahead(299, 5, 3)
    assert mass_ahead(*start) == pytest.approx(whole)


def test_level_masses_sum_to_one():
    assert sum(level_mass(level) for level in range(20_000)) == pytest.approx(1, abs=1e-5)


def test_worth_after_one_more_epoch_is_the_whole_value():
    bet = harm_bet(1.0)
    spans = ((0.5, 500, 3, 20), (0.2, 1_000, 4, 9), (0.1, 1_000, 2, 3))
    assert worth(bet, state_after(bet, spans[:2]), spans[2]) == pytest.approx(e_value(bet, spans))


def test_later_start_is_not_weighed_down_by_a_clean_past():
    past = (0.85, 2_500, 2_500, 7_500)
    assert safe_log(e_value(harm_bet(1.0), (past,))) < -100
    assert safe_log(e_value(harm_bet(1.0), (past, (0.05, 2_500, 20, 6)))) > 4


@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)), max_size=6))
def test_values_stay_finite(counts):
    for bet in (harm_bet(1.0), safe_bet(1.0, 2.0), ceiling_bet(0.01), harm_pairs_bet(1.0)):
        spans = tuple((0.1, 5_000, x, max(x, y)) for x, y in counts)
        assert math.isfinite(e_value(bet, spans, 0.5))
        assert math.isfinite(safe_log(e_value(bet, spans)))


def test_growing_leaves_the_given_state_alone():
    state = (1.0,) * 6
    grown(harm_bet(1.0), state, (0.5, 500, 1, 1))
    assert state == (1.0,) * 6


def test_log_of_nothing_is_finite():
    assert safe_log(0.0) == eprocess.LEAST_LOG
