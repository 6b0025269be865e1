"""Who the feed of a real cluster lets in: its own namespace's routers, by their pods' tokens."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass

import grpc
import pytest

from e2e.cluster import Cluster, pod, wait_for
from e2e.faults import ROUTERS, all_ready, name_of
from e2e.weir import SYSTEM, serve
from weir_core.wire import Push, Report, decode_push, encode

FEED = "weir-operator"
METHOD = "/weir.Feed/Stream"


@dataclass(frozen=True)
class Door:
    """The feed as a machine outside reaches it."""

    target: str
    authority: bytes

    def knock(self, token: str) -> Push | grpc.RpcError:
        """Return the first push, or why there is none."""
        credentials = grpc.ssl_channel_credentials(self.authority)
        name = ("grpc.ssl_target_name_override", f"{FEED}.{SYSTEM}.svc")
        metadata = (("authorization", f"Bearer {token}"),)
        with grpc.secure_channel(self.target, credentials, options=(name,)) as channel:
            call = channel.stream_stream(METHOD)(
                iter([encode(Report(start=1, as_of_s=time.time()))]), metadata=metadata, timeout=20
            )
            try:
                return decode_push(next(call))
            except grpc.RpcError as error:
                return error
            finally:
                call.cancel()


@pytest.fixture
def door(weir: Cluster, namespace: str) -> Door:
    """The feed, with a namespace that it serves."""
    if not weir.own:
        pytest.skip("only to hack/cluster's own cluster has this machine a route")
    serve(weir, namespace)
    address = weir.get("service", FEED, "-n", SYSTEM)["spec"]["clusterIP"]
    snapshot = weir.get("configmap", "weir-router-snapshot", "-n", namespace)
    return Door(f"{address}:8443", snapshot["data"]["ca.crt"].encode())


def token(
    weir: Cluster, namespace: str, account: str, *, of: str = "", audience: str = "weir"
) -> str:
    bound = ("--bound-object-kind=Pod", f"--bound-object-name={of}") if of else ()
    words = ("create", "token", account, "-n", namespace, f"--audience={audience}", *bound)
    return weir.kubectl(*words).strip()


def refused(answer: Push | grpc.RpcError, code: str, why: str) -> None:
    assert isinstance(answer, grpc.RpcError), answer
    assert answer.code().name == code, answer
    assert why in answer.details(), answer.details()


@contextlib.contextmanager
def _pretender(weir: Cluster, namespace: str) -> Iterator[str]:
    """A pod with a router's labels and account that no router Deployment has made."""
    made = pod("pretender", command=["sleep", "600"])
    made["metadata"]["labels"] = {"inference.weir.dev/router": "deployment"}
    made["spec"]["serviceAccountName"] = "weir-router"
    weir.apply(made, namespace=namespace)
    try:
        yield "pretender"
    finally:
        weir.kubectl("delete", "pod", "pretender", "-n", namespace, "--wait=false")


def test_only_routers_get_routes_and_only_their_own(
    weir: Cluster, namespace: str, door: Door
) -> None:
    router = name_of(all_ready(weir, namespace, ROUTERS, 2)[0])
    genuine = door.knock(token(weir, namespace, "weir-router", of=router))
    assert isinstance(genuine, Push), genuine
    assert set(genuine.routes) == {f"{namespace}/assistant"}

    small = weir.get("pods", "-n", namespace, "--selector", "inference.weir.dev/backend=small")
    other = token(weir, namespace, "default", of=name_of(small["items"][0]))
    refused(door.knock(other), "PERMISSION_DENIED", "is no router")
    unbound = token(weir, namespace, "weir-router")
    refused(door.knock(unbound), "PERMISSION_DENIED", "bound to no pod")
    for_others = token(weir, namespace, "weir-router", of=router, audience="elsewhere")
    refused(door.knock(for_others), "UNAUTHENTICATED", "refused the token")
    refused(door.knock("no.such.token"), "UNAUTHENTICATED", "refused the token")

    with _pretender(weir, namespace) as name:
        pretends = token(weir, namespace, "weir-router", of=name)
        refused(door.knock(pretends), "PERMISSION_DENIED", "only calls itself a router")
    elsewhere = f"{namespace}-b"
    weir.kubectl("create", "namespace", elsewhere)
    try:
        weir.kubectl("create", "serviceaccount", "weir-router", "-n", elsewhere)
        with _pretender(weir, elsewhere) as name:
            strange = token(weir, elsewhere, "weir-router", of=name)
            refused(door.knock(strange), "PERMISSION_DENIED", "only calls itself a router")
    finally:
        weir.kubectl("delete", "namespace", elsewhere, "--wait=false")


def test_a_token_dies_with_its_pod(weir: Cluster, namespace: str, door: Door) -> None:
    router = name_of(all_ready(weir, namespace, ROUTERS, 2)[0])
    kept = token(weir, namespace, "weir-router", of=router)
    assert isinstance(door.knock(kept), Push)
    weir.kubectl("delete", "pod", router, "-n", namespace, "--force", "--grace-period=0")

    def out() -> bool:
        # The API server and the gatekeeper each believe what they know for up to 10 s.
        answer = door.knock(kept)
        return isinstance(answer, grpc.RpcError) and answer.code().name in (
            "UNAUTHENTICATED",
            "PERMISSION_DENIED",
        )

    with weir.timed("router pod gone until its token is refused"):
        wait_for(out, 45, "the token's refusal")
