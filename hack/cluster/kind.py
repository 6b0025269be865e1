"""The cluster where a Docker daemon answers: kind's, with the same name, verbs and images."""

import os
import shutil
import subprocess
from pathlib import Path

from cluster.errors import CANNOT, ClusterError
from cluster.places import HERE, Places

NAME = "weir"
_NEEDED = ("kind", "kubectl")


class Kind:
    """One kind cluster. Its programs are containers of its own: none can be killed or started.

    Raises ClusterError where kind itself is missing.
    """

    def __init__(self, places: Places) -> None:
        self._kubeconfig = places.work / "kind.kubeconfig"
        missing = [name for name in _NEEDED if shutil.which(name) is None]
        if missing:
            told = f"a Docker daemon answers, but saw no {' and no '.join(missing)} on the PATH"
            raise ClusterError(
                f"{told} (WEIR_CLUSTER=own makes the cluster without Docker)", code=CANNOT
            )

    def up(self) -> None:
        """Create it if it is not there. Raises ClusterError."""
        self._kubeconfig.parent.mkdir(parents=True, exist_ok=True)
        if self.is_up():
            # Another folder, or its user, may have made it: this one's kubeconfig must be of it.
            self._kind("export", "kubeconfig")
            return
        self._kind("create", "cluster", "--config", str(HERE / "kind.yaml"), "--wait", "300s")

    def down(self) -> None:
        self._kind("delete", "cluster")

    def is_up(self) -> bool:
        """Tell whether kind lists it. Raises ClusterError."""
        command = ["kind", "get", "clusters"]
        listed = subprocess.run(command, capture_output=True, text=True, check=False)
        if listed.returncode != 0:
            raise ClusterError(f"`{' '.join(command)}` failed: {listed.stderr.strip()}")
        return NAME in listed.stdout.split()

    def environment(self) -> dict[str, str]:
        return {"KUBECONFIG": str(self._kubeconfig)}

    def load(self, archive: Path) -> None:
        command = ["kind", "load", "image-archive", str(archive), "--name", NAME]
        if subprocess.run(command, check=False).returncode != 0:
            raise ClusterError(f"{archive}: kind did not load it")

    def execute(self, command: list[str]) -> None:
        """Become a command inside the node. Does not return."""
        os.execvp("docker", ["docker", "exec", "-i", f"{NAME}-control-plane", *command])

    def _kind(self, *words: str) -> None:
        """Run kind on this cluster, by its name and its own kubeconfig. Raises ClusterError."""
        own = [] if "--config" in words else ["--name", NAME]
        command = ["kind", *words, *own, "--kubeconfig", str(self._kubeconfig)]
        if subprocess.run(command, check=False).returncode != 0:
            raise ClusterError(f"`{' '.join(command)}` failed")
