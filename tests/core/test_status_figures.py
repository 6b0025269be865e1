"""Numbers as people read them."""

import math

import pytest

from weir_core.figures import duration, e_value, instant, percent, ratio


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "<0.01"),
        (0.009, "<0.01"),
        (0.0101, "0.01"),
        (0.45, "0.45"),
        (1.0, "1"),
        (1.84, "1.8"),
        (9.96, "10"),
        (131.4, "131"),
        (99_999.0, "99999"),
        (123_456.0, "1.2e+05"),
        (9.96e6, "1.0e+07"),
        (1e100, "1.0e+100"),
    ],
)
def test_an_e_value_is_short(value, text):
    assert e_value(math.log(value) if value else -math.inf) == text


@pytest.mark.parametrize(
    ("log_e", "text"), [(2_000.0, "3.9e+868"), (math.inf, "inf")], ids=["huge", "infinite"]
)
def test_an_e_value_never_overflows(log_e, text):
    assert e_value(log_e) == text


@pytest.mark.parametrize(
    ("share_bp", "text"),
    [(0, "0%"), (5, "0.05%"), (50, "0.5%"), (497.4, "4.97%"), (10_000, "100%")],
)
def test_a_share_is_a_percentage(share_bp, text):
    assert percent(share_bp) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59.9, "59s"), (200, "3m20s"), (3_600, "1h"), (187_200, "2d4h"), (86_401, "1d")],
)
def test_a_length_of_time_has_two_units(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(("value", "text"), [(1.0, "1"), (0.404, "0.4"), (12.3, "12")])
def test_a_ratio_has_two_digits(value, text):
    assert ratio(value) == text


def test_an_instant_is_in_utc():
    assert instant(1_767_225_600.9) == "2026-01-01T00:00:00Z"
