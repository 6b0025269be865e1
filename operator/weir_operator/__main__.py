"""`python -m weir_operator`: the control plane of one cluster, or of some namespaces of it."""

import asyncio
import base64
import json
import logging
import signal
import sys
import time
from datetime import UTC, datetime
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry, start_http_server

from weir_operator import certs
from weir_operator.apply import Applier
from weir_operator.cache import Cache
from weir_operator.feed import Feed
from weir_operator.gatekeeper import Gatekeeper
from weir_operator.handlers import MADE, WRITTEN, follow, kopf_operator, prime
from weir_operator.kube import Kube, KubeError
from weir_operator.leader import Leader
from weir_operator.mark import keep_marked
from weir_operator.routers import RouterSettings
from weir_operator.settings import Settings, from_environment
from weir_operator.signs import Signs
from weir_operator.telemetry import Metrics
from weir_operator.walk import Walker
from weir_operator.workloads import WorkloadSettings

SECRET = "weir-operator-feed"
"""The Secret of the feed's certificate authorities and serving certificate."""
CERTIFICATES_S = 3_600.0
log = logging.getLogger("weir.operator")


class Operator:
    """One process: waits for its turn, then acts until it loses it or is stopped."""

    def __init__(self, settings: Settings, kube: Kube) -> None:
        self._settings = settings
        self._kube = kube
        self._leader = Leader(
            kube, namespace=settings.namespace, name=settings.lease, identity=settings.identity
        )
        self._signs = Signs(settings.health_port)
        self._stop = asyncio.Event()
        self._walker: Walker | None = None

    async def run(self) -> None:
        """Serve until told to stop or until another one leads."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        self._signs.start()
        stopped = asyncio.create_task(self._stop.wait())
        turn = asyncio.create_task(self._leader.acquire())
        beat = asyncio.create_task(self._signs.beat())
        await asyncio.wait((stopped, turn, beat), return_when=asyncio.FIRST_COMPLETED)
        try:
            if turn.done() and not self._stop.is_set():
                log.info("leads", extra={"term": self._leader.term})
                await self._lead(stopped)
        finally:
            for task in (stopped, turn, beat):
                task.cancel()
            await self._leader.release()

    async def _lead(self, stopped: asyncio.Task[bool]) -> None:
        namespaces = self._settings.namespaces
        cache = Cache(self._wake)
        feed = Feed(Gatekeeper(self._kube), term=self._leader.term, on_report=self._wake)
        applier = Applier(
            self._kube,
            cache,
            routers=msgspec.convert(dict(self._settings.router), RouterSettings),
            workloads=msgspec.convert(dict(self._settings.workloads), WorkloadSettings),
        )
        versions = await prime(self._kube, cache, namespaces)
        await self._certify(feed, applier, start=True)
        self._walker = Walker(
            kube=self._kube,
            cache=cache,
            feed=feed,
            leader=self._leader,
            applier=applier,
            max_routers=self._settings.max_routers,
            clock=time.time,
        )
        registry = CollectorRegistry()
        registry.register(Metrics(self._kube, self._leader, self._walker))
        metrics, _ = start_http_server(self._settings.metrics_port, registry=registry)
        for namespace in cache.namespaces(*WRITTEN):
            self._walker.wake(namespace)
        ended = asyncio.Event()
        tasks = [
            asyncio.create_task(self._leader.keep()),
            asyncio.ensure_future(kopf_operator(cache, namespaces, ended)),
            asyncio.create_task(self._renew(feed, applier)),
            asyncio.create_task(
                keep_marked(self._kube, self._settings.namespace, self._settings.identity)
            ),
            *(
                asyncio.create_task(follow(self._kube, cache, kind, one, versions[kind, one]))
                for kind in MADE
                for one in namespaces or ("",)
            ),
        ]
        try:
            done, _ = await asyncio.wait((*tasks, stopped), return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            ended.set()
            await self._walker.stop()
            await feed.stop()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            metrics.shutdown()

    def _wake(self, namespace: str) -> None:
        served = self._settings.namespaces
        if self._walker is not None and (not served or namespace in served):
            self._walker.wake(namespace)

    async def _renew(self, feed: Feed, applier: Applier) -> None:
        while True:
            await asyncio.sleep(CERTIFICATES_S)
            try:
                await self._certify(feed, applier, start=False)
            except KubeError as error:
                log.warning("certificates not renewed", extra={"error": str(error)})

    async def _certify(self, feed: Feed, applier: Applier, *, start: bool) -> None:
        """Make or renew the feed's certificates, keep them in the Secret, and show them."""
        secret = await self._secret()
        data = {name: base64.b64decode(text) for name, text in (secret.get("data") or {}).items()}
        wanted, bundle = certs.rotate(data, names=self._settings.server_names, now_s=time.time())
        if wanted != data:
            secret["data"] = {n: base64.b64encode(one).decode() for n, one in wanted.items()}
            await self._kube.replace(secret)
        applier.authority = bundle.decode()
        shown = {"certificate": wanted["tls.crt"], "key": wanted["tls.key"]}
        if start:
            await feed.start(f"[::]:{self._settings.feed_port}", **shown)
        else:
            feed.renew(**shown)

    async def _secret(self) -> dict[str, Any]:
        found = await self._kube.get("Secret", self._settings.namespace, SECRET)
        if found is not None:
            return {"apiVersion": "v1", "kind": "Secret", **found}
        return await self._kube.create(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"namespace": self._settings.namespace, "name": SECRET},
                "type": "Opaque",
            }
        )


class _Lines(logging.Formatter):
    """One JSON object a line."""

    _built_in = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

    def format(self, record: logging.LogRecord) -> str:
        """Return one line."""
        extra = {k: v for k, v in vars(record).items() if k not in self._built_in}
        told = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **{
                name: value for name, value in extra.items() if isinstance(value, str | int | float)
            },
        }
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        return json.dumps(told, ensure_ascii=False, default=str)


def main() -> int:
    """Run the operator; 2 for settings that cannot be used, 1 for an API that is not there."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines())
    try:
        settings = from_environment()
    except ValueError as error:
        print(f"weir_operator: {error}", file=sys.stderr)
        return 2
    logging.basicConfig(handlers=[handler], level=settings.log_level, force=True)
    logging.getLogger("kopf").setLevel(logging.WARNING)

    async def whole() -> None:
        kube = await Kube.connect()
        try:
            await Operator(settings, kube).run()
        finally:
            await kube.close()

    try:
        asyncio.run(whole())
    except (KubeError, RuntimeError) as error:
        log.error("ends", extra={"error": str(error)})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
