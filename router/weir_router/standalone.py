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

from weir_core.snapshot import Backend
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
from weir_router.upstreams import Keys, Turned, Upstreams

BRAKE_S = 0.05
"""How often the brake looks although nothing failed: waiting requests settle too."""
DRAIN_S = 30
BACKLOG = 2_048
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
    file.lock()
    doors = (
        _listen(settings.host, settings.port),
        _listen(settings.admin_host, settings.admin_port),
    )
    boot = f"boot-{file.read().boot + 1}"
    keeper: Keeper | None = None
    metrics = Metrics()
    keys = Keys(settings.keys)
    upstreams = Upstreams(keys, _told_to(metrics))
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
    )
    keeper.start()
    front, admin = _servers(settings, router, keeper)
    loops = [asyncio.create_task(keeper.run()), asyncio.create_task(brake(router))]
    try:
        await _until_stopped(front, admin, doors, said)
    finally:
        for loop in loops:
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        keeper.end()
        upstreams.close()


def _told_to(metrics: Metrics) -> Turned:
    def turned(backend: Backend, ejected: bool) -> None:
        fields = {"backend": backend.name, "identity": backend.identity, "url": backend.url}
        if ejected:
            log.warning("backend ejected", extra=fields)
        else:
            log.info("backend is back", extra=fields)
        metrics.gauge("weir_backend_ejected", (backend.name, backend.identity), float(ejected))

    return turned


async def brake(router: Router) -> None:
    """Let the brake look by the clock; it needs nothing of the control loop."""
    while True:
        try:
            router.brake()
        except Exception:
            log.exception("the brake failed to look")
        await asyncio.sleep(BRAKE_S)


def _servers(settings: Settings, router: Router, keeper: Keeper) -> tuple[_Server, _Server]:
    handlers = {b"/v1/chat/completions": router.chat, b"/v1/completions": router.completion}
    front = uvicorn.Config(
        app.public(router, keeper),
        http=model_protocol(handlers, settings.limits),
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=DRAIN_S,
        server_header=False,
    )
    admin = uvicorn.Config(
        app.admin(router, keeper),
        http="httptools",
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=1,
        server_header=False,
    )
    return _Server(front), _Server(admin)


def _listen(host: str, port: int) -> socket.socket:
    """Return a listening socket. Raises OSError that names the address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise OSError(error.errno, f"cannot listen on {host}:{port}: {error.strerror}") from error


async def _until_stopped(
    front: _Server,
    admin: _Server,
    doors: tuple[socket.socket, socket.socket],
    said: Callable[[str], None],
) -> None:
    loop = asyncio.get_running_loop()

    def stop() -> None:
        front.should_exit = admin.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    tasks = [
        asyncio.create_task(server.serve([door]))
        for server, door in zip((front, admin), doors, strict=True)
    ]
    while not (front.started and admin.started):  # noqa: ASYNC110 - uvicorn has no event for it.
        await asyncio.sleep(0.01)
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    said(f"listening on {_address(doors[0])}, management on {_address(doors[1])}")
    sys.stdout.flush()
    await asyncio.gather(*tasks)


def _address(door: socket.socket) -> str:
    host, port = door.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
