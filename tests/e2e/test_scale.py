"""How the operator carries hundreds of routes: figures for a person, and generous bounds.

Runs only when asked, with WEIR_E2E_SCALE=1: it fills the cluster for some minutes.
"""

import copy
import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from e2e.cluster import Cluster, wait_for
from e2e.weir import API, SYSTEM, VALUES, backend, install

pytestmark = pytest.mark.skipif(
    not os.environ.get("WEIR_E2E_SCALE"), reason="WEIR_E2E_SCALE=1 asks for it"
)

NAMESPACES, EACH = 10, 30
SETTLED_S, IDLE_S = 300.0, 60.0
WRITES = ("PATCH", "POST", "PUT", "DELETE")
Thing = dict[str, Any]


@dataclass(frozen=True)
class Cost:
    """What the operator's process has used so far; `calls` to the API by verb."""

    cpu_s: float
    rss_mib: float
    calls: Counter[str]

    @property
    def writes(self) -> int:
        return sum(self.calls[verb] for verb in WRITES)


@pytest.fixture
def crowd(cluster: Cluster) -> Iterator[list[str]]:
    """Namespaces to be filled, of one router each; the release as others want it afterwards."""
    values = copy.deepcopy(VALUES)
    values["router"]["replicas"] = 1
    install(cluster, values)
    names = [f"scale-{os.getpid()}-{number}" for number in range(NAMESPACES)]
    for name in names:
        cluster.kubectl("create", "namespace", name)
    yield names
    for name in names:
        cluster.kubectl("delete", "namespace", name, "--wait=false")
    install(cluster)


def _things() -> list[Thing]:
    """Return as many backends and routes: two in three hosted elsewhere, one that sleeps."""
    made: list[Thing] = []
    for number in range(EACH):
        name = f"model-{number}"
        if number % 3:
            spec = {"model": {"servedName": "m"}, "external": {"url": "http://127.0.0.1:9"}}
            made.append(_object("ModelBackend", name, spec))
        else:
            made.append(backend(name, "small", replicas=0))
        tiers = [{"name": "only", "backendRef": {"name": name}}]
        spec = {"modelNames": [name], "behaviour": {"deadline": "10s", "tiers": tiers}}
        spec["rollout"] = {"steps": [{"setWeight": 5}]}
        made.append(_object("ModelRoute", name, spec))
    return made


def _object(kind: str, name: str, spec: Thing) -> Thing:
    return {"apiVersion": API, "kind": kind, "metadata": {"name": name}, "spec": spec}


def _cost(cluster: Cluster) -> Cost:
    label = "inference.weir.dev/leads=true"
    pods = cluster.get("pods", "--namespace", SYSTEM, "--selector", label)["items"]
    (name,) = [one["metadata"]["name"] for one in pods]
    path = f"/api/v1/namespaces/{SYSTEM}/pods/{name}:8081/proxy/metrics"
    calls: Counter[str] = Counter()
    for family in text_string_to_metric_families(cluster.kubectl("get", "--raw", path)):
        for sample in family.samples:
            if sample.name == "weir_operator_api_calls_total":
                calls[sample.labels["verb"]] += int(sample.value)
    inside = ("exec", name, "--namespace", SYSTEM, "--", "cat")
    ticks = cluster.kubectl(*inside, "/proc/1/stat").rpartition(")")[2].split()
    lines = cluster.kubectl(*inside, "/proc/1/status").splitlines()
    rss_kib = next(line.split()[1] for line in lines if line.startswith("VmRSS"))
    cpu_s = (int(ticks[11]) + int(ticks[12])) / os.sysconf("SC_CLK_TCK")
    return Cost(cpu_s=cpu_s, rss_mib=int(rss_kib) / 1024, calls=calls)


def _settled(cluster: Cluster, names: list[str]) -> bool:
    """Return whether every route is obeyed by its router, and every backend's status written."""
    wanted = {"mroute": "Programmed", "mbackend": "Accepted"}
    return all(
        sum(
            (c["type"], c["status"]) == (kind, "True")
            for one in cluster.get(what, "--all-namespaces")["items"]
            if one["metadata"]["namespace"] in names
            for c in one.get("status", {}).get("conditions", ())
        )
        == NAMESPACES * EACH
        for what, kind in wanted.items()
    )


def test_hundreds_of_routes_settle_and_rest(cluster: Cluster, crowd: list[str]) -> None:
    before = _cost(cluster)
    began = time.monotonic()
    for name in crowd:
        cluster.apply(*_things(), namespace=name)
    applied_s = time.monotonic() - began
    wait_for(lambda: _settled(cluster, crowd), SETTLED_S, "every route to be programmed")
    settled_s = time.monotonic() - began
    after = _cost(cluster)
    time.sleep(IDLE_S / 2)  # Events and the last statuses are still written.
    rests = _cost(cluster)
    time.sleep(IDLE_S)
    idle = _cost(cluster)
    cpu_s = after.cpu_s - before.cpu_s
    idle_cores = (idle.cpu_s - rests.cpu_s) / IDLE_S
    print(
        f"\n{NAMESPACES * EACH} routes and backends in {NAMESPACES} namespaces: "
        f"applied {applied_s:.1f} s, settled {settled_s:.1f} s; "
        f"operator CPU {cpu_s:.1f} s, RSS {after.rss_mib:.0f} MiB; "
        f"API calls {dict(after.calls - before.calls)}; "
        f"idle: {idle.writes - rests.writes} writes, {dict(idle.calls - rests.calls)} calls and "
        f"{100 * idle_cores:.1f} % of a core over {IDLE_S:.0f} s, RSS {idle.rss_mib:.0f} MiB"
    )
    assert idle.rss_mib < 512
    # The lease is renewed every three seconds; nothing else is written at rest.
    assert idle.writes - rests.writes <= IDLE_S
    assert idle_cores < 0.25
