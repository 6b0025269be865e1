"""What goes wrong on purpose: pods, processes and programs of the cluster that are killed."""

import contextlib
import itertools
import os
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest

from e2e.cluster import Cluster, ClusterError, wait_for
from e2e.weir import SYSTEM, Traffic, condition, route, settled, status
from weir_cli.demo_manifests import facts

ROUTERS = "inference.weir.dev/router=deployment"
ROUTE = "assistant"
OPERATOR = "deployment/weir-operator"
COMMAND = "inference.weir.dev/command"
ENOUGH = 30
"""Canary requests that a status must tell of before anything is killed."""
Thing = dict[str, Any]
HOLD: Thing = {"hold": {"minRequests": 30}}
PROVE: Thing = {"prove": {}}


@dataclass(frozen=True)
class Seen:
    """What a route's status told of its rollout at one time."""

    at_s: float
    canary: str
    attempt: int
    step: int
    weight: int
    assigned: int
    stable: str
    rolled_back: bool


def seen(told: Thing) -> Seen:
    """Return the rollout of a status."""
    canary = told.get("canary") or {}
    evidence = told.get("evidence") or {}
    return Seen(
        at_s=time.monotonic(),
        canary=canary.get("revision", ""),
        attempt=int(canary.get("attempt", 0)),
        step=int((told.get("step") or {}).get("index", 0)),
        weight=int(float(str((told.get("weight") or {}).get("set", "0")).rstrip("%") or 0)),
        assigned=int((evidence.get("assigned") or {}).get("canary", 0)),
        stable=(told.get("stable") or {}).get("revision", ""),
        rolled_back=condition(told, "RolledBack").get("status") == "True",
    )


@dataclass
class Watch:
    """All that was seen of a route's rollout, twice a second.

    `exposed` are the routers' greatest shares in percent, each as it was before the sight of the
    same number in `all`; it stays empty unless `routers` are asked too.
    """

    cluster: Cluster
    namespace: str
    routers: bool = False
    all: list[Seen] = field(default_factory=list)
    exposed: list[float] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def look(self) -> Seen:
        """Return the rollout as it is now."""
        return seen(status(self.cluster, "mroute", ROUTE, self.namespace))

    def until(self, what: str, test: Callable[[Seen], bool], limit_s: float = 120) -> Seen:
        """Wait for something to be seen. Raises ClusterError."""

        def found() -> Seen | None:
            now = self.look()
            return now if test(now) else None

        return wait_for(found, limit_s, what)

    def story(self) -> list[tuple[str, int, int, int, bool]]:
        """Return what changed: canary, attempt, step, weight, and whether it was rolled back."""
        rows = [(s.canary, s.attempt, s.step, s.weight, s.rolled_back) for s in self.all]
        return [row for row, _ in itertools.groupby(rows)]

    def never_fell(self) -> None:
        """Assert that no attempt lost evidence, and that none began again."""
        before: Seen | None = None
        for now in self.all:
            if before is not None and before.canary == now.canary != "":
                assert now.attempt == before.attempt, (before, now)
                if now.step and before.step and not now.rolled_back:
                    assert now.step >= before.step, (before, now)
                    assert now.assigned >= before.assigned or not now.weight, (before, now)
            before = now

    def never_ahead(self) -> None:
        """Assert that no router gave a canary more than the status told before or after."""
        assert len(self.exposed) == len(self.all)
        for before, after, share in zip(self.all, self.all[1:], self.exposed[1:], strict=False):
            if before.stable == after.stable:
                assert share <= max(before.weight, after.weight), (before, share, after)

    def _run(self) -> None:
        while not self._stop.wait(0.5):
            with contextlib.suppress(ClusterError):
                shares = weights(self.cluster, self.namespace) if self.routers else {}
                self.all.append(self.look())
                if self.routers:
                    self.exposed.append(100 * max(shares.values(), default=0.0))


@contextlib.contextmanager
def watched(cluster: Cluster, namespace: str, *, routers: bool = False) -> Iterator[Watch]:
    """Watch a route while the block runs; afterwards no evidence was lost."""
    watch = Watch(cluster, namespace, routers)
    thread = threading.Thread(target=watch._run)
    thread.start()
    try:
        yield watch
    finally:
        watch._stop.set()
        thread.join(60)
    watch.never_fell()


def begin(cluster: Cluster, watch: Watch, *, last: Thing = HOLD) -> Seen:
    """Let a good change in, and wait until its first step has some evidence.

    It stays at that step, however quick the machine is, until `resume`; `last` is its last step.
    """
    pause = ({"setWeight": 25}, {"pause": {}}, {"setWeight": 50}, last)
    stricter = route(threshold=f"{facts().min_probability + 0.02:.3f}", steps=pause)
    with cluster.timed(f"change until {ENOUGH} canary requests"):
        cluster.apply(stricter, namespace=watch.namespace)
        return watch.until(
            "a canary with evidence", lambda now: now.weight == 25 and now.assigned >= ENOUGH
        )


def more(watch: Watch, before: Seen, *, limit_s: float = 120) -> Seen:
    """Wait until the same attempt of the same canary has more evidence, and return that."""

    def grew(now: Seen) -> bool:
        return now.assigned > before.assigned or now.attempt != before.attempt

    after = watch.until("more evidence", grew, limit_s)
    assert (after.canary, after.attempt) == (before.canary, before.attempt)
    return after


def order(cluster: Cluster, namespace: str, verb: str, canary: str) -> None:
    """Give a rollout a command, as `kubectl weir rollout` does."""
    told = f"{COMMAND}={verb}@{canary}#{time.time():.0f}"
    cluster.kubectl("annotate", f"mroute/{ROUTE}", "-n", namespace, told, "--overwrite")


def promoted(cluster: Cluster, watch: Watch, canary: str) -> None:
    """Let a canary that `begin` let in go on, and wait until it is the stable one."""
    with cluster.timed("resumed until promoted"):
        order(cluster, watch.namespace, "resume", canary)
        settled(cluster, ROUTE, watch.namespace, limit_s=240)
    assert watch.look().stable == canary


# Pods.


def pods(cluster: Cluster, namespace: str, selector: str) -> list[Thing]:
    """Return pods that are not ending."""
    found = cluster.get("pods", "--namespace", namespace, "--selector", selector)["items"]
    return [pod for pod in found if not pod["metadata"].get("deletionTimestamp")]


def is_ready(pod: Thing) -> bool:
    """Return whether a pod's Ready condition is True."""
    return condition(pod.get("status") or {}, "Ready").get("status") == "True"


def name_of(thing: Thing) -> str:
    """Return an object's name."""
    return str(thing["metadata"]["name"])


def all_ready(cluster: Cluster, namespace: str, selector: str, count: int) -> list[Thing]:
    """Wait until there are so many pods, all of them ready."""

    def look() -> list[Thing] | None:
        found = pods(cluster, namespace, selector)
        return found if len(found) == count and all(map(is_ready, found)) else None

    return wait_for(look, 90, f"{count} ready pods {selector}")


def force(cluster: Cluster, namespace: str, *names: str) -> None:
    """Delete pods without waiting for anything, as when their node is lost."""
    words = ("--force", "--grace-period=0", "--wait=false", "--namespace", namespace)
    cluster.kubectl("delete", "pod", *names, *words)


def needs_processes(cluster: Cluster) -> None:
    """Skip a test that kills processes where they are not this machine's."""
    if not cluster.own:
        pytest.skip("only the processes of hack/cluster's own cluster are this machine's")


def kill_process(pod: str) -> None:
    """End the processes of a pod's containers at once. Own cluster: they run on this machine."""
    mark, ended = f"HOSTNAME={pod}".encode(), 0
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark in (folder / "environ").read_bytes().split(b"\0"):
                os.kill(int(folder.name), signal.SIGKILL)
                ended += 1
    assert ended, f"no process of pod {pod}"


# The operator.


def lease(cluster: Cluster) -> tuple[str, int]:
    """Return the pod that leads, "" for none, and the term."""
    spec = cluster.get("lease", "weir-operator", "--namespace", SYSTEM)["spec"]
    holder = str(spec.get("holderIdentity") or "")
    return holder.rpartition("_")[0], int(spec.get("leaseTransitions") or 0)


def led(cluster: Cluster, *, but: str = "", limit_s: float = 90) -> str:
    """Wait until a pod that is there leads, another one than `but`; return its name."""

    def look() -> str | None:
        there = {name_of(p) for p in pods(cluster, SYSTEM, "app.kubernetes.io/component=operator")}
        leader = lease(cluster)[0]
        return leader if leader in there - {but} else None

    return wait_for(look, limit_s, "an operator that leads")


def scale(cluster: Cluster, replicas: int) -> None:
    """Have so many operators; with none, wait until the last is gone."""
    cluster.kubectl("scale", OPERATOR, f"--replicas={replicas}", "--namespace", SYSTEM)
    if not replicas:
        wait_for(lambda: not pods_at_all(cluster), 60, "the operator's end")


def pods_at_all(cluster: Cluster) -> list[Thing]:
    """Return the operator's pods, those that are ending too."""
    selector = "app.kubernetes.io/component=operator"
    found: list[Thing] = cluster.get("pods", "-n", SYSTEM, "--selector", selector)["items"]
    return found


@contextlib.contextmanager
def without_operator(cluster: Cluster) -> Iterator[None]:
    """Run the block with no operator; wait for one afterwards."""
    scale(cluster, 0)
    try:
        yield
    finally:
        scale(cluster, 1)
        with cluster.timed("operator back until it leads"):
            led(cluster)


# What routers do.


def weights(cluster: Cluster, namespace: str) -> dict[str, float]:
    """Return the canary's share by router, as the routers themselves tell it."""
    return gauge(cluster, namespace, "weir_canary_weight")


def gauge(cluster: Cluster, namespace: str, name: str) -> dict[str, float]:
    """Return a metric by router, the last one where a router has several routes."""
    return _gauge(metrics(cluster, namespace), name)


def unweighted(cluster: Cluster, namespace: str, count: int = 2) -> bool:
    """Return whether so many routers answer, and none of them gives a canary anything."""
    told = metrics(cluster, namespace)
    return len(told) == count and not any(_gauge(told, "weir_canary_weight").values())


def _gauge(told: dict[str, list[str]], name: str) -> dict[str, float]:
    found = {}
    for router, rows in told.items():
        for row in rows:
            if row.startswith(f"{name}{{"):
                found[router] = float(row.rpartition(" ")[2])
    return found


def answered(cluster: Cluster, namespace: str) -> dict[str, Counter[str]]:
    """Return by router how many replies each arm has given since the router started."""
    found = {}
    for router, rows in metrics(cluster, namespace).items():
        found[router] = Counter[str]()
        for row in rows:
            if row.startswith("weir_requests_total{"):
                arm = re.search(r'arm="(\w*)"', row)
                assert arm is not None, row
                found[router][arm[1]] += int(float(row.rpartition(" ")[2]))
    return found


def metrics(cluster: Cluster, namespace: str) -> dict[str, list[str]]:
    """Return the rows of the metrics of each router that answers.

    Another cluster than hack/cluster's own is asked through its API server.
    """
    found = {}
    for pod in pods(cluster, namespace, ROUTERS):
        name, address = name_of(pod), (pod.get("status") or {}).get("podIP")
        path = f"/api/v1/namespaces/{namespace}/pods/{name}:8081/proxy/metrics"
        with contextlib.suppress(httpx2.HTTPError, ClusterError):
            if cluster.own:
                text = httpx2.get(f"http://{address}:8081/metrics", timeout=5).text
            else:
                text = cluster.kubectl("get", "--raw", path)
            found[name] = text.splitlines()
    return found


def assigned(cluster: Cluster, namespace: str) -> dict[str, int]:
    """Return the requests that a route's status tells of as assigned, by arm."""
    evidence = status(cluster, "mroute", ROUTE, namespace).get("evidence") or {}
    return {arm: int(count) for arm, count in (evidence.get("assigned") or {}).items()}


def gap_s(load: Traffic, since_s: float) -> float:
    """Return the longest time without any answer."""
    times = [since_s, *(answer.at_s for answer in load.since(since_s))]
    return max((b - a for a, b in itertools.pairwise(times)), default=0.0)


def only_cut(load: Traffic, windows: Sequence[tuple[float, float]], most: int) -> str:
    """Assert that requests were lost only within windows, of those in flight in what was killed.

    At most `most` were cut, one of each client; a connection that did not come about was accepted
    by nobody. Return what there was, in words.
    """
    stray = [f for f in load.failures if not any(a <= f.at_s <= b for a, b in windows)]
    assert stray == []
    kinds = dict.fromkeys(("cut", "refused", "silent", "told"), 0)
    for failure in load.failures:
        kinds[failure.kind] += 1
    assert kinds["told"] + kinds["silent"] == 0, load.failures
    assert kinds["cut"] <= most, load.failures
    return f"{kinds['cut']} cut, {kinds['refused']} refused, {load.answers} answered"
