"""Builds the cluster's programs from their Go modules, once for each set of their sources.

What is built stands in a folder named by a key of the sources and the Go version, with a file
`.complete` when it is whole. Two builds never run at once.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cluster.errors import CANNOT, ClusterError
from cluster.places import HERE, Places
from images.archive import Config, Image, docker_archive, layer

GO = "1.26"
"""The Go that Kubernetes 1.36 is made for; with 1.27 its API description comes out malformed."""
TOOLCHAIN = "go1.26.8"
KUBERNETES = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-proxy",
    "kube-scheduler",
    "kubectl",
    "kubelet",
)
COREDNS, PAUSE = "localhost/coredns:1", "localhost/pause:1"
_FLAGS = ("-buildvcs=false", "-trimpath", "-ldflags")
_STAGES = (
    "node/fast/node-initialize",
    "node/heartbeat-with-lease/node-heartbeat-with-lease",
    "pod/fast/pod-ready",
    "pod/fast/pod-complete",
    "pod/fast/pod-delete",
)
"""kwok has no behaviour built in: these files of its module say how fake nodes and pods act."""


@dataclass(frozen=True, slots=True)
class Built:
    """Folders of finished programs. `tools` also has the images pause.tar and coredns.tar."""

    kubernetes: Path
    tools: Path

    @property
    def path(self) -> str:
        """The folders as the PATH takes them."""
        return f"{self.kubernetes}{os.pathsep}{self.tools}"

    def write(self, file: Path) -> None:
        """Note which programs a cluster runs: sources may change while it is up."""
        file.write_text(self.path, encoding="utf8")


def read(file: Path) -> Built:
    """Return what was noted."""
    return Built(*map(Path, file.read_text("utf8").split(os.pathsep)))


def go_problem() -> str | None:
    """Return what is wrong with this machine's Go, None if it can build the programs."""
    if shutil.which("go") is None:
        return f"Go {GO}: saw no `go` on the PATH"
    found = _go_version(dict(os.environ))
    if _newer(found) or found.startswith(f"go{GO}"):
        return None
    return f"Go {GO}: saw {found or 'a go that does not run'}"


def build(places: Places) -> Built:
    """Return the programs, built first where they are not there yet.

    Kubernetes takes 10 minutes of two cores and 3 GB of memory, once. Raises ClusterError.
    """
    sources = HERE / "go"
    with _lock(places.cache / "build.lock"):
        return Built(
            kubernetes=_kept(places, "kubernetes", sources / "kubernetes"),
            tools=_kept(places, "tools", sources / "tools"),
        )


def built(places: Places) -> Built | None:
    """Return the programs if they are there, without building any."""
    sources = HERE / "go"
    folders = [_folder(places, name, sources / name) for name in ("kubernetes", "tools")]
    if all((folder / ".complete").exists() for folder in folders):
        return Built(*folders)
    return None


def _kept(places: Places, name: str, source: Path) -> Path:
    folder = _folder(places, name, source)
    if (folder / ".complete").exists():
        return folder
    print(f"building {name}, once: {folder}", flush=True)
    began = time.monotonic()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if name == "kubernetes":
        _build_kubernetes(source, folder)
    else:
        _build_tools(source, folder)
    (folder / ".complete").touch()
    print(f"built {name} in {time.monotonic() - began:.0f} s", flush=True)
    return folder


def _build_kubernetes(source: Path, folder: Path) -> None:
    version = _kubernetes_version(source / "go.mod")
    major, minor, _ = version.split(".")
    package = "k8s.io/component-base/version"
    flags = f"-s -w -X {package}.gitVersion=v{version}"
    flags += f" -X {package}.gitMajor={major} -X {package}.gitMinor={minor}"
    _go(source, "build", *_FLAGS, flags, "-o", str(folder / "kubernetes"), ".")
    for program in KUBERNETES:
        (folder / program).symlink_to("kubernetes")


def _build_tools(source: Path, folder: Path) -> None:
    _go(source, "build", *_FLAGS, "-s -w", "-o", f"{folder}/", "./coredns", "./pause", "tool")
    kwok = Path(_go(source, "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/kwok"))
    stages = [kwok / "kustomize" / "stage" / f"{name}.yaml" for name in _STAGES]
    parts = [file.read_text("utf8") for file in (source / "kwok.yaml", *stages)]
    (folder / "kwok.yaml").write_text("---\n".join(parts), encoding="utf8")
    for name, program in ((PAUSE, "pause"), (COREDNS, "coredns")):
        with tempfile.TemporaryDirectory() as work:
            content = Path(work) / "layer.tar"
            layer(content, {program: folder / program})
            image = Image(name, Config(entrypoint=(f"/{program}",)), [content])
            docker_archive(folder / f"{program}.tar", [image])


def _folder(places: Places, name: str, source: Path) -> Path:
    """Return the folder whose name says what it was built from."""
    digest = hashlib.sha256(_go_version(_go_environment()).encode())
    for file in sorted(path for path in source.rglob("*") if path.is_file()):
        digest.update(str(file.relative_to(source)).encode() + b"\0" + file.read_bytes())
    return places.cache / f"{name}-{digest.hexdigest()[:12]}"


def _kubernetes_version(module: Path) -> str:
    found = re.search(r"k8s\.io/kubernetes v(\d+\.\d+\.\d+)", module.read_text("utf8"))
    if found is None:
        raise ClusterError(f"{module}: saw no version of k8s.io/kubernetes")
    return found[1]


def _go(source: Path, *arguments: str) -> str:
    """Run Go in a module at low priority and return what it prints. Raises ClusterError."""
    command = ["nice", "-n", "10", "go", *arguments]
    result = subprocess.run(
        command, cwd=source, env=_go_environment(), stdout=subprocess.PIPE, text=True
    )
    if result.returncode != 0:
        raise ClusterError(f"{source.name}: `go {arguments[0]}` failed, its words stand above")
    return result.stdout.strip()


def _go_environment() -> dict[str, str]:
    """Return the environment of every call: a newer Go fetches the one that is wanted."""
    environment = {**os.environ, "CGO_ENABLED": "0"}
    if _newer(_go_version(environment)):
        environment["GOTOOLCHAIN"] = TOOLCHAIN
    return environment


def _go_version(environment: dict[str, str]) -> str:
    """Return "go1.26.8", or nothing where Go does not run."""
    if shutil.which("go") is None:
        raise ClusterError(f"Go {GO}: saw no `go` on the PATH", code=CANNOT)
    command = ["go", "env", "GOVERSION"]
    result = subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True)
    return result.stdout.strip()


def _newer(version: str) -> bool:
    found = re.match(r"go(\d+)\.(\d+)", version)
    major, minor = GO.split(".")
    return found is not None and (int(found[1]), int(found[2])) > (int(major), int(minor))


@contextmanager
def _lock(file: Path) -> Iterator[None]:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("waiting for another build to end", flush=True)
            fcntl.flock(held, fcntl.LOCK_EX)
        yield
