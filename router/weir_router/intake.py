"""What arrives on a connection of the front door, collected and checked request by request.

Bounded in bytes, and refused where it has two readings: a proxy before or behind might take the
other one. It refuses to know who answers and when (`server`).
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NoReturn

import httptools
import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from weir_router.cycle import Crash, Handler, Reply, busy, refusal
from weir_router.headers import Headers, header_block

BETWEEN, HEAD, BODY = "between", "head", "body"
"""Which part of a request the parser is in."""
NOTED = frozenset((b"host", b"transfer-encoding", b"content-length", b"expect"))
UPGRADING = frozenset((b"upgrade", b"http2-settings", b"connection"))
SLASH, HASH = ord("/"), b"#"


class ServerLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What one connection may ask for. Times are of the loop's clock.

    `header_timeout_s` runs from the connection or a request's first byte to the end of its
    head, `body_timeout_s` from there to the end of its body, `stall_timeout_s` while a client
    takes nothing of an answer, `linger_s` after a refusal while the client still sends.
    `max_connections` is of the whole server, 0 for none; up to `max_crowd` more are let in, each
    for one request that is refused with the reason.
    """

    max_body_bytes: int = 8 << 20
    max_header_bytes: int = 64 << 10
    max_pipelined: int = 32
    max_connections: int = 0
    max_crowd: int = 64
    header_timeout_s: float = 10
    body_timeout_s: float = 30
    keep_alive_s: float = 75
    stall_timeout_s: float = 60
    linger_s: float = 1


class Settings:
    """What all connections of one protocol class share."""

    def __init__(
        self,
        handlers: Mapping[bytes, Handler],
        limits: ServerLimits,
        crash: Crash,
        access_log: bool,
        crowded: Callable[[], None],
    ) -> None:
        self.handlers = handlers
        self.limits = limits
        self.crash = crash
        self.access_log = access_log
        self.crowded = crowded
        self.crowd = 0
        """Connections over the bound that are open."""
        self._rendered: tuple[Headers, bytes] = ((), b"")

    def common_head(self, headers: Headers) -> bytes:
        """Return the header lines of uvicorn's default headers, a new list each second."""
        if self._rendered[0] is not headers:
            self._rendered = (headers, header_block(headers))
        return self._rendered[1]


class Stop(Exception):  # noqa: N818 - Stops the parser, nobody else sees it.
    """Raised within a parser callback after `denial` was set."""


class Intake(HttpToolsProtocol):
    """The parser's half of a connection: the request being read, `part` by part."""

    settings: ClassVar[Settings]
    limits: ServerLimits
    parser: Any
    pipeline: Any

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._refuse_data_after_close()
        self.part = BETWEEN
        self.denial: Reply | None = None
        """Why the parser was stopped, if it was stopped from here."""
        self.crowded = False
        """One of more connections than there is room for: it gets no answer of a model."""
        self._fresh = False
        self._stray = self._seen = 0

    def _refuse_data_after_close(self) -> None:
        # uvicorn is lenient here: surplus bytes would become a request nobody asked for.
        self.parser.set_dangerous_leniencies(lenient_data_after_close=False)

    def on_message_begin(self) -> None:
        """Forget the request before."""
        self.part = HEAD
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._fresh = True
        self._hosts = self._length = self._size = self._head_size = 0
        self._codings: tuple[bytes, ...] = ()
        self._pieces: list[bytes] = []

    def on_url(self, url: bytes) -> None:
        """Collect the URL."""
        self.url += url
        self._head_size += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a header; one in a trailer is counted and dropped."""
        self._head_size += len(name) + len(value) + 4
        if self.part is BODY:
            if self._head_size > self.limits.max_header_bytes:
                self._deny(431, "headers_too_large", "The request's trailer is too large.")
            return
        name = name.lower()
        if name in NOTED:
            self._note(name, value)
        self.headers.append((name, value))

    def _note(self, name: bytes, value: bytes) -> None:
        if name == b"host":
            self._hosts += 1
        elif name == b"content-length":
            self._length = int(value)
        elif name == b"transfer-encoding":
            self._codings += (value.strip().lower(),)
        elif value.lower() == b"100-continue":
            self.expect_100_continue = True

    def _check_head(self, old: bool) -> None:
        limits = self.limits
        if self._head_size > limits.max_header_bytes:
            self._deny(431, "headers_too_large", "The request's headers are too large.")
        if old and self.parser.get_http_version() != "1.0":
            self._deny(505, "http_version", "Use HTTP/1.1.")
        if self._hosts != 1 and (self._hosts or not old):
            self._deny(400, "bad_request", "A request has exactly one Host header.")
        if self._codings and (old or self._codings != (b"chunked",)):
            self._deny(400, "bad_request", "The only Transfer-Encoding understood is chunked.")
        if self._length > limits.max_body_bytes:
            self._deny_size()
        if len(self.pipeline) >= limits.max_pipelined:
            self._deny(400, "bad_request", "Too many requests wait on one connection.")

    def _check_load(self) -> None:
        most = self.limit_concurrency
        if most is not None and (len(self.connections) >= most or len(self.tasks) >= most):
            self.denial = busy("overloaded", "The router has too much to do. Try again.")
            raise Stop

    def _join(self) -> None:
        """Find whether there is room for this connection."""
        settings, most = self.settings, self.limits.max_connections
        # Of the crowd each is on its way out, and keeps no room from those who come.
        self.crowded = 0 < most < len(self.connections) - settings.crowd
        settings.crowd += self.crowded

    def _check_crowd(self, handler: Handler | None) -> None:
        """Refuse a model's request in a crowd; health is told, and then the connection closed."""
        if handler is not None:
            self.settings.crowded()
            self.denial = busy("too_many_connections", "Too many connections. Try again.")
            raise Stop

    def _begin_body(self) -> None:
        self.part = BODY
        self._fresh = True
        self._stray = self._seen = 0

    def _count_body(self, count: int) -> None:
        self._size += count
        if self._size > self.limits.max_body_bytes:
            self._deny_size()

    def _is_stray(self, count: int) -> bool:
        """Return whether too many bytes came that ended no head and moved no body.

        They pile up where no header limit sees them: half a header, a chunk's extensions.
        """
        if self._fresh or self._size != self._seen:
            self._stray, self._seen = 0, self._size
            return False
        self._stray += count
        return self._stray > self.limits.max_header_bytes

    def _target(self) -> tuple[bytes, bytes]:
        if self.url[0] == SLASH and HASH not in self.url:
            path, _, query = self.url.partition(b"?")
            return path, query
        if self.url == b"*":
            self._deny(400, "bad_request", "Ask for a path.")
        url = httptools.parse_url(self.url)
        return url.path or b"/", url.query or b""

    def _deny(self, status: int, code: str, message: str) -> NoReturn:
        """Leave the parser's callback; `data_received` sends the refusal."""
        self.denial = refusal(status, code, message)
        raise Stop

    def _deny_size(self) -> NoReturn:
        limit = self.limits.max_body_bytes
        self._deny(413, "body_too_large", f"The request's body has more than {limit:,} bytes.")

    def _hand_to_app(self) -> None:
        """Let uvicorn make its own cycle of the request, and hand it to the ASGI app."""
        url, headers, expect = self.url, self.headers, self.expect_100_continue
        HttpToolsProtocol.on_message_begin(self)
        self.url, self.headers, self.expect_100_continue = url, headers, expect
        self.scope["headers"] = headers
        super().on_headers_complete()

    def _check_upgrade(self) -> None:
        if self.parser.get_method() == b"CONNECT":
            self._deny(405, "method_not_allowed", "This is no proxy.")
        if self._should_upgrade():
            self._hand_to_app()

    def _without_upgrade(self) -> bytes:
        """Return the head again for a new parser, without what asks for an upgrade.

        HTTP lets a server ignore an upgrade, and some clients ask for h2c with every request,
        but the parser stops there and would leave the body unread.
        """
        old = self.parser
        line = (old.get_method(), self.url, old.get_http_version().encode())
        kept = [header for header in self.headers if header[0] not in UPGRADING]
        if not old.should_keep_alive():
            kept.append((b"connection", b"close"))
        self.parser = httptools.HttpRequestParser(self)
        self._refuse_data_after_close()
        return b"%b %b HTTP/%b\r\n%b\r\n" % (*line, header_block(kept))
