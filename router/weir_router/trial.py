"""Whether this router can obey a route at all: everything that serving compiles, compiled once.

A route that passes here cannot fail to be applied, so a bad one harms itself only.
"""

import ssl
from collections.abc import Iterator

from weir_core.snapshot import FULL_BP, Check, Revision, RoutePolicy, Snapshot
from weir_router import table, verify
from weir_router.client import Pool

MAX_PROBLEM = 300
_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def problem(policy: RoutePolicy) -> str:
    """Return why this route cannot be obeyed, "" when it can."""
    try:
        return _problem(policy)
    # The engines' errors have no common kind, and whatever it is, it is this route's alone.
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:MAX_PROBLEM]


def _problem(policy: RoutePolicy) -> str:
    if not 0 <= policy.weight_bp <= FULL_BP:
        return f"weightBp: saw {policy.weight_bp}, wanted 0 to {FULL_BP}"
    for revision in filter(None, (policy.stable, policy.canary)):
        found = _of_revision(revision)
        if found:
            return f"{revision.name}: {found}"
    compiled = table.empty().next(Snapshot(routes=(policy,)), ())
    for backend in compiled.backends().values():
        Pool(backend.url, ssl_context=_TLS)
    for check in _checks(policy):
        verify.compile_check(check)
    return ""


def _of_revision(revision: Revision) -> str:
    behaviour = revision.behaviour
    if not behaviour.tiers:
        return "tiers: saw none, wanted at least one"
    last = len(behaviour.tiers) - 1
    for rule in behaviour.rules:
        if not 0 <= rule.start <= rule.end <= last:
            return f"rule {rule.name}: saw tiers {rule.start} to {rule.end}, wanted 0 to {last}"
    return ""


def _checks(policy: RoutePolicy) -> Iterator[Check]:
    yield from policy.monitoring.monitors
    for revision in filter(None, (policy.stable, policy.canary)):
        for tier in revision.behaviour.tiers:
            yield from tier.accept
