"""A small run of hack/bench/sequential: the real ledger under a fake clock, event by event."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "hack" / "bench" / "sequential"))

import tables
from truth import information_bound
from world import (
    Case,
    fast_canary_failures,
    run,
    slow_canary,
    slow_canary_failures,
    steady,
)

CANARY = 1
EQUAL = Case(requests=800, weights=((1.0, 1_000),), fails=steady(0.1, 0.1), per_s=25)
UNEVEN = replace(EQUAL, latency=fast_canary_failures)


def runs(case, n):
    return [run(case, seed) for seed in range(n)]


def rolled_back(case, n):
    return sum(one.rolled_back for one in runs(case, n))


@pytest.mark.parametrize(
    "case",
    [
        EQUAL,
        UNEVEN,
        replace(UNEVEN, restarts=4),
        replace(UNEVEN, session=10, routers=3, requests=500),
        replace(UNEVEN, gone=0.05, lost=(0.01, 0.01)),
    ],
    ids=["alike", "uneven delays", "restarts", "sessions", "gone and lost"],
)
def test_equal_canary_is_hardly_ever_rolled_back(case):
    assert rolled_back(case, 60) <= 3


def test_slower_equal_canary_survives_restarts():
    assert rolled_back(replace(EQUAL, latency=slow_canary, restarts=4), 60) <= 3


RAMP = ((0.4, 500), (0.7, 2_500), (1.0, 5_000))


@pytest.mark.parametrize(
    "case",
    [
        EQUAL,
        UNEVEN,
        replace(EQUAL, latency=slow_canary, restarts=1),
        replace(UNEVEN, restarts=2, routers=3),
        replace(UNEVEN, weights=RAMP, routers=3),
        replace(EQUAL, weights=((1.0, 5_000),), routers=3, report_s=3.0),
        replace(EQUAL, lost=(0.03, 0.03), weights=((1.0, 5_000),)),
    ],
    ids=[
        "alike",
        "uneven delays",
        "slow, restarts",
        "3 routers, restarts",
        "ramp",
        "late reports",
        "lost",
    ],
)
def test_no_rollback_before_the_evidence_with_all_outcomes_known_has_crossed(case):
    """Path by path, not on average: that is why α holds under any delays."""
    eager = replace(case, alpha=0.5, measured=True, fails=steady(0.1, 0.3), requests=500)
    found = [one for one in runs(eager, 25) if one.rolled_back]
    assert len(found) >= 10
    assert all(one.delay_s >= 0 for one in found)


def test_rollback_waits_for_little_more_than_the_requests_in_flight():
    worse = replace(EQUAL, requests=100_000, fails=steady(0.01, 0.1), alpha=0.008, look_s=0.05)
    found = runs(replace(worse, per_s=100, measured=True, spared=True), 40)
    waits = [one.crossing.answered_s - one.crossing.at_s for one in found]
    assert sum(one.delay_s for one in found) < sum(waits) + 40 * 0.25


def test_counting_on_arrival_is_caught_by_these_runs():
    wrong = replace(UNEVEN, on_arrival=True, weights=((1.0, 5_000),))
    assert rolled_back(wrong, 20) >= 15


def test_dead_canary_is_gone_after_a_handful_of_requests():
    dead = replace(UNEVEN, fails=steady(0.01, 1.0), per_s=10)
    found = runs(dead, 20)
    assert all(one.rolled_back for one in found)
    assert sum(one.assigned[CANARY] for one in found) / 20 < 8


def test_five_times_worse_canary_is_found_near_the_information_limit():
    worse = replace(EQUAL, requests=100_000, fails=steady(0.01, 0.05), per_s=10, alpha=0.008)
    worse = replace(worse, measured=True, spared=True)
    found = runs(worse, 40)
    assert all(one.rolled_back for one in found)
    mean = sum(one.assigned[CANARY] for one in found) / 40
    assert mean < 1.6 * information_bound(0.05, 0.01, 0.1, 0.008)


def test_equal_canary_is_promoted():
    fine = replace(EQUAL, requests=8_000, weights=((1.0, 5_000),), per_s=100, promote=True)
    assert all(one.promoted for one in runs(fine, 5))


@pytest.mark.parametrize(
    "case",
    [
        replace(EQUAL, fails=steady(0.1, 0.3), alpha=1e-9),
        replace(EQUAL, fails=steady(0.02, 1.0), latency=slow_canary_failures, alpha=1e-300),
        replace(EQUAL, lost=(0.0, 0.1)),
    ],
    ids=["three times worse", "dead and late", "outcomes missing"],
)
def test_worse_canary_is_not_promoted(case):
    shown = replace(case, weights=((1.0, 5_000),), promote=True, requests=1_500)
    assert not any(one.promoted for one in runs(shown, 6))


def test_audits_find_a_loss_of_quality():
    case = replace(
        EQUAL,
        fails=steady(0, 0),
        objectives=(tables.QUALITY,),
        audit=tables.wrong_pairs(0.18, 0.09),
        requests=3_000,
    )
    found = runs(case, 10)
    assert all(one.rolled_back for one in found)
    assert sum(one.audits for one in found) / 10 < 500
