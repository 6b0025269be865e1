"""Which version of each route this router holds: the greatest that it could take.

Fed by pushes and by the mounted snapshot. A route that cannot be taken keeps its last good form.
What an earlier start of this router obeyed later than an order that comes now caps its canary:
a mounted snapshot may be old, and must not raise what was lowered since. It refuses to know how
orders travel (`feed`) and what the router makes of them (`obedience`).
"""

from collections.abc import Callable, Mapping

from weir_core.snapshot import Limits, RoutePolicy
from weir_core.wire import Nack, Packed, Push, Routed, Version
from weir_router.past import Obeyed, capped, newest

MAX_GONE = 10_000
"""Routes that are gone and whose last version is remembered."""


class OldTermError(Exception):
    """A push of an operator that is no longer the leader."""


class Orders:
    """Versions, last good policies and refusals by route key; limits by backend identity.

    `before` is what an earlier start of this router obeyed, by route key.
    """

    def __init__(
        self, problem: Callable[[RoutePolicy], str], before: Mapping[str, Obeyed] | None = None
    ) -> None:
        self._problem = problem
        self._before = dict(before or {})
        self._held: dict[str, tuple[Version, RoutePolicy]] = {}
        self._gone: dict[str, Version] = {}
        self._term = 0
        self.nacks: dict[str, Nack] = {}
        self.limits: dict[str, Limits] = {}
        self.any = False

    @property
    def policies(self) -> tuple[RoutePolicy, ...]:
        """All routes to serve, by key."""
        return tuple(self._held[key][1] for key in sorted(self._held))

    @property
    def acks(self) -> dict[str, Version]:
        """The versions that are obeyed; of a route whose canary an earlier start caps, its own.

        But for a route whose stable has changed since: nobody may think that the new one serves.
        """
        return {key: self._at(key, version) for key, (version, _) in self._held.items()}

    @property
    def obeyed(self) -> dict[str, Obeyed]:
        """What a later start of this router must know."""
        held = {key: Obeyed.of(version, policy) for key, (version, policy) in self._held.items()}
        return newest({**held, **self._before})

    def push(self, push: Push) -> bool:
        """Take a push; return whether anything changed. Raises OldTermError before it does."""
        if push.term < self._term:
            raise OldTermError(f"saw a push of term {push.term}, wanted {self._term} or later")
        self._term = push.term
        changed = self._take(push.routes)
        if push.complete:
            self.any = True
            for key in [key for key in self._held if key not in push.routes]:
                changed |= self._drop(key, self._at(key, self._held[key][0]))
            for key in [key for key in self.nacks if key not in push.routes]:
                del self.nacks[key]
            self._before = {k: one for k, one in self._before.items() if k in push.routes}
        if push.limits is not None and push.limits != self.limits:
            self.limits, changed = push.limits, True
        return changed

    def mount(self, packed: Packed) -> bool:
        """Take what a mounted snapshot has beyond this; it may be old, so it drops nothing."""
        changed = self._take(packed.routes)
        if not self.any:
            self.any, self.limits, changed = True, packed.limits, True
        return changed

    def _take(self, routes: Mapping[str, Routed]) -> bool:
        changed = False
        for key, routed in routes.items():
            changed |= self._take_one(key, routed)
        return changed

    def _take_one(self, key: str, routed: Routed) -> bool:
        held = self._held[key][0] if key in self._held else self._gone.get(key)
        is_newer = held is None or routed.version > held
        if routed.policy is None and not routed.unreadable:
            return (is_newer or routed.version == held) and self._drop(key, routed.version)
        if not is_newer:
            return False
        why = routed.unreadable or self._refusal(key, routed.policy)
        if why or routed.policy is None:
            nack = Nack(routed.version, why)
            changed = self.nacks.get(key) != nack
            self.nacks[key] = nack
            return changed
        self.nacks.pop(key, None)
        self._gone.pop(key, None)
        before = self._before.get(key)
        if before is not None and routed.version < before.version:
            self._held[key] = (routed.version, capped(routed.policy, before))
        else:
            self._before.pop(key, None)
            self._held[key] = (routed.version, routed.policy)
        return True

    def _at(self, key: str, version: Version) -> Version:
        before = self._before.get(key)
        if before is None or before.stable != self._held[key][1].stable.name:
            return version
        return before.version

    def _refusal(self, key: str, policy: RoutePolicy | None) -> str:
        assert policy is not None
        name = f"{policy.namespace}/{policy.name}"
        return self._problem(policy) if name == key else f"saw route {name}, wanted {key}"

    def _drop(self, key: str, version: Version) -> bool:
        self.nacks.pop(key, None)
        self._before.pop(key, None)
        self._gone[key] = version
        if len(self._gone) > MAX_GONE:
            self._gone.pop(next(iter(self._gone)))
        return self._held.pop(key, None) is not None
