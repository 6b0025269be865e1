"""Who the feed of a real cluster lets in: its own namespace's routers, by their pods' tokens."""

import contextlib
import time
from collections.abc import Iterator

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from e2e.cluster import Cluster, pod, wait_for
from e2e.door import Door, door_of, refused, sidecar, signed_again, signing_key, token
from e2e.faults import ROUTERS, all_ready, name_of
from e2e.weir import hosted, settled
from weir_core.wire import Push

LATE_S = 60
"""More than a token may open anything once it, or its pod, is over."""


@pytest.fixture
def door(weir: Cluster, namespace: str) -> Door:
    """The feed, with a namespace that it serves."""
    if not weir.own:
        pytest.skip("only to hack/cluster's own cluster has this machine a route")
    weir.apply(*hosted(), namespace=namespace)
    settled(weir, "assistant", namespace)
    return door_of(weir, namespace)


@pytest.fixture
def router(weir: Cluster, namespace: str, door: Door) -> str:
    """The name of one of two routers."""
    return name_of(all_ready(weir, namespace, ROUTERS, 2)[0])


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
    weir: Cluster, namespace: str, door: Door, router: str
) -> None:
    genuine = door.knock(token(weir, namespace, "weir-router", of=router))
    assert isinstance(genuine, Push), genuine
    assert set(genuine.routes) == {f"{namespace}/assistant"}

    weir.apply(pod("other", command=["sleep", "600"]), namespace=namespace)
    refused(
        door.knock(token(weir, namespace, "default", of="other")), "PERMISSION_DENIED", "no router"
    )
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


def test_a_token_ends_with_its_time(weir: Cluster, namespace: str, door: Door, router: str) -> None:
    """The API server gives none for less than ten minutes, so these are signed with its key."""
    genuine, key = token(weir, namespace, "weir-router", of=router), signing_key(weir)
    now_s = int(time.time())
    good = signed_again(genuine, key, jti="another")
    assert isinstance(door.knock(good), Push)
    # The API server itself takes tokens for a minute longer.
    past = signed_again(genuine, key, iat=now_s - 700, nbf=now_s - 700, exp=now_s - 100)
    refused(door.knock(past), "UNAUTHENTICATED", "token")
    forged = signed_again(genuine, ec.generate_private_key(ec.SECP256R1()))
    refused(door.knock(forged), "UNAUTHENTICATED", "refused the token")

    with sidecar(weir, namespace, "patient"):
        short = token(weir, namespace, "patient", of="patient")
        short = signed_again(short, key, exp=int(time.time()) + 8)
        with door.line(short) as line, weir.timed("token of 8 s until its stream ends"):
            assert line.push().complete
            assert line.ends(LATE_S)


def test_a_token_dies_with_its_pod(weir: Cluster, namespace: str, door: Door, router: str) -> None:
    kept = token(weir, namespace, "weir-router", of=router)
    assert isinstance(door.knock(kept), Push)
    weir.kubectl("delete", "pod", router, "-n", namespace, "--force", "--grace-period=0")
    with weir.timed("router pod gone until its token is refused"):
        wait_for(lambda: _is_out(door, kept), LATE_S, "the token's refusal")


def _is_out(door: Door, token: str) -> bool:
    """Tell whether a token opens nothing; the API server and the gatekeeper believe what they know
    for up to 10 s each.
    """
    answer = door.knock(token)
    codes = ("UNAUTHENTICATED", "PERMISSION_DENIED")
    return isinstance(answer, grpc.RpcError) and answer.code().name in codes
