"""How finely evidence is cut by the time of assignment: the younger, the finer.

A brake waits for the end of a cell and for the slowest request in it, so what a cell adds to the
wait should be small beside its age; and evidence that is settled needs no fine cells. The module
refuses to know what is counted in a cell (`evidence`, `merging`). Times are Unix seconds.
"""

from collections.abc import Iterable

FINEST_S, FRESH, JOINED = 0.125, 32, 8
"""Width of the youngest cells; after how many widths cells are joined, and how many into one.

All widths are exact in binary.
"""

CELLS_A_HORIZON = 64

Line = tuple[float, int]
"""Cells that begin before a moment, and how many seconds they span."""


def cell_s(horizon_s: int) -> int:
    """Return how many seconds the widest cells span: 1 up to horizons of 64 s, 8 up to 512 s."""
    width = 1
    while width * CELLS_A_HORIZON < horizon_s:
        width *= JOINED
    return width


def late_s(begin_s: float, horizon_s: int) -> float:
    """Return from when on what is open of a cell has failed: the same for all that it may join."""
    width = cell_s(horizon_s)
    return begin_s // width * width + width + horizon_s


def past_s(now_s: float, horizon_s: int) -> float:
    """Return the moment that cells of which everything is late by now begin before."""
    width = cell_s(horizon_s)
    return (now_s - horizon_s) // width * width


def finest(at_s: float) -> float:
    """Return when the youngest cell that holds this moment begins."""
    return at_s // FINEST_S * FINEST_S


def lines_at(now_s: float, horizon_s: int) -> tuple[Line, ...]:
    """Return which cells are joined by now, the widest first.

    Lines only move on, and every wider cell is made of whole narrower ones: so the ends of cells
    at any time are among those at any time before, and the prefixes judged are of one chain.
    """
    lines: list[Line] = []
    width = FINEST_S
    while width < cell_s(horizon_s):
        joined = int(width * JOINED)
        lines.append(((now_s - FRESH * width) // joined * joined, joined))
        width = joined
    return tuple(reversed(lines))


def begin_of(begin_s: float, lines: Iterable[Line]) -> float:
    """Return when the cell begins that a cell is joined into."""
    for line_s, width in lines:
        if begin_s < line_s:
            return begin_s // width * width
    return begin_s
