"""Both ends of the feed on loopback: real gRPC, real TLS, an API server that is a dictionary."""

import asyncio
import base64
import contextlib
import itertools
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import grpc
from grpc import aio

from support.routes import policy as a_policy
from support.routes import revision
from weir_core.evidence import Tally
from weir_core.snapshot import Limits, RoutePolicy
from weir_core.wire import Packed, Push, Report, Routed, decode_push, encode, pack
from weir_operator.certs import rotate
from weir_operator.feed import Connected, Feed, Pace
from weir_operator.gatekeeper import Gatekeeper
from weir_operator.kube import KubeError
from weir_router.clock import steady_clock
from weir_router.feed import METHOD, Link
from weir_router.feed import Feed as RouterFeed
from weir_router.feed import Pace as RouterPace
from weir_router.ledger import Ledger
from weir_router.obedience import Obedience
from weir_router.past import PastFile
from weir_router.serve import Router
from weir_router.telemetry import Metrics
from weir_router.upstreams import Keys, Upstreams

NAMES = ("weir-operator.weir.svc",)
QUICK = RouterPace(retry=0.05, retry_most=0.2, first=0.3, look=0.05, silent=2.0)
_SERIAL = itertools.count(1)


def token(*, expires_s: float = 600.0) -> str:
    """Return a token as the API server writes them, unlike any other; its signature is none."""
    claims = {"exp": int(time.time() + expires_s), "jti": next(_SERIAL)}
    parts = ({"alg": "none"}, claims)
    texts = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode() for part in parts]
    return ".".join([*(text.rstrip("=") for text in texts), "signature"])


class Api:
    """What the gatekeeper asks, answered from dictionaries. `down` fails every question."""

    def __init__(self) -> None:
        self.reviews: dict[str, dict[str, Any]] = {}
        self.pods: dict[tuple[str, str], dict[str, Any]] = {}
        self.users: set[tuple[str, str]] = set()
        self.asked: list[str] = []
        self.down = False

    async def token_review(self, token: str) -> dict[str, Any]:
        self._ask("token_review")
        return self.reviews.get(token, {"error": "invalid bearer token"})

    async def access_review(self, user: str, groups: list[str], namespace: str) -> bool:
        self._ask("access_review")
        return (user, namespace) in self.users

    async def pod(self, namespace: str, name: str) -> dict[str, Any] | None:
        self._ask("pod")
        return self.pods.get((namespace, name))

    def _ask(self, question: str) -> None:
        self.asked.append(question)
        if self.down:
            raise KubeError(0, "connection refused")

    def router(
        self,
        name: str = "weir-router-5d8f9c7b6-aaaaa",
        *,
        namespace: str = "llm",
        label: str = "deployment",
        account: str = "weir-router",
        owner: str = "weir-router-5d8f9c7b6",
        expires_s: float = 600.0,
    ) -> str:
        """Make a pod that runs a router, and return its token."""
        uid = f"uid-of-{name}"
        self.pods[namespace, name] = {
            "metadata": {
                "name": name,
                "namespace": namespace,
                "uid": uid,
                "labels": {"inference.weir.dev/router": label},
                "ownerReferences": [
                    {
                        "apiVersion": "apps/v1",
                        "kind": "ReplicaSet",
                        "name": owner,
                        "uid": "uid-of-owner",
                        "controller": True,
                    }
                ],
            },
            "spec": {"serviceAccountName": account},
        }
        made = token(expires_s=expires_s)
        self.reviews[made] = {
            "authenticated": True,
            "audiences": ["weir"],
            "user": {
                "username": f"system:serviceaccount:{namespace}:{account}",
                "groups": ["system:serviceaccounts"],
                "extra": {
                    "authentication.kubernetes.io/pod-name": [name],
                    "authentication.kubernetes.io/pod-uid": [uid],
                },
            },
        }
        return made


class Operator:
    """The operator's end. `woken` are the namespaces that it was told of, `terms` later terms."""

    def __init__(
        self,
        api: Api,
        *,
        term: int = 1,
        pace: Pace | None = None,
        secret: dict[str, bytes] | None = None,
        names: Sequence[str] = NAMES,
    ) -> None:
        self.api = api
        self.secret, self.bundle = rotate(secret or {}, names=names, now_s=time.time())
        self.woken: list[str] = []
        self.terms: list[int] = []
        self.term = term
        self.feed = Feed(
            Gatekeeper(api),
            term=term,
            on_report=self.woken.append,
            on_term=self.terms.append,
            pace=pace or Pace(),
        )
        self.port = 0
        self._number = 0

    async def start(self, port: int = 0) -> None:
        """Listen on loopback."""
        serving = {"certificate": self.secret["tls.crt"], "key": self.secret["tls.key"]}
        self.port = await self.feed.start(f"127.0.0.1:{port}", **serving)

    def routed(self, *policies: RoutePolicy) -> dict[str, Routed]:
        """Return the policies at new versions."""
        self._number += 1
        version = (self.term, self._number)
        return {f"{p.namespace}/{p.name}": Routed(version=version, policy=p) for p in policies}

    def seen(self) -> Connected:
        """Return the one router of the namespace llm as the operator knows it."""
        (one,) = self.feed.connected("llm")
        return one

    def start_seen(self) -> int:
        """Return the start count of the one router, 0 while there is none."""
        found = self.feed.connected("llm")
        return found[0].report.start if found else 0

    def assigned(self) -> tuple[int, int]:
        """Return what the one router's young evidence counts as assigned, by arm."""
        rows = [cell.counts for t in self.seen().report.tallies for cell in t.cells]
        return sum(row[0] for row in rows), sum(row[1] for row in rows)

    def obeyed(self, routes: dict[str, Routed]) -> Callable[[], bool]:
        """Return a question: does the one router obey exactly these?"""
        wanted = {key: one.version for key, one in routes.items()}
        return lambda: [one.report.acks for one in self.feed.connected("llm")] == [wanted]

    def publish(
        self,
        *policies: RoutePolicy,
        namespace: str = "llm",
        limits: dict[str, Limits] | None = None,
    ) -> dict[str, Routed]:
        """Publish these as a namespace's routes, all of them changed."""
        routes = self.routed(*policies)
        self.feed.publish(namespace, routes, limits or {})
        return routes


@contextlib.asynccontextmanager
async def operating(
    api: Api | None = None, *, port: int = 0, **told: Any
) -> AsyncIterator[Operator]:
    """Run the operator's end for the time of a test, or of a part of it."""
    operator = Operator(api or Api(), **told)
    await operator.start(port)
    try:
        yield operator
    finally:
        await operator.feed.stop(0.2)


class Line:
    """A stream of a router that a test plays by hand."""

    def __init__(self, call: Any) -> None:
        self.call = call

    async def push(self) -> Push:
        """Return the next push that says something."""
        while True:
            data = await self.call.read()
            if data is aio.EOF:
                raise EOFError
            push = decode_push(data)
            if push != Push(term=push.term):
                return push

    async def tell(self, **told: Any) -> None:
        """Send a report."""
        await self.call.write(encode(Report(**({"start": 1, "as_of_s": time.time()} | told))))

    async def end(self) -> tuple[str, str]:
        """Read to the end and return the status and its words."""
        try:
            while await self.call.read() is not aio.EOF:
                continue
        except aio.AioRpcError as error:
            return error.code().name, error.details() or ""
        return (await self.call.code()).name, ""


@contextlib.asynccontextmanager
async def line(
    operator: Operator, token: str | None, *, bundle: bytes = b""
) -> AsyncIterator[Line]:
    """Open a stream to the operator with this token; it may be refused."""
    options = (
        ("grpc.ssl_target_name_override", NAMES[0]),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.max_receive_message_length", -1),
    )
    credentials = grpc.ssl_channel_credentials(bundle or operator.bundle)
    target = f"ipv4:127.0.0.1:{operator.port}"
    async with aio.secure_channel(target, credentials, options=options) as channel:
        metadata = (("authorization", f"Bearer {token}"),) if token is not None else ()
        yield Line(channel.stream_stream(METHOD)(metadata=metadata))


class PodFiles:
    """The files of one pod: token, CA, snapshot, state."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.token, self.ca = folder / "token", folder / "ca.crt"
        self.snapshot, self.state = folder / "snapshot", folder / "router.json"

    def mount(self, routes: dict[str, Routed]) -> None:
        """Mount a snapshot, as the kubelet does: by renaming."""
        beside = self.folder / "snapshot.new"
        beside.write_bytes(pack(Packed(routes=routes)))
        beside.replace(self.snapshot)


class RouterPod:
    """The router's end, with a real router; `feed` dials the port that `port` says."""

    def __init__(
        self,
        files: PodFiles,
        *,
        name: str = "weir-router-5d8f9c7b6-aaaaa",
        port: int = 1,
        sidecar: bool = False,
        pace: RouterPace = QUICK,
        clock: Callable[[], float] | None = None,
        coin: Callable[[], float] = lambda: 0.5,
        host: str = "127.0.0.1",
        kind: type[Router] = Router,
    ) -> None:
        self.files = files
        self.clock = clock or steady_clock()
        self.obedience = Obedience(
            name=name,
            sidecar=sidecar,
            file=PastFile(files.state, clock=self.clock),
            clock=self.clock,
        )
        self.upstreams = Upstreams(Keys(None))
        self.router = kind(
            name=name,
            ledger=Ledger(router="its own claim", boot="its own claim"),
            upstreams=self.upstreams,
            metrics=Metrics(),
            clock=self.clock,
            coin=coin,
            on_trip=self.obedience.tripped,
        )
        self.obedience.attach(self.router, self.upstreams.out)
        link = Link(
            host=host,
            port=port,
            server=NAMES[0],
            token=files.token,
            ca=files.ca,
            snapshot=files.snapshot,
        )
        self.feed = RouterFeed(
            link,
            obedience=self.obedience,
            ledger=self.router.ledger,
            clock=self.clock,
            pace=pace,
        )

    def policy(self, key: str = "llm/assistant") -> RoutePolicy:
        """Return what the router obeys of a route."""
        return self.router.table.routes[key].policy

    def serve(
        self, arm: int, *, failed: int = 0, times: int = 1, key: str = "llm/assistant"
    ) -> None:
        """Draw requests for an arm and settle them at once."""
        for _ in range(times):
            now_s = self.clock()
            ticket = self.router.ledger.assign(self.policy(key), arm, "", now_s)
            assert ticket is not None
            self.router.ledger.settle(ticket, failed, now_s)


@contextlib.asynccontextmanager
async def routing(
    folder: Path, operator: Operator | None = None, **told: Any
) -> AsyncIterator[RouterPod]:
    """Run a router's end in a folder. It is no orderly end unless the test makes one."""
    files = PodFiles(folder)
    if operator is not None:
        told.setdefault("port", operator.port)
        files.ca.write_bytes(operator.bundle)
        if not files.token.exists():
            name = told.setdefault("name", "weir-router-5d8f9c7b6-aaaaa")
            files.token.write_text(operator.api.router(name))
    pod = RouterPod(files, **told)
    task = asyncio.create_task(pod.feed.run())
    try:
        yield pod
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        pod.upstreams.close()


def rolling(weight_bp: int = 5_000, **changes: Any) -> RoutePolicy:
    """Return the assistant with a canary at a weight, and an objective on errors."""
    fields: dict[str, Any] = {
        "canary": revision("assistant-0000000002"),
        "attempt": 1,
        "weight_bp": weight_bp,
    }
    return a_policy(**(fields | changes))


def tally_of(route: RoutePolicy, *, served: int = 3) -> Tally:
    """Return what a ledger reports of a route that calls itself somebody else."""
    ledger = Ledger(router="forged", boot="forged")
    now_s = time.time()
    for n in range(served):
        ticket = ledger.assign(route, n % 2, "", now_s)
        assert ticket is not None
        ledger.settle(ticket, n % 2, now_s)
    return ledger.tallies(now_s)[0]
