"""What a router may not tell: it is believed as itself alone, and of its own namespace's routes."""

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from msgspec.structs import replace

from e2e.cluster import Cluster, wait_for
from e2e.door import Door, Line, door_of, sidecar, token
from e2e.faults import (
    OPERATOR,
    ROUTE,
    ROUTERS,
    Watch,
    answered,
    assigned,
    begin,
    name_of,
    pods,
    weights,
)
from e2e.weir import SYSTEM, hosted, serve, settled, status, traffic
from weir_core.evidence import Tally, Trip
from weir_core.snapshot import RoutePolicy
from weir_router.ledger import Ledger

PAUSED = ({"setWeight": 25}, {"pause": {}})
FORGED = 7
"""Requests of each arm that a forged tally tells of."""
TOLD_S = 60
"""More than a status is late with numbers."""


@dataclass(frozen=True)
class Spaces:
    """Two namespaces with a canary at 25 % each, that waits for a person.

    `a` has real models, and evidence that stands still; `b` has none of either. A sidecar of
    `a`, with the pod's name `liar`, opens the stream of whoever plays it.
    """

    a: str
    b: str
    liar: str
    door: Door


@pytest.fixture(scope="module")
def spaces(weir: Cluster) -> Iterator[Spaces]:
    if not weir.own:
        pytest.skip("only to hack/cluster's own cluster has this machine a route")
    a, b = (f"forged-{os.getpid()}-{letter}" for letter in "ab")
    for name in (a, b):
        weir.kubectl("create", "namespace", name)
    try:
        weir.apply(*hosted(), namespace=b)
        serve(weir, a)
        settled(weir, ROUTE, b)
        weir.apply(*hosted(tokens=32, steps=PAUSED), namespace=b)
        Watch(weir, b).until("a canary", lambda now: now.weight == 25)
        with weir.url("weir-router", 80, namespace=a) as url, traffic(url, workers=3):
            begin(weir, Watch(weir, a))
        with sidecar(weir, a, "liar"):
            yield Spaces(a, b, "liar", door_of(weir, a))
    finally:
        for name in (a, b):
            weir.kubectl("delete", "namespace", name, "--wait=false")


def test_a_router_is_believed_as_itself_alone(weir: Cluster, spaces: Spaces) -> None:
    watch, victim = Watch(weir, spaces.a), pods(weir, spaces.a, ROUTERS)[0]
    counts = wait_for(lambda: _agreed(weir, spaces.a), TOLD_S, "the status to tell all there is")
    with spaces.door.line(token(weir, spaces.a, spaces.liar, of=spaces.liar)) as line:
        policy = _policy(line, spaces.a)
        boot = str(_start(weir, spaces.a, name_of(victim)))
        forged = _tally(policy, router=victim["metadata"]["uid"], boot=boot)

        def added() -> bool:
            line.tell(tallies=(forged,))
            now = assigned(weir, spaces.a)
            return now == {arm: count + FORGED for arm, count in counts.items()}

        with weir.timed("forged boot told until counted beside the one that it claims to be"):
            wait_for(added, TOLD_S, f"{FORGED} more than {counts} of each arm")
        told = status(weir, "mroute", ROUTE, spaces.a)
        assert told["routers"] == {"inSync": 2, "of": 2}

        trip = _trip(policy, decided_by=f"router/{name_of(victim)}")
        line.tell(trips=(trip,))
        wait_for(lambda: _refused(weir, spaces.a, spaces.liar) == {1}, 30, "the operator to tell")
    # Whoever may use a namespace's routes can be a sidecar: it stops no canary for all.
    time.sleep(2)
    assert not watch.look().rolled_back

    rogue = name_of(pods(weir, spaces.a, ROUTERS)[1])

    def out() -> bool:
        _as_router(weir, spaces, rogue, trips=(trip,))
        return watch.look().rolled_back

    wait_for(out, TOLD_S, "the trip to be taken")
    told = status(weir, "mroute", ROUTE, spaces.a)
    assert told["lastRollback"]["decidedBy"] == f"router/{rogue}"


def test_nothing_is_believed_of_another_namespaces_route(weir: Cluster, spaces: Spaces) -> None:
    theirs = name_of(pods(weir, spaces.b, ROUTERS)[0])
    start = _start(weir, spaces.b, theirs)
    with spaces.door.line(token(weir, spaces.b, "weir-router", of=theirs), start=start) as line:
        policy = _policy(line, spaces.b)
    before = Watch(weir, spaces.b).look()
    ours = name_of(pods(weir, spaces.a, ROUTERS)[0])

    def refused() -> bool:
        routes = _as_router(
            weir,
            spaces,
            ours,
            tallies=(_tally(policy, router="any", boot="1"),),
            trips=(_trip(policy, decided_by="router/any"),),
        )
        assert routes == {f"{spaces.a}/{ROUTE}"}
        return _refused(weir, spaces.a, ours) == {2}

    wait_for(refused, 30, "the operator to tell")
    time.sleep(2)
    after = Watch(weir, spaces.b).look()
    assert (after.canary, after.attempt) == (before.canary, before.attempt)
    assert (after.weight, after.rolled_back, after.assigned) == (25, False, 0)
    assert set(weights(weir, spaces.b).values()) == {0.25}


def _as_router(weir: Cluster, spaces: Spaces, pod: str, **told: Any) -> set[str]:
    """Report in a router's name, and return the routes that it is told of.

    The router itself takes its stream back in no time.
    """
    start = _start(weir, spaces.a, pod)
    with spaces.door.line(token(weir, spaces.a, "weir-router", of=pod), start=start) as line:
        routes = set(line.push().routes)
        line.tell(**told)
        time.sleep(0.1)
    return routes


def _start(weir: Cluster, namespace: str, pod: str) -> int:
    """Return the start that a pod's router reports."""
    state = ("python", "-c", "print(open('/var/lib/weir/router.json').read())")
    found = weir.kubectl("exec", pod, "-n", namespace, "--", *state)
    return int(json.loads(found)["start"])


def _policy(line: Line, namespace: str) -> RoutePolicy:
    policy = line.push().routes[f"{namespace}/{ROUTE}"].policy
    assert policy is not None
    assert policy.canary is not None
    return policy


def _tally(policy: RoutePolicy, *, router: str, boot: str) -> Tally:
    """Return faultless evidence as if of some router, newer than all that it has told."""
    ledger, now_s = Ledger(router=router, boot=boot), time.time()
    for arm in (0, 1) * FORGED:
        ticket = ledger.assign(policy, arm, "", now_s)
        assert ticket is not None
        ledger.settle(ticket, 0, now_s)
    (tally,) = ledger.tallies(now_s)
    return replace(tally, seq=1 << 40)


def _trip(policy: RoutePolicy, *, decided_by: str) -> Trip:
    assert policy.canary is not None
    return Trip(
        route_uid=policy.uid,
        revision=policy.canary.name,
        attempt=policy.attempt,
        decided_by=decided_by,
        reason="Harm",
        suspect="errors",
        log_e=20.0,
        at_s=time.time(),
    )


def _agreed(weir: Cluster, namespace: str) -> dict[str, int] | None:
    """Return what a status counts as soon as that is what its routers have answered."""
    told = assigned(weir, namespace)
    canary = sum(arms["canary"] for arms in answered(weir, namespace).values())
    return told if told.get("canary") == canary else None


def _refused(weir: Cluster, namespace: str, name: str) -> set[int]:
    """Return how much of a pod's reports the operator has refused, from its log."""
    lines = weir.kubectl("logs", OPERATOR, "-n", SYSTEM, "--tail=500").splitlines()
    told: list[dict[str, Any]] = [json.loads(line) for line in lines if line.startswith("{")]
    of_pod = [one for one in told if (one.get("namespace"), one.get("pod")) == (namespace, name)]
    parts = [one["refused"].split() for one in of_pod if one["message"] == "report in part"]
    return {sum(int(part.rpartition("=")[2]) for part in reasons) for reasons in parts}
