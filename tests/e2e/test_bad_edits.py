"""Edits in place of servers that hold devices: none ends a server that answers."""

from e2e.cluster import Cluster, wait_for
from e2e.devices import (
    LIMIT_S,
    Pool,
    accelerated,
    deployments,
    identity,
    kwok,
    pods,
    pool,
    route,
    stands,
    told,
)
from e2e.weir import condition, status

__all__ = ["kwok", "pool"]


def test_a_missing_secret_ends_no_server_with_devices(
    kwok: Cluster, pool: Pool, namespace: str
) -> None:
    pool(1)
    stands(kwok, namespace, accelerated(namespace), route())
    name = identity(kwok, namespace)
    before = pods(kwok, namespace, name)
    edit = accelerated(namespace)
    absent = {"secretKeyRef": {"name": "absent", "key": "token"}}
    edit["spec"]["vllm"]["huggingFaceToken"] = absent
    kwok.apply(edit, namespace=namespace)
    found = told(kwok, namespace, "mbackend/big", "WorkloadReady", "EditDeferred")
    assert "env[HF_TOKEN]" in found["message"]
    for kind, truth in (("Ready", "True"), ("Reconciling", "False"), ("Stalled", "False")):
        kwok.wait("mbackend/big", f"{kind}={truth}", namespace=namespace)
    assert pods(kwok, namespace, name) == before
    assert deployments(kwok, namespace) == {name: (1, 1)}
    kwok.apply(accelerated(namespace), namespace=namespace)
    kwok.wait("mbackend/big", "WorkloadReady", namespace=namespace)
    assert pods(kwok, namespace, name) == before


def test_a_restart_by_people_takes_the_edit_that_waits(
    kwok: Cluster, pool: Pool, namespace: str
) -> None:
    """There is one device: a pod that surged would wait for it for ever, and the old one for it."""
    pool(1)
    stands(kwok, namespace, accelerated(namespace), route())
    name = identity(kwok, namespace)
    before = pods(kwok, namespace, name)
    labelled = accelerated(namespace)
    labelled["spec"]["vllm"]["podTemplate"]["metadata"] = {"labels": {"team": "a"}}
    kwok.apply(labelled, namespace=namespace)
    found = told(kwok, namespace, "mbackend/big", "WorkloadReady", "EditDeferred")
    command = f"rollout restart deployment/{name} --namespace {namespace}"
    assert f"`kubectl {command}`" in found["message"]
    kwok.kubectl(*command.split())

    def replaced() -> bool:
        now = pods(kwok, namespace, name)
        return len(now) == 1 and now != before and deployments(kwok, namespace)[name] == (1, 1)

    wait_for(replaced, LIMIT_S, "the pod to be replaced in place, though the pool is full")
    kwok.wait("mbackend/big", "WorkloadReady", namespace=namespace)
    label = f"inference.weir.dev/identity={name},team=a"
    running = kwok.get("pods", "--namespace", namespace, "--selector", label)["items"]
    assert [one["metadata"]["uid"] for one in running] == list(pods(kwok, namespace, name))
    assert identity(kwok, namespace) == name
    assert condition(status(kwok, "mbackend", "big", namespace), "Stalled")["status"] == "False"
