"""One call's event stream: gathered while it may still be taken back, then passed on.

It refuses to know tiers and when to commit: that is the step machine's to say (`walk`).
"""

from collections.abc import Awaitable, Callable

from weir_core.snapshot import Behaviour
from weir_core.turns import Call
from weir_router import calls, client
from weir_router.answer import Answer, Prefix, read_stream
from weir_router.calls import Context, Trouble
from weir_router.dialect import PATHS, Ask, Kind, Request, upstream_body
from weir_router.relay import Relay
from weir_router.upstreams import Upstream

Write = Callable[[bytes], Awaitable[None]]


async def open_stream(
    upstream: Upstream, request: Request, ask: Ask, context: Context, call: Call
) -> client.Stream | Trouble:
    """Return the answer's stream once its head has come, or what is wrong with it."""
    fields = calls.headers(upstream, context, call.timeout_ms)
    body = upstream_body(request, ask)
    stream = await upstream.pool.open(
        b"POST", PATHS[request.kind], fields, body, timeout_ms=call.timeout_ms
    )
    if isinstance(stream, client.Failure):
        return Trouble(stream.cause, 0, stream.sent, stream.detail)
    if stream.status != 200:
        return await calls.refused_stream(stream)
    if calls.content_type(stream.headers) != b"text/event-stream":
        stream.close()
        return Trouble("ServerError", 200, True, "not an event stream")
    return stream


def inflow(
    stream: client.Stream,
    request: Request,
    ask: Ask,
    behaviour: Behaviour,
    tier: int,
    *,
    keep: bool,
) -> "Inflow":
    """Return the stream as a tier's checks and its client need it; `keep` all of it anyway."""
    early = behaviour.commit == "FirstToken" or not behaviour.tiers[tier].accept
    partly = behaviour.commit == "Prefix"
    relay = Relay(
        strip_usage=not request.wants_usage,
        # What is not committed early is written anew when it is accepted as a whole.
        strip_logprobs=partly and ask.logprobs >= 0 and not request.wants_logprobs,
        keep=keep or not early,
    )
    wants = any(tier.accept for tier in behaviour.tiers)
    return Inflow(stream, relay, kind=request.kind, logprobs=wants)


class Inflow:
    """An event stream that has begun. `unsent` is what its client gets of what came so far.

    `prefix` is the answer as far as it was held, None where that cannot be read.
    """

    __slots__ = ("_kind", "_logprobs", "_relay", "_stream", "prefix", "unsent")

    def __init__(self, stream: client.Stream, relay: Relay, *, kind: Kind, logprobs: bool) -> None:
        self._stream = stream
        self._relay = relay
        self._kind = kind
        self._logprobs = logprobs
        """Read those of what is kept, too."""
        self.unsent = b""
        self.prefix: Answer | None = None

    @property
    def started(self) -> bool:
        """Whether the first event of an answer has come."""
        return self._relay.started

    async def begin(self) -> Trouble | None:
        """Read until the first event has come."""
        while not self._relay.started:
            out = await self._read()
            if isinstance(out, Trouble):
                return out
            self.unsent += out
        return None

    async def hold(self, tokens: int, choices: int) -> Answer | Trouble | None:
        """Read until each choice has so many tokens; the answer where all of it came before.

        None: so many have come, `prefix` tells them, and more may follow.
        """
        held = Prefix(self._kind, logprobs=self._logprobs, tokens=tokens, choices=choices)
        while True:
            held.look(self._relay.kept)
            if held.reached:
                raw = bytes(self._relay.kept[: held.end])
                self.prefix = read_stream(self._kind, raw, logprobs=self._logprobs)
                return None
            if self._relay.done or self._relay.overflowed:
                return await self.run(None)
            out = await self._read()
            if isinstance(out, Trouble):
                return out
            self.unsent += out

    def forget(self) -> None:
        """Keep nothing more of what passes."""
        self._relay.forget()

    async def run(self, write: Write | None) -> Answer | Trouble:
        """Read to the end and return the answer; `write` gets what is the client's, if given.

        The answer has no choices where a stream that was passed on was not kept.
        """
        out: bytes | Trouble = self.unsent
        while True:
            if isinstance(out, Trouble):
                return out
            if write is None and self._relay.overflowed:
                self.close()
                return Trouble("BrokenStream", 200, True, "too long to verify", blames=False)
            if write is not None and out:
                await write(out)
            if self._relay.done:
                await calls.let_end(self._stream)
                self.close()
                return self._answer(passed_on=write is not None)
            out = await self._read()

    def close(self) -> None:
        """Want no more."""
        self._stream.close()

    async def _read(self) -> bytes | Trouble:
        """Return what one read gives to the client, b"" when nothing yet, Trouble at a break."""
        relay = self._relay
        chunk = await self._stream.read()
        if isinstance(chunk, client.Failure):
            return Trouble(chunk.cause, 0, True, chunk.detail)
        if not chunk:
            return Trouble("BrokenStream", 200, True, "the stream ended without [DONE]")
        out = relay.feed(chunk)
        if relay.broken:
            self.close()
            return Trouble("BrokenStream", 200, True, relay.broken)
        return out

    def _answer(self, *, passed_on: bool) -> Answer | Trouble:
        relay = self._relay
        if relay.kept and not relay.overflowed:
            found = read_stream(self._kind, bytes(relay.kept), logprobs=self._logprobs)
            if found is not None:
                return found
            if not passed_on:
                return Trouble("ServerError", 200, True, "no completion")
        return Answer(choices=(), usage=relay.usage, raw=b"")
