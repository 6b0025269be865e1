"""The chart's life on a real cluster: from nothing to nothing, and routers answer throughout."""

import copy
import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from e2e.cluster import ROOT, Cluster, ClusterError, pod, wait_for
from e2e.faults import ROUTERS, lease, led, name_of, pods, pods_at_all, scale
from e2e.weir import CHART, SYSTEM, VALUES, helm, install, route, serve, settled, status, traffic
from weir_lab import questions
from weir_operator.sidecar import LABEL

KINDS = ("modelroutes", "modelbackends", "modelrevisions")
CRDS = [f"crd/{kind}.inference.weir.dev" for kind in KINDS]
MADE = "app.kubernetes.io/managed-by=weir"
ACCOUNT = f"system:serviceaccount:{SYSTEM}:weir-operator"
RESTRICTED = "pod-security.kubernetes.io/enforce=restricted"
GONE_S = 120
"""Kubernetes looks at an ending namespace again after half of its pods' longest grace period."""
Thing = dict[str, Any]


@pytest.fixture(scope="module")
def empty(cluster: Cluster) -> Iterator[Cluster]:
    """A cluster without anything of Weir's; it has the chart as other tests want it afterwards."""
    _emptied(cluster)
    try:
        yield cluster
    finally:
        install(cluster)


def _emptied(cluster: Cluster) -> None:
    helm(cluster, "uninstall", "weir", "--namespace", SYSTEM, "--ignore-not-found", "--wait")
    cluster.kubectl("delete", *CRDS, "--ignore-not-found", limit_s=120)
    cluster.kubectl("delete", "namespace", SYSTEM, "--ignore-not-found", limit_s=120)


@pytest.fixture
def served(cluster: Cluster, namespace: str) -> str:
    """A restricted namespace in which the chart as it is serves the cascade."""
    cluster.kubectl("label", "namespace", namespace, RESTRICTED)
    install(cluster)
    serve(cluster, namespace)
    heard(cluster, namespace)
    return namespace


def changed(**values: Any) -> Thing:
    """Return the tests' values with changes."""
    return {**copy.deepcopy(VALUES), **values}


def lives(cluster: Cluster, namespace: str) -> dict[str, tuple[str, int]]:
    """Return uid and restarts of every pod of Weir's, by its name."""
    return {
        name_of(pod): (
            pod["metadata"]["uid"],
            sum(one["restartCount"] for one in pod["status"]["containerStatuses"]),
        )
        for pod in pods(cluster, namespace, MADE)
    }


def hearing(cluster: Cluster, namespace: str) -> list[str]:
    """Return the routers that hear the operator, as they say themselves."""
    found = []
    for name in map(name_of, pods(cluster, namespace, ROUTERS)):
        path = f"/api/v1/namespaces/{namespace}/pods/{name}:8081/proxy/metrics"
        if "\nweir_feed_connected 1.0\n" in cluster.kubectl("get", "--raw", path):
            found.append(name)
    return found


def heard(cluster: Cluster, namespace: str, *, limit_s: float = 30) -> None:
    """Wait until both routers hear the operator."""
    wait_for(lambda: len(hearing(cluster, namespace)) == 2, limit_s, "routers to hear the operator")


def one_answer(url: str) -> None:
    """Ask the route one question."""
    body = next(iter(questions.load())).body("assistant", max_tokens=64, temperature=0)
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        raw = client.chat.completions.with_raw_response.create(
            **body, response_format={"type": "json_object"}
        )
    assert raw.headers["x-weir-route"].endswith("/assistant")


def everything(cluster: Cluster, namespace: str) -> list[Thing]:
    """Return all objects of a namespace but Events."""
    kinds = cluster.kubectl("api-resources", "--verbs=list", "--namespaced", "--output=name")
    wanted = [kind for kind in kinds.split() if not kind.startswith("events")]
    items: list[Thing] = cluster.get(",".join(wanted), "--namespace", namespace)["items"]
    return items


def untouched_by_the_framework(objects: list[Thing]) -> None:
    """Assert that no object has a finalizer, or an annotation of kopf's."""
    for obj in objects:
        meta = obj["metadata"]
        title = f"{obj['kind']} {meta['name']}"
        assert not meta.get("finalizers"), title
        assert "kopf" not in json.dumps(meta.get("annotations", {})), title


def may(cluster: Cluster, verb: str, resource: str, *where: str) -> bool:
    """Whether the operator's account may do something, as the API server says."""
    try:
        said = cluster.kubectl("auth", "can-i", verb, resource, "--as", ACCOUNT, *where)
    except ClusterError as error:
        if str(error).endswith("failed: no"):
            return False
        raise
    return said.strip() == "yes"


# One release from its installation to its second one.


def test_a_release_comes_changes_goes_and_comes_back(empty: Cluster, namespace: str) -> None:
    empty.kubectl("create", "namespace", SYSTEM)
    empty.kubectl("label", "namespace", SYSTEM, namespace, RESTRICTED)
    with empty.timed("chart installed where nothing was"):
        install(empty)
    serve(empty, namespace)
    with empty.timed("helm test"):
        said = helm(empty, "test", "weir", "--namespace", SYSTEM)
    assert said.count("Phase:          Succeeded") == 1
    before = lives(empty, namespace)
    assert len(before) == 4
    with empty.url("weir-router", 80, namespace=namespace) as url, traffic(url, workers=2) as load:
        _upgraded_and_rolled_back(empty, namespace)
        values = helm(empty, "get", "values", "weir", "--namespace", SYSTEM, "--output", "json")
        _uninstalled(empty, namespace, url)
        _installed_again(empty, namespace, values)
    assert lives(empty, namespace) == before
    assert load.failures == []
    assert load.answers > 200
    untouched_by_the_framework(everything(empty, namespace) + everything(empty, SYSTEM))
    assert _refused_calls(empty) == []


def _upgraded_and_rolled_back(cluster: Cluster, namespace: str) -> None:
    first = led(cluster)
    with cluster.timed("upgraded until routers hear the new operator"):
        install(cluster, changed(logLevel="DEBUG", replicas=2))
        second = led(cluster, but=first)
        heard(cluster, namespace)
    with cluster.timed("rolled back until routers hear the old one's"):
        helm(cluster, "rollback", "weir", "--namespace", SYSTEM, "--wait", "--timeout", "3m")
        led(cluster, but=second)
        heard(cluster, namespace)
    (operator,) = cluster.get("deployments", "--namespace", SYSTEM)["items"]
    (container,) = operator["spec"]["template"]["spec"]["containers"]
    levels = [one["value"] for one in container["env"] if one["name"] == "WEIR_LOG_LEVEL"]
    assert (levels, operator["spec"]["replicas"]) == (["INFO"], 1)


def _uninstalled(cluster: Cluster, namespace: str, url: str) -> None:
    with cluster.timed("uninstalled until the operator was gone"):
        said = helm(cluster, "uninstall", "weir", "--namespace", SYSTEM, "--wait")
        wait_for(lambda: not pods_at_all(cluster), 60, "the operator's end")
    assert said.count("[CustomResourceDefinition]") == len(KINDS)
    wait_for(lambda: hearing(cluster, namespace) == [], 30, "routers to be alone")
    assert {
        obj["kind"] for obj in cluster.get("mroute,mbackend,mrev", "-n", namespace)["items"]
    } == {
        "ModelRoute",
        "ModelBackend",
        "ModelRevision",
    }
    for _ in range(20):
        one_answer(url)


def _installed_again(cluster: Cluster, namespace: str, values: str) -> None:
    elsewhere = ("install", "other", str(CHART), "--namespace", SYSTEM, "--dry-run=server")
    with pytest.raises(ClusterError, match='must equal "other": current value is "weir"'):
        helm(cluster, *elsewhere)
    helm(cluster, *elsewhere, "--take-ownership")
    term = lease(cluster)[1]
    known = status(cluster, "mroute", "assistant", namespace)["stable"]
    with cluster.timed("installed again until routers hear it"):
        helm(
            cluster,
            *("install", "weir", str(CHART), "--namespace", SYSTEM),
            *("--values", "-", "--wait", "--timeout", "3m"),
            given=values,
        )
        led(cluster)
        heard(cluster, namespace)
    assert lease(cluster)[1] == term + 1
    assert settled(cluster, "assistant", namespace)["stable"] == known


def test_crds_that_kubectl_applied_are_adopted(empty: Cluster) -> None:
    _emptied(empty)
    files = [word for path in sorted((ROOT / "crds").glob("*.yaml")) for word in ("-f", str(path))]
    empty.kubectl("apply", "--server-side", *files)
    words = ("install", "weir", str(CHART), "--namespace", SYSTEM, "--dry-run=server")
    with pytest.raises(ClusterError, match="invalid ownership metadata"):
        helm(empty, *words, "--create-namespace")
    install(empty)
    for crd in empty.get(*CRDS)["items"]:
        assert crd["metadata"]["annotations"]["meta.helm.sh/release-name"] == "weir"


def _refused_calls(cluster: Cluster) -> list[str]:
    """Return the operator's calls that its role forbade, as it counted them."""
    path = f"/api/v1/namespaces/{SYSTEM}/services/weir-operator:metrics/proxy/metrics"
    lines = cluster.kubectl("get", "--raw", path).splitlines()
    assert any(line.startswith("weir_operator_api_calls_total{") for line in lines)
    return [line for line in lines if 'code="403"' in line]


# Without the operator.


def test_a_namespace_goes_though_there_is_no_operator(cluster: Cluster) -> None:
    install(cluster)
    name = "goes-alone"
    cluster.kubectl("create", "namespace", name)
    serve(cluster, name)
    untouched_by_the_framework(everything(cluster, name))
    scale(cluster, 0)
    try:
        with cluster.timed("namespace deleted without an operator"):
            cluster.kubectl("delete", "namespace", name, limit_s=GONE_S)
    finally:
        scale(cluster, 1)
        led(cluster)


# Two operators.


def test_the_service_leads_to_the_operator_that_leads(cluster: Cluster, served: str) -> None:
    with cluster.timed("one operator rolled out to two"):
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
    assert _refused_calls(cluster) == []


def _may_act_there_alone(cluster: Cluster, served: str, other: str) -> None:
    for verb, resource in (("list", "modelroutes"), ("create", "deployments.apps")):
        assert may(cluster, verb, resource, "--namespace", served)
        assert not may(cluster, verb, resource, "--namespace", other)
    assert not may(cluster, "get", "secrets", "--namespace", served)
    assert not may(cluster, "list", "secrets", "--namespace", SYSTEM)
    assert not may(cluster, "list", "pods", "--all-namespaces")
    assert may(cluster, "get", "secrets/weir-operator-feed", "--namespace", SYSTEM)
    assert not may(cluster, "get", "secrets/other", "--namespace", SYSTEM)


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


def test_a_labelled_pod_gets_a_router_and_no_other_does(cluster: Cluster, served: str) -> None:
    _accounts(cluster, served)
    with cluster.timed("pod with a sidecar, from apply to 40 answers"):
        said = _said(cluster, _asking("app", "app"), served)
    assert (said["base"], said["heard"]) == ("http://127.0.0.1:8089/v1", True)
    told = said["told"]
    assert {one["x-weir-route"] for one in told} == {f"{served}/assistant"}
    assert {one["x-weir-arm"] for one in told} == {"stable"}
    assert {one["x-weir-tier"] for one in told} == {"small", "large"}
    made = cluster.get("pod", "app", "--namespace", served)
    (router,) = made["spec"]["initContainers"]
    assert (router["name"], router["restartPolicy"]) == ("weir-router", "Always")
    bare = ["python", "-c", "import os; print(list(os.environ))"]
    assert "OPENAI_BASE_URL" not in cluster.run("plain", namespace=served, command=bare)
    assert "initContainers" not in cluster.get("pod", "plain", "--namespace", served)["spec"]


def test_a_sidecar_whose_account_may_not_use_routes_is_refused(
    cluster: Cluster, served: str
) -> None:
    _accounts(cluster, served)
    said = _said(cluster, _asking("uninvited", "stranger"), served)
    # The mounted snapshot is there for whoever may make pods: it answers, and hears nothing new.
    assert not said["heard"]
    log = cluster.kubectl("logs", "uninvited", "-c", "weir-router", "--namespace", served)
    assert f"ServiceAccount {served}/stranger of sidecar" in log
    assert "needs verb `use` on modelroutes.inference.weir.dev" in log
