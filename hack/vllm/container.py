"""One container of a pod template, run in Linux namespaces: no image, no runtime, no cluster.

The root file system holds this machine's system folders, an environment that has vLLM, and what
the template mounts. Command, arguments, environment, user, privileges and volumes are as rendered;
the command is process 1 there, as in a pod. Mounts are made in the caller's own mount namespace
(`run.sh` makes one), so they end with it. What is not had: seccomp, cgroups, an image's own
environment but for PATH.
"""

import itertools
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Obj = dict[str, Any]

SYSTEM = ("usr", "bin", "sbin", "lib", "lib64", "etc", "sys", "opt")
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_numbers = itertools.count(1)


class Container:
    """A started container; `end` it in any case."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self._process = process
        self.log = log

    @property
    def exit_code(self) -> int | None:
        """As the kubelet tells it: 128 and the signal's number where a signal ended it."""
        code = self._process.poll()
        return 128 - code if code is not None and code < 0 else code

    def signal(self, number: int) -> None:
        """Send a signal to process 1, as a runtime does; nothing where it has ended."""
        if self._process.poll() is None:
            os.kill(self._first(), number)

    def wait(self, limit_s: float) -> bool:
        """Return whether it has ended within a time."""
        try:
            self._process.wait(limit_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def end(self) -> None:
        """Kill it with all its processes."""
        self._process.kill()
        self._process.wait()

    def process(self, file: str) -> str:
        """Return what /proc has of process 1, such as `status`. Raises OSError once it ended."""
        return Path(f"/proc/{self._first()}/{file}").read_text()

    def _first(self) -> int:
        outer = self._process.pid
        children = Path(f"/proc/{outer}/task/{outer}/children").read_text().split()
        if not children:
            raise ProcessLookupError(f"process 1 of the container at {self.log.parent} has ended")
        return int(children[0])


def start(spec: Obj, *, programs: Path, claims: Mapping[str, Path], work: Path) -> Container:
    """Start the only container of a pod spec.

    `programs` is a Python environment that has the command; `claims` are folders that stand for
    PersistentVolumeClaims, by name.
    """
    (container,) = spec["containers"]
    place = work / f"container-{next(_numbers)}"
    root = place / "root"
    _lay_system(root, programs)
    _lay_volumes(root, spec, container, claims)
    log = place / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                *("unshare", "--mount", "--ipc", "--uts", "--pid", "--fork", "--kill-child"),
                *("--mount-proc", "--root", str(root), "--wd", "/"),
                *("setpriv", *_privileges(spec, container), "--"),
                *(*container["command"], *container["args"]),
            ],
            env={"PATH": f"{programs}/bin:/usr/bin:/bin"} | _environment(container),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    return Container(process, log)


def _lay_system(root: Path, programs: Path) -> None:
    for name in ("proc", "dev/shm", "tmp"):
        (root / name).mkdir(parents=True)
    (root / "tmp").chmod(0o1777)
    for name in SYSTEM:
        whole = Path("/") / name
        if whole.is_symlink():
            (root / name).symlink_to(whole.readlink())
        elif whole.is_dir():
            _bind(whole, root / name, read_only=name != "sys")
    for name in DEVICES:
        (root / "dev" / name).touch()
        _run("mount", "--bind", f"/dev/{name}", str(root / "dev" / name))
    interpreter = (programs / "bin" / "python").resolve()
    for folder in {programs, interpreter.parents[1]}:
        if folder.parts[1] not in SYSTEM:
            _bind(folder, root / folder.relative_to("/"), read_only=True)


def _lay_volumes(root: Path, spec: Obj, container: Obj, claims: Mapping[str, Path]) -> None:
    volumes = {one["name"]: one for one in spec["volumes"]}
    group = spec["securityContext"].get("fsGroup", -1)
    for mount in container["volumeMounts"]:
        volume, at = volumes[mount["name"]], root / mount["mountPath"].lstrip("/")
        at.mkdir(parents=True, exist_ok=True)
        if "persistentVolumeClaim" in volume:
            claim = volume["persistentVolumeClaim"]
            _bind(claims[claim["claimName"]], at, read_only=mount.get("readOnly", False))
            continue
        kind = volume["emptyDir"]
        if kind.get("medium") == "Memory":
            size = kind["sizeLimit"].removesuffix("i").lower()
            _run("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(at))
        os.chown(at, -1, group)
        at.chmod(0o2777)


def _privileges(spec: Obj, container: Obj) -> list[str]:
    """Return `setpriv` options for the two security contexts, but for what no one user maps to."""
    pod, own = spec["securityContext"], container["securityContext"]
    told = ["--bounding-set=-all", "--inh-caps=-all"] if own["capabilities"]["drop"] else []
    if not own["allowPrivilegeEscalation"]:
        told.append("--no-new-privs")
    if may_change_user():
        told += [f"--reuid={pod['runAsUser']}", f"--regid={pod['runAsGroup']}"]
        told.append(f"--groups={pod['fsGroup']}")
    return told


def may_change_user() -> bool:
    """Return whether this user namespace has other users than the own one."""
    length = Path("/proc/self/uid_map").read_text().split()[2]
    return os.geteuid() == 0 and int(length) > 1


def _environment(container: Obj) -> dict[str, str]:
    return {one["name"]: one["value"] for one in container["env"]}


def _bind(source: Path, target: Path, *, read_only: bool) -> None:
    target.mkdir(parents=True, exist_ok=True)
    _run("mount", "--rbind", str(source), str(target))
    if read_only:
        _run("mount", "-o", "remount,bind,ro", str(target))


def _run(*command: str) -> None:
    assert shutil.which(command[0]), f"{command[0]} is not there"
    subprocess.run(command, check=True)
