"""One request in flight: performs what the step machine says and feeds back what happened.

A walk keeps the route it started with. It is interrupted from outside by `stop` only: the
client went away, or a brake recalls it to stable.
"""

import asyncio
from collections.abc import Callable

from weir_core.cascade import State, begin, step
from weir_core.turns import (
    Action,
    Answered,
    Call,
    Cancel,
    ClientGone,
    Commit,
    Event,
    Fail,
    Failed,
    FirstBytes,
    Plan,
    Recalled,
    Reply,
    Verified,
    Verify,
)
from weir_router import calls, client, verify
from weir_router.answer import Answer, read_stream
from weir_router.calls import Context, Trouble
from weir_router.dialect import PATHS, Request, upstream_body
from weir_router.load import Load
from weir_router.plan import Given
from weir_router.relay import Relay
from weir_router.table import Arm, Route
from weir_router.telemetry import Metrics
from weir_router.upstreams import Upstream, Upstreams


class Sink:
    """Where a committed stream goes. Audits have none: they take whole answers."""

    __slots__ = ()

    def commit(self, walk: "Walk") -> None:
        """Start the reply: what follows cannot be taken back."""

    async def write(self, chunk: bytes) -> None:
        """Pass on whole events, waiting for a slow reader."""


class Walk:
    """One request's calls. After run(): `state`, the last action `end`, and the answer."""

    __slots__ = (
        "_asking",
        "_commit_sink",
        "_escalating",
        "_interrupt",
        "_keep",
        "_load",
        "_metrics",
        "_moving",
        "_recalled_to",
        "_relay",
        "_stream",
        "_task",
        "_unsent",
        "_upstreams",
        "answer",
        "answered_by",
        "arm",
        "call",
        "clock",
        "context",
        "end",
        "given",
        "plan",
        "request",
        "route",
        "rule",
        "state",
        "trouble",
    )

    def __init__(
        self,
        *,
        route: Route,
        arm: Arm,
        request: Request,
        plan: Plan,
        given: Given,
        context: Context,
        upstreams: Upstreams,
        metrics: Metrics,
        load: Load,
        clock: Callable[[], float],
        rule: str = "",
        sink: Sink | None = None,
        keep_stream: bool = False,
    ) -> None:
        self.route = route
        self.arm = arm
        self.request = request
        self.plan = plan
        self.given = given
        self.context = context
        self.rule = rule
        self.clock = clock
        self.state: State | None = None
        self.end: Reply | Fail | None = None
        self.answer: Answer | None = None
        self.call: Call | None = None
        self.answered_by: Call | None = None
        """The call that `answer` came from; a later one may have failed."""
        self.trouble: Trouble | None = None
        self._upstreams = upstreams
        self._metrics = metrics
        self._load = load
        self._moving = False
        self._escalating = ""
        self._commit_sink = sink
        self._keep = keep_stream
        self._task: asyncio.Task[None] | None = None
        self._interrupt: Event | None = None
        self._recalled_to: Arm | None = None
        self._unsent = b""
        self._asking: Upstream | None = None
        """Asked, and not yet told how it went."""
        self._stream: client.Stream | None = None
        self._relay: Relay | None = None

    def gone(self) -> None:
        """Stop: nobody waits for the reply any more."""
        self._stop(ClientGone(self.clock()))

    def recall(self, arm: Arm, plan: Plan) -> None:
        """Answer again as `arm` does, unless the answer is already on its way."""
        if self.state is not None and not self.state.committed:
            self._recalled_to = arm
            self._stop(Recalled(self.clock(), plan))

    def _stop(self, event: ClientGone | Recalled) -> None:
        if self._task is None or self.end is not None:
            return
        if self._interrupt is None:
            self._task.cancel()
        elif type(event) is Recalled:
            return
        self._interrupt = event

    async def run(self, task: asyncio.Task[None] | None = None) -> None:
        """Walk until Reply or Fail; `state` and `end` tell how it went.

        `task` is the one that runs this, if known: asking costs a system call.
        """
        self._task = task or asyncio.current_task()
        try:
            state, actions = begin(self.plan, now_s=self.clock())
            while True:
                self.state = state
                event = await self._until_event(actions)
                if event is None:
                    return
                state, actions = step(state, event)
        finally:
            self._let_go()
            self._stop_moving()
            if self._escalating:
                self._load.escalating[self._escalating] -= 1
            self._task = None

    async def _until_event(self, actions: tuple[Action, ...]) -> Event | None:
        """Perform the actions; return what happened, None at the end."""
        try:
            return await self._perform(actions)
        except asyncio.CancelledError:
            event, self._interrupt = self._interrupt, None
            if event is None or self._task is None:
                raise
            if self._task.uncancel():
                raise  # A shutdown wants the same task's end.
            self._let_go()
            if self._recalled_to is not None and isinstance(event, Recalled):
                self.arm = self._recalled_to
            return event

    async def _perform(self, actions: tuple[Action, ...]) -> Event | None:
        for action in actions:
            kind = type(action)
            if kind is Call:
                return await self._call(action)  # type: ignore[arg-type]
            if kind is Verify:
                return self._verify(action)  # type: ignore[arg-type]
            if kind is Commit:
                assert self._commit_sink is not None
                self._commit_sink.commit(self)
            elif kind is not Cancel:
                self.end = action  # type: ignore[assignment]
                return None
        return await self._pump()

    async def _call(self, call: Call) -> Event:
        self.call = call
        if not self._escalating and self.state is not None and self.state.escalated:
            self._escalating = self.arm.name
            self._load.escalating[self._escalating] += 1
        upstream = self._upstreams.get(call.backend)
        if not upstream.available(self.clock()):
            self._count("ejected")
            return Failed(call.id, self.clock(), "Connect", asked=False)
        self._asking = upstream
        ask = self.arm.ask(call.tier, call.backend, max_tokens=call.max_tokens, stream=call.stream)
        if call.stream:
            return await self._open(call, upstream, upstream_body(self.request, ask))
        found = await calls.fetch(upstream, self.request, ask, self.context, call.timeout_ms)
        return self._answered(found)

    def _answered(self, found: Answer | Trouble) -> Event:
        call, upstream, state = self.call, self._asking, self.state
        assert call is not None
        assert upstream is not None
        assert state is not None
        now_s = self.clock()
        self._asking = None
        self._stop_moving()
        if type(found) is Answer:
            upstream.succeeded()
            self.answer, self.answered_by = found, call
            self._count("answered")
            cost_pico = calls.cost_pico(call.backend, found.usage)
            # No usage told: it may have cost all that was set aside for it.
            return Answered(call.id, now_s, cost_pico or state.reserved_pico)
        assert isinstance(found, Trouble)
        if self._is_to_blame(found):
            upstream.failed(found.cause, now_s)
        else:
            upstream.released()
        self.trouble = found
        self._count(found.cause)
        may_move = self._may_move()
        return Failed(call.id, now_s, found.cause, found.status, found.billed, may_move)

    def _is_to_blame(self, trouble: Trouble) -> bool:
        """Whether a failure tells of the backend, and not of what the caller asked for.

        A caller may allow a millisecond, read his stream slowly, or ask for an answer too long
        to verify: none of it may eject a backend for everybody.
        """
        if trouble.cause != "Timeout":
            return trouble.blames
        assert self.call is not None
        behaviour = self.arm.behaviour
        usual_ms = behaviour.tiers[self.call.tier].timeout_ms or behaviour.deadline_ms
        began = self._relay is not None and self._relay.started
        return not began and self.call.timeout_ms * 2 >= usual_ms

    def _may_move(self) -> bool:
        """Take one move of the budget for going elsewhere, held until the next call ends."""
        if not self._load.may_move():
            return False
        self._load.moving += 1
        self._moving = True
        return True

    def _stop_moving(self) -> None:
        if self._moving:
            self._load.moving -= 1
            self._moving = False

    def _count(self, end: str) -> None:
        assert self.call is not None
        labels = (self.route.key, self.call.backend.name, end)
        self._metrics.count("weir_attempts", labels)

    def _verify(self, action: Verify) -> Event:
        assert self.answer is not None
        assert self.call is not None
        tier = self.arm.behaviour.tiers[action.tier]
        checks = tier.accept
        if self.call.backend.identity != tier.backend.identity:
            # A calibration is of the tier's own model: a fallback's confidence is unknown.
            for check in checks:
                if check.type == "Confidence":
                    return self._refused(action, check.name)
        return self._refused(action, verify.first_refusal(checks, self.answer, self.request))

    def _refused(self, action: Verify, name: str) -> Event:
        if name:
            tier = self.arm.behaviour.tiers[action.tier].name
            labels = (self.route.key, self.arm.revision, tier, name)
            self._metrics.count("weir_escalations", labels)
        return Verified(action.id, self.clock(), name)

    def asked_logprobs(self) -> bool:
        """Whether the answer's call asked for logprobs on Weir's own account."""
        call = self.answered_by
        assert call is not None
        ask = self.arm.ask(call.tier, call.backend, max_tokens=call.max_tokens, stream=call.stream)
        return ask.logprobs >= 0

    # Streams.

    async def _open(self, call: Call, upstream: Upstream, body: bytes) -> Event:
        self._relay = None
        fields = calls.headers(upstream, self.context, call.timeout_ms)
        stream = await upstream.pool.open(
            b"POST", PATHS[self.request.kind], fields, body, timeout_ms=call.timeout_ms
        )
        if isinstance(stream, client.Failure):
            return self._answered(Trouble(stream.cause, 0, stream.sent, stream.detail))
        self._stream = stream
        if stream.status != 200:
            return self._answered(await calls.refused_stream(stream))
        if calls.content_type(stream.headers) != b"text/event-stream":
            self._close_stream()
            return self._answered(Trouble("ServerError", 200, True, "not an event stream"))
        early = not self.arm.behaviour.tiers[call.tier].accept
        keep = self._keep or not (early or self.arm.behaviour.commit == "FirstToken")
        strip = not self.request.wants_usage
        self._relay = Relay(strip_usage=strip, keep=keep)
        return await self._first_bytes(call)

    async def _first_bytes(self, call: Call) -> Event:
        """Read until the first event; keep what came for after the commit."""
        assert self._relay is not None
        out = b""
        while not self._relay.started:
            chunk = await self._read()
            if isinstance(chunk, Trouble):
                return self._answered(chunk)
            out += chunk
        self._unsent = out
        return FirstBytes(call.id, self.clock())

    async def _read(self) -> bytes | Trouble:
        """Return what one read gives to the client, b"" when nothing yet, Trouble at a break."""
        stream, relay = self._stream, self._relay
        assert stream is not None
        assert relay is not None
        chunk = await stream.read()
        if isinstance(chunk, client.Failure):
            return Trouble(chunk.cause, 0, True, chunk.detail)
        if not chunk:
            return Trouble("BrokenStream", 200, True, "the stream ended without [DONE]")
        out = relay.feed(chunk)
        if relay.broken:
            return Trouble("BrokenStream", 200, True, relay.broken)
        return out

    async def _pump(self) -> Event:
        """Relay (committed) or gather (not yet) the rest of the stream."""
        assert self._relay is not None
        assert self._stream is not None
        assert self.state is not None
        committed = self.state.committed
        out: bytes | Trouble = self._unsent
        while True:
            if isinstance(out, Trouble):
                return self._answered(out)
            if committed and out:
                assert self._commit_sink is not None
                await self._commit_sink.write(out)
            if self._relay.done:
                await calls.let_end(self._stream)
                return self._stream_answered()
            out = await self._read()

    def _stream_answered(self) -> Event:
        relay, call = self._relay, self.call
        assert relay is not None
        assert call is not None
        assert self.state is not None
        self._close_stream()
        if relay.kept and not relay.overflowed:
            wants = any(tier.accept for tier in self.arm.behaviour.tiers)
            found = read_stream(self.request.kind, bytes(relay.kept), logprobs=wants)
            if found is None and not self.state.committed:
                return self._answered(Trouble("ServerError", 200, True, "no completion"))
            if found is not None:
                return self._answered(found)
        if relay.overflowed and not self.state.committed:
            too_long = Trouble("BrokenStream", 200, True, "too long to verify", blames=False)
            return self._answered(too_long)
        return self._answered(Answer(choices=(), usage=relay.usage, raw=b""))

    def _let_go(self) -> None:
        """Ask no more; a call that was cut off tells nothing of its backend."""
        self._close_stream()
        if self._asking is not None:
            self._asking.released()
            self._asking = None

    def _close_stream(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None
