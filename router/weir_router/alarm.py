"""One timer for a deadline that moves with every request, because call_later and cancel cost.

A later deadline leaves the armed timer alone: it wakes early, sees the new deadline and sleeps
on. It refuses to know what the deadline is of.
"""

import asyncio
from collections.abc import Callable

NEVER = float("inf")


class Alarm:
    """Calls `ring` once when the loop's time reaches what `set` was last given."""

    __slots__ = ("_armed_s", "_loop", "_ring", "_timer", "at_s")

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        self.at_s = NEVER
        self._loop = loop
        self._ring = ring
        self._timer: asyncio.TimerHandle | None = None
        self._armed_s = NEVER

    def set(self, at_s: float) -> None:
        """Ring at `at_s` of the loop's time, and at no time set before."""
        self.at_s = at_s
        if at_s < self._armed_s:
            if self._timer is not None:
                self._timer.cancel()
            self._arm()

    def clear(self) -> None:
        """Ring no more until the next `set`."""
        self.at_s = NEVER

    def stop(self) -> None:
        """Clear, and leave no timer behind in the loop."""
        self.at_s = self._armed_s = NEVER
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        self._armed_s = self.at_s
        self._timer = self._loop.call_at(self.at_s, self._wake)

    def _wake(self) -> None:
        self._timer, self._armed_s = None, NEVER
        # The loop may wake a clock tick early; half a millisecond is due enough.
        if self.at_s <= self._loop.time() + 0.0005:
            self.at_s = NEVER
            self._ring()
        elif self.at_s != NEVER:
            self._arm()
