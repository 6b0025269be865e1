"""What Helm makes of the chart: least rights, restricted pods, and what values can change."""

import json
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
import yaml

from e2e.cluster import Cluster, ClusterError
from e2e.weir import CHART, SYSTEM, helm
from weir_operator.mark import LEADS
from weir_operator.objects import Owner
from weir_operator.routers import NAME, SNAPSHOT, RouterSettings, router_objects, settings_for
from weir_operator.sidecar import LABEL, admission_policy
from weir_operator.workloads import WorkloadSettings

Thing = dict[str, Any]
API = "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy"
OPERATOR = "weir-operator"
SERVED = {
    "modelroutes.inference.weir.dev": "list watch",
    "modelbackends.inference.weir.dev": "list watch",
    "modelrevisions.inference.weir.dev": "create delete list patch watch",
    "modelroutes/status.inference.weir.dev": "patch",
    "modelbackends/status.inference.weir.dev": "patch",
    "modelrevisions/status.inference.weir.dev": "patch",
    "deployments.apps": "create get list patch watch",
    "poddisruptionbudgets.policy": "create get list patch watch",
    "services.": "create get list patch watch",
    "serviceaccounts.": "list watch",
    f"serviceaccounts. {NAME}": "create delete get patch",
    "configmaps.": "get list watch",
    f"configmaps. {SNAPSHOT}": "create patch",
    "pods.": "get list watch",
    "events.events.k8s.io": "create",
    "localsubjectaccessreviews.authorization.k8s.io": "create",
}
"""All that the operator may do where it serves."""
OWN = {
    "leases.coordination.k8s.io": "create",
    "leases.coordination.k8s.io weir-operator": "get update",
    "secrets.": "create",
    "secrets. weir-operator-feed": "get update",
    "pods.": "list patch",
}
"""All that it may do in its own namespace besides."""


def rendered(cluster: Cluster, values: Mapping[str, Any] | None = None, *words: str) -> list[Thing]:
    """Return all objects of the chart, hooks too, on a cluster that knows the sidecar's policy."""
    said = helm(
        cluster,
        *("template", "weir", str(CHART), "--namespace", SYSTEM, "--values", "-"),
        *("--kube-version", "1.36.0", *(words or ("--api-versions", API))),
        given=json.dumps(values or {}),
    )
    return [obj for obj in yaml.safe_load_all(said) if obj]


def of(objects: list[Thing], kind: str, name: str = "") -> list[Thing]:
    """Return the objects of a kind."""
    return [o for o in objects if o["kind"] == kind and name in ("", o["metadata"]["name"])]


def rights(role: Thing) -> dict[str, str]:
    """Return verbs by resource.group, with the one name that they are bound to."""
    found: dict[str, set[str]] = {}
    for rule in role["rules"]:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                names = "".join(f" {name}" for name in rule.get("resourceNames", ()))
                found.setdefault(f"{resource}.{group}{names}", set()).update(rule["verbs"])
    return {name: " ".join(sorted(verbs)) for name, verbs in found.items()}


def held(objects: list[Thing]) -> dict[str, dict[str, str]]:
    """Return what the operator's account is bound to, by "kind/namespace" of the binding."""
    roles = {(o["kind"], o["metadata"]["name"]): o for o in objects if o["kind"].endswith("Role")}
    found: dict[str, dict[str, str]] = {}
    for binding in [o for o in objects if o["kind"].endswith("RoleBinding")]:
        assert [one["name"] for one in binding["subjects"]] == [OPERATOR]
        at = binding["metadata"].get("namespace", "")
        bound = rights(roles[binding["roleRef"]["kind"], binding["roleRef"]["name"]])
        assert not set(found.setdefault(at, {})) & set(bound)
        found[at] |= bound
    return found


# Rights.


def test_operator_may_do_what_it_does_and_no_more(cluster: Cluster) -> None:
    assert held(rendered(cluster)) == {
        "": {**SERVED, "tokenreviews.authentication.k8s.io": "create"},
        SYSTEM: OWN,
    }


def test_named_namespaces_get_roles_and_the_cluster_only_token_reviews(cluster: Cluster) -> None:
    assert held(rendered(cluster, {"namespaces": ["a", "b"]})) == {
        "": {"tokenreviews.authentication.k8s.io": "create"},
        SYSTEM: OWN,
        "a": SERVED,
        "b": SERVED,
    }


def test_nothing_outside_of_namespaces_where_that_is_asked_for(cluster: Cluster) -> None:
    off = {"crds": {"install": False}, "sidecar": {"enabled": False}}
    objects = rendered(cluster, {"namespaces": ["a"], "rbac": {"clusterScoped": False}, **off})
    assert {o["metadata"].get("namespace") for o in objects} == {"a", SYSTEM}


def test_roles_alone_need_to_know_the_namespaces(cluster: Cluster) -> None:
    with pytest.raises(ClusterError, match="saw false without namespaces, wanted the namespaces"):
        rendered(cluster, {"rbac": {"clusterScoped": False}})


def test_no_role_has_a_wildcard_and_nobody_else_reads_secrets(cluster: Cluster) -> None:
    everything = {"namespaces": ["a"], "serviceMonitor": {"enabled": True}}
    for objects in (rendered(cluster), rendered(cluster, everything)):
        for role in of(objects, "ClusterRole") + of(objects, "Role"):
            assert "*" not in json.dumps(role["rules"])
            if "secrets" in json.dumps(role["rules"]):
                assert (role["kind"], role["metadata"]["namespace"]) == ("Role", SYSTEM)


def test_people_may_use_what_they_may_hand_on(cluster: Cluster) -> None:
    (role,) = of(rendered(cluster), "ClusterRole", "weir-router-use")
    assert rights(role) == {"modelroutes.inference.weir.dev": "use"}
    labels = role["metadata"]["labels"]
    given = {name for name in labels if name.startswith("rbac.authorization")}
    assert given == {"rbac.authorization.k8s.io/aggregate-to-admin"}


# Pods.


def templates(objects: list[Thing]) -> list[Thing]:
    """Return every pod that the chart makes."""
    pods = [one["spec"]["template"] for one in of(objects, "Deployment")]
    return pods + of(objects, "Pod")


@pytest.mark.parametrize("values", [{}, {"runAsUser": None}], ids=["a user", "the image's user"])
def test_every_pod_is_let_into_a_restricted_namespace(
    cluster: Cluster, namespace: str, values: Thing
) -> None:
    level = "pod-security.kubernetes.io/enforce=restricted"
    cluster.kubectl("label", "namespace", namespace, level)
    found = templates(rendered(cluster, values))
    assert len(found) == 2
    for place, template in enumerate(found):
        spec = template["spec"] | {"serviceAccountName": "default"}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"p{place}"}, "spec": spec}
        cluster.kubectl(
            *("create", "--dry-run=server", "--namespace", namespace, "-f", "-"),
            given=json.dumps(pod),
        )
        for container in spec["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True


def test_operator_is_probed_where_it_listens(cluster: Cluster) -> None:
    (deployment,) = of(rendered(cluster), "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    ports = {one["name"] for one in container["ports"]}
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["port"] in ports


def test_service_leads_to_the_operator_that_leads(cluster: Cluster) -> None:
    objects = rendered(cluster)
    (service,) = of(objects, "Service")
    (deployment,) = of(objects, "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= {**labels, LEADS: "true"}.items()
    assert LEADS in service["spec"]["selector"]
    assert LEADS not in labels


def test_a_budget_only_where_there_is_one_to_spare(cluster: Cluster) -> None:
    assert of(rendered(cluster), "PodDisruptionBudget") == []
    (budget,) = of(rendered(cluster, {"replicas": 2}), "PodDisruptionBudget")
    assert budget["spec"]["maxUnavailable"] == 1


# Networks.


def test_routers_and_sidecars_reach_the_feed_and_others_only_the_signs(cluster: Cluster) -> None:
    objects = rendered(cluster)
    (policy,) = of(objects, "NetworkPolicy", OPERATOR)
    (deployment,) = of(objects, "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
    feed, signs = policy["spec"]["ingress"]
    assert ([one["port"] for one in feed["ports"]], "from" in signs) == (["feed"], False)
    assert {one["port"] for one in signs["ports"]} == {"metrics", "health"}
    (who,) = feed["from"]
    (wanted,) = who["podSelector"]["matchExpressions"]
    assert who["namespaceSelector"] == {}
    for router in (router_labels(objects), LABEL):
        assert router[wanted["key"]] in wanted["values"]


def test_only_routers_of_served_namespaces_reach_the_feed(cluster: Cluster) -> None:
    (policy,) = of(rendered(cluster, {"namespaces": ["a"]}), "NetworkPolicy", OPERATOR)
    (who,) = policy["spec"]["ingress"][0]["from"]
    (wanted,) = who["namespaceSelector"]["matchExpressions"]
    assert (wanted["key"], wanted["values"]) == ("kubernetes.io/metadata.name", ["a"])


def settings(objects: list[Thing]) -> RouterSettings:
    """Return what the operator is told of routers, as it reads it."""
    return msgspec.json.decode(environment(objects)["WEIR_ROUTER"], type=RouterSettings)


def environment(objects: list[Thing]) -> dict[str, str]:
    """Return the operator's environment."""
    (deployment,) = of(objects, "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    return {one["name"]: one.get("value", "") for one in container["env"]}


def router_labels(objects: list[Thing]) -> Mapping[str, str]:
    """Return the labels of a router's pods."""
    owner = Owner(api_version="v1", kind="ServiceAccount", name="weir-router", uid="u")
    made = router_objects("n", settings=settings(objects), owner=owner)
    labels: Mapping[str, str] = of(made, "Deployment")[0]["spec"]["template"]["metadata"]["labels"]
    return labels


# Values.


def test_unknown_value_is_refused_by_its_name(cluster: Cluster) -> None:
    with pytest.raises(ClusterError, match=r"router.*'replica'"):
        rendered(cluster, {"router": {"replica": 2}})


@pytest.mark.parametrize(
    "router",
    [{"replicas": 12}, {"overrides": {"a": {"replicas": 12}}}],
    ids=["everywhere", "in one namespace"],
)
def test_more_routers_than_the_most_are_refused(cluster: Cluster, router: Thing) -> None:
    with pytest.raises(ClusterError, match=r"saw 12, wanted at most router\.maxReplicas"):
        rendered(cluster, {"router": router})


def test_no_user_means_no_user(cluster: Cluster) -> None:
    none = {"runAsUser": None}
    objects = rendered(cluster, {"router": none, "podTemplate": {**none, "runAsGroup": None}})
    workloads = msgspec.json.decode(environment(objects)["WEIR_WORKLOADS"], type=WorkloadSettings)
    assert workloads == WorkloadSettings(run_as_user=None, run_as_group=None)
    assert settings(objects).run_as_user is None


def test_a_namespace_can_have_other_routers(cluster: Cluster) -> None:
    own = {"replicas": 4, "nodeSelector": {"pool": "x"}, "service": {"type": "LoadBalancer"}}
    told = settings(rendered(cluster, {"router": {"overrides": {"a": own}}}))
    one = settings_for(told, "a")
    assert (one.replicas, one.node_selector, one.service_type) == (4, {"pool": "x"}, "LoadBalancer")
    assert settings_for(told, "b").replicas == 2
    assert one.image == told.image


RICH: Thing = {
    "router": {
        "image": {"repository": "localhost:5000/r/its", "tag": f"1.0_a@sha256:{'0' * 64}"},
        "env": {"A": 'quoted "text" {{ here }}', "B": "two\nlines", "C": "it's <1&2>"},
        "runAsUser": 1_000_680_000,
    },
    "sidecar": {"resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": 0.5}}},
}


@pytest.mark.parametrize(
    "values",
    [{}, RICH, {"router": {"runAsUser": None}}],
    ids=["defaults", "everything set", "the image's user"],
)
def test_api_server_puts_in_the_sidecar_of_inject(cluster: Cluster, values: Thing) -> None:
    objects = rendered(cluster, values)
    wanted = admission_policy(settings(objects))
    kinds = ("MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding")
    made = [one for kind in kinds for one in of(objects, kind)]
    assert [one["spec"] for one in made] == [one["spec"] for one in wanted]
    assert [one["apiVersion"] for one in made] == [one["apiVersion"] for one in wanted]


def test_sidecars_are_for_served_namespaces_alone(cluster: Cluster) -> None:
    (binding,) = of(rendered(cluster, {"namespaces": ["a"]}), "MutatingAdmissionPolicyBinding")
    (wanted,) = binding["spec"]["matchResources"]["namespaceSelector"]["matchExpressions"]
    assert wanted["values"] == ["a"]


@pytest.mark.parametrize("version", ["v1beta1", ""], ids=["beta", "unknown"])
def test_sidecars_come_in_the_version_that_the_cluster_knows(
    cluster: Cluster, version: str
) -> None:
    known = f"admissionregistration.k8s.io/{version or 'v9'}/MutatingAdmissionPolicy"
    objects = rendered(cluster, {}, "--api-versions", known)
    found = {one["apiVersion"] for one in objects if "MutatingAdmission" in one["kind"]}
    assert found == ({f"admissionregistration.k8s.io/{version}"} if version else set())


def test_monitoring_is_of_operator_and_routers(cluster: Cluster) -> None:
    on = {"enabled": True, "labels": {"release": "prometheus"}}
    objects = rendered(cluster, {"serviceMonitor": on, "alerts": on})
    found = of(objects, "ServiceMonitor") + of(objects, "PrometheusRule")
    assert [one["metadata"]["labels"]["release"] for one in found] == ["prometheus"] * 3
    services = [o for o in router_services(objects) if o["metadata"]["name"] == "weir-router-pods"]
    _, routers = of(objects, "ServiceMonitor")
    (labels,) = [one["metadata"]["labels"] for one in services]
    assert routers["spec"]["selector"]["matchLabels"].items() <= labels.items()
    (port,) = services[0]["spec"]["ports"]
    assert [one["port"] for one in routers["spec"]["endpoints"]] == [port["name"]]
    rules = found[2]["spec"]["groups"][0]["rules"]
    assert len({one["alert"] for one in rules}) == len(rules) > 4


def router_services(objects: list[Thing]) -> list[Thing]:
    """Return the Services of a namespace's routers."""
    owner = Owner(api_version="v1", kind="ServiceAccount", name="weir-router", uid="u")
    return of(router_objects("n", settings=settings(objects), owner=owner), "Service")


@pytest.mark.parametrize(
    "values", [{}, {"replicas": 2, **RICH}], ids=["defaults", "everything set"]
)
def test_api_server_has_nothing_against_the_objects(cluster: Cluster, values: Thing) -> None:
    objects = [
        one for one in rendered(cluster, values) if one["kind"] != "CustomResourceDefinition"
    ]
    for one in objects:
        one["metadata"]["name"] = f"dry-{one['metadata']['name']}"
        if "namespace" in one["metadata"]:
            one["metadata"]["namespace"] = "default"
        if one["kind"] == "MutatingAdmissionPolicyBinding":
            one["spec"]["policyName"] = f"dry-{one['spec']['policyName']}"
        if one["kind"] == "Pod":
            one["spec"]["serviceAccountName"] = "default"
    listed = {"apiVersion": "v1", "kind": "List", "items": objects}
    cluster.kubectl(
        *("create", "--dry-run=server", "--validate=strict", "-f", "-"), given=json.dumps(listed)
    )


def test_linter_has_nothing_against_the_chart(cluster: Cluster) -> None:
    helm(cluster, "lint", "--strict", "--kube-version", "1.36.0", str(CHART))
