"""Starts again what ends by itself, as a kubelet does with the static pods of a control plane.

The controller manager and the scheduler end when they lose their lease, some seconds after the API
server or etcd is gone, and until it is back they end again whenever they start. What a command has
ended stays down until a command starts it.
"""

import time
from collections.abc import Callable

from cluster.components import Components

STATIC_PODS = ("controllers", "scheduler")
LOOK_S = 0.5
FIRST_S, MOST_S = 1.0, 10.0
"""How long the first return waits, doubled from one to the next, and the longest."""
CALM_S = 60.0
"""A program that ran so long begins with the first wait again."""


def tend(running: Components, *, over: Callable[[float], bool], say: Callable[[str], None]) -> None:
    """Start programs again until `over`, which waits for so many seconds, is true."""
    pauses = [Pause() for _ in STATIC_PODS]
    while not over(LOOK_S):
        now_s = time.monotonic()
        for name, pause in zip(STATIC_PODS, pauses, strict=True):
            if not pause.is_over(ended=running.has_ended(name), now_s=now_s):
                continue
            try:
                say(f"{name} has ended; started again: {running.start(name)}")
            except OSError as error:
                # The cluster must outlive it; the next look tries again.
                say(f"{name} has ended; {error}")


class Pause:
    """How long one program stays down after each of its ends."""

    def __init__(self) -> None:
        self._next_s = FIRST_S
        self._due_s: float | None = None
        self._started_s = float("-inf")

    def is_over(self, *, ended: bool, now_s: float) -> bool:
        """Tell whether an ended program is to be started now, and count it as started."""
        if not ended:
            self._due_s = None
        elif self._due_s is None:
            if now_s - self._started_s >= CALM_S:
                self._next_s = FIRST_S
            self._due_s = now_s + self._next_s
            self._next_s = min(2 * self._next_s, MOST_S)
        elif now_s >= self._due_s:
            self._due_s, self._started_s = None, now_s
            return True
        return False
