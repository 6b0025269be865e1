"""`weir serve`: router and control loop in one process, from files, without a cluster."""

import asyncio
import logging
import signal
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec
import uvloop

from weir_router import app
from weir_router.clock import steady_clock
from weir_router.folder import Folder
from weir_router.keeper import Keeper
from weir_router.ledger import Ledger
from weir_router.load import Bounds
from weir_router.process import (
    DRAIN_S,
    Server,
    admin_server,
    brake,
    front_server,
    listen,
    run_until_stopped,
    told_to,
)
from weir_router.serve import Router
from weir_router.server import ServerLimits
from weir_router.standing import StateFile
from weir_router.telemetry import Metrics
from weir_router.upstreams import Keys, Upstreams

log = logging.getLogger("weir")


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything `weir serve` can be told. Ports may be 0: any free one."""

    config: Path
    state: Path
    keys: Path | None = None
    host: str = "127.0.0.1"
    port: int = 8080
    admin_host: str = "127.0.0.1"
    admin_port: int = 8081
    limits: ServerLimits = ServerLimits()
    bounds: Bounds = Bounds()


def serve(settings: Settings, *, said: Callable[[str], None] = print) -> None:
    """Serve until SIGTERM or SIGINT. Raises StateFileError or OSError if it cannot start."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(settings, said))


async def _serve(settings: Settings, said: Callable[[str], None]) -> None:
    clock = steady_clock()
    file = StateFile(settings.state)
    file.lock()
    doors = (
        listen(settings.host, settings.port),
        listen(settings.admin_host, settings.admin_port),
    )
    boot = f"boot-{file.read().boot + 1}"
    keeper: Keeper | None = None
    metrics = Metrics()
    keys = Keys(settings.keys)
    upstreams = Upstreams(keys, told_to(metrics))
    router = Router(
        name=socket.gethostname(),
        ledger=Ledger(router="standalone", boot=boot),
        upstreams=upstreams,
        metrics=metrics,
        clock=clock,
        bounds=settings.bounds,
        on_trip=lambda trip: keeper.tripped(trip) if keeper is not None else None,
    )
    keeper = Keeper(
        folder=Folder(settings.config, but=settings.state),
        file=file,
        router=router,
        clock=clock,
        has_key=lambda name: bool(keys.get(name)),
        ejected=upstreams.ejected,
    )
    keeper.start()
    front = front_server(router, app.public(router, keeper), settings.limits)
    admin = admin_server(app.admin(router, keeper))
    loops = [asyncio.create_task(keeper.run()), asyncio.create_task(brake(router))]
    try:
        drain = partial(_stopping, router, front)
        await run_until_stopped(front, admin, doors, said, drain=drain)
    finally:
        for loop in loops:
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        await router.auditor.stop()
        keeper.end()
        upstreams.close()
    log.info("stopped", extra={"state": settings.state})


async def _stopping(router: Router, front: Server) -> None:
    """Say that it ends, and end at once when interrupted again."""

    def hurry() -> None:
        front.force_exit = True

    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, hurry)
    waiting = {"in_flight": router.load.in_flight, "at_most_s": DRAIN_S}
    log.info("stopping; interrupt again to stop at once", extra=waiting)
