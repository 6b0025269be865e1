"""The whole ring without a cluster: three real routers, real gRPC, a walk of a few lines.

A bad canary is at weight 0 in all routers soon after the merged evidence, or one router's own,
has crossed. The times are printed; the bounds asserted are several times those of the design.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from support.feeds import Operator, RouterPod, operating, routing
from support.http_door import serving
from support.http_wire import Wire, post, until
from support.running import alternating, two_tiers, two_upstreams, with_canary
from support.upstream import Script, completion, upstream, whole
from weir_core.evidence import Judgement, Merged
from weir_core.sequential import horizon_s, judge, merge
from weir_core.snapshot import Monitoring, Objective, RoutePolicy
from weir_router.process import brake

ERRORS = Monitoring(objectives=(Objective(name="errors", event="Error"),))
ALPHA = 0.01
BODY = json.dumps({"model": "assistant", "messages": [{"role": "user", "content": "hi"}]}).encode()
KEY = "llm/assistant"


def good(request: dict[str, Any]) -> Script:
    return whole(completion("good"))


def bad(request: dict[str, Any]) -> Script:
    return whole({"error": {"message": "broken"}}, status=500)


@dataclass
class Walk:
    """What the operator does of evidence: merge, judge or believe a trip, publish weight 0."""

    operator: Operator
    policy: RoutePolicy
    merged: Merged = field(default_factory=Merged)
    judgement: Judgement | None = None
    crossed_s: float = 0.0
    why: str = ""

    def step(self) -> None:
        """Walk once."""
        routers = self.operator.feed.connected("llm")
        self.merged = merge([t for one in routers for t in one.report.tallies], self.merged)
        self.judgement = judge(
            self.merged,
            ERRORS.objectives,
            alpha=0.8 * ALPHA,
            promote_alpha=0.05,
            promote_ratio=2.0,
            now_s=time.time(),
            horizon_s=horizon_s(self.policy),
        )
        trips = [trip for one in routers for trip in one.report.trips]
        if not self.why and (trips or self.judgement.verdict == "Harm"):
            self.why = trips[0].decided_by if trips else "operator"
            self.crossed_s = trips[0].at_s if trips else time.time()
            assert self.policy.canary is not None
            latch = (self.policy.canary.name, self.policy.attempt)
            stopped = msgspec.structs.replace(self.policy, weight_bp=0, latched=(latch,))
            self.operator.publish(stopped)

    async def run(self) -> None:
        """Walk whenever a report says something new."""
        while True:
            if self.operator.woken:
                self.operator.woken.clear()
                self.step()
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def three(
    folder: Path, operator: Operator
) -> AsyncIterator[tuple[list[RouterPod], list[int]]]:
    """Run three routers of one Deployment behind three front doors, each with its brake."""
    async with contextlib.AsyncExitStack() as stack:
        pods, ports = [], []
        for n in range(3):
            name = f"weir-router-5d8f9c7b6-{n:05}"
            context = routing(folder / name, operator, name=name, coin=alternating())
            pod = await stack.enter_async_context(context)
            handlers = {b"/v1/chat/completions": pod.router.chat}
            door = await stack.enter_async_context(serving(handlers))
            looking = asyncio.create_task(brake(pod.router))
            stack.callback(looking.cancel)
            pods.append(pod)
            ports.append(door.port)
        yield pods, ports


async def load(port: int, pod: RouterPod) -> None:
    """Ask one router again and again, and a moment longer once its canary gets nothing."""
    wire = await Wire.to(port)
    try:
        while pod.policy().weight_bp:
            await wire.send(post("/v1/chat/completions", BODY))
            await wire.answer()
            await asyncio.sleep(0.02)
        for _ in range(20):
            await wire.send(post("/v1/chat/completions", BODY))
            await wire.answer()
    finally:
        await wire.close()


async def rolled_back(
    folder: Path, *, loaded: int, brake_alpha: float
) -> tuple[Walk, float, int, int]:
    """Let a bad canary into three routers, of which some are asked for answers.

    Returns the walk, the seconds from the crossing to weight 0 everywhere, and the calls of the
    canary until then and in the end.
    """
    async with operating() as operator, two_upstreams(good, good) as (small, large):
        async with upstream(bad) as broken, three(folder, operator) as (pods, ports):
            stable, canary = two_tiers(small, large), two_tiers(broken, large)
            changes = {"monitoring": ERRORS, "brake_alpha": brake_alpha}
            walk = Walk(operator, with_canary(stable, canary, **changes))
            operator.publish(walk.policy)
            await until(lambda: all(KEY in pod.router.table.routes for pod in pods))
            walking = asyncio.create_task(walk.run())
            pairs = [*zip(ports, pods, strict=True)][:loaded]
            asking = [asyncio.create_task(load(*one)) for one in pairs]
            await until(lambda: all(pod.policy().weight_bp == 0 for pod in pods))
            took_s = time.time() - walk.crossed_s
            asked = len(broken.asked)
            await asyncio.gather(*asking)
            walking.cancel()
            return walk, took_s, asked, len(broken.asked)


def test_merged_evidence_stops_a_bad_canary_in_all_routers(tmp_path: Path) -> None:
    """No router's own evidence suffices: their brakes are given nearly nothing of alpha."""

    async def scene() -> None:
        walk, took_s, asked, later = await rolled_back(tmp_path, loaded=3, brake_alpha=1e-30)
        assert walk.judgement is not None
        print(f"weight 0 everywhere {took_s * 1000:.0f} ms after the verdict, {asked} canary calls")

        assert walk.why == "operator"
        assert len({tally.router for tally in walk.merged.tallies}) == 3
        assert took_s < 5
        assert later == asked

    asyncio.run(asyncio.wait_for(scene(), 60))


def test_one_routers_trip_stops_the_canary_in_the_others(tmp_path: Path) -> None:
    """The others get no requests: they know of the harm by the operator alone."""

    async def scene() -> None:
        walk, took_s, asked, later = await rolled_back(tmp_path, loaded=1, brake_alpha=0.3)
        print(f"weight 0 everywhere {took_s * 1000:.0f} ms after the trip, {asked} canary calls")

        assert walk.why == "router/weir-router-5d8f9c7b6-00000"
        assert took_s < 5
        assert later == asked

    asyncio.run(asyncio.wait_for(scene(), 60))
