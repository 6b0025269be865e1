"""Where the cluster's parts stand: what is built once and kept, and what one run throws away."""

import os
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
LINK = "weir0"
"""The host's end of the cluster's only cable; its name is how two clusters notice each other."""
HOST_ADDRESS, NODE_ADDRESS = "10.200.0.1", "10.200.0.2"
SERVICES, PODS = "10.96.0.0/16", "10.244.0.0/16"
API_ADDRESS, DNS_ADDRESS = "10.96.0.1", "10.96.0.10"
NODE = "weir-node"
HIDDEN = tuple(Path(name) for name in ("/run", "/var/log", "/var/lib"))
"""Folders that are empty inside the cluster, so nothing of the cluster may stand there."""


@dataclass(frozen=True, slots=True)
class Places:
    """`cache` holds what is built once, `work` the image store and the present run."""

    cache: Path
    work: Path

    @property
    def run(self) -> Path:
        """What one run makes: emptied when the cluster goes down."""
        return self.work / "run"

    @property
    def store(self) -> Path:
        """The container runtime's root: images outlive a run."""
        return self.work / "store"

    @property
    def keys(self) -> Path:
        return self.run / "keys"

    @property
    def settings(self) -> Path:
        return self.run / "settings"

    @property
    def logs(self) -> Path:
        return self.run / "logs"

    @property
    def kubeconfig(self) -> Path:
        return self.keys / "admin.kubeconfig"

    @property
    def discovered(self) -> Path:
        """What kubectl remembers of the API: not to outlive it, as it would in a home folder."""
        return self.run / "kubectl"

    @property
    def socket(self) -> Path:
        return self.run / "containerd.sock"


def places() -> Places:
    """Return the folders that the environment names (XDG_CACHE_HOME, WEIR_CLUSTER_DIR)."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    cache = Path(home).resolve() / "weir" / "cluster"
    work = os.environ.get("WEIR_CLUSTER_DIR") or cache / "work"
    return Places(cache=cache, work=Path(work).resolve())
