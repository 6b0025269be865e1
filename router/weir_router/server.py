"""The front door: model endpoints answered on uvicorn's own connections, the rest by the app.

A subclass of uvicorn's httptools protocol: sockets, TLS, signals and shutdown stay uvicorn's.
A request to a path with a handler becomes an `Exchange`, one task and mostly one write; every
other request reaches the ASGI app as uvicorn does it. What arrives is bounded in bytes and in
time, and what has two readings is refused. It refuses to know what models are.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from weir_router.alarm import Alarm
from weir_router.cycle import (
    CLOSE_END,
    Crash,
    Exchange,
    Handler,
    Reply,
    place_of,
    refusal,
    unavailable,
    wrong_method,
)
from weir_router.headers import header_block
from weir_router.intake import BETWEEN, BODY, HEAD, Intake, ServerLimits, Settings

__all__ = ["Exchange", "FrontDoor", "Handler", "ServerLimits", "model_protocol"]

log = logging.getLogger(__name__)

BUSY, IDLE, LINGER = "busy", "idle", "linger"
"""What a connection waits for when it waits for no part of a request."""


def model_protocol(
    handlers: Mapping[bytes, Handler],
    limits: ServerLimits | None = None,
    *,
    crash: Crash = unavailable,
    access_log: bool = False,
    crowded: Callable[[], None] = lambda: None,
) -> type[HttpToolsProtocol]:
    """Return the class for `uvicorn.Config(http=...)` that answers POST to the handlers' paths.

    `crash` supplies the answer where a handler raised or ended without one; `crowded` hears of
    each request that is refused for there are too many connections.
    """
    settings = Settings(handlers, limits or ServerLimits(), crash, access_log, crowded)
    return type("ModelProtocol", (FrontDoor,), {"settings": settings})


class FrontDoor(Intake):
    """One client connection. `cycle` is the request parsed last, `active` the one answered.

    Requests that arrive before their turn wait in `pipeline` as (cycle, handler, app or denial),
    newest left, as uvicorn has it.
    """

    cycle: Any

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.access_log &= self.settings.access_log
        self.limits = self.settings.limits
        self.alarm = Alarm(self.loop, self._expire)
        self.pipeline = deque()
        self.active: Any = None
        self.phase = HEAD
        self.ours = False
        self.deaf = False
        self.peer = ""
        self._stall: asyncio.TimerHandle | None = None

    def common_head(self) -> bytes:
        """Return the header lines that every answer carries."""
        return self.settings.common_head(self.server_state.default_headers)

    # The transport calls these.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request's head."""
        super().connection_made(transport)
        self.peer = self.client[0] if self.client else ""
        self._join()
        wait_s = self.limits.linger_s if self.crowded else self.limits.header_timeout_s
        self.alarm.set(self.loop.time() + wait_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the requests in flight that their client is gone."""
        self.connections.discard(self)
        self.settings.crowd -= self.crowded
        self.alarm.stop()
        self.resume_writing()
        self.deaf = True
        self.parser = None
        waiting = [cycle for cycle, app in self.pipeline]
        self.pipeline.clear()
        for cycle in (self.active, *waiting):
            if cycle is None or cycle.response_complete:
                continue
            cycle.lose() if isinstance(cycle, Exchange) else _lose(cycle)

    def data_received(self, data: bytes) -> None:
        """Parse what came; refuse it, or watch over what is still missing."""
        if self.deaf:
            return
        self._fresh = False
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self._refuse_unparsed()
        if self.part is not BETWEEN and not self.deaf:
            self._watch_part(len(data))

    def _upgrade(self, rest: bytes) -> None:
        if self._should_upgrade():
            self.alarm.stop()
            self.deaf = True
            self.handle_websocket_upgrade()
        else:
            # No deep recursion: each level is a request, and max_pipelined bounds these.
            self.data_received(self._without_upgrade() + rest)

    def pause_writing(self) -> None:
        """Make `drain` wait, and bound that wait."""
        super().pause_writing()
        if self._stall is None:
            wait_s = self.limits.stall_timeout_s
            self._stall = self.loop.call_later(wait_s, self.transport.abort)

    def resume_writing(self) -> None:
        """Let writers go on."""
        super().resume_writing()
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def shutdown(self) -> None:
        """Finish the requests that have begun and close; close now if there is none."""
        if self.active is None or self.active.response_complete:
            self.transport.close()
            return
        self.cycle.keep_alive = False

    # The parser calls these.

    def on_headers_complete(self) -> None:
        """Check the head, and give the request its turn."""
        old = self.parser.get_http_version() != "1.1"
        if self.parser.should_upgrade():
            self._check_upgrade()
            return
        self._check_head(old)
        self._check_load()
        path, query = self._target()
        handler = self.settings.handlers.get(path)
        if self.crowded:
            self._check_crowd(handler)
        self.ours = handler is not None
        if handler is None:
            self._hand_to_app()
            self.cycle.keep_alive &= not self.crowded
        else:
            self._take_in(handler, path, query, old)
        self._begin_body()

    def on_body(self, body: bytes) -> None:
        """Collect the body, up to its limit."""
        self._count_body(len(body))
        if self.ours:
            self._pieces.append(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Begin to handle the request if it is its turn."""
        if self.part is HEAD:  # An upgrade: the request follows again without it.
            return
        self.part = BETWEEN
        if self.phase is not BUSY:
            self.phase = BUSY
            self.alarm.clear()
        if self.ours:
            pieces = self._pieces
            self.cycle.body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            self.cycle.whole = True
            if self.active is self.cycle:
                self._begin(self.cycle)
        else:
            super().on_message_complete()
            if self.active is self.cycle and self.cycle.response_complete:
                self._rest()

    # A request's way.

    def _take_in(self, handler: Handler, path: bytes, query: bytes, old: bool) -> None:
        method = self.parser.get_method()
        last = self.cycle
        self.cycle = exchange = Exchange(
            self,
            handler if method == b"POST" else wrong_method,
            method,
            path,
            query,
            self.headers,
            self.peer,
            not old and self.parser.should_keep_alive(),
            old,
        )
        if last is None or last.response_complete:
            self.active = exchange
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((exchange, handler))

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self.active = cycle
        super()._start_asgi_task(cycle, app)

    def _begin(self, exchange: Exchange) -> None:
        exchange.task = self.loop.create_task(self._run(exchange))
        self.tasks.add(exchange.task)

    async def _run(self, exchange: Exchange) -> None:
        try:
            await exchange.handler(exchange)
            if not exchange.complete and not exchange.gone:
                self._crash(exchange, "no answer")
        except Exception as error:
            self._crash(exchange, type(error).__name__, place_of(error))
        except BaseException:  # Cancelled by a shutdown that would not wait longer.
            self._crash(exchange, "cancelled")
            raise
        finally:
            # A done callback would cost a turn of the loop for each request.
            self.tasks.discard(exchange.task)

    def _crash(self, exchange: Exchange, error: str, place: str = "") -> None:
        # The error's text might quote the request, so it is not logged.
        log.error("handler failed", extra={"error": error, "place": place})
        if exchange.complete or exchange.gone:
            return
        exchange.on_gone = None
        if exchange.started:
            self.transport.close()
        else:
            exchange.reply(*self._crash_reply(exchange))

    def _crash_reply(self, exchange: Exchange) -> Reply:
        try:
            return self.settings.crash(exchange)
        except Exception as error:
            fields = {"error": type(error).__name__, "place": place_of(error)}
            log.error("crash hook failed", extra=fields)
            return unavailable(exchange)

    def on_response_complete(self) -> None:
        """Give the next request its turn, or rest."""
        self.server_state.total_requests += 1
        cycle = self.active
        if self.settings.access_log and isinstance(cycle, Exchange):
            self._log_access(cycle)
        if self.transport.is_closing():
            return
        if not cycle.keep_alive:
            self._hang_up()
        elif self.pipeline:
            self._take_turn(*self.pipeline.pop())
        else:
            self._rest()

    def _log_access(self, exchange: Exchange) -> None:
        fields = {
            "client": exchange.client,
            "method": exchange.method.decode(),
            "path": exchange.path.decode(),
            "status": exchange.status,
        }
        log.info("request answered", extra=fields)

    def _take_turn(self, cycle: Any, app: Any) -> None:
        self.active = cycle
        if not self.pipeline:
            self.flow.resume_reading()
        if isinstance(app, tuple):
            self._say(app)
        elif not isinstance(cycle, Exchange):
            self._start_asgi_task(cycle, app)
        elif cycle.whole:
            self._begin(cycle)
        else:
            self._watch_part(0)

    # Waiting, refusing and closing.

    def _rest(self) -> None:
        self.flow.resume_reading()
        if self.part is BETWEEN:
            self.phase = IDLE
            self.alarm.set(self.loop.time() + self.limits.keep_alive_s)
        else:
            self._watch_part(0)

    def _watch_part(self, count: int) -> None:
        """Bound the bytes and the time of a part of a request that is not all there."""
        if self._is_stray(count):
            self._refuse(refusal(431, "headers_too_large", "Too many bytes in no body."))
            return
        if self.part is BODY and self.active is not self.cycle:
            self.phase = BUSY  # Reading is paused until its turn: the client cannot be late.
            self.alarm.clear()
            return
        if self.part is BODY and self.ours and self.expect_100_continue:
            self.expect_100_continue = False
            if not self.active.old:
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if self.phase != self.part:
            self.phase = self.part
            limits = self.limits
            wait_s = limits.header_timeout_s if self.part is HEAD else limits.body_timeout_s
            self.alarm.set(self.loop.time() + wait_s)

    def _expire(self) -> None:
        if self.phase is LINGER:
            self.transport.abort()
        elif self.part is BETWEEN:
            self.transport.close()
        else:
            self._refuse(refusal(408, "request_timeout", "The request did not arrive in time."))

    def _refuse_unparsed(self) -> None:
        if self.denial is None and self.part is BETWEEN and self.cycle is not None:
            # Data after `Connection: close`. The answer to the request before is the last.
            self.deaf = True
            return
        self._refuse(self.denial or refusal(400, "bad_request", "This is not valid HTTP/1.1."))

    def _refuse(self, denial: Reply) -> None:
        """Answer `denial` in its turn as the last answer; hear nothing more."""
        self.deaf = True
        waiting = self.active is not None and not self.active.response_complete
        if self.part is BODY and self.pipeline:
            self.pipeline[0] = (self.cycle, denial)
        elif self.part is BODY and not waiting:
            self.transport.close()  # Answered before its body came: nothing is left to say.
        elif self.part is BODY and isinstance(self.active, Exchange):
            self._say(denial)
        elif self.part is BODY:
            self._refuse_app(denial)
        elif waiting:
            self.pipeline.appendleft((None, denial))
        else:
            self._say(denial)

    def _refuse_app(self, denial: Reply) -> None:
        _lose(self.active)
        if self.active.response_started:
            self.transport.close()
        else:
            self._say(denial)

    def _say(self, denial: Reply) -> None:
        if self.transport.is_closing():
            return
        status, headers, body = denial
        length = b"content-length: %d\r\n" % len(body)
        head = (STATUS_LINE[status], self.common_head(), header_block(headers), length, CLOSE_END)
        self.transport.write(b"".join((*head, body)))
        self.server_state.total_requests += 1
        self._linger()

    def _linger(self) -> None:
        """Close, but hear the client out for a while: a reset would destroy the answer."""
        if not self.transport.can_write_eof():
            self._hang_up()
            return
        self.transport.write_eof()
        self.flow.resume_reading()
        self.phase = LINGER
        self.alarm.set(self.loop.time() + self.limits.linger_s)

    def _hang_up(self) -> None:
        self.deaf = True
        self.transport.close()
        self.phase = LINGER
        self.alarm.set(self.loop.time() + self.limits.stall_timeout_s)


def _lose(cycle: Any) -> None:
    """Tell a cycle of uvicorn's that its client is gone."""
    cycle.disconnected = True
    cycle.message_event.set()
