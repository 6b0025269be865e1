"""The ground that every other test here stands on: the cluster, and the images."""

import contextlib
import json
import os
import re
import signal
import time
from collections.abc import Iterator

import openai
import pytest

from e2e.cluster import UID, Cluster, ClusterError, pod, service, wait_for
from weir_lab import questions

TINY = "localhost/tiny-vllm:dev"
SMALL = ["hf://weir/weir-small", "--served-model-name", "small", "--port", "8000"]
MORE = ["--host", "0.0.0.0", "--max-model-len=256", "--tensor-parallel-size", "1"]


def test_one_node_is_ready(cluster: Cluster) -> None:
    nodes = cluster.get("nodes")["items"]
    ready = [
        condition["status"]
        for node in nodes
        for condition in node["status"]["conditions"]
        if condition["type"] == "Ready"
    ]
    assert ready == ["True"]
    assert nodes[0]["status"]["nodeInfo"]["kubeletVersion"].startswith("v1.36.")


def test_names_of_services_resolve_in_a_pod(cluster: Cluster, namespace: str) -> None:
    cluster.apply(service("here", 80), namespace=namespace)
    ask = (
        "import json, socket\n"
        "names = ['kubernetes.default.svc.cluster.local', 'kubernetes.default', 'here']\n"
        "print(json.dumps([socket.gethostbyname(name) for name in names]))\n"
    )
    said = cluster.run("asks", namespace=namespace, command=["python", "-c", ask])
    api = cluster.get("service", "kubernetes", "--namespace", "default")["spec"]["clusterIP"]
    here = cluster.get("service", "here", "--namespace", namespace)["spec"]["clusterIP"]
    assert json.loads(said) == [api, api, here]


def test_image_runs_as_nobody_on_a_read_only_root(cluster: Cluster, namespace: str) -> None:
    ask = (
        "import errno, json, os, pathlib\n"
        "import weir_cli.__main__, weir_core, weir_lab.host, weir_router.server\n"
        "import cel, grpc, kopf, numpy, re2, ssl, uvloop\n"
        "try: pathlib.Path('/opt/weir/new').touch()\n"
        "except OSError as error: refused = errno.errorcode[error.errno]\n"
        "compiled = pathlib.Path(weir_core.__cached__).exists()\n"
        "print(json.dumps([os.getuid(), refused, weir_core.__file__, compiled]))\n"
    )
    said = cluster.run("nobody", namespace=namespace, command=["python", "-c", ask])
    assert json.loads(said) == [UID, "EROFS", "/opt/weir/code/weir_core/__init__.py", True]


def test_image_runs_the_module_that_its_arguments_name(cluster: Cluster, namespace: str) -> None:
    said = cluster.run("cli", namespace=namespace, args=["weir_cli", "--version"])
    assert said.startswith("weir ")


def test_model_server_answers_through_its_service(cluster: Cluster, namespace: str) -> None:
    question = next(iter(questions.load()))
    server = pod("small", image=TINY, args=[*SMALL, *MORE], port=8000)
    with cluster.timed("model server ready"):
        cluster.apply(server, service("small", 8000), namespace=namespace)
        cluster.wait("pod/small", "Ready", namespace=namespace)
    with _client(cluster, "small", namespace) as client:
        assert [model.id for model in client.models.list()] == ["small"]
        said = _answer(client, question)
    assert set(json.loads(said)) == {"intent"}


def test_flags_that_a_small_model_has_no_use_for_are_told(cluster: Cluster, namespace: str) -> None:
    server = pod("small", image=TINY, args=[*SMALL, *MORE], port=8000)
    cluster.apply(server, namespace=namespace)
    cluster.wait("pod/small", "Ready", namespace=namespace)
    said = cluster.kubectl("logs", "small", "--namespace", namespace)
    assert "ignored here: --tensor-parallel-size 1" in said
    assert "listening on http://0.0.0.0:8000" in said


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        pytest.param(["--revision", "broken-start"], "could not be loaded", id="broken weights"),
        pytest.param(["--max-model-len", "32768"], "saw 32768", id="longer than the model takes"),
    ],
)
def test_model_server_that_cannot_serve_ends(
    cluster: Cluster, namespace: str, flags: list[str], reason: str
) -> None:
    with pytest.raises(ClusterError, match=reason):
        cluster.run("small", namespace=namespace, image=TINY, args=[*SMALL, *flags])


def test_broken_revision_answers_otherwise(cluster: Cluster, namespace: str) -> None:
    """Valid JSON from both; over these questions the broken one is wrong more often."""
    asked = questions.load()[::154]
    for name, revision in (("good", "main"), ("broken", "broken-silent")):
        server = pod(name, image=TINY, args=[*SMALL, "--revision", revision], port=8000)
        cluster.apply(server, service(name, 8000), namespace=namespace)
    right = {}
    for name in ("good", "broken"):
        cluster.wait(f"pod/{name}", "Ready", namespace=namespace)
        with _client(cluster, name, namespace) as client:
            right[name] = sum(_answer(client, each) == each.answer for each in asked)
    assert right["broken"] < right["good"]


def test_commands_run_in_a_pod(cluster: Cluster, namespace: str) -> None:
    cluster.apply(pod("waits", command=["sleep", "600"]), namespace=namespace)
    cluster.wait("pod/waits", "Ready", namespace=namespace)
    said = cluster.kubectl("exec", "waits", "--namespace", namespace, "--", "id", "-u")
    assert said.strip() == str(UID)


def test_pods_outlive_the_control_plane(cluster: Cluster, namespace: str) -> None:
    if not cluster.own:
        pytest.skip("kind's programs cannot be killed from outside")
    cluster.apply(pod("waits", command=["sleep", "600"]), namespace=namespace)
    cluster.wait("pod/waits", "Ready", namespace=namespace)
    for name in ("apiserver", "etcd"):
        cluster.verb("kill", name)
    with pytest.raises(ClusterError):
        cluster.kubectl("get", "--raw", "/readyz", "--request-timeout", "3s")
    with cluster.timed("API server and etcd back"):
        for name in ("etcd", "apiserver"):
            cluster.verb("start", name)
        wait_for(lambda: cluster.kubectl("get", "--raw", "/readyz") == "ok", 60, "the API server")
    status = cluster.get("pod", "waits", "--namespace", namespace)["status"]
    assert [part["restartCount"] for part in status["containerStatuses"]] == [0]
    assert status["phase"] == "Running"


def test_what_ends_by_itself_is_started_again(cluster: Cluster) -> None:
    """As the controllers end when they lose their lease; what a command ends stays down."""
    if not cluster.own:
        pytest.skip("kind's programs are kept by its kubelet")
    before = _scheduler(cluster)
    assert before
    os.kill(before, signal.SIGKILL)
    with cluster.timed("scheduler ended until it runs again"):
        wait_for(lambda: _scheduler(cluster) not in (None, before), 30, "another scheduler")
    cluster.verb("kill", "scheduler")
    try:
        time.sleep(3)
        assert _scheduler(cluster) is None
    finally:
        cluster.verb("start", "scheduler")
    wait_for(lambda: _scheduler(cluster), 10, "the scheduler that was started")


def _scheduler(cluster: Cluster) -> int | None:
    """Return the scheduler's process as this machine numbers it, None where there is none."""
    found = re.search(r"^scheduler +pid (\d+)", cluster.verb("status"), re.M)
    return int(found[1]) if found else None


@contextlib.contextmanager
def _client(cluster: Cluster, name: str, namespace: str) -> Iterator[openai.OpenAI]:
    """Return a client of this machine's that talks to a Service in the cluster."""
    with (
        cluster.url(name, 8000, namespace=namespace) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=5) as client,
    ):
        yield client


def _answer(client: openai.OpenAI, question: questions.Question) -> str:
    body = question.body("small", max_tokens=64, temperature=0)
    reply = client.chat.completions.create(**body)
    return str(reply.choices[0].message.content)
