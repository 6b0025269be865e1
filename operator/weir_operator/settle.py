"""The slow half of a namespace's walk: what was thought is saved, then applied and told.

It may wait for the API as long as that takes: nothing that is lowered waits for it. A raise is
published when it is saved, if the route is still where it was thought from.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from weir_core.conditions import turned
from weir_core.resources import title_of_object
from weir_core.rollout import Transition, rested
from weir_core.wire import Packed
from weir_operator.apply import Applier
from weir_operator.backends import identities, longest_ms, seen_of, users, versions
from weir_operator.cache import Cache
from weir_operator.figures import kept
from weir_operator.gather import calibrations
from weir_operator.kube import Kube, KubeError
from weir_operator.leader import Leader
from weir_operator.memory import RouteMemory
from weir_operator.persist import Persister
from weir_operator.publish import Publisher
from weir_operator.space import Job, Namespace
from weir_operator.standing import decided, parked
from weir_operator.unapplied import REFUSALS, refused
from weir_operator.wishes import unreadable_command

Obj = dict[str, Any]

RETRY_S, RETRY_MAX_S = 0.2, 10.0
CALIBRATIONS_S = 15.0
MISSING_S = 2.0
"""How soon a calibration that is not there is looked for again: it may come with the same apply."""
SLOW_S = 1.0
"""A save that took longer is none of a hold's time."""
PUBLISH_S = 0.25
"""Raises that are saved wait no longer for others to be published with them."""
log = logging.getLogger("weir.operator")


class Settler:
    """Settles namespaces, each in a task of its own. `clock` gives Unix seconds."""

    def __init__(
        self,
        *,
        kube: Kube,
        cache: Cache,
        leader: Leader,
        applier: Applier,
        publisher: Publisher,
        clock: Callable[[], float],
    ) -> None:
        self._kube = kube
        self._cache = cache
        self._leader = leader
        self._applier = applier
        self._publisher = publisher
        self._persister = Persister(kube, cache, lambda: leader.leads)
        self._clock = clock
        self.settles = 0
        self.settle_s = 0.0

    async def run(self, name: str, space: Namespace) -> None:
        """Settle a namespace whenever there is something, for ever; ever slower on trouble."""
        retry_s = RETRY_S
        while True:
            await space.unsettled.wait()
            if not self._leader.leads:
                await asyncio.sleep(retry_s)
                continue
            space.unsettled.clear()
            space.settling = True
            began_s = time.monotonic()
            try:
                await self.settle(name, space)
                retry_s = RETRY_S
                continue
            except KubeError as error:
                level = logging.INFO if error.status == 409 else logging.WARNING
                log.log(level, "walk again", extra={"namespace": name, "why": str(error)[:500]})
            except Exception:
                log.exception("walk failed", extra={"namespace": name})
            finally:
                space.settling = False
                self.settles += 1
                self.settle_s += time.monotonic() - began_s
            await asyncio.sleep(retry_s)
            retry_s = min(2 * retry_s, RETRY_MAX_S)
            space.awake.set()

    async def settle(self, name: str, space: Namespace) -> None:
        """Save, publish and apply what stands now. Raises KubeError when something is left."""
        await self.configure(name, space)
        trouble = await self._save_all(name, space)
        if space.latest is None:
            return
        world, compiled = space.latest
        memories, now_s = space.thinker.memories, self._clock()
        every = identities(world, compiled, memories, now_s=now_s)
        wanted = decided(world, every, memories, now_s=now_s)
        space.parked = parked(wanted)
        space.figures |= kept(wanted)
        names = [one.name for one in wanted]
        space.bodies = {n: world.revisions[n] for n in names if n in world.revisions}
        routes = {f"{name}/{one}": memory.routed for one, memory in memories.items()}
        lacked = self._applier.router_problems(world)
        found, again_s = await self._applier.apply(
            world,
            hurried=lambda: bool(space.jobs),
            wanted=wanted,
            packed=Packed(
                routes={key: one for key, one in routes.items() if one.policy is not None},
                limits=dict(compiled.limits),
            ),
            deadline_ms=longest_ms(memories),
        )
        known = {one for one in world.problems if one.condition == "Programmed"}
        if known != set(self._applier.router_problems(world)):
            space.awake.set()
        if self._applier.router_problems(world) != lacked:
            space.awake.set()
        try:
            await self._persister.drop(world, space.orphans.over(world, now_s))
        except KubeError as error:
            trouble.append(error)
        used, own = users(world, memories), versions(wanted)
        for backend in world.backends:
            uses = used.get(backend, {})
            more = found.get(backend, ())
            seen = seen_of(world, compiled, backend, own.get(backend, ()), uses, more)
            try:
                await self._persister.save_backend(world, backend, seen, now_s, space.told)
            except KubeError as error:
                trouble.append(error)
        if again_s is not None:
            # What failed waits by itself: all else is settled as it comes.
            asyncio.get_running_loop().call_later(again_s, space.awake.set)
        if trouble:
            raise trouble[0]

    # Saving.

    async def _save_all(self, name: str, space: Namespace) -> list[KubeError]:
        """Save what was thought, what lowers first; return what went wrong, route by route."""
        trouble: list[KubeError] = []
        published_s = time.monotonic()
        first = sorted(space.jobs, key=lambda one: space.jobs[one].thought.order != "lower")
        for route in first:
            # The newest: another thought may have come while others were being saved.
            job = space.jobs.pop(route, None)
            memory = space.thinker.memories.get(route)
            if job is None or memory is None or memory.uid != _uid(job):
                continue
            error = await self._save(name, space, job, memory)
            if error is not None:
                trouble.append(error)
                space.attention.forget(route)
            elif time.monotonic() - published_s > PUBLISH_S:
                self._publish(name, space)
                published_s = time.monotonic()
        self._publish(name, space)
        return trouble

    async def _save(
        self, name: str, space: Namespace, job: Job, memory: RouteMemory
    ) -> KubeError | None:
        """Save one thought, and let it count if it is a raise; return what went wrong."""
        thought = job.thought
        is_raise = thought.order == "raise"
        if is_raise and space.raising.get(thought.name) is not thought:
            return None
        told = memory.untold
        space.saving = thought
        try:
            if not self._leader.leads:
                raise KubeError(0, "the lease is not fresh: nothing is written")
            status = space.thinker.status(thought, now_s=job.now_s)
            news = turned(memory.status.get("conditions") or (), status["conditions"])
            await self._persister.save(job.world, thought, memory, status, job.now_s)
        except KubeError as error:
            if error.status in REFUSALS:
                await self._tell_refusal(space, job, memory, error)
            return error
        except Exception as error:
            log.exception("route not written", extra={"route": f"{name}/{thought.name}"})
            return KubeError(0, repr(error)[:300])
        finally:
            space.saving = None
            if is_raise and space.raising.get(thought.name) is thought:
                del space.raising[thought.name]
                is_valid = memory.saved == thought.state and memory.state is thought.base
            else:
                is_valid = False
        if is_valid:
            now_s = self._clock()
            late_s = now_s - job.now_s
            # Holds count from when routers are told, not from when that was thought of.
            late_s = late_s if late_s > SLOW_S else 0.0
            memory.state = rested(thought.state, gap_s=late_s, now_s=now_s)
            memory.goal = thought.policy
            self._publisher.tell(job.world, memory, f"{name}/{thought.name}", now_s=now_s)
        memory.untold = memory.untold[len(told) :]
        happened = (*told, *(thought.transitions if is_valid else ()), *news)
        return await self._tell(space, job, happened)

    async def _tell_refusal(
        self, space: Namespace, job: Job, memory: RouteMemory, error: KubeError
    ) -> None:
        """Tell on a route that the API server does not take what is written of it, if it can be."""
        thought, obj = job.thought, job.world.routes[job.thought.name]
        problem = refused(title_of_object(obj), error, what="ModelRevisions and a status")
        problem = replace(problem, condition="Programmed")
        observed = replace(thought.observed, problems=(*thought.observed.problems, problem))
        if thought.order == "raise":
            thought = replace(thought, state=thought.base)
        status = space.thinker.status(replace(thought, observed=observed), now_s=job.now_s)
        news = turned(memory.status.get("conditions") or (), status["conditions"])
        told = memory.untold
        try:
            is_whole = await self._persister.save_status(job.world, thought, memory, status)
        except KubeError as further:
            log.info("nor its status", extra={"why": str(further)[:300]})
            return
        if is_whole:
            # What happened while that was written is of a later state.
            memory.untold = memory.untold[len(told) :]
        await self._persister.tell(obj, (*(told if is_whole else ()), *news))

    async def _tell(
        self, space: Namespace, job: Job, happened: tuple[Transition, ...]
    ) -> KubeError | None:
        """Tell what happened to a route, once it is written, and delete what it forgot."""
        obj = job.world.routes[job.thought.name]
        happened += _refusal(space, obj)
        for transition in happened:
            title = f"{obj['metadata']['namespace']}/{job.thought.name}"
            told = {"route": title, "why": transition.message}
            level = logging.WARNING if transition.warning else logging.INFO
            log.log(level, transition.reason, extra=told)
        await self._persister.tell(obj, happened)
        try:
            if happened:
                await self._persister.forget(job.world, job.thought)
        except KubeError as error:
            return error
        return None

    def _publish(self, name: str, space: Namespace) -> None:
        if space.latest is not None:
            self._publisher.publish(name, space.thinker.memories, space.latest[1].limits)

    # Reading.

    async def configure(self, name: str, space: Namespace) -> None:
        """Read the calibrations that routes refer to, now and then, and what was never read."""
        now_s = time.monotonic()
        wanted = calibrations(self._cache.of("ModelRoute", name))
        pace_s = MISSING_S if space.lacks_calibration else CALIBRATIONS_S
        if now_s - space.configured_s <= pace_s and wanted == space.asked_for:
            return
        known = {one["metadata"]["name"]: one for one in space.config_maps}
        found = [await self._config_map(name, one, known.get(one)) for one in sorted(wanted)]
        read = [one for one in found if one is not None]
        if read != space.config_maps or wanted != space.asked_for:
            space.awake.set()
        space.config_maps, space.configured_s, space.asked_for = read, now_s, wanted

    async def _config_map(self, namespace: str, name: str, known: Obj | None) -> Obj | None:
        """Return a ConfigMap, the one known before while the API does not answer."""
        try:
            found = await self._kube.get("ConfigMap", namespace, name)
        except KubeError as error:
            told = {"name": f"{namespace}/{name}", "error": str(error)}
            log.warning("calibration not read", extra=told)
            return known
        return {"apiVersion": "v1", "kind": "ConfigMap", **found} if found is not None else None


def _uid(job: Job) -> str:
    return str(job.world.routes[job.thought.name]["metadata"]["uid"])


def _refusal(space: Namespace, obj: Obj) -> tuple[Transition, ...]:
    """Return an Event for a command that cannot be read, once."""
    problem = unreadable_command(obj)
    name = obj["metadata"]["name"]
    if problem is None:
        space.refused.pop(name, None)
        return ()
    if space.refused.get(name) == problem.seen:
        return ()
    space.refused[name] = problem.seen
    return (Transition(reason=problem.reason, message=problem.sentence(), warning=True),)
