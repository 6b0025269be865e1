"""What the cluster refuses or lacks: devices, images, secrets, names. Nothing gets stuck."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from e2e.cluster import Cluster, wait_for
from e2e.devices import (
    LIMIT_S,
    Pool,
    accelerated,
    deployments,
    edited,
    events,
    external,
    holds,
    identity,
    kwok,
    pods,
    pool,
    route,
    stands,
    told,
)
from e2e.weir import backend, condition, status
from weir_core.identity import identity_of
from weir_core.resources import ModelBackend, from_object

__all__ = ["kwok", "pool"]

Thing = dict[str, Any]


# Devices.


def test_no_room_gives_the_canary_up_and_leaves_stable_alone(
    kwok: Cluster, pool: Pool, namespace: str
) -> None:
    pool(1)
    stands(kwok, namespace, accelerated(namespace), route())
    old = identity(kwok, namespace)
    before = pods(kwok, namespace, old)
    new = edited(kwok, namespace, accelerated(namespace, image="fake:2"))
    told(kwok, namespace, "mbackend/big", "WorkloadReady", "NoCapacity")
    wait_for(lambda: deployments(kwok, namespace)[new] == (0, 0), LIMIT_S, "0 replicas")
    assert deployments(kwok, namespace)[old] == (1, 1)
    assert pods(kwok, namespace, old) == before
    assert events(kwok, namespace, "big")["NoCapacity"] == "Warning"
    wait_for(lambda: "Insufficient nvidia.com/gpu" in holds(kwok, namespace), 20, "why")
    kwok.kubectl("rollout", "restart", "deployment/weir-operator", "--namespace", "weir-system")
    kwok.kubectl(
        *("rollout", "status", "deployment/weir-operator", "--namespace", "weir-system"),
        limit_s=120,
    )
    assert deployments(kwok, namespace)[new] == (0, 0)
    pool(1)
    again = route()
    again["spec"]["rollout"]["retryToken"] = "room"
    kwok.apply(again, namespace=namespace)
    kwok.wait("mbackend/big", "WorkloadReady", namespace=namespace)
    assert deployments(kwok, namespace) == {old: (1, 1), new: (1, 1)}


def test_half_the_room_keeps_what_serves(kwok: Cluster, pool: Pool, namespace: str) -> None:
    pool(3)
    stands(kwok, namespace, accelerated(namespace, replicas=2), route())
    old = identity(kwok, namespace)
    new = edited(kwok, namespace, accelerated(namespace, image="fake:2", replicas=2))
    told(kwok, namespace, "mbackend/big", "WorkloadReady", "NoCapacity")
    wait_for(lambda: deployments(kwok, namespace)[new] == (1, 1), LIMIT_S, "one of two")
    assert deployments(kwok, namespace)[old] == (2, 2)
    assert status(kwok, "mroute", "assistant", namespace)["weight"]["set"] == "50%"


def test_two_canaries_of_one_pool_load_one_after_the_other(
    kwok: Cluster, pool: Pool, namespace: str
) -> None:
    pool(2, 1)
    names = ("big", "other")
    things = [accelerated(namespace, name) for name in names]
    stands(kwok, namespace, *things, route(), route("second", to="other"))
    old = {identity(kwok, namespace, name) for name in names}
    kwok.apply(*(accelerated(namespace, one, image="fake:2") for one in names), namespace=namespace)

    def outcome() -> list[str]:
        found = [
            condition(status(kwok, "mbackend", one, namespace), "WorkloadReady")["reason"]
            for one in names
        ]
        return found if sorted(found) == ["NoCapacity", "ReplicasReady"] else []

    wait_for(outcome, LIMIT_S, "one to load and one to be given up")
    waited = [one for one in names if "WaitsForPool" in events(kwok, namespace, one)]
    assert len(waited) == 1, "the second one is told that it waits"
    running = deployments(kwok, namespace)
    assert [running[one] for one in sorted(old)] == [(1, 1), (1, 1)]
    assert sorted(running[one] for one in running.keys() - old) == [(0, 0), (1, 1)]


def test_an_edit_on_top_of_an_edit_takes_its_place(
    kwok: Cluster, pool: Pool, namespace: str
) -> None:
    pool(2)
    stands(kwok, namespace, accelerated(namespace), route())
    old = identity(kwok, namespace)
    edited(kwok, namespace, accelerated(namespace, image="fake:2"))
    last = edited(kwok, namespace, accelerated(namespace, image="fake:3"))

    def look() -> bool:
        return deployments(kwok, namespace) == {old: (1, 1), last: (1, 1)}

    wait_for(look, LIMIT_S, "stable and the last edit alone")
    assert "RevisionSuperseded" in events(kwok, namespace, "assistant"), "what the edit replaced"


# Images, weights, secrets.


def _no_image(spec: Thing) -> None:
    spec["vllm"]["image"] = "localhost/absent:dev"


def _broken_weights(spec: Thing) -> None:
    spec["model"]["revision"] = "broken-start"


def _no_secret(spec: Thing) -> None:
    spec["vllm"]["huggingFaceToken"] = {"secretKeyRef": {"name": "absent", "key": "token"}}


@pytest.mark.parametrize(
    ("spoil", "reason", "why"),
    [
        pytest.param(_no_image, "ErrImageNeverPull", "localhost/absent:dev", id="no image"),
        pytest.param(_broken_weights, "CrashLoopBackOff", "exit code 1", id="broken weights"),
        pytest.param(_no_secret, "CreateContainerConfigError", "absent", id="no secret"),
    ],
)
def test_pods_that_cannot_start_are_told_of(
    weir: Cluster, namespace: str, spoil: Callable[[Thing], None], reason: str, why: str
) -> None:
    made = backend("small", "small")
    spoil(made["spec"])
    weir.apply(made, namespace=namespace)
    told(weir, namespace, "mbackend/small", "WorkloadReady", reason)

    def says() -> bool:
        # A kubelet's first words may be that it waited for the Secret in vain.
        found = condition(status(weir, "mbackend", "small", namespace), "WorkloadReady")
        return why in str(found.get("message"))

    wait_for(says, LIMIT_S, f"{why} in what it says")
    assert events(weir, namespace, "small")[reason] == "Warning"


# Objects.


def test_a_backend_that_vanishes_leaves_stable_serving(
    kwok: Cluster, pool: Pool, namespace: str
) -> None:
    pool(2)
    stands(kwok, namespace, accelerated(namespace), route())
    old = identity(kwok, namespace)
    new = edited(kwok, namespace, accelerated(namespace, image="fake:2"))
    wait_for(lambda: deployments(kwok, namespace).get(new) == (1, 1), LIMIT_S, "the canary")
    kwok.kubectl("delete", "mbackend", "big", "--namespace", namespace)
    told(kwok, namespace, "mroute/assistant", "ResolvedRefs", "BackendNotFound")
    assert deployments(kwok, namespace)[old] == (1, 1)
    stands(kwok, namespace, accelerated(namespace))
    kwok.wait("mroute/assistant", "ResolvedRefs", namespace=namespace)


def test_of_two_claims_to_a_model_name_the_older_counts(weir: Cluster, namespace: str) -> None:
    weir.apply(
        external("hosted"), route("first", to="hosted", models=["chat"]), namespace=namespace
    )
    weir.wait("mroute/first", "Accepted", namespace=namespace)
    # Ages are whole seconds; of one second the name decides, and "first" comes first.
    weir.apply(route("second", to="hosted", models=["chat"]), namespace=namespace)
    found = told(weir, namespace, "mroute/second", "Accepted", "Conflicted")
    assert "first" in found["message"]
    assert condition(status(weir, "mroute", "first", namespace), "Accepted")["status"] == "True"
    weir.kubectl("delete", "mroute", "first", "--namespace", namespace)
    weir.wait("mroute/second", "Accepted", namespace=namespace)


def test_a_hand_edited_workload_is_put_back(kwok: Cluster, pool: Pool, namespace: str) -> None:
    pool(2)
    stands(kwok, namespace, accelerated(namespace))
    name = identity(kwok, namespace)
    image = '[{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "x:1"}]'
    kwok.kubectl("scale", f"deployment/{name}", "--replicas", "2", "--namespace", namespace)
    kwok.kubectl(
        *("patch", f"deployment/{name}", "--namespace", namespace),
        *("--type", "json", "--patch", image),
    )

    def look() -> bool:
        spec = kwok.get("deployment", name, "--namespace", namespace)["spec"]
        (one,) = spec["template"]["spec"]["containers"]
        return spec["replicas"] == 1 and one["image"] == "fake:1"

    wait_for(look, LIMIT_S, "the Deployment to be put back")


@pytest.mark.parametrize("kind", ["Service", "Deployment"])
def test_somebody_elses_object_of_our_name_is_not_touched(
    kwok: Cluster, namespace: str, kind: str
) -> None:
    made = accelerated(namespace)
    parsed = from_object({**copy.deepcopy(made), "metadata": {"name": "big"}})
    assert isinstance(parsed, ModelBackend)
    name = identity_of(parsed)
    theirs = ("--namespace", namespace, "--output", "json")
    if kind == "Service":
        kwok.kubectl("create", "service", "clusterip", name, "--tcp", "80:80", *theirs)
    else:
        kwok.kubectl("create", "deployment", name, "--image", "x:1", "--replicas", "0", *theirs)
    before = kwok.get(kind, name, "--namespace", namespace)
    kwok.apply(made, namespace=namespace)
    found = told(kwok, namespace, "mbackend/big", "Accepted", "ForeignObject")
    assert name in found["message"]
    after = kwok.get(kind, name, "--namespace", namespace)
    assert after["spec"] == before["spec"]
    assert after["metadata"]["labels"] == before["metadata"]["labels"]
    kwok.kubectl("delete", kind, name, "--namespace", namespace)
    kwok.wait("mbackend/big", "Accepted", namespace=namespace)
