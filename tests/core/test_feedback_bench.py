"""A small run of hack/bench/sequential/feedback: labels through the real ledger."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "hack" / "bench" / "sequential"))

from feedback import QUICK, Labelled, by_arm, in_a_minute
from world import steady

CANARY = 1
EQUAL = Labelled(
    requests=800,
    weights=((1.0, 1_000),),
    fails=steady(0.1, 0.1),
    per_s=5,
    labelled=by_arm(480.0, 5.0),
)


def rolled_back(case, n):
    return sum(case.drive(seed).rolled_back for seed in range(n))


@pytest.mark.parametrize(
    "case",
    [
        EQUAL,
        replace(EQUAL, labelled=by_arm(5.0, 480.0)),
        replace(EQUAL, session=10, routers=3),
        replace(EQUAL, restarts=4, per_s=0.1),
        replace(
            EQUAL, objectives=(QUICK,), labelled=in_a_minute, answered=by_arm(25.0, 1.0), per_s=50
        ),
    ],
    ids=["canary sooner", "stable sooner", "sessions", "restarts", "canary answers sooner"],
)
def test_equal_canary_is_hardly_ever_rolled_back(case):
    assert rolled_back(case, 60) <= 3


def test_counting_on_arrival_is_caught_by_these_runs():
    assert rolled_back(replace(EQUAL, on_arrival=True), 20) >= 15


def test_canary_that_is_labelled_ten_times_as_often_is_found_soon_after_the_window():
    worse = replace(EQUAL, requests=100_000, fails=steady(0.01, 0.1), per_s=10)
    found = [worse.drive(seed) for seed in range(20)]
    assert all(one.rolled_back for one in found)
    assert sum(one.assigned[CANARY] for one in found) / 20 < 100
