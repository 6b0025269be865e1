"""Which routes of a namespace a walk must think of: those with news, a canary, or a lag.

A walk is woken by anything that happens in its namespace; most of that is of other routes. Pure
but for what it remembers.
"""

from collections.abc import Mapping

from weir_core.compile import Compiled
from weir_operator.backends import unready
from weir_operator.gather import World
from weir_operator.memory import RouteMemory
from weir_operator.think import Thought

AGE_S = 30.0
"""A route is thought of at least so often, whatever was heard."""


class Attention:
    """What was known of each route when it was last thought of."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[object, float, int]] = {}
        self._shared: object = None
        self._told: dict[str, list[object]] = {}

    def of(
        self,
        world: World,
        compiled: Compiled,
        memories: Mapping[str, RouteMemory],
        *,
        now_s: float,
    ) -> list[str]:
        """Return the routes to be thought of now, by name in the order of the namespace."""
        self._shared = _shared(world)
        self._told = {}
        for one in (*world.problems, *compiled.problems):
            self._told.setdefault(one.object, []).append(one)
        for name in self._known.keys() - world.routes.keys():
            del self._known[name]
        return [
            name
            for name in world.routes
            if memories[name].state.live or self._news(world, compiled, memories[name], name, now_s)
        ]

    def note(
        self, world: World, compiled: Compiled, memory: RouteMemory, thought: Thought, now_s: float
    ) -> None:
        """Take note that a route was thought of, after what came of it was published."""
        lag = thought.observed.routers - thought.observed.routers_in_sync
        seen = self._seen(world, compiled, memory, thought.name, now_s)
        self._known[thought.name] = seen, now_s, lag

    def forget(self, name: str) -> None:
        """Have a route thought of again, since what was thought could not be written."""
        self._known.pop(name, None)

    @property
    def out_of_sync(self) -> int:
        """The most routers that any route waits for."""
        return max((lag for _, _, lag in self._known.values()), default=0)

    def _news(
        self, world: World, compiled: Compiled, memory: RouteMemory, name: str, now_s: float
    ) -> bool:
        before = self._known.get(name)
        return (
            before is None
            or bool(before[2])
            or now_s - before[1] >= AGE_S
            or before[0] != self._seen(world, compiled, memory, name, now_s)
        )

    def _seen(
        self, world: World, compiled: Compiled, memory: RouteMemory, name: str, now_s: float
    ) -> object:
        told = self._told.get(f"ModelRoute {world.namespace}/{name}", [])
        late = memory.overdue(now_s)
        return self._shared, told, late, _seen(world, compiled, memory, name)


def _shared(world: World) -> object:
    """Return what every route goes by."""
    routers = [
        (one.pod_uid, one.alive, one.report.start, one.report.unclean, one.report.ejected)
        for one in world.connected
    ]
    return world.routers, routers


def _seen(world: World, compiled: Compiled, memory: RouteMemory, name: str) -> object:
    key = f"{world.namespace}/{name}"
    meta = world.routes[name]["metadata"]
    return (
        meta["uid"],
        meta.get("generation"),
        meta.get("annotations"),
        world.routes[name].get("status") == memory.status,
        compiled.routes.get(key),
        memory.version,
        unready(world, memory.state),
        memory.resuming,
        [(one.report.acks.get(key), one.report.nacks.get(key)) for one in world.connected],
    )
