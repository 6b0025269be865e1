"""`weir watch`: the live view of one route, or of the list while there are several.

On a terminal it draws over itself and leaves the last picture behind; elsewhere it prints a
plain picture whenever something changed, so that a log of it can be read.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import msgspec
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from weir_cli import parts
from weir_cli.errors import MissingError, UnreachableError
from weir_cli.frame import render
from weir_cli.get import listing
from weir_cli.sources import Source, is_cluster, source_of

STANDALONE_S, CLUSTER_S = 0.5, 1.0
"""Between two looks; a cluster's status moves less often, and many people ask its API server."""


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen at one moment; `trouble` says why there is nothing newer."""

    told: dict[str, Any]
    now_s: float
    trouble: str = ""

    def same_as(self, other: "Look | None") -> bool:
        """Whether nothing but time went by."""
        return other is not None and (self.told, self.trouble) == (other.told, other.trouble)


class View:
    """One route by its key, or the list of all for ""."""

    def __init__(self, source: Source, key: str) -> None:
        self._source = source
        self._key = key
        self._last: Look | None = None

    def look(self) -> Look:
        """Ask again. Raises CommandError while nothing was ever seen; later, trouble is shown."""
        told = self._last.told if self._last else {}
        trouble = ""
        try:
            told = self._source.route(self._key) if self._key else self._source.statuses()
        except (UnreachableError, MissingError) as failure:
            if self._last is None:
                raise
            trouble = str(failure)
        self._last = Look(told=told, now_s=time.time(), trouble=trouble)
        return self._last

    def picture(self, look: Look, width: int) -> RenderableType:
        """Return what is to be seen of it."""
        if self._key:
            shown = render(look.told, width, now_s=look.now_s)
        else:
            shown = _list(look, spaced=self._source.spaced)
        # In a group: a bare Text would lose its no_wrap when it is printed.
        warning = (Text(f"⚠ {look.trouble}", "yellow"),) if look.trouble else ()
        return Group(*warning, shown)


def _list(look: Look, *, spaced: bool) -> RenderableType:
    """Return one line a route, and below what is wrong with anything."""
    told = look.told
    rows = listing(told, now_s=look.now_s, spaced=spaced) if told["routes"] else "no routes"
    wrong = (*told["problems"], *parts.outages(told, look.now_s))
    alarms = (Text(f"⚠ {one}", "yellow") for one in wrong)
    return Group(Text(rows, no_wrap=True, overflow="ellipsis"), *alarms)


def run(args: argparse.Namespace) -> int:
    """Show it until Ctrl-C, or once. Ctrl-C leaves the last picture behind."""
    source = source_of(args)
    view = View(source, _key(source, args.route))
    console = Console(highlight=False)
    interval_s = args.interval or (CLUSTER_S if is_cluster(args) else STANDALONE_S)
    first = view.look()
    if args.once:
        console.print(view.picture(first, console.width))
    elif console.is_terminal:
        _live(view, first, console, interval_s)
    else:
        changes(view, first, console, lambda: time.sleep(interval_s))
    return 0


def _key(source: Source, route: str | None) -> str:
    """Return which route is meant; "" for all when none is named and there is not just one."""
    if route:
        return source.key(route)
    keys = list(source.statuses()["routes"])
    return keys[0] if len(keys) == 1 else ""


def _live(view: View, look: Look, console: Console, interval_s: float) -> None:
    try:
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                live.update(view.picture(look, console.width), refresh=True)
                time.sleep(interval_s)
                look = view.look()
    finally:
        console.print(view.picture(look, console.width))


def changes(view: View, look: Look, console: Console, pause: Callable[[], None]) -> None:
    """Print a picture whenever something changed; `pause` waits between looks, until Ctrl-C."""
    shown: Look | None = None
    while True:
        if not look.same_as(shown):
            console.print(view.picture(look, console.width), Text(""))
            shown = look
        pause()
        look = view.look()
