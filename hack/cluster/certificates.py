"""Keys, certificates and kubeconfigs of one run: new every time, so none is worth stealing."""

import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cluster.places import API_ADDRESS, NODE, NODE_ADDRESS, Places

API = f"https://{NODE_ADDRESS}:6443"
_DAYS = "30"
_SERVER_NAMES = ",".join(
    (
        *("DNS:localhost", f"DNS:{NODE}", "DNS:kubernetes", "DNS:kubernetes.default"),
        *("DNS:kubernetes.default.svc", "DNS:kubernetes.default.svc.cluster.local"),
        *("IP:127.0.0.1", f"IP:{API_ADDRESS}", f"IP:{NODE_ADDRESS}"),
    )
)
_SUBJECTS = {
    "admin": "/O=system:masters/CN=admin",
    "apiserver": "/CN=kube-apiserver",
    "apiserver-kubelet-client": "/O=system:masters/CN=apiserver-kubelet-client",
    "kube-controller-manager": "/CN=system:kube-controller-manager",
    "kube-proxy": "/CN=system:kube-proxy",
    "kube-scheduler": "/CN=system:kube-scheduler",
    "kubelet": f"/O=system:nodes/CN=system:node:{NODE}",
    "kubelet-server": f"/O=system:nodes/CN=system:node:{NODE}",
}
_SERVERS = ("apiserver", "kubelet-server")
_CLIENTS = ("admin", "kube-controller-manager", "kube-proxy", "kube-scheduler", "kubelet")


def make(places: Places) -> None:
    """Write the authority, a pair for each part, the token key, and the kubeconfigs."""
    folder = places.keys
    folder.mkdir(parents=True, mode=0o700)
    (folder / "openssl.conf").write_text("[req]\ndistinguished_name = none\n[none]\n", "ascii")
    _authority(folder)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda name: _pair(folder, name), _SUBJECTS))
    _openssl(folder, "genpkey", *_CURVE, "-out", "tokens.key")
    _openssl(folder, "pkey", "-in", "tokens.key", "-pubout", "-out", "tokens.pub")
    for name in _CLIENTS:
        text = _kubeconfig(folder, name)
        (folder / f"{name}.kubeconfig").write_text(text, encoding="utf8")


_CURVE = ("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")


def _authority(folder: Path) -> None:
    extensions = ("basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign")
    _certificate(folder, "ca", "/CN=weir-cluster", extensions)


def _pair(folder: Path, name: str) -> None:
    extensions = [
        "basicConstraints=CA:FALSE",
        "keyUsage=critical,digitalSignature,keyEncipherment",
        "extendedKeyUsage=serverAuth,clientAuth",
    ]
    if name in _SERVERS:
        extensions.append(f"subjectAltName={_SERVER_NAMES}")
    signer = ("-CA", "ca.crt", "-CAkey", "ca.key")
    _certificate(folder, name, _SUBJECTS[name], tuple(extensions), signer)


def _certificate(
    folder: Path,
    name: str,
    subject: str,
    extensions: tuple[str, ...],
    signer: tuple[str, ...] = (),
) -> None:
    added = [word for extension in extensions for word in ("-addext", extension)]
    _openssl(
        folder,
        *("req", "-config", "openssl.conf", "-x509", "-new", "-nodes", "-days", _DAYS),
        *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
        *("-subj", subject, "-keyout", f"{name}.key", "-out", f"{name}.crt"),
        *added,
        *signer,
    )


def _openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


def _kubeconfig(folder: Path, name: str) -> str:
    return f"""\
apiVersion: v1
kind: Config
clusters:
- name: weir
  cluster: {{server: "{API}", certificate-authority: "{folder}/ca.crt"}}
users:
- name: {name}
  user: {{client-certificate: "{folder}/{name}.crt", client-key: "{folder}/{name}.key"}}
contexts:
- name: weir
  context: {{cluster: weir, user: {name}}}
current-context: weir
"""
