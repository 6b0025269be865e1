"""A clock that never jumps: a wall clock that was set right is approached slowly.

Holds, horizons and deadlines go by it: an hour that never was must not end them, and evidence
must not seem to be of the future for longer than the wall clock is wrong.
"""

from collections.abc import Callable

SLEW = 0.1
"""How much faster or slower than time itself it runs while it differs from the wall."""
LOOK_S = 1.0
"""How often it looks at the wall."""


def steady(wall: Callable[[], float], monotonic: Callable[[], float]) -> Callable[[], float]:
    """Return a clock of Unix seconds that begins with the wall's and never goes back."""
    base_s, since_s, off_s = wall(), monotonic(), 0.0

    def read() -> float:
        nonlocal base_s, since_s, off_s
        passed_s = monotonic() - since_s
        now_s = base_s + passed_s
        if off_s:
            most_s = SLEW * passed_s
            now_s += min(max(off_s, -most_s), most_s)
        if passed_s >= LOOK_S:
            base_s, since_s = now_s, since_s + passed_s
            off_s = wall() - now_s
        return now_s

    return read
