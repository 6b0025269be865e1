"""`kubectl weir` on a real cluster: the screens, the commands, and what it says when it cannot.

Every output is printed: run with -s and look at it.
"""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from e2e.cluster import Cluster, pod, wait_for
from e2e.weir import SYSTEM, backend, route, serve, settled, status, traffic
from weir_cli.demo_manifests import facts

WIDTH = 100
USE = "weir-router-use"


@dataclass(frozen=True)
class Ran:
    """How one command ended."""

    code: int
    out: str
    err: str

    def rows(self) -> list[list[str]]:
        """Return the words of each line."""
        return [line.split() for line in self.out.splitlines()]


@dataclass(frozen=True)
class Cli:
    """`kubectl weir`, found by kubectl as a plugin, in one namespace."""

    cluster: Cluster
    namespace: str

    def __call__(self, *words: str, given: str | None = None, **environment: str) -> Ran:
        plugins = str(Path(sys.executable).parent)
        told = {**os.environ, **self.cluster.environment, "COLUMNS": str(WIDTH), **environment}
        told["PATH"] = f"{told['PATH']}:{plugins}"
        ran = subprocess.run(
            ["kubectl", "weir", *words],
            env=told,
            input=given,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        print(f"\n$ kubectl weir {' '.join(words)}\n{ran.stdout}{ran.stderr}[{ran.returncode}]")
        return Ran(ran.returncode, ran.stdout, ran.stderr)

    def here(self, *words: str, given: str | None = None) -> Ran:
        """Run a command in the namespace."""
        return self(*words, "--namespace", self.namespace, given=given)


def stepped(threshold: float) -> dict[str, Any]:
    """Return a route whose rollout waits for a person at 25 %."""
    made = route(threshold=f"{threshold:.3f}", quick=False)
    made["spec"]["rollout"]["steps"] = [{"setWeight": 25}, {"pause": {}}, {"setWeight": 50}]
    return made


def test_a_cluster_is_told_of_in_the_words_of_standalone(weir: Cluster, namespace: str) -> None:
    cli = Cli(weir, namespace)
    serve(weir, namespace)
    _lists_are_those_of_kubectl(cli)
    _stable_is_explained(cli)
    with weir.url("weir-router", 80, namespace=namespace) as url, traffic(url) as load:
        weir.apply(stepped(facts().min_probability + 0.02), namespace=namespace)
        _paused_canary_is_shown(cli)
        _commands_are_obeyed(cli)
    assert load.failures == []


def _lists_are_those_of_kubectl(cli: Cli) -> None:
    for noun, kind in (("routes", "mroute"), ("backends", "mbackend"), ("revisions", "mrev")):
        ours = cli.here("get", noun).rows()
        theirs = cli.cluster.kubectl("get", kind, "--namespace", cli.namespace)
        assert ours[0] == theirs.splitlines()[0].split()
        assert {row[0] for row in ours} == {row.split()[0] for row in theirs.splitlines()}
    header, *rows = cli("get", "-A").rows()
    assert header[:2] == ["NAMESPACE", "NAME"]
    assert [cli.namespace, "assistant"] in [row[:2] for row in rows]
    assert cli.here("get", "-o", "name").out == "modelroute.inference.weir.dev/assistant\n"
    told = json.loads(cli.here("get", "assistant", "-o", "json").out)
    assert told["spec"]["modelNames"] == ["assistant"]
    assert "managedFields" not in told["metadata"]
    assert "serves everything" in cli.here("get", "-o", "wide").out


def _stable_is_explained(cli: Cli) -> None:
    told = cli.here("explain", "--model", "assistant", "--message", "where is my card?").out
    assert "Draw:     stable: no canary has traffic" in told
    assert "1. small" in told
    assert "2. large" in told
    unknown = cli.here("explain", "--model", "nobody")
    assert unknown.code == 1
    assert f"known: assistant in namespace {cli.namespace}" in unknown.out


def _paused_canary_is_shown(cli: Cli) -> None:
    def paused() -> bool:
        told = status(cli.cluster, "mroute", "assistant", cli.namespace)
        assigned = told.get("evidence", {}).get("assigned", {})
        return bool(told.get("phase") == "Paused" and assigned.get("canary", 0) > 10)

    wait_for(paused, 90, "the canary at its pause, with some evidence in the status")
    row = cli.here("get").rows()[1]
    assert row[1:4] == ["Paused", "2/3", "25%"]
    wide = cli.here("get", "-o", "wide").rows()[1]
    live = cli.cluster.kubectl("get", "mroute", "assistant", "-n", cli.namespace).split("\n")[1]
    assert float(live.split()[5]) > 0, "the evidence stands in kubectl's columns"
    assert re.fullmatch(r"\d+(\.\d+)?%", wide[wide.index("True") + 1]), "what it really gets"
    told = cli.here("describe", "assistant").out
    for part in ("Changes, canary", "Conditions", "Evidence", "Backends", "Revisions", "Events"):
        assert f"{part}" in told
    assert "minProbability" in told
    assert "1/1 ready" in told
    assert "RolloutStarted" in told
    frame = cli.here("watch", "assistant", "--once").out
    assert frame.startswith(f"॥ Paused  {cli.namespace}/assistant")
    assert "Canary #1" in frame
    assert "quality" in frame
    assert "TIERS" in frame, "an administrator may ask the routers for their totals"
    assert max(map(len, frame.splitlines())) <= WIDTH
    explained = cli.here("explain", "--model", "assistant", "--session", "a").out
    assert "Canary: assistant-" in explained


def _commands_are_obeyed(cli: Cli) -> None:
    def rollout(*words: str) -> Ran:
        return cli.here("rollout", *words)

    def told() -> dict[str, Any]:
        return status(cli.cluster, "mroute", "assistant", cli.namespace)

    stable, canary = told()["stable"]["revision"], told()["canary"]["revision"]
    paused = rollout("pause", "assistant")
    assert paused.code == 0
    assert paused.out.startswith(f"Done: pause {canary} of {cli.namespace}/assistant: ")
    assert rollout("resume", "assistant").code == 0
    wrong = rollout("abort", "assistant", "--revision", "0123456789")
    assert wrong.code == 1
    assert wrong.out.startswith("Refused: ")
    assert told()["canary"]["revision"] == canary
    assert rollout("abort", "assistant").code == 0
    assert told()["lastRollback"]["reason"] == "Aborted"
    assert told()["weight"]["set"] == "0%"
    aborted = cli.here("watch", "--once").out
    assert "✖ Canary #1" in aborted
    history = cli.here("describe", "assistant").out.partition("Revisions:\n")[2]
    assert f"{canary}   RolledBack" in history
    assert rollout("retry", "assistant").code == 0
    assert told()["canary"] | {"changes": 0} == {"revision": canary, "attempt": 2, "changes": 0}
    assert rollout("promote", "assistant", "--full").code == 0
    wait_for(lambda: told()["step"].get("progress") in ("promoting", "bake"), 30, "a promotion")
    assert told()["stable"]["revision"] == stable


def test_manifests_are_judged_by_the_api_server(
    weir: Cluster, namespace: str, tmp_path: Path
) -> None:
    cli = Cli(weir, namespace)
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    weir.apply(backend("large", "large"), namespace=namespace)
    alone = route()
    alone["spec"]["behaviour"]["tiers"] = [{"name": "large", "backendRef": {"name": "large"}}]
    good.write_text(yaml.safe_dump(alone))
    assert cli.here("validate", str(good)).out == "1 object in 1 file: no problems\n"
    assert cli.here("validate", str(good), "--offline").code == 2, "its backend is not in the file"
    alone["spec"]["rollout"]["steps"] = [{"setWeight": 50}, {"setWeight": 5}]
    alone["metadata"]["labels"] = {"a label": "with a blank"}
    bad.write_text(yaml.safe_dump(alone))
    ran = cli.here("validate", str(bad))
    assert ran.code == 2
    lines = bad.read_text().splitlines()
    for text, field in (("setWeight: 5", "spec.rollout.steps[1]"), ("labels:", "metadata.labels")):
        line = next(at for at, one in enumerate(lines, 1) if one.strip("- ") == text)
        assert f"{bad}:{line}: ModelRoute {namespace}/assistant: {field}" in ran.out


def test_injected_pod_asks_its_own_router(weir: Cluster, namespace: str, tmp_path: Path) -> None:
    cli = Cli(weir, namespace)
    serve(weir, namespace)
    ask = (
        "import os, time, urllib.request as u\n"
        "for _ in range(100):\n"
        "    try:\n"
        "        print(u.urlopen(os.environ['OPENAI_BASE_URL'] + '/models').read().decode())\n"
        "        break\n"
        "    except OSError as error:\n"
        "        print(error); time.sleep(0.5)\n"
    )
    file = tmp_path / "pod.yaml"
    file.write_text(yaml.safe_dump(pod("client", command=("python", "-c", ask))))
    ran = cli.here("inject", "-f", str(file))
    assert ran.code == 0
    weir.kubectl(*_advice(ran.err))
    weir.kubectl("apply", "--namespace", namespace, "-f", "-", given=ran.out)

    def over() -> bool:
        told = weir.get("pod", "client", "--namespace", namespace)["status"]
        return bool(told.get("phase") in ("Succeeded", "Failed"))

    wait_for(over, 90, "the end of the client")
    said = weir.kubectl("logs", "client", "-c", "main", "--namespace", namespace)
    assert '"id":"assistant"' in said.splitlines()[-1].replace(" ", "")


def _advice(notes: str) -> list[str]:
    """Return the words of the kubectl command that `inject` gives as a note."""
    line = next(one for one in notes.splitlines() if "kubectl create rolebinding" in one)
    return line.partition("kubectl ")[2].split()


def test_trouble_is_told_in_one_line(weir: Cluster, namespace: str, tmp_path: Path) -> None:
    cli = Cli(weir, namespace)
    assert cli.here("get").err == f"no routes in namespace {namespace}\n"
    assert cli.here("get", "backends").err == f"no ModelBackends in namespace {namespace}\n"
    missing = cli.here("describe", "assistant")
    assert missing.code == 1
    assert missing.err == (
        f"kubectl weir: no ModelRoute assistant in namespace {namespace}; there is none\n"
    )
    stranger = _stranger(weir, namespace, tmp_path)
    refused = cli.here("get", "--kubeconfig", str(stranger))
    assert refused.code == 1
    assert "cannot list resource" in refused.err
    assert "ClusterRoles view and edit" in refused.err
    deaf = tmp_path / "deaf"
    deaf.write_text(stranger.read_text().replace(_server(stranger), "https://127.0.0.1:1"))
    silent = cli.here("get", "--kubeconfig", str(deaf))
    assert silent.code == 1
    assert "https://127.0.0.1:1 (context stranger) does not answer" in silent.err
    for ran in (missing, refused, silent):
        assert len(ran.err.splitlines()) == 1


def _stranger(weir: Cluster, namespace: str, folder: Path) -> Path:
    """Return the kubeconfig of an account that may do nothing."""
    weir.kubectl("create", "serviceaccount", "stranger", "--namespace", namespace)
    token = weir.kubectl("create", "token", "stranger", "--namespace", namespace).strip()
    shown = yaml.safe_load(weir.kubectl("config", "view", "--minify", "--flatten", "-o", "yaml"))
    told = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "weir", "cluster": shown["clusters"][0]["cluster"]}],
        "users": [{"name": "stranger", "user": {"token": token}}],
        "contexts": [{"name": "stranger", "context": {"cluster": "weir", "user": "stranger"}}],
        "current-context": "stranger",
    }
    file = folder / "stranger"
    file.write_text(yaml.safe_dump(told))
    return file


def _server(kubeconfig: Path) -> str:
    return str(yaml.safe_load(kubeconfig.read_text())["clusters"][0]["cluster"]["server"])


def test_command_without_an_operator_is_not_waited_for_in_silence(
    weir: Cluster, namespace: str
) -> None:
    cli = Cli(weir, namespace)
    serve(weir, namespace)
    weir.kubectl("scale", "deployment/weir-operator", "--replicas=0", "--namespace", SYSTEM)
    try:
        wait_for(lambda: not _pods(weir), 60, "the operator's end")
        revision = status(weir, "mroute", "assistant", namespace)["stable"]["revision"]
        ran = cli.here("rollout", "pause", "assistant", "--revision", revision)
    finally:
        weir.kubectl("scale", "deployment/weir-operator", "--replicas=1", "--namespace", SYSTEM)
        weir.kubectl(
            "rollout", "status", "deployment/weir-operator", "--namespace", SYSTEM, limit_s=120
        )
    assert ran.code == 1
    assert "no operator acknowledged it within 15 s" in ran.err
    settled(weir, "assistant", namespace)


def _pods(weir: Cluster) -> list[Any]:
    labels = "app.kubernetes.io/component=operator"
    found: list[Any] = weir.get("pods", "--namespace", SYSTEM, "--selector", labels)["items"]
    return found
