"""Labels of people: A/A and detection, through the real ledger and the fake clock.

A request is answered, perhaps labelled harmful some time after, and the ledger holds the label
back. Evidence of labels can rise only when the canary's are released: then is looked.
"""

import heapq
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial

from tables import RAMP, SPENT, WEIGHTS, Row, Table, by_weight, information_bound, told_rollbacks
from world import BEGIN_S, ERRORS, Case, Fleet, Run, policy, steady

from weir_core.evidence import CANARY, FAILED, STABLE, Judgement, Tally
from weir_core.routing import draw
from weir_core.sequential import horizon_s, judge, merge
from weir_core.snapshot import Objective
from weir_router.ledger import Ledger, Ticket
from weir_router.slots import holder

THUMBS = Objective(name="thumbs", event="Feedback", within_ms=600_000)
QUICK = Objective(name="thumbs", event="Feedback", within_ms=60_000)
REPORT_S = 0.7
"""How much later each router reports than the one before."""

Delay = Callable[[random.Random, int], float]
"""(chance, arm) to seconds."""


def by_arm(stable_s: float, canary_s: float) -> Delay:
    """The same for all requests of an arm."""
    return partial(_of_arm, (stable_s, canary_s))


def _of_arm(seconds: tuple[float, float], _rng: random.Random, arm: int) -> float:
    return seconds[arm]


HALF_A_SECOND = by_arm(0.5, 0.5)


def at_leisure(rng: random.Random, _arm: int) -> float:
    """Two minutes on average."""
    return rng.expovariate(1 / 120)


def in_a_minute(rng: random.Random, _arm: int) -> float:
    """A minute on average: many labels come too late for a window of one."""
    return rng.expovariate(1 / 60)


@dataclass(frozen=True, kw_only=True)
class Labelled(Case):
    """`fails` is the probability of a harmful label; `errs` that of an error, in both arms."""

    labelled: Delay = at_leisure
    answered: Delay = HALF_A_SECOND
    errs: float = 0.0
    objectives: tuple[Objective, ...] = (THUMBS,)

    def drive(self, seed: int) -> Run:
        """Drive one case to its verdict or its end."""
        return _Drive(self, seed).run()


class _Drive:
    def __init__(self, case: Labelled, seed: int) -> None:
        self.case = case
        self.rng = random.Random(seed)
        self.now_s = BEGIN_S + self.rng.random() * 3_600
        self.fleet = Fleet(case, self.now_s)
        self.policies = [(until, policy(case, bp)) for until, bp in case.weights]
        self.policy = self.policies[0][1]
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.serial = self.pushed = 0
        self.sessions: list[list[float]] = []
        self.reports: dict[int, tuple[Tally, ...]] = {}
        self.due_s: list[float] = []
        self.result = Run()

    def run(self) -> Run:
        began_s = self.now_s
        self._at(self.now_s, self._arrive)
        while self.events and not self.result.rolled_back:
            self.now_s, _, deed = heapq.heappop(self.events)
            deed()
        shown = sum(due_s <= self.now_s for due_s in self.due_s)
        self.result.assigned = (0, shown)
        self.result.seconds = self.now_s - began_s
        return self.result

    def _at(self, at_s: float, deed: Callable[[], None]) -> None:
        self.pushed += 1
        heapq.heappush(self.events, (at_s, self.pushed, deed))

    def _arrive(self) -> None:
        case, rng = self.case, self.rng
        progress = self.serial / case.requests
        self.policy = next(p for until, p in self.policies if progress < until)
        self.serial += 1
        if self.serial < case.requests:
            self._at(self.now_s + rng.expovariate(case.per_s), self._arrive)
        if case.restarts and self.serial % (case.requests // (case.restarts + 1)) == 0:
            self.fleet.restart(rng.randrange(case.routers), self.now_s)
        ledger = rng.choice(self.fleet.ledgers)
        session, fate = self._session()
        arm = draw(self.policy, session=session, coin=rng.random())
        ticket = ledger.assign(self.policy, arm, session, self.now_s)
        if ticket is None:
            return
        if arm:
            self.due_s.append(ticket.slot.late_s + self._window_s())
        rate = case.fails(arm, progress)
        # Half of a bad session's answers are labelled, in any arm.
        harmed = rng.random() < (rate if not session else 0.5 * (fate < rate))
        end_s = self.now_s + case.answered(rng, arm)
        self._at(end_s, partial(self._settle, ledger, ticket, rng.random() < case.errs, harmed))

    def _window_s(self) -> float:
        return max((o.within_ms for o in self.case.objectives), default=0) / 1_000

    def _session(self) -> tuple[str, float]:
        if not self.case.session:
            return "", 0.0
        running = self.sessions
        if len(running) < 40:
            running.append([self.rng.random(), self.rng.random(), self.case.session])
        session = self.rng.choice(running)
        session[2] -= 1
        if session[2] <= 0:
            running.remove(session)
        return f"s{session[0]}", session[1]

    def _settle(self, ledger: Ledger, ticket: Ticket, erred: bool, harmed: bool) -> None:
        mask = sum(1 << j for j, o in enumerate(self.case.objectives) if o.event == "Error")
        ledger.settle(ticket, mask if erred else 0, self.now_s)
        if erred and ticket.arm == CANARY and self.case.routers == 1:
            self._look()
        if harmed:
            delay_s = self.case.labelled(self.rng, ticket.arm)
            self._at(self.now_s + delay_s, partial(self._label, ledger, ticket))

    def _label(self, ledger: Ledger, ticket: Ticket) -> None:
        if self.case.on_arrival:
            _count_now(ticket)
        else:
            ledger.label(ticket, True, self.now_s)
        if ticket.arm == CANARY and self.case.on_arrival:
            self._look()
        elif ticket.arm == CANARY:
            self._look_at(ticket.slot.late_s + self._window_s())

    def _look_at(self, at_s: float) -> None:
        """Look when a label is released: at once, or over reports of different moments."""
        if self.case.routers == 1:
            self._at(at_s, self._look)
            return
        for router in range(self.case.routers):
            self._at(at_s + 1 + router * REPORT_S, partial(self._report, router))
        self._at(at_s + 1 + self.case.routers * REPORT_S, self._look)

    def _report(self, router: int) -> None:
        self.reports[router] = self.fleet.ledgers[router].tallies(self.now_s)

    def _look(self) -> None:
        judgement = self._judged()
        self.result.held.update(judgement.holds)
        self.result.bad_served = judgement.bad_served
        self.result.rolled_back = self.result.rolled_back or judgement.verdict == "Harm"

    def _judged(self) -> Judgement:
        case, fleet = self.case, self.fleet
        if case.routers == 1:
            return fleet.judge(self.policy, self.now_s)
        reports = [tally for one in self.reports.values() for tally in one]
        return judge(
            merge([*reports, *fleet.dead]),
            case.objectives,
            alpha=case.alpha,
            promote_alpha=0.05,
            promote_ratio=2.0,
            now_s=self.now_s,
            horizon_s=horizon_s(self.policy),
        )


def _count_now(ticket: Ticket) -> None:
    """Count a harmful label when it arrives: the known wrong way."""
    holder(ticket.slot.span).base[FAILED + ticket.arm] += 1


def told_labels(case: Case, runs: list[Run]) -> str:
    """Return mean canary requests whose window was over at the rollback, over the bound."""
    found = [one for one in runs if one.rolled_back]
    if not found:
        return "none"
    mean = sum(one.assigned[CANARY] for one in found) / len(found)
    minutes = sum(one.seconds for one in found) / len(found) / 60
    rates = (case.fails(CANARY, 1.0), case.fails(STABLE, 1.0))
    bound = information_bound(*rates, case.weights[-1][1] / 1e4, case.alpha)
    missed = f", missed {len(runs) - len(found)}" if len(found) < len(runs) else ""
    return f"{mean:,.0f} / {bound:,.0f} = **{mean / bound:.2f}** ({minutes:.0f} min{missed})"


def equal(runs: int, size: float) -> Table:
    """Return A/A: 10 % of the answers of both arms are labelled harmful."""
    n = int(1_500 * size)
    plain = Labelled(requests=n, weights=(), fails=steady(0.1, 0.1), per_s=5)
    uneven = replace(plain, labelled=by_arm(480.0, 5.0))
    both = (ERRORS, THUMBS)
    rows = [
        ("labels alike, two minutes after the reply", plain),
        ("canary labelled after 5 s, stable after 8 min", uneven),
        ("stable labelled after 5 s, canary after 8 min", replace(plain, labelled=by_arm(5, 480))),
        ("canary after 5 s, 3 routers, reports 0.7 s apart", replace(uneven, routers=3)),
        ("the same, sessions of 10", replace(uneven, routers=3, session=10)),
        ("canary after 5 s, beside 10 % errors", replace(uneven, objectives=both, errs=0.1)),
        (
            "canary after 5 s, 6 restarts, 10 s between requests",
            replace(uneven, restarts=6, per_s=0.1),
        ),
        (
            "window 1 min, canary answers in 1 s, stable in 25 s",
            replace(plain, objectives=(QUICK,), labelled=in_a_minute, answered=by_arm(25.0, 1.0)),
        ),
    ]
    told = [Row(name, by_weight(case), runs, told_rollbacks) for name, case in rows]
    ramp = replace(uneven, weights=RAMP, routers=3, requests=3 * n, per_s=2)
    told.append(Row("ramp 5→10→25→50 %, 3 routers", (ramp,), runs, told_rollbacks))
    wrong = by_weight(replace(uneven, on_arrival=True))
    told.append(Row("*wrong way:* counted on arrival", wrong, max(1, runs // 10), told_rollbacks))
    title = "Labels, equal arms: false rollback (α = 0.01), w ="
    return Table("feedback", title, tuple(f"{bp / 100:g} %" for bp in WEIGHTS), tuple(told))


def detection(runs: int) -> Table:
    """Return how soon a canary is rolled back whose answers are labelled harmful more often."""
    base = Labelled(requests=1_000_000, weights=(), fails=steady(0.01, 0.03), per_s=10, alpha=SPENT)
    rows = [
        ("1 % → 3 %", base),
        ("1 % → 10 %", replace(base, fails=steady(0.01, 0.1))),
        ("1 % → 10 %, 3 routers", replace(base, fails=steady(0.01, 0.1), routers=3)),
        ("0.1 % → 1 %", replace(base, fails=steady(0.001, 0.01))),
    ]
    told = [Row(name, by_weight(case), runs, told_labels) for name, case in rows]
    title = "Labels within 10 min: mean canary requests / bound at α = 0.008 (10 requests/s), w ="
    return Table("feedback", title, tuple(f"{bp / 100:g} %" for bp in WEIGHTS), tuple(told))


def tables(runs: int, size: float) -> Iterable[Table]:
    """Return both tables; `runs` is of a cell of the first."""
    return (equal(runs, size), detection(max(12, runs // 7)))
