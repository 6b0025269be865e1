"""The small values that several commands show."""

import pytest

from weir_cli import parts


@pytest.mark.parametrize(
    ("e_value", "fraction"),
    [
        ("<0.01", 0.0),
        ("1", 0.0),
        ("10", 0.5),
        ("100", 1.0),
        ("1.2e+05", 1.0),
        ("inf", 1.0),
        ("", 0.0),
    ],
)
def test_evidence_is_measured_on_a_log_scale(e_value, fraction):
    assert parts.e_fraction(e_value, "100") == pytest.approx(fraction)


def test_no_threshold_is_no_progress():
    assert parts.e_fraction("50", "") == 0.0


@pytest.mark.parametrize(
    ("units", "like", "text"),
    [
        (0.0, 0.0, "0.00"),
        (0.00775, 0.17, "0.008"),
        (0.17, 0.17, "0.170"),
        (0.0000775, 0.0000775, "0.0000775"),
        (1234.5, 1234.5, "1,234.50"),
    ],
)
def test_money_shows_three_digits_of_the_largest(units, like, text):
    assert parts.money(units, like=like) == text


def test_interval_without_an_end_is_open():
    objective = {"ratio": "1.3", "interval": "0.2-"}
    assert parts.interval(objective) == "1.3 (0.2–∞)"


def test_interval_holds_its_ratio():
    assert parts.interval({"ratio": "0", "interval": "0.081-30"}) == "0 (0–30)"


def test_saving_is_unknown_without_prices(scenes):
    told = scenes["healthy"]()
    del told["alwaysLast"]
    assert parts.saving(told) is None


def test_loss_is_called_a_loss():
    lost = parts.Saving(last_tier="large", cost=1.2, instead_of=1.0)
    assert lost.text() == "Lost 20% against always large (1.20 instead of 1.00)"


def test_share_of_no_requests_is_nothing():
    told = {"tiers": {"small": {"requests": 0, "inputTokens": 0, "outputTokens": 0}}}
    assert parts.tier_shares(told)[0].share == 0.0
