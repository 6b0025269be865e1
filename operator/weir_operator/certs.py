"""The feed's certificates: two overlapping CAs and a serving certificate, made by the operator.

Routers read the CAs from a ConfigMap that reaches them a minute or two late. So a CA is in the
bundle for days before it signs anything, and stays in it until it expires. All of it is the data
of one Secret; the module refuses to know how that is read and written.
"""

import datetime
from collections.abc import Mapping, Sequence

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY_S = 86_400.0
CA_DAYS = 360
NEXT_DAYS, TURN_DAYS = 120, 60
"""Days left of a CA when the next one is made, and when that one begins to sign."""
KNOWN_DAYS = 2
"""A CA signs nothing before it has been in the bundle this long, while the old one lives."""
SERVING_DAYS, RENEW_DAYS = 30, 10
EARLY_S = DAY_S
"""Certificates are valid from this long before they are made: clocks differ."""


class Issued(msgspec.Struct, frozen=True):
    """A certificate and its private key, both PEM."""

    certificate: bytes
    key: bytes


Data = Mapping[str, bytes]
"""ca.crt and ca.key sign now, next.crt and next.key will; previous.crt did; tls.crt and tls.key
are the serving certificate."""


def new_ca(*, now_s: float) -> Issued:
    """Return a new certificate authority, valid for CA_DAYS."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(f"weir feed CA {_time(now_s):%Y-%m-%d}")
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    builder = (
        _begun(name, key.public_key(), now_s, now_s + CA_DAYS * DAY_S)
        .issuer_name(name)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
    )
    return _issued(builder.sign(key, hashes.SHA256()), key)


def new_serving(ca: Issued, names: Sequence[str], *, now_s: float) -> Issued:
    """Return a serving certificate for these DNS names, valid for SERVING_DAYS, not past its CA.

    Raises ValueError for a CA that cannot be read.
    """
    signer = x509.load_pem_x509_certificate(ca.certificate)
    signing = _private(ca.key)
    key = ec.generate_private_key(ec.SECP256R1())
    until_s = min(now_s + SERVING_DAYS * DAY_S, signer.not_valid_after_utc.timestamp())
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key())
    builder = (
        _begun(_name(names[0][:64]), key.public_key(), now_s, until_s)
        .issuer_name(signer.subject)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(map(x509.DNSName, names)), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(authority, critical=False)
    )
    return _issued(builder.sign(signing, hashes.SHA256()), key)


def rotate(data: Data, *, names: Sequence[str], now_s: float) -> tuple[dict[str, bytes], bytes]:
    """Return the Secret's data as it should be now, and the CA bundle that routers trust.

    The data is unchanged while nothing is due. What cannot be read, or does not fit together, is
    made anew: a lost CA costs reconnections, never requests.
    """
    current, following = _authority(data, "ca"), _authority(data, "next")
    previous = data.get("previous.crt", b"")
    if current is None or _left_s(current.certificate, now_s) <= 0:
        current, following = following or new_ca(now_s=now_s), None
    if following is None and _left_s(current.certificate, now_s) < NEXT_DAYS * DAY_S:
        following = new_ca(now_s=now_s)
    if following is not None and _is_due(current, following, now_s):
        current, following, previous = following, None, current.certificate
    kept = {"ca.crt": current.certificate, "ca.key": current.key}
    if following is not None:
        kept |= {"next.crt": following.certificate, "next.key": following.key}
    if previous and _left_s(previous, now_s) > 0:
        kept["previous.crt"] = previous
    serving = _serving(data, current, names, now_s) or new_serving(current, names, now_s=now_s)
    bundle = b"".join(kept[name] for name in ("ca.crt", "next.crt", "previous.crt") if name in kept)
    return {**kept, "tls.crt": serving.certificate, "tls.key": serving.key}, bundle


def _is_due(current: Issued, following: Issued, now_s: float) -> bool:
    age_s = now_s - EARLY_S - _loaded(following.certificate).not_valid_before_utc.timestamp()
    is_known = age_s >= KNOWN_DAYS * DAY_S
    return is_known and _left_s(current.certificate, now_s) < TURN_DAYS * DAY_S


def _authority(data: Data, name: str) -> Issued | None:
    found = Issued(data.get(f"{name}.crt", b""), data.get(f"{name}.key", b""))
    return found if _fits(found) else None


def _serving(data: Data, ca: Issued, names: Sequence[str], now_s: float) -> Issued | None:
    """Return the serving certificate of the Secret while it is good."""
    found = Issued(data.get("tls.crt", b""), data.get("tls.key", b""))
    if not _fits(found) or _left_s(found.certificate, now_s) < RENEW_DAYS * DAY_S:
        return None
    certificate = _loaded(found.certificate)
    try:
        certificate.verify_directly_issued_by(_loaded(ca.certificate))
        shown = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return None
    return found if shown.value.get_values_for_type(x509.DNSName) == list(names) else None


def _fits(issued: Issued) -> bool:
    """Return whether certificate and key can be read and belong together."""
    try:
        public = _private(issued.key).public_key()
        return bool(_loaded(issued.certificate).public_key() == public)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return False


def _loaded(pem: bytes) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem)


def _left_s(pem: bytes, now_s: float) -> float:
    """Return how long a certificate is still valid, -1 for one that cannot be read."""
    try:
        return _loaded(pem).not_valid_after_utc.timestamp() - now_s
    except ValueError:
        return -1.0


def _private(pem: bytes) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(pem, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError(f"saw a {type(key).__name__}, wanted an elliptic curve key")
    return key


def _begun(
    name: x509.Name, key: ec.EllipticCurvePublicKey, from_s: float, until_s: float
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_time(from_s - EARLY_S))
        .not_valid_after(_time(until_s))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _issued(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Issued:
    return Issued(
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _time(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(int(seconds), datetime.UTC)
