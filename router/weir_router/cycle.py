"""One request and its answer on a connection of the front door, as handlers see them.

It writes HTTP/1.1 answers. It refuses to know how requests are parsed and when connections
close (`server`), and what an answer says (the handlers).
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from weir_router.headers import Headers, as_block
from weir_router.patience import retry_after

Reply = tuple[int, Headers, bytes]
"""Status, headers and body of a whole answer."""

JSON = (b"content-type", b"application/json")
END, CLOSE_END = b"\r\n", b"connection: close\r\n\r\n"
ALLOWED = (b"allow", b"POST, OPTIONS")
BODYLESS = frozenset((204, 304))
JOIN_BYTES = 65_536
"""Above this size the head and the body are two writes: joining them copies the body."""


def error_reply(status: int, *, kind: str, code: str, message: str) -> Reply:
    """Return an answer with an error body of OpenAI's shape; `kind` is its type."""
    error = {"message": message, "type": kind, "param": None, "code": code}
    return status, (JSON,), msgspec.json.encode({"error": error})


class Door(Protocol):
    """What an exchange needs of its connection."""

    transport: asyncio.Transport
    flow: FlowControl

    def common_head(self) -> bytes:
        """Return the header lines that every answer carries."""

    def on_response_complete(self) -> None:
        """Take note that the answer was handed to the transport."""


class _NoEvent:
    """Stands where uvicorn's cycles have an event; nobody waits on ours."""

    def set(self) -> None:
        """Do nothing."""


class Exchange:
    """A whole request, and the means to answer it: `reply`, or `start`, `write` and `end`.

    Header names are lower-case. `gone` turns true when the client leaves before `complete`;
    then `on_gone` is called, once, and all writing is dropped. `complete` means handed to the
    transport. `keep_alive`, `response_complete`, `disconnected` and `message_event` are what
    uvicorn asks of a cycle.
    """

    __slots__ = (
        "_door",
        "body",
        "client",
        "complete",
        "gone",
        "handler",
        "headers",
        "keep_alive",
        "method",
        "old",
        "on_gone",
        "path",
        "query",
        "started",
        "status",
        "task",
        "whole",
    )
    message_event = _NoEvent()

    def __init__(
        self,
        door: Door,
        handler: "Handler",
        method: bytes,
        path: bytes,
        query: bytes,
        headers: list[tuple[bytes, bytes]],
        client: str,
        keep_alive: bool,
        old: bool,
    ) -> None:
        self._door = door
        self.handler = handler
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        self.client = client
        self.keep_alive = keep_alive
        self.old = old
        """HTTP/1.0: no chunks, the end of the connection ends a stream."""
        self.body = b""
        self.whole = False
        self.started = self.complete = self.gone = False
        self.on_gone: Callable[[], None] | None = None
        self.status = 0
        self.task: asyncio.Task[None] | None = None

    @property
    def response_complete(self) -> bool:
        """Return `complete`, under uvicorn's name."""
        return self.complete

    @property
    def disconnected(self) -> bool:
        """Return `gone`, under uvicorn's name."""
        return self.gone

    def header(self, name: bytes) -> bytes:
        """Return the first value of the header, b"" where there is none."""
        for key, value in self.headers:
            if key == name:
                return value
        return b""

    def reply(self, status: int, headers: Headers | bytes, body: bytes) -> None:
        """Answer whole: content-length is added, and nothing may follow."""
        assert not self.started, "a second answer to one request"
        length = b"" if status in BODYLESS else b"content-length: %d\r\n" % len(body)
        if self.method == b"HEAD" or not length:
            body = b""
        self._send_head(status, headers, length, body)
        if not self.gone:
            self._finish()

    def start(self, status: int, headers: Headers | bytes) -> None:
        """Begin an answer of unknown length."""
        assert not self.started, "a second answer to one request"
        if self.old:
            self.keep_alive = False
        self._send_head(status, headers, b"" if self.old else b"transfer-encoding: chunked\r\n")

    def write(self, chunk: bytes) -> None:
        """Send a part of the answer; an empty one sends nothing."""
        assert self.started, "a chunk before the status"
        assert not self.complete, "a chunk after the end"
        if self.gone or not chunk:
            return
        self._door.transport.write(chunk if self.old else b"%x\r\n%b\r\n" % (len(chunk), chunk))

    async def drain(self) -> None:
        """Return when there is room for more to write, or nobody to write to."""
        if self._door.flow.write_paused and not self.gone:
            await self._door.flow.drain()

    def end(self) -> None:
        """Complete an answer that `start` began."""
        assert self.started, "an end before the status"
        assert not self.complete, "a second end"
        if self.gone:
            return
        if not self.old:
            self._door.transport.write(b"0\r\n\r\n")
        self._finish()

    def lose(self) -> None:
        """Take note that the client is gone."""
        self.gone = True
        tell, self.on_gone = self.on_gone, None
        if tell is not None:
            tell()

    def _send_head(
        self, status: int, headers: Headers | bytes, framing: bytes, body: bytes = b""
    ) -> None:
        tail = END if self.keep_alive else CLOSE_END
        head = (STATUS_LINE[status], self._door.common_head(), as_block(headers), framing, tail)
        # Only now: a status or header that is none leaves room for another answer.
        self.started, self.status = True, status
        if self.gone:
            return
        if len(body) < JOIN_BYTES:
            self._door.transport.write(b"".join((*head, body)))
        else:
            self._door.transport.write(b"".join(head))
            self._door.transport.write(body)

    def _finish(self) -> None:
        self.complete = True
        self.on_gone = None
        self._door.on_response_complete()


Handler = Callable[[Exchange], Awaitable[None]]
Crash = Callable[[Exchange], Reply]


def refusal(status: int, code: str, message: str) -> Reply:
    """Return the answer to a request that is wrong in itself."""
    return error_reply(status, kind="invalid_request_error", code=code, message=message)


def busy(code: str, message: str) -> Reply:
    """Return the answer to a request that may be tried again soon."""
    status, headers, body = error_reply(503, kind="server_error", code=code, message=message)
    after_s = retry_after(1.0, random.random())
    return status, (*headers, (b"retry-after", b"%d" % after_s)), body


def unavailable(exchange: Exchange) -> Reply:
    """Return what a client is told when a handler failed."""
    return busy("router_unavailable", "The router could not handle this request. Try again.")


async def wrong_method(exchange: Exchange) -> None:
    """Answer a model path asked with another method than POST."""
    if exchange.method == b"OPTIONS":
        exchange.reply(204, (ALLOWED,), b"")
        return
    status, headers, body = refusal(405, "method_not_allowed", "Use POST.")
    exchange.reply(status, (*headers, ALLOWED), body)


def place_of(error: BaseException) -> str:
    """Return file and line where it was raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return ""
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
