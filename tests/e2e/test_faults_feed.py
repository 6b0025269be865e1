"""Who the feed of a real cluster lets in, and what a router keeps of what it heard there."""

import contextlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import grpc
import httpx2
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from e2e.cluster import Cluster, pod, wait_for
from e2e.door import Door, door_of, refused, sidecar, signed_again, signing_key, token
from e2e.faults import (
    ROUTE,
    ROUTERS,
    Watch,
    all_ready,
    kill_process,
    led,
    name_of,
    weights,
)
from e2e.weir import hosted, settled
from weir_core.evidence import CANARY, STABLE, Tally
from weir_core.snapshot import RoutePolicy
from weir_core.wire import Push, unpack
from weir_router.ledger import Ledger

PAUSED = ({"setWeight": 25}, {"pause": {}})
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


# What is kept of it.


def test_a_lowering_outlives_operator_and_router_although_it_was_never_written(
    weir: Cluster, namespace: str, door: Door, router: str
) -> None:
    """Without the API server the snapshot stays old, and a router that starts mounts that."""
    weir.apply(*hosted(tokens=32, steps=PAUSED), namespace=namespace)
    Watch(weir, namespace).until("a canary", lambda now: now.weight == 25)
    wait_for(lambda: set(weights(weir, namespace).values()) == {0.25}, 30, "25 % at routers")
    # The kubelet brings a ConfigMap that changed at the next look at its pod.
    weir.kubectl("annotate", "pod", router, "-n", namespace, "looked=at")
    wait_for(lambda: _mounted(router, namespace) == 2_500, 120, "the canary to be mounted")
    there = {name_of(one): one["status"]["podIP"] for one in all_ready(weir, namespace, ROUTERS, 2)}
    leader = led(weir)
    with sidecar(weir, namespace, "witness"):
        witness = token(weir, namespace, "witness", of="witness")
        with door.line(witness) as line:
            policy = line.push().routes[f"{namespace}/{ROUTE}"].policy
            assert policy is not None
            weir.verb("kill", "apiserver")
            try:
                line.tell(tallies=(_harm(policy),))
                wait_for(lambda: _shares(there) == [0, 0], 30, "the operator's rollback")
                kill_process(leader)
                kill_process(router)
                with weir.timed("router killed, no operator, an old snapshot: until it serves"):
                    wait_for(lambda: _serves(there[router]), 60, "the router that was killed")
                end_s = time.monotonic() + 5
                while time.monotonic() < end_s:
                    assert _shares(there) == [0, 0]
                assert _mounted(router, namespace) == 2_500
            finally:
                weir.verb("start", "apiserver")
                led(weir)


def _mounted(pod: str, namespace: str) -> int:
    """Return the canary's weight in the snapshot that a pod's router has mounted."""
    mark = f"HOSTNAME={pod}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark in (folder / "environ").read_bytes().split(b"\0"):
                packed = unpack((folder / "root/etc/weir/snapshot/snapshot").read_bytes())
                policy = packed.routes[f"{namespace}/{ROUTE}"].policy
                assert policy is not None
                return policy.weight_bp
    return -1


def _harm(policy: RoutePolicy) -> Tally:
    """Return evidence of a canary that fails always beside a stable one that never does."""
    ledger, now_s = Ledger(router="witness", boot="1"), time.time()
    for _ in range(100):
        for arm, failed in ((STABLE, 0), (CANARY, 1)):
            ticket = ledger.assign(policy, arm, "", now_s)
            assert ticket is not None
            ledger.settle(ticket, failed, now_s)
    (tally,) = ledger.tallies(now_s)
    return tally


def _shares(routers: Mapping[str, str]) -> list[float]:
    """Return the canary's share at each address that tells one."""
    found = []
    for address in routers.values():
        with contextlib.suppress(httpx2.HTTPError):
            text = httpx2.get(f"http://{address}:8081/metrics", timeout=5).text
            rows = [row for row in text.splitlines() if row.startswith("weir_canary_weight{")]
            found += [float(row.rpartition(" ")[2]) for row in rows]
    return found


def _serves(address: str) -> bool:
    with contextlib.suppress(httpx2.HTTPError):
        return httpx2.get(f"http://{address}:8081/readyz", timeout=5).is_success
    return False
