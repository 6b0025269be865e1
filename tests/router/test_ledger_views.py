"""Two ways to the same verdict: a router's own book, and what its report says."""

import random

import msgspec
import pytest

from support.routes import policy, revision
from weir_core.evidence import ASSIGNED, Tally
from weir_core.merging import MAX_FAILURES, fits
from weir_core.sequential import horizon_s, judge
from weir_core.snapshot import Audits, Monitoring, Objective, RolloutPolicy
from weir_router.book import MAX_FAILED_SESSIONS
from weir_router.ledger import Ledger

BEGIN_S = 1_700_000_000.0
OBJECTIVES = (
    Objective(name="errors", event="Error", max_rate=0.05, negligible_rate=0.01),
    Objective(name="slow", event="Slow", share=2),
    Objective(name="quality", event="Harm", max_rate=0.03),
    Objective(name="thumbs", event="Feedback", within_ms=60_000),
    Objective(name="later", event="Feedback", within_ms=3_600_000, mode="Observe"),
)


def rolling(weight_bp, unit, deadline_ms=30_000):
    return policy(
        stable=revision(deadline_ms=deadline_ms),
        canary=revision("assistant-0000000002", deadline_ms=deadline_ms),
        attempt=1,
        weight_bp=weight_bp,
        monitoring=Monitoring(objectives=OBJECTIVES, audits=Audits(reference="large")),
        rollout=RolloutPolicy(unit=unit),
    )


class Traffic:
    """Requests, audits and labels by chance, over hours with pauses, weights and restarts."""

    def __init__(self, seed, unit, deadline_ms=30_000):
        self.rng = random.Random(seed)
        self.now_s = BEGIN_S + self.rng.random() * 3_600
        self.policies = [rolling(bp, unit, deadline_ms) for bp in (500, 2_500, 5_000)]
        self.route = self.policies[0]
        self.ledger = Ledger(router="r", boot="0")
        self.boots = 0
        self.open = []
        self.answered = []

    def step(self):
        rng = self.rng
        self.now_s += rng.expovariate(5) if rng.random() > 0.004 else rng.random() * 4_000
        chance = rng.random()
        if chance < 0.01:
            self.route = rng.choice(self.policies)
        elif chance < 0.013:
            self.restart()
        elif chance < 0.1:
            audit = self.ledger.audit_begin(self.route, self.now_s)
            harms = (rng.random() < 0.3, rng.random() < 0.3)
            if rng.random() < 0.9:
                self.ledger.audit_end(audit, *harms, self.now_s)
        elif self.open and chance < 0.5:
            ticket = self.open.pop(rng.randrange(len(self.open)))
            self.ledger.settle(ticket, rng.choice((0, 0, 0, 1, 2, 3)), self.now_s)
            self.answered.append(ticket)
        elif self.answered and chance < 0.55:
            ticket = self.answered.pop(rng.randrange(len(self.answered)))
            self.ledger.label(ticket, rng.random() < 0.8, self.now_s)
        else:
            arm = int(rng.random() * 1e4 < self.route.weight_bp)
            session = str(rng.randrange(200)) if rng.random() < 0.9 else ""
            ticket = self.ledger.assign(self.route, arm, session, self.now_s)
            self.open += [ticket] if ticket else []

    def restart(self):
        tallies = self.ledger.tallies(self.now_s)
        self.boots += 1
        self.open, self.answered = [], []
        self.ledger = Ledger(router="r", boot=str(self.boots))
        self.ledger.restore(tallies, self.now_s)

    def own(self):
        self.ledger.open(self.route, self.now_s)
        return self.ledger.judge(self.route, alpha=0.01, now_s=self.now_s)

    def reported(self):
        raw = msgspec.json.encode(self.ledger.tallies(self.now_s))
        tallies = msgspec.json.decode(raw, type=tuple[Tally, ...])
        assert all(fits(tally, len(OBJECTIVES)) for tally in tallies)
        return judge(
            tallies,
            OBJECTIVES,
            alpha=0.01,
            promote_alpha=0.05,
            promote_ratio=2.0,
            now_s=self.now_s,
            horizon_s=horizon_s(self.route),
        )


def close(one, other):
    return one == pytest.approx(other, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("unit", ["Request", "Session"])
@pytest.mark.parametrize("seed", range(4))
def test_report_says_what_the_router_knows(unit, seed):
    traffic = Traffic(seed, unit)
    for step in range(2_500):
        traffic.step()
        if traffic.boots == 0 and step % 100 == 0:
            own, reported = traffic.own(), traffic.reported()
            assert own.assigned == reported.assigned
            assert close(own.log_e, reported.log_e)
            assert own == reported


@pytest.mark.parametrize("unit", ["Request", "Session"])
def test_counts_survive_restarts(unit):
    traffic = Traffic(11, unit)
    for _ in range(4_000):
        traffic.step()
    own, reported = traffic.own(), traffic.reported()
    assert traffic.boots > 3
    assert own.assigned == reported.assigned
    assert own.audits == reported.audits
    assert [o.settled for o in own.objectives] == [o.settled for o in reported.objectives]


@pytest.mark.parametrize("deadline_ms", [1_000, 30_000, 600_000])
def test_cells_are_fewer_the_older_they_are(deadline_ms):
    route = rolling(500, "Request", deadline_ms)
    ledger = Ledger(router="r", boot="1")
    for tick in range(16 * 700):
        now_s = BEGIN_S + tick / 16
        ledger.settle(ledger.assign(route, tick % 2, "", now_s), 0, now_s)
    (tally,) = ledger.tallies(now_s)
    recent = [cell.begin_s for cell in tally.cells if cell.begin_s > now_s - 4]
    assert len(recent) == 32
    assert len(tally.cells) < 250
    rows = [*(epoch.counts for epoch in tally.epochs), *(cell.counts for cell in tally.cells)]
    assert sum(row[ASSIGNED] for row in rows) == 8 * 700


def test_long_deadlines_are_read_alike_in_books_and_reports():
    traffic = Traffic(5, "Request", deadline_ms=600_000)
    for step in range(3_000):
        traffic.step()
        if traffic.boots == 0 and step % 100 == 0:
            assert traffic.own() == traffic.reported()


def test_two_weeks_of_hours_stay_a_bounded_number_of_epochs():
    route = rolling(500, "Request")
    ledger = Ledger(router="r", boot="1")
    for hour in range(14 * 24):
        for arm in (0, 1):
            now_s = BEGIN_S + hour * 3_600 + arm
            ledger.settle(ledger.assign(route, arm, "", now_s), 0, now_s)
    (tally,) = ledger.tallies(now_s)
    judgement = ledger.judge(route, alpha=0.01, now_s=now_s)
    assert len(tally.epochs) < 80
    assert judgement.assigned == (336, 336)


def test_very_many_failed_sessions_are_sampled():
    route = rolling(5_000, "Session")
    ledger = Ledger(router="r", boot="1")
    for number in range(MAX_FAILED_SESSIONS + 500):
        ticket = ledger.assign(route, number % 2, str(number), BEGIN_S)
        ledger.settle(ticket, 1, BEGIN_S + 1)
    (tally,) = ledger.tallies(BEGIN_S + 2)
    own = ledger.judge(route, alpha=0.01, now_s=BEGIN_S + 2)
    assert 0 < len(tally.failures) <= MAX_FAILURES
    assert tally.level >= 4
    assert own.verdict != "Harm"
    assert sum(own.objectives[0].failed) == pytest.approx(MAX_FAILED_SESSIONS / 2, rel=0.1)
