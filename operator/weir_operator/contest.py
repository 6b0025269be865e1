"""How soon an object that somebody else changed is put back, and how often that is told.

A person's edit is put back and told at once. Another controller's comes again as soon as it is
(an autoscaler that takes a Deployment's replicas for its own): that is put back ever more slowly,
so that neither the API nor the Events fill up.
"""

import time
from collections.abc import Callable

import msgspec
from msgspec.structs import replace

from weir_core.figures import duration
from weir_core.rollout_state import Transition

Key = tuple[str, str, str]
"""(kind, namespace, name)."""

AT_ONCE = 5
"""Edits in a row that are put back as they come."""
CALM_S = 60.0
"""An edit that comes so long after the last was put back begins a new row."""
PACE_S, PACE_MAX_S = 10.0, 300.0
TOLD_S = 60.0
"""The least time between two Events of one object."""
FORGET_S = 3_600.0


class _Row(msgspec.Struct):
    """Edits of one object. `seen_s` is when one was seen that still stands, None for none."""

    count: int = 0
    last_s: float = float("-inf")
    seen_s: float | None = None
    untold: int = 0
    told_s: float = float("-inf")

    @property
    def pace_s(self) -> float:
        """The least time from the last put-back to the next."""
        more = self.count - AT_ONCE
        return min(PACE_S * 2.0 ** min(more, 10), PACE_MAX_S) if more >= 0 else 0.0


class Contest:
    """Remembers whose edits were put back. `clock` gives seconds that never go back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._rows: dict[Key, _Row] = {}

    def is_early(self, key: Key) -> bool:
        """Return whether an edit that stands there now must stand a while longer."""
        row, now_s = self._rows.setdefault(key, _Row()), self._clock()
        if row.seen_s is None:
            row.seen_s = now_s
            if now_s - row.last_s > CALM_S:
                row.count = 0
        return now_s - row.last_s < row.pace_s

    def stands(self, key: Key) -> bool:
        """Return whether an edit was seen that is not put back yet."""
        row = self._rows.get(key)
        return row is not None and row.seen_s is not None

    def gone(self, key: Key) -> None:
        """Take note that an object is as it should be."""
        if key in self._rows:
            self._rows[key].seen_s = None

    def put_back(self, key: Key, edit: Transition) -> Transition | None:
        """Take note that an edit was put back; return what to tell of it, None for nothing yet."""
        now_s = self._clock()
        self._forget(now_s)
        row = self._rows.setdefault(key, _Row())
        row.count, row.untold = row.count + 1, row.untold + 1
        row.last_s, row.seen_s = now_s, None
        if now_s - row.told_s < TOLD_S:
            return None
        often = f"; {row.untold} times since this was last told" if row.untold > 1 else ""
        pace = f"; it is put back every {duration(row.pace_s)} at most" if row.pace_s else ""
        row.told_s, row.untold = now_s, 0
        return replace(edit, message=f"{edit.message}{often}{pace}")

    def _forget(self, now_s: float) -> None:
        for key in [key for key, row in self._rows.items() if now_s - row.last_s > FORGET_S]:
            del self._rows[key]
