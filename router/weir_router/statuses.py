"""What each route of a standalone router says of itself, and when it last turned.

Keeps what a status tells beside the state: the latest judgement, the shares of the last minute.
It refuses to know how a rollout is decided (`keeper`).
"""

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from weir_core.evidence import STABLE, Judgement, Key
from weir_core.outlook import Marks, marked, measured_bp
from weir_core.rollout import Transition
from weir_core.status import Observed, route_status, turned
from weir_router.standing import SavedRoute
from weir_router.upstreams import Ejection
from weir_router.world import World

Conditions = list[dict[str, str]]


class Statuses:
    """The statuses of all routes. `ejected` tells which backends are out now."""

    def __init__(self, *, ejected: Callable[[], tuple[Ejection, ...]]) -> None:
        self._ejected = ejected
        self._judged: dict[str, tuple[Key, Judgement]] = {}
        self._marks: dict[str, Marks] = {}
        self._looked: dict[str, tuple[object, ...]] = {}
        self._known: dict[str, Conditions] = {}

    def judged(
        self, key: str, about: Key, judgement: Judgement, *, weight_bp: int, now_s: float
    ) -> None:
        """Take note of the latest judgement on a route's canary at its weight."""
        self._judged[key] = about, judgement
        marks = self._marks.get(key, Marks())
        self._marks[key] = marked(marks, (about, weight_bp), judgement.assigned, now_s)

    def of(self, key: str, route: SavedRoute, world: World, now_s: float) -> dict[str, Any]:
        """Return a route's whole status."""
        compiled = world.compiled.routes.get(key)
        judgement = self._judgement(key, route)
        observed = Observed(
            policy=route.rollout,
            target=compiled.revision.name if compiled else "",
            routers=1,
            routers_serving=1,
            routers_in_sync=1,
            judgement=judgement,
            problems=world.problems_of(key, route),
            objectives=route.monitoring.objectives,
            actual_weight_bp=self._actual_bp(key, route, judgement),
            ejected={one.backend.identity: one.cause for one in self._ejected()},
        )
        old = {"conditions": _conditions(route)}
        return route_status(route.state, observed, now_s=now_s, old=old)

    def turned(
        self, key: str, route: SavedRoute, world: World, now_s: float
    ) -> tuple[SavedRoute, tuple[Transition, ...]]:
        """Return the route with its conditions dated, and those turns that are an Event."""
        judgement = self._judgement(key, route)
        # Of a judgement no condition turns on more than this; a status costs 0.4 ms.
        told = judgement and (judgement.holds, judgement.settled[STABLE] > 0)
        seen = (route.state, world, self._ejected(), told)
        if self._looked.get(key) == seen and route.conditions:
            return route, ()
        self._looked[key] = seen
        now = self.of(key, route, world, now_s)["conditions"]
        # What is kept over a restart has no reasons.
        before = self._known.get(key, _conditions(route)) if route.conditions else []
        self._known[key] = now
        dated = {one["type"]: (one["status"], one["lastTransitionTime"]) for one in now}
        after = route if dated == route.conditions else replace(route, conditions=dated)
        return after, turned(before, now)

    def _judgement(self, key: str, route: SavedRoute) -> Judgement | None:
        about, judgement = self._judged.get(key, (None, None))
        current = (route.state.canary, route.state.attempt)
        return judgement if about and (about.revision, about.attempt) == current else None

    def _actual_bp(self, key: str, route: SavedRoute, judgement: Judgement | None) -> float | None:
        weight_bp, marks = route.state.weight_bp, self._marks.get(key, Marks())
        about, _ = self._judged.get(key, (None, None))
        return measured_bp(marks, judgement, about, weight_bp=weight_bp)


def _conditions(route: SavedRoute) -> Conditions:
    return [
        {"type": kind, "status": status, "lastTransitionTime": since}
        for kind, (status, since) in route.conditions.items()
    ]
