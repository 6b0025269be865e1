"""Operators and routers of a ring at random: their code, and streams and requests in memory."""

import asyncio
import copy
import itertools
import random
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from support.walking import SPACE, Air, Api, Listener, Obj
from weir_core.evidence import Trip
from weir_core.snapshot import Limits, Revision, RoutePolicy
from weir_core.wire import Push, Report, Routed
from weir_operator.apply import Applier
from weir_operator.cache import Cache
from weir_operator.kube import KubeError
from weir_operator.leader import Leader
from weir_operator.routers import RouterSettings
from weir_operator.walk import Walker, _unpacked
from weir_operator.workloads import WorkloadSettings
from weir_router.ledger import Ledger
from weir_router.orders import OldTermError, Orders

Pair = tuple[str, int]
"""(revision, attempt)."""
REQUESTS = 20
"""At each router in a tick."""


class Ring(Protocol):
    """What operators and routers know of the whole: `chance.Ring` has the rest."""

    objects: dict[tuple[str, str, str], Obj]
    watchers: list[Cache]
    versions: "itertools.count[int]"
    numbers: "itertools.count[int]"
    writes: list[tuple[float, str, str]]
    broken: list[str]
    saved: dict[Pair, int]
    dead: set[Pair]

    def told(self, routed: Routed) -> None:
        """Take note of what an operator publishes."""

    def stored(self, obj: Obj) -> None:
        """Take note of what the API server has now."""


def is_bad(revision: Revision) -> bool:
    """Return whether most of a revision's requests fail: every third deadline."""
    return revision.behaviour.deadline_ms // 1_000 % 3 == 0


class View(Api):
    """One client's view of the API server. `loses` says whether an answer is lost."""

    def __init__(self, ring: Ring) -> None:
        super().__init__()
        self.ring = ring
        self.objects, self.watchers = ring.objects, ring.watchers
        self._versions = ring.versions
        self.loses: Callable[[], bool] = lambda: False

    def mend(self) -> None:
        self.fails, self.loses = lambda *call: 0, lambda: False
        self.waits = self.mute = lambda *call: False

    async def apply(self, obj: Obj, *, sub: str = "") -> Obj:
        return self._answer(await super().apply(obj, sub=sub))

    async def create(self, obj: Obj) -> Obj:
        return self._answer(await super().create(obj))

    async def replace(self, obj: Obj) -> Obj:
        return self._answer(await super().replace(obj))

    def _answer(self, obj: Obj) -> Obj:
        if self.loses():
            raise KubeError(0, "the answer was lost")
        return obj

    async def _called(self, verb: str, kind: str, name: str) -> None:
        await asyncio.sleep(0.002)
        await super()._called(verb, kind, name)
        self.calls.clear()
        if verb != "get" and kind != "Lease":
            self.ring.writes.append((time.monotonic(), verb, kind))

    def _put(self, obj: Obj) -> Obj:
        if "uid" not in obj["metadata"]:
            obj = {**obj, "metadata": {**obj["metadata"], "uid": f"u{next(self.ring.numbers)}"}}
        done = super()._put(obj)
        self.ring.stored(done)
        return done


class Late:
    """A watch that brings news `lag_s` late, in their order."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._due_s = 0.0
        self.lag_s = 0.0
        self.over = False

    def put(self, obj: Obj) -> None:
        self._bring(self._cache.put, obj)

    def drop(self, obj: Obj) -> None:
        self._bring(self._cache.drop, obj)

    def _bring(self, take: Callable[[Obj], object], obj: Obj) -> None:
        loop = asyncio.get_running_loop()
        self._due_s = max(self._due_s + 1e-5, loop.time() + self.lag_s)
        loop.call_at(self._due_s, lambda: None if self.over else take(obj))


class Streams(Air):
    """An operator's feed: its routers alone, none of which takes an older term's orders."""

    def __init__(self, operator: "Operator", term: int) -> None:
        super().__init__({}, term)
        self.joined: dict[str, Router] = {}
        self.routers = self.joined
        self._operator = operator
        self.on_report = operator.wake

    def publish(
        self, namespace: str, routes: Mapping[str, Routed], limits: Mapping[str, Limits]
    ) -> None:
        if namespace != SPACE:
            return
        for routed_ in routes.values():
            self._operator.ring.told(routed_)
        self.told = [dict(routes)]
        for router in list(self.joined.values()):
            self.bring(router)

    def bring(self, router: "Router") -> None:
        push = Push(term=self.term, complete=True, routes=self.told[-1], limits={})
        try:
            if router.orders.push(push):
                router.obeyed()
                self.on_report(SPACE)
        except OldTermError:
            self._operator.leader.surpass(max(at[0] for at in router.orders.acks.values()))
            router.leave()


class Operator:
    """An operator's process: leads while it can, walks while it leads."""

    def __init__(self, ring: Ring) -> None:
        self.ring = ring
        self.view = View(ring)
        self.frozen_s = 0.0
        self.streams: Streams | None = None
        self.walker: Walker | None = None
        self.watch: Late | None = None
        kube: Any = self.view
        self.leader = Leader(
            kube,
            namespace="weir",
            name="weir-operator",
            identity=f"operator-{next(ring.numbers)}",
            clock=lambda: time.monotonic() + self.frozen_s,
            wall=time.time,
        )
        self._task = asyncio.create_task(self._run())

    def wake(self, namespace: str) -> None:
        if self.walker is not None:
            self.walker.wake(namespace)

    async def _run(self) -> None:
        while True:
            await self.leader.acquire()
            self._act()
            await self.leader.keep()
            await self._rest()

    def _act(self) -> None:
        kube: Any = self.view
        cache = Cache(self.wake)
        for obj in list(self.ring.objects.values()):
            if obj["metadata"].get("namespace") == SPACE and obj["kind"] != "Event":
                cache.put(copy.deepcopy(obj))
        self.watch = Late(cache)
        watch: Any = self.watch
        self.ring.watchers.append(watch)
        self.streams = Streams(self, self.leader.term)
        feed: Any = self.streams
        applier = Applier(
            kube,
            cache,
            leader=self.leader,
            routers=RouterSettings(image="weir:1", feed="weir-operator:8443"),
            workloads=WorkloadSettings(),
        )
        self.walker = Walker(
            kube=kube,
            cache=cache,
            feed=feed,
            leader=self.leader,
            applier=applier,
            max_routers=10,
            clock=time.time,
        )
        self.wake(SPACE)

    async def _rest(self) -> None:
        walker, self.walker = self.walker, None
        if self.watch is not None:
            self.watch.over = True
            self.ring.watchers[:] = [one for one in self.ring.watchers if one is not self.watch]
        for router in list(self.streams.joined.values()) if self.streams else ():
            router.leave()
        self.streams = self.watch = None
        if walker is not None:
            await walker.stop()

    async def kill(self) -> None:
        self.view.mend()
        self._task.cancel()
        (ended,) = await asyncio.gather(self._task, return_exceptions=True)
        if not isinstance(ended, asyncio.CancelledError):
            self.ring.broken.append(f"an operator's process ended by itself: {ended!r}")
        await self._rest()


class Router(Listener):
    """One router: orders, a ledger, and requests that fail more in a bad canary."""

    def __init__(self, ring: Ring) -> None:
        super().__init__(f"r{next(ring.numbers)}")
        self.ring = ring
        self.operator: Operator | None = None
        self.cut_until_s = 0.0
        self.started = 0
        self.hot: set[Pair] = set()
        self.stopped: set[Pair] = set()
        self.restart()

    def restart(self) -> None:
        """Begin anew, with what the folder of the pod remembers."""
        self.leave()
        before = self.orders.obeyed if self.started else {}
        self.started += 1
        self.orders, self.hot = Orders(self.problem, before), set()
        self.ledger = Ledger(router=self.uid, boot=str(self.started))

    def leave(self) -> None:
        if self.operator is not None and self.operator.streams is not None:
            self.operator.streams.joined.pop(self.uid, None)
        self.operator = None

    def join(self, operator: Operator) -> None:
        assert operator.streams is not None
        self.operator = operator
        operator.streams.joined[self.uid] = self
        operator.streams.bring(self)
        operator.wake(SPACE)

    def mount(self, config_map: Obj) -> None:
        packed = _unpacked(config_map)
        if packed is not None and self.orders.mount(packed):
            self.obeyed()

    def obeyed(self) -> None:
        """Look at what it obeys now: never more than was saved, nor what it was told to stop."""
        policy = self.policy
        pair = _pair(policy)
        weight_bp = policy.weight_bp if policy is not None else 0
        for one in {one for one in self.hot if one != pair or not weight_bp}:
            self.hot.discard(one)
            self.stopped |= {one} & self.ring.dead
        if pair is None or not weight_bp:
            return
        if pair in self.stopped:
            self.ring.broken.append(f"{self.uid}: {pair} again, though its rollback was obeyed")
        if weight_bp > self.ring.saved.get(pair, 0):
            self.ring.broken.append(f"{self.uid}: {weight_bp} to {pair}, which nobody saved")
        self.hot.add(pair)

    def report(self) -> Report:
        latched = self.policy.latched if self.policy else ()
        return Report(
            start=self.started,
            as_of_s=time.time(),
            acks=self.orders.acks,
            tallies=self.ledger.tallies(time.time()),
            trips=tuple(t for t in self.trips if (t.revision, t.attempt) not in latched),
        )

    def serve(self, chance: random.Random) -> None:
        """Answer some requests, and now and then pull the brake of a bad canary."""
        policy, pair, now_s = self.policy, _pair(self.policy), time.time()
        if policy is None or policy.canary is None or pair is None or not policy.weight_bp:
            return
        tripped = {(trip.revision, trip.attempt) for trip in self.trips}
        if pair in tripped:
            return
        bad = is_bad(policy.canary)
        self.ledger.open(policy, now_s)
        for _ in range(REQUESTS):
            arm = int(chance.random() * 10_000 < policy.weight_bp)
            ticket = self.ledger.assign(policy, arm, "", now_s)
            if ticket is not None:
                failed = chance.random() < (0.6 if bad and arm else 0.02)
                self.ledger.settle(ticket, int(failed), now_s)
        if bad and chance.random() < 0.01:
            self.trips += (_trip(policy, pair, now_s),)
        if self.operator is not None:
            self.operator.wake(SPACE)


def _pair(policy: RoutePolicy | None) -> Pair | None:
    if policy is None or policy.canary is None:
        return None
    return policy.canary.name, policy.attempt


def _trip(policy: RoutePolicy, pair: Pair, now_s: float) -> Trip:
    return Trip(
        route_uid=policy.uid,
        revision=pair[0],
        attempt=pair[1],
        decided_by="router",
        reason="Harm",
        suspect="errors",
        log_e=9.0,
        at_s=now_s,
    )
