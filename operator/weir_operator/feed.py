"""The feed's server: one stream to each router, policy down, evidence up.

A stream knows what its router was sent and sends what differs from what is published now, so a
slow router gets the latest state in one push, never a backlog. Nothing is pushed, and no report
is believed, before the namespace was published once: a restarted operator must know its routes.
"""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable, Mapping
from typing import Any

import grpc
import msgspec
from grpc import aio

from weir_core.snapshot import Limits
from weir_core.wire import MAX_REPORT, Push, Routed, Version, WireError, decode_report, encode
from weir_operator.gatekeeper import Caller, Gatekeeper
from weir_operator.health import Health
from weir_operator.inbox import Connected, Inbox, Published, published
from weir_operator.unharmed import Unharmed

__all__ = ["Connected", "Feed", "Pace"]

SERVICE = "weir.Feed"
MAX_MESSAGE = 4 * MAX_REPORT
"""Bytes of a message beyond which gRPC itself ends the stream; over MAX_REPORT it is dropped."""
MAX_STREAMS = 4_096
BEARER = "Bearer "
LOG_AGAIN_S, MAX_LOGGED = 60.0, 256
"""How often the same refusal is logged, and how many different ones are remembered."""
log = logging.getLogger("weir.operator")


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """The feed's times, seconds. A stream ends at its token's expiry, at `stream` ± a tenth, or
    when nothing was heard for `silent`; a lost router is shown for `lost`."""

    stream: float = 3_600.0
    heartbeat: float = 5.0
    silent: float = 15.0
    lost: float = 60.0
    least_between_reports: float = 0.02


class _Space:
    """One namespace: what is published, who listens."""

    def __init__(self) -> None:
        self.published: Published | None = None
        self.limits: dict[str, Limits] = {}
        self.known = asyncio.Event()
        self.streams: dict[str, _Stream] = {}
        self.inboxes: dict[str, Inbox] = {}

    def wake(self) -> None:
        for stream in self.streams.values():
            stream.wake.set()


class _Stream:
    """What one router was sent on one stream; `over` says that it has a newer one."""

    def __init__(self, caller: Caller, inbox: Inbox) -> None:
        self.caller = caller
        self.inbox = inbox
        self.wake = asyncio.Event()
        self.over = asyncio.Event()
        self._sent: dict[str, Version] | None = None
        self._limits: dict[str, Limits] | None = None

    def delta(self, space: _Space, term: int) -> Push | None:
        """Return what this router does not know yet, and count it as sent; None for nothing."""
        assert space.published is not None
        routes = space.published.routes
        sent = self._sent if self._sent is not None else {}
        changed = {key: one for key, one in routes.items() if sent.get(key) != one.version}
        gone = {key: Routed(version=at) for key, at in sent.items() if key not in routes}
        limits = space.limits if space.limits != self._limits else None
        is_first = self._sent is None
        if not (changed or gone or is_first or limits is not None):
            return None
        self._sent = {key: one.version for key, one in routes.items()}
        self._limits = space.limits
        return Push(term=term, complete=is_first, routes={**changed, **gone}, limits=limits)


class Feed:
    """Serves the streams of all routers.

    `term` is the operator's, of all versions that it gives. `on_report` hears the namespace of a
    router that said something new, came or was lost, `on_term` a later term that a router says it
    obeys: it will take nothing of this one. `clock` gives Unix seconds. `refused` counts
    reports that were not believed, or in part, by reason.
    """

    def __init__(
        self,
        gatekeeper: Gatekeeper,
        *,
        term: int,
        on_report: Callable[[str], None] = lambda namespace: None,
        on_term: Callable[[int], None] = lambda term: None,
        clock: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
        pace: Pace = Pace(),  # noqa: B008 - frozen
    ) -> None:
        self._gatekeeper = gatekeeper
        self._term = term
        self.on_report = on_report
        self._on_term = on_term
        self._clock = clock
        self._chance = chance
        self._pace = pace
        self._spaces: dict[str, _Space] = {}
        self._calls = Unharmed()
        self.refused: dict[str, int] = {}
        self._logged: dict[str, float] = {}
        self._health = Health(SERVICE)
        self._server: aio.Server | None = None
        self._certificate: grpc.ServerCertificateConfiguration | None = None

    # Serving.

    async def start(self, address: str, *, certificate: bytes, key: bytes) -> int:
        """Listen on `host:port` and return the port. Raises RuntimeError if it cannot."""
        self.renew(certificate=certificate, key=key)
        server = aio.server(maximum_concurrent_rpcs=MAX_STREAMS, options=_OPTIONS)
        stream = grpc.stream_stream_rpc_method_handler(self._serve)
        handler = grpc.method_handlers_generic_handler(SERVICE, {"Stream": stream})
        server.add_generic_rpc_handlers((handler, self._health.handler()))
        credentials = grpc.dynamic_ssl_server_credentials(
            self._certificate, lambda: self._certificate, False
        )
        port = int(server.add_secure_port(address, credentials))
        await server.start()
        self._server = server
        return port

    def renew(self, *, certificate: bytes, key: bytes) -> None:
        """Show this serving certificate (PEM) to whoever connects from now on."""
        self._certificate = grpc.ssl_server_certificate_configuration([(key, certificate)])

    async def stop(self, grace_s: float = 1.0) -> None:
        """End all streams and stop listening."""
        self._health.serving = False
        for space in self._spaces.values():
            for stream in space.streams.values():
                stream.over.set()
        if self._server is not None:
            await self._server.stop(grace_s)
            await self._calls.over(grace_s)

    # What the walk says and asks.

    def publish(
        self, namespace: str, routes: Mapping[str, Routed], limits: Mapping[str, Limits]
    ) -> None:
        """Take a namespace's whole state: routes by key "ns/name", limits by backend identity.

        A route that changed must have a greater version; one that is not named is gone.
        """
        space = self._space(namespace)
        before = space.published
        space.published = published(dict(routes), before)
        is_new = before is None or _versions(before.routes) != _versions(routes)
        if is_new or space.limits != limits:
            space.limits = dict(limits)
            space.wake()
        space.known.set()

    def connected(self, namespace: str) -> tuple[Connected, ...]:
        """Return the routers that have reported, those lately lost too."""
        space = self._spaces.get(namespace)
        if space is None:
            return ()
        now_s = self._clock()
        for uid, inbox in list(space.inboxes.items()):
            if not inbox.streams and now_s - inbox.seen_s > self._pace.lost:
                del space.inboxes[uid]
        shown = (space.inboxes[uid].connected(now_s) for uid in sorted(space.inboxes))
        return tuple(one for one in shown if one is not None)

    def forget(self, namespace: str) -> None:
        """Drop a namespace that has no route and no router on a stream."""
        space = self._spaces.get(namespace)
        if space is None or (space.published is not None and space.published.routes):
            return
        if not space.streams and not any(inbox.streams for inbox in space.inboxes.values()):
            del self._spaces[namespace]

    def _space(self, namespace: str) -> _Space:
        return self._spaces.setdefault(namespace, _Space())

    # One stream.

    async def _serve(self, _: Any, context: Any) -> None:
        caller = await self._admitted(context)
        space = self._space(caller.namespace)
        inbox = space.inboxes.setdefault(caller.pod_uid, Inbox(caller))
        stream = _Stream(caller, inbox)
        before = space.streams.get(caller.pod_uid)
        if before is not None:
            before.over.set()
        space.streams[caller.pod_uid] = stream
        inbox.streams += 1
        fields = {"namespace": caller.namespace, "pod": caller.pod_name}
        log.info("router connected", extra=fields)
        self.on_report(caller.namespace)
        try:
            await context.send_initial_metadata(())
            await self._until_over(space, stream, context)
        finally:
            inbox.streams -= 1
            inbox.seen_s = max(inbox.seen_s, self._clock())
            if space.streams.get(caller.pod_uid) is stream:
                del space.streams[caller.pod_uid]
            log.info("router's stream ended", extra=fields)
            self.on_report(caller.namespace)

    async def _admitted(self, context: Any) -> Caller:
        """Return who calls, or end the call with the reason."""
        told = dict(context.invocation_metadata() or ()).get("authorization", "")
        token = told.removeprefix(BEARER) if isinstance(told, str) else ""
        verdict = await self._gatekeeper.admit(token if told != token else "")
        if isinstance(verdict, Caller):
            return verdict
        self._log_refusal(context.peer(), verdict.why)
        await context.abort(grpc.StatusCode[verdict.code], verdict.why)
        raise AssertionError("abort raises")

    def _log_refusal(self, peer: str, why: str) -> None:
        """Log why a router is refused, the same now and then: it dials every few seconds."""
        now_s = self._clock()
        if now_s - self._logged.get(why, float("-inf")) < LOG_AGAIN_S:
            return
        self._logged = dict([*self._logged.items(), (why, now_s)][-MAX_LOGGED:])
        log.warning("router refused", extra={"peer": peer, "why": why})

    async def _until_over(self, space: _Space, stream: _Stream, context: Any) -> None:
        longest_s = self._pace.stream * (0.9 + 0.2 * self._chance())
        lifetime_s = min(stream.caller.expires_s - self._clock(), longest_s)
        tasks = [
            asyncio.create_task(self._hear(space, stream, context)),
            asyncio.create_task(self._tell(space, stream, context)),
            asyncio.create_task(stream.over.wait()),
        ]
        try:
            done, _ = await asyncio.wait(
                tasks, timeout=max(0.0, lifetime_s), return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            _reraise(task)

    async def _hear(self, space: _Space, stream: _Stream, context: Any) -> None:
        """Take reports until the router says no more, or nothing for too long."""
        await space.known.wait()
        while True:
            async with asyncio.timeout(self._pace.silent):
                data = await self._calls.of(context.read())
            if data is aio.EOF:
                return
            self._take(space, stream, data)
            # So a router in a frenzy waits for its turn.
            await asyncio.sleep(self._pace.least_between_reports)

    def _take(self, space: _Space, stream: _Stream, data: bytes) -> None:
        assert space.published is not None
        if stream.over.is_set():
            return  # The pod speaks on a newer stream, be it of a lower start.
        fields = {"namespace": stream.caller.namespace, "pod": stream.caller.pod_name}
        if len(data) > MAX_REPORT:
            log.warning("report too large", extra={**fields, "bytes": len(data)})
            self._count("size")
            return
        try:
            report, unread = decode_report(data)
        except WireError as error:
            log.warning("report unreadable", extra={**fields, "error": str(error)[:300]})
            self._count("unreadable")
            return
        term = max((version[0] for version in report.acks.values()), default=0)
        if term > self._term and not stream.caller.sidecar:
            self._on_term(term)
        is_new, refused = stream.inbox.take(report, space.published, self._clock())
        for why in (*refused, *(("unreadable",) if unread else ())):
            self._count(why)
        if refused or unread:
            what = " ".join(f"{why}={count}" for why, count in refused.items())
            log.info("report in part", extra={**fields, "refused": what, "unread": unread})
        if is_new:
            self.on_report(stream.caller.namespace)

    def _count(self, why: str) -> None:
        self.refused[why] = self.refused.get(why, 0) + 1

    async def _tell(self, space: _Space, stream: _Stream, context: Any) -> None:
        """Push what changed for ever; one push at a time, the next holds all that came since."""
        await space.known.wait()
        while True:
            stream.wake.clear()
            push = stream.delta(space, self._term) or Push(term=self._term)
            await self._calls.of(context.write(encode(push)))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pace.heartbeat):
                    await stream.wake.wait()


def _reraise(task: "asyncio.Task[Any]") -> None:
    """Let a bug out; that a router fell silent or went away is no bug."""
    error = task.exception()
    if error is not None and not isinstance(error, TimeoutError | aio.BaseError | grpc.RpcError):
        raise error


def _versions(routes: Mapping[str, Routed]) -> dict[str, Version]:
    return {key: routed.version for key, routed in routes.items()}


_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    ("grpc.max_send_message_length", -1),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 4_000),
    ("grpc.so_reuseport", 0),
)
