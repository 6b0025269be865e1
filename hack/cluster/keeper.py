"""The process that the cluster lives and dies with: it holds the namespaces, and cleans up.

Killed itself, it takes everything with it: the kernel ends its child, that one's child is the
first process of the namespaces, and their end is the end of every process, mount and link in
them. What the kernel leaves are empty cgroups.
"""

import fcntl
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from cluster.errors import ClusterError
from cluster.places import HERE, HOST_ADDRESS, LINK, NODE_ADDRESS, PODS, SERVICES, Places

CGROUP = "weir"
"""Name of the cgroup, below each controller's root, that holds every pod."""
_CGROUPS = Path("/sys/fs/cgroup")


def keep(places: Places, pause: Path, tend: Callable[[Callable[[float], bool]], None]) -> int:
    """Hold the namespaces until they end. Says the first process's pid on standard output.

    `tend` looks after the programs; its argument waits for so many seconds, and is true once all
    is over.

    Standard input is held by the starter: if it closes before a byte has come, the starter is
    gone and so is the cluster.
    """
    with _lock_file(places).open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        _make_cgroups()
        inner = _enter_new(places, pause)
        try:
            first = _first_process(places, inner)
            _connect(first)
            held.write(str(first))
            held.flush()
            print(first, flush=True)
            if sys.stdin.buffer.read(1):
                tend(lambda limit_s: _ends(inner, limit_s))
        finally:
            inner.kill()
            inner.wait()
            clear()
    return 0


def start(places: Places, pause: Path) -> subprocess.Popen[bytes]:
    """Start the keeper and wait until the namespaces stand. Raises ClusterError.

    The caller writes one byte to its standard input once the cluster is to outlive the caller.
    """
    log = places.run / "keeper.log"
    command = [sys.executable, str(HERE / "weir-cluster"), "keep", str(pause)]
    with log.open("wb") as errors:
        keeper = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )
    assert keeper.stdout is not None
    if not keeper.stdout.readline().strip().isdigit():
        raise ClusterError(f"the namespaces could not be made:\n{log.read_text('utf8')[-2_000:]}")
    return keeper


def first_process(places: Places) -> int | None:
    """Return the pid, as the machine sees it, of the first process inside; None: no cluster."""
    file = _lock_file(places)
    if not file.exists():
        return None
    with file.open("r") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            written = held.read().strip()
            return int(written) if written else None
    return None


def clear() -> None:
    """Take away the link, with its routes, and the cgroups. They may be absent."""
    subprocess.run(["ip", "link", "del", LINK], capture_output=True, check=False)
    # A cgroup goes only once the kernel has buried the last process in it.
    if not wait_until(_cgroups_gone, 10.0):
        print(f"cgroups are left: {_cgroup_folders()}", file=sys.stderr)


def wait_until(ready: Callable[[], bool], limit_s: float) -> bool:
    """Ask every 50 ms until it is so; tell whether it was so in time."""
    end = time.monotonic() + limit_s
    while not ready():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def inside(first: int) -> list[str]:
    """Return how a command begins that runs inside the namespaces."""
    return ["nsenter", "--target", str(first), "--net", "--mount", "--pid", "--"]


def _ends(process: subprocess.Popen[bytes], limit_s: float) -> bool:
    try:
        process.wait(limit_s)
    except subprocess.TimeoutExpired:
        return False
    return True


def _lock_file(places: Places) -> Path:
    return places.work / "keeper.lock"


def _enter_new(places: Places, pause: Path) -> subprocess.Popen[bytes]:
    (places.run / "inside").unlink(missing_ok=True)
    return subprocess.Popen(
        [
            *("setpriv", "--pdeathsig", "KILL"),
            *("unshare", "--net", "--mount", "--propagation", "private", "--pid"),
            *("--fork", "--kill-child", "--mount-proc"),
            *(str(HERE / "inside.sh"), str(places.run), str(pause)),
        ],
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
    )


def _first_process(places: Places, inner: subprocess.Popen[bytes]) -> int:
    ready = places.run / "inside"
    wait_until(lambda: ready.exists() or inner.poll() is not None, 20.0)
    if not ready.exists():
        raise ClusterError("inside.sh did not come to its end")
    return children(inner.pid)[0]


def children(pid: int) -> list[int]:
    """Return the pids of a process's children, none if it is gone."""
    try:
        return [int(child) for child in _children_file(pid).read_text("ascii").split()]
    except OSError:
        return []


def _children_file(pid: int) -> Path:
    return Path(f"/proc/{pid}/task/{pid}/children")


def _connect(first: int) -> None:
    """Lay the cable between the machine and the node, and the routes to pods and services."""
    subprocess.run(["ip", "link", "del", LINK], capture_output=True, check=False)
    node = ["nsenter", "--target", str(first), "--net", "ip"]
    for command in (
        [*("ip", "link", "add", LINK, "type", "veth", "peer", "name", "eth0"), "netns", str(first)],
        ["ip", "address", "add", f"{HOST_ADDRESS}/30", "dev", LINK],
        ["ip", "link", "set", LINK, "up"],
        [*node, "address", "add", f"{NODE_ADDRESS}/30", "dev", "eth0"],
        [*node, "link", "set", "eth0", "up"],
        [*node, "route", "add", "default", "via", HOST_ADDRESS],
        ["ip", "route", "add", SERVICES, "via", NODE_ADDRESS],
        ["ip", "route", "add", PODS, "via", NODE_ADDRESS],
    ):
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode != 0:
            raise ClusterError(f"`{' '.join(command)}` failed: {result.stderr.strip()}")


def _cgroup_folders() -> list[Path]:
    """Return the cluster's cgroup below each controller (version 1) or the one root (2)."""
    if (_CGROUPS / "cgroup.controllers").exists():
        return [_CGROUPS / CGROUP]
    return sorted(path / CGROUP for path in _CGROUPS.iterdir() if path.is_dir())


def _make_cgroups() -> None:
    for folder in _cgroup_folders():
        folder.mkdir(exist_ok=True)
        # A cgroup of version 1 starts with no processor and no memory to run on.
        for name in ("cpuset.cpus", "cpuset.mems"):
            if (folder.parent / name).exists():
                shutil.copyfile(folder.parent / name, folder / name)


def _cgroups_gone() -> bool:
    for folder in _cgroup_folders():
        inner = sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True)
        for path in [*inner, folder]:
            try:
                path.rmdir()
            except OSError:
                continue
    return not any(folder.exists() for folder in _cgroup_folders())
