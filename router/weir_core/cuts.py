"""After which cells of a window evidence of harm is judged.

Every prefix of assignment may be judged at any time (`prefixes`); which ones are is a question of
cost alone, and of how soon a rollback comes. The module refuses to know the evidence.
"""

from collections.abc import Sequence
from operator import itemgetter

from weir_core.evidence import BOTH_HARMED, CANARY, CANARY_HARMED, FAILED
from weir_core.merging import WindowCell
from weir_core.stakes import Plan

MOST_PREFIXES = 8
"""Prefixes judged, besides the one past the horizon, while the evidence is far from a rollback."""


def rises(window: Sequence[WindowCell], plan: Plan) -> list[int]:
    """Return after how many cells of the window evidence can have risen: the canary failed."""
    found: list[int] = []
    raising = itemgetter(*_raising(plan))
    has_risen = False
    for end, (begin_s, _, row) in enumerate(window, 1):
        has_risen = has_risen or any(raising(row))
        if has_risen and (end == len(window) or window[end][0] != begin_s):
            found.append(end)
            has_risen = False
    return found


def _raising(plan: Plan) -> tuple[int, ...]:
    """Return the places, two at least, of counts by which evidence rises."""
    failed = (FAILED + 2 * j + CANARY for j in plan.counted)
    return (CANARY_HARMED, BOTH_HARMED if plan.ceilings else CANARY_HARMED, *failed)


def few(cuts: list[int]) -> list[int]:
    """Return MOST_PREFIXES of the cuts at most: 0, 1, 2, 4, 8, … from the newest, the oldest."""
    if len(cuts) <= MOST_PREFIXES:
        return cuts
    back = [0, *(1 << k for k in range(MOST_PREFIXES - 2))]
    return sorted({*(cuts[-1 - at] for at in back if at < len(cuts)), cuts[0]})
