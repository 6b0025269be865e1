"""The router's end of the feed: dials the operator, hears pushes, tells reports, for ever.

Nothing here may stop serving: whatever fails, the router goes on with the orders it has. While
no operator can be heard the mounted snapshot is looked at. It refuses to know what orders mean
(`orders`, `obedience`).
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import msgspec
from grpc import aio
from msgspec.structs import replace

from weir_core.evidence import Key, Tally
from weir_core.wire import MAX_PACKED, Report, WireError, decode_push, filled, unpack
from weir_router.ledger import Ledger
from weir_router.obedience import Obedience
from weir_router.orders import OldTermError
from weir_router.resolve import Resolver

METHOD = "/weir.Feed/Stream"
MAX_ADDRESSES = 8
REASON_S = 0.2
"""How long the end of a stream is waited for when a report could not be told."""
log = logging.getLogger("weir")


class FeedError(Exception):
    """The operator cannot be heard; says why."""


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """Where the operator is, and what opens its door; both files are read again at each dial.

    `server` is the name in its certificate.
    """

    host: str
    port: int
    server: str
    token: Path
    ca: Path
    snapshot: Path


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """The feed's times, seconds.

    Reports go every `report` while something changed and every `idle` at least. Nothing heard
    for `silent`: dial again. `first` is how long the operator is waited for before the mounted
    snapshot is taken; `cut_off` after how long a sidecar's canary gets nothing.
    """

    dial: float = 10.0
    retry: float = 0.2
    retry_most: float = 5.0
    report: float = 0.25
    idle: float = 1.0
    silent: float = 15.0
    first: float = 2.0
    look: float = 0.5
    cut_off: float = 30.0
    farewell: float = 2.0


class Feed:
    """One router's feed. `run()` until cancelled; `end()` says farewell before that.

    `clock` gives seconds that never go back; `turned` hears whether the operator is heard.
    """

    def __init__(
        self,
        link: Link,
        *,
        obedience: Obedience,
        ledger: Ledger,
        clock: Callable[[], float],
        pace: Pace = Pace(),  # noqa: B008 - frozen
        chance: Callable[[], float] = random.random,
        turned: Callable[[bool], None] = lambda connected: None,
    ) -> None:
        self._link = link
        self._turned = turned
        self._obedience = obedience
        self._ledger = ledger
        self._clock = clock
        self._pace = pace
        self._chance = chance
        self._resolve = Resolver()
        self._heard_s = float("-inf")
        self._connected = False
        self._tried = asyncio.Event()
        self._news = asyncio.Event()
        self._ending = asyncio.Event()
        self._over = asyncio.Event()
        self._seen: tuple[int, int] | None = None
        self._why = ""
        obedience.on_news = self._news.set

    @property
    def why(self) -> str:
        """Why the operator cannot be heard now, "" while it is."""
        return "" if self._connected else self._why or "the operator was not heard yet"

    async def run(self) -> None:
        """Dial, hear and tell until cancelled or ended."""
        watching = asyncio.create_task(self._watch())
        wait_s = self._pace.retry
        try:
            while not self._ending.is_set():
                heard_s = self._heard_s
                await self._dial()
                if self._heard_s > heard_s:
                    wait_s = self._pace.retry
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait_s * (0.5 + self._chance() / 2)):
                        await self._ending.wait()
                wait_s = min(2 * wait_s, self._pace.retry_most)
        finally:
            self._over.set()
            watching.cancel()

    async def end(self) -> None:
        """Tell a last report, if the operator is there to hear it, and stop dialling."""
        self._ending.set()
        self._news.set()
        if self._connected:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pace.farewell):
                    await self._over.wait()

    async def _dial(self) -> None:
        """Hold one stream until it ends, for whatever reason."""
        why = "the stream ended"
        try:
            await self._stream()
        except aio.AioRpcError as error:
            why = f"{error.code().name}: {error.details()}"[:300]
        except (FeedError, OldTermError, WireError, OSError) as error:
            why = str(error)[:300] or repr(error)
        except Exception:
            log.exception("the feed failed")
            why = "an error of the router's own"
        finally:
            was_connected, self._connected = self._connected, False
            self._turned(False)
            self._tried.set()
        if was_connected:
            log.info("the feed's stream ended", extra={"why": why})
        elif why != self._why:  # The same trouble is told once.
            log.warning("the operator is not heard", extra={"why": why})
        self._why = why

    async def _stream(self) -> None:
        token = self._link.token.read_text("ascii").strip()
        credentials = grpc.ssl_channel_credentials(self._link.ca.read_bytes())
        options = (*_OPTIONS, ("grpc.ssl_target_name_override", self._link.server))
        async with aio.secure_channel(
            await self._target(), credentials, options=options
        ) as channel:
            call = channel.stream_stream(METHOD)(metadata=(("authorization", f"Bearer {token}"),))
            try:
                async with asyncio.timeout(self._pace.dial):
                    await call.wait_for_connection()
            except TimeoutError as error:
                raise FeedError(f"no answer within {self._pace.dial:g} s") from error
            hearing = asyncio.create_task(self._hear(call))
            telling = asyncio.create_task(self._tell(call))
            try:
                await asyncio.wait((hearing, telling), return_when=asyncio.FIRST_COMPLETED)
                # Why a stream ended is heard, be it that the last report was told.
                patience_s = self._pace.farewell if self._ending.is_set() else REASON_S
                await asyncio.wait((hearing,), timeout=patience_s)
                heard = hearing.done()
            finally:
                # It is the call that ends both. Were an awaiter of gRPC's cancelled, its core
                # would still write to what that frees (issue 43360 of grpc/grpc).
                call.cancel()
                self._news.set()
                await asyncio.gather(hearing, telling, return_exceptions=True)
            (hearing if heard or telling.cancelled() else telling).result()

    async def _target(self) -> str:
        """Return the operator's addresses, of one family, as gRPC takes them. Raises FeedError."""
        link = self._link
        try:
            async with asyncio.timeout(self._pace.dial):
                found = (await self._resolve(link.host, link.port))[:MAX_ADDRESSES]
        except (TimeoutError, OSError) as error:
            raise FeedError(f"no address for {link.host}: {error}") from error
        six = [f"[{address}]:{port}" for address, port in found if ":" in address]
        four = [f"{address}:{port}" for address, port in found if ":" not in address]
        return f"ipv4:{','.join(four)}" if four else f"ipv6:{','.join(six)}"

    # Hearing.

    async def _hear(self, call: Any) -> None:
        silent_s = self._pace.silent
        while True:
            patience = asyncio.get_running_loop().call_later(silent_s, call.cancel)
            try:
                data = await call.read()
            except asyncio.CancelledError as error:
                # That is how a read ends when its call is cancelled.
                raise FeedError(f"nothing heard for {silent_s:g} s") from error
            finally:
                patience.cancel()
            if data is aio.EOF:
                return
            push = decode_push(data)
            self._obedience.push(push)
            self._heard_s = self._clock()
            self._obedience.hear(cut_off=False)
            if not self._connected:
                self._connected, self._why = True, ""
                self._turned(True)
                self._tried.set()
                log.info("the operator is heard", extra={"term": push.term})

    # Telling.

    async def _tell(self, call: Any) -> None:
        """Report until the call ends; each report holds all that changed since the last."""
        sent: dict[Key, tuple[int, float]] = {}
        told: Report | None = None
        told_s = float("-inf")
        while not call.done():
            final = self._ending.is_set()
            report = self._obedience.report(final=final)
            now_s = self._clock()
            unsent = _unsent(self._ledger.tallies(now_s), sent)
            same = told is not None and replace(report, as_of_s=told.as_of_s) == told
            if final or unsent or not same or now_s - told_s >= self._pace.idle:
                if told is not None and report.acks != told.acks:
                    # What was not of a published route may be now: tell all of it again.
                    sent.clear()
                    unsent = _unsent(self._ledger.tallies(now_s), sent)
                data, count = filled(report, unsent)
                await call.write(data)
                sent.update((t.key, (t.seq, now_s)) for t in unsent[:count])
                told, told_s = report, now_s
            if final:
                await call.done_writing()
                return
            self._news.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pace.report):
                    await self._news.wait()

    # Without the operator.

    async def _watch(self) -> None:
        """Look at the mounted snapshot while the operator is not heard, and at the time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._pace.first):
                await self._tried.wait()
        while True:
            try:
                if not self._connected:
                    self._look()
                    cut_off = self._clock() - self._heard_s > self._pace.cut_off
                    self._obedience.hear(cut_off=cut_off)
            except Exception:
                log.exception("the mounted snapshot could not be obeyed")
            await asyncio.sleep(self._pace.look)

    def _look(self) -> None:
        path = self._link.snapshot
        try:
            stat = path.stat()
            seen = (stat.st_ino, stat.st_mtime_ns)
            if seen == self._seen or stat.st_size > MAX_PACKED:
                return
            data = path.read_bytes()
        except OSError:
            return
        self._seen = seen
        try:
            self._obedience.mount(unpack(data))
        except WireError as error:
            log.warning("mounted snapshot unreadable", extra={"error": str(error)})


def _unsent(tallies: tuple[Tally, ...], sent: dict[Key, tuple[int, float]]) -> list[Tally]:
    """Return the tallies that changed since they were sent, those that wait longest first."""
    changed = [t for t in tallies if t.key not in sent or sent[t.key][0] != t.seq]
    return sorted(changed, key=lambda t: sent.get(t.key, (0, 0.0))[1])


_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_PACKED),
    ("grpc.max_send_message_length", -1),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
)
