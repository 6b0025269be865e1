"""The quick half of a namespace's walk: gather, think, publish what may be told at once.

Debounced, level-triggered, and never waiting for the API, so a lowering reaches routers however
the API does. All else is left to the slow half (`settle`): a raise is written, then published; a
lowering is published, then written. Both may fail at any line and simply happen again.
"""

import asyncio
import base64
import logging
import time
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec.structs import replace

from weir_core.compile import Compiled
from weir_core.wire import Packed, latest_term, unpack
from weir_operator.admission import admitted
from weir_operator.apply import Applier
from weir_operator.cache import Cache
from weir_operator.feed import Feed
from weir_operator.figures import FIGURES, heard
from weir_operator.gather import World, calibrations, gather
from weir_operator.kube import Kube, KubeError
from weir_operator.leader import Leader
from weir_operator.memory import RouteMemory
from weir_operator.publish import Publisher
from weir_operator.settle import MISSING_S, RETRY_MAX_S, RETRY_S, Settler
from weir_operator.space import Job, Namespace
from weir_operator.think import Thought

Obj = dict[str, Any]

DEBOUNCE_S = 0.05
LOOK_S = 0.25
"""How often a namespace with a canary under way is walked although nothing was heard."""
IDLE_S = 30.0
BUSY_S = 0.5
"""The least time between two walks, while writes come back as news and no canary is under way."""
FORGET_S = 60.0
"""What a namespace is remembered for after the last object and the last router went."""
OURS = ("ModelRoute", "ModelBackend", "ModelRevision")
log = logging.getLogger("weir.operator")


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
        self._publisher = Publisher(feed, leader)
        self._settler = Settler(
            kube=kube,
            cache=cache,
            leader=leader,
            applier=applier,
            publisher=self._publisher,
            clock=clock,
        )
        self._max_routers = max_routers
        self._clock = clock
        self._namespaces: dict[str, Namespace] = {}
        self._tasks: set[asyncio.Task[None]] = set()
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
            task.add_done_callback(self._tasks.discard)
        known.awake.set()

    @property
    def settles(self) -> tuple[int, float]:
        """How often a namespace was settled, well or not, and the seconds in it."""
        return self._settler.settles, self._settler.settle_s

    @property
    def namespaces(self) -> frozenset[str]:
        """The namespaces that are walked."""
        return frozenset(self._namespaces)

    def figures(self) -> dict[str, tuple[str, dict[str, float]]]:
        """Return gauges by name: what each is, and its value by namespace."""
        spaces = list(self._namespaces.items())
        return {
            name: (help, {space: one.figures.get(name, 0.0) for space, one in spaces})
            for name, help in FIGURES.items()
        }

    async def stop(self) -> None:
        """End all walks."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, name: str, space: Namespace) -> None:
        """Walk and settle a namespace until nothing is left of it."""
        settling = asyncio.create_task(self._settler.run(name, space))
        try:
            await self._walk_on(name, space)
        except Exception:
            log.exception("namespace begun anew", extra={"namespace": name})
            await asyncio.sleep(RETRY_MAX_S)
            space.awake.set()
        finally:
            settling.cancel()
            await asyncio.gather(settling, return_exceptions=True)
            # Whatever woke it in the meantime begins with a new memory.
            del self._namespaces[name]
            self._feed.forget(name)
            self._applier.forget(name)
        if space.awake.is_set():
            self.wake(name)

    async def _walk_on(self, name: str, space: Namespace) -> None:
        wait_s, retry_s, began_s = IDLE_S, RETRY_S, float("-inf")
        while not self._is_over(name, space):
            try:
                async with asyncio.timeout(wait_s):
                    await space.awake.wait()
            except TimeoutError:
                pass
            else:
                await asyncio.sleep(max(DEBOUNCE_S, _least_s(space) - time.monotonic() + began_s))
            space.awake.clear()
            began_s = time.monotonic()
            try:
                if not space.primed:
                    await self._prime(name, space)
                wait_s, retry_s = self._walk(name, space), RETRY_S
            except KubeError as error:
                wait_s, retry_s = retry_s, min(2 * retry_s, RETRY_MAX_S)
                told = {"namespace": name, "why": str(error)[:500]}
                log.warning("walk again", extra=told)
            except Exception:
                wait_s, retry_s = retry_s, min(2 * retry_s, RETRY_MAX_S)
                log.exception("walk failed", extra={"namespace": name})
            self.walks += 1
            self.walk_s += time.monotonic() - began_s

    def _is_over(self, name: str, space: Namespace) -> bool:
        """Return whether nothing is left of a namespace for a while."""
        if any(self._cache.of(kind, name) for kind in OURS) or self._feed.connected(name):
            space.empty_since_s = None
            return False
        if space.empty_since_s is None:
            space.empty_since_s = time.monotonic()
        return time.monotonic() - space.empty_since_s > FORGET_S

    async def _prime(self, name: str, space: Namespace) -> None:
        """Learn from the snapshot in the cluster what routers obey, of broken routes too."""
        stands = await self._kube.get("ConfigMap", name, "weir-router-snapshot")
        await self._settler.configure(name, space)
        space.thinker.remember(self._gathered(name, space))
        packed = _unpacked(stands)
        self._leader.surpass(latest_term(packed.routes if packed else {}))
        for key, routed in packed.routes.items() if packed else ():
            memory = space.thinker.memories.get(key.partition("/")[2])
            if memory is not None:
                memory.resume(routed)
        space.primed = True

    def _walk(self, name: str, space: Namespace) -> float:
        """Walk once and return after how long to look again unasked."""
        thinker = space.thinker
        world = self._gathered(name, space)
        for route in thinker.remember(world):
            space.attention.forget(route)
        space.forget_gone()
        world = admitted(world, thinker.memories)
        compiled = self._compiled(space, world)
        now_s = self._clock()
        for route in space.attention.of(world, compiled, thinker.memories, now_s=now_s):
            try:
                thought = thinker.think(world, compiled, route, now_s=now_s)
            except Exception:
                log.exception("route not thought of", extra={"route": f"{name}/{route}"})
                continue
            self._take(space, world, thought, now_s)
            space.attention.note(world, compiled, thinker.memories[route], thought, now_s)
        self._publisher.publish(name, thinker.memories, compiled.limits)
        space.figures |= heard(world, thinker.memories, out_of_sync=space.attention.out_of_sync)
        space.latest = world, compiled
        space.unsettled.set()
        if _live(space):
            return LOOK_S
        return MISSING_S if space.lacks_calibration else IDLE_S

    def _gathered(self, name: str, space: Namespace) -> World:
        world = gather(
            self._cache,
            name,
            config_maps=space.config_maps,
            connected=self._feed.connected(name),
            reader=space.reader,
        )
        problems = (*world.problems, *self._applier.router_problems(world))
        # A ModelRevision that was deleted while its model server is needed is made again.
        revisions = {**space.bodies, **world.revisions}
        return replace(world, parked=space.parked, problems=problems, revisions=revisions)

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

    def _take(self, space: Namespace, world: World, thought: Thought, now_s: float) -> None:
        """Let a thought count at once, but for a raise: that waits until it is saved."""
        name, memory = thought.name, space.thinker.memories[thought.name]
        if thought.order != "lower" and _unread(space, world, name):
            return
        if thought.order == "raise":
            self._publisher.lower(memory, thought.policy)
            before = space.raising.get(name)
            if before is not None and before is space.saving and _alike(before, thought):
                return
            space.raising[name] = thought
        else:
            space.raising.pop(name, None)
            memory.untold += thought.transitions
            memory.state, memory.goal = thought.state, thought.policy
            self._publisher.tell(world, memory, f"{world.namespace}/{name}", now_s=now_s)
            if _is_early(world, memory, thought, now_s):
                return
        space.jobs[name] = Job(world, thought, now_s)


def _live(space: Namespace) -> bool:
    return any(memory.state.live for memory in space.thinker.memories.values())


def _least_s(space: Namespace) -> float:
    """Return the least time from one walk to the next."""
    if not space.settling:
        return DEBOUNCE_S
    return LOOK_S if _live(space) else BUSY_S


def _is_early(world: World, memory: RouteMemory, thought: Thought, now_s: float) -> bool:
    """Return whether a status would only say that routers of a restarted operator are silent."""
    heard = {one.pod_uid for one in world.connected if one.alive}
    waits = memory.resuming and not memory.overdue(now_s) and not world.routers <= heard
    return waits and not thought.transitions and bool(memory.status.get("conditions"))


def _unread(space: Namespace, world: World, name: str) -> bool:
    """Return whether a route names a calibration that was not looked for yet."""
    return not calibrations([world.routes[name]]) <= space.asked_for


def _alike(one: Thought, other: Thought) -> bool:
    """Return whether two raises give the same revisions the same shares."""

    def share(thought: Thought) -> tuple[str, str, int, int]:
        state = thought.state
        return state.stable, state.canary, state.attempt, state.weight_bp

    return one.base is other.base and share(one) == share(other)


def _stamp(obj: Obj) -> tuple[str, str, str, int]:
    meta = obj["metadata"]
    return obj["kind"], meta["name"], meta["uid"], int(meta.get("generation", 0))


def _unpacked(config_map: Obj | None) -> Packed | None:
    data = ((config_map or {}).get("binaryData") or {}).get("snapshot")
    try:
        return unpack(base64.b64decode(data)) if data else None
    except (ValueError, msgspec.MsgspecError):
        return None
