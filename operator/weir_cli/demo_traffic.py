"""The demo's clients: they ask the router, and score its answers by labels it never sees."""

import asyncio
import contextlib
import json
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from weir_cli.demo_figures import Measured, Scored
from weir_cli.demo_manifests import NAMESPACE, request
from weir_cli.errors import CommandError
from weir_core.snapshot import Limits
from weir_lab.questions import Question
from weir_router.client import Answer, ClientLimits, Pool

AT_ONCE = 32
"""Questions in flight: enough for the model servers' batches."""
TIMEOUT_MS = 30_000
ENDED = ("agreed", "harm")
"""Results of audits that have one."""
_CHAT = b"/v1/chat/completions"
_LIMITS = ClientLimits(upstream=Limits(max_in_flight=4 * AT_ONCE), max_idle=4 * AT_ONCE)


class _Message(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    message: _Message


class _Completion(msgspec.Struct):
    choices: list[_Choice]


class _Intent(msgspec.Struct):
    intent: str


class Clients:
    """Everybody who asks one router. Raises CommandError where it gives no answer."""

    def __init__(self, public: str, admin: str) -> None:
        self._public = Pool(public, limits=_LIMITS)
        self._admin = Pool(admin)
        self._bodies: dict[tuple[str, int], bytes] = {}

    async def ask(self, route: str, question: Question) -> Scored:
        """Return the scored answer to one question."""
        body = self._body(route, question)
        reply = await self._public.fetch(b"POST", _CHAT, (), body, timeout_ms=TIMEOUT_MS)
        if not isinstance(reply, Answer):
            raise CommandError(f"the router gave no answer: {reply.cause}, {reply.detail}")
        fields = dict(reply.headers)
        return Scored(
            right=reply.status == 200 and said(reply.body) == question.intent,
            cost=float(fields.get(b"x-weir-cost", b"0")),
            tier=fields.get(b"x-weir-tier", b"").decode(),
            arm=fields.get(b"x-weir-arm", b"").decode(),
        )

    def _body(self, route: str, question: Question) -> bytes:
        """Return a request's bytes: the question's text, and nothing of its label."""
        known = self._bodies.get((route, question.number))
        if known is None:
            known = json.dumps(request(question.body(route))).encode()
            self._bodies[route, question.number] = known
        return known

    async def status(self, route: str) -> dict[str, Any]:
        """Return what the management API tells of a route."""
        return msgspec.json.decode(
            await self._get(f"/weir/v1/routes/{NAMESPACE}/{route}"), type=dict
        )

    async def audits(self, route: str) -> tuple[int, float]:
        """Return how many audits of a route have ended since the router started, and their cost."""
        text = (await self._get("/metrics")).decode()
        samples = [
            one
            for family in text_string_to_metric_families(text)
            if family.name in ("weir_audits", "weir_audit_cost")
            for one in family.samples
            if one.labels["route"] == f"{NAMESPACE}/{route}"
        ]
        ended = sum(one.value for one in samples if one.labels.get("result") in ENDED)
        cost = sum(one.value for one in samples if one.name == "weir_audit_cost_total")
        return round(ended), cost

    async def _get(self, path: str) -> bytes:
        reply = await self._admin.fetch(b"GET", path.encode(), (), b"", timeout_ms=TIMEOUT_MS)
        if not isinstance(reply, Answer) or reply.status != 200:
            raise CommandError(f"the management API gave no answer to {path}: {reply}")
        return reply.body

    async def close(self) -> None:
        """Close all connections."""
        await self._public.aclose()
        await self._admin.aclose()


def said(body: bytes) -> str:
    """Return the intent that a completion names, "" where it names none."""
    try:
        text = msgspec.json.decode(body, type=_Completion).choices[0].message.content or ""
        return msgspec.json.decode(text, type=_Intent).intent
    except (msgspec.DecodeError, IndexError):
        return ""


@contextlib.contextmanager
def one_by_one() -> Iterator[None]:
    """Raise the first CommandError of a group alone: the door of `weir` knows no groups."""
    try:
        yield
    except BaseExceptionGroup as several:
        known = several.subgroup(CommandError)
        raise known.exceptions[0] if known else several from None


async def measure(
    clients: Clients,
    routes: Sequence[str],
    questions: Sequence[Question],
    *,
    chance: random.Random,
    done: Callable[[int], None],
) -> dict[str, Measured]:
    """Ask every route every question, shuffled together; `done` hears how many are answered."""
    work = [(route, place) for route in routes for place in range(len(questions))]
    chance.shuffle(work)
    found: dict[tuple[str, int], Scored] = {}
    left = iter(work)

    async def client() -> None:
        for route, place in left:
            found[route, place] = await clients.ask(route, questions[place])
            done(len(found))

    with one_by_one():
        async with asyncio.TaskGroup() as all_clients:
            for _ in range(AT_ONCE):
                all_clients.create_task(client())
    places = range(len(questions))
    return {route: Measured(tuple(found[route, place] for place in places)) for route in routes}


class Flow:
    """Live traffic to one route: questions drawn with replacement, arrivals a Poisson process.

    Enter it to start, leave it to stop; `answers` grows meanwhile. When AT_ONCE questions are in
    flight the next one waits.
    """

    def __init__(
        self,
        clients: Clients,
        route: str,
        questions: Sequence[Question],
        *,
        per_s: float,
        chance: random.Random,
    ) -> None:
        self.answers: list[Scored] = []
        self._clients, self._route, self._questions = clients, route, questions
        self._per_s, self._chance = per_s, chance
        self._places = asyncio.Semaphore(AT_ONCE)
        self._group = asyncio.TaskGroup()
        self._source: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Flow":
        await self._group.__aenter__()
        self._source = self._group.create_task(self._arrive())
        return self

    async def __aexit__(self, *error: Any) -> None:
        assert self._source is not None
        self._source.cancel()
        with one_by_one():
            await self._group.__aexit__(*error)

    async def _arrive(self) -> None:
        loop = asyncio.get_running_loop()
        due_s = loop.time()
        while True:
            due_s += self._chance.expovariate(self._per_s)
            await asyncio.sleep(max(0.0, due_s - loop.time()))
            await self._places.acquire()
            # A slow machine gets fewer questions, not a flood of late ones.
            due_s = max(due_s, loop.time() - 1)
            self._group.create_task(self._ask(self._chance.choice(self._questions)))

    async def _ask(self, question: Question) -> None:
        try:
            self.answers.append(await self._clients.ask(self._route, question))
        finally:
            self._places.release()
