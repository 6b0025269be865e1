"""The chart's life on a real cluster: from nothing to nothing, and routers answer throughout."""

import contextlib
import json
import time
from collections.abc import Iterator

import openai
import pytest

from e2e.charted import RESTRICTED, changed, heard, hearing, refused_calls, with_router
from e2e.cluster import ROOT, Cluster, ClusterError, wait_for
from e2e.faults import lease, led, name_of, pods, pods_at_all, scale, without_operator
from e2e.weir import CHART, SYSTEM, Thing, helm, install, serve, settled, status, traffic
from weir_lab import questions

KINDS = ("modelroutes", "modelbackends", "modelrevisions")
CRDS = [f"crd/{kind}.inference.weir.dev" for kind in KINDS]
MADE = "app.kubernetes.io/managed-by=weir"
GONE_S = 120
"""Kubernetes looks at an ending namespace again after half of its pods' longest grace period."""


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


def lives(cluster: Cluster, namespace: str) -> dict[str, tuple[str, int]]:
    """Return uid and restarts of every pod of Weir's, by its name."""
    return {
        name_of(pod): (
            pod["metadata"]["uid"],
            sum(one["restartCount"] for one in pod["status"]["containerStatuses"]),
        )
        for pod in pods(cluster, namespace, MADE)
    }


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


def _not_namespaced(cluster: Cluster, namespace: str) -> list[Thing]:
    """Return what belongs to no namespace and the operator might have written to."""
    of_chart = "clusterroles,clusterrolebindings,mutatingadmissionpolicies"
    found: list[Thing] = cluster.get(*CRDS)["items"]
    found += cluster.get(of_chart, "--selector", "app.kubernetes.io/name=weir")["items"]
    return [*found, *(cluster.get("namespace", one) for one in (namespace, SYSTEM))]


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
    assert "kopf" not in json.dumps(_not_namespaced(empty, namespace))
    assert refused_calls(empty) == []


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
    assert lease(cluster)[1] > term
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


# Routes and backends that go.


@pytest.mark.parametrize("alone", [False, True], ids=["operator", "no operator"])
def test_what_was_deleted_leaves_nothing_behind(weir: Cluster, namespace: str, alone: bool) -> None:
    before = {_title(one) for one in everything(weir, namespace)}
    before |= {"ConfigMap kube-root-ca.crt", "ServiceAccount default", "ConfigMap small-cal"}
    serve(weir, namespace)
    assert {_title(one) for one in everything(weir, namespace) if _is_ours(one)}
    with without_operator(weir) if alone else contextlib.nullcontext():
        with weir.timed("routes and backends deleted until nothing is left"):
            weir.kubectl("delete", "mroute,mbackend", "--all", "-n", namespace)
            wait_for(lambda: not _left(weir, namespace, before), 120, "the collector")
        time.sleep(10)
        assert _left(weir, namespace, before) == set()


def _left(cluster: Cluster, namespace: str, before: set[str]) -> set[str]:
    return {_title(one) for one in everything(cluster, namespace)} - before


def _title(obj: Thing) -> str:
    return f"{obj['kind']} {obj['metadata']['name']}"


def _is_ours(obj: Thing) -> bool:
    return (obj["metadata"].get("labels") or {}).get(MADE.partition("=")[0]) == "weir"


# Without the operator.


def test_a_namespace_goes_though_there_is_no_operator(cluster: Cluster) -> None:
    name = "goes-alone"
    # Kubernetes looks again after half of the longest grace period, and that of routers is long.
    install(cluster, with_router(overrides={name: {"graceSeconds": 10}}))
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
