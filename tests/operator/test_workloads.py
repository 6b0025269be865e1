"""A backend becomes a Deployment, a headless Service and a budget, named by its identity."""

import re

import pytest

from support.rendering import REVISION, backend, matches_golden
from weir_core.identity import frozen_backend, identity_of
from weir_operator.drift import drifted
from weir_operator.workloads import (
    WorkloadSettings,
    identity_objects,
    render_template,
    workload_problems,
)

LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
OVERLAY = {
    "metadata": {"labels": {"team": "search"}, "annotations": {"note": "kept"}},
    "spec": {
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "containers": [
            {
                "name": "vllm",
                "env": [{"name": "VLLM_LOGGING_LEVEL", "value": "DEBUG"}],
                "resources": {"requests": {"cpu": "4"}, "limits": {"memory": "64Gi"}},
                "readinessProbe": {"periodSeconds": 2},
            }
        ],
    },
}


def parts(one, **more):
    return {obj["kind"]: obj for obj in identity_objects(one, revision=REVISION, **more)}


def pod(one, **more):
    return parts(one, **more)["Deployment"]["spec"]["template"]["spec"]


def container(one, **more):
    return pod(one, **more)["containers"][0]


@pytest.mark.parametrize(
    ("name", "one"),
    [
        ("backend-gpu", backend()),
        ("backend-overlay", backend(vllm__podTemplate=OVERLAY)),
        ("backend-cpu", backend(vllm__accelerator=None, vllm__weightsCache=None)),
        ("backend-claim", backend(model__uri="pvc://weights/llama/8b", vllm__args=None)),
        ("backend-artefact", backend(model__uri="oci://reg.example/llama", model__revision="v3")),
    ],
)
def test_objects_are_those_of_the_golden_file(name, one):
    assert not workload_problems(one)
    assert matches_golden(name, identity_objects(one, revision=REVISION))


def test_service_is_found_under_the_url_that_revisions_hold():
    one = backend()
    service = parts(one)["Service"]
    port = service["spec"]["ports"][0]["port"]
    assert identity_of(one) == REVISION.name
    assert frozen_backend(one).url == f"http://{service['metadata']['name']}.llm.svc:{port}"


def test_all_belong_to_the_revision_alone_and_block_nothing():
    for obj in parts(backend()).values():
        (owner,) = obj["metadata"]["ownerReferences"]
        assert owner == REVISION.reference(controller=True)
        assert "finalizers" not in obj["metadata"]
        assert "blockOwnerDeletion" not in owner


def test_selectors_meet_the_pods_and_nothing_else():
    made = parts(backend())
    selector = {"inference.weir.dev/identity": REVISION.name}
    assert made["Deployment"]["spec"]["selector"] == {"matchLabels": selector}
    assert made["PodDisruptionBudget"]["spec"]["selector"] == {"matchLabels": selector}
    assert made["Service"]["spec"]["selector"] == selector
    assert selector.items() <= made["Deployment"]["spec"]["template"]["metadata"]["labels"].items()


def test_longest_name_gives_names_and_labels_that_kubernetes_takes():
    one = backend(name="b" * 52)
    owner = REVISION.__class__(**{**_fields(REVISION), "name": identity_of(one)})
    for obj in identity_objects(one, revision=owner):
        told = [obj["metadata"]["name"], *obj["metadata"]["labels"].values()]
        assert all(LABEL.fullmatch(text) for text in told), told


def _fields(struct):
    return {name: getattr(struct, name) for name in struct.__struct_fields__}


def test_startup_probe_gives_the_whole_budget():
    probe = container(backend(vllm__startup={"budget": "7m5s"}))["startupProbe"]
    assert probe["failureThreshold"] * probe["periodSeconds"] == 430
    assert probe["httpGet"]["path"] == "/health"


def test_progress_deadline_leaves_time_for_the_image():
    spec = parts(backend(vllm__startup={"budget": "20m"}))["Deployment"]["spec"]
    assert spec["progressDeadlineSeconds"] == 1_800


def test_server_gets_the_grace_period_less_the_delay():
    one = backend(vllm__drain={"preStopDelay": "15s", "gracePeriod": "120s"})
    assert pod(one)["terminationGracePeriodSeconds"] == 120
    assert container(one)["lifecycle"] == {"preStop": {"sleep": {"seconds": 15}}}
    assert "--shutdown-timeout=100" in container(one)["args"]


def test_no_delay_is_no_hook():
    """Kubernetes before 1.33 refuses a sleep of 0."""
    one = backend(vllm__drain={"preStopDelay": "0s", "gracePeriod": "60s"})
    assert "lifecycle" not in container(one)


def test_devices_are_never_surged():
    rolling = parts(backend())["Deployment"]["spec"]["strategy"]["rollingUpdate"]
    assert rolling == {"maxSurge": 0, "maxUnavailable": 1}


def test_without_devices_no_capacity_is_lost():
    rolling = parts(backend(vllm__accelerator=None))["Deployment"]["spec"]["strategy"]
    assert rolling["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


def test_devices_are_asked_for_by_the_resource_that_the_spec_names():
    one = backend(
        vllm__accelerator={"resourceName": "amd.com/gpu", "count": 4},
        vllm__parallelism={"tensor": 4},
    )
    assert container(one)["resources"] == {
        "limits": {"amd.com/gpu": "4"},
        "requests": {"amd.com/gpu": "4"},
    }
    assert pod(one)["tolerations"] == [
        {"key": "amd.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    ]


@pytest.mark.parametrize("replicas", [0, 1, 3])
def test_budget_lets_one_pod_go_at_a_time(replicas):
    spec = parts(backend(replicas=replicas))["PodDisruptionBudget"]["spec"]
    assert spec["maxUnavailable"] == 1
    assert spec["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_replicas_are_the_specs_unless_told():
    assert parts(backend(replicas=3))["Deployment"]["spec"]["replicas"] == 3
    assert parts(backend(replicas=None))["Deployment"]["spec"]["replicas"] == 1
    assert parts(backend(replicas=3), replicas=0)["Deployment"]["spec"]["replicas"] == 0


def test_pod_passes_the_restricted_standard():
    spec = pod(backend())
    own = spec["containers"][0]["securityContext"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert own == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    assert spec["automountServiceAccountToken"] is False


def test_services_of_the_namespace_set_no_variables():
    """A Service called "vllm" would set VLLM_PORT to a URL, and vLLM would not start."""
    assert pod(backend())["enableServiceLinks"] is False


def test_user_is_left_to_the_image_where_the_chart_says_so():
    spec = pod(backend(), settings=WorkloadSettings(run_as_user=None, run_as_group=None))
    assert spec["securityContext"] == {
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def test_token_is_a_reference_and_no_value():
    (token,) = (v for v in container(backend())["env"] if v["name"] == "HF_TOKEN")
    assert token["valueFrom"] == {"secretKeyRef": {"name": "hf-token", "key": "token"}}
    assert "value" not in token


def test_overlay_is_merged_into_the_container_of_its_name():
    one = backend(vllm__podTemplate=OVERLAY)
    told = container(one)
    assert told["image"] == "vllm/vllm-openai:v0.32.0"
    assert told["readinessProbe"]["periodSeconds"] == 2
    assert told["readinessProbe"]["httpGet"]["path"] == "/health"
    assert told["resources"]["limits"] == {"nvidia.com/gpu": "1", "memory": "64Gi"}
    assert {"HOME", "VLLM_LOGGING_LEVEL"} <= {variable["name"] for variable in told["env"]}


def test_overlays_own_labels_stay_beside_weirs():
    template = render_template(backend(vllm__podTemplate=OVERLAY), identity="x")
    assert template["metadata"]["labels"]["team"] == "search"
    assert template["metadata"]["labels"]["inference.weir.dev/identity"] == "x"


@pytest.mark.parametrize(
    "changes",
    [
        {"replicas": 5},
        {"vllm__startup": {"budget": "30m"}},
        {"vllm__drain": {"gracePeriod": "90s"}},
        {"vllm__sharedMemory": "8Gi"},
        {"vllm__accelerator__nodeSelector": {"gpu": "h100"}},
    ],
    ids=str,
)
def test_neutral_field_changes_objects_and_not_their_name(changes):
    one, other = backend(), backend(**changes)
    assert identity_of(one) == identity_of(other)
    assert drifted(parts(one)["Deployment"], parts(other)["Deployment"])
