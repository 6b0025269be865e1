"""Operators that are two, that die at any line, or that find their memory gone."""

import contextlib
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from e2e.cluster import Cluster, wait_for
from e2e.faults import (
    ENOUGH,
    HOLD,
    OPERATOR,
    ROUTE,
    Watch,
    begin,
    force,
    lease,
    led,
    more,
    name_of,
    order,
    promoted,
    scale,
    unweighted,
    watched,
    weights,
    without_operator,
)
from e2e.weir import SYSTEM, backend, route, serve, settled, status, traffic

TURNS = 10
WRITES = ("PATCH", "POST", "PUT", "DELETE")
OURS = {"ModelRoute", "ModelBackend", "ModelRevision", "Deployment", "ConfigMap", "Event"}
"""Kinds that only who leads may write."""
KILLED_LINES = Path(__file__).with_name("killed_lines.py")
Thing = dict[str, Any]


def told(what: str) -> None:
    print(f"\n    {what}", flush=True)


def test_of_two_operators_one_acts(weir: Cluster, namespace: str) -> None:
    serve(weir, namespace)
    leader, term = lease(weir)
    scale(weir, 2)
    try:
        weir.kubectl("rollout", "status", OPERATOR, "-n", SYSTEM, "--timeout=60s")
        with (
            weir.url("weir-router", 80, namespace=namespace) as url,
            watched(weir, namespace) as watch,
            traffic(url, workers=3) as load,
        ):
            before = begin(weir, watch)
            assert lease(weir) == (leader, term)
            assert _marked(weir) == [leader]
            with weir.timed("leader of two killed until the other leads"):
                force(weir, SYSTEM, leader)
                second = led(weir, but=leader)
            after = lease(weir)[1]
            assert after > term
            wait_for(lambda: _marked(weir) == [second], 30, "the second one's label")
            more(watch, before)
            promoted(weir, watch, before.canary)
            assert _wrote(weir, second) & OURS, "who leads writes"
            for other in _operators(weir) - {second}:
                assert not _wrote(weir, other) & OURS, other
        assert load.failures == []
        assert _versions(weir, namespace) == {after}
    finally:
        scale(weir, 1)


def _operators(weir: Cluster) -> set[str]:
    words = ("pods", "-n", SYSTEM, "--selector", "app.kubernetes.io/component=operator")
    return {name_of(pod) for pod in weir.get(*words)["items"]}


def _wrote(weir: Cluster, operator: str) -> set[str]:
    """Return the kinds of which an operator has written something, as it counts itself."""
    path = f"/api/v1/namespaces/{SYSTEM}/pods/{operator}:8081/proxy/metrics"
    return {
        sample.labels["kind"]
        for family in text_string_to_metric_families(weir.kubectl("get", "--raw", path))
        for sample in family.samples
        if sample.name == "weir_operator_api_calls_total" and sample.labels["verb"] in WRITES
    }


def _marked(weir: Cluster) -> list[str]:
    """Return the operators that the Service leads to."""
    words = ("pods", "-n", SYSTEM, "--selector", "inference.weir.dev/leads=true")
    return [name_of(pod) for pod in weir.get(*words)["items"]]


def _versions(weir: Cluster, namespace: str) -> set[int]:
    """Return the terms of the published versions, as they stand in the snapshot."""
    import base64

    from weir_core.wire import unpack

    stands = weir.get("configmap", "weir-router-snapshot", "-n", namespace)
    packed = unpack(base64.b64decode(stands["binaryData"]["snapshot"]))
    return {routed.version[0] for routed in packed.routes.values()}


def test_an_operator_that_dies_at_random_lines(weir: Cluster, namespace: str) -> None:
    serve(weir, namespace)
    with (
        weir.url("weir-router", 80, namespace=namespace) as url,
        watched(weir, namespace, routers=True) as watch,
        traffic(url, workers=3) as load,
    ):
        # An edit that changes no answer: a second workload, a canary that waits at 25 %.
        steps = ({"setWeight": 25}, {"pause": {}}, {"setWeight": 50}, HOLD)
        weir.apply(route(steps=steps), namespace=namespace)
        with weir.timed(f"operator killed at {TURNS} lines of its own, an edit"), _dying(weir, 7):
            weir.apply(backend("small", "small", length=255), namespace=namespace)
            log = wait_for(lambda: _over(weir), 240, "the last turn")
        canary = watch.until(
            "a canary with evidence", lambda now: now.weight == 25 and now.assigned >= ENOUGH
        ).canary
        with weir.timed(f"killed at {TURNS} lines, a canary under way"), _dying(weir, 8):
            wait_for(lambda: f"turn {TURNS // 2}:" in _log(weir), 240, "half of the turns")
            order(weir, namespace, "resume", canary)
            log += wait_for(lambda: _over(weir), 240, "the last turn")
        with weir.timed("settled after the last kill"):
            settled(weir, ROUTE, namespace, limit_s=240)
        first, last = watch.all[0], watch.look()
        wait_for(lambda: len(_workloads(weir, namespace)) == 1, 60, "one workload of small")
        outcomes = _outcomes(weir, namespace)
        events = weir.get("events", "--namespace", namespace)["items"]
        why = [
            event["message"] for event in events if event["involvedObject"]["kind"] == "ModelRoute"
        ]
    assert load.failures == []
    watch.never_ahead()
    assert max(watch.exposed) >= 25
    assert last.stable != first.stable
    assert sorted(outcomes.values()) == ["Stable", "Superseded"], outcomes
    assert outcomes[last.stable] == "Stable"
    # Killed between its revision and the route's status, an attempt has a number but had no
    # traffic: the next one begins. One that the status told of is never begun again.
    attempts = {now.attempt for now in watch.all if now.canary == last.stable} - {0}
    assert len(attempts) == 1, (watch.story(), why, log)
    killed = re.findall(r"killed at (\S+) (\S+)", log)
    assert len(killed) == 2 * TURNS
    inside = [place for place, at in killed if _weight_at(watch, float(at))]
    told(f"killed at {', '.join(place for place, _ in killed)}; {load.answers} answered")
    told(f"{len(inside)} of them in the middle of a canary")
    assert len(inside) >= TURNS // 2


def _weight_at(watch: Watch, unix_s: float) -> int:
    """Return the canary's weight as the status told it last before a time of this machine's."""
    at_s = unix_s - time.time() + time.monotonic()
    before = [now.weight for now in watch.all if now.at_s <= at_s]
    return before[-1] if before else 0


@contextlib.contextmanager
def _dying(weir: Cluster, seed: int) -> Iterator[None]:
    """Have the operator's container run the operator as `killed_lines` does."""
    command = ["python", "-c", KILLED_LINES.read_text("utf8"), str(seed), str(TURNS)]
    container: Thing = {"name": "operator", "command": command}
    container |= {"livenessProbe": None, "startupProbe": None, "readinessProbe": None}
    changed = {"spec": {"template": {"spec": {"containers": [container]}}}}
    scale(weir, 0)
    weir.kubectl("patch", OPERATOR, "-n", SYSTEM, "--patch", json.dumps(changed))
    scale(weir, 1)
    try:
        yield
    finally:
        weir.kubectl("rollout", "undo", OPERATOR, "-n", SYSTEM)
        weir.kubectl("rollout", "status", OPERATOR, "-n", SYSTEM, "--timeout=90s")
        led(weir)


def _over(weir: Cluster) -> str:
    log = _log(weir)
    return log if "turns over" in log else ""


def _log(weir: Cluster) -> str:
    return weir.kubectl("logs", OPERATOR, "-n", SYSTEM)


def _workloads(weir: Cluster, namespace: str) -> list[str]:
    words = ("deployment", "-n", namespace, "--selector", "inference.weir.dev/backend=small")
    return [name_of(one) for one in weir.get(*words)["items"]]


def _outcomes(weir: Cluster, namespace: str) -> dict[str, str]:
    found = weir.get("mrev", "--namespace", namespace)["items"]
    of_routes = [one for one in found if one["spec"]["kind"] == "Route"]
    return {name_of(one): (one.get("status") or {}).get("outcome", "") for one in of_routes}


# Memory that is gone.


@pytest.fixture
def out(weir: Cluster, namespace: str) -> tuple[str, str]:
    """A route whose canary was rolled back: the names of (stable, rolled back)."""
    serve(weir, namespace)
    watch = Watch(weir, namespace)
    weir.apply(route(threshold="0"), namespace=namespace)
    bad = watch.until("a canary", lambda now: now.weight == 25)
    order(weir, namespace, "abort", bad.canary)
    done = watch.until("rolled back", lambda now: now.rolled_back, 30)
    assert (done.stable, done.canary, done.weight) == (bad.stable, bad.canary, 0)
    return bad.stable, bad.canary


def _still_out(weir: Cluster, namespace: str, out: tuple[str, str], what: str) -> None:
    """Wait until the status is whole again, and see that the bad one gets nothing."""
    stable, bad = out
    watch = Watch(weir, namespace)
    with weir.timed(what):
        now = watch.until("a status", lambda now: bool(now.stable), 90)
    for _ in range(10):
        now = watch.look()
        assert (now.stable, now.weight) == (stable, 0), now
        assert not any(weights(weir, namespace).values())
        time.sleep(0.5)
    wait_for(lambda: unweighted(weir, namespace), 90, "two routers without a canary")
    assert now.rolled_back, status(weir, "mroute", ROUTE, namespace)
    outcomes = _outcomes(weir, namespace)
    assert outcomes == {stable: "Stable", bad: "RolledBack"}


def test_a_lost_status_is_told_again(weir: Cluster, namespace: str, out: tuple[str, str]) -> None:
    _without_status(weir, namespace, f"mroute/{ROUTE}")
    _still_out(weir, namespace, out, "status lost under a running operator until told")
    with without_operator(weir):
        _without_status(weir, namespace, f"mroute/{ROUTE}")
    _still_out(weir, namespace, out, "status lost without an operator until told")
    with without_operator(weir):
        _without_status(weir, namespace, f"mroute/{ROUTE}", *_revisions(weir, namespace))
        for one in _revisions(weir, namespace):
            _patch(weir, namespace, one, {"metadata": {"ownerReferences": None}})
    _still_out(weir, namespace, out, "every status and owner lost until told")
    for one in _revisions(weir, namespace):
        assert weir.get(one, "-n", namespace)["metadata"].get("ownerReferences"), one


def test_a_route_that_is_deleted_and_applied_again_knows_its_past(
    weir: Cluster, namespace: str, out: tuple[str, str]
) -> None:
    bad = route(threshold="0")
    weir.kubectl("delete", f"mroute/{ROUTE}", "-n", namespace)
    weir.apply(bad, namespace=namespace)
    _still_out(weir, namespace, out, "route deleted and applied again until told")
    with without_operator(weir):
        weir.kubectl("delete", f"mroute/{ROUTE}", "-n", namespace)
        time.sleep(3)
        weir.apply(bad, namespace=namespace)
    _still_out(weir, namespace, out, "the same without an operator until told")


def test_a_restore_without_status_or_owners_knows_its_past(
    weir: Cluster, namespace: str, out: tuple[str, str]
) -> None:
    kinds = "modelroutes,modelbackends,modelrevisions"
    kept = [_bare(one) for one in weir.get(kinds, "-n", namespace)["items"]]
    with without_operator(weir):
        weir.kubectl("delete", kinds, "--all", "-n", namespace)
        deployments = ("deployments", "-n", namespace)
        wait_for(lambda: not weir.get(*deployments)["items"], 60, "the collector")
        weir.apply(*kept, namespace=namespace)
    _still_out(weir, namespace, out, "restored without status or owners until told")


def _bare(obj: Thing) -> Thing:
    """Return an object as a backup has it that keeps neither status nor owners."""
    meta = {key: obj["metadata"][key] for key in ("name", "labels") if key in obj["metadata"]}
    return {**{key: obj[key] for key in ("apiVersion", "kind", "spec")}, "metadata": meta}


def _revisions(weir: Cluster, namespace: str) -> list[str]:
    return [f"mrev/{name_of(one)}" for one in weir.get("mrev", "-n", namespace)["items"]]


def _without_status(weir: Cluster, namespace: str, *things: str) -> None:
    for thing in things:
        _patch(weir, namespace, thing, {"status": None}, "--subresource=status")


def _patch(weir: Cluster, namespace: str, thing: str, change: Thing, *words: str) -> None:
    merge = ("--type=merge", "--patch", json.dumps(change))
    weir.kubectl("patch", thing, "-n", namespace, *merge, *words)
