"""What the ledger and the judge cost: microseconds of processor time, best of five."""

import random
import time
from collections.abc import Callable, Iterator

import msgspec
from world import BEGIN_S, Case, policy, steady

from weir_core.evidence import Tally
from weir_core.sequential import horizon_s, judge, merge
from weir_core.snapshot import Objective, RoutePolicy
from weir_router.ledger import Ledger

OBJECTIVES = (
    Objective(name="errors", event="Error", share=2, max_rate=0.05, negligible_rate=0.002),
    Objective(name="slow", event="Slow", share=2),
    Objective(name="format", event="Invalid", negligible_rate=0.01),
    Objective(name="quality", event="Harm", share=2, max_rate=0.03),
)
WEIGHTS = (500, 1_000, 2_500, 2_500, 5_000, 5_000)
RATES = (0.01, 0.02, 0.005)
ROUTERS = 10


def lines() -> Iterator[str]:
    """Yield a markdown table of what each step costs."""
    yield "\n| Cost (processor time) | µs |\n|---|---|"
    yield f"| assign and settle, by request | {_hot(session=0):.2f} |"
    yield f"| assign and settle, sessions of 8 | {_hot(session=8):.2f} |"
    ledger, route, now_s = _grown(0)
    judging = _us(lambda: ledger.judge(route, alpha=0.01, now_s=now_s), 50)
    yield f"| judge 4 objectives × 6 epochs, the canary failing each second | {judging:.0f} |"
    worse = _grown(0, ratio=3)[0]
    close = _us(lambda: worse.judge(route, alpha=0.01, now_s=now_s), 20)
    yield f"| the same half-way to a rollback, at every prefix | {close:.0f} |"
    size = len(msgspec.json.encode(ledger.tallies(now_s)))
    reporting = _us(lambda: _tallies(ledger, route, now_s), 50)
    yield f"| tallies, of {size:,} bytes | {reporting:.0f} |"
    reports = [tally for n in range(ROUTERS) for tally in _grown(n)[0].tallies(now_s)]
    merging = _us(lambda: _judged(reports, route, now_s), 10)
    yield f"| merge and judge the same of {ROUTERS} routers | {merging:.0f} |"


def _us(deed: Callable[[], object], times: int) -> float:
    best = float("inf")
    for _ in range(5):
        began = time.process_time()
        for _ in range(times):
            deed()
        best = min(best, (time.process_time() - began) / times)
    return best * 1e6


def _hot(session: int) -> float:
    route = policy(Case(requests=0, weights=(), fails=steady(0, 0), session=session), 1_000)
    names = [str(n // max(1, session)) for n in range(20_000)]

    def serve() -> None:
        ledger, now_s = Ledger(router="r", boot="1"), BEGIN_S
        for n, name in enumerate(names):
            now_s += 0.001
            ticket = ledger.assign(route, n % 10 == 0, name, now_s)
            if ticket is not None:
                ledger.settle(ticket, 0, now_s)

    return _us(serve, 1) / len(names)


def _grown(router: int, ratio: float = 1) -> tuple[Ledger, RoutePolicy, float]:
    """Return a ledger with six epochs, the last one full of requests of the last 40 s.

    `ratio` is of the canary's failures to stable's.
    """
    rng = random.Random(router)
    ledger = Ledger(router=f"r{router}", boot="1")
    case = Case(
        requests=0,
        weights=(),
        fails=steady(0, 0),
        objectives=OBJECTIVES,
        audit=lambda _: (False, False),
    )
    route, now_s = policy(case, WEIGHTS[0]), BEGIN_S
    for hour, weight_bp in enumerate(WEIGHTS):
        route = policy(case, weight_bp)
        now_s = BEGIN_S + hour * 3_600
        for _ in range(4_000):
            now_s += 0.01
            ticket = ledger.assign(route, int(rng.random() * 1e4 < weight_bp), "", now_s)
            assert ticket is not None
            worse = ratio if ticket.arm else 1
            failed = sum((rng.random() < worse * rate) << j for j, rate in enumerate(RATES))
            ledger.settle(ticket, failed, now_s)
            if rng.random() < 0.1:
                audit = ledger.audit_begin(route, now_s)
                assert audit is not None
                ledger.audit_end(audit, rng.random() < 0.02, rng.random() < 0.02, now_s)
    return ledger, route, now_s


def _tallies(ledger: Ledger, route: RoutePolicy, now_s: float) -> tuple[Tally, ...]:
    ledger.assign(route, 0, "", now_s)
    return ledger.tallies(now_s)


def _judged(reports: list[Tally], route: RoutePolicy, now_s: float) -> object:
    return judge(
        merge(reports),
        OBJECTIVES,
        alpha=0.01,
        promote_alpha=0.05,
        promote_ratio=2.0,
        now_s=now_s,
        horizon_s=horizon_s(route),
    )
