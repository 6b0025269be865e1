"""What a pod's status says of a server that is not ready, and what to do about it."""

import pytest

from support.thinking import SPACE, Space, deployment
from weir_operator.trouble import load_s, loading, trouble

IDENTITY = "small-0123456789"
BEGAN = "2026-05-04T10:00:00Z"
PROBE = {"periodSeconds": 10, "failureThreshold": 2}


def pod(*, statuses=(), conditions=(), init=(), probe=PROBE):
    return {
        "kind": "Pod",
        "metadata": {
            "namespace": SPACE,
            "name": "small-x",
            "uid": "u",
            "labels": {"inference.weir.dev/identity": IDENTITY},
        },
        "spec": {
            "containers": [{"name": "vllm", "startupProbe": probe}],
            "terminationGracePeriodSeconds": 15,
        },
        "status": {
            "startTime": BEGAN,
            "conditions": list(conditions),
            "containerStatuses": list(statuses),
            "initContainerStatuses": list(init),
        },
    }


def waiting(reason, message=""):
    state = {"waiting": {"reason": reason, "message": message}}
    return {"name": "vllm", "ready": False, "state": state}


def ended(code, *, seconds=1, **said):
    end = f"2026-05-04T10:{seconds // 60:02d}:{seconds % 60:02d}Z"
    last = {"exitCode": code, "startedAt": BEGAN, "finishedAt": end, **said}
    return {"name": "vllm", "ready": False, "started": False, "lastState": {"terminated": last}}


def unscheduled(message):
    return {"type": "PodScheduled", "status": "False", "message": message}


def world(*objects):
    space = Space()
    for obj in objects:
        space.put(obj)
    return space.world()


@pytest.mark.parametrize(
    ("status", "reason", "wanted"),
    [
        (waiting("ErrImagePull", "not found"), "ImagePullBackOff", "correct spec.vllm.image"),
        (waiting("ImagePullBackOff", "not found"), "ImagePullBackOff", "not found"),
        (waiting("ErrImageNeverPull"), "ErrImageNeverPull", "correct spec.vllm.image"),
        (
            waiting("CreateContainerConfigError", 'secret "hf" not found'),
            "CreateContainerConfigError",
            'secret "hf" not found; make what is missing in this namespace',
        ),
        (ended(1, message="a\nno weights"), "CrashLoopBackOff", "exit code 1: no weights"),
        (
            ended(1),
            "CrashLoopBackOff",
            f"`kubectl logs -n {SPACE} small-x --previous`; correct",
        ),
        (ended(137, reason="OOMKilled"), "OOMKilled", "give it more memory"),
        (ended(137, seconds=22), "StartupBudgetExceeded", "did not answer within 20 s"),
        (ended(137, seconds=22), "StartupBudgetExceeded", "raise spec.vllm.startup.budget"),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)
def test_container_that_does_not_run_is_told_with_what_to_do(status, reason, wanted):
    told = trouble(world(pod(statuses=[status])), IDENTITY)
    assert told[0] == reason
    assert wanted in told[1]


@pytest.mark.parametrize("seconds", [19, 51, 3_000])
def test_server_that_answered_once_or_ended_early_was_not_too_slow(seconds):
    told = trouble(world(pod(statuses=[ended(137, seconds=seconds)])), IDENTITY)
    assert told[0] == "CrashLoopBackOff"


def test_pod_without_a_node_says_what_it_lacks_and_that_it_goes_on_by_itself():
    said = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    told = trouble(world(pod(conditions=[unscheduled(said)])), IDENTITY)
    assert told[0] == "Unschedulable"
    assert "3 Insufficient nvidia.com/gpu; it starts by itself" in told[1]


def test_volume_that_is_missing_is_no_matter_of_nodes():
    said = '0/1 nodes are available: persistentvolumeclaim "absent" not found.'
    told = trouble(world(pod(conditions=[unscheduled(said)])), IDENTITY)
    assert told[0] == "Unschedulable"
    assert '"absent" not found; make that PersistentVolumeClaim' in told[1]


def test_container_that_runs_first_is_told_of_too():
    found = pod(init=[waiting("ErrImagePull", "gone")], statuses=[waiting("PodInitializing")])
    assert trouble(world(found), IDENTITY)[0] == "ImagePullBackOff"


def test_pods_that_cannot_be_made_are_told_of():
    refused = deployment(IDENTITY, ready=0)
    message = 'exceeded quota: "gpus"'
    refused["status"]["conditions"] = [
        {"type": "ReplicaFailure", "status": "True", "message": message}
    ]
    told = trouble(world(refused), IDENTITY)
    assert told[0] == "FailedCreate"
    assert f"no pod could be made: {message}; raise the quota" in told[1]


@pytest.mark.parametrize("status", [waiting("ContainerCreating"), waiting("PodInitializing")])
def test_everyday_work_is_no_trouble(status):
    space = world(pod(statuses=[status]))
    assert trouble(space, IDENTITY) == ("", "")
    told = loading(space, IDENTITY, budget_s=1_200)
    assert told == ("Loading", f"loading since {BEGAN}; spec.vllm.startup.budget is 20m")


def test_pods_that_are_not_there_yet_are_being_made():
    assert "being made" in loading(world(), IDENTITY, budget_s=60)[1]


def answering(name, *, after_s):
    """Return a pod that turned ready this long after its server's container began."""
    since = f"2026-05-04T10:{after_s // 60:02d}:{after_s % 60:02d}Z"
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": since}
    server = {"name": "vllm", "ready": True, "state": {"running": {"startedAt": BEGAN}}}
    made = pod(conditions=[ready], statuses=[{"name": "other", "state": {}}, server])
    made["metadata"] |= {"name": name, "uid": name}
    return made


def test_a_load_took_from_the_containers_start_until_the_pod_was_ready():
    served = world(answering("a", after_s=90), answering("b", after_s=72), pod())
    assert load_s(served, IDENTITY, budget_s=600) == 72


def test_a_pod_that_turned_ready_again_tells_no_load():
    served = world(answering("a", after_s=1_000))
    assert load_s(served, IDENTITY, budget_s=600) is None
    assert load_s(world(pod()), IDENTITY, budget_s=600) is None
