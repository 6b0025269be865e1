"""Killed under a steady load in the middle of a rollout: who may lose what, and who goes on."""

import time

import pytest

from e2e.cluster import Cluster, wait_for
from e2e.faults import (
    PROVE,
    ROUTE,
    ROUTERS,
    all_ready,
    begin,
    force,
    gap_s,
    kill_process,
    led,
    more,
    name_of,
    needs_processes,
    only_cut,
    pods,
    promoted,
    unweighted,
    watched,
    weights,
    without_operator,
)
from e2e.weir import SYSTEM, backend, serve, status, traffic

WORKERS = 3
MOST_BAD = 400
"""Answers of a broken canary that two routers' own brakes may let through, with all their α."""


def told(what: str) -> None:
    print(f"\n    {what}", flush=True)


def test_an_operator_that_is_killed_goes_on_where_it_was(weir: Cluster, namespace: str) -> None:
    needs_processes(weir)
    serve(weir, namespace)
    with (
        weir.url("weir-router", 80, namespace=namespace) as url,
        watched(weir, namespace) as watch,
        traffic(url, workers=WORKERS) as load,
    ):
        before = begin(weir, watch, last=PROVE)
        leader = led(weir)
        with weir.timed("operator pod killed until another leads"):
            force(weir, SYSTEM, leader)
            led(weir, but=leader)
        after = more(watch, before)
        with weir.timed("operator process killed until it tells more"):
            kill_process(led(weir))
            more(watch, after)
        with without_operator(weir):
            time.sleep(15)
        promoted(weir, watch, before.canary)
    assert load.failures == []
    told(f"{load.answers} answered, none lost, longest gap {gap_s(load, watch.all[0].at_s):.1f} s")


def test_a_bad_canary_is_stopped_without_the_operator(weir: Cluster, namespace: str) -> None:
    # The stable one escalates nothing, the bad one everything.
    serve(weir, namespace, threshold="0")
    broken = backend("small", "small", revision="broken-format")
    with watched(weir, namespace) as watch:
        # Without traffic there is no evidence, so it is the routers that will find out.
        weir.apply(broken, namespace=namespace)
        watch.until("a canary at its first step", lambda now: now.weight == 25)
        wait_for(lambda: set(weights(weir, namespace).values()) == {0.25}, 30, "25% at routers")
        with (
            without_operator(weir),
            weir.url("weir-router", 80, namespace=namespace) as url,
            traffic(url, workers=WORKERS) as load,
        ):
            began_s = time.monotonic()
            with weir.timed("bad canary at 0 % by routers alone"):
                both = set(weights(weir, namespace))
                wait_for(lambda: unweighted(weir, namespace), 120, "weight 0")
            stopped_s = time.monotonic()
            bad = load.arms["canary"]
            windows = [(time.monotonic(), time.monotonic() + 10)]
            born = _reborn_router(weir, namespace, both)
            wait_for(lambda: unweighted(weir, namespace), 120, "weight 0 again")
            again_s = time.monotonic()
            time.sleep(5)
            assert {answer.arm for answer in load.since(again_s + 0.5)} == {"stable"}
        assert bad <= MOST_BAD
        told(f"{bad} bad answers in {stopped_s - began_s:.1f} s; then {born} was born")
        told(only_cut(load, windows, most=WORKERS))
        with weir.timed("operator back until RolledBack"):
            watch.until("RolledBack", lambda now: now.rolled_back, 60)
    why = status(weir, "mroute", ROUTE, namespace)["lastRollback"]
    assert why["decidedBy"].startswith("router/"), why
    assert unweighted(weir, namespace)


def _reborn_router(weir: Cluster, namespace: str, both: set[str]) -> str:
    """Kill a router for good and wait until the one in its place has answered."""
    with weir.timed("router born without an operator until ready"):
        force(weir, namespace, sorted(both)[0])
        new = {name_of(pod) for pod in all_ready(weir, namespace, ROUTERS, 2)} - both
    assert len(new) == 1
    return new.pop()


def test_a_killed_router_loses_only_what_it_had_in_flight(weir: Cluster, namespace: str) -> None:
    needs_processes(weir)
    serve(weir, namespace)
    windows = []
    with (
        weir.url("weir-router", 80, namespace=namespace) as url,
        watched(weir, namespace) as watch,
        traffic(url, workers=WORKERS) as load,
    ):
        before = begin(weir, watch)
        for how in ("process", "pod", "gracefully"):
            victim = sorted(map(name_of, all_ready(weir, namespace, ROUTERS, 2)))[0]
            began_s = time.monotonic()
            if how == "process":
                kill_process(victim)
            elif how == "pod":
                force(weir, namespace, victim)
            else:
                weir.kubectl("delete", "pod", victim, "-n", namespace, "--wait=false")
            if how != "gracefully":
                windows.append((began_s, began_s + 10))
            time.sleep(3)
            all_ready(weir, namespace, ROUTERS, 2)
            weir.timings[f"router killed ({how}) until two are ready"] = time.monotonic() - began_s
            lost = [f.kind for f in load.failures if f.at_s >= began_s]
            told(f"{how}: lost {lost}, longest gap {gap_s(load, began_s):.1f} s")
        promoted(weir, watch, before.canary)
    told(only_cut(load, windows, most=2 * WORKERS))


def test_a_killed_backend_loses_nothing(weir: Cluster, namespace: str) -> None:
    serve(weir, namespace, replicas=2)
    with (
        weir.url("weir-router", 80, namespace=namespace) as url,
        watched(weir, namespace) as watch,
        traffic(url, workers=WORKERS) as load,
    ):
        before = begin(weir, watch)
        small = "inference.weir.dev/backend=small"
        for victims in (1, 2):
            began_s = time.monotonic()
            force(weir, namespace, *sorted(map(name_of, pods(weir, namespace, small)))[:victims])
            time.sleep(1)
            all_ready(weir, namespace, small, 2)
            took_s = time.monotonic() - began_s
            weir.timings[f"{victims} of 2 backend pods killed until ready"] = took_s
            tiers = [answer.tier for answer in load.since(began_s)]
            told(f"{victims} killed: {tiers.count('small')} small, {tiers.count('large')} large")
        promoted(weir, watch, before.canary)
    assert load.failures == []


@pytest.mark.parametrize(("program", "down_s"), [("apiserver", 60), ("etcd", 30)])
def test_without_the_api_all_goes_on(
    weir: Cluster, namespace: str, program: str, down_s: int
) -> None:
    if not weir.own:
        pytest.skip("only hack/cluster's own cluster has programs that can be killed")
    serve(weir, namespace)
    with (
        weir.url("weir-router", 80, namespace=namespace) as url,
        watched(weir, namespace) as watch,
        traffic(url, workers=WORKERS) as load,
    ):
        before = begin(weir, watch)
        weir.verb("kill", program)
        try:
            time.sleep(down_s)
        finally:
            weir.verb("start", program)
        with weir.timed(f"{program} back after {down_s} s until more evidence is told"):
            more(watch, before, limit_s=180)
        promoted(weir, watch, before.canary)
    assert load.failures == []
    told(f"{load.answers} answered, longest gap {gap_s(load, watch.all[0].at_s):.1f} s")


def test_killed_in_pairs(weir: Cluster, namespace: str) -> None:
    serve(weir, namespace, replicas=2)
    with (
        weir.url("weir-router", 80, namespace=namespace) as url,
        watched(weir, namespace) as watch,
        traffic(url, workers=WORKERS) as load,
    ):
        before = begin(weir, watch)
        router = sorted(map(name_of, all_ready(weir, namespace, ROUTERS, 2)))[0]
        with weir.timed("operator and router killed until both are back"):
            leader, began_s = led(weir), time.monotonic()
            force(weir, SYSTEM, leader)
            force(weir, namespace, router)
            led(weir, but=leader)
            all_ready(weir, namespace, ROUTERS, 2)
        windows = [(began_s, began_s + 10)]
        more(watch, before)
        small = "inference.weir.dev/backend=small"
        with weir.timed("operator and backend killed until both are back"):
            leader = led(weir)
            force(weir, SYSTEM, leader)
            force(weir, namespace, name_of(pods(weir, namespace, small)[0]))
            led(weir, but=leader)
            all_ready(weir, namespace, small, 2)
        promoted(weir, watch, before.canary)
    told(only_cut(load, windows, most=WORKERS))
