"""StableUnhealthy: held while stable breaks its ceiling, and not for ever after."""

import pytest

from weir_core.evidence import ASSIGNED, FAILED, SETTLED, Epoch, Key, Tally, row_length
from weir_core.sequential import judge
from weir_core.snapshot import Objective

KEY = Key(route_uid="u", revision="r-1", attempt=1, objectives="0123456789")
NOW = 1_700_000_400
CAPPED = Objective(name="errors", event="Error", max_rate=0.05)
BROKEN = (900, 100, 180, 20)
"""Requests of stable and canary, and their failures: a fifth in both."""


def holds(*epochs, objective=CAPPED):
    """Return the holds after these epochs, ten minutes each, the last one running."""
    period = NOW // 600
    made = []
    for back, (stable, canary, failed_stable, failed_canary) in enumerate(reversed(epochs)):
        counts = [0] * row_length(1)
        counts[ASSIGNED : ASSIGNED + 2] = counts[SETTLED : SETTLED + 2] = [stable, canary]
        counts[FAILED : FAILED + 2] = [failed_stable, failed_canary]
        begun = period - back
        made.append(Epoch(1_000, begun, begun * 600, (0, 0), tuple(counts)))
    tally = Tally(
        key=KEY, router="a", boot="1", seq=1, as_of_s=float(NOW), epochs=tuple(reversed(made))
    )
    judgement = judge(
        [tally],
        (objective,),
        alpha=0.01,
        promote_alpha=0.05,
        promote_ratio=2.0,
        now_s=NOW,
        horizon_s=32,
    )
    return judgement.holds


def test_a_ceiling_that_both_arms_break_holds():
    assert holds(BROKEN) == ("StableUnhealthy",)


def test_it_clears_when_stable_was_well_in_its_latest_epoch():
    assert holds(BROKEN, (900, 100, 9, 1)) == ()


def test_a_new_epoch_that_has_hardly_begun_clears_nothing():
    """Ten failures at a ceiling of 5 % are room for 200 requests; these are 90."""
    assert holds(BROKEN, (90, 10, 0, 0)) == ("StableUnhealthy",)


def test_what_comes_back_is_held_again():
    assert holds(BROKEN, (900, 100, 9, 1), BROKEN) == ("StableUnhealthy",)


@pytest.mark.parametrize(("failed", "held"), [(45, ()), (46, ("StableUnhealthy",))])
def test_the_ceiling_itself_is_the_bound(failed, held):
    assert holds(BROKEN, (900, 100, failed, 5)) == held
