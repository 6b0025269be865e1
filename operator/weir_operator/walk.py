"""The one debounced walk of a namespace: gather, think, publish and write in the safe order.

A raise is written, then published; a lowering is published, then written. Every walk begins from
what stands in the cluster and in memory, so it may fail at any line and is simply walked again.
"""

import asyncio
import base64
import logging
import time
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from msgspec.structs import replace

from weir_core.compile import Compiled
from weir_core.conditions import turned
from weir_core.rollout import Transition, weight_order
from weir_core.snapshot import RoutePolicy
from weir_core.wire import Packed, Routed, unpack
from weir_operator.admission import admitted
from weir_operator.apply import Applier
from weir_operator.attention import Attention
from weir_operator.backends import (
    identities,
    longest_ms,
    seen_of,
    users,
    versions,
)
from weir_operator.cache import Cache
from weir_operator.feed import Feed
from weir_operator.figures import FIGURES, figures
from weir_operator.gather import Reader, World, calibrations, gather
from weir_operator.kube import Kube, KubeError
from weir_operator.leader import Leader
from weir_operator.memory import RouteMemory
from weir_operator.persist import Persister
from weir_operator.standing import decided, parked
from weir_operator.think import Thinker, Thought, unreadable_command

Obj = dict[str, Any]

DEBOUNCE_S = 0.05
RETRY_S, RETRY_MAX_S = 0.2, 10.0
LOOK_S = 0.25
"""How often a namespace with a canary under way is walked although nothing was heard."""
IDLE_S = 30.0
CALIBRATIONS_S = 15.0
log = logging.getLogger("weir.operator")


class Namespace:
    """What one namespace's walks keep between them."""

    def __init__(self, max_routers: int) -> None:
        self.thinker = Thinker(max_routers=max_routers)
        self.awake = asyncio.Event()
        self.primed = False
        self.config_maps: list[Obj] = []
        self.configured_s = float("-inf")
        self.compiled: tuple[object, Compiled] | None = None
        self.refused: dict[str, str] = {}
        self.figures: dict[str, float] = {}
        self.parked: dict[str, tuple[str, str]] = {}
        self.asked_for: set[str] = set()
        self.not_before_s = float("-inf")
        self.reader = Reader()
        self.attention = Attention()


class Walker:
    """Walks namespaces when woken. `clock` gives Unix seconds and never goes back."""

    def __init__(
        self,
        *,
        kube: Kube,
        cache: Cache,
        feed: Feed,
        leader: Leader,
        applier: Applier,
        max_routers: int,
        clock: Callable[[], float],
    ) -> None:
        self._kube = kube
        self._cache = cache
        self._feed = feed
        self._leader = leader
        self._applier = applier
        self._persister = Persister(kube, cache)
        self._max_routers = max_routers
        self._clock = clock
        self._number = 0
        self._namespaces: dict[str, Namespace] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False
        self.walks = 0
        self.walk_s = 0.0

    def wake(self, namespace: str) -> None:
        """Have a namespace walked soon; cheap, and may be called for anything that happens."""
        if not namespace:
            return
        known = self._namespaces.get(namespace)
        if known is None:
            known = self._namespaces[namespace] = Namespace(self._max_routers)
            task = asyncio.get_running_loop().create_task(self._run(namespace, known))
            self._tasks.add(task)
        known.awake.set()

    def figures(self) -> dict[str, tuple[str, dict[str, float]]]:
        """Return gauges by name: what each is, and its value by namespace."""
        return {
            name: (help, {space: one.figures.get(name, 0.0) for space, one in self._spaces()})
            for name, help in FIGURES.items()
        }

    def _spaces(self) -> list[tuple[str, Namespace]]:
        return list(self._namespaces.items())

    async def stop(self) -> None:
        """End all walks."""
        self._stopping = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, name: str, space: Namespace) -> None:
        wait_s, retry_s = IDLE_S, RETRY_S
        while not self._stopping:
            try:
                async with asyncio.timeout(wait_s):
                    await space.awake.wait()
            except TimeoutError:
                pass
            else:
                await asyncio.sleep(DEBOUNCE_S)
            space.awake.clear()
            began_s = time.monotonic()
            try:
                wait_s = await self._walk(name, space)
                retry_s = RETRY_S
            except KubeError as error:
                wait_s, retry_s = retry_s, min(2 * retry_s, RETRY_MAX_S)
                space.not_before_s = time.monotonic() + wait_s
                level = logging.INFO if error.status == 409 else logging.WARNING
                log.log(level, "walk again", extra={"namespace": name, "why": str(error)[:500]})
            except Exception:
                wait_s, retry_s = retry_s, min(2 * retry_s, RETRY_MAX_S)
                space.not_before_s = time.monotonic() + wait_s
                log.exception("walk failed", extra={"namespace": name})
            self.walks += 1
            self.walk_s += time.monotonic() - began_s

    async def _walk(self, name: str, space: Namespace) -> float:
        """Walk once and return after how long to look again unasked."""
        if not self._leader.leads:
            return LOOK_S
        world = await self._gathered(name, space)
        thinker = space.thinker
        if not space.primed:
            await self._prime(name, space, world)
        world = admitted(replace(world, parked=space.parked), thinker.memories)
        compiled = self._compiled(space, world)
        now_s = self._clock()
        routes = space.attention.of(world, compiled, thinker.memories, now_s=now_s)
        thoughts = self._thoughts(space, world, compiled, routes, now_s)
        raises = {t.name for t in thoughts if _raises(thinker.memories[t.name], t)}
        for route in raises:
            # Routers drop what a first push leaves out: a raise waits, the route does not.
            self._number_anew(thinker.memories[route], thinker.standing(world, compiled, route))
        self._publish(name, space, compiled, [t for t in thoughts if t.name not in raises])
        if (rest_s := space.not_before_s - time.monotonic()) > 0:
            return min(rest_s, LOOK_S)  # Reports wake a walk sooner than the API wants to be asked.
        trouble = await self._save(world, space, thoughts, now_s)
        done = [t for t in thoughts if t.name not in trouble]
        self._publish(name, space, compiled, done)
        await self._tell(world, space, done)
        space.attention.done(thoughts, trouble)
        wanted = identities(world, compiled, thinker.memories)
        wanted = decided(world, wanted, thinker.memories, now_s=now_s)
        space.parked = parked(wanted)
        problems = await self._applier.apply(
            world,
            wanted=wanted,
            packed=Packed(routes=self._routed(name, space), limits=dict(compiled.limits)),
            deadline_ms=longest_ms(thinker.memories),
        )
        used = users(world, thinker.memories)
        own = versions(wanted)
        for backend in world.backends:
            found, uses = problems.get(backend, ()), used.get(backend, {})
            seen = seen_of(world, compiled, backend, own.get(backend, ()), uses, found)
            await self._applier.tell_backend(world, backend, seen, now_s)
        space.figures = figures(
            world, wanted, thinker.memories, out_of_sync=space.attention.out_of_sync
        )
        if trouble:
            raise next(iter(trouble.values()))
        live = any(memory.state.live for memory in thinker.memories.values())
        return LOOK_S if live else IDLE_S

    def _thoughts(
        self,
        space: Namespace,
        world: World,
        compiled: Compiled,
        routes: Iterable[str],
        now_s: float,
    ) -> list[Thought]:
        """Think of each route; one that cannot be thought of harms no other."""
        thoughts = []
        for route in routes:
            try:
                thoughts.append(space.thinker.think(world, compiled, route, now_s=now_s))
            except Exception:
                log.exception("route not thought of", extra={"route": f"{world.namespace}/{route}"})
        return thoughts

    async def _gathered(self, name: str, space: Namespace) -> World:
        now_s = time.monotonic()
        wanted = calibrations(self._cache.of("ModelRoute", name))
        if now_s - space.configured_s > CALIBRATIONS_S or wanted != space.asked_for:
            known = {one["metadata"]["name"]: one for one in space.config_maps}
            found = [await self._config_map(name, one, known.get(one)) for one in sorted(wanted)]
            space.config_maps = [one for one in found if one is not None]
            space.configured_s, space.asked_for = now_s, wanted
        return gather(
            self._cache,
            name,
            config_maps=space.config_maps,
            connected=self._feed.connected(name),
            reader=space.reader,
        )

    async def _config_map(self, namespace: str, name: str, known: Obj | None) -> Obj | None:
        """Return a ConfigMap, the one known before while the API does not answer."""
        try:
            found = await self._kube.get("ConfigMap", namespace, name)
        except KubeError as error:
            told = {"name": f"{namespace}/{name}", "error": str(error)}
            log.warning("calibration not read", extra=told)
            return known
        return {"apiVersion": "v1", "kind": "ConfigMap", **found} if found is not None else None

    async def _prime(self, name: str, space: Namespace, world: World) -> None:
        """Learn from the snapshot in the cluster what routers obey, of broken routes too."""
        stands = await self._kube.get("ConfigMap", name, "weir-router-snapshot")
        space.thinker.compiled(world)
        packed = _unpacked(stands)
        for key, routed in packed.routes.items() if packed else ():
            memory = space.thinker.memories.get(key.partition("/")[2])
            if memory is not None:
                memory.published = routed.policy
                memory.mend(routed.policy)
        space.primed = True

    def _compiled(self, space: Namespace, world: World) -> Compiled:
        """Compile again only when something that people wrote, or a known revision, changed."""
        asked = (
            [_stamp(obj) for obj in (*world.routes.values(), *world.backends.values())],
            [
                (one["metadata"]["name"], one["metadata"]["resourceVersion"])
                for one in space.config_maps
            ],
            {
                n: [r.revision.name for r in m.state.records]
                for n, m in space.thinker.memories.items()
            },
            sorted(world.waits.items()),
        )
        if space.compiled is None or space.compiled[0] != asked:
            space.compiled = (asked, space.thinker.compiled(world))
        return space.compiled[1]

    # Publishing.

    def _publish(
        self, name: str, space: Namespace, compiled: Compiled, thoughts: list[Thought]
    ) -> None:
        for thought in thoughts:
            memory = space.thinker.memories[thought.name]
            if memory.state is not thought.state:
                memory.state = thought.state
                memory.untold += thought.transitions
            if thought.policy != memory.published or memory.version == (0, 0):
                memory.version = (0, 0)
                self._number_anew(memory, thought.policy)
        self._feed.publish(name, self._routed(name, space), dict(compiled.limits))

    def _number_anew(self, memory: RouteMemory, policy: RoutePolicy | None) -> None:
        """Give a policy its version, unless the memory's was given by this process already."""
        if memory.version == (0, 0):
            memory.published = policy
            memory.version = (self._leader.term, self._next())

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _routed(self, name: str, space: Namespace) -> dict[str, Routed]:
        return {
            f"{name}/{route}": Routed(version=memory.version, policy=memory.published)
            for route, memory in space.thinker.memories.items()
            if memory.version != (0, 0) and memory.published is not None
        }

    # Writing.

    async def _save(
        self, world: World, space: Namespace, thoughts: list[Thought], now_s: float
    ) -> dict[str, KubeError]:
        """Write what changed; return the routes that it failed for."""
        trouble: dict[str, KubeError] = {}
        for thought in thoughts:
            memory = space.thinker.memories[thought.name]
            try:
                status = space.thinker.status(thought, now_s=now_s)
                if not self._leader.leads:
                    raise KubeError(0, "the lease is not fresh: nothing is written")
                news = turned(memory.status.get("conditions") or (), status["conditions"])
                await self._persister.save(world, thought, memory, status, now_s)
                memory.untold += news
                if thought.transitions or memory.untold:
                    await self._persister.forget(world, thought)
            except KubeError as error:
                trouble[thought.name] = error
            except Exception as error:
                log.exception("route not written", extra={"route": thought.name})
                trouble[thought.name] = KubeError(0, repr(error)[:300])
        return trouble

    async def _tell(self, world: World, space: Namespace, done: list[Thought]) -> None:
        """Tell what happened to routes, once it is written."""
        for thought in done:
            memory, obj = space.thinker.memories[thought.name], world.routes[thought.name]
            untold, memory.untold = (*memory.untold, *_refusal(space, obj)), ()
            for transition in untold:
                told = {"route": f"{world.namespace}/{thought.name}", "why": transition.message}
                level = logging.WARNING if transition.warning else logging.INFO
                log.log(level, transition.reason, extra=told)
            await self._persister.tell(obj, untold)


def _raises(memory: RouteMemory, thought: Thought) -> bool:
    return weight_order(memory.state, thought.state) == "raise"


def _stamp(obj: Obj) -> tuple[str, str, str, int]:
    meta = obj["metadata"]
    return obj["kind"], meta["name"], meta["uid"], int(meta.get("generation", 0))


def _unpacked(config_map: Obj | None) -> Packed | None:
    data = ((config_map or {}).get("binaryData") or {}).get("snapshot")
    try:
        return unpack(base64.b64decode(data)) if data else None
    except (ValueError, msgspec.MsgspecError):
        return None


def _refusal(space: Namespace, obj: Obj) -> tuple[Transition, ...]:
    """Return an Event for a command that cannot be read, once."""
    problem = unreadable_command(obj)
    name = obj["metadata"]["name"]
    if problem is None or space.refused.get(name) == problem.seen:
        return ()
    space.refused[name] = problem.seen
    return (Transition(reason=problem.reason, message=problem.sentence(), warning=True),)
