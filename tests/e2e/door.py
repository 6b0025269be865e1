"""The operator's feed as whoever has a token reaches it: honest knocks, and forged reports."""

import base64
import contextlib
import json
import queue
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from e2e.cluster import Cluster, pod
from e2e.weir import SYSTEM
from weir_core.wire import Push, Report, decode_push, encode

FEED = "weir-operator"
METHOD = "/weir.Feed/Stream"
ANSWER_S = 20.0
TRIES = 10
Claims = dict[str, Any]


@dataclass
class Line:
    """One stream, whose router is played by hand; another `start` than its own would end it."""

    call: Any
    start: int
    _told: "queue.SimpleQueue[bytes | None]"

    def tell(self, **told: Any) -> None:
        """Send a report."""
        self._told.put(encode(Report(**{"start": self.start, "as_of_s": time.time(), **told})))

    def push(self) -> Push:
        """Return the next push. Raises grpc.RpcError, or StopIteration at the stream's end."""
        return decode_push(next(self.call))

    def ends(self, limit_s: float) -> bool:
        """Listen and report, as a router that lives, and tell whether the stream ends."""
        listener = threading.Thread(target=self._listen, daemon=True)
        listener.start()
        end_s = time.monotonic() + limit_s
        while listener.is_alive() and time.monotonic() < end_s:
            self.tell()
            listener.join(0.5)
        return not listener.is_alive()

    def _listen(self) -> None:
        with contextlib.suppress(grpc.RpcError):
            for _ in self.call:
                continue


@dataclass(frozen=True)
class Door:
    """The feed as a machine outside of the cluster reaches it."""

    target: str
    authority: bytes = field(repr=False)

    @contextlib.contextmanager
    def line(self, token: str, *, start: int = 1, limit_s: float = 180.0) -> Iterator[Line]:
        """Open a stream and send a first report; whether it is admitted shows when it is read."""
        credentials = grpc.ssl_channel_credentials(self.authority)
        name = ("grpc.ssl_target_name_override", f"{FEED}.{SYSTEM}.svc")
        told: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        with grpc.secure_channel(self.target, credentials, options=(name,)) as channel:
            call = channel.stream_stream(METHOD)(
                iter(told.get, None),
                metadata=(("authorization", f"Bearer {token}"),),
                timeout=limit_s,
            )
            line = Line(call, start, told)
            line.tell()
            try:
                yield line
            finally:
                told.put(None)
                call.cancel()

    def knock(self, token: str) -> Push | grpc.RpcError:
        """Return the first push, or why there is none.

        A pod has one stream at a time, so its own router may be quicker to take it back.
        """
        for _ in range(TRIES):
            with self.line(token, limit_s=ANSWER_S) as line:
                try:
                    return line.push()
                except StopIteration:
                    continue
                except grpc.RpcError as error:
                    return error
        raise AssertionError(f"the stream was taken back {TRIES} times before its first push")


def door_of(cluster: Cluster, namespace: str) -> Door:
    """Return the feed, with what a namespace that it serves knows of its authority."""
    address = cluster.get("service", FEED, "-n", SYSTEM)["spec"]["clusterIP"]
    snapshot = cluster.get("configmap", "weir-router-snapshot", "-n", namespace)
    return Door(f"{address}:8443", snapshot["data"]["ca.crt"].encode())


def refused(answer: Push | grpc.RpcError, code: str, why: str) -> None:
    """Assert that somebody was not let in, and told why."""
    assert isinstance(answer, grpc.RpcError), answer
    assert answer.code().name == code, answer
    assert why in answer.details(), answer.details()


# Pods.


@contextlib.contextmanager
def sidecar(cluster: Cluster, namespace: str, name: str) -> Iterator[str]:
    """A pod whose account may use the namespace's routes, with no router in it; return its uid.

    The feed takes it for a sidecar's, so whoever has its token may report what it likes.
    """
    account = ("--serviceaccount", f"{namespace}:{name}", "-n", namespace)
    cluster.kubectl("create", "serviceaccount", name, "-n", namespace)
    cluster.kubectl("create", "rolebinding", name, "--clusterrole=weir-router-use", *account)
    made = pod(name, command=["sleep", "3600"])
    made["metadata"]["labels"] = {"inference.weir.dev/router": "sidecar"}
    made["spec"]["serviceAccountName"] = name
    # Where there is one of this name already, the policy adds no router.
    idle = {**made["spec"]["containers"][0], "name": "weir-router", "command": ["true"]}
    made["spec"]["initContainers"] = [idle]
    cluster.apply(made, namespace=namespace)
    try:
        cluster.wait(f"pod/{name}", "Ready", namespace=namespace)
        yield cluster.get("pod", name, "-n", namespace)["metadata"]["uid"]
    finally:
        cluster.kubectl("delete", "pod", name, "-n", namespace, "--wait=false")


# Tokens.


def token(
    cluster: Cluster, namespace: str, account: str, *, of: str = "", audience: str = "weir"
) -> str:
    """Return a token of an account, bound to a pod or to nothing."""
    bound = ("--bound-object-kind=Pod", f"--bound-object-name={of}") if of else ()
    words = ("create", "token", account, "-n", namespace, f"--audience={audience}", *bound)
    return cluster.kubectl(*words).strip()


def signed_again(token: str, key: ec.EllipticCurvePrivateKey, **changed: Any) -> str:
    """Return a token with other claims, signed as the API server signs its own."""
    header, claims, _ = token.split(".")
    text = f"{header}.{_encoded({**_decoded(claims), **changed})}"
    r, s = decode_dss_signature(key.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
    return f"{text}.{_base64(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def signing_key(cluster: Cluster) -> ec.EllipticCurvePrivateKey:
    """Return the key that hack/cluster's own API server signs tokens with."""
    file = Path(cluster.environment["KUBECONFIG"]).with_name("tokens.key")
    key = serialization.load_pem_private_key(file.read_bytes(), password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey), key
    return key


def _decoded(part: str) -> Claims:
    claims: Claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return claims


def _encoded(claims: Mapping[str, Any]) -> str:
    return _base64(json.dumps(claims).encode())


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
