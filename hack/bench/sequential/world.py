"""A fake-clock fleet: requests drawn, answered and settled through the real ledger.

Nothing here computes evidence. A case says how requests come and fail; a run drives `Ledger`
(one a router) event by event and asks it, or `judge` over the merged tallies, for a verdict.
Looking at every event is cut down to events after which evidence of harm can be larger than at
the last look: a canary failure was settled (looked at at once); a stable request was settled as
good, which counted as failed while it was open, a router has restarted, or a lost outcome has
passed the horizon (looked at by the clock, as the brake does, while a canary failure is younger
than the horizon). All other counts that move are stable failures, assignments and canary
successes: they leave the evidence where it is or lower it.
"""

import heapq
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

from truth import Crossing, Truth

from weir_core.eprocess import harm_bet
from weir_core.evidence import ASSIGNED, BAD, CANARY, STABLE, Judgement, Tally
from weir_core.routing import draw
from weir_core.sequential import horizon_s, judge, merge
from weir_core.snapshot import (
    Audits,
    Backend,
    Behaviour,
    Monitoring,
    Objective,
    Revision,
    RolloutPolicy,
    RoutePolicy,
    Tier,
)
from weir_router.ledger import Ledger, Ticket

DEADLINE_MS = 30_000
BEGIN_S = 1_700_000_000.0
ERRORS = Objective(name="errors", event="Error")

Latency = Callable[[random.Random, int, bool], float]
"""(chance, arm, failed) to seconds."""

Rate = Callable[[int, float], float]
"""(arm, share of the run that is over) to a probability of failure."""


def alike(rng: random.Random, arm: int, failed: bool) -> float:
    """Half a second on average, whatever the arm and outcome."""
    return rng.expovariate(2.0)


def fast_canary_failures(rng: random.Random, arm: int, failed: bool) -> float:
    """The canary fails at 0.3 s, stable by its time-out at just under 30 s."""
    if not failed:
        return rng.expovariate(2.0)
    return 0.3 if arm == CANARY else 29.9


def slow_canary_failures(rng: random.Random, arm: int, failed: bool) -> float:
    """The other way round."""
    return fast_canary_failures(rng, STABLE if arm == CANARY else CANARY, failed)


def slow_canary(rng: random.Random, arm: int, failed: bool) -> float:
    """The canary takes ten times as long as stable, whatever the outcome."""
    return min(29.9, rng.expovariate(0.2 if arm == CANARY else 2.0))


def steady(stable: float, canary: float) -> Rate:
    """Failure rates that do not change."""
    return partial(_rate, (stable, canary))


def _rate(rates: tuple[float, float], arm: int, _progress: float) -> float:
    return rates[arm]


@dataclass(frozen=True, kw_only=True)
class Case:
    """How requests come, fail and are watched. `weights` are (share of the run, weight_bp)."""

    requests: int
    weights: tuple[tuple[float, int], ...]
    fails: Rate
    per_s: float = 50.0
    latency: Latency = alike
    objectives: tuple[Objective, ...] = (ERRORS,)
    alpha: float = 0.01
    promote: bool = False
    promote_ratio: float = 2.0
    routers: int = 1
    report_s: float = 0.0
    """How often each of several routers reports, each at a moment of its own; 0 is at each look."""
    session: int = 0
    """Requests a session makes; 0 draws requests one by one."""
    lost: tuple[float, float] = (0.0, 0.0)
    """Share of requests by arm whose outcome never comes."""
    gone: float = 0.0
    """Share of requests whose client leaves within two seconds, which settles them."""
    restarts: int = 0
    audit: Callable[[random.Random], tuple[bool, bool]] | None = None
    """Draws (canary harm, stable harm) of an audited request; all are audited."""
    past: tuple[Tally, ...] = ()
    on_arrival: bool = False
    """The known wrong way: settle failures into evidence when they arrive."""
    look_s: float = 0.25
    """How often the evidence is looked at by the clock."""
    measured: bool = False
    """Whether to find out when the evidence crosses if every outcome is known at once."""
    spared: bool = False
    """Whether not to look by the clock before that: a rollback cannot come sooner."""


@dataclass
class Run:
    """What came of one run; `assigned` is by arm when it ended."""

    rolled_back: bool = False
    promoted: bool = False
    held: set[str] = field(default_factory=set)
    assigned: tuple[int, int] = (0, 0)
    bad_served: int = 0
    seconds: float = 0.0
    audits: int = 0
    crossing: Crossing | None = None
    delay_s: float = 0.0
    """From the crossing to the trip."""


def policy(case: Case, weight_bp: int) -> RoutePolicy:
    """Return the policy of a case at one weight."""
    backend = Backend(name="b", identity="b", url="http://b", model="m")
    behaviour = Behaviour(
        deadline_ms=DEADLINE_MS, max_attempts=1, tiers=(Tier(name="t", backend=backend),)
    )
    audits = Audits(reference="t", percent_bp=10_000) if case.audit else None
    return RoutePolicy(
        uid="uid",
        namespace="llm",
        name="assistant",
        model_names=("assistant",),
        stable=Revision(name="assistant-1", behaviour=behaviour, content=""),
        canary=Revision(name="assistant-2", behaviour=behaviour, content=""),
        attempt=1,
        weight_bp=weight_bp,
        monitoring=Monitoring(objectives=case.objectives, audits=audits),
        rollout=RolloutPolicy(
            unit="Session" if case.session else "Request", promote_ratio=case.promote_ratio
        ),
    )


class Fleet:
    """The routers of one run and who watches them."""

    def __init__(self, case: Case, now_s: float) -> None:
        self.case = case
        self.boots = 0
        self.dead: list[Tally] = []
        self.ledgers = [self._boot() for _ in range(case.routers)]
        self.reports: list[tuple[float, tuple[Tally, ...]]] = [(0.0, ())] * case.routers
        if case.past:
            self.ledgers[0].restore(case.past, now_s)

    def _boot(self) -> Ledger:
        self.boots += 1
        return Ledger(router=f"r{self.boots}", boot=str(self.boots))

    def restart(self, at: int, now_s: float) -> None:
        """Replace one router as a crash does; what it had in flight is never settled."""
        tallies = self.ledgers[at].tallies(now_s)
        self.ledgers[at] = self._boot()
        if self.case.routers == 1:
            self.ledgers[at].restore(tallies, now_s)
        else:
            self.dead += tallies

    def judge(self, policy: RoutePolicy, now_s: float) -> Judgement:
        """Judge as a lone router does, or as the operator over the reports of several."""
        if self.case.routers == 1:
            return self.ledgers[0].judge(policy, alpha=self.case.alpha, now_s=now_s)
        return judge(
            merge([*self._reported(now_s), *self.dead]),
            policy.monitoring.objectives,
            alpha=self.case.alpha,
            promote_alpha=policy.rollout.promote_alpha,
            promote_ratio=policy.rollout.promote_ratio,
            now_s=now_s,
            horizon_s=horizon_s(policy),
        )

    def _reported(self, now_s: float) -> Iterator[Tally]:
        every_s = self.case.report_s
        for at, ledger in enumerate(self.ledgers):
            turn = now_s / every_s + at / self.case.routers if every_s else now_s
            if not every_s or int(turn) > self.reports[at][0]:
                self.reports[at] = (int(turn), ledger.tallies(now_s))
            yield from self.reports[at][1]


def run(case: Case, seed: int) -> Run:
    """Drive one case to its verdict or its end."""
    return _Drive(case, seed).run()


def _truth_of(case: Case) -> Truth:
    assert case.objectives == (ERRORS,), "one ratio is measured"
    return Truth(harm_bet(ERRORS.max_ratio), case.alpha, case.past)


class _Drive:
    def __init__(self, case: Case, seed: int) -> None:
        self.case = case
        self.rng = random.Random(seed)
        self.now_s = BEGIN_S + self.rng.random() * 3_600
        self.fleet = Fleet(case, self.now_s)
        self.policies = [(until, policy(case, bp)) for until, bp in case.weights]
        self.policy = self.policies[0][1]
        self.open: list[tuple[float, int, Ledger, Ticket, bool, int]] = []
        self.sessions: list[list[object]] = []
        self.result = Run()
        self.failed_s = 0.0
        self.over = False
        self.may_rise = False
        self.looks_s = self.now_s + case.look_s
        self.truth = _truth_of(case) if case.measured else None
        rows = [epoch.counts for tally in case.past for epoch in tally.epochs]
        self.past = (sum(r[ASSIGNED] for r in rows), sum(r[ASSIGNED + 1] for r in rows))
        self.bad_before = sum(row[BAD] for row in rows)

    def run(self) -> Run:
        case, rng = self.case, self.rng
        began_s = self.now_s
        crashes = {int(case.requests * (k + 1) / (case.restarts + 1)) for k in range(case.restarts)}
        for serial in range(case.requests):
            self._pass(self.now_s + rng.expovariate(case.per_s))
            if self.over:
                break
            if serial in crashes:
                self.fleet.restart(rng.randrange(case.routers), self.now_s)
            self._arrive(serial)
        self._pass(self.now_s + DEADLINE_MS / 1_000 + 6)
        self.result.seconds = self.now_s - began_s
        if self.truth is not None:
            self.result.crossing = self.truth.crossing
        return self.result

    def _pass(self, until_s: float) -> None:
        """Let the time pass: settle and look when it is time to."""
        while self.looks_s <= until_s and not self.over:
            self._settle_due(self.looks_s)
            self._tick(self.looks_s)
            self.looks_s += self.case.look_s
        self._settle_due(until_s)
        if not self.over:
            self.now_s = until_s

    def _arrive(self, serial: int) -> None:
        case, rng = self.case, self.rng
        progress = serial / case.requests
        self.policy = next(p for until, p in self.policies if progress < until)
        ledgers = self.fleet.ledgers
        ledger = ledgers[0] if len(ledgers) == 1 else rng.choice(ledgers)
        session, bad = self._session(progress) if case.session else ("", 0.0)
        arm = draw(self.policy, session=session, coin=rng.random())
        ticket = ledger.assign(self.policy, arm, session, self.now_s)
        if case.audit:
            self._audit(ledger)
        if ticket is None:
            return
        failed = (bad if session else rng.random()) < case.fails(arm, progress)
        delay = case.latency(rng, arm, failed)
        is_lost = case.lost[arm] > 0 and rng.random() < case.lost[arm]
        if case.gone and rng.random() < case.gone:
            delay = min(delay, rng.random() * 2)
        if self.truth is not None:
            self.truth.assign(
                self.now_s,
                self.policy.weight_bp,
                arm=arm,
                failed=failed or is_lost,
                settles_s=self.now_s + delay,
            )
        if is_lost:
            return
        heapq.heappush(self.open, (self.now_s + delay, serial, ledger, ticket, failed, arm))

    def _session(self, progress: float) -> tuple[str, float]:
        """Return a running session and its fate: a bad one fails every request, in any arm."""
        running = self.sessions
        if len(running) < 40:
            running.append([f"s{self.rng.random()}", self.rng.random(), self.case.session])
        session = self.rng.choice(running)
        name, bad, left = session
        assert isinstance(left, int)
        session[2] = left - 1
        if left <= 1:
            running.remove(session)
        return str(name), float(str(bad))

    def _audit(self, ledger: Ledger) -> None:
        assert self.case.audit is not None
        audit = ledger.audit_begin(self.policy, self.now_s)
        assert audit is not None
        self.result.audits += 1
        canary, stable = self.case.audit(self.rng)
        ledger.audit_end(audit, canary, stable, self.now_s)
        if canary:
            self.failed_s = self.now_s
            self._look()

    def _settle_due(self, until_s: float) -> None:
        while self.open and self.open[0][0] <= until_s and not self.over:
            self.now_s = self.open[0][0]
            at_s, _, ledger, ticket, failed, arm = heapq.heappop(self.open)
            if self.case.on_arrival and failed:
                ticket = self._as_if_new(ledger, ticket, at_s)
            ledger.settle(ticket, int(failed), at_s)
            if arm == STABLE and (not failed or self.case.on_arrival):
                self.may_rise = True
            if failed and arm == CANARY:
                self.failed_s = at_s
                self._look()

    def _as_if_new(self, ledger: Ledger, ticket: Ticket, at_s: float) -> Ticket:
        """Settle the request as good and count its failure as one assigned just now."""
        ledger.settle(ticket, 0, at_s)
        late = ledger.assign(self.policy, ticket.arm, "", at_s)
        assert late is not None
        return late

    def _tick(self, now_s: float) -> None:
        if self.over:
            return
        self.now_s = now_s
        if self.case.spared and self.truth is not None and self.truth.crossing is None:
            return
        may_rise = self.may_rise or any(self.case.lost) or self.case.restarts > 0
        is_young = now_s - self.failed_s <= DEADLINE_MS / 1_000 + 5
        if self.case.promote or (may_rise and is_young):
            self._look()

    def _look(self) -> None:
        self.may_rise = False
        judgement = self.fleet.judge(self.policy, self.now_s)
        self.result.held.update(judgement.holds)
        past = self.past
        self.result.assigned = (judgement.assigned[0] - past[0], judgement.assigned[1] - past[1])
        self.result.bad_served = judgement.bad_served - self.bad_before
        if judgement.verdict == "Harm":
            self.result.rolled_back = self.over = True
            if self.truth is not None:
                crossing = self.truth.crossing
                assert crossing is not None, "rolled back before the evidence has crossed"
                self.result.delay_s = self.now_s - crossing.at_s
        if self.case.promote and judgement.verdict == "Safe":
            self.result.promoted = self.over = True
