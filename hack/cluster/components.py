"""The cluster's programs: how each is started inside the namespaces, found, and signalled."""

import fcntl
import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

from cluster.build import Built
from cluster.errors import ClusterError
from cluster.keeper import children, inside, wait_until
from cluster.places import NODE, NODE_ADDRESS, PODS, SERVICES, Places

COMPONENTS = (
    "containerd",
    "etcd",
    "apiserver",
    "controllers",
    "scheduler",
    "kubelet",
    "proxy",
)
"""In the order in which they start."""
_UNKNOWN = f"saw {{!r}}, wanted one of {', '.join(COMPONENTS)}"
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ETCD = "http://127.0.0.1:12379"
_ETCD_PEER = "http://127.0.0.1:12380"
_FASTER = ("--kube-api-qps=500", "--kube-api-burst=1000")
"""The default of 20 requests a second makes a new cluster wait for itself."""


class Components:
    """The programs of one cluster; `first` is the first process inside."""

    def __init__(self, places: Places, built: Built, first: int) -> None:
        self._places, self._built, self._first = places, built, first

    def start(self, name: str) -> bool:
        """Start a program, detached; tell whether it did not run already."""
        if name not in COMPONENTS:
            raise ClusterError(_UNKNOWN.format(name))
        self._places.logs.mkdir(parents=True, exist_ok=True)
        lock = self._places.run / "start.lock"
        with lock.open("w") as held, self.log(name).open("ab") as log:
            # The keeper, too, starts programs.
            fcntl.flock(held, fcntl.LOCK_EX)
            if self._entered(name) is not None:
                return False
            process = subprocess.Popen(
                self.inside(self._command(name)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self._pid_file(name).write_text(str(process.pid), encoding="ascii")
            self._told_down(name).unlink(missing_ok=True)
        return True

    def inside(self, command: list[str]) -> list[str]:
        """Return a command as it is called from the machine, with an environment of its own."""
        variables = {
            "HOME": "/root",
            "LANG": "C.UTF-8",
            "PATH": f"{self._built.path}:{_SYSTEM_PATH}",
            "KUBECONFIG": str(self._places.kubeconfig),
            "KUBECACHEDIR": str(self._places.discovered),
            "CONTAINERD_ADDRESS": str(self._places.socket),
            "CONTAINERD_NAMESPACE": "k8s.io",
        }
        return [*inside(self._first), "env", "-i", *_pairs(variables), *command]

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a program a signal; wait for its end if the signal ends it. Raises ClusterError."""
        pid, entered = self.pid(name), self._entered(name)
        if pid is None or entered is None:
            raise ClusterError(f"{name} does not run")
        ends = number in (signal.SIGKILL, signal.SIGTERM)
        if ends:
            self._told_down(name).touch()
        os.kill(pid, number)
        if number is not signal.SIGSTOP:
            # nsenter stops along with its child, and must run on to bury it.
            os.kill(entered, signal.SIGCONT)
        if ends and not wait_until(lambda: self._entered(name) is None, 30.0):
            raise ClusterError(f"{name}: still runs 30 s after {number.name}")

    def pid(self, name: str) -> int | None:
        """Return a program's pid as the machine sees it, None if it does not run."""
        if name not in COMPONENTS:
            raise ClusterError(_UNKNOWN.format(name))
        entered = self._entered(name)
        return next(iter(children(entered)), None) if entered is not None else None

    def has_ended(self, name: str) -> bool:
        """Tell whether a program was started and has ended, though no command told it to."""
        was_started = self._pid_file(name).exists() and not self._told_down(name).exists()
        return was_started and self._entered(name) is None

    def _entered(self, name: str) -> int | None:
        """Return the pid of the nsenter that a program is the only child of."""
        try:
            entered = int(self._pid_file(name).read_text("ascii"))
            called = Path(f"/proc/{entered}/cmdline").read_bytes()
        except (OSError, ValueError):
            return None
        # A pid may have been given to another since.
        return entered if called.startswith(b"nsenter\0") else None

    def log(self, name: str) -> Path:
        return self._places.logs / f"{name}.log"

    def check(self, name: str) -> None:
        """Raise ClusterError with the end of its log if a program has ended."""
        if self._entered(name) is None:
            said = self.log(name).read_text("utf8", "replace").strip().splitlines()[-20:]
            raise ClusterError("\n".join([f"{name} has ended. Its last words:", *said]))

    def _pid_file(self, name: str) -> Path:
        return self._places.run / f"{name}.pid"

    def _told_down(self, name: str) -> Path:
        return self._places.run / f"{name}.down"

    def _command(self, name: str) -> list[str]:
        commands = {
            "containerd": self._containerd,
            "etcd": self._etcd,
            "apiserver": self._apiserver,
            "controllers": self._controllers,
            "scheduler": self._scheduler,
            "kubelet": self._kubelet,
            "proxy": self._proxy,
        }
        return commands[name]()

    def _containerd(self) -> list[str]:
        return ["containerd", "--config", f"{self._places.settings}/containerd.toml"]

    def _etcd(self) -> list[str]:
        flags = {
            "name": "weir",
            "data-dir": f"{self._places.run}/etcd",
            "listen-client-urls": _ETCD,
            "advertise-client-urls": _ETCD,
            "listen-peer-urls": _ETCD_PEER,
            "initial-advertise-peer-urls": _ETCD_PEER,
            "initial-cluster": f"weir={_ETCD_PEER}",
        }
        # Its data outlive its process, never the machine.
        return ["etcd", *_flags(flags), "--unsafe-no-fsync"]

    def _apiserver(self) -> list[str]:
        keys = self._places.keys
        flags = {
            "etcd-servers": _ETCD,
            "bind-address": NODE_ADDRESS,
            "advertise-address": NODE_ADDRESS,
            "secure-port": "6443",
            "tls-cert-file": f"{keys}/apiserver.crt",
            "tls-private-key-file": f"{keys}/apiserver.key",
            "client-ca-file": f"{keys}/ca.crt",
            "service-account-issuer": "https://kubernetes.default.svc",
            "service-account-key-file": f"{keys}/tokens.pub",
            "service-account-signing-key-file": f"{keys}/tokens.key",
            "authorization-mode": "Node,RBAC",
            "enable-admission-plugins": "NodeRestriction",
            "service-cluster-ip-range": SERVICES,
            "allow-privileged": "true",
            "kubelet-client-certificate": f"{keys}/apiserver-kubelet-client.crt",
            "kubelet-client-key": f"{keys}/apiserver-kubelet-client.key",
            "kubelet-certificate-authority": f"{keys}/ca.crt",
            "kubelet-preferred-address-types": "InternalIP",
        }
        return ["kube-apiserver", *_flags(flags)]

    def _controllers(self) -> list[str]:
        keys = self._places.keys
        flags = {
            "service-account-private-key-file": f"{keys}/tokens.key",
            "root-ca-file": f"{keys}/ca.crt",
            "cluster-signing-cert-file": f"{keys}/ca.crt",
            "cluster-signing-key-file": f"{keys}/ca.key",
            "use-service-account-credentials": "true",
            "allocate-node-cidrs": "true",
            "cluster-cidr": PODS,
        }
        return [*self._client("kube-controller-manager"), *_flags(flags)]

    def _scheduler(self) -> list[str]:
        return self._client("kube-scheduler")

    def _client(self, program: str) -> list[str]:
        kubeconfig = f"{self._places.keys}/{program}.kubeconfig"
        flags = {
            "kubeconfig": kubeconfig,
            "authentication-kubeconfig": kubeconfig,
            "authorization-kubeconfig": kubeconfig,
            "bind-address": "127.0.0.1",
        }
        return [program, *_flags(flags), *_FASTER]

    def _kubelet(self) -> list[str]:
        flags = {
            "config": f"{self._places.settings}/kubelet.yaml",
            "kubeconfig": f"{self._places.keys}/kubelet.kubeconfig",
            "hostname-override": NODE,
            "node-ip": NODE_ADDRESS,
            "root-dir": f"{self._places.run}/kubelet",
            "cert-dir": f"{self._places.run}/kubelet/pki",
        }
        return ["kubelet", *_flags(flags)]

    def _proxy(self) -> list[str]:
        return ["kube-proxy", f"--config={self._places.settings}/kube-proxy.yaml"]


def _flags(flags: Mapping[str, str]) -> list[str]:
    return [f"--{name}={value}" for name, value in flags.items()]


def _pairs(variables: Mapping[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in variables.items()]
