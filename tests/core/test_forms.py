"""The scalar forms: what each means, and that nothing near them passes."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weir_core.forms import (
    FormError,
    as_base_url,
    as_basis_points,
    as_decimal,
    as_duration_ms,
    as_regex,
    camel,
    nearest,
    one_of,
    pico,
)


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        pytest.param("1500ms", 1_500, id="milliseconds are read"),
        pytest.param("6s", 6_000, id="seconds are read"),
        pytest.param("1h30m", 5_400_000, id="units add up"),
        pytest.param("60s", 60_000, id="sixty seconds are a minute"),
        pytest.param("1m", 60_000, id="a minute is sixty seconds"),
        pytest.param("0s", 0, id="nothing is a duration"),
        pytest.param("2m500ms", 120_500, id="minutes are told from milliseconds"),
    ],
)
def test_duration_is_read(text, ms):
    assert as_duration_ms(text) == ms


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("1.5s", id="a fraction is refused"),
        pytest.param("-1s", id="a negative duration is refused"),
        pytest.param("6", id="a bare number is refused"),
        pytest.param(6, id="an integer is refused"),
        pytest.param("6 s", id="a space is refused"),
        pytest.param("1d", id="a day is refused"),
        pytest.param("", id="an empty string is refused"),
        pytest.param("1s\n", id="a line end is refused"),
        pytest.param("٣s", id="digits of other scripts are refused"),
        pytest.param("100000s", id="six digits are refused"),
        pytest.param("1h1m1s1ms1h", id="five parts are refused"),
    ],
)
def test_duration_is_refused(value):
    with pytest.raises(FormError, match="1500ms"):
        as_duration_ms(value)


@given(st.integers(0, 99_999), st.integers(0, 99_999), st.integers(0, 99_999))
def test_duration_means_the_sum_of_its_parts(hours, seconds, milliseconds):
    text = f"{hours}h{seconds}s{milliseconds}ms"
    assert as_duration_ms(text) == hours * 3_600_000 + seconds * 1_000 + milliseconds


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        pytest.param(0.05, 'in quotes: "0.05"', id="a float is told to be quoted"),
        pytest.param(2, 'in quotes: "2"', id="an integer is told to be quoted"),
        pytest.param(1e-7, 'in quotes: "0.0000001"', id="a tiny float is shown in full"),
        pytest.param(float("nan"), "in quotes", id="not a number is refused"),
        pytest.param(float("inf"), "in quotes", id="infinity is refused"),
        pytest.param(True, "in quotes", id="a boolean is refused"),
        pytest.param("1e-3", "in quotes", id="an exponent is refused"),
        pytest.param("-1", "in quotes", id="a sign is refused"),
        pytest.param(".5", "in quotes", id="a leading dot is refused"),
        pytest.param("0.5 ", "in quotes", id="a space is refused"),
        pytest.param("", "in quotes", id="an empty string is refused"),
        pytest.param(None, "in quotes", id="nothing is refused"),
    ],
)
def test_decimal_is_refused(value, wanted):
    with pytest.raises(FormError, match=wanted):
        as_decimal(value)


@given(st.decimals(0, 10**6, places=6))
def test_decimal_survives_the_round_trip(number):
    assert as_decimal(format(number, "f")) == number


@pytest.mark.parametrize(
    ("value", "bp"),
    [
        pytest.param(5, 500, id="an integer is a percent"),
        pytest.param("5%", 500, id="a string is a percent"),
        pytest.param("0.5%", 50, id="half a percent is 50 basis points"),
        pytest.param("0.05%", 5, id="two decimals are exact"),
        pytest.param(0, 0, id="nothing is legal"),
        pytest.param(100, 10_000, id="everything is legal"),
    ],
)
def test_percent_is_read(value, bp):
    assert as_basis_points(value) == bp


@pytest.mark.parametrize("value", [101, -1, 0.5, True, "5", "0.005%", "101%", "100.01%", None, "%"])
def test_percent_is_refused(value):
    with pytest.raises(FormError, match="percent from 0 to 100"):
        as_basis_points(value)


@given(st.integers(0, 10_000))
def test_percent_survives_the_round_trip(bp):
    assert as_basis_points(f"{bp // 100}.{bp % 100:02d}%") == bp


def test_five_cents_a_million_tokens_are_50_000_pico_a_token():
    assert pico(Decimal("0.05"), per=1_000_000) == 50_000


def test_half_a_pico_rounds_up():
    assert pico(Decimal("0.0000005"), per=1_000_000) == 1


@given(st.decimals(0, 10**9, places=9))
def test_pico_is_the_nearest_integer(price):
    exact = Fraction(price) * 10**12 / 10**6
    assert abs(pico(price, per=1_000_000) - exact) <= Fraction(1, 2)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        pytest.param("https://a.example/v1", "https://a.example", id="a trailing v1 is taken off"),
        pytest.param("https://a.example/v1/", "https://a.example", id="and its slash"),
        pytest.param("http://h:8000", "http://h:8000", id="a port stays"),
        pytest.param("http://h:80", "http://h", id="a default port goes"),
        pytest.param("https://h:443/x", "https://h/x", id="a default TLS port goes"),
        pytest.param("https://h/api/v1", "https://h/api", id="a path prefix stays"),
        pytest.param("https://h/openai/v10", "https://h/openai/v10", id="v10 is not v1"),
        pytest.param("HTTPS://H.example", "https://h.example", id="case does not tell hosts apart"),
        pytest.param("http://[::1]:8000/", "http://[::1]:8000", id="an IPv6 address stays"),
    ],
)
def test_url_has_one_spelling(text, url):
    assert as_base_url(text) == url


@pytest.mark.parametrize(
    "value",
    [
        "ftp://h",
        "h:8000",
        "http://",
        "http://user:pass@h",
        "http://h?x=1",
        "http://h#x",
        "http://h:99999",
        "http://h/a b",
        "http://h\n",
        "http://[::1",
        "http://h\\x",
        "http://hé",
        7,
        None,
    ],
)
def test_url_is_refused(value):
    with pytest.raises(FormError, match="a URL such as"):
        as_base_url(value)


def test_bad_pattern_is_refused_with_the_reason():
    with pytest.raises(FormError, match="missing"):
        as_regex("(a")


def test_pattern_without_linear_time_is_refused():
    with pytest.raises(FormError, match="RE2"):
        as_regex(r"(a)\1")


def test_units_are_not_written_by_people():
    assert camel("max_wait_ms") == "maxWait"


def test_nearest_ignores_case():
    assert nearest("Timout", ["timeout", "tiers"]) == "timeout"


def test_nothing_near_is_no_guess():
    assert one_of("zebra", ["timeout"]) == "one of timeout"
