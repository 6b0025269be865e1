"""Certificates over years of simulated days; handshakes with them are in test_feed_tls."""

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature

from weir_operator.certs import DAY_S, new_ca, rotate

NAMES = ("weir-operator.weir.svc", "weir-operator.weir")
NOW_S = 1_800_000_000.0


def loaded(bundle: bytes) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(bundle)


def is_trusted(serving: bytes, bundle: bytes, now_s: float) -> bool:
    """Whether a client that trusts the bundle accepts the certificate at that time."""
    certificate = loaded(serving)[0]
    for ca in loaded(bundle):
        try:
            certificate.verify_directly_issued_by(ca)
        except (ValueError, InvalidSignature):
            continue
        valid = [
            one.not_valid_before_utc.timestamp() <= now_s <= one.not_valid_after_utc.timestamp()
            for one in (certificate, ca)
        ]
        return all(valid)
    return False


def test_the_same_day_changes_nothing() -> None:
    data, bundle = rotate({}, names=NAMES, now_s=NOW_S)

    assert rotate(data, names=NAMES, now_s=NOW_S + DAY_S) == (data, bundle)


def test_over_four_years_yesterdays_bundle_always_trusts_todays_certificate() -> None:
    data, before = rotate({}, names=NAMES, now_s=NOW_S)
    authorities, servings = {data["ca.crt"]}, {data["tls.crt"]}
    for day in range(1, 4 * 365):
        now_s = NOW_S + day * DAY_S
        data, bundle = rotate(data, names=NAMES, now_s=now_s)
        assert is_trusted(data["tls.crt"], before, now_s), f"day {day}"
        authorities.add(data["ca.crt"])
        servings.add(data["tls.crt"])
        before = bundle

    assert 5 <= len(authorities) <= 7
    assert len(servings) > 4 * 365 / 30


def test_what_is_shown_today_is_trusted_by_the_bundle_of_tomorrow() -> None:
    data, _ = rotate({}, names=NAMES, now_s=NOW_S)
    for day in range(1, 800):
        now_s = NOW_S + day * DAY_S
        shown = data["tls.crt"]
        data, bundle = rotate(data, names=NAMES, now_s=now_s)
        assert is_trusted(shown, bundle, now_s), f"day {day}"


def test_after_two_years_without_an_operator_all_is_made_anew() -> None:
    old, _ = rotate({}, names=NAMES, now_s=NOW_S)
    now_s = NOW_S + 730 * DAY_S
    data, bundle = rotate(old, names=NAMES, now_s=now_s)

    assert is_trusted(data["tls.crt"], bundle, now_s)
    assert data["ca.crt"] != old["ca.crt"]
    assert len(loaded(bundle)) == 1


def test_other_names_get_another_certificate_of_the_same_authority() -> None:
    before, _ = rotate({}, names=NAMES, now_s=NOW_S)
    after, bundle = rotate(before, names=("elsewhere.svc",), now_s=NOW_S)

    assert after["ca.crt"] == before["ca.crt"]
    assert after["tls.crt"] != before["tls.crt"]
    assert is_trusted(after["tls.crt"], bundle, NOW_S)


@pytest.mark.parametrize("name", ["ca.crt", "ca.key", "tls.crt", "tls.key", "next.crt"])
def test_what_cannot_be_read_is_made_anew(name: str) -> None:
    data, _ = rotate({}, names=NAMES, now_s=NOW_S)
    after, bundle = rotate({**data, name: b"nonsense"}, names=NAMES, now_s=NOW_S)

    assert after.get(name) != b"nonsense"
    assert is_trusted(after["tls.crt"], bundle, NOW_S)


def test_a_key_of_another_authority_does_not_sign() -> None:
    data, _ = rotate({}, names=NAMES, now_s=NOW_S)
    after, bundle = rotate({**data, "ca.key": new_ca(now_s=NOW_S).key}, names=NAMES, now_s=NOW_S)

    assert is_trusted(after["tls.crt"], bundle, NOW_S)
    assert after["ca.crt"] != data["ca.crt"]


@pytest.mark.parametrize("off_s", [-3_600.0, 3_600.0], ids=["behind", "ahead"])
def test_certificates_of_a_clock_an_hour_off_are_good_now(off_s: float) -> None:
    made, bundle = rotate({}, names=NAMES, now_s=NOW_S + off_s)

    assert is_trusted(made["tls.crt"], bundle, NOW_S)
    assert rotate(made, names=NAMES, now_s=NOW_S) == (made, bundle)
