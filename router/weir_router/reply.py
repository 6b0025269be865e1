"""What the client gets: the answer, a stream, or an error; and which objectives it failed.

It refuses to decide anything: the walk has ended, this writes it down.
"""

import functools
import math
import random

import msgspec

from weir_core.cascade import State
from weir_core.snapshot import Objective
from weir_core.turns import Fail, Reply
from weir_router import dialect, verify
from weir_router.answer import stream_for_client, without_logprobs
from weir_router.cycle import Exchange
from weir_router.headers import header_block
from weir_router.patience import retry_after
from weir_router.table import Route
from weir_router.telemetry import UNIT_PICO, Metrics
from weir_router.walk import Sink, Walk

JSON = header_block([dialect.JSON])
EVENT_STREAM = header_block(
    [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
)
CLIENT_GONE = 499


class Replier(Sink):
    """Writes one request's reply. `first_byte_s` is NaN until something was written."""

    __slots__ = ("_exchange", "_id", "_metrics", "first_byte_s", "started_s", "status")

    def __init__(self, exchange: Exchange, *, id: str, started_s: float, metrics: Metrics) -> None:
        self._exchange = exchange
        self._id = id
        self.started_s = started_s
        self._metrics = metrics
        self.first_byte_s = math.nan
        self.status = 0

    def commit(self, walk: Walk) -> None:
        """Start a streamed reply."""
        self.status = 200
        self.first_byte_s = walk.clock()
        self._exchange.start(200, EVENT_STREAM + self._headers(walk, streamed=True))

    async def write(self, chunk: bytes) -> None:
        """Pass on whole events, waiting for a slow reader."""
        self._exchange.write(chunk)
        await self._exchange.drain()

    def finish(self, walk: Walk) -> None:
        """Write what is left to be written, and count the reply."""
        end = walk.end
        if type(end) is Reply:
            self._succeed(walk)
        elif type(end) is Fail:
            self._fail(walk, end)
        self._count(walk)

    def _succeed(self, walk: Walk) -> None:
        exchange, answer = self._exchange, walk.answer
        assert answer is not None
        if exchange.started:
            exchange.end()
            return
        self.status = 200
        self.first_byte_s = walk.clock()
        asked = walk.asked_logprobs() and not walk.request.wants_logprobs
        if walk.request.body.stream:
            body = stream_for_client(
                answer.raw,
                strip_logprobs=asked,
                strip_usage=not walk.request.wants_usage,
            )
            exchange.start(200, EVENT_STREAM + self._headers(walk, streamed=True))
            exchange.write(body)
            exchange.end()
            return
        body = without_logprobs(answer.raw) if asked else answer.raw
        exchange.reply(200, JSON + self._headers(walk), body)

    def _fail(self, walk: Walk, end: Fail) -> None:
        exchange = self._exchange
        if end.status == CLIENT_GONE or exchange.gone:
            self.status = CLIENT_GONE
            return
        self.status = end.status
        tried = f"; tried: {', '.join(walk.tried)}" if walk.tried else ""
        message = f"{end.message}{tried} (request {self._id})"
        if exchange.started:
            error = dialect.error_body(end.status, end.code, message)
            exchange.write(b"data: " + error + b"\n\n")
            exchange.end()
            return
        self.first_byte_s = walk.clock()
        body = dialect.error_body(end.status, end.code, message)
        if end.code == "upstream_rejected" and walk.trouble is not None:
            body = _own_words(walk.trouble.body) or body
        headers = JSON + self._headers(walk)
        if end.status in (429, 503):
            wait_s = walk.wait_s if walk.tried else 1.0
            headers += b"retry-after: %d\r\n" % retry_after(wait_s, random.random())
        exchange.reply(end.status, headers, body)

    def _headers(self, walk: Walk, *, streamed: bool = False) -> bytes:
        """Return the decision as header fields; what a stream costs is not known yet."""
        state, call = walk.state, walk.call
        assert state is not None
        if type(walk.end) is Reply:
            call = walk.answered_by
        tier = walk.arm.behaviour.tiers[call.tier if call is not None else state.tier].name
        why = reason(walk, state)
        named = _decision(walk.route.key, walk.arm.revision, walk.arm.name, tier, why)
        if streamed:
            told = (named, self._id.encode(), state.attempts)
            return b"%bx-request-id: %b\r\nx-weir-attempts: %d\r\n" % told
        units, rest = divmod(state.spent_pico + state.reserved_pico, UNIT_PICO)
        return b"%bx-request-id: %b\r\nx-weir-attempts: %d\r\nx-weir-cost: %d.%012d\r\n" % (
            named,
            self._id.encode(),
            state.attempts,
            units,
            rest,
        )

    def _count(self, walk: Walk) -> None:
        state, call = walk.state, walk.call
        assert state is not None
        served = type(walk.end) is Reply
        if served:
            call = walk.answered_by
        tier = walk.arm.behaviour.tiers[call.tier].name if call is not None else ""
        series = self._metrics.series(walk.route.key, walk.arm.revision, walk.arm.name, tier)
        series.count(self.status)
        series.cost_pico += state.spent_pico
        series.duration.observe(walk.clock() - self.started_s)
        if not math.isnan(self.first_byte_s):
            series.first.observe(self.first_byte_s - self.started_s)
        if served and walk.answer is not None:
            series.input_tokens += walk.answer.usage.prompt_tokens
            series.output_tokens += walk.answer.usage.completion_tokens


@functools.lru_cache(maxsize=1024)
def _decision(route: str, revision: str, arm: str, tier: str, reason: str) -> bytes:
    named = {"route": route, "revision": revision, "arm": arm, "tier": tier, "reason": reason}
    return header_block([(f"x-weir-{key}".encode(), text.encode()) for key, text in named.items()])


def reason(walk: Walk, state: State) -> str:
    """Return why this tier answered, in one word and what it is about."""
    if state.cause:
        return f"failed:{state.cause}"
    if state.caught:
        return f"escalated:{state.caught}"
    return f"rule:{walk.rule}" if walk.rule else "first-tier"


def _own_words(body: bytes) -> bytes:
    """Return an upstream's error body if it is OpenAI-shaped, else b""."""
    try:
        error = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return b""
    shaped = isinstance(error, dict) and isinstance(error.get("error"), dict)
    return body if shaped else b""


def failed_mask(route: Route, walk: Walk, replier: Replier, metrics: Metrics) -> int:
    """Return the objectives that this request failed, as bits in their order.

    A healed failure is still an Error; an answer that a verifier caught
    is Escalated and no violation; a reply that never came, or broke, is an Error and Slow.
    """
    state = walk.state
    assert state is not None
    failed_monitors = _monitor(route, walk, replier, metrics)
    client_gone = replier.status == CLIENT_GONE
    lost = type(walk.end) is Fail and not client_gone
    mask = 0
    for bit, objective in enumerate(route.objectives):
        event = objective.event
        if event == "Error":
            failed = state.errored or lost
        elif event == "Slow":
            failed = lost or _slow(objective, walk, replier)
        elif event == "Escalated":
            failed = state.escalated
        elif event in ("Invalid", "Violation"):
            wanted = objective.monitor
            failed = wanted in failed_monitors if wanted else bool(failed_monitors)
        else:
            failed = False
        if failed:
            mask |= 1 << bit
    return mask


def lost_mask(route: Route) -> int:
    """Return the objectives that a request failed whose reply never came."""
    lost = [bit for bit, one in enumerate(route.objectives) if one.event in ("Error", "Slow")]
    return sum(1 << bit for bit in lost)


def is_bad(route: Route, walk: Walk, replier: Replier, failed: int) -> bool:
    """Whether a failed objective reached the client: no healed error, no escalation."""
    lost = type(walk.end) is Fail and replier.status != CLIENT_GONE
    return any(
        failed >> bit & 1 and _reaches_client(objective, lost=lost)
        for bit, objective in enumerate(route.objectives)
        if objective.mode == "Enforce"
    )


def _reaches_client(objective: Objective, *, lost: bool) -> bool:
    if objective.event == "Error":
        return lost
    return objective.event in ("Slow", "Invalid", "Violation")


def _slow(objective: Objective, walk: Walk, replier: Replier) -> bool:
    """A client gone before the first byte waited too long, whatever the clock says."""
    if math.isnan(replier.first_byte_s):
        return True
    end_s = replier.first_byte_s if objective.of == "TimeToFirstToken" else walk.clock()
    return (end_s - replier.started_s) * 1000 > objective.over_ms


def _monitor(route: Route, walk: Walk, replier: Replier, metrics: Metrics) -> list[str]:
    """Run the monitors on the served answer; what cannot be read fails them."""
    monitors = route.policy.monitoring.monitors
    if not monitors or replier.status != 200 or type(walk.end) is not Reply:
        return []
    answer = walk.answer
    assert answer is not None
    failed = []
    for check in monitors:
        if not answer.choices or not verify.passes(check, answer, walk.request):
            failed.append(check.name)
            labels = (route.key, walk.arm.revision, check.name)
            metrics.count("weir_monitor_failures", labels)
    return failed
