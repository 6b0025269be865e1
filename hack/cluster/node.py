"""Brings the one-node cluster up, step by step, and takes it down again."""

import json
import os
import shutil
import signal
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cluster import certificates, keeper, machine, settings
from cluster.build import Built, build, built, read
from cluster.components import COMPONENTS, Components
from cluster.errors import ClusterError
from cluster.load import load
from cluster.places import HERE, LINK, NODE, Places

API_S, NODE_S, DNS_S = 120.0, 120.0, 120.0
"""How long a busy machine is given for each."""
STOP_S = 5.0


class Steps:
    """Says each step with the seconds since the first."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def done(self, what: str) -> None:
        print(f"{time.monotonic() - self._began:6.1f} s  {what}", flush=True)


class Node:
    """The cluster of one folder."""

    def __init__(self, places: Places) -> None:
        self._places = places

    def up(self) -> None:
        """Bring it up, or mend it. Raises ClusterError, and nothing runs then."""
        if (running := self.running()) is not None:
            self._mend(running)
            return
        host = machine.ready(self._places)
        if another_is_up():
            raise ClusterError(
                f"a cluster of another WEIR_CLUSTER_DIR is up: the link {LINK} is there"
            )
        programs = build(self._places)
        steps = Steps()
        self._clear()
        self._places.run.mkdir(parents=True, mode=0o711)
        shutil.rmtree(self._places.store / "io.containerd.grpc.v1.cri", ignore_errors=True)
        programs.write(self._noted)
        settings.write(self._places, runc=host.runc, plugins=host.plugins)
        holder = keeper.start(self._places, programs.tools / "pause")
        try:
            self._start(programs, steps)
        except BaseException:
            # Its end takes the namespaces along, and them everything that runs there.
            assert holder.stdin is not None
            holder.stdin.close()
            holder.wait()
            raise
        assert holder.stdin is not None
        holder.stdin.write(b"k")
        holder.stdin.close()

    def down(self) -> None:
        """Take it down; nothing is left but the build cache and the image store."""
        steps = Steps()
        if (running := self.running()) is not None:
            first = keeper.first_process(self._places)
            assert first is not None
            # Its image store outlives it, so it may finish what it writes.
            if (runtime := running.pid("containerd")) is not None:
                os.kill(runtime, signal.SIGTERM)
                keeper.wait_until(lambda: running.pid("containerd") is None, STOP_S)
            os.kill(first, signal.SIGKILL)
            if not keeper.wait_until(lambda: keeper.first_process(self._places) is None, 30.0):
                raise ClusterError("the keeper did not end in 30 s")
        self._clear()
        steps.done("down")

    def running(self) -> Components | None:
        """Return its programs, None if it is down."""
        first = keeper.first_process(self._places)
        return Components(self._places, read(self._noted), first) if first is not None else None

    def programs(self) -> Built | None:
        """Return the programs that run, or that would; None if they are yet to be built."""
        return read(self._noted) if self.running() is not None else built(self._places)

    @property
    def _noted(self) -> Path:
        return self._places.run / "programs"

    def apply(self, manifest: Path) -> None:
        """Apply a manifest. Raises ClusterError."""
        command = [str(read(self._noted).kubernetes / "kubectl"), "apply", "-f", str(manifest)]
        places = self._places
        own = {"KUBECONFIG": str(places.kubeconfig), "KUBECACHEDIR": str(places.discovered)}
        result = subprocess.run(
            command, env={**os.environ, **own}, capture_output=True, text=True, check=False
        )
        if result.returncode != 0:
            raise ClusterError(f"{manifest.name} was refused: {result.stderr.strip()}")

    def ask(self, path: str) -> Any:
        """Return what the API says at a path: JSON, text, or None if it does not answer."""
        keys = self._places.keys
        try:
            context = ssl.create_default_context(cafile=str(keys / "ca.crt"))
            context.load_cert_chain(keys / "admin.crt", keys / "admin.key")
            url = f"{certificates.API}{path}"
            with urllib.request.urlopen(url, timeout=5, context=context) as reply:
                body = reply.read().decode()
        except (OSError, urllib.error.URLError):
            return None
        return json.loads(body) if body.startswith("{") else body

    def _start(self, programs: Built, steps: Steps) -> None:
        first = keeper.first_process(self._places)
        assert first is not None
        running = Components(self._places, programs, first)
        steps.done("namespaces")
        running.start("containerd")
        running.start("etcd")
        certificates.make(self._places)
        running.start("apiserver")
        self._prepare_store(running, programs)
        steps.done("certificates, images")
        self._wait(running, "apiserver", lambda: self.ask("/readyz") == "ok", API_S)
        steps.done("API server ready")
        for name in ("controllers", "scheduler", "kubelet", "proxy"):
            running.start(name)
        self._await(running, steps)

    def _mend(self, running: Components) -> None:
        steps = Steps()
        for names in (COMPONENTS[:3], COMPONENTS[3:]):
            for name in names:
                if running.start(name):
                    steps.done(f"{name} started again")
            self._wait(running, "apiserver", lambda: self.ask("/readyz") == "ok", API_S)
        self._await(running, steps)

    def _await(self, running: Components, steps: Steps) -> None:
        """Wait for node and cluster DNS to be ready; each is written down only once."""
        self._wait(running, "kubelet", self._node_ready, NODE_S)
        steps.done("node Ready")
        self.apply(HERE / "manifests" / "coredns.yaml")
        self._wait(running, "controllers", self._dns_ready, DNS_S)
        steps.done("cluster DNS ready")

    def _prepare_store(self, running: Components, programs: Built) -> None:
        """Remove what the last run's pods left in the image store; add the cluster's images."""

        def ctr(*words: str) -> subprocess.CompletedProcess[str]:
            command = running.inside(["ctr", *words])
            return subprocess.run(command, capture_output=True, text=True)

        self._wait(running, "containerd", lambda: ctr("version").returncode == 0, 60.0)
        if left := ctr("containers", "ls", "--quiet").stdout.split():
            ctr("containers", "rm", *left)
        for name in ("pause", "coredns"):
            load(programs.tools / f"{name}.tar", running.inside)

    def _wait(
        self, running: Components, name: str, ready: Callable[[], bool], limit_s: float
    ) -> None:
        """Wait for what a program does. Raises ClusterError if it ends, or never does it."""
        end = time.monotonic() + limit_s
        while not ready():
            running.check(name)
            if time.monotonic() > end:
                raise ClusterError(
                    f"{name}: not ready after {limit_s:.0f} s; see {running.log(name)}"
                )
            time.sleep(0.1)

    def _node_ready(self) -> bool:
        """Tell whether pods can run: a Ready node, and an account for them to run as."""
        node = self.ask(f"/api/v1/nodes/{NODE}")
        account = self.ask("/api/v1/namespaces/default/serviceaccounts/default")
        return account is not None and is_true(node, "Ready")

    def _dns_ready(self) -> bool:
        path = "/apis/apps/v1/namespaces/kube-system/deployments/coredns"
        return is_true(self.ask(path), "Available")

    def _clear(self) -> None:
        # The link of a dead cluster goes by itself, a moment after its last process.
        if keeper.wait_until(lambda: not another_is_up(), 2.0):
            keeper.clear()
        shutil.rmtree(self._places.run, ignore_errors=True)


def another_is_up() -> bool:
    """Tell whether a living cluster has the link: one whose other end is there, too."""
    command = ["ip", "-brief", "link", "show", LINK]
    return b"LOWER_UP" in subprocess.run(command, capture_output=True).stdout


def is_true(thing: Any, condition: str) -> bool:
    """Tell whether a Kubernetes object has a condition that is True."""
    conditions = (thing or {}).get("status", {}).get("conditions", [])
    return any(each["type"] == condition and each["status"] == "True" for each in conditions)


def running_summary(running: Components) -> list[tuple[str, int | None, int]]:
    """Return each program's name, pid (None: it does not run) and resident memory in MiB."""
    rows = []
    for name in COMPONENTS:
        pid = running.pid(name)
        rows.append((name, pid, _resident_mib(pid) if pid is not None else 0))
    return rows


def _resident_mib(pid: int) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") >> 20
