"""One request in flight: performs what the step machine says and feeds back what happened.

A walk keeps the route it started with. It is interrupted from outside by `stop` only: the
client went away, or a brake recalls it to stable.
"""

import asyncio
import math
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
    Held,
    Hold,
    Plan,
    Recalled,
    Reply,
    Verified,
    Verify,
)
from weir_router import calls, verify
from weir_router.answer import Answer
from weir_router.calls import Context, Trouble
from weir_router.dialect import Ask, Request
from weir_router.load import Load
from weir_router.plan import Given
from weir_router.streaming import Inflow, inflow, open_stream
from weir_router.table import Arm, Route
from weir_router.telemetry import Metrics
from weir_router.upstreams import Upstream, Upstreams

MOST_TOLD = 160
"""Characters of one call's trouble that a client is told."""


class Sink:
    """Where a committed stream goes. Audits have none: they take whole answers."""

    __slots__ = ()

    def commit(self, walk: "Walk") -> None:
        """Start the reply: what follows cannot be taken back."""

    async def write(self, chunk: bytes) -> None:
        """Pass on whole events, waiting for a slow reader."""


class Walk:
    """One request's calls. After run(): `state`, the last action `end`, and the answer.

    `tried` says of each call that gave no accepted answer whom it asked and what came of it;
    `wait_s` is the shortest time after which one of them may answer, infinite while none failed.
    """

    __slots__ = (
        "_asking",
        "_commit_sink",
        "_escalating",
        "_inflow",
        "_interrupt",
        "_keep",
        "_load",
        "_metrics",
        "_moving",
        "_recalled_to",
        "_task",
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
        "tried",
        "trouble",
        "wait_s",
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
        self.tried: tuple[str, ...] = ()
        self.wait_s = math.inf
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
        self._asking: Upstream | None = None
        """Asked, and not yet told how it went."""
        self._inflow: Inflow | None = None

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
            if kind is Hold:
                return await self._hold(action)  # type: ignore[arg-type]
            if kind is Commit:
                assert self._commit_sink is not None
                self._commit_sink.commit(self)
            elif kind is Cancel:
                self._cut()
            else:
                self.end = action  # type: ignore[assignment]
                return None
        return await self._pump()

    async def _call(self, call: Call) -> Event:
        self.call = call
        if not self._escalating and self.state is not None and self.state.escalated:
            self._escalating = self.arm.name
            self._load.escalating[self._escalating] += 1
        upstream = self._upstreams.get(call.backend)
        now_s = self.clock()
        if not upstream.available(now_s):
            self._count("ejected")
            why = "no API key" if upstream.keyless else "resting after failures"
            self._note(why, upstream.back_in_s(now_s))
            return Failed(call.id, now_s, "Connect", asked=False)
        self._asking = upstream
        ask = self.arm.ask(call.tier, call.backend, max_tokens=call.max_tokens, stream=call.stream)
        if call.stream:
            return await self._open(call, upstream, ask)
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
            upstream.failed(found.cause, now_s, found.detail[:MOST_TOLD])
        else:
            upstream.released()
        self.trouble = found
        self._count(found.cause)
        self._note_trouble(found, upstream, now_s)
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
        began = self._inflow is not None and self._inflow.started
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
        assert self.call is not None
        tier = self.arm.behaviour.tiers[action.tier]
        checks = tier.accept
        if self.call.backend.identity != tier.backend.identity:
            # A calibration is of the tier's own model: a fallback's confidence is unknown.
            for check in checks:
                if check.type == "Confidence":
                    return self._refused(action, check.name)
        if not action.prefix:
            assert self.answer is not None
            return self._refused(action, verify.first_refusal(checks, self.answer, self.request))
        assert self._inflow is not None
        held, self._inflow.prefix = self._inflow.prefix, None
        if held is None:  # It could not be read.
            return self._refused(action, checks[0].name)
        return self._refused(action, verify.first_refusal_of_prefix(checks, held, self.request))

    def _refused(self, action: Verify, name: str) -> Event:
        if name:
            self._note(f"not accepted by {name!r}", 1.0)
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

    async def _open(self, call: Call, upstream: Upstream, ask: Ask) -> Event:
        self._inflow = None
        stream = await open_stream(upstream, self.request, ask, self.context, call)
        if isinstance(stream, Trouble):
            return self._answered(stream)
        behaviour = self.arm.behaviour
        self._inflow = inflow(stream, self.request, ask, behaviour, call.tier, keep=self._keep)
        trouble = await self._inflow.begin()
        if trouble is not None:
            return self._answered(trouble)
        return FirstBytes(call.id, self.clock())

    async def _pump(self) -> Event:
        """Relay (committed) or gather (not yet) the rest of the stream."""
        assert self._inflow is not None
        assert self.state is not None
        write = None
        if self.state.committed:
            assert self._commit_sink is not None
            write = self._commit_sink.write
            if not self._keep:
                self._inflow.forget()
        return self._answered(await self._inflow.run(write))

    async def _hold(self, action: Hold) -> Event:
        """Gather the first tokens of a stream; all of it where no more than these come."""
        assert self._inflow is not None
        ended = await self._inflow.hold(action.tokens, self.request.body.n or 1)
        if ended is not None:
            return self._answered(ended)
        return Held(action.id, self.clock())

    def _cut(self) -> None:
        """Want no more of a call that answered well so far, unless it was let go before."""
        if self._asking is not None:
            self._asking.succeeded()
            self._asking = None
            self._count("cut")
            self._stop_moving()
        self._let_go()

    def _let_go(self) -> None:
        """Ask no more; a call that was cut off tells nothing of its backend."""
        if self._inflow is not None:
            self._inflow.close()
        if self._asking is not None:
            self._asking.released()
            self._asking = None

    # What a client is told of calls that gave him nothing.

    def _note_trouble(self, trouble: Trouble, upstream: Upstream, now_s: float) -> None:
        wait_s = trouble.retry_after_s or upstream.back_in_s(now_s)
        if trouble.cause == "Overload" and not wait_s and not trouble.status:
            wait_s = upstream.pool.wait_s(now_s)
        detail = trouble.detail.removeprefix(f"{upstream.pool.name}: ")[:MOST_TOLD]
        self._note(f"{trouble.cause}: {detail}" if detail else trouble.cause, wait_s or 1.0)

    def _note(self, what: str, wait_s: float) -> None:
        assert self.call is not None
        tier = self.arm.behaviour.tiers[self.call.tier].name
        self.tried = (*self.tried, f"{tier} on {self.call.backend.name} ({what})")
        self.wait_s = min(self.wait_s, wait_s)
