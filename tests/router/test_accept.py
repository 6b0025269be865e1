"""A router that runs out of file descriptors: nobody is dropped, and who is refused is told."""

import asyncio
import contextlib
import json
import os
import resource
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from support.http_wire import Got, Wire, post, run
from weir_router.accept import bounded, raise_limit
from weir_router.intake import ServerLimits
from weir_router.load import Bounds

TESTS = Path(__file__).parents[1]


class Narrow:
    """A process with few descriptors, and the clients that it has."""

    def __init__(self, process: asyncio.subprocess.Process, said: list[int]) -> None:
        self.process = process
        self.port, self.descriptors, self.most, self.crowd = said
        self.wires: list[Wire] = []

    async def wire(self) -> Wire:
        self.wires.append(await Wire.to(self.port))
        return self.wires[-1]

    async def counts(self) -> tuple[dict[str, int], list[str]]:
        """End the process; return what it counted and what it logged."""
        for wire in self.wires:
            await wire.close()
        out, logged = await self.process.communicate(b"\n")
        return json.loads(out), logged.decode().splitlines()


@contextlib.asynccontextmanager
async def narrow(soft: int, hard: int, kind: str) -> AsyncIterator[Narrow]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "support.narrow_program", str(soft), str(hard), kind),
        env=os.environ | {"PYTHONPATH": str(TESTS)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    one = Narrow(process, json.loads(await process.stdout.readline()))
    try:
        yield one
    finally:
        for wire in one.wires:
            await wire.close()
        if process.returncode is None:
            process.kill()
            await process.communicate()


def test_clients_wait_while_no_descriptor_is_free_and_it_is_told_once() -> None:
    """Sixty-four descriptors, a hundred clients at once: each is answered in its turn."""

    async def main() -> None:
        async with narrow(64, 64, "unbounded") as one:
            wires = [await one.wire() for _ in range(100)]
            for wire in wires:
                await wire.send(post())
            answered = 0
            for wire in wires:
                assert (await wire.answer()).body == b"hello"
                answered += 1
                await wire.close()
            counts, logged = await one.counts()

            assert answered == 100
            assert counts["starved"] >= 1
            assert logged == ["connections cannot be accepted, clients wait"]

    run(main())


def test_the_soft_bound_is_raised_and_connections_leave_descriptors_for_upstreams() -> None:
    async def main() -> None:
        async with narrow(64, 200, "bounded") as one:
            assert one.descriptors == 200
            assert one.most + one.crowd <= 200 - 100

    run(main())


def test_over_the_bound_clients_are_told_to_come_back() -> None:
    async def main() -> None:
        async with narrow(64, 200, "bounded") as one:
            held = [await one.wire() for _ in range(one.most)]
            for wire in held:
                await wire.send(post())
                assert (await wire.answer()).status == 200
            refused = await _told(await one.wire())

            assert refused.status == 503
            assert refused.headers["retry-after"] in ("1", "2")
            assert refused.headers["connection"] == "close"
            assert json.loads(refused.body)["error"]["code"] == "too_many_connections"
            # Health is told in the crowd too, and who was in goes on.
            probe = await one.wire()
            await probe.send(b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n")
            assert (await probe.answer()).body == b"well"
            assert await probe.rest() == b""
            await held[0].send(post())
            assert (await held[0].answer()).status == 200
            # Who leaves makes room.
            await held[1].close()
            await until_served(one)
            counts, logged = await one.counts()

            assert counts["crowded"] >= 1
            assert "starved" not in counts
            assert logged == []

    async def until_served(one: Narrow) -> None:
        while (await _told(await one.wire())).status != 200:
            await asyncio.sleep(0.05)

    run(main())


async def _told(wire: Wire) -> Got:
    """Ask, and close as an answer tells to."""
    await wire.send(post())
    got = await wire.answer()
    if got.headers.get("connection") == "close":
        await wire.close()
    return got


def test_a_flood_over_the_bound_is_answered_one_crowd_after_another() -> None:
    """Three times the bound at once: the bound is served, the rest is told, nobody is dropped."""

    async def main() -> None:
        async with narrow(64, 200, "bounded") as one:
            wires = await asyncio.gather(*(one.wire() for _ in range(one.most * 3)))
            answers = await asyncio.gather(*(_told(wire) for wire in wires))
            statuses = [got.status for got in answers]

            assert statuses.count(200) == one.most
            assert statuses.count(503) == one.most * 2

    run(main())


def test_one_of_the_crowd_that_says_nothing_is_closed() -> None:
    async def main() -> None:
        async with narrow(64, 200, "bounded") as one:
            for _ in range(one.most):
                await one.wire()
            silent = await one.wire()

            assert await silent.rest() == b""

    run(main())


@pytest.mark.parametrize("descriptors", [16, 64, 256, 1_024, 20_000, 1 << 20])
def test_bounds_leave_room_for_what_a_router_needs(descriptors: int) -> None:
    bounds = Bounds()
    limits = bounded(ServerLimits(), descriptors, bounds)
    clients = limits.max_connections + limits.max_crowd

    assert limits.max_connections >= 1
    assert clients <= descriptors // 2 or clients <= descriptors - bounds.in_flight
    assert clients < descriptors


def test_a_bound_that_is_set_stays() -> None:
    limits = ServerLimits(max_connections=7)

    assert bounded(limits, 20_000, Bounds()) is limits


def test_raising_the_bound_never_lowers_it() -> None:
    before: Any = resource.getrlimit(resource.RLIMIT_NOFILE)

    assert raise_limit() >= min(before[0], 1 << 20)
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[1] == before[1]


STARVED_CLIENT = """
import asyncio, os, resource, uvloop
from weir_router.client import Pool

async def main():
    resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
    held = []
    try:
        while True:
            held.append(os.dup(0))
    except OSError:
        pass
    pool = Pool("http://127.0.0.1:9")
    got = await pool.fetch(b"GET", b"/", (), b"", timeout_ms=2000)
    print(got.cause, "|", got.detail)

with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
    runner.run(main())
"""


def test_a_router_without_descriptors_blames_no_backend() -> None:
    """Overload ejects nobody: the trouble is this router's own."""
    command = [sys.executable, "-c", STARVED_CLIENT]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)

    assert ended.stdout.strip() == "Overload | 127.0.0.1:9: no connection: Too many open files"
