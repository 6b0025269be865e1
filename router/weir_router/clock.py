"""One clock for everything: seconds since the epoch that never go back or jump."""

import time
from collections.abc import Callable

from weir_core.steady import steady


def steady_clock() -> Callable[[], float]:
    """Return this machine's clock."""
    return steady(time.time, time.monotonic)
