"""The operator's walk with an API server in memory and routers that are orders alone.

The API server knows resourceVersions, conflicts, and calls that hang or fail; routers take what
is published as real ones do (`Orders`) and report it. Everything between is the product's own.
"""

import asyncio
import contextlib
import copy
import itertools
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from support.objects import backend, route
from support.thinking import router_pod, trip
from weir_core.evidence import Trip
from weir_core.snapshot import Limits, RoutePolicy
from weir_core.wire import Push, Report, Routed
from weir_operator.apply import Applier
from weir_operator.cache import Cache
from weir_operator.inbox import Connected
from weir_operator.kube import KubeError
from weir_operator.leader import Leader
from weir_operator.routers import RouterSettings
from weir_operator.walk import Walker
from weir_operator.workloads import WorkloadSettings
from weir_router.orders import Orders

Obj = dict[str, Any]
SPACE, KEY = "default", "default/assistant"
STEPS = [{"setWeight": 5}, {"hold": {"minRequests": 100}}, {"setWeight": 50}]


class Api:
    """Objects by (kind, namespace, name). `calls` are (verb, kind, name) as they were made.

    `waits` says which calls hang until it says so no more, and `mute` which have their effect and
    no answer until then; `fails` gives the status to refuse a call with, 0 for none.
    """

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str], Obj] = {}
        self.calls: list[tuple[str, str, str]] = []
        self.watchers: list[Cache] = []
        self.waits: Callable[[str, str, str], bool] = lambda verb, kind, name: False
        self.mute: Callable[[str, str, str], bool] = lambda verb, kind, name: False
        self.fails: Callable[[str, str, str], int] = lambda verb, kind, name: 0
        self._versions = itertools.count(1)

    async def get(self, kind: str, namespace: str, name: str) -> Obj | None:
        await self._called("get", kind, name)
        return copy.deepcopy(self.objects.get((kind, namespace, name)))

    async def apply(self, obj: Obj, *, sub: str = "") -> Obj:
        verb = f"apply {sub}".strip()
        await self._called(verb, obj["kind"], obj["metadata"]["name"])
        known = self.objects.get(_key(obj))
        asked = obj["metadata"].get("resourceVersion")
        if asked is not None and (known is None or known["metadata"]["resourceVersion"] != asked):
            raise KubeError(409, f"{_key(obj)}: the object has been modified")
        made = copy.deepcopy(obj)
        if sub:
            assert known is not None
            done = self._put({**known, "status": made["status"]})
        else:
            made["metadata"] = {**(known["metadata"] if known else {}), **made["metadata"]}
            done = self._put({**(known or {}), **made})
        while self.mute(verb, obj["kind"], obj["metadata"]["name"]):
            await asyncio.sleep(0.01)
        return done

    async def create(self, obj: Obj) -> Obj:
        await self._called("create", obj["kind"], obj["metadata"]["name"])
        if _key(obj) in self.objects:
            raise KubeError(409, f"{_key(obj)}: already exists")
        return self._put(copy.deepcopy(obj))

    async def replace(self, obj: Obj) -> Obj:
        await self._called("replace", obj["kind"], obj["metadata"]["name"])
        known = self.objects.get(_key(obj))
        if known is None:
            raise KubeError(404, f"{_key(obj)}: not found")
        if known["metadata"]["resourceVersion"] != obj["metadata"]["resourceVersion"]:
            raise KubeError(409, f"{_key(obj)}: the object has been modified")
        return self._put(copy.deepcopy(obj))

    async def delete(self, kind: str, namespace: str, name: str, uid: str = "") -> None:
        await self._called("delete", kind, name)
        self.drop(kind, name, namespace)

    def write(self, *objects: Obj) -> None:
        """Write as people do: a changed spec is another generation."""
        for obj in copy.deepcopy(objects):
            obj["metadata"].setdefault("namespace", SPACE)
            known = self.objects.get(_key(obj), {})
            meta = known.get("metadata", {"generation": 0})
            changed = obj.get("spec") != known.get("spec")
            obj["metadata"] = {**meta, **obj["metadata"]}
            obj["metadata"]["generation"] = meta.get("generation", 0) + changed
            self._put({**known, **obj})

    def drop(self, kind: str, name: str, namespace: str = SPACE) -> None:
        """Lose an object."""
        lost = self.objects.pop((kind, namespace, name), None)
        for cache in self.watchers if lost else ():
            cache.drop(_at(lost, next(self._versions)))

    def status(self, name: str = "assistant") -> Obj:
        """Return a route's status."""
        return self.objects["ModelRoute", SPACE, name].get("status") or {}

    def of(self, kind: str) -> list[Obj]:
        """Return all objects of a kind."""
        return [obj for key, obj in self.objects.items() if key[0] == kind]

    async def _called(self, verb: str, kind: str, name: str) -> None:
        self.calls.append((verb, kind, name))
        while self.waits(verb, kind, name):
            await asyncio.sleep(0.01)
        if status := self.fails(verb, kind, name):
            raise KubeError(status, f"{verb} {kind} {name}: refused")

    def _put(self, obj: Obj) -> Obj:
        obj = _at(obj, next(self._versions))
        kind, namespace, name = _key(obj)
        obj["metadata"].setdefault("uid", f"uid-{kind}-{namespace}-{name}")
        self.objects[kind, namespace, name] = obj
        for cache in self.watchers:
            cache.put(copy.deepcopy(obj))
        return copy.deepcopy(obj)


def _key(obj: Obj) -> tuple[str, str, str]:
    return obj["kind"], obj["metadata"].get("namespace", ""), obj["metadata"]["name"]


def _at(obj: Obj, version: int) -> Obj:
    return {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(version)}}


class Listener:
    """One router: what it holds, and what it reports. `deaf` takes no pushes."""

    def __init__(self, uid: str, start: int = 1) -> None:
        self.uid = uid
        self.start = start
        self.orders = Orders(self.problem)
        self.deaf = False
        self.silent = False
        self.sidecar = False
        self.refuses: Callable[[RoutePolicy], str] = lambda policy: ""
        self.trips: tuple[Trip, ...] = ()
        self.fields: dict[str, Any] = {}

    def problem(self, policy: RoutePolicy) -> str:
        return self.refuses(policy)

    @property
    def policy(self) -> RoutePolicy | None:
        """What it obeys of the one route."""
        return next((p for p in self.orders.policies if p.name == "assistant"), None)

    def report(self) -> Report:
        latched = self.policy.latched if self.policy else ()
        return Report(
            start=self.start,
            as_of_s=time.time(),
            acks=self.orders.acks,
            nacks=dict(self.orders.nacks),
            trips=tuple(t for t in self.trips if (t.revision, t.attempt) not in latched),
            **self.fields,
        )


class Air:
    """Stands for the feed: what is published reaches every router that listens at once."""

    def __init__(self, routers: Mapping[str, Listener], term: int) -> None:
        self.routers = routers
        self.term = term
        self.told: list[dict[str, Routed]] = []
        self.forgotten: list[str] = []
        self.on_report: Callable[[str], None] = lambda namespace: None

    def publish(
        self, namespace: str, routes: Mapping[str, Routed], limits: Mapping[str, Limits]
    ) -> None:
        if namespace != SPACE:
            return
        if not self.told or routes != self.told[-1]:
            self.told.append(dict(routes))
        self.reach()

    def reach(self) -> None:
        """Bring what was published last to whoever listens."""
        push = Push(term=self.term, complete=True, routes=self.told[-1], limits={})
        for router in self.routers.values():
            if not router.deaf and router.orders.push(push):
                self.on_report(SPACE)

    def connected(self, namespace: str) -> tuple[Connected, ...]:
        heard = [one for one in self.routers.values() if not one.silent and self.told]
        return tuple(
            Connected(
                pod_uid=one.uid,
                pod_name=one.uid,
                sidecar=one.sidecar,
                report=one.report(),
                seen_s=time.time(),
                alive=True,
            )
            for one in heard
            if namespace == SPACE
        )

    def forget(self, namespace: str) -> None:
        self.forgotten.append(namespace)

    def policies(self, key: str = KEY) -> list[RoutePolicy]:
        """Return what was told of a route, one after the other."""
        found: list[Routed] = []
        for routes in self.told:
            routed = routes.get(key)
            if routed is not None and routed.policy is not None and routed not in found:
                found.append(routed)
        versions = [routed.version for routed in found]
        assert versions == sorted(set(versions)), versions
        return [routed.policy for routed in found if routed.policy is not None]


class Operators:
    """One cluster and the operator's process in it, which may be killed and begun again.

    `frozen_s` is for how long the process stood still, by its own clock.
    """

    def __init__(self, *routers: str) -> None:
        self.api = Api()
        self.routers = {uid: Listener(uid) for uid in routers or ("r1",)}
        self.air = Air(self.routers, 0)
        self.walker: Walker | None = None
        self.frozen_s = 0.0
        for uid in self.routers:
            self.api.write(_pod(uid))

    def successor(self) -> "Operators":
        """Return another process beside this one, which hears and reaches nobody any more."""
        other = Operators(*self.routers)
        self.air.routers = {}
        other.api = copy.copy(self.api)
        other.api.watchers, other.api.waits = [], Api().waits
        other.routers = self.routers
        return other

    async def start(self) -> None:
        """Begin an operator's process: it has the lease, and nothing in its memory."""
        kube: Any = self.api
        self.leader = leader = Leader(
            kube,
            namespace="weir",
            name="weir-operator",
            identity="weir-operator-0",
            clock=lambda: time.monotonic() + self.frozen_s,
        )
        await leader.acquire()
        self.cache = cache = Cache(self.wake)
        self.air = Air(self.routers, leader.term)
        self.air.on_report = self.wake
        self.applier = Applier(
            kube,
            cache,
            leader=leader,
            routers=RouterSettings(image="weir:1", feed="weir-operator:8443"),
            workloads=WorkloadSettings(),
        )
        for obj in self.api.objects.values():
            if obj["metadata"].get("namespace") == SPACE and obj["kind"] != "Event":
                cache.put(copy.deepcopy(obj))
        self.api.watchers = [cache]
        air: Any = self.air
        self.walker = Walker(
            kube=kube,
            cache=cache,
            feed=air,
            leader=leader,
            applier=self.applier,
            max_routers=10,
            clock=time.time,
        )
        self.wake(SPACE)

    async def kill(self) -> None:
        """End the process as a crash does: nothing more is written."""
        self.api.watchers = []
        if self.walker is not None:
            walker, self.walker = self.walker, None
            await walker.stop()

    def wake(self, namespace: str) -> None:
        if self.walker is not None:
            self.walker.wake(namespace)

    @property
    def told(self) -> list[RoutePolicy]:
        """What this process told of the one route."""
        return self.air.policies()

    def events(self) -> list[str]:
        """Return the reasons of all Events."""
        return [obj["reason"] for obj in self.api.of("Event")]

    def condition(self, kind: str, name: str = "assistant") -> Obj:
        """Return a condition of a route."""
        conditions = self.api.status(name).get("conditions") or ()
        return next((one for one in conditions if one["type"] == kind), {})

    async def serving(self, *, steps: Any = None) -> None:
        """Begin with a route whose first revision every router obeys."""
        self.api.write(backend(), routed("30s", steps=steps))
        await self.start()
        await until(lambda: self.condition("Programmed").get("status") == "True")

    async def canary(self, deadline: str = "20s") -> RoutePolicy:
        """Let a change in until it has its first traffic; return what routers obey."""
        self.api.write(routed(deadline))
        await until(lambda: self.weight() > 0)
        await until(lambda: (self.api.status().get("weight") or {}).get("set") == "5%")
        found = self.told[-1]
        assert found.canary is not None
        return found

    def weight(self) -> int:
        """Return the greatest share of a canary at any router."""
        return max(one.policy.weight_bp if one.policy else 0 for one in self.routers.values())


@contextlib.asynccontextmanager
async def operators(*routers: str) -> AsyncIterator[Operators]:
    """Give a cluster; afterwards its operator ends."""
    found = Operators(*routers)
    try:
        yield found
    finally:
        await found.kill()


def routed(deadline: str, *, steps: Any = None, name: str = "assistant", **rollout: Any) -> Obj:
    """Return a route of one external backend; another deadline is another behaviour."""
    made = route(name, deadline=deadline)
    made["spec"]["rollout"] = {"steps": steps or STEPS, **rollout}
    return made


def order(ring: Operators, verb: str, revision: str) -> None:
    """Give a command by the route's annotation, now."""
    obj = ring.api.objects["ModelRoute", SPACE, "assistant"]
    text = {"inference.weir.dev/command": f"{verb}@{revision}#{time.time():.3f}"}
    ring.api.write({**obj, "metadata": {**obj["metadata"], "annotations": text}})


async def until(test: Callable[[], Any], within_s: float = 10.0) -> Any:
    """Wait until something is so. Raises AssertionError when it does not come."""
    end_s = time.monotonic() + within_s
    while not (found := test()):
        assert time.monotonic() < end_s, "it did not come"
        await asyncio.sleep(0.01)
    return found


def trip_of(policy: RoutePolicy) -> Trip:
    """Return a trip of a router's brake, of now."""
    return trip(policy, at_s=time.time())


def _pod(uid: str) -> Obj:
    made: Obj = router_pod(uid)
    made["metadata"]["uid"] = uid
    return made
