"""Columns as kubectl aligns them: three spaces between, nothing cut, no trailing blanks."""

from collections.abc import Iterable, Sequence

GAP = "   "


def aligned(rows: Iterable[Sequence[str]], *, indent: str = "") -> str:
    """Return rows of equal length as lines, each column as wide as its longest cell."""
    whole = [tuple(row) for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(*whole, strict=True)]
    lines = (
        GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in whole
    )
    return "\n".join(f"{indent}{line}".rstrip() for line in lines)


def tabled(header: Sequence[str], rows: Iterable[Sequence[str]], *, indent: str = "") -> str:
    """Return a header and rows as lines; an empty cell is "-", so that words can be counted."""
    filled = [tuple(cell or "-" for cell in row) for row in rows]
    return aligned([header, *filled], indent=indent)
