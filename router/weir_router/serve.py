"""The model endpoints: parse, admit, draw, walk, reply, and settle what the request showed.

Everything a request meets on its way is here in order; what to do at each turn is core's to
say. The brake is here too: it judges this router's own evidence and needs nobody else.
"""

import hashlib
import random
import secrets
from collections.abc import Callable

import msgspec

from weir_core.evidence import CANARY, STABLE, Judgement, Trip
from weir_core.routing import draw
from weir_core.snapshot import FULL_BP, Snapshot
from weir_router import dialect, table, verify
from weir_router.audit import Audit, Auditor, served_by
from weir_router.calls import Context
from weir_router.cycle import Exchange
from weir_router.dialect import Kind, Refusal, Request
from weir_router.ledger import Ledger, Ticket
from weir_router.load import Bounds, Load
from weir_router.patience import retry_after
from weir_router.plan import Given, choose, given, plan_for, session_name, traceparent
from weir_router.reply import Replier, failed_mask, is_bad, lost_mask
from weir_router.table import Route
from weir_router.telemetry import Metrics
from weir_router.upstreams import Upstreams
from weir_router.walk import Walk

JUDGE_EVERY_S = 0.005


class Router:
    """One router's data plane: a table of routes, and the requests in flight.

    `on_trip` hears of every brake this router trips. `clock` gives seconds since the epoch and
    never goes back; `coin` is uniform in [0, 1). `mark` begins the ids of its replies (`peers`).
    """

    def __init__(
        self,
        *,
        name: str,
        mark: str = "",
        ledger: Ledger,
        upstreams: Upstreams,
        metrics: Metrics,
        clock: Callable[[], float],
        coin: Callable[[], float] = random.random,
        bounds: Bounds = Bounds(),  # noqa: B008 - frozen
        on_trip: Callable[[Trip], None] = lambda trip: None,
    ) -> None:
        self.name = name
        self._prefix = f"weir-{mark}-" if mark else "weir-"
        self.table = table.empty()
        self.ledger = ledger
        self.metrics = metrics
        self.clock = clock
        self._coin = coin
        self._upstreams = upstreams
        self._on_trip = on_trip
        self.load = Load(bounds)
        metrics.in_flight = lambda: self.load.in_flight
        self._latched: set[tuple[str, str, int]] = set()
        self._in_canary: dict[tuple[str, str, int], set[Walk]] = {}
        self._judged_s: dict[str, float] = {}
        self._serial = 0
        self._secret = secrets.token_bytes(32)
        self.auditor = Auditor(
            ledger=ledger,
            upstreams=upstreams,
            metrics=metrics,
            load=self.load,
            clock=clock,
            walker=self._silent_walk,
            settled=self._look,
        )

    # Policy in.

    def apply(self, snapshot: Snapshot) -> None:
        """Obey a newer snapshot; an older one changes nothing. Own latches stay."""
        if snapshot.version <= self.table.snapshot.version:
            return
        now_s = self.clock()
        for policy in snapshot.routes:
            self._latched.update((policy.uid, *latch) for latch in policy.latched)
        self._use(self.table.next(snapshot, self._latched), now_s)

    def _use(self, newer: table.Table, now_s: float) -> None:
        self._upstreams.keep(newer.backends(), newer.snapshot.limits)
        self.table = newer
        live = []
        for route in newer.routes.values():
            self.ledger.open(route.policy, now_s)
            live += [arm.revision for arm in route.arms if arm is not None]
            self.metrics.weigh(route.key, route.policy.weight_bp / FULL_BP, now_s)
        self._recall_from_stopped()
        self.metrics.forget(live)

    # The brake.

    def brake(self) -> None:
        """Judge every canary on this router's own evidence; trip where it does harm."""
        for route in tuple(self.table.routes.values()):
            self._look(route, at_once=True)

    def _look(self, route: Route, *, at_once: bool = False) -> None:
        current = self.table.routes.get(route.key)
        if current is None or not current.in_rollout or current.policy.brake_alpha <= 0:
            return
        now_s = self.clock()
        if not at_once and now_s - self._judged_s.get(route.key, 0.0) < JUDGE_EVERY_S:
            return
        self._judged_s[route.key] = now_s
        judgement = self.ledger.judge(current.policy, alpha=current.policy.brake_alpha, now_s=now_s)
        self.metrics.gauge("weir_evidence_log_e", (route.key,), judgement.log_e)
        if judgement.verdict == "Harm":
            self._trip(current, judgement, now_s)

    def _trip(self, route: Route, judgement: Judgement, now_s: float) -> None:
        policy = route.policy
        assert policy.canary is not None
        self._latched.add((policy.uid, policy.canary.name, policy.attempt))
        stopped = self.table.next(self.table.snapshot, self._latched)
        self._use(stopped, now_s)
        self.metrics.count("weir_brake_trips", (route.key, judgement.suspect))
        self._on_trip(
            Trip(
                route_uid=policy.uid,
                revision=policy.canary.name,
                attempt=policy.attempt,
                decided_by=f"router/{self.name}",
                reason="Harm",
                suspect=judgement.suspect,
                log_e=judgement.log_e,
                at_s=now_s,
                judgement=judgement,
            )
        )

    def _recall_from_stopped(self) -> None:
        """Recall from every attempt that gets no more requests, but for the promoted."""
        by_uid = {route.policy.uid: route for route in self.table.routes.values()}
        for uid, revision, attempt in tuple(self._in_canary):
            route = by_uid.get(uid)
            if route is None or (route.in_rollout and _attempt(route) == (uid, revision, attempt)):
                continue
            walks = self._in_canary.pop((uid, revision, attempt))
            if route.policy.stable.name != revision:
                self._recall(route, walks)

    def _recall(self, route: Route, walks: set[Walk]) -> None:
        """Answer uncommitted requests again by stable."""
        stable = route.arm(STABLE)
        for walk in tuple(walks):
            plan = plan_for(
                stable,
                choose(stable, walk.request, walk.given),
                request=walk.request,
                hops=walk.given.hops,
                deadline_ms=0,
                now_s=self.clock(),
            )
            walk.recall(stable, plan)

    # Requests in.

    async def chat(self, exchange: Exchange) -> None:
        """Serve POST /v1/chat/completions."""
        await self._serve("chat", exchange)

    async def completion(self, exchange: Exchange) -> None:
        """Serve POST /v1/completions."""
        await self._serve("completion", exchange)

    def models(self) -> bytes:
        """Return the body of GET /v1/models: the model names of the routes."""
        data = [_model(name, route) for name, route in sorted(self.table.by_model.items())]
        return msgspec.json.encode({"object": "list", "data": data})

    def model(self, name: str) -> bytes | None:
        """Return the body of GET /v1/models/{name}, None for a model that no route serves."""
        route = self.table.by_model.get(name)
        return msgspec.json.encode(_model(name, route)) if route is not None else None

    async def _serve(self, kind: Kind, exchange: Exchange) -> None:
        if exchange.gone:
            return None
        started_s = self.clock()
        request = dialect.parse(kind, exchange.body)
        if isinstance(request, Refusal):
            return self._refuse(exchange, request)
        route = self.table.by_model.get(request.body.model)
        if route is None:
            return self._refuse(exchange, _no_model(request.body.model))
        if self.load.full():
            return self._refuse(exchange, _overloaded(self.load.wait_s(started_s)))
        if not verify.schema_is_usable(request):
            return self._refuse(exchange, _BAD_SCHEMA)
        declared = given(exchange.headers)
        if isinstance(declared, Refusal):
            return self._refuse(exchange, declared)
        self.load.in_flight += 1
        try:
            await self._admitted(exchange, route, request, declared, started_s)
        finally:
            self.load.in_flight -= 1
            self.load.turnover.finished += 1
        return None

    def _reply_id(self) -> str:
        """Return a name that nobody can guess, and so label, who was not given it."""
        self._serial += 1
        serial = self._serial.to_bytes(8, "big")
        return self._prefix + hashlib.blake2b(serial, digest_size=12, key=self._secret).hexdigest()

    def _refuse(self, exchange: Exchange, refusal: Refusal) -> None:
        self.metrics.count("weir_refused", (refusal.code,))
        headers = [dialect.JSON, (b"x-request-id", self._reply_id().encode())]
        if refusal.retry_after_s:
            headers.append((b"retry-after", b"%d" % refusal.retry_after_s))
        exchange.reply(refusal.status, headers, refusal.body())

    async def _admitted(
        self,
        exchange: Exchange,
        route: Route,
        request: Request,
        given: Given,
        started_s: float,
    ) -> None:
        id = self._reply_id()
        session = session_name(exchange.header(route.header))
        audit = self._audit_coin(route, started_s)
        position, ticket = self._draw(route, session, started_s)
        replier = Replier(exchange, id=id, started_s=started_s, metrics=self.metrics)
        context = Context(id.encode(), given.hops, traceparent(exchange.header(b"traceparent")))
        keep = audit is not None or bool(route.policy.monitoring.monitors)
        failed, bad = lost_mask(route), True  # What an exception on the way leaves behind.
        walk: Walk | None = None
        try:
            walk = self._walk(route, position, request, given, context, replier, keep)
            await self._run(exchange, position, walk)
            replier.finish(walk)
            failed = failed_mask(route, walk, replier, self.metrics)
            bad = is_bad(route, walk, replier, failed)
        finally:
            self._settle(route, position, ticket, failed, bad, id)
            if audit is not None:
                self._audit(audit, position, walk, replier)

    def _audit_coin(self, route: Route, now_s: float) -> Audit | None:
        """Draw the audit's coin, before the arm is known, and shed audits first under load."""
        share_bp = route.audit_bp()
        if not share_bp or self._coin() * FULL_BP >= share_bp:
            return None
        if not self.load.may_audit():
            self.metrics.count("weir_audits", (route.key, "shed"))
            return None
        ticket = self.ledger.audit_begin(route.policy, now_s) if route.in_rollout else None
        return self.auditor.begin(route, ticket)

    def _audit(self, audit: Audit, position: int, walk: Walk | None, replier: Replier) -> None:
        served = None
        # A recalled request's answer is not of the arm that it was drawn for.
        if walk is not None and walk.arm is audit.route.arm(position) and replier.status == 200:
            served = served_by(walk)
        if replier.status != 200:
            self.auditor.abandon(audit)
        elif walk is None or served is None:
            self.auditor.drop(audit)
        else:
            self.auditor.start(audit, walk.request, position, served, walk.given)

    def _draw(self, route: Route, session: str, now_s: float) -> tuple[int, Ticket | None]:
        """Draw the arm, and count the request as evidence.

        Over its escalation cap the canary gets no new requests: they were not drawn, so they
        are no evidence.
        """
        if not route.in_rollout:
            return STABLE, self.ledger.assign(route.policy, STABLE, session, now_s)
        if not self.load.may_draw_canary():
            return STABLE, None
        position = draw(route.policy, session=session, coin=self._coin())
        return position, self.ledger.assign(route.policy, position, session, now_s)

    def _walk(
        self,
        route: Route,
        position: int,
        request: Request,
        given: Given,
        context: Context,
        sink: Replier | None = None,
        keep: bool = False,
    ) -> Walk:
        arm = route.arm(position)
        now_s = self.clock()
        chosen = choose(arm, request, given)
        plan = plan_for(
            arm,
            chosen,
            request=request,
            hops=given.hops,
            deadline_ms=given.deadline_ms,
            now_s=now_s,
        )
        return Walk(
            route=route,
            arm=arm,
            request=request,
            plan=plan,
            given=given,
            rule=chosen.rule,
            context=context,
            upstreams=self._upstreams,
            metrics=self.metrics,
            load=self.load,
            clock=self.clock,
            sink=sink,
            keep_stream=keep,
        )

    async def _run(self, exchange: Exchange, position: int, walk: Walk) -> None:
        exchange.on_gone = walk.gone
        in_canary = self._in_canary.setdefault(_attempt(walk.route), set()) if position else None
        if in_canary is not None:
            in_canary.add(walk)
        try:
            await walk.run(exchange.task)
        finally:
            exchange.on_gone = None
            if in_canary is not None:
                in_canary.discard(walk)

    def _settle(
        self,
        route: Route,
        position: int,
        ticket: Ticket | None,
        failed: int,
        bad: bool,
        id: str,
    ) -> None:
        if ticket is None:
            return
        self.ledger.settle(ticket, failed, self.clock(), bad)
        if self.ledger.receipts.keep(id, ticket):
            self.metrics.count("weir_labels_forgone", (route.key,))
        if failed and position == CANARY:
            self._look(route)

    def label(self, id: str, *, harm: bool) -> bool:
        """Take a label for an earlier reply; whether the reply is still known."""
        ticket = self.ledger.receipts.find(id)
        if ticket is None:
            return False
        result = self.ledger.label(ticket, harm, self.clock())
        policy = ticket.slot.book.policy
        arm = "canary" if ticket.arm == CANARY else "stable"
        labels = (f"{policy.namespace}/{policy.name}", arm, result)
        self.metrics.count("weir_labels", labels)
        return True

    def _silent_walk(self, route: Route, position: int, request: Request, given: Given) -> Walk:
        return self._walk(route, position, request, given, Context(b"audit", given.hops))


def _model(name: str, route: Route) -> dict[str, str | int]:
    return {"id": name, "object": "model", "created": 0, "owned_by": route.policy.namespace}


def _attempt(route: Route) -> tuple[str, str, int]:
    policy = route.policy
    assert policy.canary is not None
    return policy.uid, policy.canary.name, policy.attempt


def _no_model(name: str) -> Refusal:
    shown = name[:100]
    return Refusal(404, "model_not_found", f"The model {shown!r} does not exist", "model")


_BAD_SCHEMA = Refusal(
    400,
    "invalid_json_schema",
    "response_format.json_schema.schema: saw no valid JSON schema, or one that leads out of itself,"
    " back to itself at one value, or takes too much to check",
    "response_format",
)


def _overloaded(wait_s: float) -> Refusal:
    after_s = retry_after(wait_s, random.random())
    return Refusal(503, "overloaded", "too many requests in flight", retry_after_s=after_s)
