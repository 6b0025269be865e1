"""A lean HTTP/1.1 client: one pool of connections to each upstream, failures as values.

HTTP error statuses are answers. Time is bounded by one deadline for queue, connection and
answer together. It refuses to know what is asked and what an answer means.
"""

import asyncio
import errno
import re
import ssl
import time
from collections import deque
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

import msgspec

from weir_core.snapshot import FailureCause
from weir_router.connection import ClientLimits, Connection
from weir_router.headers import Headers, header_block
from weir_router.patience import Turnover
from weir_router.resolve import Address, Resolver
from weir_router.stream import Failure, Stream

__all__ = ["Answer", "ClientLimits", "Failure", "Pool", "Stream"]

Resolve = Callable[[str, int], Awaitable[list[Address]]]

MOST_ADDRESSES = 8
"""Of one name; more are not tried."""
MOST_LINES = 64
"""Request lines kept ready by one pool."""
ACLOSE_S = 1.0
EARLY_S = 0.005
"""A timer may ring this much before its time."""
STARVED = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
"""Errors of a process or machine that has no room for one more socket."""
_TARGET = re.compile(rb"/[!-~]*")
_METHOD = re.compile(rb"[A-Z]+")
_BODYLESS = frozenset((b"GET", b"HEAD"))


class Answer(msgspec.Struct, frozen=True):
    """A whole answer. `first_byte_s` is from the call to the answer's head, queue included."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    first_byte_s: float


class Pool:
    """Connections to one upstream: scheme, host, port and path prefix of `url`.

    `limits` may be replaced at any time. Raises ValueError for a URL it cannot use.
    """

    def __init__(
        self,
        url: str,
        *,
        limits: ClientLimits | None = None,
        ssl_context: ssl.SSLContext | None = None,
        resolve: Resolve | None = None,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            raise ValueError(f"{url!r}: wanted http(s)://host[:port][/prefix]")
        if parts.query or parts.fragment:
            raise ValueError(f"{url!r}: wanted no query and no fragment")
        self.limits = limits or ClientLimits()
        self.name = parts.netloc
        self._host = parts.hostname
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._ssl = (ssl_context or ssl.create_default_context()) if parts.scheme[4:] else None
        self._resolve = resolve or Resolver()
        self._prefix = parts.path.rstrip("/").encode("ascii")
        self._fixed = header_block(
            [
                (b"host", parts.netloc.encode("ascii")),
                (b"user-agent", b"weir"),
                (b"content-type", b"application/json"),
                (b"accept-encoding", b"identity"),
            ]
        )
        self._lines: dict[tuple[bytes, bytes], bytes] = {}
        self._idle: dict[Connection, None] = {}
        self._connections: set[Connection] = set()
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._busy = 0
        self._turnover = Turnover()
        self._closed = False
        self._empty: asyncio.Future[None] | None = None

    @property
    def in_flight(self) -> int:
        """Return how many requests hold a place."""
        return self._busy

    @property
    def queued(self) -> int:
        """Return how many requests wait for a place."""
        return len(self._waiting)

    @property
    def idle(self) -> int:
        """Return how many connections wait for a request."""
        return len(self._idle)

    def wait_s(self, now_s: float) -> float:
        """Return about how long a request that comes now will wait for a place."""
        return self._turnover.wait_s(len(self._waiting) + 1, now_s)

    async def fetch(
        self,
        method: bytes,
        path: bytes,
        headers: bytes | Headers,
        body: bytes,
        *,
        timeout_ms: int,
    ) -> Answer | Failure:
        """Return the whole answer. Bytes as headers are a `header_block`, made before."""
        began_s = time.perf_counter()
        until_s = time.monotonic() + timeout_ms / 1000
        refusal = await self._enter(until_s)
        if refusal is not None:
            return refusal
        try:
            head = self._head(method, path, headers, body)
            stream = await self._ask(head, body, until_s, whole=True)
        finally:
            self._leave()
        if isinstance(stream, Failure):
            return stream
        return Answer(stream.status, stream.headers, stream.take(), stream.headed_s - began_s)

    async def open(
        self,
        method: bytes,
        path: bytes,
        headers: bytes | Headers,
        body: bytes,
        *,
        timeout_ms: int,
    ) -> Stream | Failure:
        """Return the answer once its head has come; `timeout_ms` bounds its end.

        It holds a place in the pool until it is complete, failed or closed.
        """
        until_s = time.monotonic() + timeout_ms / 1000
        refusal = await self._enter(until_s)
        if refusal is not None:
            return refusal
        leave = True
        try:
            head = self._head(method, path, headers, body)
            stream = await self._ask(head, body, until_s, whole=False)
            if isinstance(stream, Stream) and not stream.done:
                stream.on_done = self._leave
                leave = False
        finally:
            if leave:
                self._leave()
        return stream

    def close(self) -> None:
        """Close what is idle, now and later; requests in flight go on to their end."""
        self._closed = True
        for connection in list(self._idle):
            connection.abort()
        self._idle.clear()

    async def aclose(self) -> None:
        """Close all connections, the ones in use too, and return when they are gone."""
        self.close()
        for connection in list(self._connections):
            connection.fail("BrokenStream", "closed by the router")
        if self._connections:
            self._empty = asyncio.get_running_loop().create_future()
            await asyncio.wait((self._empty,), timeout=ACLOSE_S)

    # Places: so many at once, then a queue, then Overload.

    async def _enter(self, until_s: float) -> Failure | None:
        limits = self.limits.upstream
        if self._busy < limits.max_in_flight and not self._waiting:
            self._busy += 1
            return None
        if len(self._waiting) >= limits.queue_length:
            return self._failure("Overload", "the queue is full")
        return await self._queue(until_s, limits.queue_wait_ms)

    async def _queue(self, until_s: float, wait_ms: int) -> Failure | None:
        loop = asyncio.get_running_loop()
        place: asyncio.Future[None] = loop.create_future()
        self._waiting.append(place)
        patience_s = loop.time() + wait_ms / 1000
        timer = loop.call_at(min(patience_s, until_s), place.cancel)
        try:
            # Not the future itself: its cancellation by the timer is not the caller's.
            await asyncio.wait((place,))
        except asyncio.CancelledError:
            self._give_up(place)
            raise
        finally:
            timer.cancel()
        if not place.cancelled():
            return None
        self._forget(place)
        if patience_s < until_s:
            return self._failure("Overload", f"no place within {wait_ms:,} ms")
        return self._failure("Timeout", "no place before the deadline")

    def _give_up(self, place: "asyncio.Future[None]") -> None:
        if place.done() and not place.cancelled():
            self._leave()
        else:
            place.cancel()
            self._forget(place)

    def _forget(self, place: "asyncio.Future[None]") -> None:
        if place in self._waiting:
            self._waiting.remove(place)

    def _leave(self) -> None:
        self._busy -= 1
        self._turnover.finished += 1
        while self._waiting and self._busy < self.limits.upstream.max_in_flight:
            place = self._waiting.popleft()
            if not place.done():
                self._busy += 1
                place.set_result(None)

    def _failure(self, cause: FailureCause, detail: str) -> Failure:
        return Failure(cause, f"{self.name}: {detail}", sent=False, answered=False)

    # One request on one connection, or on a second one.

    def _head(self, method: bytes, path: bytes, headers: bytes | Headers, body: bytes) -> bytes:
        line = self._lines.get((method, path)) or self._line(method, path)
        block = headers if isinstance(headers, bytes) else header_block(headers)
        if not body and method in _BODYLESS:
            return b"".join((line, block, b"\r\n"))
        return b"".join((line, block, b"content-length: %d\r\n\r\n" % len(body)))

    def _line(self, method: bytes, path: bytes) -> bytes:
        if not _METHOD.fullmatch(method) or not _TARGET.fullmatch(path):
            raise ValueError(f"{method!r} {path!r}: wanted a method and an absolute path")
        if len(self._lines) >= MOST_LINES:
            self._lines.clear()
        line = b"%b %b%b HTTP/1.1\r\n%b" % (method, self._prefix, path, self._fixed)
        self._lines[method, path] = line
        return line

    async def _ask(
        self, head: bytes, body: bytes, until_s: float, *, whole: bool
    ) -> Stream | Failure:
        """Return the answer, asked once more if an idle connection was closed meanwhile.

        The upstream closes what is idle when it likes, so a request may cross that close. No
        byte of an answer came, and the connection had carried others: it was not begun.
        """
        connection = self._take_idle()
        while True:
            if connection is None:
                made = await self._connect(until_s)
                if isinstance(made, Failure):
                    return made
                connection = made
            used = connection.used
            stream = Stream(whole=whole)
            connection.send(stream, head, body, until_s=until_s, headless=head[:5] == b"HEAD ")
            await stream.ready()
            failure = stream.failure
            if failure is None:
                return stream
            if not used or failure.answered or failure.cause != "BrokenStream":
                return failure
            connection = None

    def _take_idle(self) -> Connection | None:
        while self._idle:
            connection, _ = self._idle.popitem()
            if connection.open:
                return connection
        return None

    async def _connect(self, until_s: float) -> Connection | Failure:
        loop = asyncio.get_running_loop()
        wait_ms = self.limits.connect_timeout_ms
        end_s = min(loop.time() + wait_ms / 1000, until_s)
        wanted = f"address for {self._host}"
        detail = ""
        try:
            async with asyncio.timeout_at(end_s):
                addresses = (await self._resolve(self._host, self._port))[:MOST_ADDRESSES]
                wanted = "connection"
                for left in range(len(addresses), 0, -1):
                    # A silent address leaves time for those after it.
                    share_s = (end_s - loop.time()) / left
                    made = await self._connect_to(addresses[-left], share_s)
                    if isinstance(made, Connection):
                        return made
                    detail = made
        except TimeoutError:
            pass
        except UnicodeError as error:
            detail = f"no address for {self._host}: {error}"
        except OSError as error:
            if error.errno in STARVED:
                # This router's trouble: it tells nothing of the backend.
                return self._failure("Overload", f"no connection: {error.strerror}")
            detail = f"no address for {self._host}: {error.strerror or error}"
        if loop.time() + EARLY_S >= until_s:
            return self._failure("Timeout", f"no {wanted} before the deadline")
        return self._failure("Connect", detail or f"no {wanted} within {wait_ms:,} ms")

    async def _connect_to(self, address: Address, wait_s: float) -> Connection | str:
        """Return a connection to one address, or why there is none.

        Raises OSError where this process has no room for one more.
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(wait_s):
                _, connection = await loop.create_connection(
                    lambda: Connection(self, loop),
                    *address,
                    ssl=self._ssl,
                    server_hostname=self._host if self._ssl else None,
                )
        except TimeoutError:
            return f"no connection within {wait_s * 1000:,.0f} ms"
        except OSError as error:
            if error.errno in STARVED:
                raise
            return f"no connection: {error.strerror or error}"
        if not connection.open:
            return "it closed the connection at once"
        self._connections.add(connection)
        return connection

    # Connections call these.

    def returned(self, connection: Connection) -> None:
        """Keep a connection for the next request, unless there are enough."""
        if self._closed or len(self._idle) >= self.limits.max_idle:
            connection.abort()
            return
        self._idle[connection] = None
        connection.rest(time.monotonic() + self.limits.idle_s)

    def lost(self, connection: Connection) -> None:
        """Forget a connection that is closed."""
        self._idle.pop(connection, None)
        self._connections.discard(connection)
        if self._empty is not None and not self._connections and not self._empty.done():
            self._empty.set_result(None)
