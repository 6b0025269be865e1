"""The chart's other ways: two operators, named namespaces, Roles alone, sidecars."""

import json
import os
from collections.abc import Iterator

import pytest
import yaml

from e2e.charted import RESTRICTED, changed, heard, may, refused_calls
from e2e.cluster import Cluster, pod, wait_for
from e2e.faults import ROUTERS, led, pods
from e2e.weir import SYSTEM, Thing, helm, install, route, serve, settled, status, traffic
from weir_operator.sidecar import LABEL

MADE = "app.kubernetes.io/managed-by=weir"


@pytest.fixture(scope="module")
def served(cluster: Cluster) -> Iterator[str]:
    """A restricted namespace that serves the cascade, and two accounts: `app` may use routes.

    The chart is as other tests want it, before and afterwards; these tests change it.
    """
    install(cluster)
    name = f"modes-{os.getpid()}"
    cluster.kubectl("create", "namespace", name)
    try:
        cluster.kubectl("label", "namespace", name, RESTRICTED)
        serve(cluster, name)
        _accounts(cluster, name)
        yield name
    finally:
        cluster.kubectl("delete", "namespace", name, "--wait=false")
        install(cluster)


@pytest.fixture
def plain(cluster: Cluster, served: str) -> str:
    """The same namespace, with the chart as it is."""
    install(cluster)
    led(cluster)
    heard(cluster, served)
    return served


# Two operators.


def test_the_service_leads_to_the_operator_that_leads(cluster: Cluster, served: str) -> None:
    with cluster.timed("operator rolled out to two"):
        install(cluster, changed(replicas=2))
    leader = led(cluster)
    wait_for(lambda: _behind(cluster) == [leader], 30, "the Service to lead to the leader")
    heard(cluster, served)
    with cluster.timed("leader of two ended until routers hear the other"):
        cluster.kubectl("delete", "pod", leader, "--namespace", SYSTEM, "--wait=false")
        second = led(cluster, but=leader)
        wait_for(lambda: _behind(cluster) == [second], 30, "the Service to lead to the other")
        heard(cluster, served)
    with cluster.timed("two operators replaced by two"):
        install(cluster, changed(replicas=2, logLevel="DEBUG"))
    third = led(cluster, but=second)
    wait_for(lambda: _behind(cluster) == [third], 30, "the Service to lead to the new leader")
    heard(cluster, served)


def _behind(cluster: Cluster) -> list[str]:
    """Return the pods that the operator's Service leads to."""
    selector = "kubernetes.io/service-name=weir-operator"
    slices = cluster.get("endpointslices", "--namespace", SYSTEM, "--selector", selector)["items"]
    ends = [end for one in slices for end in one.get("endpoints") or ()]
    return [end["targetRef"]["name"] for end in ends if end["conditions"].get("ready")]


# Named namespaces.


def test_named_namespaces_are_served_and_no_others(
    cluster: Cluster, served: str, request: pytest.FixtureRequest
) -> None:
    other = f"{served}-other"
    cluster.kubectl("create", "namespace", other)
    request.addfinalizer(lambda: cluster.kubectl("delete", "namespace", other, "--wait=false"))
    install(cluster, changed(namespaces=[served]))
    cluster.apply(route("elsewhere"), namespace=other)
    cluster.apply(route("second"), namespace=served)
    settled(cluster, "second", served)
    heard(cluster, served)
    assert status(cluster, "mroute", "elsewhere", other) == {}
    assert pods(cluster, other, MADE) == []
    _may_act_there_alone(cluster, served, other)
    given = _asking("labelled", "default")
    cluster.kubectl("create", "--namespace", other, "-f", "-", given=json.dumps(given))
    assert "initContainers" not in cluster.get("pod", "labelled", "--namespace", other)["spec"]
    assert refused_calls(cluster) == []


def test_roles_alone_are_enough(
    cluster: Cluster, served: str, request: pytest.FixtureRequest
) -> None:
    """All that somebody else does is to apply the CRDs and to let tokens be reviewed."""
    binding = f"{served}-tokens"
    cluster.kubectl(
        *("create", "clusterrolebinding", binding, "--clusterrole=system:auth-delegator"),
        f"--serviceaccount={SYSTEM}:weir-operator",
    )
    request.addfinalizer(lambda: cluster.kubectl("delete", "clusterrolebinding", binding))
    off = {"crds": {"install": False}, "sidecar": {"enabled": False}}
    values = changed(namespaces=[served], rbac={"clusterScoped": False}, **off)
    before = led(cluster)
    with cluster.timed("operator with Roles alone until routers hear it"):
        install(cluster, {**values, "podAnnotations": {"roles": "alone"}})
        led(cluster, but=before)
        heard(cluster, served)
    made = yaml.safe_load_all(helm(cluster, "get", "manifest", "weir", "--namespace", SYSTEM))
    assert {one["metadata"].get("namespace") for one in made} == {served, SYSTEM}
    ours = "app.kubernetes.io/instance=weir"
    assert cluster.get("clusterroles,clusterrolebindings", "--selector", ours)["items"] == []
    assert not may(cluster, "list", "modelroutes", "--all-namespaces")
    cluster.apply(route(threshold="0.99"), namespace=served)
    with cluster.url("weir-router", 80, namespace=served) as url, traffic(url, workers=2) as load:
        wait_for(lambda: load.arms["canary"] > 10, 60, "a canary's answers")
    # Pods are replaced too, and the next router starts from what the operator has written.
    cluster.kubectl("delete", "pod", "--namespace", served, "--selector", ROUTERS)
    heard(cluster, served, limit_s=60)
    assert load.failures == []
    assert refused_calls(cluster) == []


def test_a_namespace_whose_roles_are_gone_harms_no_other_one(
    cluster: Cluster, served: str, request: pytest.FixtureRequest
) -> None:
    """Also at the operator's start, and it is served when its Roles are back, unasked."""
    shut, binding = f"{served}-shut", ("rolebinding", "weir-operator-routes")
    cluster.kubectl("create", "namespace", shut)
    request.addfinalizer(lambda: cluster.kubectl("delete", "namespace", shut, "--wait=false"))
    install(cluster, changed(namespaces=[shut, served]))
    before = led(cluster)
    was = cluster.get(*binding, "--namespace", shut)
    cluster.kubectl("delete", *binding, "--namespace", shut)
    cluster.kubectl("delete", "pod", before, "--namespace", SYSTEM)
    with cluster.timed("operator begun anew with one namespace shut until routers hear it"):
        leader = led(cluster, but=before)
        heard(cluster, served)
    cluster.apply(route("elsewhere"), namespace=shut)
    cluster.apply(route("third"), namespace=served)
    settled(cluster, "third", served)
    assert status(cluster, "mroute", "elsewhere", shut) == {}
    assert pods(cluster, shut, MADE) == []
    log = cluster.kubectl("logs", leader, "--namespace", SYSTEM)
    told = [line for line in log.splitlines() if "namespace may not be read" in line]
    assert len(told) == 1
    assert shut in told[0]
    metadata = {"name": binding[1], "namespace": shut, "labels": was["metadata"]["labels"]}
    cluster.apply({**was, "metadata": metadata}, namespace=shut)
    with cluster.timed("Roles are back until a route is told of"):
        wait_for(lambda: status(cluster, "mroute", "elsewhere", shut), 90, "a status")
    assert led(cluster) == leader
    settled(cluster, "third", served)


def _may_act_there_alone(cluster: Cluster, served: str, other: str) -> None:
    for verb, resource in (("list", "modelroutes"), ("create", "deployments.apps")):
        assert may(cluster, verb, resource, "--namespace", served)
        assert not may(cluster, verb, resource, "--namespace", other)
    assert not may(cluster, "get", "secrets", "--namespace", served)
    assert not may(cluster, "list", "secrets", "--namespace", SYSTEM)
    assert not may(cluster, "list", "pods", "--all-namespaces")
    assert may(cluster, "get", "secrets/weir-operator-feed", "--namespace", SYSTEM)
    assert not may(cluster, "get", "secrets/other", "--namespace", SYSTEM)
    for resource in ("configmaps/small-cal", "serviceaccounts/default"):
        assert not may(cluster, "patch", resource, "--namespace", served)


# Sidecars.

ASKS = r"""
import json, os, sys, time, urllib.error, urllib.request
from weir_lab import questions

def answered(body):
    base = os.environ["OPENAI_BASE_URL"]
    data = json.dumps({**body, "response_format": {"type": "json_object"}}).encode()
    request = urllib.request.Request(base + "/chat/completions", data, {
        "content-type": "application/json"})
    for _ in range(60):
        try:
            with urllib.request.urlopen(request, timeout=20) as reply:
                content = json.load(reply)["choices"][0]["message"]["content"]
                told = {k.lower(): v for k, v in reply.headers.items() if "weir" in k.lower()}
                return {**told, "intent": json.loads(content)["intent"]}
        except OSError as error:
            last = error
        time.sleep(0.5)
    sys.exit(f"no answer: {last}")

asked = list(questions.load())[:40]
told = [answered(q.body("assistant", max_tokens=64, temperature=0)) for q in asked]
time.sleep(3)
with urllib.request.urlopen("http://127.0.0.1:8088/metrics") as metrics:
    heard = b"\nweir_feed_connected 1.0\n" in metrics.read()
print(json.dumps({"base": os.environ["OPENAI_BASE_URL"], "heard": heard, "told": told}))
"""


def _asking(name: str, account: str) -> Thing:
    """Return a pod of an application that asks its router, with the label of sidecars."""
    made = pod(name, command=["python", "-c", ASKS])
    made["metadata"]["labels"] |= LABEL
    made["spec"]["serviceAccountName"] = account
    return made


def _said(cluster: Cluster, made: Thing, namespace: str) -> Thing:
    """Run a pod to its end and return what it said."""
    name = made["metadata"]["name"]
    cluster.apply(made, namespace=namespace)
    there = ("pod", name, "--namespace", namespace)
    wait_for(
        lambda: cluster.get(*there)["status"].get("phase") in ("Succeeded", "Failed"),
        120,
        f"the end of pod {name}",
    )
    said = cluster.kubectl("logs", name, "--container", "main", "--namespace", namespace)
    assert cluster.get(*there)["status"]["phase"] == "Succeeded", said
    found: Thing = json.loads(said.splitlines()[-1])
    return found


def _accounts(cluster: Cluster, namespace: str) -> None:
    """Make two accounts, of which `app` may use the routes."""
    for name in ("app", "stranger"):
        cluster.kubectl("create", "serviceaccount", name, "--namespace", namespace)
    cluster.kubectl(
        *("create", "rolebinding", "sidecars", "--clusterrole=weir-router-use"),
        *(f"--serviceaccount={namespace}:app", "--namespace", namespace),
    )


def test_a_labelled_pod_gets_a_router_and_no_other_does(cluster: Cluster, plain: str) -> None:
    with cluster.timed("pod with a sidecar, from apply to 40 answers"):
        said = _said(cluster, _asking("app", "app"), plain)
    assert (said["base"], said["heard"]) == ("http://127.0.0.1:8089/v1", True)
    told = said["told"]
    assert {one["x-weir-route"] for one in told} == {f"{plain}/assistant"}
    assert {one["x-weir-tier"] for one in told} == {"small", "large"}
    made = cluster.get("pod", "app", "--namespace", plain)
    (router,) = made["spec"]["initContainers"]
    assert (router["name"], router["restartPolicy"]) == ("weir-router", "Always")
    bare = ["python", "-c", "import os; print(list(os.environ))"]
    assert "OPENAI_BASE_URL" not in cluster.run("plain", namespace=plain, command=bare)
    assert "initContainers" not in cluster.get("pod", "plain", "--namespace", plain)["spec"]


def test_a_sidecar_whose_account_may_not_use_routes_is_refused(
    cluster: Cluster, plain: str
) -> None:
    said = _said(cluster, _asking("uninvited", "stranger"), plain)
    # The mounted snapshot is there for whoever may make pods: it answers, and hears nothing new.
    assert not said["heard"]
    log = cluster.kubectl("logs", "uninvited", "-c", "weir-router", "--namespace", plain)
    assert f"ServiceAccount {plain}/stranger of sidecar" in log
    assert "needs verb `use` on modelroutes.inference.weir.dev" in log
