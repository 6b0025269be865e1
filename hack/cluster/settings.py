"""The configuration files of the container runtime, the network plugins, the kubelet, the proxy."""

import json
from pathlib import Path

from cluster.keeper import CGROUP
from cluster.places import DNS_ADDRESS, NODE, NODE_ADDRESS, PODS, Places

_NODE_PODS = "10.244.0.0/24"
"""The first share of PODS: what the controllers give the first node."""


def write(places: Places, *, runc: str, plugins: Path) -> None:
    """Write all of them. `runc` and `plugins` are the machine's, by path."""
    folder = places.settings
    (folder / "network").mkdir(parents=True)
    files = {
        "containerd.toml": _containerd(places, runc, plugins),
        "network/10-bridge.conflist": _network(places),
        "kubelet.yaml": _kubelet(places),
        "kube-proxy.yaml": _proxy(places),
        "resolv.conf": f"nameserver {DNS_ADDRESS}\n",
    }
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf8")


def _containerd(places: Places, runc: str, plugins: Path) -> str:
    """Return what also runs where a process may not lower its OOM score or load AppArmor."""
    return f"""\
version = 2
root = '{places.store}'
state = '{places.run}/containerd'
oom_score = 0
disabled_plugins = [
  'io.containerd.internal.v1.opt',
  'io.containerd.internal.v1.tracing',
  'io.containerd.snapshotter.v1.aufs',
  'io.containerd.snapshotter.v1.btrfs',
  'io.containerd.snapshotter.v1.devmapper',
  'io.containerd.snapshotter.v1.zfs',
  'io.containerd.tracing.processor.v1.otlp',
]
[grpc]
  address = '{places.socket}'
[plugins.'io.containerd.grpc.v1.cri']
  sandbox_image = 'localhost/pause:1'
  restrict_oom_score_adj = true
  disable_apparmor = true
  tolerate_missing_hugetlb_controller = true
  [plugins.'io.containerd.grpc.v1.cri'.containerd]
    default_runtime_name = 'runc'
    snapshotter = 'overlayfs'
    [plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.runc]
      runtime_type = 'io.containerd.runc.v2'
      [plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.runc.options]
        BinaryName = '{runc}'
        SystemdCgroup = false
  [plugins.'io.containerd.grpc.v1.cri'.cni]
    bin_dir = '{plugins}'
    conf_dir = '{places.settings}/network'
"""


def _network(places: Places) -> str:
    addresses = {
        "type": "host-local",
        "dataDir": f"{places.run}/addresses",
        "ranges": [[{"subnet": _NODE_PODS}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    bridge = {
        "type": "bridge",
        "bridge": "pods",
        "isGateway": True,
        "ipMasq": False,
        "hairpinMode": True,
        "ipam": addresses,
    }
    ports = {"type": "portmap", "capabilities": {"portMappings": True}, "snat": False}
    return json.dumps({"cniVersion": "1.0.0", "name": "weir", "plugins": [bridge, ports]})


def _kubelet(places: Places) -> str:
    """Return a kubelet's settings for a machine that is not its own.

    It may run on cgroup version 1, sets no limits on the machine's processes, asks for no
    privilege that a container lacks, and removes no image that stands in the store.
    """
    return f"""\
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
cgroupDriver: cgroupfs
cgroupRoot: /{CGROUP}
enforceNodeAllocatable: []
failSwapOn: false
oomScoreAdj: 0
maxOpenFiles: 20000
authentication:
  x509: {{clientCAFile: "{places.keys}/ca.crt"}}
  anonymous: {{enabled: false}}
  webhook: {{enabled: true}}
authorization: {{mode: Webhook}}
tlsCertFile: "{places.keys}/kubelet-server.crt"
tlsPrivateKeyFile: "{places.keys}/kubelet-server.key"
containerRuntimeEndpoint: "unix://{places.socket}"
address: {NODE_ADDRESS}
clusterDNS: [{DNS_ADDRESS}]
clusterDomain: cluster.local
resolvConf: "{places.settings}/resolv.conf"
podLogsDir: "{places.run}/pods"
volumePluginDir: "{places.run}/plugins"
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
evictionHard:
  memory.available: 100Mi
  nodefs.available: "1%"
  nodefs.inodesFree: "1%"
  imagefs.available: "1%"
"""


def _proxy(places: Places) -> str:
    """Return the proxy's settings. It leaves the connection table's sysctls, the machine's, be."""
    return f"""\
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: iptables
bindAddress: 0.0.0.0
hostnameOverride: {NODE}
clusterCIDR: {PODS}
clientConnection: {{kubeconfig: "{places.keys}/kube-proxy.kubeconfig"}}
conntrack: {{maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}}
healthzBindAddress: 127.0.0.1:10256
metricsBindAddress: 127.0.0.1:10249
"""
