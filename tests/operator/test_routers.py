"""A namespace's routers: what they run with, and that they go with the last route."""

import base64

import msgspec
import pytest

from support.rendering import matches_golden
from weir_core.errors import Problem
from weir_operator.drift import drifted
from weir_operator.objects import Owner
from weir_operator.routers import (
    MAX_SNAPSHOT,
    RouterSettings,
    anchor,
    grace_s,
    router_objects,
    settings_for,
    snapshot_object,
)

SETTINGS = RouterSettings(image="weir/router:1", feed="weir-operator.weir-system.svc:8443")
ACCOUNT = Owner(api_version="v1", kind="ServiceAccount", name="weir-router", uid="u-account")


def route(name):
    version = "inference.weir.dev/v1alpha1"
    return Owner(api_version=version, kind="ModelRoute", name=name, uid=f"u-{name}")


def parts(settings=SETTINGS, **more):
    made = router_objects("llm", settings=settings, owner=ACCOUNT, **more)
    return {f"{obj['kind']}/{obj['metadata']['name']}": obj for obj in made}


def deployment(settings=SETTINGS, **more):
    return parts(settings, **more)["Deployment/weir-router"]["spec"]


def pod(settings=SETTINGS, **more):
    return deployment(settings, **more)["template"]["spec"]


def container(settings=SETTINGS):
    return pod(settings)["containers"][0]


def environment(settings=SETTINGS):
    return {
        one["name"]: one.get("value", one.get("valueFrom")) for one in container(settings)["env"]
    }


def test_objects_are_those_of_the_golden_file():
    snapshot = snapshot_object("llm", packed=b"\x00packed", authority="PEM\n", owner=ACCOUNT)
    made = router_objects("llm", settings=SETTINGS, owner=ACCOUNT, deadline_ms=30_000)
    assert matches_golden("routers", [anchor("llm", [route("assistant")]), snapshot, *made])


def test_anchor_is_owned_by_every_route_and_controlled_by_none():
    owners = anchor("llm", [route("b"), route("a")])["metadata"]["ownerReferences"]
    assert [owner["name"] for owner in owners] == ["a", "b"]
    assert not any({"controller", "blockOwnerDeletion"} & owner.keys() for owner in owners)


def test_all_else_belongs_to_the_anchor_and_has_no_finalizer():
    snapshot = snapshot_object("llm", packed=b"x", authority="PEM", owner=ACCOUNT)
    for obj in (snapshot, *parts().values()):
        assert obj["metadata"]["ownerReferences"] == [ACCOUNT.reference(controller=True)]
        assert "finalizers" not in obj["metadata"]


def test_another_route_changes_the_anchor_and_nothing_else():
    one, two = anchor("llm", [route("a")]), anchor("llm", [route("a"), route("b")])
    assert drifted(one, two)
    assert drifted(two, one)
    assert parts() == parts()


def test_router_has_no_rights():
    spec = pod()
    tokens = [
        source["serviceAccountToken"]
        for volume in spec["volumes"]
        for source in volume.get("projected", {}).get("sources", ())
    ]
    assert spec["automountServiceAccountToken"] is False
    assert anchor("llm", [])["automountServiceAccountToken"] is False
    assert [token["audience"] for token in tokens] == ["weir"]


def test_router_passes_the_restricted_standard_on_a_read_only_root():
    assert container()["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "runAsUser": 65_532,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def test_user_is_left_to_the_image_where_the_chart_says_so():
    settings = msgspec.structs.replace(SETTINGS, run_as_user=None)
    assert "runAsUser" not in container(settings)["securityContext"]


def test_router_is_told_where_everything_is():
    told, mounts = environment(), {m["mountPath"]: m for m in container()["volumeMounts"]}
    assert told["WEIR_FEED"] == "weir-operator.weir-system.svc:8443"
    assert told["WEIR_POD_UID"] == {"fieldRef": {"fieldPath": "metadata.uid"}}
    assert told["WEIR_TOKEN_FILE"] == "/var/run/secrets/weir/token"
    for name in ("WEIR_SNAPSHOT_DIR", "WEIR_KEYS_DIR", "WEIR_STATE_DIR"):
        assert told[name] in mounts
    assert "readOnly" not in mounts[told["WEIR_STATE_DIR"]]


def test_router_finds_its_like_by_the_headless_service():
    spec = parts()["Service/weir-router-pods"]["spec"]
    (port,) = spec["ports"]
    assert environment()["WEIR_PEERS"] == f"weir-router-pods:{port['port']}"
    # A headless name leads to the pod's own port, and to routers that end: they still take labels.
    assert port["port"] in [one["containerPort"] for one in container()["ports"]]
    assert (spec["clusterIP"], spec["publishNotReadyAddresses"]) == ("None", True)


def test_router_starts_without_snapshot_and_keys():
    sources = {volume["name"]: volume for volume in pod()["volumes"]}
    assert sources["weir-snapshot"]["configMap"]["optional"] is True
    assert sources["weir-keys"]["secret"] == {"secretName": "weir-router-keys", "optional": True}


def test_own_variables_come_after_weirs():
    settings = msgspec.structs.replace(SETTINGS, env={"WEIR_LOG_LEVEL": "debug"})
    assert environment(settings)["WEIR_LOG_LEVEL"] == "debug"


def test_new_router_is_ready_before_an_old_one_goes():
    assert deployment()["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


def test_selectors_meet_the_pods_of_the_deployment_alone():
    selector = {"inference.weir.dev/router": "deployment"}
    made = parts()
    assert made["Service/weir-router"]["spec"]["selector"] == selector
    assert made["Service/weir-router-pods"]["spec"]["selector"] == selector
    assert made["PodDisruptionBudget/weir-router"]["spec"]["selector"]["matchLabels"] == selector
    assert deployment()["selector"] == {"matchLabels": selector}
    assert selector.items() <= deployment()["template"]["metadata"]["labels"].items()


def test_own_pod_labels_do_not_take_weirs_away():
    settings = msgspec.structs.replace(
        SETTINGS, pod_labels={"inference.weir.dev/router": "mine", "team": "a"}
    )
    labels = deployment(settings)["template"]["metadata"]["labels"]
    assert labels["inference.weir.dev/router"] == "deployment"
    assert labels["team"] == "a"


@pytest.mark.parametrize(
    ("deadline_ms", "grace"),
    [(0, 125), (30_000, 125), (110_000, 125), (110_001, 250), (600_000, 1_000)],
)
def test_grace_period_is_longer_than_the_longest_deadline(deadline_ms, grace):
    assert grace_s(SETTINGS, deadline_ms) == grace
    assert pod(deadline_ms=deadline_ms)["terminationGracePeriodSeconds"] == grace


def test_deadline_moved_a_little_replaces_no_router():
    assert parts(deadline_ms=30_000) == parts(deadline_ms=45_000)


def test_no_delay_is_no_hook():
    assert "lifecycle" in container()
    assert "lifecycle" not in container(msgspec.structs.replace(SETTINGS, pre_stop_s=0))


def test_placement_is_the_charts():
    settings = msgspec.structs.replace(
        SETTINGS,
        node_selector={"pool": "cpu"},
        tolerations=({"key": "a"},),
        priority_class_name="high",
        image_pull_secrets=({"name": "registry"},),
    )
    told = pod(settings)
    assert told["nodeSelector"] == {"pool": "cpu"}
    assert told["tolerations"] == [{"key": "a"}]
    assert told["priorityClassName"] == "high"
    assert told["imagePullSecrets"] == [{"name": "registry"}]


# Settings.


def test_namespace_may_have_values_of_its_own():
    settings = msgspec.structs.replace(SETTINGS, overrides={"llm": {"replicas": 5}})
    assert deployment(settings)["replicas"] == 5
    assert settings_for(settings, "other").replicas == 2


def test_unknown_override_is_told_by_its_name():
    settings = msgspec.structs.replace(SETTINGS, overrides={"llm": {"replica": 5}})
    with pytest.raises(msgspec.ValidationError, match="replica"):
        settings_for(settings, "llm")


def test_settings_are_read_as_the_chart_writes_them():
    told = {"image": "i", "feed": "f:1", "tolerations": [{"key": "a"}], "image_pull_secrets": []}
    assert msgspec.convert(told, RouterSettings).tolerations == ({"key": "a"},)


# The snapshot.


def test_snapshot_is_one_binary_key_beside_the_authority():
    obj = snapshot_object("llm", packed=b"\x00\xff", authority="PEM", owner=ACCOUNT)
    assert obj["metadata"]["name"] == "weir-router-snapshot"
    assert base64.b64decode(obj["binaryData"]["snapshot"]) == b"\x00\xff"
    assert obj["data"] == {"ca.crt": "PEM"}


def test_snapshot_fits_what_kubernetes_takes():
    fits = snapshot_object("llm", packed=bytes(MAX_SNAPSHOT - 3), authority="PEM", owner=ACCOUNT)
    problem = snapshot_object("llm", packed=bytes(MAX_SNAPSHOT - 2), authority="PEM", owner=ACCOUNT)
    assert not isinstance(fits, Problem)
    assert problem.reason == "SnapshotTooLarge"
    assert "1,048,577 bytes" in problem.sentence()
