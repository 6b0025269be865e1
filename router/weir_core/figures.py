"""Numbers as people read them: shares, e-values, counts, instants.

In one place, so that a status, an event and the terminal never round the same thing twice.
"""

import math
from datetime import UTC, datetime

_LN10 = math.log(10)


def percent(share_bp: float) -> str:
    """Return basis points as a percentage without needless digits: 5 → "0.05%"."""
    return f"{round(share_bp / 100, 2):g}%"


def e_value(log_e: float) -> str:
    """Return e to the `log_e` in two digits or as a whole number: "<0.01", "1.8", "1.2e+05".

    Takes any float but NaN; evidence of hundreds of nats does not overflow.
    """
    if log_e < math.log(0.01):
        return "<0.01"
    if log_e < math.log(99_999.5):
        value = math.exp(log_e)
        return f"{value:.2g}" if value < 9.95 else f"{value:.0f}"
    if math.isinf(log_e):
        return "inf"
    exponent, rest = divmod(log_e / _LN10, 1)
    mantissa = f"{10**rest:.1f}"
    if mantissa == "10.0":
        mantissa, exponent = "1.0", exponent + 1
    return f"{mantissa}e+{int(exponent):02d}"


def ratio(value: float) -> str:
    """Return a ratio in two digits, whole from 10 on."""
    return f"{value:.2g}" if value < 9.95 else f"{min(value, 1e9):.0f}"


def duration(seconds: float) -> str:
    """Return a length of time in its two largest units, as kubectl does: "3m20s", "2d4h"."""
    whole = max(0, int(seconds))
    days, hours, minutes = whole // 86_400, whole // 3_600 % 24, whole // 60 % 60
    units = ((days, "d"), (hours, "h"), (minutes, "m"), (whole % 60, "s"))
    start = next((i for i, (n, _) in enumerate(units) if n), 3)
    shown = [f"{n}{unit}" for n, unit in units[start : start + 2] if n]
    return "".join(shown) or "0s"


def instant(at_s: float) -> str:
    """Return a Unix time as Kubernetes writes it: "2026-05-04T10:00:00Z"."""
    return datetime.fromtimestamp(math.floor(at_s), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
