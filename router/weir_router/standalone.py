"""`weir serve`: router and control loop in one process, from files, without a cluster."""

import asyncio
import contextlib
import gc
import logging
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import uvicorn
import uvloop

from weir_router import app
from weir_router.clock import steady_clock
from weir_router.folder import Folder
from weir_router.keeper import Keeper
from weir_router.ledger import Ledger
from weir_router.load import Bounds
from weir_router.serve import Router
from weir_router.server import ServerLimits, model_protocol
from weir_router.standing import StateFile
from weir_router.telemetry import Metrics
from weir_router.upstreams import Keys, Upstreams

BRAKE_S = 0.05
"""How often the brake looks although nothing failed: waiting requests settle too."""
DRAIN_S = 30
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


class _Server(uvicorn.Server):
    """A server of two in one loop: signals are ours, not each server's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def serve(settings: Settings, *, said: Callable[[str], None] = print) -> None:
    """Serve until SIGTERM or SIGINT. Raises StateFileError or OSError if it cannot start."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(settings, said))


async def _serve(settings: Settings, said: Callable[[str], None]) -> None:
    clock = steady_clock()
    file = StateFile(settings.state)
    boot = f"boot-{file.read().boot + 1}"
    keeper: Keeper | None = None
    upstreams = Upstreams(Keys(settings.keys))
    router = Router(
        name=socket.gethostname(),
        ledger=Ledger(router="standalone", boot=boot),
        upstreams=upstreams,
        metrics=Metrics(),
        clock=clock,
        bounds=settings.bounds,
        on_trip=lambda trip: keeper.tripped(trip) if keeper is not None else None,
    )
    keeper = Keeper(folder=Folder(settings.config), file=file, router=router, clock=clock)
    keeper.start()
    front, admin = _servers(settings, router, keeper)
    loops = [asyncio.create_task(keeper.run()), asyncio.create_task(brake(router))]
    try:
        await _until_stopped(front, admin, said)
    finally:
        for loop in loops:
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        keeper.end()
        upstreams.close()


async def brake(router: Router) -> None:
    """Let the brake look by the clock; it needs nothing of the control loop."""
    while True:
        router.brake()
        await asyncio.sleep(BRAKE_S)


def _servers(settings: Settings, router: Router, keeper: Keeper) -> tuple[_Server, _Server]:
    handlers = {b"/v1/chat/completions": router.chat, b"/v1/completions": router.completion}
    front = uvicorn.Config(
        app.public(router, keeper),
        host=settings.host,
        port=settings.port,
        http=model_protocol(handlers, settings.limits),
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=DRAIN_S,
        backlog=2048,
    )
    admin = uvicorn.Config(
        app.admin(router, keeper),
        host=settings.admin_host,
        port=settings.admin_port,
        http="httptools",
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=1,
    )
    return _Server(front), _Server(admin)


async def _until_stopped(front: _Server, admin: _Server, said: Callable[[str], None]) -> None:
    loop = asyncio.get_running_loop()

    def stop() -> None:
        front.should_exit = admin.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    tasks = [asyncio.create_task(front.serve()), asyncio.create_task(admin.serve())]
    while not (front.started and admin.started):
        if any(task.done() for task in tasks):
            stop()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise OSError("could not listen: see the log above")
        await asyncio.sleep(0.01)
    gc.collect()
    gc.freeze()
    said(f"listening on {_address(front)}, management on {_address(admin)}")
    sys.stdout.flush()
    await asyncio.gather(*tasks)


def _address(server: _Server) -> str:
    host, port = server.servers[0].sockets[0].getsockname()[:2]
    return f"http://{host}:{port}"
