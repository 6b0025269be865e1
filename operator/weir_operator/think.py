"""From a namespace as it is to what each route does next: evidence, rollout, policy, status.

Pure but for the memories it advances: no API call, no clock. The same core functions that a
standalone router runs every 100 ms. It refuses to know in which order things are written
(`walk`) and what runs the models (`backends`).
"""

import logging
from typing import Any, Literal

import msgspec
from msgspec.structs import replace

from weir_core import reasons
from weir_core.compile import Compiled, CompiledRoute, compile_world
from weir_core.errors import Problem
from weir_core.evidence import Judgement, Key, Merged, Trip
from weir_core.merging import fits, merge, retire
from weir_core.outlook import marked, measured_bp
from weir_core.policies import monitoring_of, rollout_of
from weir_core.reach import LOADING, NOT_READY
from weir_core.resources import title_of_object
from weir_core.rollout import (
    Inputs,
    RolloutState,
    Transition,
    advance,
    effective_alpha,
    evidence_key,
    policy_for,
    weight_order,
)
from weir_core.rollout_state import tried
from weir_core.sequential import fingerprint, horizon_s, judge
from weir_core.snapshot import Monitoring, RolloutPolicy, RoutePolicy
from weir_core.status import Observed, route_status
from weir_core.wire import Version
from weir_operator.backends import capacity_of, replicas, unready
from weir_operator.gather import World, clock_off_s
from weir_operator.memory import NEVER, RouteMemory, heeded, recall, records_of, text_of
from weir_operator.publish import kept, lowers
from weir_operator.trouble import newly_ready
from weir_operator.wishes import asked

Obj = dict[str, Any]
log = logging.getLogger("weir.operator")

OPERATOR_SHARE, ROUTERS_SHARE = 0.8, 0.2
"""Of α: the operator judges merged counts at one, each router its own at its part of the other."""

GONE_S = 3_600.0
"""A boot that is not heard for this long is gone: sidecars' pods are not ours to watch."""


class Thought(msgspec.Struct, frozen=True, kw_only=True):
    """What one route does next, thought from the state `base`.

    `policy` None: no revision may serve yet. `order` is that of `weight_order`.
    """

    name: str
    base: RolloutState
    state: RolloutState
    order: Literal["raise", "lower", "same"]
    transitions: tuple[Transition, ...]
    policy: RoutePolicy | None
    observed: Observed


class Thinker:
    """Holds the memories of one namespace's routes and advances them."""

    def __init__(self, *, max_routers: int) -> None:
        self._max_routers = max_routers
        self.memories: dict[str, RouteMemory] = {}

    def remember(self, world: World) -> set[str]:
        """Have a memory of each route that is there, and take over what somebody else wrote.

        A stored state that was wiped is not taken: the memory is the truth then. Returns the
        routes of which somebody else rolled a revision back.
        """
        for name, obj in world.routes.items():
            known, status = self.memories.get(name), obj.get("status") or {}
            is_same = known is not None and known.uid == obj["metadata"]["uid"]
            if known is not None and is_same and known.knows(text_of(status)):
                continue
            found = recall(status, records_of(revisions_of(world, name)))
            if known is not None and is_same:
                log.warning("status of another taken over", extra={"route": title_of_object(obj)})
                known.take_over(found)
                continue
            found.uid = obj["metadata"]["uid"]
            if known is not None and known.published is not None:
                found.told(known.published, known.version)
            self.memories[name] = found
        for name in [name for name in self.memories if name not in world.routes]:
            del self.memories[name]
        return heeded(self.memories, world.revisions.values())

    def compiled(self, world: World) -> Compiled:
        """Compile the namespace against the revisions that have a name already."""
        unread = [name for name in world.routes if world.route(name) is None]
        invalid = {problem.object for problem in world.problems}
        return compile_world(
            world.read.values(),
            cluster=True,
            known={
                f"{world.namespace}/{name}": tuple(r.revision for r in memory.state.records)
                for name, memory in self.memories.items()
            },
            place=lambda title, field: "" if title in invalid else None,
            claimed={
                f"{world.namespace}/{model}": f"{world.namespace}/{name}"
                for name in unread
                for model in _served(self.memories[name])
            },
        )

    def think(self, world: World, compiled: Compiled, name: str, *, now_s: float) -> Thought:
        """Return what a route does next; its evidence is remembered, its state is not yet."""
        memory = self.memories[name]
        key = f"{world.namespace}/{name}"
        target = compiled.routes.get(key)
        told = _told(world, memory, target, name)
        objectives = fingerprint(told.monitoring)
        about = evidence_key(memory.state, route_uid=told.uid, objectives=objectives)
        judgement = self._judged(world, memory, told, about, now_s)
        capacity = capacity_of(world, memory.state, target.revision if target else None)
        acked = _acked(world, key)
        in_sync = _in_sync(memory, acked)
        state, command = asked(world, memory, name, now_s)
        off_s = clock_off_s(world)
        inputs = Inputs(
            target=target.revision if target else None,
            policy=told.rollout,
            objectives=objectives,
            judgement=judgement,
            judged=about,
            trips=_trips(world, told.uid),
            command=command,
            unclean_boots=_unclean(world, memory),
            routers_in_sync=bool(world.routers)
            and in_sync == len(world.routers)
            and not memory.resuming,
            capacity_bp=capacity.weight_bp,
            capacity_message=capacity.message,
            capacity_loads=capacity.loads,
            clock_off_s=off_s or 0.0,
            clock_known=off_s is not None,
        )
        done = advance(state, inputs, now_s=now_s)
        if self._hides_a_lowering(memory, told, done.state):
            # Routers are out of sync with the lowering, which has to reach them first.
            done = advance(state, replace(inputs, routers_in_sync=False), now_s=now_s)
        if about is None or (about.revision, about.attempt) != tried(done.state):
            judgement = None  # Of the canary before.
        weight_bp = done.state.weight_bp
        observed = Observed(
            policy=told.rollout,
            target=target.revision.name if target else "",
            generation=int(world.routes[name]["metadata"].get("generation", 0)),
            routers=len(world.routers),
            routers_serving=_serving(world, memory, acked, now_s),
            routers_in_sync=in_sync,
            judgement=judgement,
            problems=(*_problems(world, compiled, name), *_refusals(world, memory, name)),
            objectives=told.monitoring.objectives,
            actual_weight_bp=measured_bp(memory.marks, judgement, about, weight_bp=weight_bp),
            ejected=_out(world, done.state, now_s),
            capacity_message=capacity.message,
            clock_off_s=inputs.clock_off_s,
        )
        return Thought(
            name=name,
            base=memory.state,
            state=done.state,
            order=weight_order(memory.state, done.state),
            transitions=done.transitions,
            policy=_policy(done.state, told, self._max_routers),
            observed=observed,
        )

    def _hides_a_lowering(self, memory: RouteMemory, told: "_Told", state: RolloutState) -> bool:
        """Return whether a raise would come with something that must not wait for its write."""
        held = memory.published
        if held is None or weight_order(memory.state, state) != "raise":
            return False
        return lowers(held, kept(held, _policy(state, told, self._max_routers)))

    def status(self, thought: Thought, *, now_s: float) -> Obj:
        """Return the route's status, dated against the one before."""
        memory = self.memories[thought.name]
        return route_status(thought.state, thought.observed, now_s=now_s, old=memory.status)

    def _judged(
        self, world: World, memory: RouteMemory, told: "_Told", about: Key | None, now_s: float
    ) -> Judgement | None:
        """Merge what the routers report of the canary under way, and judge it."""
        memory.judged, memory.judgement = about, None
        policy = _policy(memory.state, told, self._max_routers)
        if about is None or policy is None:
            return None
        horizon, objectives = horizon_s(policy), told.monitoring.objectives
        if memory.key != about or memory.objectives not in (None, len(objectives)):
            memory.key, memory.merged, memory.vanished = about, Merged(), {}
        memory.objectives = len(objectives)
        tallies = [
            tally
            for router in world.connected
            for tally in router.report.tallies
            if tally.key == about and fits(tally, len(objectives))
        ]
        memory.merged = merge(tallies, memory.merged)
        _retire_vanished(world, memory, horizon, now_s)
        alpha = effective_alpha(told.rollout, memory.state.attempt, restarts=memory.state.restarts)
        memory.judgement = judge(
            memory.merged,
            objectives,
            alpha=OPERATOR_SHARE * alpha,
            promote_alpha=told.rollout.promote_alpha,
            promote_ratio=told.rollout.promote_ratio,
            now_s=now_s,
            horizon_s=horizon,
        )
        given = (about, memory.state.weight_bp)
        memory.marks = marked(memory.marks, given, memory.judgement.assigned, now_s)
        return memory.judgement


class _Told(msgspec.Struct, frozen=True, kw_only=True):
    """What a route wants that is not versioned; of a broken route, what it wanted last."""

    uid: str
    namespace: str
    name: str
    model_names: tuple[str, ...]
    monitoring: Monitoring
    rollout: RolloutPolicy


def _told(world: World, memory: RouteMemory, target: CompiledRoute | None, name: str) -> _Told:
    last = target or memory.published
    spec = world.route(name)
    if last is not None:
        names, monitoring, rollout = last.model_names, last.monitoring, last.rollout
    elif spec is not None:
        names = spec.spec.model_names
        monitoring, rollout = monitoring_of(spec.spec.monitoring), rollout_of(spec.spec.rollout)
    else:
        names, monitoring, rollout = (), Monitoring(), RolloutPolicy()
    return _Told(
        uid=world.routes[name]["metadata"]["uid"],
        namespace=world.namespace,
        name=name,
        model_names=names,
        monitoring=monitoring,
        rollout=rollout,
    )


def _policy(state: RolloutState, told: _Told, max_routers: int) -> RoutePolicy | None:
    """Return what routers should obey; None where that is not known, of a broken route too."""
    if not told.model_names:
        return None
    alpha = effective_alpha(told.rollout, state.attempt, restarts=state.restarts)
    return policy_for(
        state,
        uid=told.uid,
        namespace=told.namespace,
        name=told.name,
        model_names=told.model_names,
        monitoring=told.monitoring,
        rollout=told.rollout,
        brake_alpha=ROUTERS_SHARE * alpha / max_routers,
    )


def revisions_of(world: World, route: str) -> list[Obj]:
    """Return the ModelRevision objects that are of a route by name, whatever its uid."""
    return [
        obj
        for obj in world.revisions.values()
        if (obj.get("spec") or {}).get("kind") == "Route"
        and ((obj.get("spec") or {}).get("of") or {}).get("name") == route
        and not obj["metadata"].get("deletionTimestamp")
    ]


def _served(memory: RouteMemory) -> tuple[str, ...]:
    return memory.published.model_names if memory.published else ()


def _retire_vanished(world: World, memory: RouteMemory, horizon_s: int, now_s: float) -> None:
    """Fold boots into the sum that are over for longer than anything of theirs is open.

    Over are those whose pod is gone, and those whose pod has reported a later start.
    """
    starts = {router.pod_uid: router.report.start for router in world.connected}
    for tally in memory.merged.tallies:
        boot = (tally.router, tally.boot)
        start = starts.get(tally.router)
        began_again = start is not None and tally.boot != str(start)
        if not began_again and (start is not None or tally.router in world.pods):
            memory.vanished.pop(boot, None)
            continue
        wait_s = horizon_s if began_again else max(horizon_s, GONE_S)
        if now_s - memory.vanished.setdefault(boot, now_s) > wait_s:
            memory.merged = retire(memory.merged, *boot, horizon_s=horizon_s)
            del memory.vanished[boot]


def _acked(world: World, key: str) -> list[Version]:
    """Return which version of a route each ready router obeys that is heard."""
    return [
        router.report.acks.get(key, NEVER)
        for router in world.connected
        if router.alive and not router.sidecar and router.pod_uid in world.routers
    ]


def _serving(world: World, memory: RouteMemory, acked: list[Version], now_s: float) -> int:
    """Return how many ready routers obey any version of a route.

    After a restart that is taken from the snapshot in the cluster until they had their time.
    """
    if memory.resuming and memory.stood != NEVER and not memory.overdue(now_s):
        return len(world.routers)
    return sum(version != NEVER for version in acked)


def _in_sync(memory: RouteMemory, acked: list[Version]) -> int:
    """Return how many routers obey what was published last, if that is what is wanted."""
    if memory.refused_by or memory.version == NEVER:
        return 0
    return sum(version == memory.version for version in acked)


def _out(world: World, state: RolloutState, now_s: float) -> dict[str, str]:
    """Return why nobody is answered, by identity; pods tell more than what routers meet there."""
    met = {
        one: LOADING if replicas(world, one)[0] and newly_ready(world, one, now_s=now_s) else why
        for one, why in _ejected(world).items()
    }
    lacked = unready(world, state).items()
    return met | {one: why for one, why in lacked if why != NOT_READY or one not in met}


def _ejected(world: World) -> dict[str, str]:
    """Return the backends that every ready router has taken out, and one's reason for each."""
    told = [
        router.report.ejected
        for router in world.connected
        if router.alive and router.pod_uid in world.routers
    ]
    if not told:
        return {}
    everywhere = set(told[0]).intersection(*told[1:])
    return {identity: told[0][identity] for identity in sorted(everywhere)}


def _trips(world: World, uid: str) -> tuple[Trip, ...]:
    return tuple(t for r in world.connected for t in r.report.trips if t.route_uid == uid)


def _unclean(world: World, memory: RouteMemory) -> int:
    routers = [one for one in world.connected if not one.sidecar]
    return memory.deaths({one.pod_uid: one.report.unclean for one in routers}, world.pods)


def _problems(world: World, compiled: Compiled, name: str) -> tuple[Problem, ...]:
    title = f"ModelRoute {world.namespace}/{name}"
    everything = (*world.problems, *compiled.problems)
    return tuple(problem for problem in everything if problem.object == title)


def _refusals(world: World, memory: RouteMemory, name: str) -> tuple[Problem, ...]:
    """Return that routers refuse what is wanted, and why one of them does."""
    if not memory.refused_by:
        return ()
    return (
        Problem(
            object=f"ModelRoute {world.namespace}/{name}",
            field="",
            seen=f"that {len(memory.refused_by)} routers refuse it: {memory.refusal}",
            wanted="what every router can obey: change the spec, or bring routers and operator "
            "to one release",
            reason=reasons.ROUTERS_REFUSE,
            condition="Programmed",
        ),
    )
