"""One operator's process: it waits for its turn, acts while it leads, and waits again.

Nothing is carried from one lead into the next but counters: memories are recalled from the
cluster, where another one may have led meanwhile. The process ends when it is told to.
"""

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry, start_http_server

from weir_core.steady import steady
from weir_operator.apply import Applier
from weir_operator.authority import Authority
from weir_operator.cache import Cache
from weir_operator.feed import Feed
from weir_operator.gatekeeper import Gatekeeper
from weir_operator.handlers import KNOCK_S, MADE, WRITTEN, follow, hear, knock, look_again, prime
from weir_operator.kube import Kube
from weir_operator.leader import Leader, Pace
from weir_operator.mark import keep_marked
from weir_operator.readable import Readable
from weir_operator.routers import RouterSettings
from weir_operator.settings import Settings
from weir_operator.signs import Signs
from weir_operator.telemetry import Counters, Metrics
from weir_operator.walk import Walker
from weir_operator.workloads import WorkloadSettings

END_S = 15.0
"""In which a lead must have ended with all that belongs to it."""
log = logging.getLogger("weir.operator")


class Operator:
    """Runs until SIGTERM or SIGINT. `clock` gives Unix seconds that never go back.

    `knock_s` is how often it tries to read a named namespace that it may not.
    """

    def __init__(
        self,
        settings: Settings,
        kube: Kube,
        *,
        clock: Callable[[], float] | None = None,
        lease: Pace = Pace(),  # noqa: B008 - frozen
        knock_s: float = KNOCK_S,
    ) -> None:
        self._settings = settings
        self._knock_s = knock_s
        self._kube = kube
        self._clock = clock or steady(time.time, time.monotonic)
        self.leader = Leader(
            kube,
            namespace=settings.namespace,
            name=settings.lease,
            identity=settings.identity,
            pace=lease,
        )
        self._signs = Signs(settings.health_port)
        self._counters = Counters()
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """Have `run` end."""
        self._stop.set()

    async def run(self) -> None:
        """Serve until told to stop. Raises OSError or RuntimeError when a port is taken."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        registry = CollectorRegistry()
        registry.register(Metrics(self._kube, self.leader, self._counters))
        metrics, _ = start_http_server(self._settings.metrics_port, registry=registry)
        self._signs.start()
        beat = asyncio.create_task(self._signs.beat())
        try:
            while not self._stop.is_set():
                await self._until_stopped(self.leader.acquire())
                if not self._stop.is_set():
                    log.info("leads", extra={"term": self.leader.term})
                    await self._until_stopped(self.leader.keep(), self._act())
                    log.info("leads no more", extra={"term": self.leader.term})
        finally:
            beat.cancel()
            metrics.shutdown()
            metrics.server_close()
            self._signs.stop()
            await self.leader.release()

    async def _until_stopped(self, *doings: Coroutine[Any, Any, None]) -> None:
        """Do all of it until one is done or the process is to stop; raises what one raised."""
        tasks = [asyncio.create_task(one) for one in (self._stop.wait(), *doings)]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await _ended(tasks)
        for task in done:
            task.result()

    async def _act(self) -> None:
        """Lead: gather all anew, then walk and follow. Raises what a part of it raised."""
        settings, clock = self._settings, self._clock
        walker: Walker | None = None

        def wake(namespace: str) -> None:
            if walker is not None and readable.serves(namespace):
                walker.wake(namespace)

        readable = Readable(settings.namespaces, opened=wake)
        cache = Cache(wake)
        gatekeeper = Gatekeeper(self._kube, clock=clock)
        feed = Feed(
            gatekeeper,
            term=self.leader.term,
            on_report=wake,
            on_term=self.leader.surpass,
            clock=clock,
        )
        applier = Applier(
            self._kube,
            cache,
            leader=self.leader,
            routers=msgspec.convert(dict(settings.router), RouterSettings),
            workloads=msgspec.convert(dict(settings.workloads), WorkloadSettings),
        )
        authority = Authority(
            self._kube,
            feed,
            namespace=settings.namespace,
            names=settings.server_names,
            told=lambda bundle: setattr(applier, "authority", bundle),
            clock=clock,
        )
        try:
            versions = await prime(self._kube, cache, readable)
            await authority.open(f"[::]:{settings.feed_port}")
            walker = Walker(
                kube=self._kube,
                cache=cache,
                feed=feed,
                leader=self.leader,
                applier=applier,
                max_routers=settings.max_routers,
                clock=clock,
            )
            self._counters.show(walker, feed)
            for namespace in cache.namespaces(*WRITTEN):
                wake(namespace)
            await self._follow(cache, readable, authority, versions)
        finally:
            stopping, walker = walker, None  # Nothing wakes it any more.
            if stopping is not None:
                await stopping.stop()
            await feed.stop()
            self._counters.keep()

    async def _follow(
        self,
        cache: Cache,
        readable: Readable,
        authority: Authority,
        versions: dict[tuple[str, str], str],
    ) -> None:
        """Do for ever all that goes on beside the walks."""
        settings, doubt = self._settings, asyncio.Event()
        self._kube.on_missing = lambda kind: doubt.set() if kind in WRITTEN else None
        async with asyncio.TaskGroup() as group:
            group.create_task(hear(cache, readable, doubt))
            group.create_task(look_again(self._kube, cache, readable, doubt))
            if readable.named:
                knocking = knock(self._kube, cache, readable, every_s=self._knock_s)
                group.create_task(knocking)
            group.create_task(authority.keep())
            group.create_task(keep_marked(self._kube, settings.namespace, settings.identity))
            for (kind, namespace), version in versions.items():
                if kind in MADE:
                    group.create_task(follow(self._kube, cache, kind, namespace, version, readable))


async def _ended(tasks: list["asyncio.Task[Any]"], within_s: float = END_S) -> None:
    """End tasks; ends the process when some do not, for the lead would never be taken again."""
    for task in tasks:
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        _, left = await asyncio.wait(tasks, timeout=within_s)
        if left:
            log.critical("does not end", extra={"tasks": [repr(task)[:300] for task in left]})
            logging.shutdown()
            os._exit(os.EX_SOFTWARE)
