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

from weir_cli.client import Client, MissingError, UnreachableError, find_route
from weir_cli.frame import render
from weir_cli.get import listing


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

    def __init__(self, client: Client, key: str) -> None:
        self._client = client
        self._key = key
        self._last: Look | None = None

    def look(self) -> Look:
        """Ask again. Raises CommandError while nothing was ever seen; later, trouble is shown."""
        told = self._last.told if self._last else {}
        trouble = ""
        try:
            told = self._client.route(self._key) if self._key else self._client.statuses()
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
        elif look.told["routes"]:
            rows = listing(look.told, wide=False, now_s=look.now_s)
            shown = Text(rows, no_wrap=True, overflow="ellipsis")
        else:
            shown = Text("no routes")
        # In a group: a bare Text would lose its no_wrap when it is printed.
        warning = (Text(f"⚠ {look.trouble}", "yellow"),) if look.trouble else ()
        return Group(*warning, shown)


def run(args: argparse.Namespace) -> int:
    """Show it until Ctrl-C, or once."""
    client = Client(args.server)
    view = View(client, _key(client, args.route))
    console = Console(highlight=False)
    first = view.look()
    if args.once:
        console.print(view.picture(first, console.width))
    elif console.is_terminal:
        _live(view, first, console, args.interval)
    else:
        changes(view, first, console, lambda: time.sleep(args.interval))
    return 0


def _key(client: Client, route: str | None) -> str:
    """Return which route is meant; "" for all when none is named and there is not just one."""
    keys = list(client.statuses()["routes"])
    if route:
        return find_route(route, keys)
    return keys[0] if len(keys) == 1 else ""


def _live(view: View, look: Look, console: Console, interval_s: float) -> None:
    try:
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                live.update(view.picture(look, console.width), refresh=True)
                time.sleep(interval_s)
                look = view.look()
    except KeyboardInterrupt:
        console.print(view.picture(look, console.width))


def changes(view: View, look: Look, console: Console, pause: Callable[[], None]) -> None:
    """Print a picture whenever something changed; `pause` waits between looks, until Ctrl-C."""
    shown: Look | None = None
    try:
        while True:
            if not look.same_as(shown):
                console.print(view.picture(look, console.width), Text(""))
                shown = look
            pause()
            look = view.look()
    except KeyboardInterrupt:
        return
