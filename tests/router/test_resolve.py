"""Names: one whose lookup hangs harms nobody else, and what was good stands in."""

import asyncio
import socket
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from support.http_upstream import echo, upstream
from support.http_wire import run, until
from weir_router.client import ClientLimits, Pool
from weir_router.resolve import FRESH_S, KEPT_S, MOST_LOOKUPS, PATIENCE_S, Address, Resolver

QUICK = ClientLimits(connect_timeout_ms=150)


class Names:
    """A name server: names in `hung` get no answer until `freed`."""

    def __init__(self, port: int = 80) -> None:
        self.port = port
        self.hung: set[str] = set()
        self.wrong: OSError | None = None
        self.freed = threading.Event()
        self.asked: Counter[str] = Counter()

    def look(self, host: str, port: int) -> list[Address]:
        self.asked[host] += 1
        if host in self.hung:
            self.freed.wait(8)
        if self.wrong is not None:
            raise self.wrong
        return [("127.0.0.1", self.port)]


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


async def ask(pool: Pool, body: bytes = b"hi") -> Any:
    return await pool.fetch(b"POST", b"/v1/x", (), body, timeout_ms=5_000)


def with_names(scene: Callable[[Names, Resolver, Clock], Any]) -> None:
    """Run a scene with an upstream that echoes, and names that lead there."""

    async def main() -> None:
        async with upstream(echo) as (up, _):
            names, clock = Names(up.port), Clock()
            try:
                await scene(names, Resolver(names.look, clock), clock)
            finally:
                names.freed.set()

    run(main())


def test_a_name_that_hangs_harms_no_other_backend() -> None:
    """Forty wait for one name, more than any pool of threads would carry."""

    async def scene(names: Names, resolver: Resolver, clock: Clock) -> None:
        names.hung = {"hangs.test"}
        stuck = Pool("http://hangs.test", limits=QUICK, resolve=resolver)
        fine = Pool("http://fine.test", limits=QUICK, resolve=resolver)
        waiting = [asyncio.create_task(ask(stuck)) for _ in range(40)]
        await until(lambda: names.asked["hangs.test"])

        assert (await ask(fine)).body == b"hi"
        failures = await asyncio.gather(*waiting)
        assert {one.cause for one in failures} == {"Connect"}
        assert {one.sent for one in failures} == {False}
        assert "no address for hangs.test within 150 ms" in failures[0].detail
        assert names.asked["hangs.test"] == 1
        await fine.aclose()

    with_names(scene)


def test_a_name_that_hung_is_found_when_its_server_is_back() -> None:
    async def scene(names: Names, resolver: Resolver, clock: Clock) -> None:
        names.hung = {"hangs.test"}
        pool = Pool("http://hangs.test", limits=QUICK, resolve=resolver)
        assert (await ask(pool)).cause == "Connect"
        names.hung = set()
        names.freed.set()
        await until(lambda: resolver._busy == 0)

        assert (await ask(pool)).body == b"hi"
        await pool.aclose()

    with_names(scene)


def test_the_last_good_address_stands_in_for_a_lookup_that_hangs() -> None:
    async def scene(names: Names, resolver: Resolver, clock: Clock) -> None:
        known = await resolver("a.test", 80)
        names.hung = {"a.test"}
        clock.now_s += FRESH_S * 2

        assert await resolver("a.test", 80) == known
        assert names.asked["a.test"] == 2

    with_names(scene)


def test_only_the_first_waits_for_a_lookup_that_hangs() -> None:
    """A hundred in a row, each with the patience of a quarter of a second, would take too long."""

    async def scene(names: Names, resolver: Resolver, clock: Clock) -> None:
        known = await resolver("a.test", 80)
        names.hung = {"a.test"}
        clock.now_s += FRESH_S * 2
        await resolver("a.test", 80)
        clock.now_s += PATIENCE_S

        for _ in range(100):
            assert await resolver("a.test", 80) == known
        assert names.asked["a.test"] == 2

    with_names(scene)


@pytest.mark.parametrize(
    ("wrong", "later_s", "stands_in"),
    [
        pytest.param(socket.gaierror(socket.EAI_AGAIN, "busy"), 2.0, True, id="no answer"),
        pytest.param(socket.gaierror(socket.EAI_NONAME, "gone"), 2.0, False, id="no such name"),
        pytest.param(socket.gaierror(socket.EAI_AGAIN, "busy"), KEPT_S, False, id="too old"),
    ],
)
def test_when_the_last_good_address_stands_in_for_an_error(
    wrong: OSError, later_s: float, stands_in: bool
) -> None:
    async def scene(names: Names, resolver: Resolver, clock: Clock) -> None:
        known = await resolver("a.test", 80)
        names.wrong = wrong
        clock.now_s += later_s
        if stands_in:
            assert await resolver("a.test", 80) == known
        else:
            with pytest.raises(socket.gaierror):
                await resolver("a.test", 80)

    with_names(scene)


def test_an_error_of_the_name_server_names_the_host() -> None:
    async def scene(names: Names, resolver: Resolver, clock: Clock) -> None:
        names.wrong = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        got = await ask(Pool("http://typo.test:8000/v2", resolve=resolver))

        assert got.cause == "Connect"
        assert got.detail == "typo.test:8000: no address for typo.test: Name or service not known"

    with_names(scene)


def test_a_storm_of_connections_is_one_lookup() -> None:
    async def scene(names: Names, resolver: Resolver, clock: Clock) -> None:
        pool = Pool("http://a.test", resolve=resolver)
        answers = await asyncio.gather(*(ask(pool, b"%d" % n) for n in range(50)))

        assert [one.body for one in answers] == [b"%d" % n for n in range(50)]
        assert names.asked["a.test"] == 1
        clock.now_s += FRESH_S * 2
        await resolver("a.test", 80)
        assert names.asked["a.test"] == 2
        await pool.aclose()

    with_names(scene)


def test_an_address_is_not_looked_up() -> None:
    async def scene(names: Names, resolver: Resolver, clock: Clock) -> None:
        assert await resolver("127.0.0.1", 1) == [("127.0.0.1", 1)]
        assert await resolver("::1", 1) == [("::1", 1)]
        assert not names.asked

    with_names(scene)


def test_lookups_that_hang_are_bounded_and_known_names_go_on() -> None:
    async def scene(names: Names, resolver: Resolver, clock: Clock) -> None:
        known = await resolver("known.test", 80)
        hosts = [f"{n}.test" for n in range(MOST_LOOKUPS)]
        names.hung = set(hosts)
        stuck = [asyncio.create_task(resolver(host, 80)) for host in hosts]
        await until(lambda: resolver._busy == MOST_LOOKUPS)
        clock.now_s += FRESH_S * 2

        assert await resolver("known.test", 80) == known
        with pytest.raises(OSError, match="lookups of other names hang"):
            await resolver("new.test", 80)
        names.freed.set()
        await asyncio.gather(*stuck)

    with_names(scene)


def test_a_process_ends_though_a_lookup_hangs() -> None:
    """The loop closes at once; the thread finds it closed and says nothing."""
    names = Names()
    names.hung = {"hangs.test"}
    resolver = Resolver(names.look)

    async def main() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(resolver("hangs.test", 80), 0.05)

    run(main())
    (thread,) = [one for one in threading.enumerate() if one.name == "lookup hangs.test"]
    assert thread.daemon
    names.freed.set()
    thread.join(8)
    assert not thread.is_alive()


def test_a_thread_that_cannot_start_harms_one_lookup(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def scene(names: Names, resolver: Resolver, clock: Clock) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", no_room)
            with pytest.raises(OSError, match="new thread"):
                await resolver("fine.test", 80)
        names.wrong = ValueError("odd")  # type: ignore[assignment]
        with pytest.raises(OSError, match="odd"):
            await resolver("fine.test", 80)
        names.wrong = None
        assert await resolver("fine.test", 80) == [("127.0.0.1", names.port)]

    with_names(scene)
