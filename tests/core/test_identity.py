"""What makes another model server of a backend, and what is neutral."""

import pytest

from support.objects import backend, compiled, vllm


def identity(obj):
    return compiled(obj, cluster=True).identities["default/small"]


def pod(**spec):
    return vllm(podTemplate={"spec": spec})


def box(**fields):
    return pod(containers=[{"name": "vllm", **fields}])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(vllm(), vllm(accelerator={"resourceName": "g", "count": 1}), id="devices"),
        pytest.param(vllm(), vllm(parallelism={"tensor": 1}), id="parallelism of one"),
        pytest.param(vllm(), vllm(drain={"gracePeriod": "90s"}), id="drain"),
        pytest.param(vllm(), vllm(startup={"budget": "9s"}), id="startup"),
        pytest.param(vllm(), vllm(args=[]), id="no flags"),
        pytest.param(vllm(), vllm(podTemplate={}), id="an empty template"),
        pytest.param(vllm(), vllm(podTemplate={"metadata": {"labels": {"a": "b"}}}), id="labels"),
        pytest.param(vllm(), pod(tolerations=[{"key": "gpu"}]), id="tolerations"),
        pytest.param(vllm(), pod(nodeSelector={"a": "b"}), id="a node selector"),
        pytest.param(box(), box(livenessProbe={"periodSeconds": 3}), id="probes"),
        pytest.param(box(), box(resources={"requests": {"cpu": "1"}}), id="resource requests"),
        pytest.param(box(), box(lifecycle={"preStop": {}}), id="lifecycle"),
    ],
)
def test_identity_is_kept(one, other):
    assert identity(one) == identity(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(vllm(), vllm(image="vllm:2"), id="an image"),
        pytest.param(vllm(), vllm(args=["--enforce-eager"]), id="a flag"),
        pytest.param(vllm(), vllm(parallelism={"tensor": 2}), id="parallelism"),
        pytest.param(vllm(), vllm(model={"revision": "abc"}), id="a model's revision"),
        pytest.param(vllm(), vllm(model={"uri": "hf://org/n"}), id="a model's place"),
        pytest.param(box(), box(env=[{"name": "A", "value": "1"}]), id="an environment variable"),
        pytest.param(box(), box(command=["sh"]), id="a command"),
        pytest.param(box(), box(resources={"limits": {"cpu": "1"}}), id="resource limits"),
        pytest.param(vllm(), pod(initContainers=[{"name": "x"}]), id="an init container"),
        pytest.param(vllm(), backend(), id="another source"),
    ],
)
def test_identity_is_new(one, other):
    assert identity(one) != identity(other)
