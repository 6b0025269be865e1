"""Labels that reach another router than the one that answered, over real sockets."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from support.http_door import serving
from support.http_wire import Wire, post, run, until
from support.running import Idle, two_tiers, two_upstreams, with_canary
from support.upstream import Script, completion, whole
from weir_core.snapshot import RoutePolicy, Snapshot
from weir_router import app, peers
from weir_router.clock import steady_clock
from weir_router.ledger import Ledger
from weir_router.peers import Peers, mark_of
from weir_router.process import Server, admin_server, listen
from weir_router.resolve import Address
from weir_router.serve import Router
from weir_router.telemetry import Metrics
from weir_router.upstreams import Keys, Upstreams

NAME = ("weir-router-pods", 8081)
MINE = mark_of("127.0.0.9")
THEIRS = f"weir-{mark_of('127.0.0.1')}-{'0' * 24}"
ASK = {"model": "assistant", "messages": [{"role": "user", "content": "hello"}]}


def good(request: dict[str, Any]) -> Script:
    return whole(completion("good"))


@dataclass
class One:
    """A router of several: where clients ask it, and where it is managed."""

    router: Router
    port: int
    managed: Address
    admin: Server

    async def post(self, path: str, body: dict[str, Any]) -> Any:
        """Post as a client does."""
        return await _post(("127.0.0.1", self.port), path, body)

    async def ask(self) -> str:
        """Ask the model; return the reply's id."""
        got = await self.post("/v1/chat/completions", ASK)
        assert got.status == 200, got
        id: str = got.headers["x-request-id"]
        return id

    async def label(self, id: str, *, harm: bool = True) -> int:
        """Label a reply here, whoever gave it."""
        status: int = (await self.post("/v1/feedback", {"id": id, "harm": harm})).status
        return status

    def labels(self) -> int:
        """Return how many labels this router has taken itself."""
        return sum(self.router.metrics.counters["weir_labels"].values())

    def elsewhere(self) -> dict[tuple[str, ...], int]:
        """Return what became of the labels that it brought to others."""
        return self.router.metrics.counters["weir_labels_elsewhere"]


async def _post(address: Address, path: str, body: dict[str, Any]) -> Any:
    wire = Wire(*await asyncio.open_connection(*address))
    await wire.send(post(path, json.dumps(body).encode(), "content-type: application/json"))
    got = await wire.answer()
    await wire.close()
    return got


@dataclass
class Namespace:
    """Its routers by their addresses, and what its name server says."""

    routers: list[One] = field(default_factory=list)
    addresses: list[Address] = field(default_factory=list)

    async def look(self, host: str, port: int) -> list[Address]:
        """Answer as the name server does."""
        assert (host, port) == NAME
        return list(self.addresses)


@contextlib.asynccontextmanager
async def a_router(there: Namespace, ip: str, policy: RoutePolicy) -> AsyncIterator[One]:
    """Run one more router of the namespace."""
    control: Any = Idle()
    upstreams = Upstreams(Keys(None))
    metrics = Metrics()
    router = Router(
        name=ip,
        mark=mark_of(ip),
        ledger=Ledger(router=ip, boot="1"),
        upstreams=upstreams,
        metrics=metrics,
        clock=steady_clock(),
        coin=lambda: 0.0,
    )
    router.apply(Snapshot(version=(1, 1), routes=(policy,)))
    others = Peers(
        NAME,
        mark=mark_of(ip),
        counted=lambda brought: metrics.count("weir_labels_elsewhere", (brought,)),
        resolve=there.look,
    )
    door = listen(ip, 0)
    admin = admin_server(app.pod(router, control))
    managing = asyncio.create_task(admin.serve([door]))
    await until(lambda: admin.started)
    handlers = {b"/v1/chat/completions": router.chat}
    async with serving(handlers, app=app.public(router, control, others)) as served:
        one = One(router, served.port, door.getsockname(), admin)
        there.routers.append(one)
        there.addresses.append(one.managed)
        try:
            yield one
        finally:
            others.close()
            await _stop(admin, managing)
            upstreams.close()


async def _stop(server: Server, running: "asyncio.Task[None]") -> None:
    server.force_exit = server.should_exit = True
    await running


@contextlib.asynccontextmanager
async def together(count: int) -> AsyncIterator[Namespace]:
    """Run some routers of one namespace, with a canary out."""
    async with contextlib.AsyncExitStack() as stack:
        small, large = await stack.enter_async_context(two_upstreams(good, good))
        tiers = two_tiers(small, large)
        there = Namespace()
        for number in range(count):
            one = a_router(there, f"127.0.0.{number + 2}", with_canary(tiers, tiers))
            await stack.enter_async_context(one)
        yield there


# Brought.


def test_label_reaches_the_router_that_answered_through_any_of_them() -> None:
    async def scene() -> None:
        async with together(3) as there:
            for answered in there.routers:
                for labelled in there.routers:
                    assert await labelled.label(await answered.ask()) == 204

            assert [one.labels() for one in there.routers] == [3, 3, 3]
            assert [one.elsewhere() for one in there.routers] == [{("taken",): 2}] * 3

    run(scene())


def test_one_router_is_asked_and_no_other() -> None:
    async def scene() -> None:
        async with together(3) as there:
            first, _, third = there.routers
            known = await third.ask()
            # The other one is no reply's: a stranger's guess costs one question as well.
            for id in (known, known[:-24] + "0" * 24):
                await first.label(id)

            assert [one.admin.server_state.total_requests for one in there.routers] == [0, 0, 2]
            assert first.elsewhere() == {("taken",): 1, ("unknown",): 1}

    run(scene())


def test_what_the_owner_does_not_know_goes_no_further() -> None:
    async def scene() -> None:
        async with together(2) as there:
            first, second = there.routers
            id = await first.ask()
            told = await _post(second.managed, "/weir/v1/label", {"id": id, "harm": True})

            assert told.status == 404
            assert first.labels() == 0

    run(scene())


def test_label_of_a_router_that_has_ended_is_lost() -> None:
    async def scene() -> None:
        async with together(2) as there:
            first, second = there.routers
            id = await second.ask()
            there.addresses.remove(second.managed)

            assert await first.label(id) == 404

    run(scene())


# Not brought.


@pytest.mark.parametrize(
    "id",
    [
        f"weir-{MINE}-{'0' * 24}",
        f"weir-{'0' * 24}",
        f"weir-{mark_of('127.0.0.1').upper()}-{'0' * 24}",
        f"{THEIRS}0",
        f"{THEIRS}\n",
        "chatcmpl-1",
        "",
    ],
    ids=["own", "no mark", "other case", "longer", "a line", "an upstream's", "nothing"],
)
def test_an_id_of_no_other_router_asks_nobody(id: str) -> None:
    async def nobody(host: str, port: int) -> list[Address]:
        raise AssertionError(f"asked for {host}")

    assert run(Peers(NAME, mark=MINE, resolve=nobody).label(id, harm=True)) == "unknown"


def test_names_that_cannot_be_looked_up_are_a_passing_trouble() -> None:
    async def down(host: str, port: int) -> list[Address]:
        raise OSError("no name server")

    assert run(Peers(NAME, mark=MINE, resolve=down).label(THEIRS, harm=True)) == "unreachable"


def test_a_router_that_refuses_connections_is_a_passing_trouble() -> None:
    async def scene() -> None:
        async with together(2) as there:
            first, second = there.routers
            id = await second.ask()
            there.addresses[1] = (second.managed[0], 1)
            got = await first.post("/v1/feedback", {"id": id, "harm": True})

            assert (got.status, got.headers["retry-after"]) == (503, "1")
            assert json.loads(got.body)["error"]["code"] == "router_unreachable"
            assert first.elsewhere() == {("unreachable",): 1}

    run(scene())


@contextlib.asynccontextmanager
async def answering(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[Peers]:
    """Return the peers of a router beside one that answers like this."""
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    address: Address = server.sockets[0].getsockname()

    async def one(host: str, port: int) -> list[Address]:
        return [address]

    found = Peers(NAME, mark=MINE, resolve=one)
    try:
        yield found
    finally:
        found.close()
        server.close()


def test_so_many_wait_for_a_silent_router_and_no_more() -> None:
    open_at_once: list[int] = []
    connections = 0

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        open_at_once.append(connections)
        await reader.read()
        connections -= 1
        writer.close()

    async def scene() -> None:
        async with answering(silent) as others:
            waiting = [
                asyncio.create_task(others.label(THEIRS, harm=True)) for _ in range(peers.MOST)
            ]
            await asyncio.sleep(0)
            surplus = asyncio.create_task(others.label(THEIRS, harm=True))
            await asyncio.sleep(0)

            assert surplus.done()
            assert {surplus.result(), *await asyncio.gather(*waiting)} == {"unreachable"}
            assert max(open_at_once) <= peers.LIMITS.upstream.max_in_flight
            await until(lambda: not connections)

    run(scene())


@pytest.mark.parametrize(
    ("status", "size"), [(500, 0), (404, 64 << 10)], ids=["another status", "a long answer"]
)
def test_what_no_router_answers_is_no_answer(status: int, size: int) -> None:
    async def strange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 %d Oh\r\ncontent-length: %d\r\n\r\n" % (status, size))
        writer.write(b"x" * size)
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        writer.close()

    async def scene() -> None:
        async with answering(strange) as others:
            assert await others.label(THEIRS, harm=True) == "unreachable"

    run(scene())


def test_marks_are_of_addresses_however_they_are_written() -> None:
    assert mark_of("fd00::1") == mark_of("fd00:0:0:0:0:0:0:1") != mark_of("fd00::2")
    assert len(mark_of("10.1.2.3")) == 8
    with pytest.raises(ValueError, match="weir-router"):
        mark_of("weir-router")
