"""Reads a calibration as a ConfigMap carries it; what the offline work notes beside is let be."""

import math

import msgspec

from weir_core.canonical import canonical, hex_of
from weir_core.forms import one_of
from weir_core.snapshot import Calibration

FEATURES = ("sum", "mean", "min", "q10", "tokens", "margin_mean", "margin_min")
MAX_CHARACTERS = 1_000_000


class _Written(msgspec.Struct, frozen=True):
    """Unknown fields pass: certificates, dates and counts stand in the same object."""

    version: int
    method: str
    features: dict[str, float]
    intercept: float


def read_calibration(text: str, *, method: str) -> Calibration | str:
    """Return the calibration, or a sentence that says what is wrong with it."""
    if len(text) > MAX_CHARACTERS:
        return f"more than {MAX_CHARACTERS:,} characters"
    try:
        written = msgspec.json.decode(text, type=_Written)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        return f"JSON that is not a calibration ({error})"
    if written.version != 1:
        return f"version {written.version}, wanted 1"
    if written.method != method:
        return f"method '{written.method}', wanted {method}"
    unknown = sorted(set(written.features) - set(FEATURES))
    if unknown:
        return f"feature '{unknown[0]}', wanted {one_of(unknown[0], FEATURES)}"
    if not written.features:
        return "no features"
    if not all(map(math.isfinite, (written.intercept, *written.features.values()))):
        return "a weight that is not finite"
    return _frozen(written)


def _frozen(written: _Written) -> Calibration:
    features = tuple(sorted((name, float(weight)) for name, weight in written.features.items()))
    telling = [written.method, features, float(written.intercept)]
    return Calibration(
        method=written.method,
        features=features,
        intercept=float(written.intercept),
        digest=hex_of(canonical(telling)),
    )
