"""What this machine must have: told exactly where it has not, installed where that is possible."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cluster.build import go_problem
from cluster.errors import CANNOT, ClusterError
from cluster.places import HIDDEN, Places

_PLUGIN_FOLDERS = (Path("/usr/lib/cni"), Path("/opt/cni/bin"), Path("/usr/libexec/cni"))
_PROGRAMS = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "iptables": "iptables",
    "ip": "iproute2",
    "openssl": "openssl",
    "mount": "mount",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
    "unshare": "util-linux",
}
"""Programs, by the Debian package that has them."""
_SOCKET_BYTES = 107
"""Of a socket's path, at most: sockaddr_un has room for 108 with the zero."""
_REFUSE_SERVICES = Path("/usr/sbin/policy-rc.d")


@dataclass(frozen=True, slots=True)
class Machine:
    """Where the machine keeps what the settings must name."""

    runc: str
    plugins: Path


def docker_answers() -> bool:
    """Tell whether a Docker daemon is to be had; one that hangs is not, and that is told."""
    if shutil.which("docker") is None:
        return False
    try:
        result = subprocess.run(["docker", "info"], capture_output=True, timeout=30, check=False)
    except subprocess.TimeoutExpired:
        told = "the Docker daemon did not answer within 30 s; the cluster is made without it"
        print(f"weir-cluster: {told}", file=sys.stderr)
        return False
    return result.returncode == 0


def ready(places: Places) -> Machine:
    """Return the machine once everything is there, its packages installed if they were not.

    Raises ClusterError, with code CANNOT, that lists everything that is missing.
    """
    problems = _problems(places)
    if not problems and _missing_packages():
        _install(sorted(_missing_packages()))
    problems += [f"package {name}" for name in sorted(_missing_packages())] if problems else []
    if problems:
        lines = [f"  {problem}" for problem in problems]
        told = "no cluster can be had here: no Docker daemon answers, and without one it needs"
        raise ClusterError("\n".join([told, *lines]), code=CANNOT)
    plugins, runc = _plugins(), shutil.which("runc")
    assert plugins is not None
    assert runc is not None
    _load_modules()
    return Machine(runc=runc, plugins=plugins)


def _problems(places: Places) -> list[str]:
    problems = []
    if os.uname().sysname != "Linux":
        return [f"Linux: saw {os.uname().sysname}"]
    if os.geteuid() != 0:
        problems.append(f"root: saw user id {os.geteuid()}")
    if (problem := go_problem()) is not None:
        problems.append(problem)
    if _missing_packages() and shutil.which("apt-get") is None:
        problems.append("apt-get, to install what is missing")
    for folder in (places.cache, places.work):
        if any(folder.is_relative_to(hidden) for hidden in HIDDEN):
            names = ", ".join(str(hidden) for hidden in HIDDEN)
            problems.append(f"a folder outside {names}: saw {folder}")
    longest = len(os.fsencode(f"{places.socket}.ttrpc"))
    if longest > _SOCKET_BYTES:
        told = f"a shorter path than {places.work} (WEIR_CLUSTER_DIR)"
        problems.append(f"{told}: saw {longest} bytes of a socket's, wanted {_SOCKET_BYTES}")
    return problems


def _missing_packages() -> set[str]:
    missing = {package for name, package in _PROGRAMS.items() if shutil.which(name) is None}
    return missing if _plugins() else missing | {"containernetworking-plugins"}


def _plugins() -> Path | None:
    found = (folder for folder in _PLUGIN_FOLDERS if (folder / "bridge").exists())
    return next(found, None)


def _install(packages: list[str]) -> None:
    print(f"installing {', '.join(packages)}", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}

    def apt(*words: str) -> None:
        command = ["apt-get", "-qq", *words]
        result = subprocess.run(command, env=environment, capture_output=True, text=True)
        if result.returncode != 0:
            raise ClusterError(f"`{' '.join(command)}` failed:\n{result.stderr}", code=CANNOT)

    with _no_services():
        apt("update")
        apt("install", "--no-install-recommends", "--yes", *packages)
    if still := sorted(_missing_packages()):
        raise ClusterError(f"installed, but not found: {', '.join(still)}", code=CANNOT)


@contextmanager
def _no_services() -> Iterator[None]:
    """Keep Debian from starting services of what is installed: ours have their own namespaces."""
    if _REFUSE_SERVICES.exists():
        yield
        return
    _REFUSE_SERVICES.write_text("#!/bin/sh\nexit 101\n", encoding="ascii")
    _REFUSE_SERVICES.chmod(0o755)
    try:
        yield
    finally:
        _REFUSE_SERVICES.unlink()


def _load_modules() -> None:
    """Load the kernel's modules where they are not built in; what fails will be told by its use."""
    if Path("/proc/sys/net/bridge").exists() or shutil.which("modprobe") is None:
        return
    for module in ("br_netfilter", "overlay"):
        subprocess.run(["modprobe", module], capture_output=True, check=False)
