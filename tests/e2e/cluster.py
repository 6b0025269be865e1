"""A real cluster as the tests see it: kubectl, the verbs of hack/cluster, and patience."""

import contextlib
import json
import os
import re
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "hack" / "cluster" / "weir-cluster"
CANNOT = 3
"""The program's exit code on a machine that cannot carry a cluster."""
UID = 65_532
SECURE = {
    "runAsNonRoot": True,
    "readOnlyRootFilesystem": True,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
"""How every container of Weir's runs."""
Thing = Mapping[str, Any]
T = TypeVar("T")


class ClusterError(AssertionError):
    """A command of the cluster failed; says which, and what it said."""


@dataclass(slots=True)
class Cluster:
    """The cluster that is up. `environment` is what its `env` verb tells a shell.

    `archive` holds the images that it was given.
    """

    environment: Mapping[str, str]
    archive: str = ""
    timings: dict[str, float] = field(default_factory=dict)

    @property
    def own(self) -> bool:
        """Whether it is hack/cluster's own, whose programs can be killed, and not kind's."""
        return "KWOK_WORKDIR" in self.environment

    def kubectl(self, *words: str, given: str | None = None, limit_s: float = 60.0) -> str:
        """Return what kubectl prints; `given` is its standard input. Raises ClusterError."""
        return self._run(["kubectl", *words], given, limit_s)

    def verb(self, *words: str) -> str:
        """Return what a verb of hack/cluster prints. Raises ClusterError."""
        return self._run([str(PROGRAM), *words], None, 300.0)

    def apply(self, *things: Thing, namespace: str) -> None:
        """Apply objects. Raises ClusterError with what the API says against them."""
        listed = {"apiVersion": "v1", "kind": "List", "items": list(things)}
        self.kubectl("apply", "--namespace", namespace, "-f", "-", given=json.dumps(listed))

    def get(self, *words: str) -> Any:
        """Return an object, or a list of them, as kubectl gets them."""
        return json.loads(self.kubectl("get", *words, "--output", "json"))

    def run(self, name: str, *, namespace: str, limit_s: float = 60.0, **more: Any) -> str:
        """Run a pod to its end and return its log. Raises ClusterError if it fails."""
        self.apply(pod(name, **more), namespace=namespace)
        there = ("pod", name, "--namespace", namespace)
        ended = ("Succeeded", "Failed")

        def over() -> Any:
            status = self.get(*there)["status"]
            return status if status.get("phase") in ended else None

        status = wait_for(over, limit_s, f"the end of pod {name}")
        said = self.kubectl("logs", name, "--namespace", namespace)
        if status["phase"] != "Succeeded":
            raise ClusterError(f"pod {name} failed; it said:\n{said}")
        return said

    def wait(self, what: str, condition: str, *, namespace: str, limit_s: float = 90.0) -> None:
        """Wait for a condition of an object, "pod/small". Raises ClusterError."""
        waits = ("--for", f"condition={condition}", "--timeout", f"{limit_s:.0f}s")
        self.kubectl("wait", what, *waits, "--namespace", namespace, limit_s=limit_s + 30)

    @contextlib.contextmanager
    def url(self, service: str, port: int, *, namespace: str) -> Iterator[str]:
        """Return a URL of a Service that this machine reaches, while the block runs.

        The cluster of our own has routes to its Services; to kind's there is a tunnel.
        """
        if self.own:
            found = self.get("service", service, "--namespace", namespace)
            yield f"http://{found['spec']['clusterIP']}:{port}"
            return
        command = ["kubectl", "port-forward", "--namespace", namespace, f"service/{service}"]
        with subprocess.Popen(
            [*command, f":{port}"], env={**os.environ, **self.environment}, stdout=subprocess.PIPE
        ) as tunnel:
            assert tunnel.stdout is not None
            opened = re.search(rb"127\.0\.0\.1:\d+", tunnel.stdout.readline())
            assert opened is not None, "kubectl port-forward did not say where it listens"
            try:
                yield f"http://{opened[0].decode()}"
            finally:
                tunnel.terminate()

    @contextlib.contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Note how long the block takes, for the summary."""
        began = time.monotonic()
        yield
        self.timings[what] = time.monotonic() - began

    def _run(self, command: Sequence[str], given: str | None, limit_s: float) -> str:
        result = subprocess.run(
            command,
            env={**os.environ, **self.environment},
            input=given,
            capture_output=True,
            text=True,
            timeout=limit_s,
            check=False,
        )
        if result.returncode != 0:
            said = result.stderr.strip() or result.stdout.strip()
            raise ClusterError(f"`{shlex.join(command)[:300]}` failed: {said}")
        return result.stdout


def wait_for(look: Callable[[], T | None], limit_s: float, what: str) -> T:
    """Return the first truthy thing that `look` finds; a ClusterError in it counts as nothing.

    Looks every 200 ms. Raises ClusterError with the last error after `limit_s`.
    """
    end, last = time.monotonic() + limit_s, ""
    while time.monotonic() < end:
        try:
            if found := look():
                return found
        except ClusterError as error:
            last = f"; last: {error}"
        time.sleep(0.2)
    raise ClusterError(f"waited {limit_s:.0f} s in vain for {what}{last}")


def pod(
    name: str,
    *,
    image: str = "localhost/weir:dev",
    args: Sequence[str] = (),
    command: Sequence[str] = (),
    port: int | None = None,
) -> dict[str, Any]:
    """Return a pod of one container, as Weir's run. With a `port` it is ready by its /health."""
    container: dict[str, Any] = {
        "name": "main",
        "image": image,
        "imagePullPolicy": "Never",
        "args": list(args),
        "securityContext": SECURE,
    }
    if command:
        container["command"] = list(command)
    if port is not None:
        container["readinessProbe"] = {
            "httpGet": {"path": "/health", "port": port},
            "periodSeconds": 1,
            "failureThreshold": 60,
        }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "containers": [container],
        },
    }


def service(name: str, port: int) -> dict[str, Any]:
    """Return a Service of the pod of the same name."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"port": port}]},
    }
