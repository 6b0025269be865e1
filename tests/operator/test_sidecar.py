"""The router in an application's pod, by hand or by the API server, from one template."""

import re

import cel as engine
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.rendering import matches_golden
from weir_operator.routers import RouterSettings
from weir_operator.sidecar import admission_policy, base_url, cel, sidecar, sidecar_patch

SETTINGS = RouterSettings(image="weir/router:1", feed="weir-operator.weir-system.svc:8443")
POD = {
    "metadata": {"name": "app", "labels": {"app": "a"}},
    "spec": {
        "initContainers": [{"name": "migrate", "image": "i"}],
        "containers": [
            {"name": "plain", "image": "i"},
            {"name": "told", "image": "i", "env": [{"name": "OPENAI_BASE_URL", "value": "own"}]},
            {"name": "other", "image": "i", "env": [{"name": "A", "value": "1"}]},
        ],
        "volumes": [{"name": "data", "emptyDir": {}}],
    },
}
MADE, VOLUMES = sidecar(SETTINGS)
VALUES = st.recursive(
    st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
)


def mutations():
    policy = admission_policy(SETTINGS)[0]["spec"]
    return [one["jsonPatch"]["expression"] for one in policy["mutations"]]


def test_pod_with_the_router_is_that_of_the_golden_file():
    assert matches_golden("sidecar-pod", [sidecar_patch(POD, SETTINGS)])


def test_policy_is_that_of_the_golden_file():
    assert matches_golden("sidecar-policy", admission_policy(SETTINGS))


def test_router_starts_before_anything_else_of_the_pod():
    first = sidecar_patch(POD, SETTINGS)["spec"]["initContainers"][0]
    assert first["name"] == "weir-router"
    assert first["restartPolicy"] == "Always"
    assert "startupProbe" in first


def test_router_never_takes_its_application_out_of_service():
    assert "readinessProbe" not in MADE


def test_router_is_reached_from_within_the_pod_alone():
    told = {one["name"]: one.get("value") for one in MADE["env"]}
    assert told["WEIR_SIDECAR"] == "1"
    assert base_url()["value"] == f"http://{told['WEIR_HOST']}:{told['WEIR_PORT']}/v1"
    assert told["WEIR_HOST"] == "127.0.0.1"
    assert "ports" not in MADE


def test_probes_ask_where_the_router_is_told_to_answer():
    told = {one["name"]: one.get("value") for one in MADE["env"]}
    ports = {MADE[probe]["httpGet"]["port"] for probe in ("startupProbe", "livenessProbe")}
    assert ports == {int(told["WEIR_MANAGEMENT_PORT"])}


def test_sidecar_carries_no_keys():
    assert all("secret" not in volume for volume in VOLUMES)
    assert "WEIR_KEYS_DIR" not in {one["name"] for one in MADE["env"]}


def test_every_mount_has_its_volume():
    assert {m["name"] for m in MADE["volumeMounts"]} == {v["name"] for v in VOLUMES}


def test_application_is_told_where_its_router_is_unless_it_says_so_itself():
    containers = sidecar_patch(POD, SETTINGS)["spec"]["containers"]
    told = [{one["name"]: one["value"] for one in c["env"]} for c in containers]
    url = "http://127.0.0.1:8089/v1"
    assert told == [
        {"OPENAI_BASE_URL": url},
        {"OPENAI_BASE_URL": "own"},
        {"A": "1", "OPENAI_BASE_URL": url},
    ]


def test_pod_is_labelled_so_that_the_operator_knows_it():
    labels = sidecar_patch(POD, SETTINGS)["metadata"]["labels"]
    assert labels == {"app": "a", "inference.weir.dev/router": "sidecar"}


def test_once_is_as_good_as_twice():
    once = sidecar_patch(POD, SETTINGS)
    assert sidecar_patch(once, SETTINGS) == once


def test_router_of_older_settings_is_replaced():
    old = sidecar_patch(POD, RouterSettings(image="weir/router:0", feed="elsewhere:1"))
    assert sidecar_patch(old, SETTINGS) == sidecar_patch(POD, SETTINGS)


def test_pod_itself_is_not_changed():
    before = repr(POD)
    sidecar_patch(POD, SETTINGS)
    assert repr(POD) == before


def test_template_without_lists_or_labels_is_taken():
    patched = sidecar_patch({"spec": {"containers": [{"name": "a"}]}}, SETTINGS)
    assert patched["metadata"]["labels"] == {"inference.weir.dev/router": "sidecar"}
    assert len(patched["spec"]["volumes"]) == len(VOLUMES)


# The policy.


def test_policy_holds_for_labelled_pods_alone_and_fails_shut():
    policy, binding = admission_policy(SETTINGS)
    constraints = policy["spec"]["matchConstraints"]
    assert constraints["objectSelector"] == {
        "matchLabels": {"inference.weir.dev/router": "sidecar"}
    }
    assert constraints["resourceRules"][0]["resources"] == ["pods"]
    assert policy["spec"]["failurePolicy"] == "Fail"
    assert binding["spec"]["policyName"] == policy["metadata"]["name"]


@pytest.mark.parametrize("version", ["admissionregistration.k8s.io/v1", "a.b/v1beta1"])
def test_policy_is_of_the_version_that_the_cluster_knows(version):
    made = admission_policy(SETTINGS, version=version)
    assert {obj["apiVersion"] for obj in made} == {version}


def values_in(expression):
    """Return every value that an expression patches in, read by a CEL engine."""
    found = re.findall(r"value: (dyn\(.*\))\}(?:,$|\)?$)", expression, re.MULTILINE)
    return [engine.evaluate(one, {}) for one in found]


def test_policy_puts_in_the_same_container_and_volumes_as_inject():
    assert values_in(mutations()[0]) == [MADE, *VOLUMES]


def test_policy_tells_applications_the_same_url_as_inject():
    assert values_in(mutations()[1]) == [base_url()]


@pytest.mark.parametrize(
    ("pod", "wanted"),
    [
        ({"spec": {}}, True),
        ({"spec": {"initContainers": [{"name": "migrate"}]}}, True),
        ({"spec": {"initContainers": [{"name": "a"}, {"name": "weir-router"}]}}, False),
    ],
)
def test_policy_leaves_pods_alone_that_have_a_router(pod, wanted):
    (condition,) = admission_policy(SETTINGS)[0]["spec"]["matchConditions"]
    assert engine.evaluate(condition["expression"], {"object": pod}) is wanted


@given(VALUES)
def test_data_is_the_same_in_cel(value):
    assert engine.evaluate(cel(value), {}) == value
