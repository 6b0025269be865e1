"""Backends on kwok's fake nodes, whose pods are ready at once and answer nothing.

Each test has a pool of its own: nodes with its namespace's label.
"""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.cluster import Cluster, wait_for
from e2e.weir import API, backend, condition, status

Thing = dict[str, Any]
Pool = Callable[..., None]
POOL, GPU = "weir.dev/pool", "nvidia.com/gpu"
BUDGET = "5s"
LIMIT_S = 60.0


@pytest.fixture(scope="module")
def kwok(weir: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The cluster with somebody who plays the kubelet of fake nodes."""
    if not weir.own:
        pytest.skip("kwok comes with hack/cluster")
    folder = Path(weir.environment["KWOK_WORKDIR"])
    log = tmp_path_factory.mktemp("kwok") / "kwok.log"
    command = ["kwok", "--kubeconfig", weir.environment["KUBECONFIG"]]
    with (
        log.open("w") as said,
        subprocess.Popen(
            [*command, "--config", str(folder / "kwok.yaml")],
            env={**os.environ, **weir.environment},
            stdout=said,
            stderr=said,
        ) as playing,
    ):
        try:
            yield weir
        finally:
            playing.terminate()


@pytest.fixture
def pool(kwok: Cluster, namespace: str) -> Iterator[Pool]:
    """Makes fake nodes with so many devices each, gone after the test."""
    names = []

    def grow(*devices: int) -> None:
        for count in devices:
            names.append(f"{namespace}-{len(names)}")
            room = {"cpu": "32", "memory": "256Gi", "pods": "110", GPU: str(count)}
            kwok.kubectl("create", "-f", "-", given=json.dumps(_node(names[-1], namespace, room)))
        for name in names:
            kwok.wait(f"node/{name}", "Ready", namespace="default")

    yield grow
    for name in names:
        kwok.kubectl("delete", "node", name, "--wait=false")


def _node(name: str, label: str, room: Thing) -> Thing:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {"type": "kwok", POOL: label},
            "annotations": {"kwok.x-k8s.io/node": "fake"},
        },
        "spec": {"taints": [{"key": "kwok", "value": "true", "effect": "NoSchedule"}]},
        "status": {"allocatable": room, "capacity": room},
    }


def accelerated(
    namespace: str, name: str = "big", *, image: str = "fake:1", replicas: int = 1
) -> Thing:
    """Return a backend whose pods want a device of this namespace's pool each."""
    made = backend(name, "small", replicas=replicas)
    vllm = made["spec"]["vllm"]
    vllm["image"] = image
    vllm["accelerator"] = {
        "resourceName": GPU,
        "count": 1,
        "nodeSelector": {"type": "kwok", POOL: namespace},
    }
    vllm["startup"] = {"budget": BUDGET}
    tolerations = [{"key": "kwok", "operator": "Exists", "effect": "NoSchedule"}]
    vllm["podTemplate"] = {"spec": {"tolerations": tolerations}}
    return made


def route(
    name: str = "assistant", *, to: str = "big", models: list[str] | None = None, weight: int = 50
) -> Thing:
    """Return a route of one tier whose canary begins at `weight`, and stays there."""
    return {
        "apiVersion": API,
        "kind": "ModelRoute",
        "metadata": {"name": name},
        "spec": {
            "modelNames": models or [name],
            "behaviour": {
                "deadline": "10s",
                "tiers": [{"name": "only", "backendRef": {"name": to}}],
            },
            "rollout": {"steps": [{"setWeight": weight}, {"pause": {}}]},
        },
    }


def external(name: str) -> Thing:
    """Return a backend elsewhere, at an address where nobody answers."""
    return {
        "apiVersion": API,
        "kind": "ModelBackend",
        "metadata": {"name": name},
        "spec": {"model": {"servedName": "m"}, "external": {"url": "http://127.0.0.1:9"}},
    }


def stands(cluster: Cluster, namespace: str, *things: Thing) -> None:
    """Apply backends and routes and wait until all their replicas are ready."""
    cluster.apply(*things, namespace=namespace)
    for one in things:
        what = "mbackend" if one["kind"] == "ModelBackend" else "mroute"
        kind = "WorkloadReady" if what == "mbackend" else "Programmed"
        cluster.wait(f"{what}/{one['metadata']['name']}", kind, namespace=namespace)


def deployments(cluster: Cluster, namespace: str) -> dict[str, tuple[int, int]]:
    """Return (wanted, ready) replicas of each model server."""
    label = "app.kubernetes.io/component=backend"
    found = cluster.get("deployments", "--namespace", namespace, "--selector", label)["items"]
    return {
        one["metadata"]["name"]: (
            one["spec"]["replicas"],
            one["status"].get("readyReplicas", 0),
        )
        for one in found
    }


def told(
    cluster: Cluster,
    namespace: str,
    what: str,
    kind: str,
    reason: str,
    *,
    truth: str = "False",
) -> Thing:
    """Wait for a condition of "mbackend/big" with this reason, and for its Event; return it."""
    plural, _, name = what.partition("/")

    def shown() -> Thing | None:
        one = condition(status(cluster, plural, name, namespace), kind)
        return dict(one) if (one.get("status"), one.get("reason")) == (truth, reason) else None

    found = wait_for(shown, LIMIT_S, f"{kind}={truth}/{reason} of {what}")
    wait_for(lambda: reason in events(cluster, namespace, name), 10, f"an Event {reason}")
    return found


def events(cluster: Cluster, namespace: str, name: str) -> dict[str, str]:
    """Return the Events about an object: type by reason."""
    found = cluster.get("events", "--namespace", namespace)["items"]
    return {e["reason"]: e["type"] for e in found if e["involvedObject"]["name"] == name}


def identity(cluster: Cluster, namespace: str, name: str = "big") -> str:
    return str(status(cluster, "mbackend", name, namespace).get("identity", ""))


def edited(cluster: Cluster, namespace: str, thing: Thing) -> str:
    """Apply an edit of a backend and return its new identity."""
    name = thing["metadata"]["name"]
    before = identity(cluster, namespace, name)
    cluster.apply(thing, namespace=namespace)

    def look() -> str:
        now = identity(cluster, namespace, name)
        return now if now != before else ""

    return wait_for(look, LIMIT_S, "the edit to be seen")


def holds(cluster: Cluster, namespace: str, name: str = "assistant") -> str:
    """Return all that a route's status says, as text."""
    return json.dumps(status(cluster, "mroute", name, namespace))


def pods(cluster: Cluster, namespace: str, owner: str) -> set[str]:
    label = f"inference.weir.dev/identity={owner}"
    found = cluster.get("pods", "--namespace", namespace, "--selector", label)["items"]
    return {one["metadata"]["uid"] for one in found}
