"""A snapshot made ready for serving: compiled rules, asks, and which route a model name means.

Built off the hot path whenever a snapshot arrives; a request keeps the route it started with.
"""

from collections.abc import Iterable, Sequence

import msgspec

from weir_core.evidence import CANARY, STABLE
from weir_core.routing import Rules
from weir_core.snapshot import (
    Audits,
    Backend,
    Behaviour,
    Objective,
    Revision,
    RoutePolicy,
    Snapshot,
)
from weir_router import verify
from weir_router.dialect import Ask

ARM_NAMES = ("stable", "canary")


class Arm:
    """One revision of a route, compiled."""

    __slots__ = ("_asks", "_logprobs", "behaviour", "name", "revision", "rules")

    def __init__(self, name: str, revision: Revision) -> None:
        self.name = name
        self.revision = revision.name
        self.behaviour: Behaviour = revision.behaviour
        self.rules = Rules(revision.behaviour)
        self._logprobs = tuple(
            verify.logprobs_wanted(tier.accept) for tier in revision.behaviour.tiers
        )
        self._asks: dict[tuple[int, str, int, bool], Ask] = {}

    def ask(self, tier: int, backend: Backend, *, max_tokens: int, stream: bool) -> Ask:
        """Return how a request is changed for a call of `tier` to `backend`.

        Logprobs are asked only of the tier's own backend, for a calibration is of one model, and
        not of a stream that goes out unverified, where nobody would take them out again.
        """
        key = (tier, backend.identity, max_tokens, stream)
        found = self._asks.get(key)
        if found is None:
            wanted = self.behaviour.tiers[tier]
            own = backend.identity == wanted.backend.identity
            verified = not (stream and self.behaviour.commit == "FirstToken")
            found = Ask(
                model=backend.model,
                system_prompt=wanted.system_prompt,
                max_tokens=max_tokens,
                logprobs=self._logprobs[tier] if own and verified else -1,
                stream=stream,
            )
            if len(self._asks) < 64:
                self._asks[key] = found
        return found


class Route:
    """One route as requests meet it. `arms` is (stable, canary or None)."""

    __slots__ = ("arms", "audits", "header", "key", "objectives", "policy")

    def __init__(self, policy: RoutePolicy, stable: Arm, canary: Arm | None) -> None:
        self.policy = policy
        self.key = f"{policy.namespace}/{policy.name}"
        self.arms = (stable, canary)
        self.header = policy.rollout.header.lower().encode()
        self.audits: Audits | None = policy.monitoring.audits
        self.objectives: tuple[Objective, ...] = policy.monitoring.objectives

    @property
    def in_rollout(self) -> bool:
        """Whether requests are being drawn for a canary."""
        return self.arms[CANARY] is not None and self.policy.weight_bp > 0

    def arm(self, position: int) -> Arm:
        """Return the compiled arm; the canary only while there is one."""
        arm = self.arms[position]
        assert arm is not None
        return arm

    def audit_bp(self) -> int:
        """Return the share of requests to audit now, in basis points."""
        if self.audits is None:
            return 0
        if self.in_rollout and self.audits.during_rollout_bp:
            return self.audits.during_rollout_bp
        return self.audits.percent_bp


class Table:
    """Every route of one snapshot, by model name."""

    def __init__(self, snapshot: Snapshot, routes: Sequence[Route]) -> None:
        self.snapshot = snapshot
        self.routes = {route.key: route for route in routes}
        # Of two routes that serve one name (the last good form of one) the first keeps it.
        self.by_model = {
            name: route for route in reversed(routes) for name in route.policy.model_names
        }
        self._arms: dict[tuple[str, str, str], Arm] = {
            (route.policy.uid, arm.name, arm.revision): arm
            for route in routes
            for arm in route.arms
            if arm is not None
        }

    def backends(self) -> dict[str, Backend]:
        """Return every backend that any revision of any route may call, by identity."""
        found: dict[str, Backend] = {}
        for route in self.routes.values():
            for arm in route.arms:
                if arm is not None:
                    called = [tier.backend for tier in arm.behaviour.tiers]
                    called += arm.behaviour.fallback
                    found.update((backend.identity, backend) for backend in called)
        return found

    def next(self, snapshot: Snapshot, latched: Iterable[tuple[str, str, int]]) -> "Table":
        """Return the table of a newer snapshot; what is unchanged is not compiled again.

        `latched` are (route uid, revision, attempt) that this router's brake has stopped: no
        snapshot raises them again.
        """
        stopped = set(latched)
        routes = []
        for policy in snapshot.routes:
            canary = policy.canary
            if canary is not None and (policy.uid, canary.name, policy.attempt) in stopped:
                policy = msgspec.structs.replace(policy, weight_bp=0)
            known = self.routes.get(f"{policy.namespace}/{policy.name}")
            if known is not None and known.policy == policy:
                routes.append(known)
                continue
            stable = self._arm(policy, STABLE, policy.stable)
            routes.append(
                Route(policy, stable, (canary and self._arm(policy, CANARY, canary)) or None)
            )
        return Table(snapshot, routes)

    def _arm(self, policy: RoutePolicy, position: int, revision: Revision) -> Arm:
        name = ARM_NAMES[position]
        known = self._arms.get((policy.uid, name, revision.name))
        same = known is not None and known.behaviour == revision.behaviour
        return known if known is not None and same else Arm(name, revision)


def empty() -> Table:
    """Return a table without routes: what a router has before its first snapshot."""
    return Table(Snapshot(), ())
