"""What routers are told of each route: versions that grow, and never a raise before its time.

A raise is told when the cluster knows of it. After a restart no more is told than routers obeyed
before, until every ready one was heard; what they refuse is lowered in the form that they have.
It refuses to know what a route should do (`think`) and how messages travel (`feed`).
"""

from collections.abc import Mapping

from msgspec.structs import replace

from weir_core.rollout import braked
from weir_core.snapshot import Limits, RoutePolicy
from weir_core.wire import Version
from weir_operator.feed import Feed
from weir_operator.gather import World
from weir_operator.inbox import Connected
from weir_operator.leader import Leader
from weir_operator.memory import NEVER, RouteMemory


def kept(held: RoutePolicy, wanted: RoutePolicy | None) -> RoutePolicy:
    """Return what is held with all that `wanted` lowers, and nothing else of it."""
    return braked(
        replace(held, weight_bp=_share(held, wanted)), wanted.latched if wanted is not None else ()
    )


def lowered(held: RoutePolicy, wanted: RoutePolicy | None) -> RoutePolicy:
    """Return what is wanted as far as it raises nothing that is held."""
    if wanted is None or wanted.stable.name != held.stable.name:
        return kept(held, wanted)
    same = _canary(held) == _canary(wanted)
    weight_bp = min(held.weight_bp, wanted.weight_bp) if same else 0
    return braked(replace(wanted, weight_bp=weight_bp), held.latched)


def lowers(held: RoutePolicy, other: RoutePolicy) -> bool:
    """Return whether `other`, which raises nothing, takes anything away from a canary."""
    return other.weight_bp < held.weight_bp or not set(other.latched) <= set(held.latched)


def _share(held: RoutePolicy, wanted: RoutePolicy | None) -> int:
    if held.canary is None or wanted is None:
        return 0
    if _canary(held) == _canary(wanted):
        return min(held.weight_bp, wanted.weight_bp)
    return held.weight_bp if wanted.stable.name == held.canary.name else 0


def _canary(policy: RoutePolicy) -> tuple[str, int] | None:
    return (policy.canary.name, policy.attempt) if policy.canary is not None else None


class Publisher:
    """Gives versions under one leader's term, and hands the feed what is told."""

    def __init__(self, feed: Feed, leader: Leader) -> None:
        self._feed = feed
        self._leader = leader
        self._number = 0

    def tell(self, world: World, memory: RouteMemory, key: str, *, now_s: float) -> None:
        """Have routers told what the route's state wants, as far as that may be told now."""
        if memory.resuming:
            policy = self._resumed(world, memory, key, now_s)
        else:
            policy = _taken(world, memory, key)
        if policy is None and memory.published is not None:
            policy = kept(memory.published, None)
        if policy is not None and (policy != memory.published or memory.version == NEVER):
            self._number_anew(memory, policy)

    def lower(self, memory: RouteMemory, wanted: RoutePolicy | None) -> None:
        """Have routers told what a raise that is not saved yet takes away."""
        if memory.published is not None:
            policy = kept(memory.published, wanted)
            if lowers(memory.published, policy):
                self._number_anew(memory, policy)

    def publish(
        self, namespace: str, memories: Mapping[str, RouteMemory], limits: Mapping[str, Limits]
    ) -> None:
        """Hand a namespace's routes to the feed."""
        routes = {f"{namespace}/{name}": memory.routed for name, memory in memories.items()}
        self._feed.publish(namespace, routes, limits)

    def _number_anew(self, memory: RouteMemory, policy: RoutePolicy) -> None:
        self._number += 1
        memory.told(policy, (self._leader.term, self._number))

    def _resumed(
        self, world: World, memory: RouteMemory, key: str, now_s: float
    ) -> RoutePolicy | None:
        """Return what may be told before it is known what routers obey.

        What the snapshot says is told under its own version: routers that obey a later one keep
        that. So a lowering of just before a crash is not undone. Anything else is told without
        traffic for the canary until every ready router was heard.
        """
        wanted, held = memory.goal, memory.published
        if memory.resuming_since_s is None:
            memory.resuming_since_s = now_s
        if held is None:
            # No snapshot knows this canary.
            return replace(wanted, weight_bp=0) if wanted is not None else None
        capped = lowered(held, wanted)
        if wanted is not None and capped == held and _answered(world, memory.version, key):
            memory.resuming = False
            return wanted
        is_ours = memory.version != memory.stood
        heard = {one.pod_uid for one in world.connected if one.alive}
        is_heard = world.routers <= heard
        if not is_ours and not is_heard and not memory.overdue(now_s) and not lowers(held, capped):
            return held
        if not is_ours and (capped != held or not _at(world, memory.version, key)):
            # Some router obeys something else: from here on all obey the same.
            memory.version = NEVER
            if not is_heard:
                # It may have been lowered for what only an unheard router knows.
                capped = replace(capped, weight_bp=0)
        return capped


def _at(world: World, version: Version, key: str) -> bool:
    """Return whether every ready router that was heard has this version."""
    return all(
        version in (one.report.acks.get(key), _refused(one, key))
        for one in world.connected
        if one.alive and one.pod_uid in world.routers
    )


def _answered(world: World, version: Version, key: str) -> bool:
    """Return whether every ready router, and there is one, has taken or refused a version."""
    heard = {one.pod_uid for one in world.connected if one.alive}
    return bool(world.routers) and world.routers <= heard and _at(world, version, key)


def _refused(router: Connected, key: str) -> Version | None:
    nack = router.report.nacks.get(key)
    return nack.version if nack is not None else None


def _taken(world: World, memory: RouteMemory, key: str) -> RoutePolicy | None:
    """Return what is wanted, or where routers refuse that: what they have, lowered alike.

    Each form that a router has is tried once, and what is wanted when those that refused it went
    or started anew.
    """
    goal = memory.goal
    alive = {(one.pod_uid, one.report.start): one for one in world.connected if one.alive}
    refusers = {boot: one for boot, one in alive.items() if _refuses(one, key, memory.version)}
    still = memory.refused_by & alive.keys()
    if goal != memory.refused or not (still or refusers):
        memory.refused, memory.refused_by, memory.tried = None, frozenset(), frozenset()
    if refusers:
        memory.refused, memory.refused_by = goal, still | refusers.keys()
        first = refusers[min(refusers)]
        memory.refusal = f"{first.pod_name}: {first.report.nacks[key].reason}"
    for boot in sorted(refusers):
        at = refusers[boot].report.acks.get(key, NEVER)
        held = memory.sent.get(at) if at not in memory.tried else None
        memory.tried |= {at}
        step = kept(held, goal) if held is not None else None
        if held is not None and step is not None and lowers(held, step):
            return step
    return memory.published if memory.refused_by else goal


def _refuses(router: Connected, key: str, version: Version) -> bool:
    """Return whether a router of the Deployment refuses; a sidecar that does stops its canary."""
    return not router.sidecar and _refused(router, key) == version
