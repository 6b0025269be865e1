"""A hand-edit is drift; what the API server fills in, drops or writes differently is none."""

import copy

import pytest

from support.rendering import REVISION, backend
from weir_operator.drift import added, drifted, hand_edit, without_additions
from weir_operator.objects import stamped
from weir_operator.workloads import identity_objects

DEPLOYMENT = identity_objects(backend(), revision=REVISION)[2]


def at(obj, path):
    for name in path:
        obj = obj[name]
    return obj


def changed(path, value):
    obj = copy.deepcopy(DEPLOYMENT)
    at(obj, path[:-1])[path[-1]] = value
    return obj


POD = ("spec", "template", "spec")
VLLM = (*POD, "containers", 0)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "replicas"), 7),
        (("metadata", "labels", "inference.weir.dev/identity"), "other"),
        (("metadata", "ownerReferences"), []),
        ((*VLLM, "image"), "evil"),
        ((*VLLM, "args"), ["Qwen/Qwen3-8B"]),
        ((*VLLM, "args"), [*DEPLOYMENT["spec"]["template"]["spec"]["containers"][0]["args"], "x"]),
        ((*VLLM, "env"), []),
        ((*VLLM, "resources", "limits", "nvidia.com/gpu"), "2"),
        ((*VLLM, "startupProbe", "failureThreshold"), 3),
        ((*POD, "automountServiceAccountToken"), True),
        ((*POD, "volumes", 0, "emptyDir", "sizeLimit"), "1Gi"),
        ((*POD, "tolerations"), []),
        (("spec", "strategy", "rollingUpdate", "maxSurge"), "25%"),
    ],
    ids=str,
)
def test_hand_edit_is_drift(path, value):
    assert drifted(changed(path, value), DEPLOYMENT)


@pytest.mark.parametrize(
    "path",
    [(*POD, "automountServiceAccountToken"), (*POD, "enableServiceLinks"), ("spec", "replicas")],
)
def test_false_and_zero_that_the_api_server_keeps_are_missed(path):
    live = copy.deepcopy(DEPLOYMENT)
    del at(live, path[:-1])[path[-1]]
    assert drifted(live, DEPLOYMENT)


def test_what_the_api_server_fills_in_is_none():
    live = copy.deepcopy(DEPLOYMENT)
    live["metadata"] |= {"uid": "u", "resourceVersion": "1", "generation": 1}
    live["status"] = {"replicas": 2}
    pod = at(live, POD)
    pod |= {"dnsPolicy": "ClusterFirst", "restartPolicy": "Always", "schedulerName": "x"}
    pod["containers"][0] |= {"imagePullPolicy": "IfNotPresent"}
    pod["containers"][0]["startupProbe"]["httpGet"]["scheme"] = "HTTP"
    pod["containers"][0]["env"][0]["extra"] = "x"
    assert not drifted(live, DEPLOYMENT)


def test_what_others_add_is_none():
    live = copy.deepcopy(DEPLOYMENT)
    live["metadata"]["labels"]["team"] = "search"
    live["metadata"]["annotations"]["deployment.kubernetes.io/revision"] = "3"
    at(live, POD)["containers"].insert(0, {"name": "mesh", "image": "x"})
    at(live, VLLM[:-1])[1]["env"].insert(0, {"name": "ADDED", "value": "x"})
    assert not drifted(live, DEPLOYMENT)


@pytest.mark.parametrize(
    ("live", "wanted"),
    [
        ({"limits": {"memory": "2Gi", "cpu": "1"}}, {"limits": {"memory": "2048Mi", "cpu": 1}}),
        ({"requests": {"cpu": "500m"}}, {"requests": {"cpu": "0.5"}}),
        ({"sizeLimit": "1000M"}, {"sizeLimit": "1G"}),
        ({"limits": {"memory": "1k"}}, {"limits": {"memory": "1e3"}}),
        ({}, {"emptyDir": {}, "args": [], "env": None, "hostNetwork": False, "value": ""}),
        ({"spec": None}, {"spec": {"publishNotReadyAddresses": False}}),
        ({"ports": [{"port": 1, "protocol": "TCP"}]}, {"ports": [{"port": 1}]}),
    ],
    ids=str,
)
def test_other_spelling_of_the_same_is_none(live, wanted):
    assert not drifted(live, wanted)


@pytest.mark.parametrize(
    ("live", "wanted"),
    [
        ({"limits": {"memory": "2G"}}, {"limits": {"memory": "2Gi"}}),
        ({"limits": {}}, {"limits": {"memory": "2Gi"}}),
        ({"limits": "x"}, {"limits": {"memory": "2Gi"}}),
        ({"sizeLimit": "1Gi"}, {"sizeLimit": "2Gi"}),
        ({"command": ["a", "b"]}, {"command": ["b", "a"]}),
        ({"command": ["a"]}, {"command": []}),
        ({"volumes": "x"}, {"volumes": [{"name": "a"}]}),
        ({"hostNetwork": True}, {"hostNetwork": False}),
    ],
    ids=str,
)
def test_other_values_are_drift(live, wanted):
    assert drifted(live, wanted)


def test_order_of_a_list_with_keys_says_nothing():
    one, other = {"name": "a", "value": "1"}, {"name": "b", "value": "2"}
    assert not drifted({"env": [other, one]}, {"env": [one, other]})


def test_field_that_is_wanted_no_more_is_drift():
    """The field itself is not looked at: the digest of what was applied tells."""
    before = stamped({"metadata": {"name": "a"}, "spec": {"nodeSelector": {"gpu": "l4"}}})
    after = stamped({"metadata": {"name": "a"}, "spec": {}})
    assert drifted(before, after)
    assert not drifted(before, before)


# What is told of a hand-edit.


def edited(path, value, *, writer="kubectl-edit"):
    obj = changed(path, value)
    ours = {"manager": "weir-operator", "operation": "Apply", "time": "2026-01-01T00:00:09Z"}
    status = {"manager": "controllers", "subresource": "status", "time": "2026-01-01T00:00:08Z"}
    theirs = {"manager": writer, "operation": "Update", "time": "2026-01-01T00:00:05Z"}
    obj["metadata"]["managedFields"] = [ours, theirs, status]
    return obj


def test_hand_edit_is_told_with_its_fields_and_its_author():
    told = hand_edit(edited(("spec", "replicas"), 7), DEPLOYMENT, manager="weir-operator")
    assert (told.reason, told.warning) == ("PutBack", True)
    name = DEPLOYMENT["metadata"]["name"]
    assert f"{name}: spec.replicas changed by kubectl-edit, put back; edit the" in told.message


def test_field_of_a_listed_item_is_told_by_the_items_name():
    told = hand_edit(edited((*VLLM, "image"), "evil"), DEPLOYMENT, manager="weir-operator")
    assert "spec.template.spec.containers[vllm].image changed" in told.message


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("env", [*DEPLOYMENT["spec"]["template"]["spec"]["containers"][0]["env"], {"name": "X"}]),
        ("envFrom", [{"configMapRef": {"name": "x"}}]),
    ],
)
def test_what_somebody_adds_to_a_container_is_taken_out(field, value):
    live = edited((*VLLM, field), value)
    place = f"spec.template.spec.containers[vllm].{field}"
    assert added(live, DEPLOYMENT) == [place]
    assert added(DEPLOYMENT, DEPLOYMENT) == []
    told = hand_edit(live, DEPLOYMENT, manager="weir-operator")
    assert f"{place} changed by kubectl-edit" in told.message
    patch = without_additions(DEPLOYMENT)["spec"]["template"]["spec"]
    assert patch["containers"] == DEPLOYMENT["spec"]["template"]["spec"]["containers"]


def test_a_container_that_somebody_adds_is_taken_out():
    live = copy.deepcopy(DEPLOYMENT)
    live["spec"]["template"]["spec"]["initContainers"] = [{"name": "theirs", "image": "x"}]
    assert added(live, DEPLOYMENT) == ["spec.template.spec.initContainers[theirs]"]
    assert without_additions(DEPLOYMENT)["spec"]["template"]["spec"]["initContainers"] is None


def test_many_fields_are_counted():
    obj = edited((*VLLM, "image"), "evil")
    obj["spec"] |= {"replicas": 7, "progressDeadlineSeconds": 1, "revisionHistoryLimit": 9}
    told = hand_edit(obj, DEPLOYMENT, manager="weir-operator")
    assert " and 1 more changed" in told.message


def test_what_weir_itself_wants_anew_is_no_hand_edit():
    before = changed(("spec", "replicas"), 7)
    del before["metadata"]["annotations"]
    wanted = stamped(copy.deepcopy(DEPLOYMENT))
    assert drifted(stamped(before), wanted)
    assert hand_edit(stamped(before), wanted, manager="weir-operator") is None


def test_untouched_object_is_no_hand_edit():
    assert hand_edit(copy.deepcopy(DEPLOYMENT), DEPLOYMENT, manager="weir-operator") is None
