"""Which routes of a namespace a walk must think of: those with news, a canary, or a lag.

A walk is woken by anything that happens in its namespace; most of that is of other routes. Pure
but for what it remembers.
"""

from collections.abc import Container, Iterable, Mapping

from weir_core.compile import Compiled
from weir_operator.gather import World
from weir_operator.memory import RouteMemory
from weir_operator.think import Thought

AGE_S = 30.0
"""A route is thought of at least so often, whatever was heard."""


class Attention:
    """What was known of each route when it was last thought of to the end."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[object, float, int]] = {}
        self._now: dict[str, tuple[object, float]] = {}

    def of(
        self,
        world: World,
        compiled: Compiled,
        memories: Mapping[str, RouteMemory],
        *,
        now_s: float,
    ) -> list[str]:
        """Return the routes to be thought of now, by name in the order of the namespace."""
        shared = _shared(world)
        problems: dict[str, list[object]] = {}
        for one in (*world.problems, *compiled.problems):
            problems.setdefault(one.object, []).append(one)
        self._now = {}
        for name in world.routes:
            told = problems.get(f"ModelRoute {world.namespace}/{name}", [])
            seen = shared, told, _seen(world, compiled, memories[name], name)
            before = self._known.get(name)
            quiet = (
                before is not None
                and before[0] == seen
                and now_s - before[1] < AGE_S
                and not before[2]
                and not memories[name].state.live
            )
            if not quiet:
                self._now[name] = seen, now_s
        for name in self._known.keys() - world.routes.keys():
            del self._known[name]
        return list(self._now)

    def done(self, thoughts: Iterable[Thought], trouble: Container[str]) -> None:
        """Take note that routes were thought of and written, but for those with trouble."""
        for thought in thoughts:
            lag = thought.observed.routers - thought.observed.routers_in_sync
            if thought.name in trouble:
                self._known.pop(thought.name, None)
            else:
                self._known[thought.name] = (*self._now[thought.name], lag)

    @property
    def out_of_sync(self) -> int:
        """The most routers that any route waits for."""
        return max((lag for _, _, lag in self._known.values()), default=0)


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
        [(one.report.acks.get(key), one.report.nacks.get(key)) for one in world.connected],
    )
