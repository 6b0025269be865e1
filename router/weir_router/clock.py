"""One clock for everything: seconds since the epoch that never go back or jump."""

import time
from collections.abc import Callable


def steady_clock() -> Callable[[], float]:
    """Return a clock that was set once by the wall and then runs by the monotonic clock."""
    offset_s = time.time() - time.monotonic()
    monotonic = time.monotonic
    return lambda: monotonic() + offset_s
