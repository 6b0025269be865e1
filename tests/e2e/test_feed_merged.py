"""Three routers: their evidence is one, and a canary that harms leaves all of them at once."""

import copy
import json
import os
import time
from collections.abc import Iterator

import pytest

from e2e.cluster import Cluster, wait_for
from e2e.faults import (
    ROUTE,
    ROUTERS,
    Watch,
    all_ready,
    answered,
    assigned,
    gauge,
    unweighted,
    weights,
)
from e2e.weir import VALUES, Thing, backend, install, route, serve, status, traffic

COUNT = 3
WORKERS = 6
EACH = 20
"""Answers of every router that evidence is merged of, at least."""
REACH_S = 1.0
"""From the crossing until no router sends the canary anything."""
EVIDENCE_S = 1.0
"""From an answer until what it tells is judged."""
APART_S = 2.5
"""Between two answers where it is asked which of them was the one that crossed."""


@pytest.fixture(scope="module")
def three(weir: Cluster) -> Iterator[str]:
    """A namespace with three routers."""
    if not weir.own:
        pytest.skip("only to pods of hack/cluster's own cluster has this machine a route")
    name = f"merged-{os.getpid()}"
    values: Thing = copy.deepcopy(VALUES)
    values["router"]["overrides"] = {name: {"replicas": COUNT}}
    install(weir, values)
    weir.kubectl("create", "namespace", name)
    try:
        serve(weir, name)
        all_ready(weir, name, ROUTERS, COUNT)
        yield name
    finally:
        weir.kubectl("delete", "namespace", name, "--wait=false")
        install(weir)


def _let_in(weir: Cluster, namespace: str, *things: Thing) -> None:
    """Apply a change and wait until every router sends its canary a quarter."""
    weir.apply(*things, namespace=namespace)
    there = [0.25] * COUNT
    wait_for(lambda: list(weights(weir, namespace).values()) == there, 120, "25 % everywhere")


def test_the_failure_that_crosses_the_bound_is_the_canarys_last(weir: Cluster, three: str) -> None:
    """One request at a time, so that what it tells has crossed, or not, before the next."""
    hasty = route()
    hasty["spec"]["behaviour"]["deadline"] = "20ms"
    _let_in(weir, three, hasty)
    with (
        weir.url("weir-router", 80, namespace=three) as url,
        traffic(url, workers=1, every_s=APART_S) as load,
    ):
        wait_for(lambda: unweighted(weir, three, COUNT), 180, "weight 0 everywhere")
        since = gauge(weir, three, "weir_canary_weight_since_timestamp_seconds")
    assert (len(since), {one.kind for one in load.failures}) == (COUNT, {"told"})
    last_s = load.failures[-1].at_s + time.time() - time.monotonic()
    late = sorted(at_s - last_s for at_s in since.values())
    weir.timings["failure that crossed until weight 0 in the last of three routers"] = late[-1]
    print(f"\n    {len(load.failures)} failures; weight 0 after {late[0]:.3f} to {late[-1]:.3f} s")
    # Beside the reach, what the evidence needs: a report and a walk.
    assert -0.1 < late[0] <= late[-1] <= REACH_S + EVIDENCE_S


def test_evidence_of_three_routers_is_one(weir: Cluster, three: str) -> None:
    _let_in(weir, three, route(threshold="0.95", steps=({"setWeight": 25}, {"pause": {}})))
    before = answered(weir, three)
    with (
        weir.url("weir-router", 80, namespace=three) as url,
        traffic(url, workers=WORKERS) as load,
    ):

        def enough() -> bool:
            own = answered(weir, three)
            return all((own[name] - before[name])["canary"] >= EACH for name in before)

        wait_for(enough, 180, f"{EACH} answers by the canary of each router")
    assert load.failures == []
    after = answered(weir, three)
    own = [after[name] - before[name] for name in sorted(before)]
    sums = {arm: sum(one[arm] for one in own) for arm in ("stable", "canary")}
    with weir.timed("traffic ended until the status tells the sum of three routers"):
        wait_for(lambda: assigned(weir, three) == sums, 60, f"{sums} assigned")
    assert status(weir, "mroute", ROUTE, three)["routers"] == {"inSync": COUNT, "of": COUNT}
    print(f"\n    answered by the routers: {[dict(one) for one in own]}; the status tells {sums}")


def test_a_bad_canary_leaves_three_routers_at_once(weir: Cluster, three: str) -> None:
    broken = backend("small", "small", revision="broken-format")
    _let_in(weir, three, route(threshold="0"), broken)
    watch = Watch(weir, three)
    with (
        weir.url("weir-router", 80, namespace=three) as url,
        traffic(url, workers=WORKERS) as load,
    ):
        with weir.timed("first request of a bad canary until RolledBack is told"):
            out = watch.until("RolledBack", lambda now: now.rolled_back, 120)
        wait_for(lambda: unweighted(weir, three, COUNT), 30, "weight 0 everywhere")
    assert load.failures == []
    since = gauge(weir, three, "weir_canary_weight_since_timestamp_seconds")
    assert len(since) == COUNT
    told = weir.get("mrev", out.canary, "-n", three)["status"]
    crossed_s = json.loads(told["record"])["rollback"]["at_s"]
    weir.timings["crossing until weight 0 in the last of three routers"] = (
        max(since.values()) - crossed_s
    )
    late = sorted(at_s - crossed_s for at_s in since.values())
    print(f"\n    by {told['decidedBy']}; weight 0 after {', '.join(f'{s:.3f}' for s in late)} s")
    # By the clocks of the programs themselves, which are this machine's.
    assert late[-1] <= REACH_S
