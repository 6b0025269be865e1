"""The control loop of a standalone router: files in, snapshots out, state on disk.

The same core functions that the operator's walk uses, every 100 ms: compile, judge, advance,
publish. A raise is on disk before routers hear of it; a lowering is published first.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from msgspec.structs import replace

from weir_core.commands import VERBS, Command
from weir_core.errors import Problem
from weir_core.evidence import Judgement, Key, Trip
from weir_core.rollout import (
    Inputs,
    RolloutState,
    Transition,
    advance,
    evidence_key,
    weight_order,
)
from weir_core.sequential import fingerprint
from weir_core.snapshot import RoutePolicy, Snapshot
from weir_router import explain
from weir_router.described import described, ejected_backends
from weir_router.folder import Folder
from weir_router.serve import Router
from weir_router.standing import (
    FORMAT,
    MAX_EVENTS,
    Happened,
    Saved,
    SavedRoute,
    StateFile,
    forget_gone,
    policy_of,
    published,
    readable,
    rest,
)
from weir_router.statuses import Statuses
from weir_router.upstreams import Ejection
from weir_router.world import World, gather

TICK_S = 0.1
LOOK_S = 0.25
"""How often the folder is looked at for changes."""
SLOW_DISK_S = 1.0
STUCK_S = 30.0
IDLE_S = 5.0
"""How often a state is written in which nothing but the time has changed."""
log = logging.getLogger("weir")


class Keeper:
    """Keeps one router's policy. `start()` once, then `run()` until cancelled, then `end()`.

    `has_key` says whether there is a key file of a name, `ejected` which backends are out.
    """

    def __init__(
        self,
        *,
        folder: Folder,
        file: StateFile,
        router: Router,
        clock: Callable[[], float],
        has_key: Callable[[str], bool] = lambda name: True,
        ejected: Callable[[], tuple[Ejection, ...]] = tuple,
    ) -> None:
        self._has_key = has_key
        self._ejected = ejected
        self._folder = folder
        self._file = file
        self._router = router
        self._clock = clock
        self._saved = Saved(format=FORMAT)
        self._world: World | None = None
        self._ticked_s = clock()
        self._on_disk = Saved(format=FORMAT)
        self._statuses = Statuses(ejected=ejected)
        self._commands: dict[str, Command] = {}
        self._number = 0
        self._looked_s = 0.0
        self._ticking = asyncio.Lock()
        self._commanding = asyncio.Lock()

    def start(self) -> None:
        """Read state and configuration and publish the first snapshot.

        Raises StateFileError for a state file that is not ours, OSError when it cannot be
        written.
        """
        saved = self._file.read()
        unclean = saved.unclean_boots + (0 if saved.clean else 1)
        now_s = self._clock()
        gap_s = now_s - saved.written_s if saved.written_s else 0.0
        self._saved = replace(
            saved,
            boot=saved.boot + 1,
            clean=False,
            unclean_boots=unclean,
            routes={key: rest(one, gap_s, now_s) for key, one in saved.routes.items()},
        )
        self._router.ledger.restore(readable(saved), now_s)
        self._load()
        # Requests in flight at a crash are not all counted yet: no raise on the first look.
        routes, _ = self._advanced(self._clock(), in_sync=saved.boot == 0)
        self._saved = replace(self._saved, routes=routes)
        self._file.write(self._saved, self._file.turn())
        self._publish()

    async def run(self) -> None:
        """Tick until cancelled. A tick that fails is logged; the router goes on as it is."""
        while True:
            try:
                await self.tick()
            except OSError as error:
                log.error("state not written", extra={"error": str(error)})
            except Exception:
                log.exception("the control loop failed to walk")
            await asyncio.sleep(TICK_S)

    async def tick(self) -> None:
        """One walk: gather, think, persist and publish in the safe order."""
        async with self._ticking:
            now_s = self._clock()
            if now_s - self._looked_s >= LOOK_S:
                self._looked_s = now_s
                if self._folder.changed():
                    self._load()
            before = self._saved.routes
            after, changed = self._advanced(now_s)
            raised = {key for key in changed if _raises(before, after, key)}
            self._saved = replace(
                self._saved,
                routes={key: before[key] if key in raised else after[key] for key in after},
                tallies=self._router.ledger.tallies(now_s),
                written_s=now_s,
            )
            if changed - raised:
                self._publish()
            turn = await self._write(replace(self._saved, routes=after))
            if turn == self._file.turns:
                self._raise({key: after[key] for key in raised}, before)
            # Else a trip was written meanwhile, without the raise: the next tick raises again.
            self._ticked_s = now_s

    async def _write(self, saved: Saved) -> int:
        """Bring the state to disk and return its turn; an idle one is written now and then."""
        idle = replace(saved, written_s=self._on_disk.written_s) == self._on_disk
        if idle and saved.written_s - self._on_disk.written_s < IDLE_S:
            return self._file.turns
        began_s = time.monotonic()
        turn = self._file.turn()
        await asyncio.to_thread(self._file.write, saved, turn)
        if time.monotonic() - began_s > SLOW_DISK_S:
            log.warning("slow disk", extra={"seconds": round(time.monotonic() - began_s, 1)})
        self._on_disk = saved
        return turn

    def _raise(self, raised: Mapping[str, SavedRoute], before: Mapping[str, SavedRoute]) -> None:
        """Publish raises that are on disk now, but for routes whose brake tripped meanwhile."""
        routes = self._saved.routes
        due = {key: route for key, route in raised.items() if routes.get(key) is before[key]}
        if due:
            self._saved = replace(self._saved, routes={**routes, **due})
            self._publish()

    def tripped(self, trip: Trip) -> None:
        """Take a trip of the router's brake: it has stopped already, remember it at once."""
        for key, route in self._saved.routes.items():
            if route.uid == trip.route_uid:
                after = self._advance(key, route, self._clock(), trips=(trip,))
                self._saved = replace(self._saved, routes={**self._saved.routes, key: after})
        self._publish()
        try:
            self._file.write(self._saved, self._file.turn())
        except OSError as error:
            log.error("trip not written", extra={"error": str(error)})

    def end(self) -> None:
        """Write the state as an orderly end leaves it."""
        now_s = self._clock()
        tallies = self._router.ledger.tallies(now_s)
        self._saved = replace(self._saved, tallies=tallies, clean=True, written_s=now_s)
        self._file.write(self._saved, self._file.turn())

    # Configuration in.

    def _load(self) -> None:
        before = set(self._world.problems) if self._world is not None else set()
        self._world = gather(self._folder, self._saved.routes, self._has_key)
        for problem in self._world.problems:
            if problem not in before:
                log.warning("problem in the configuration", extra={"problem": problem.sentence()})
        for problem in before.difference(self._world.problems):
            log.info("problem solved", extra={"problem": problem.sentence()})

    # Thinking.

    def _advanced(
        self, now_s: float, *, in_sync: bool = True
    ) -> tuple[dict[str, SavedRoute], set[str]]:
        """Return every route after its rollout was advanced, and which of them changed."""
        assert self._world is not None
        routes = dict(self._saved.routes)
        for key, compiled in self._world.compiled.routes.items():
            known = routes.get(key)
            routes[key] = SavedRoute(
                uid=compiled.uid,
                namespace=compiled.namespace,
                name=compiled.name,
                model_names=compiled.model_names,
                monitoring=compiled.monitoring,
                rollout=compiled.rollout,
                state=known.state if known else RolloutState(),
                events=known.events if known else (),
                created_s=known.created_s if known and not known.gone else now_s,
                file=self._world.files[key],
                gone=known.gone if known else False,
                gone_since_s=known.gone_since_s if known else 0.0,
                conditions=known.conditions if known else {},
            )
        for key, route in list(routes.items()):
            gone = not self._world.keeps(key, route)
            if gone != route.gone:
                log.info("route taken out" if gone else "route is back", extra={"route": key})
                back = rest(replace(route, gone=False), now_s - route.gone_since_s, now_s)
                route = replace(route, gone=True, gone_since_s=now_s) if gone else back
                routes[key] = route
            if not gone:
                routes[key] = self._advance(key, route, now_s, in_sync=in_sync)
        routes = forget_gone(routes)
        changed = {key for key in routes if published(routes, key) != self._last(key)}
        changed |= {key for key in self._saved.routes if key not in routes}
        return routes, changed

    def _last(self, key: str) -> RoutePolicy | None:
        return published(self._saved.routes, key)

    def _advance(
        self,
        key: str,
        route: SavedRoute,
        now_s: float,
        *,
        trips: tuple[Trip, ...] = (),
        in_sync: bool = True,
    ) -> SavedRoute:
        assert self._world is not None
        compiled = self._world.compiled.routes.get(key)
        objectives = fingerprint(route.monitoring)
        about = evidence_key(route.state, route_uid=route.uid, objectives=objectives)
        judgement = self._judge(key, route, about, now_s)
        done = advance(
            route.state,
            Inputs(
                target=compiled.revision if compiled else None,
                policy=route.rollout,
                objectives=objectives,
                judgement=judgement,
                judged=about,
                trips=trips,
                command=self._commands.get(key),
                unclean_boots=self._saved.unclean_boots,
                routers_in_sync=in_sync,
            ),
            now_s=now_s,
        )
        after = route if done.state == route.state else replace(route, state=done.state)
        after, turned = self._statuses.turned(key, after, self._world, now_s)
        return _told(key, after, (*done.transitions, *turned), now_s)

    def _judge(
        self, key: str, route: SavedRoute, about: Key | None, now_s: float
    ) -> Judgement | None:
        policy = policy_of(route)
        if about is None or policy is None or policy.canary is None:
            return None
        self._router.ledger.open(policy, now_s)
        judgement = self._router.ledger.judge(policy, alpha=policy.brake_alpha, now_s=now_s)
        weight_bp = route.state.weight_bp
        self._statuses.judged(key, about, judgement, weight_bp=weight_bp, now_s=now_s)
        return judgement

    def _publish(self) -> None:
        assert self._world is not None
        routes = self._saved.routes
        self._number += 1
        oldest_first = sorted(routes, key=lambda key: (routes[key].created_s, key))
        policies = tuple(published(routes, key) for key in oldest_first)
        self._router.apply(
            Snapshot(
                version=(self._saved.boot, self._number),
                routes=tuple(policy for policy in policies if policy is not None),
                limits=dict(self._world.compiled.limits),
            )
        )

    # What people ask (the Control of `app`).

    def ready(self) -> str:
        """Return why this router is not ready, "" when it is."""
        idle_s = self._clock() - self._ticked_s
        if idle_s > STUCK_S:
            return f"the control loop has not walked for {idle_s:.0f} s"
        return "" if self._router.table.routes else "no route is served"

    def statuses(self) -> dict[str, Any]:
        """Return every served route's status, and what is wrong with anything."""
        return {
            "routes": {
                key: self._status(key, route)
                for key, route in sorted(self._saved.routes.items())
                if not route.gone
            },
            "created": {key: route.created_s for key, route in self._saved.routes.items()},
            "problems": [problem.sentence() for problem in self._problems()],
            "ejected": ejected_backends(self._ejected()),
        }

    def describe(self, key: str) -> dict[str, Any] | None:
        """Return one route's status, events and totals."""
        route = self._saved.routes.get(key)
        if route is None or route.gone:
            return None
        assert self._world is not None
        return described(
            route,
            self._status(key, route),
            self._router.metrics.totals(key),
            ejected=self._ejected(),
            problems=self._world.problems_near(key, route),
        )

    async def command(self, key: str, verb: str, revision: str, *, full: bool) -> dict[str, Any]:
        """Carry out a command and return how it was acknowledged."""
        if verb not in VERBS:
            wanted = ", ".join(VERBS)
            return {"result": "Refused", "message": f"saw {verb!r}, wanted one of {wanted}"}
        command = Command(verb=verb, revision=revision, issued_s=self._clock(), full=full)
        async with self._commanding:
            self._commands[key] = command
            try:
                await self.tick()
            except OSError as error:
                return {"result": "Refused", "message": f"the state was not written: {error}"}
            finally:
                del self._commands[key]
        route = self._saved.routes.get(key)
        done = route.state.last_command if route is not None else None
        if done is None or done.command != command:
            return {"result": "Refused", "message": "the route no longer takes commands"}
        return {"result": done.result, "message": done.message}

    def explain(self, body: bytes, headers: dict[str, str]) -> dict[str, Any]:
        """Return what would be decided for a request, without calling a model."""
        return explain.explain(self._router.table, body, headers)

    def _problems(self) -> tuple[Problem, ...]:
        return self._world.problems if self._world is not None else ()

    def _status(self, key: str, route: SavedRoute) -> dict[str, Any]:
        assert self._world is not None
        return self._statuses.of(key, route, self._world, self._clock())


def _told(
    key: str, route: SavedRoute, transitions: tuple[Transition, ...], now_s: float
) -> SavedRoute:
    """Log what happened and return the route with its events."""
    for transition in transitions:
        level = logging.WARNING if transition.warning else logging.INFO
        log.log(level, transition.reason, extra={"route": key, "why": transition.message})
    if not transitions:
        return route
    happened = (Happened(at_s=now_s, transition=transition) for transition in transitions)
    return replace(route, events=(*route.events, *happened)[-MAX_EVENTS:])


def _raises(before: Mapping[str, SavedRoute], after: Mapping[str, SavedRoute], key: str) -> bool:
    """Whether the change gives some revision more of the traffic than it had."""
    if key not in before or key not in after:
        return False
    return weight_order(before[key].state, after[key].state) == "raise"
