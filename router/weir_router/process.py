"""What every router process is made of: two listening servers, the brake's clock, an orderly end.

It refuses to know where policy comes from: from files (`standalone`) or by the feed (`cluster`).
"""

import asyncio
import contextlib
import gc
import logging
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator

import uvicorn
from fastapi import FastAPI

from weir_core.snapshot import Backend
from weir_router.accept import AcceptingServer, bounded, raise_limit
from weir_router.serve import Router
from weir_router.server import ServerLimits, model_protocol
from weir_router.telemetry import Metrics
from weir_router.upstreams import Turned

BRAKE_S = 0.05
"""How often the brake looks although nothing failed: waiting requests settle too."""
DRAIN_S = 30
BACKLOG = 2_048
log = logging.getLogger("weir")


class Server(uvicorn.Server):
    """A server of two in one loop: signals are ours, not each server's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class FrontServer(AcceptingServer, Server):
    """The server that clients reach."""


def told_to(metrics: Metrics) -> Turned:
    """Return what logs and counts that a backend was ejected or is back."""

    def turned(backend: Backend, why: str) -> None:
        fields = {"backend": backend.name, "identity": backend.identity, "url": backend.url}
        if why:
            log.warning("backend ejected", extra={**fields, "why": why})
        else:
            log.info("backend is back", extra=fields)
        metrics.gauge("weir_backend_ejected", (backend.name, backend.identity), float(bool(why)))

    return turned


async def brake(router: Router) -> None:
    """Let the brake look by the clock; it needs nothing of the control loop."""
    while True:
        try:
            router.brake()
        except Exception:
            log.exception("the brake failed to look")
        await asyncio.sleep(BRAKE_S)


def front_server(router: Router, app: FastAPI, limits: ServerLimits) -> Server:
    """Return the server of the model endpoints, with `app` for every other path.

    Connections are bounded by the file descriptors that this process may have.
    """
    handlers = {b"/v1/chat/completions": router.chat, b"/v1/completions": router.completion}
    limits = bounded(limits, raise_limit(), router.load.bounds)
    count = router.metrics.count
    config = uvicorn.Config(
        app,
        http=model_protocol(
            handlers, limits, crowded=lambda: count("weir_connections_refused", ())
        ),
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=DRAIN_S,
        server_header=False,
    )
    return FrontServer(config, limits=limits, starved=lambda: count("weir_accept_failures", ()))


def admin_server(app: FastAPI) -> Server:
    """Return the server of the management address: requests are bounded as the front door's."""
    return Server(
        uvicorn.Config(
            app,
            http=model_protocol({}),
            lifespan="off",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=1,
            server_header=False,
        )
    )


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket. Raises OSError that names the address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise OSError(error.errno, f"cannot listen on {host}:{port}: {error.strerror}") from error


async def _at_once() -> None:
    return


async def run_until_stopped(
    front: Server,
    admin: Server,
    doors: tuple[socket.socket, socket.socket],
    said: Callable[[str], None],
    *,
    drain: Callable[[], Awaitable[None]] = _at_once,
) -> None:
    """Serve until SIGTERM or SIGINT; then `drain()`, finish what is in flight, and return.

    The management address answers until the last request is finished.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    pairs = zip((front, admin), doors, strict=True)
    tasks = [asyncio.create_task(server.serve([door])) for server, door in pairs]
    stopped = asyncio.create_task(stop.wait())
    try:
        while not all(server.started for server in (front, admin)):
            if any(task.done() for task in tasks):
                break
            await asyncio.sleep(0.01)
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 20)
        said(f"listening on {address(doors[0])}, management on {address(doors[1])}")
        sys.stdout.flush()
        await asyncio.wait([*tasks, stopped], return_when=asyncio.FIRST_COMPLETED)
        await drain()
        front.should_exit = True
        await tasks[0]
    finally:
        stopped.cancel()
        front.should_exit = admin.should_exit = True
        await asyncio.gather(*tasks)


def address(door: socket.socket) -> str:
    """Return the URL of a listening socket."""
    host, port = door.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
