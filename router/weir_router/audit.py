"""Audits: a request answered again, in the background, to compare what the arms would serve.

During a rollout an audited request is answered by both arms and by the reference; otherwise by
the served arm and the reference. Bounded, and the first thing shed under load. Gold labels are
never seen: harm is disagreement with the reference.
"""

import asyncio
import logging
from collections.abc import Callable

import msgspec

from weir_core.evidence import CANARY, STABLE
from weir_core.snapshot import Audits, Backend, Tier
from weir_core.turns import Reply
from weir_router import calls
from weir_router.answer import Answer
from weir_router.calls import Context, Trouble
from weir_router.cycle import place_of
from weir_router.dialect import Request
from weir_router.ledger import AuditTicket, Ledger
from weir_router.load import Load
from weir_router.plan import Given, as_whole
from weir_router.table import Route
from weir_router.telemetry import Metrics
from weir_router.upstreams import Upstreams
from weir_router.walk import Walk

log = logging.getLogger(__name__)


class Served(msgspec.Struct, frozen=True):
    """What one arm served: the answer, and the tier and backend that it came from."""

    answer: Answer
    tier: Tier
    backend: Backend


class Audit(msgspec.Struct, frozen=True):
    """A place for one audit. `ticket` None: no pair of arms is counted."""

    route: Route
    ticket: AuditTicket | None


class Auditor:
    """Runs audits in the background; `load` bounds how many, those that are to begin included.

    `walker` makes a silent walk of a request under an arm; `settled` is called after an audit
    that counted, so that the brake may look.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        upstreams: Upstreams,
        metrics: Metrics,
        load: Load,
        clock: Callable[[], float],
        walker: Callable[..., Walk],
        settled: Callable[[Route], None],
    ) -> None:
        self._ledger = ledger
        self._upstreams = upstreams
        self._metrics = metrics
        self._clock = clock
        self._walker = walker
        self._settled = settled
        self._load = load
        self._tasks: dict[asyncio.Task[None], Audit] = {}
        self._stopped = False

    def begin(self, route: Route, ticket: AuditTicket | None) -> Audit:
        """Take a place for an audit; `start` or `drop` it, once, when the reply is out."""
        self._load.audits += 1
        return Audit(route, ticket)

    def start(self, audit: Audit, request: Request, arm: int, served: Served, given: Given) -> None:
        """Audit a served request in the background."""
        if self._stopped:
            self.drop(audit)
            return
        job = self._run(audit, as_whole(request), arm, served, given)
        task = asyncio.get_running_loop().create_task(job)
        self._tasks[task] = audit
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        audit = self._tasks.pop(task)
        if task.cancelled():
            self.drop(audit)

    def drop(self, audit: Audit) -> None:
        """Give an audit up: there is nothing to compare."""
        self._load.audits -= 1
        if audit.ticket is not None:
            self._ledger.audit_drop(audit.ticket, self._clock())
        self._metrics.count("weir_audits", (audit.route.key, "dropped"))

    def abandon(self, audit: Audit) -> None:
        """Take an audit back: its request failed, or its client went."""
        self._load.audits -= 1
        if audit.ticket is not None:
            self._ledger.audit_abandon(audit.ticket)
        self._metrics.count("weir_audits", (audit.route.key, "abandoned"))

    async def drain(self) -> None:
        """Wait for the audits in flight."""
        while self._tasks:
            await asyncio.wait(tuple(self._tasks))

    async def stop(self, within_s: float = 0.0) -> None:
        """Let audits in flight end within a time and drop the others: the process ends.

        Their requests are answered, and what is dropped is told in the tallies: call this before
        the last report.
        """
        if self._tasks and within_s > 0:
            await asyncio.wait(tuple(self._tasks), timeout=within_s)
        self._stopped = True
        for task in tuple(self._tasks):
            task.cancel()
        await self.drain()

    async def _run(
        self, audit: Audit, request: Request, arm: int, served: Served, given: Given
    ) -> None:
        harms: dict[int, bool] | None = None
        try:
            harms = await self._compare(audit, request, arm, served, given)
        except Exception as error:  # A background job has no other door.
            fields = {"error": type(error).__name__, "place": place_of(error)}
            log.error("audit failed", extra=fields)
        if harms is None:
            self.drop(audit)
            return
        self._load.audits -= 1
        result = "harm" if harms[arm] else "agreed"
        self._metrics.count("weir_audits", (audit.route.key, result))
        if audit.ticket is not None:
            canary, stable = harms[CANARY], harms[STABLE]
            self._ledger.audit_end(audit.ticket, canary, stable, self._clock())
            self._settled(audit.route)

    async def _compare(
        self, audit: Audit, request: Request, arm: int, served: Served, given: Given
    ) -> dict[int, bool] | None:
        """Return by arm whether it harmed, None where an answer is missing."""
        route = audit.route
        answers: dict[int, Served | None] = {arm: served}
        if audit.ticket is not None:
            other = STABLE if arm == CANARY else CANARY
            answers[other] = await self._answer(route, other, request, given)
        found = [one for one in answers.values() if one is not None]
        if len(found) < len(answers):
            return None
        reference = await self._reference(route, request, found, given.hops)
        if reference is None:
            return None
        assert route.audits is not None
        return {
            position: one is not None and differs(one.answer, reference, route.audits)
            for position, one in answers.items()
        }

    async def _answer(
        self, route: Route, position: int, request: Request, given: Given
    ) -> Served | None:
        walk = self._walker(route, position, request, given)
        await walk.run()
        if walk.state is not None:
            labels = (route.key,)
            self._metrics.count("weir_audit_cost", labels, walk.state.spent_pico)
        return served_by(walk)

    async def _reference(
        self, route: Route, request: Request, found: list[Served], hops: int
    ) -> Answer | None:
        """Return what the reference tier of the stable revision says, asked only if needed."""
        assert route.audits is not None
        stable = route.arm(STABLE)
        names = [tier.name for tier in stable.behaviour.tiers]
        if route.audits.reference not in names:
            return None
        position = names.index(route.audits.reference)
        tier = stable.behaviour.tiers[position]
        for one in found:
            same = one.backend.identity == tier.backend.identity
            if same and _asks_alike(one.tier, tier):
                return one.answer
        upstream = self._upstreams.get(tier.backend)
        ask = stable.ask(position, tier.backend, max_tokens=tier.max_tokens, stream=False)
        context = Context(b"audit", hops)
        timeout_ms = stable.behaviour.deadline_ms
        answer = await calls.fetch(upstream, request, ask, context, timeout_ms)
        if isinstance(answer, Trouble):
            return None
        cost = calls.cost_pico(tier.backend, answer.usage)
        self._metrics.count("weir_audit_cost", (route.key,), cost)
        return answer


def served_by(walk: Walk) -> Served | None:
    """Return what a walk that ended well served, None for a stream that was not kept."""
    answer, call = walk.answer, walk.answered_by
    if type(walk.end) is not Reply or answer is None or call is None or not answer.choices:
        return None
    return Served(answer, walk.arm.behaviour.tiers[call.tier], call.backend)


def _asks_alike(one: Tier, other: Tier) -> bool:
    same_prompt = one.system_prompt == other.system_prompt
    return same_prompt and one.max_tokens == other.max_tokens


def differs(answer: Answer, reference: Answer, audits: Audits) -> bool:
    """Whether an answer says other than the reference, choice by choice."""
    mine = [_said(choice.text, choice.tool_calls, audits) for choice in answer.choices]
    theirs = [_said(choice.text, choice.tool_calls, audits) for choice in reference.choices]
    return mine != theirs


def _said(text: str, tool_calls: tuple[object, ...], audits: Audits) -> object:
    calls_made = msgspec.to_builtins(tool_calls)
    for call in calls_made:
        call["arguments"] = _value(call.get("arguments") or "")
    said = _value(text) if audits.compare == "Json" else " ".join(text.split())
    return said, calls_made


def _value(text: str) -> object:
    """Return the JSON value that a text spells, or the text itself in a form no value has."""
    try:
        return ("json", msgspec.json.decode(text))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ("text", text)
