"""What a standalone router remembers across restarts, and how it gets to disk.

The whole state is one JSON file, written beside itself, synced and renamed: it is never half.
It is written by the clock, not at events: syncing at failures would lose outcomes unevenly.
"""

import fcntl
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec

from weir_core.evidence import Tally
from weir_core.merging import fits
from weir_core.rollout import (
    RolloutState,
    Transition,
    effective_alpha,
    policy_for,
    rested,
)
from weir_core.sequential import fingerprint
from weir_core.snapshot import Monitoring, RolloutPolicy, RoutePolicy
from weir_router.disk import write_whole

FORMAT: Literal[1] = 1
MAX_EVENTS = 50
MAX_GONE = 100


class Happened(msgspec.Struct, frozen=True, kw_only=True):
    """One transition and when it was, seconds since the epoch."""

    at_s: float
    transition: Transition


class SavedRoute(msgspec.Struct, frozen=True, kw_only=True):
    """One route's last good policy and where its rollout stands; `gone` left the config.

    `conditions` gives status and lastTransitionTime of each condition, by its type.
    """

    uid: str
    namespace: str
    name: str
    model_names: tuple[str, ...]
    monitoring: Monitoring
    rollout: RolloutPolicy
    state: RolloutState
    events: tuple[Happened, ...] = ()
    created_s: float = 0.0
    file: str = ""
    gone: bool = False
    gone_since_s: float = 0.0
    conditions: dict[str, tuple[str, str]] = {}


class Saved(msgspec.Struct, frozen=True, kw_only=True):
    """All of it. `boot` counts starts; `clean` says that the last end was an orderly one."""

    format: Literal[1]
    boot: int = 0
    clean: bool = True
    unclean_boots: int = 0
    routes: dict[str, SavedRoute] = {}
    tallies: tuple[Tally, ...] = ()
    written_s: float = 0.0


def rest(route: SavedRoute, gap_s: float, now_s: float) -> SavedRoute:
    """Return the route with its clocks moved on by time in which it was not served."""
    if route.gone:
        return route
    return msgspec.structs.replace(route, state=rested(route.state, gap_s=gap_s, now_s=now_s))


def forget_gone(routes: dict[str, SavedRoute]) -> dict[str, SavedRoute]:
    """Drop the oldest of the routes that are gone, beyond MAX_GONE of them."""
    gone = [key for key, route in routes.items() if route.gone]
    for key in gone[: max(0, len(gone) - MAX_GONE)]:
        del routes[key]
    return routes


def policy_of(route: SavedRoute) -> RoutePolicy | None:
    """Return what the router obeys of a route; None while no revision may serve."""
    return policy_for(
        route.state,
        uid=route.uid,
        namespace=route.namespace,
        name=route.name,
        model_names=route.model_names,
        monitoring=route.monitoring,
        rollout=route.rollout,
        brake_alpha=effective_alpha(
            route.rollout, route.state.attempt, restarts=route.state.restarts
        ),
    )


def published(routes: Mapping[str, SavedRoute], key: str) -> RoutePolicy | None:
    """Return what the router obeys of one of the routes; None for one that is gone."""
    route = routes.get(key)
    return None if route is None or route.gone else policy_of(route)


def readable(saved: Saved) -> tuple[Tally, ...]:
    """Return the tallies that belong to a saved route and have the shape that its key implies.

    Others are of objectives that nobody judges any more, or of another release's layout.
    """
    counts = {
        (route.uid, fingerprint(route.monitoring)): len(route.monitoring.objectives)
        for route in saved.routes.values()
    }
    kept = []
    for tally in saved.tallies:
        objectives = counts.get((tally.key.route_uid, tally.key.objectives))
        if objectives is not None and fits(tally, objectives):
            kept.append(tally)
    return tuple(kept)


class StateFileError(Exception):
    """The state file cannot be used; the message says why and what to do."""


_DECODER = msgspec.json.Decoder(Saved)


class StateFile:
    """The one file of a standalone router."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.turns = 0
        self._written = 0
        self._lock = threading.Lock()

    def turn(self) -> int:
        """Return a number for the next write: of two writes that meet, the later turn stays."""
        self.turns += 1
        return self.turns

    def lock(self) -> None:
        """Keep every other process from this file until this one ends.

        Raises StateFileError when another one has it, OSError when it cannot be made.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        beside = self.path.with_name(self.path.name + ".lock")
        self._held = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StateFileError(
                f"{self.path}: another weir serve is using it; name another --state"
            ) from error

    def read(self) -> Saved:
        """Return what was saved, a fresh state when there is no file.

        Raises StateFileError for a file that is not ours: a lost state would let a rolled-back
        revision come back, so it is never overwritten in silence.
        """
        try:
            return _DECODER.decode(self.path.read_bytes())
        except FileNotFoundError:
            return Saved(format=FORMAT)
        except (OSError, msgspec.ValidationError, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise StateFileError(
                f"{self.path}: saw {error}, wanted a Weir state file of format {FORMAT}; "
                "move it away to start with no history"
            ) from error

    def write(self, saved: Saved, turn: int) -> None:
        """Replace the file whole and wait until it is on disk. Raises OSError."""
        data = msgspec.json.encode(saved)
        with self._lock:
            if turn > self._written:
                write_whole(self.path, data)
                self._written = turn
