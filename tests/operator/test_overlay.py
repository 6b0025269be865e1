"""What a podTemplate may change, and what it may not reach for."""

import pytest

from weir_operator.overlay import laid_over, overlay_problems

TITLE = "ModelBackend llm/x"
APPARMOR = "container.apparmor.security.beta.kubernetes.io"


def refusals(template, **more):
    return {one.field: one for one in overlay_problems(template, title=TITLE, at="t", **more)}


def in_pod(**spec):
    return {"spec": spec}


def in_container(name="vllm", **fields):
    return in_pod(containers=[{"name": name, **fields}])


def volume(**source):
    return in_pod(volumes=[{"name": "v", **source}])


REACHING = [
    ("t.spec.serviceAccountName", "ServiceAccount", in_pod(serviceAccountName="admin")),
    ("t.spec.serviceAccount", "ServiceAccount", in_pod(serviceAccount="admin")),
    (
        "t.spec.automountServiceAccountToken",
        "ServiceAccount",
        in_pod(automountServiceAccountToken=True),
    ),
    (
        "t.spec.volumes[0].projected.sources[0].serviceAccountToken",
        "ServiceAccount",
        volume(projected={"sources": [{"serviceAccountToken": {"path": "t"}}]}),
    ),
    ("t.spec.hostNetwork", "HostNamespaces", in_pod(hostNetwork=True)),
    ("t.spec.hostPID", "HostNamespaces", in_pod(hostPID=True)),
    ("t.spec.hostIPC", "HostNamespaces", in_pod(hostIPC=True)),
    (
        "t.spec.containers[0].ports[0].hostPort",
        "HostNamespaces",
        in_container(ports=[{"containerPort": 1, "hostPort": 1}]),
    ),
    ("t.spec.volumes[0].hostPath", "HostPath", volume(hostPath={"path": "/"})),
    ("t.spec.volumes[0].nfs", "HostPath", volume(nfs={"server": "x", "path": "/"})),
    ("t.spec.volumes[0].secret", "Secrets", volume(secret={"secretName": "other"})),
    ("t.spec.volumes[0].csi", "Secrets", volume(csi={"driver": "secrets-store.csi.k8s.io"})),
    (
        "t.spec.volumes[0].projected.sources[0].secret",
        "Secrets",
        volume(projected={"sources": [{"secret": {"name": "other"}}]}),
    ),
    (
        "t.spec.containers[0].env[0].valueFrom.secretKeyRef",
        "Secrets",
        in_container(
            env=[{"name": "A", "valueFrom": {"secretKeyRef": {"name": "other", "key": "k"}}}]
        ),
    ),
    (
        "t.spec.containers[0].envFrom[0].secretRef",
        "Secrets",
        in_container("more", envFrom=[{"secretRef": {"name": "other"}}]),
    ),
    (
        "t.spec.initContainers[0].envFrom[0].secretRef",
        "Secrets",
        in_pod(initContainers=[{"name": "i", "envFrom": [{"secretRef": {"name": "other"}}]}]),
    ),
    (
        "t.spec.containers[0].securityContext.privileged",
        "Privileged",
        in_container(securityContext={"privileged": True}),
    ),
    (
        "t.spec.containers[0].securityContext.allowPrivilegeEscalation",
        "Privileged",
        in_container("more", securityContext={"allowPrivilegeEscalation": True}),
    ),
    (
        "t.spec.containers[0].securityContext.capabilities.add",
        "Privileged",
        in_container(securityContext={"capabilities": {"add": ["SYS_ADMIN"]}}),
    ),
    (
        "t.spec.securityContext.seccompProfile.type",
        "Privileged",
        in_pod(securityContext={"seccompProfile": {"type": "Unconfined"}}),
    ),
    (
        "t.spec.securityContext.sysctls",
        "Privileged",
        in_pod(securityContext={"sysctls": [{"name": "net.x", "value": "1"}]}),
    ),
    (
        "t.metadata.annotations",
        "Privileged",
        {"metadata": {"annotations": {f"{APPARMOR}/vllm": "unconfined"}}},
    ),
]


@pytest.mark.parametrize(("field", "permission", "template"), REACHING)
def test_what_reaches_beyond_is_refused_unless_the_chart_allows_it(field, permission, template):
    told = refusals(template)
    assert list(told) == [field]
    assert told[field].reason == "NotAllowed"
    assert permission in told[field].wanted
    assert told[field].object == TITLE
    assert refusals(template, allow=frozenset({permission})) == {}


@pytest.mark.parametrize(("field", "permission", "template"), REACHING)
def test_one_permission_is_no_other(field, permission, template):
    others = {"HostNamespaces", "HostPath", "Privileged", "Secrets", "ServiceAccount"}
    assert field in refusals(template, allow=frozenset(others - {permission}))


OWNED = [
    ("t.spec.containers[0].image", in_container(image="x")),
    ("t.spec.containers[0].args", in_container(args=["--port=1"])),
    ("t.spec.containers[0].env[0]", in_container(env=[{"name": "VLLM_API_KEY", "value": "x"}])),
    (
        "t.spec.containers[0].env[0]",
        in_container(env=[{"name": "VLLM_SERVER_DEV_MODE", "value": "1"}]),
    ),
    ("t.spec.containers[0].env[0]", in_container(env=[{"name": "HF_TOKEN", "value": "x"}])),
    ("t.metadata.labels", {"metadata": {"labels": {"inference.weir.dev/identity": "x"}}}),
    ("t.metadata.labels", {"metadata": {"labels": {"app.kubernetes.io/managed-by": "me"}}}),
    ("t.metadata.name", {"metadata": {"name": "x"}}),
    ("t.replicas", {"replicas": 3}),
    ("t.spec", {"spec": []}),
    (
        "t.spec.containers[0].resources.limits.memory",
        in_container(resources={"limits": {"memory": "128Mb", "cpu": 1.5}}),
    ),
    (
        "t.spec.containers[0].resources.requests.cpu",
        in_container("exporter", resources={"requests": {"cpu": "-1"}}),
    ),
    ("t.spec.volumes[0].emptyDir.sizeLimit", volume(emptyDir={"sizeLimit": "lots"})),
    ("t.spec.containers", in_pod(containers={})),
    ("t.spec.containers[0]", in_pod(containers=[{"image": "x"}])),
    ("t.spec.volumes[0]", in_pod(volumes=["x"])),
]


@pytest.mark.parametrize(("field", "template"), OWNED)
def test_what_weir_hangs_on_is_refused_whatever_the_chart_allows(field, template):
    allow = frozenset({"HostNamespaces", "HostPath", "Privileged", "Secrets", "ServiceAccount"})
    assert list(refusals(template, allow=allow)) == [field]


@pytest.mark.parametrize(
    "template",
    [
        {},
        in_pod(hostNetwork=False, containers=None, volumes=None),
        in_pod(imagePullSecrets=[{"name": "registry"}], priorityClassName="high"),
        in_container(command=["my-vllm"], env=[{"name": "A", "value": "b"}], workingDir="/x"),
        in_container("exporter", image="x", args=["--port=1"], env=[{"name": "HF_TOKEN"}]),
        in_container(securityContext={"runAsUser": 0, "allowPrivilegeEscalation": False}),
        in_container(resources={"requests": {"cpu": "100m", "memory": "1.5Gi", "a/b": 1}}),
        volume(emptyDir={"sizeLimit": "1e9"}),
        volume(configMap={"name": "templates"}),
        volume(persistentVolumeClaim={"claimName": "c"}),
        volume(projected={"sources": [{"configMap": {"name": "c"}}]}),
        {"metadata": {"labels": {"team": "a"}, "annotations": {"b": "c"}}},
    ],
    ids=str,
)
def test_ordinary_overlay_is_taken(template):
    assert refusals(template) == {}


def test_secret_that_the_backend_gives_already_is_no_other():
    template = volume(secret={"secretName": "hf-token"})
    assert refusals(template, secrets=frozenset({"hf-token"})) == {}


def test_all_refusals_are_told_at_once():
    template = in_pod(hostNetwork=True, containers=[{"name": "vllm", "image": "x"}])
    assert len(refusals(template)) == 2


# Laying over.


def test_items_of_a_list_with_keys_are_merged_one_by_one():
    base = {"containers": [{"name": "vllm", "image": "a", "env": [{"name": "A", "value": "1"}]}]}
    overlay = {
        "containers": [
            {"name": "exporter", "image": "b"},
            {"name": "vllm", "env": [{"name": "A", "value": "2"}, {"name": "B", "value": "3"}]},
        ]
    }
    assert laid_over(base, overlay) == {
        "containers": [
            {
                "name": "vllm",
                "image": "a",
                "env": [{"name": "A", "value": "2"}, {"name": "B", "value": "3"}],
            },
            {"name": "exporter", "image": "b"},
        ]
    }


def test_ports_are_known_by_number_and_protocol():
    base = {"ports": [{"containerPort": 1, "protocol": "TCP", "name": "a"}]}
    overlay = {
        "ports": [{"containerPort": 1, "name": "b"}, {"containerPort": 1, "protocol": "UDP"}]
    }
    assert [port.get("name") for port in laid_over(base, overlay)["ports"]] == ["b", None]


def test_list_without_keys_is_replaced():
    assert laid_over({"command": ["a", "b"]}, {"command": ["c"]}) == {"command": ["c"]}


def test_tolerations_are_added():
    ours, theirs = {"key": "nvidia.com/gpu"}, {"key": "spot"}
    told = laid_over({"tolerations": [ours]}, {"tolerations": [theirs, ours]})
    assert told == {"tolerations": [ours, theirs]}


def test_null_takes_a_field_away():
    base = {"securityContext": {"runAsUser": 1, "runAsNonRoot": True}}
    assert laid_over(base, {"securityContext": {"runAsUser": None}}) == {
        "securityContext": {"runAsNonRoot": True}
    }


def test_null_within_what_is_new_leaves_nothing_behind():
    assert laid_over({}, {"a": {"b": None, "c": [{"d": None}]}}) == {"a": {"c": [{}]}}


def test_neither_side_is_changed():
    base = {"a": {"b": [1]}, "volumes": [{"name": "x", "emptyDir": {}}]}
    overlay = {"a": {"c": 2}, "volumes": [{"name": "x", "emptyDir": {"medium": "Memory"}}]}
    laid_over(base, overlay)
    assert base == {"a": {"b": [1]}, "volumes": [{"name": "x", "emptyDir": {}}]}
    assert overlay["volumes"] == [{"name": "x", "emptyDir": {"medium": "Memory"}}]
