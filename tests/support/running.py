"""A real router behind its real front door, in a test's loop; nothing stands between but TCP."""

import contextlib
import itertools
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from support.http_door import serving
from support.routes import policy as a_policy
from support.upstream import Script, Upstream, upstream
from weir_core.evidence import Trip
from weir_core.snapshot import Backend, Behaviour, Check, Revision, RoutePolicy, Snapshot, Tier
from weir_router import app
from weir_router.clock import steady_clock
from weir_router.ledger import Ledger
from weir_router.load import Bounds
from weir_router.serve import Router
from weir_router.telemetry import Metrics
from weir_router.upstreams import Keys, Upstreams


class Idle:
    """A control loop that does nothing: the router serves what it was told."""

    def ready(self) -> str:
        """Return that it is ready."""
        return ""


@dataclass
class Running:
    """A router that listens."""

    router: Router
    port: int
    trips: list[Trip] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Base URL as OpenAI clients take it."""
        return f"http://127.0.0.1:{self.port}/v1"

    def obey(self, *policies: RoutePolicy) -> None:
        """Give the router a newer snapshot of these routes."""
        term, number = self.router.table.snapshot.version
        self.router.apply(Snapshot(version=(term, number + 1), routes=policies))


@contextlib.asynccontextmanager
async def running(
    *policies: RoutePolicy,
    coin: Callable[[], float] | None = None,
    bounds: Bounds | None = None,
    clock: Callable[[], float] | None = None,
) -> AsyncIterator[Running]:
    """Run a router with these routes for the time of a test."""
    trips: list[Trip] = []
    upstreams = Upstreams(Keys(None))
    router = Router(
        name="test",
        ledger=Ledger(router="test", boot="boot-1"),
        upstreams=upstreams,
        metrics=Metrics(),
        clock=clock or steady_clock(),
        coin=coin or (lambda: 0.5),
        bounds=bounds or Bounds(),
        on_trip=trips.append,
    )
    handlers = {b"/v1/chat/completions": router.chat, b"/v1/completions": router.completion}
    control: Any = Idle()
    async with serving(handlers, app=app.public(router, control)) as served:
        one = Running(router, served.port, trips)
        one.obey(*policies)
        try:
            yield one
        finally:
            await router.auditor.drain()
            upstreams.close()


def backend(name: str, up: Upstream, **facts: Any) -> Backend:
    """Return a backend that is this upstream."""
    return Backend(name=name, identity=f"{name}-{up.port}", url=up.url, model=name, **facts)


def two_tiers(
    small: Upstream, large: Upstream, *, accept: tuple[Check, ...] = (), **changes: Any
) -> Behaviour:
    """Return small with these checks (Finish when none is given), then large."""
    checks = accept or (Check(name="whole", type="Finish"),)
    fields: dict[str, Any] = {
        "deadline_ms": 5_000,
        "max_attempts": 4,
        "tiers": (
            Tier(name="small", backend=backend("small", small), accept=checks),
            Tier(name="large", backend=backend("large", large)),
        ),
    }
    return Behaviour(**(fields | changes))


def revision(name: str, behaviour: Behaviour) -> Revision:
    """Return a revision of this behaviour."""
    return Revision(name=name, behaviour=behaviour, content=name)


@contextlib.asynccontextmanager
async def two_upstreams(
    small: Callable[[dict[str, Any]], Script], large: Callable[[dict[str, Any]], Script]
) -> AsyncIterator[tuple[Upstream, Upstream]]:
    """Run a small and a large upstream."""
    async with upstream(small) as one, upstream(large) as two:
        yield one, two


def with_canary(stable: Behaviour, canary: Behaviour, **changes: Any) -> RoutePolicy:
    """Return the assistant with a canary at 50 %."""
    fields: dict[str, Any] = {
        "stable": revision("assistant-stable", stable),
        "canary": revision("assistant-canary", canary),
        "attempt": 1,
        "weight_bp": 5_000,
    }
    return a_policy(**(fields | changes))


def plain(behaviour: Behaviour, **changes: Any) -> RoutePolicy:
    """Return the assistant with stable alone."""
    return a_policy(stable=revision("assistant-stable", behaviour), **changes)


def alternating(*sides: float) -> Callable[[], float]:
    """Return a coin that falls on its sides in turn: 0.25, 0.75, … where none are named."""
    return itertools.cycle(sides or (0.25, 0.75)).__next__


def replace(policy: RoutePolicy, **changes: Any) -> RoutePolicy:
    """Return the policy with changes."""
    return msgspec.structs.replace(policy, **changes)
