"""The listening sockets of the front door: whom to let in, and what to do when nobody can be.

libuv closes new connections without a word when the process is out of file descriptors. Here
they wait in the kernel's queue until one is free, and it is told. It refuses to know HTTP.
"""

import asyncio
import logging
import resource
import socket
import ssl
import sys
from collections.abc import Callable

import uvicorn

from weir_router.intake import ServerLimits
from weir_router.load import Bounds

BURST = 128
"""Connections that one turn of the loop accepts."""
PAUSE_S = 0.05
"""So long nobody is accepted when there is no room."""
TOLD_EVERY_S = 10.0
MOST_DESCRIPTORS = 1 << 20
RESERVED = 64
"""Descriptors for files, listening sockets, the management address and name lookups."""
IDLE_UPSTREAM = 512
MOST_CROWD = 64
log = logging.getLogger(__name__)

Factory = Callable[[], asyncio.BaseProtocol]


def raise_limit() -> int:
    """Raise this process's bound of open files as far as it may be raised; return the bound."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MOST_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (ValueError, OSError) as error:
            log.warning("the bound of open files stays", extra={"bound": soft, "why": str(error)})
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_DESCRIPTORS if soft == resource.RLIM_INFINITY else soft


def bounded(limits: ServerLimits, descriptors: int, bounds: Bounds) -> ServerLimits:
    """Return the limits with a bound of connections that leaves descriptors for upstreams.

    Every request in flight and every audit may hold one, and the pools keep some idle; of a
    small bound of descriptors half is theirs. A bound that is set stays.
    """
    if limits.max_connections:
        return limits
    upstreams = min(bounds.in_flight + bounds.audits + IDLE_UPSTREAM, descriptors // 2)
    clients = max(descriptors - upstreams - min(RESERVED, descriptors // 4), 2)
    crowd = min(MOST_CROWD, clients // 8 + 1)
    return ServerLimits(
        **{name: getattr(limits, name) for name in limits.__struct_fields__}
        | {"max_connections": clients - crowd, "max_crowd": crowd}
    )


class Acceptor:
    """Accepts on one socket, as `asyncio.Server` closes. `room` says whether one more may come.

    `starved` hears of each time that the system had no room for one.
    """

    def __init__(
        self,
        listener: socket.socket,
        factory: Factory,
        *,
        ssl: ssl.SSLContext | None,
        room: Callable[[int], bool],
        starved: Callable[[OSError], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._listener = listener
        self._number = listener.fileno()
        self._factory = factory
        self._ssl = ssl
        self._room = room
        self._starved = starved
        self._coming: set[asyncio.Task[None]] = set()
        self._pause: asyncio.TimerHandle | None = None
        listener.setblocking(False)
        self._loop.add_reader(self._number, self._accept)

    def close(self) -> None:
        """Accept nobody any more; who was accepted stays."""
        if self._pause is None:
            self._loop.remove_reader(self._number)
        else:
            self._pause.cancel()

    async def wait_closed(self) -> None:
        """Return when everybody who was accepted has arrived."""
        if self._coming:
            await asyncio.wait(self._coming)

    def _accept(self) -> None:
        for _ in range(BURST):
            if not self._room(len(self._coming)):
                self._rest()
                return
            try:
                client, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._starved(error)
                self._rest()
                return
            client.setblocking(False)
            task = self._loop.create_task(self._take(client))
            self._coming.add(task)
            task.add_done_callback(self._coming.discard)

    async def _take(self, client: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._factory, client, ssl=self._ssl)
        except OSError:  # A client that is gone, or whose handshake is none.
            client.close()

    def _rest(self) -> None:
        """Leave the next ones in the kernel's queue for a while."""
        self._loop.remove_reader(self._number)
        self._pause = self._loop.call_later(PAUSE_S, self._go_on)

    def _go_on(self) -> None:
        self._pause = None
        self._loop.add_reader(self._number, self._accept)


class AcceptingServer(uvicorn.Server):
    """A uvicorn server on sockets that are given, with acceptors of ours.

    `starved` is called each time that a connection could not be accepted.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        limits: ServerLimits | None = None,
        starved: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(config)
        self._limits = limits or ServerLimits()
        self._tell = starved
        self._told_s = -TOLD_EVERY_S

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept. Exits as uvicorn does where the app did not start."""
        assert sockets is not None
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            sys.exit(uvicorn.config.STARTUP_FAILURE)
        self.servers = [
            Acceptor(  # type: ignore[misc]
                one,
                self._protocol,
                ssl=self.config.ssl,
                room=self._room,
                starved=self._starved,
            )
            for one in sockets
        ]
        self.started = True

    def _protocol(self) -> asyncio.BaseProtocol:
        config = self.config
        return config.http_protocol_class(  # type: ignore[call-arg]
            config=config, server_state=self.server_state, app_state=self.lifespan.state
        )

    def _room(self, coming: int) -> bool:
        most = self._limits.max_connections
        if not most:
            return True
        return len(self.server_state.connections) + coming < most + self._limits.max_crowd

    def _starved(self, error: OSError) -> None:
        self._tell()
        now_s = asyncio.get_running_loop().time()
        if now_s - self._told_s >= TOLD_EVERY_S:
            self._told_s = now_s
            fields = {"error": error.strerror, "connections": len(self.server_state.connections)}
            log.error("connections cannot be accepted, clients wait", extra=fields)
