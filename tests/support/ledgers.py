"""A ledger of one route in rollout, and short words for what is done to it."""

from support.routes import policy, revision
from weir_core.sequential import horizon_s
from weir_core.snapshot import Audits, Monitoring, Objective, RolloutPolicy
from weir_router.ledger import Ledger

NOW = 1_700_000_000.0
OBJECTIVES = (
    Objective(name="errors", event="Error"),
    Objective(name="slow", event="Slow", mode="Observe"),
    Objective(name="quality", event="Harm"),
)
ERROR, SLOW = 1, 2
STABLE, CANARY = 0, 1


def rolling(weight_bp=1_000, *, unit="Request", **changes):
    return policy(
        canary=revision("assistant-0000000002"),
        attempt=changes.pop("attempt", 1),
        weight_bp=weight_bp,
        monitoring=Monitoring(objectives=OBJECTIVES, audits=Audits(reference="large")),
        rollout=RolloutPolicy(unit=unit),
        **changes,
    )


ROUTE = rolling()
SESSIONS = rolling(unit="Session")
HORIZON_S = horizon_s(ROUTE)


def fresh():
    one = Ledger(router="r", boot="1")
    one.open(ROUTE, NOW)
    return one


def only(ledger, now_s=NOW):
    (tally,) = ledger.tallies(now_s)
    return tally


def counts(ledger, now_s=NOW):
    tally = only(ledger, now_s)
    rows = [e.counts for e in tally.epochs] + [c.counts for c in tally.cells]
    return [sum(column) for column in zip(*rows, strict=True)]


def serve(ledger, arm, failed=0, *, route=ROUTE, session="", now_s=NOW, takes_s=0.5):
    ticket = ledger.assign(route, arm, session, now_s)
    if ticket is not None:
        ledger.settle(ticket, failed, now_s + takes_s)
    return ticket


def judged(ledger, now_s, route=ROUTE):
    return ledger.judge(route, alpha=0.01, now_s=now_s)


def restarted(ledger):
    again = Ledger(router="r", boot="2")
    again.restore(ledger.tallies(NOW + 1), NOW + 2)
    again.open(ROUTE, NOW + 2)
    return again
