"""When a refused client is told to come back."""

import pytest

from weir_router.patience import LOOK_S, MOST_S, STALE_S, Turnover, retry_after


@pytest.mark.parametrize(
    ("wait_s", "first", "last"),
    [
        pytest.param(0.0, 1, 1, id="at once is a second"),
        pytest.param(-3.0, 1, 1, id="long past is a second"),
        pytest.param(1.0, 1, 2, id="one second"),
        pytest.param(6.2, 7, 10, id="several seconds"),
        pytest.param(20.0, 20, 30, id="the longest"),
        pytest.param(9_999.0, 20, 30, id="hours are the longest"),
        pytest.param(float("inf"), 20, 30, id="never is the longest"),
    ],
)
def test_clients_are_told_to_come_back_soon_and_spread(
    wait_s: float, first: int, last: int
) -> None:
    told = {retry_after(wait_s, draw / 100) for draw in range(100)}

    assert (min(told), max(told)) == (first, last)
    assert max(told) <= MOST_S


def test_a_wait_is_the_places_over_their_rate() -> None:
    one = Turnover()
    assert one.wait_s(10, 100.0) == 1.0
    one.finished += 4

    assert one.wait_s(10, 102.0) == pytest.approx(5.0)


def test_a_place_that_never_became_free_is_waited_for_as_long_again() -> None:
    one = Turnover()
    one.wait_s(1, 100.0)

    assert one.wait_s(1, 103.0) == pytest.approx(3.0)


def test_a_rate_of_long_ago_tells_nothing() -> None:
    one = Turnover()
    one.wait_s(1, 100.0)
    one.finished += 1

    assert one.wait_s(9, 100.0 + STALE_S + 1) == 1.0


def test_a_rate_is_measured_anew() -> None:
    one = Turnover()
    one.wait_s(1, 100.0)
    one.wait_s(1, 100.0 + LOOK_S + 1)
    one.finished += 10

    assert one.wait_s(10, 100.0 + LOOK_S + 3) == pytest.approx(2.0)
