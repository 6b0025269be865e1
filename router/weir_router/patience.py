"""When a refused client should come back: soon enough, not all at once, and never in vain long."""

import math

LEAST_S, MOST_S = 1, 30
_LONGEST_S = 20.0
"""Of a wait that is told: half of it again is what spreads clients, up to `MOST_S`."""
LOOK_S, STALE_S = 5.0, 20.0
"""So long at least rates are measured, and so old at most they may be."""


def retry_after(wait_s: float, draw: float) -> int:
    """Return whole seconds for `retry-after`, 1 to 30, for a wait of about `wait_s`.

    `draw`, uniform in [0, 1), spreads clients over half of the wait again, but at least a second:
    those refused together would come back together.
    """
    wait_s = min(max(wait_s, 0.0), _LONGEST_S)
    return min(max(math.ceil(wait_s + draw * max(1.0, wait_s / 2)), LEAST_S), MOST_S)


class Turnover:
    """How fast places become free, measured between looks; `finished` counts for it."""

    __slots__ = ("_from", "_since_s", "finished")

    def __init__(self) -> None:
        self.finished = 0
        self._from = 0
        self._since_s = -math.inf

    def wait_s(self, places: int, now_s: float) -> float:
        """Return in how many seconds so many places will have become free, 1 while unknown."""
        elapsed_s, count = now_s - self._since_s, self.finished - self._from
        if elapsed_s > LOOK_S:
            self._from, self._since_s = self.finished, now_s
        if not 0 < elapsed_s <= STALE_S:
            return 1.0
        return places * elapsed_s / count if count else max(elapsed_s, 1.0)
