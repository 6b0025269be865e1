"""One connection to an upstream, and the answers that arrive on it, one at a time.

An answer is given to the request that asked for it or to nobody: a connection goes home once,
after a complete answer with nothing behind it. It refuses to know where connections come from
and who waits for them (`client`).
"""

import asyncio
import time
from typing import Any, NoReturn, Protocol

import httptools
import msgspec

from weir_core.snapshot import FailureCause, Limits
from weir_router.alarm import Alarm
from weir_router.stream import Failure, Stream

BODYLESS = frozenset((204, 304))
JOIN_BYTES = 65_536
"""Above this size the head and the body are two writes: joining them copies the body."""
FRAMING = frozenset((b"transfer-encoding", b"content-length"))


class ClientLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of one pool. `buffer_bytes` pauses reading while a stream's reader is slow."""

    connect_timeout_ms: int = 2_000
    idle_s: float = 15
    max_idle: int = 128
    max_header_bytes: int = 64 << 10
    max_body_bytes: int = 32 << 20
    buffer_bytes: int = 256 << 10
    upstream: Limits = Limits()


class Home(Protocol):
    """Where a connection comes from and goes back to."""

    name: str
    limits: ClientLimits

    def returned(self, connection: "Connection") -> None:
        """Take back a connection that can carry another request."""

    def lost(self, connection: "Connection") -> None:
        """Forget a connection that is closed."""


class _Stop(Exception):  # noqa: N818 - Stops the parser, nobody else sees it.
    """Raised within a parser callback; the reason is in the connection."""


class Connection(asyncio.Protocol):
    """Carries one request at a time to the upstream of `home`."""

    __slots__ = (
        "_alarm",
        "_answered",
        "_codings",
        "_head_bytes",
        "_headers",
        "_headless",
        "_home",
        "_interim",
        "_keep",
        "_length",
        "_parser",
        "_paused",
        "_reason",
        "_seen",
        "_stray",
        "_stream",
        "_transport",
        "loop",
        "used",
    )

    def __init__(self, home: Home, loop: asyncio.AbstractEventLoop) -> None:
        self._home = home
        self.loop = loop
        self._alarm = Alarm(loop, self._expire)
        self._parser: Any = httptools.HttpResponseParser(self)
        self._transport: Any = None
        self._stream: Stream | None = None
        self._paused = False
        self.used = False
        """It has carried an answer: the upstream may have closed it since."""

    @property
    def open(self) -> bool:
        """Return whether it can carry a request."""
        return self._transport is not None and not self._transport.is_closing()

    def send(
        self, stream: Stream, head: bytes, body: bytes, *, until_s: float, headless: bool
    ) -> None:
        """Ask, and let the answer arrive in `stream` before `until_s` of the loop's time.

        `headless`: the answer has no body, whatever its head says (HEAD).
        """
        assert self._stream is None, "two requests at once on one connection"
        self._stream = stream
        stream.attach(self)
        self._headless = headless
        self._answered = self._interim = self._keep = False
        self._head_bytes = self._stray = self._seen = 0
        self._reason = ""
        self._alarm.set(until_s)
        if len(body) < JOIN_BYTES:
            self._transport.write(head + body)
        else:
            self._transport.write(head)
            self._transport.write(body)

    def rest(self, until_s: float) -> None:
        """Wait for the next request, not longer than `until_s`."""
        self.used = True
        self._alarm.set(until_s)

    def resume(self) -> None:
        """Read on after a pause."""
        if self._paused:
            self._paused = False
            if self.open:
                self._transport.resume_reading()

    def abort(self) -> None:
        """Close at once; what is not written is dropped."""
        if self._transport is not None:
            self._transport.abort()

    def fail(self, cause: FailureCause, detail: str) -> None:
        """End the answer, which is not complete, and the connection with it."""
        stream, self._stream = self._stream, None
        self._alarm.clear()
        self.abort()
        if stream is not None:
            told = f"{self._home.name}: {detail}"
            stream.failure = Failure(cause, told, sent=True, answered=self._answered)
            stream.detach()

    def _expire(self) -> None:
        if self._stream is None:
            self.abort()
        else:
            self.fail("Timeout", "no whole answer before the deadline")

    # The transport calls these.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Be ready to send."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Parse what came; end the answer when it is complete or wrong."""
        stream = self._stream
        if stream is None:
            self.abort()  # Nothing was asked: whatever it is, nobody may get it.
            return
        self._answered = True
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._keep = False
            if not stream.complete:
                self.fail("ServerError", self._reason or f"not an HTTP answer: {error}")
                return
        if stream.complete:
            self._finish(stream)
        elif stream.size == self._seen:
            self._count_stray(len(data))
        else:
            self._seen = stream.size
            self._stray = 0
        stream.wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits for an answer."""
        self._alarm.stop()
        self._parser = None
        self._home.lost(self)
        stream = self._stream
        if stream is None:
            return
        if exc is None and stream.headed_s and self._length is None and not self._codings:
            stream.complete = True
            self._stream = None
            stream.detach()
        else:
            when = "in the middle of" if self._answered else "before"
            self.fail("BrokenStream", f"closed {when} an answer")

    def _count_stray(self, count: int) -> None:
        """Bound what is neither a whole head nor a body."""
        self._stray += count
        if self._stray > self._home.limits.max_header_bytes:
            self.fail("ServerError", "the answer's head is too large")

    def _finish(self, stream: Stream) -> None:
        self._stream = None
        self._alarm.clear()
        transport = self._transport
        if self._keep and transport.get_write_buffer_size() == 0 and not transport.is_closing():
            self.resume()
            self._home.returned(self)
        else:
            self.abort()
        stream.detach()

    # The parser calls these.

    def on_message_begin(self) -> None:
        """Begin an answer; one that nobody asked for ends the connection."""
        if self._stream is None or self._stream.complete:
            raise _Stop
        self._headers: list[tuple[bytes, bytes]] = []
        self._codings: tuple[bytes, ...] = ()
        self._length: bytes | None = None

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a header; one in a trailer is counted and dropped."""
        self._head_bytes += len(name) + len(value) + 4
        if self._head_bytes > self._home.limits.max_header_bytes:
            self._stop("the answer's head is too large")
        assert self._stream is not None
        if self._stream.headed_s:
            return
        name = name.lower()
        if name in FRAMING:
            if name == b"content-length":
                self._length = value
            else:
                self._codings += (value.strip().lower(),)
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Give the head to the stream; a 1xx is no answer."""
        stream = self._stream
        assert stream is not None
        status = self._parser.get_status_code()
        self._interim = status < 200
        if self._interim:
            if status == 101:
                self._stop("switched protocols without being asked")
            return
        if self._codings and self._codings != (b"chunked",):
            self._stop("a Transfer-Encoding other than chunked")
        self._keep = self._parser.should_keep_alive()
        stream.status = status
        stream.headers = self._headers
        stream.headed_s = time.perf_counter()
        if self._headless and status not in BODYLESS:
            # The parser would take the next answer for this one's body.
            self._keep = False
            stream.complete = True

    def on_body(self, body: bytes) -> None:
        """Give a part of the body to the stream, and read no more while it is full."""
        stream = self._stream
        assert stream is not None
        if self._headless:
            raise _Stop
        kept = stream.add(body)
        limits = self._home.limits
        if stream.whole:
            if stream.size > limits.max_body_bytes:
                self._stop(f"the answer has more than {limits.max_body_bytes:,} bytes")
        elif kept > limits.buffer_bytes and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        """Take note that the answer is complete."""
        if not self._interim and self._stream is not None:
            self._stream.complete = True

    def _stop(self, reason: str) -> NoReturn:
        self._reason = reason
        raise _Stop
