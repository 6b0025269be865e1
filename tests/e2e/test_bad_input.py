"""Bad input on a real cluster: a condition and an Event say what to do, and stable goes on.

One namespace serves throughout under a small load; after each test nothing was lost, nothing
restarted, and the route serves by the revision that it had. Clocks that jump are in
tests/core/test_steady.py, devices and foreign objects of backends in test_scheduling.py.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from e2e.cluster import Cluster, wait_for
from e2e.devices import events, external, holds, told
from e2e.devices import route as simple
from e2e.faults import OPERATOR, lease, led, pods
from e2e.weir import (
    SYSTEM,
    Traffic,
    backend,
    condition,
    route,
    serve,
    settled,
    status,
    traffic,
)
from weir_cli.demo_manifests import facts

Thing = dict[str, Any]
TROUBLE = ("walk failed", "route not thought of", "route not written", "Traceback")
"""What an operator logs that stumbles."""


@dataclass(frozen=True)
class Served:
    """A namespace that serves the cascade, and its load."""

    cluster: Cluster
    namespace: str
    load: Traffic
    stable: str

    def apply(self, *things: Thing) -> None:
        self.cluster.apply(*things, namespace=self.namespace)

    def told(self, what: str, kind: str, reason: str, *, truth: str = "False") -> str:
        """Wait for a condition with this reason and for its Event; return its message."""
        with self.cluster.timed(f"{what} until {reason} is told"):
            found = told(self.cluster, self.namespace, what, kind, reason, truth=truth)
        return str(found["message"])

    def mended(self) -> None:
        """Apply what everything was like, and wait until nothing is under way."""
        self.apply(backend("small", "small"), backend("large", "large"), route())
        settled(self.cluster, "assistant", self.namespace)


@pytest.fixture(scope="module")
def answering(weir: Cluster) -> Iterator[Served]:
    name = "bad-input"
    weir.kubectl("create", "namespace", name)
    try:
        serve(weir, name)
        stable = status(weir, "mroute", "assistant", name)["stable"]["revision"]
        with (
            weir.url("weir-router", 80, namespace=name) as url,
            traffic(url, workers=1) as load,
        ):
            yield Served(weir, name, load, stable)
    finally:
        weir.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def served(answering: Served) -> Iterator[Served]:
    """The namespace that serves; afterwards it did so all the while, and nobody stumbled."""
    before = answering.load.answers
    yield answering
    wait_for(lambda: answering.load.answers > before + 10, 20, "ten more answers")
    assert answering.load.failures == []
    found = status(answering.cluster, "mroute", "assistant", answering.namespace)
    assert found["stable"]["revision"] == answering.stable
    assert condition(found, "Ready")["status"] == "True"
    unharmed(answering.cluster)


def unharmed(cluster: Cluster) -> None:
    """Assert that the operator neither restarted nor stumbled."""
    (operator,) = pods(cluster, SYSTEM, "app.kubernetes.io/component=operator")
    assert [one["restartCount"] for one in operator["status"]["containerStatuses"]] == [0]
    log = cluster.kubectl("logs", OPERATOR, "--namespace", SYSTEM)
    assert [line for line in log.splitlines() if any(one in line for one in TROUBLE)] == []


def note(cluster: Cluster, namespace: str, name: str, reason: str) -> str:
    """Return the last Event with this reason about an object, as `kubectl events` shows it."""
    found = cluster.get("events", "--namespace", namespace)["items"]
    about = [
        one for one in found if (one["involvedObject"]["name"], one["reason"]) == (name, reason)
    ]
    return str(max(about, key=lambda one: str(one["eventTime"]))["message"])


# Edits of a backend whose pods cannot start.


def _image(spec: Thing) -> None:
    spec["vllm"]["image"] = "localhost/absent:dev"


def _registry(spec: Thing) -> None:
    spec["vllm"]["image"] = "localhost/absent:dev"
    _container(spec)["imagePullPolicy"] = "IfNotPresent"


def _weights(spec: Thing) -> None:
    spec["model"]["revision"] = "broken-start"


def _silent(spec: Thing) -> None:
    """A server that never says that it is ready."""
    spec["vllm"]["args"] = ["--max-model-len=200"]
    path = {"httpGet": {"path": "/absent", "port": "http"}}
    _container(spec)["startupProbe"] = path | {"periodSeconds": 3, "failureThreshold": 1}


def _secret(spec: Thing) -> None:
    spec["vllm"]["huggingFaceToken"] = {"secretKeyRef": {"name": "absent", "key": "token"}}


def _claim(spec: Thing) -> None:
    spec["vllm"]["weightsCache"] = {"persistentVolumeClaim": {"claimName": "absent"}}


def _device(spec: Thing) -> None:
    spec["vllm"]["accelerator"] = {"resourceName": "nvidia.com/gpu", "count": 1}
    spec["vllm"]["args"] = ["--max-model-len=201"]
    spec["vllm"]["startup"] = {"budget": "5s"}


def _container(spec: Thing) -> Thing:
    found: list[Thing] = spec["vllm"]["podTemplate"]["spec"]["containers"]
    return found[0]


@pytest.mark.parametrize(
    ("spoil", "reason", "says"),
    [
        pytest.param(_image, "ErrImageNeverPull", "correct spec.vllm.image", id="image"),
        pytest.param(_registry, "ImagePullBackOff", "correct spec.vllm.image", id="registry"),
        pytest.param(_weights, "CrashLoopBackOff", "weights could not be loaded", id="weights"),
        pytest.param(_silent, "StartupBudgetExceeded", "did not answer within 3 s", id="silent"),
        pytest.param(_device, "NoCapacity", "Insufficient nvidia.com/gpu", id="device"),
    ],
)
def test_edit_whose_pods_cannot_start_says_what_to_do(
    served: Served, spoil: Callable[[Thing], None], reason: str, says: str
) -> None:
    made = backend("small", "small")
    spoil(made["spec"])
    served.apply(made)
    message = served.told("mbackend/small", "WorkloadReady", reason)
    assert re.match(r"0 of 1 replicas of small-[0-9a-f]{10} are ready: ", message)
    assert says in message
    assert note(served.cluster, served.namespace, "small", reason) == message
    wait_for(
        lambda: re.search(
            r"0 of 1 replicas of small-\w+ are ready: (?!its model loads)",
            holds(served.cluster, served.namespace),
        ),
        30,
        "the route to say what its canary lacks",
    )
    served.mended()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        pytest.param(_secret, "CreateContainerConfigError", id="secret"),
        pytest.param(_claim, "Unschedulable", id="claim"),
    ],
)
def test_edit_in_place_whose_pods_cannot_start_leaves_the_old_ones(
    served: Served, spoil: Callable[[Thing], None], reason: str
) -> None:
    """No other answers come of a token or a cache, so no canary comes of their edit."""
    made = backend("small", "small")
    spoil(made["spec"])
    served.apply(made)
    message = served.told("mbackend/small", "WorkloadReady", reason)
    assert "1 of 1 replicas" in message
    assert "are ready, 1 still as before the edit: " in message
    assert '"absent" not found' in message
    assert note(served.cluster, served.namespace, "small", reason) == message
    served.mended()
    served.cluster.wait("mbackend/small", "WorkloadReady", namespace=served.namespace)


# Names.


def test_route_that_names_no_backend(served: Served) -> None:
    served.apply(simple("lost", to="smal"))
    message = served.told("mroute/lost", "ResolvedRefs", "BackendNotFound")
    assert "nothing serves yet" in message
    assert "'smal'" in message
    assert "small" in message.partition("wanted")[2]
    served.cluster.kubectl("delete", "mroute", "lost", "--namespace", served.namespace)


def test_second_claim_to_a_model_name(served: Served) -> None:
    served.apply(simple("usurper", to="small", models=["assistant"]))
    message = served.told("mroute/usurper", "Accepted", "Conflicted")
    assert "assistant" in message
    served.cluster.kubectl("delete", "mroute", "usurper", "--namespace", served.namespace)


def test_backend_that_vanishes_mid_canary(served: Served) -> None:
    cluster, namespace = served.cluster, served.namespace
    steps: list[Thing] = [{"setWeight": 25}, {"pause": {}}, {"setWeight": 50}]
    served.apply(route(threshold=f"{facts().min_probability + 0.02:.3f}", steps=steps))

    def weight() -> str:
        return str(status(cluster, "mroute", "assistant", namespace)["weight"]["set"])

    wait_for(lambda: weight() == "25%", 60, "the canary at 25 %")
    cluster.kubectl("delete", "mbackend", "large", "--namespace", namespace)
    message = served.told("mroute/assistant", "ResolvedRefs", "BackendNotFound")
    assert message.startswith(f"keeps revision {served.stable} serving; ")
    asked = served.load.answers
    wait_for(lambda: served.load.answers > asked + 30, 30, "answers without the object")
    tiers = {one.tier for one in served.load.answered[asked:]}
    assert tiers == {"small", "large"}
    assert weight() == "25%"
    served.apply(backend("large", "large"))
    cluster.wait("mroute/assistant", "ResolvedRefs", namespace=namespace)
    served.mended()


# Objects that others touch.


def test_hand_edited_workload_is_put_back_and_told(served: Served) -> None:
    cluster, namespace = served.cluster, served.namespace
    name = str(status(cluster, "mbackend", "large", namespace)["identity"])
    with cluster.timed("hand-edit until put back"):
        cluster.kubectl("scale", f"deployment/{name}", "--replicas=2", "-n", namespace)
        wait_for(
            lambda: cluster.get("deployment", name, "-n", namespace)["spec"]["replicas"] == 1,
            30,
            "one replica again",
        )
    for about in ("large", name):
        _put_back(served, about, f"Deployment {namespace}/{name}: spec.replicas changed")
    cluster.kubectl("set", "env", f"deployment/{name}", "THEIRS=1", "-n", namespace)
    at = ("deployment", name, "-n", namespace)
    wait_for(lambda: "THEIRS" not in str(cluster.get(*at)["spec"]), 30, "no variable of theirs")


def _put_back(served: Served, about: str, wanted: str) -> None:
    """Assert that an Event about an object tells of the hand-edit, and what to do instead."""
    cluster, namespace = served.cluster, served.namespace
    wait_for(lambda: "PutBack" in events(cluster, namespace, about), 10, f"an Event of {about}")
    message = note(cluster, namespace, about, "PutBack")
    assert wanted in message
    assert "edit the ModelBackend" in message


def test_object_that_is_deleted_by_hand_comes_back(served: Served) -> None:
    cluster, namespace = served.cluster, served.namespace
    cluster.kubectl("delete", "pdb", "weir-router", "--namespace", namespace)
    wait_for(lambda: bool(cluster.get("pdb", "weir-router", "-n", namespace)), 30, "the budget")


def test_somebody_elses_object_with_a_routers_name(served: Served, namespace: str) -> None:
    cluster = served.cluster
    cluster.kubectl("create", "service", "clusterip", "weir-router", "--tcp=80:80", "-n", namespace)
    theirs = cluster.get("service", "weir-router", "--namespace", namespace)
    cluster.apply(external("hosted"), simple("assistant", to="hosted"), namespace=namespace)
    found = told(cluster, namespace, "mroute/assistant", "Programmed", "ForeignObject")
    assert f"Service {namespace}/weir-router" in found["message"]
    assert "rename or delete the object" in found["message"]
    assert cluster.get("service", "weir-router", "-n", namespace)["spec"] == theirs["spec"]
    cluster.kubectl("delete", "service", "weir-router", "--namespace", namespace)
    with cluster.timed("foreign object deleted until Programmed"):
        cluster.wait("mroute/assistant", "Programmed", namespace=namespace)


def test_namespace_that_is_being_deleted(served: Served, namespace: str) -> None:
    """Somebody's finalizer holds it up; nothing of Weir's does, and nobody stumbles over it."""
    cluster = served.cluster
    cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "held", "finalizers": ["example.com/held"]},
        },
        external("hosted"),
        simple("assistant", to="hosted"),
        namespace=namespace,
    )
    cluster.wait("mroute/assistant", "Programmed", namespace=namespace)
    cluster.kubectl("delete", "namespace", namespace, "--wait=false")
    try:
        with cluster.timed("namespace deleted until its pods were gone"):
            left = ("pods", "--namespace", namespace)
            wait_for(lambda: not cluster.get(*left)["items"], 60, "the routers to be gone")
    finally:
        free = '{"metadata": {"finalizers": null}}'
        cluster.kubectl("patch", "configmap", "held", "-n", namespace, "--type=merge", "-p", free)
    gone = ("get", "namespace", namespace, "--ignore-not-found")
    # Pods go first; for the rest Kubernetes comes back after half of their longest grace period.
    with cluster.timed("and from then on until the namespace was gone"):
        wait_for(lambda: not cluster.kubectl(*gone).strip(), 120, "its end")


# Halves of an upgrade.


def test_old_crds_with_a_new_operator_and_what_they_let_in(served: Served) -> None:
    """An object that today's rules refuse harms itself only, before and after they come."""
    cluster, namespace = served.cluster, served.namespace
    crds = [cluster.get("crd", name) for name in NAMES]
    legacy = backend("legacy", "small")
    legacy["spec"]["vllm"]["args"] = ["-t", "4"]
    try:
        _replace(cluster, [_without_rules(crd) for crd in crds])
        wait_for(lambda: served.apply(legacy) is None, 20, "the rules to be gone")
        served.apply(simple("heir", to="legacy"))
        message = served.told("mbackend/legacy", "Accepted", "Invalid")
        assert "spec.vllm.args[0]: saw '-t', wanted no -tp: spec.vllm.parallelism" in message
        _restarted(cluster)
    finally:
        _replace(cluster, crds)
    # New CRDs let old objects change where they are not wrong, and be told of.
    legacy["spec"]["replicas"] = 0
    served.apply(legacy)

    def observed() -> bool:
        return bool(status(cluster, "mbackend", "legacy", namespace)["observedGeneration"] == 2)

    wait_for(observed, 30, "a status of the edit")
    cluster.kubectl("delete", "mbackend", "legacy", "--namespace", namespace)
    cluster.kubectl("delete", "mroute", "heir", "--namespace", namespace)


def test_objects_of_a_newer_operator(served: Served) -> None:
    """What this one does not know is passed over; what it knows is gone on from."""
    cluster, namespace = served.cluster, served.namespace
    told = status(cluster, "mroute", "assistant", namespace)
    state = {**json.loads(told["rollout"]["state"]), "later": {"than": ["this"]}}
    rollout = {**told["rollout"], "state": json.dumps(state), "later": 1}
    newer = {"status": {"later": "field", "rollout": rollout}}
    for kind, name, status_patch in (
        ("mroute", "assistant", newer),
        ("mrev", served.stable, {"status": {"later": "field"}}),
    ):
        patch = ("--subresource=status", "--type=merge", "-p", json.dumps(status_patch))
        cluster.kubectl("patch", kind, name, "--namespace", namespace, *patch)
    _restarted(cluster)
    settled(cluster, "assistant", namespace)
    found = status(cluster, "mroute", "assistant", namespace)
    assert found["canary"]["revision"] == ""


NAMES = [
    f"{kind}.inference.weir.dev" for kind in ("modelroutes", "modelbackends", "modelrevisions")
]


def _restarted(cluster: Cluster) -> None:
    """Have another process lead."""
    before = lease(cluster)[0]
    cluster.kubectl("rollout", "restart", OPERATOR, "--namespace", SYSTEM)
    there = ("rollout", "status", OPERATOR, "--namespace", SYSTEM)
    cluster.kubectl(*there, limit_s=120)
    led(cluster, but=before)


def _replace(cluster: Cluster, crds: list[Thing]) -> None:
    for crd in crds:
        spec = json.dumps(
            [{"op": "replace", "path": "/spec/versions", "value": crd["spec"]["versions"]}]
        )
        name = crd["metadata"]["name"]
        cluster.kubectl("patch", "crd", name, "--field-manager=helm", "--type=json", "-p", spec)


def _without_rules(node: Any) -> Any:
    """Return a schema as it was before the rules came, and the streaming field."""
    if isinstance(node, dict):
        gone = ("x-kubernetes-validations", "streaming")
        return {key: _without_rules(one) for key, one in node.items() if key not in gone}
    return list(map(_without_rules, node)) if isinstance(node, list) else node
