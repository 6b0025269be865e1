"""The router in a pod or beside an application: policy by the feed, nothing decided here.

It needs no Kubernetes permission and, once it has a snapshot, nobody else to go on serving.
"""

import asyncio
import logging
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from weir_router import app
from weir_router.clock import steady_clock
from weir_router.explain import explain
from weir_router.feed import Feed, Link
from weir_router.ledger import Ledger
from weir_router.load import Bounds
from weir_router.obedience import Obedience
from weir_router.past import PastFile
from weir_router.peers import Brought, Peers, mark_of
from weir_router.process import (
    admin_server,
    brake,
    front_server,
    listen,
    run_until_stopped,
    told_to,
)
from weir_router.serve import Router
from weir_router.server import ServerLimits
from weir_router.telemetry import Metrics
from weir_router.upstreams import Keys, Upstreams

DRAIN_SLACK_S = 2
AUDITS_S = 2.0
"""How long the end waits for audits under way; their requests are answered."""
STATE_FILE = "router.json"
log = logging.getLogger("weir")


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a router in a pod can be told. Ports may be 0: any free one.

    `peers` is host:port that the routers of the namespace manage themselves at, None for a
    router that answers for itself alone; `mark` is this one's among them.
    """

    namespace: str
    pod_name: str
    pod_uid: str
    feed: tuple[str, int]
    peers: tuple[str, int] | None = None
    mark: str = ""
    snapshot_dir: Path = Path("/etc/weir/snapshot")
    token: Path = Path("/var/run/secrets/weir/token")
    keys_dir: Path = Path("/etc/weir/keys")
    state_dir: Path = Path("/var/lib/weir")
    sidecar: bool = False
    host: str = "0.0.0.0"
    port: int = 8080
    management_host: str = "0.0.0.0"
    management_port: int = 8081
    limits: ServerLimits = ServerLimits()
    bounds: Bounds = Bounds()


def from_environment(environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings. Raises ValueError that names the variable, what it is and should be."""
    told: dict[str, Any] = {}
    for field in ("namespace", "pod_name", "pod_uid"):
        name = f"WEIR_{field.upper()}"
        told[field] = environ.get(name, "")
        if not told[field]:
            raise ValueError(f"{name}: saw nothing, wanted the pod's own (fieldRef)")
    told["feed"] = _address(environ, "WEIR_FEED", "of the operator's feed")
    if environ.get("WEIR_PEERS"):
        told["peers"] = _address(environ, "WEIR_PEERS", "of the namespace's routers")
        told["mark"] = _mark(environ)
    sidecar = told["sidecar"] = environ.get("WEIR_SIDECAR", "") not in ("", "0")
    paths = {
        "snapshot_dir": "WEIR_SNAPSHOT_DIR",
        "token": "WEIR_TOKEN_FILE",
        "keys_dir": "WEIR_KEYS_DIR",
        "state_dir": "WEIR_STATE_DIR",
    }
    told |= {field: Path(environ[name]) for field, name in paths.items() if environ.get(name)}
    told["host"] = environ.get("WEIR_HOST") or ("127.0.0.1" if sidecar else "0.0.0.0")
    told["port"] = _port(environ, "WEIR_PORT", 8089 if sidecar else 8080)
    told["management_port"] = _port(environ, "WEIR_MANAGEMENT_PORT", 8081)
    return Settings(**told)


def _address(environ: Mapping[str, str], name: str, whose: str) -> tuple[str, int]:
    text = environ.get(name, "")
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65_536:
        raise ValueError(f"{name}: saw {text!r}, wanted host:port {whose}")
    return host.strip("[]"), int(port)


def _mark(environ: Mapping[str, str]) -> str:
    text = environ.get("WEIR_POD_IP", "")
    try:
        return mark_of(text)
    except ValueError:
        raise ValueError(f"WEIR_POD_IP: saw {text!r}, wanted the pod's own (fieldRef)") from None


def _port(environ: Mapping[str, str], name: str, default: int) -> int:
    text = environ.get(name) or str(default)
    if not text.isdigit() or int(text) > 65_535:
        raise ValueError(f"{name}: saw {text!r}, wanted a port")
    return int(text)


class Pod:
    """What the management address of a pod tells beside its metrics."""

    def __init__(self, router: Router, obedience: Obedience, feed: Feed) -> None:
        self._router = router
        self._obedience = obedience
        self._feed = feed

    def ready(self) -> str:
        """Return why this router takes no requests, "" when it does."""
        if self._obedience.draining:
            return "draining"
        return "" if self._obedience.any else f"no snapshot yet: {self._feed.why}"

    def explain(self, body: bytes, headers: dict[str, str]) -> dict[str, Any]:
        """Return what would be decided for a request, without calling a model."""
        return explain(self._router.table, body, headers)


def serve(settings: Settings, *, said: Callable[[str], None] = print) -> None:
    """Serve until SIGTERM or SIGINT. Raises OSError when an address is taken."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(settings, said))


async def _serve(settings: Settings, said: Callable[[str], None]) -> None:
    clock = steady_clock()
    doors = (
        listen(settings.host, settings.port),
        listen(settings.management_host, settings.management_port),
    )
    metrics = Metrics()
    obedience = Obedience(
        name=settings.pod_name,
        sidecar=settings.sidecar,
        file=PastFile(settings.state_dir / STATE_FILE, clock=clock),
        clock=clock,
    )
    keys = Keys(settings.keys_dir, "Secret weir-router-keys")
    upstreams = Upstreams(keys, told_to(metrics))
    router = Router(
        name=settings.pod_name,
        mark=settings.mark,
        ledger=Ledger(router=settings.pod_uid, boot=str(obedience.start)),
        upstreams=upstreams,
        metrics=metrics,
        clock=clock,
        bounds=settings.bounds,
        on_trip=obedience.tripped,
    )
    obedience.attach(router, upstreams.out)
    feed = Feed(
        _link(settings),
        obedience=obedience,
        ledger=router.ledger,
        clock=clock,
        turned=lambda connected: metrics.gauge("weir_feed_connected", (), float(connected)),
    )
    pod = Pod(router, obedience, feed)
    peers = _peers(settings, metrics)
    front = front_server(router, app.public(router, pod, peers), settings.limits)
    admin = admin_server(app.pod(router, pod))
    loops = [asyncio.create_task(feed.run()), asyncio.create_task(brake(router))]

    async def drain() -> None:
        obedience.drain()
        front.config.timeout_graceful_shutdown = _longest_s(router) + DRAIN_SLACK_S
        log.info("draining", extra={"in_flight": router.load.in_flight})

    try:
        await run_until_stopped(front, admin, doors, said, drain=drain)
        await router.auditor.stop(AUDITS_S)
        await feed.end()
    finally:
        await _end(loops)
        upstreams.close()
        if peers is not None:
            peers.close()
    # Only of an end that came this far can it be said that it was in order.
    obedience.end()
    log.info("stopped", extra={"start": obedience.start})


async def _end(loops: list["asyncio.Task[None]"]) -> None:
    for loop in loops:
        loop.cancel()
    await asyncio.gather(*loops, return_exceptions=True)


def _longest_s(router: Router) -> int:
    """Return the longest deadline of any request that may be in flight."""
    routes = router.table.routes.values()
    deadlines = [arm.behaviour.deadline_ms for r in routes for arm in r.arms if arm is not None]
    return math.ceil(max(deadlines, default=0) / 1_000)


def _peers(settings: Settings, metrics: Metrics) -> Peers | None:
    if settings.peers is None:
        return None

    def counted(brought: Brought) -> None:
        metrics.count("weir_labels_elsewhere", (brought,))

    return Peers(settings.peers, mark=settings.mark, counted=counted)


def _link(settings: Settings) -> Link:
    host, port = settings.feed
    return Link(
        host=host,
        port=port,
        server=host,
        token=settings.token,
        ca=settings.snapshot_dir / "ca.crt",
        snapshot=settings.snapshot_dir / "snapshot",
    )
