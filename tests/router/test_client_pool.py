"""The client's connections: kept, closed, opened, queued for; and whose time ran out."""

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest

from support.http_tls import make_certificate, serving_tls, trusting
from support.http_upstream import Line, echo, ok, saying, saying_once, upstream
from support.http_wire import run, until
from weir_router.client import ClientLimits, Failure, Pool


async def ask(pool: Pool, body: bytes = b"{}", timeout_ms: int = 60_000) -> Any:
    """Return what the pool gives for a POST."""
    return await pool.fetch(b"POST", b"/v1/x", [], body, timeout_ms=timeout_ms)


async def begin(pool: Pool, timeout_ms: int = 60_000) -> Any:
    """Return the stream, or the failure, of a POST."""
    return await pool.open(b"POST", b"/v1/x", [], b"{}", timeout_ms=timeout_ms)


# Kept connections.


def test_a_connection_is_used_again() -> None:
    async def main() -> None:
        async with upstream(echo) as (up, pool):
            for number in range(5):
                assert (await ask(pool, b"%d" % number)).body == b"%d" % number
            stream = await begin(pool)
            assert [await stream.read(), await stream.read()] == [b"{}", b""]
            assert (len(up.lines), pool.idle) == (1, 1)

    run(main())


@pytest.mark.parametrize(
    "more",
    [b"x", b"\r\n", ok(b"not asked for")],
    ids=["a-byte", "an-empty-line", "a-second-answer"],
)
def test_a_byte_while_idle_closes_the_connection(more: bytes) -> None:
    async def main() -> None:
        async def script(line: Line) -> None:
            await line.asked()
            await line.say(ok(b"first"), more)
            await line.asked()
            await line.say(ok(b"second"))

        async with upstream(script) as (up, pool):
            await ask(pool)
            await until(lambda: pool.idle == 0)
            assert (await ask(pool)).body == b"first"
            assert len(up.lines) == 2

    run(main())


@pytest.mark.parametrize("surplus", [b"x", ok(b"of nobody")], ids=["a-byte", "a-second-answer"])
def test_a_surplus_behind_an_answer_is_nobody_s(surplus: bytes) -> None:
    async def main() -> None:
        async with upstream(saying(ok(b"mine") + surplus)) as (up, pool):
            got = [await ask(pool) for _ in range(3)]
            assert [one.body for one in got] == [b"mine"] * 3
            assert (len(up.lines), pool.idle) == (3, 0)

    run(main())


def test_an_idle_connection_is_closed_in_time() -> None:
    async def main() -> None:
        async with upstream(echo, limits=ClientLimits(idle_s=0.1)) as (up, pool):
            await ask(pool)
            assert pool.idle == 1
            await until(lambda: pool.idle == 0)
            await until(lambda: up.open == 0)

    run(main())


def test_no_more_connections_are_kept_than_the_limit() -> None:
    async def main() -> None:
        async def script(line: Line) -> None:
            await line.asked()
            await asyncio.sleep(0.05)
            await line.say(ok(b""))
            await line.closed()

        async with upstream(script, limits=ClientLimits(max_idle=2)) as (up, pool):
            await asyncio.gather(*[ask(pool) for _ in range(5)])
            assert pool.idle == 2
            await until(lambda: up.open == 2)

    run(main())


def test_a_connection_closed_while_idle_is_not_tried() -> None:
    async def main() -> None:
        async with upstream(saying_once(ok(b"a"))) as (up, pool):
            for _ in range(3):
                assert (await ask(pool)).body == b"a"
                await until(lambda: up.open == 0)
                await asyncio.sleep(0.01)
            assert len(up.lines) == 3

    run(main())


def _closes_on_second(first: bytes) -> Any:
    async def script(line: Line) -> None:
        await line.asked()
        await line.say(ok(b"a"))
        await line.asked()
        await line.say(first)

    return script


def test_a_request_that_crosses_the_close_of_an_idle_connection_is_sent_once_more() -> None:
    async def main() -> None:
        async with upstream(_closes_on_second(b"")) as (up, pool):
            assert (await ask(pool)).body == b"a"
            assert (await ask(pool)).body == b"a"
            assert len(up.lines) == 2

    run(main())


def test_a_request_is_not_repeated_once_a_byte_of_an_answer_came() -> None:
    async def main() -> None:
        async with upstream(_closes_on_second(b"H")) as (up, pool):
            await ask(pool)
            got = await ask(pool)
            assert (got.cause, got.answered, len(up.lines)) == ("BrokenStream", True, 1)

    run(main())


def test_a_request_on_a_fresh_connection_is_not_repeated() -> None:
    async def main() -> None:
        async with upstream(saying_once(b"")) as (up, pool):
            got = await ask(pool)
            assert (got.cause, got.sent, got.answered) == ("BrokenStream", True, False)
            assert len(up.lines) == 1

    run(main())


def test_a_request_is_repeated_at_most_once() -> None:
    async def main() -> None:
        asked = 0

        async def script(line: Line) -> None:
            nonlocal asked
            await line.asked()
            asked += 1
            await asyncio.sleep(0.05)
            if asked > 2:
                return
            await line.say(ok(b"a"))
            await line.asked()
            asked += 1

        async with upstream(script) as (up, pool):
            await asyncio.gather(ask(pool), ask(pool))
            assert pool.idle == 2
            got = await ask(pool)
            assert isinstance(got, Failure)
            assert (asked, len(up.lines), pool.idle) == (4, 3, 1)

    run(main())


# Connecting.


def test_nobody_listening_is_a_connect_failure() -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        pool = Pool(f"http://127.0.0.1:{port}")
        got = await ask(pool)
        assert (got.cause, got.sent, got.answered) == ("Connect", False, False)
        assert f"127.0.0.1:{port}" in got.detail
        assert pool.in_flight == 0

    run(main())


def test_a_name_that_can_be_no_name_is_a_connect_failure() -> None:
    async def main() -> None:
        got = await ask(Pool(f"http://{'a' * 64}.test"))
        assert got.cause == "Connect"

    run(main())


def test_a_name_without_an_address_is_a_connect_failure() -> None:
    async def nowhere(host: str, port: int) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    async def main() -> None:
        got = await ask(Pool("http://nowhere.invalid", resolve=nowhere))
        assert (got.cause, "no such name" in got.detail) == ("Connect", True)

    run(main())


@pytest.mark.parametrize(
    ("timeout_ms", "cause"), [(3_000, "Connect"), (50, "Timeout")], ids=["own", "deadline"]
)
def test_a_connection_that_never_comes_ends_in_time(timeout_ms: int, cause: str) -> None:
    async def forever(host: str, port: int) -> Any:
        await asyncio.sleep(60)

    async def main() -> None:
        pool = Pool("http://a", limits=ClientLimits(connect_timeout_ms=100), resolve=forever)
        got = await ask(pool, timeout_ms=timeout_ms)
        assert (got.cause, got.sent) == (cause, False)

    run(main())


def test_the_next_address_of_a_name_is_tried() -> None:
    async def main() -> None:
        async with upstream(echo) as (up, _):
            with socket.create_server(("127.0.0.1", 0)) as taken:
                dead = taken.getsockname()[1]

            async def two(host: str, port: int) -> Any:
                assert (host, port) == ("two.test", 80)
                return [("127.0.0.1", dead), ("127.0.0.1", up.port)]

            pool = Pool("http://two.test", resolve=two)
            assert (await ask(pool, b"hi")).body == b"hi"
            await pool.aclose()

    run(main())


def test_a_silent_address_leaves_time_for_the_next() -> None:
    async def main() -> None:
        # A full backlog of one: a further connection is never answered.
        with socket.socket() as full:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            crowd = [socket.socket() for _ in range(4)]
            for one in crowd:
                one.setblocking(False)
                one.connect_ex(full.getsockname())
            async with upstream(echo) as (up, _):

                async def two(host: str, port: int) -> Any:
                    return [full.getsockname(), ("127.0.0.1", up.port)]

                limits = ClientLimits(connect_timeout_ms=600)
                pool = Pool("http://two.test", limits=limits, resolve=two)
                assert (await ask(pool, b"hi")).body == b"hi"
                await pool.aclose()
            for one in crowd:
                one.close()

    run(main())


def test_an_ipv6_literal_is_reached() -> None:
    if not _has_ipv6():
        pytest.skip("this machine has no ::1")

    async def main() -> None:
        async with upstream(echo, host="::1") as (up, pool):
            assert (await ask(pool, b"six")).body == b"six"
            assert pool.name == f"[::1]:{up.port}"

    run(main())


def _has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and its self-signed certificate for 127.0.0.1, in one file."""
    return make_certificate(tmp_path_factory.mktemp("tls"))


def test_https_is_spoken_to_an_upstream_whose_certificate_is_trusted(certificate: Path) -> None:
    async def main() -> None:
        server_ssl, client_ssl = serving_tls(certificate), trusting(certificate)
        async with upstream(echo, server_ssl=server_ssl, client_ssl=client_ssl) as (up, pool):
            for body in (b"one", bytes(300_000)):
                assert (await ask(pool, body)).body == body
            stream = await begin(pool)
            assert await stream.read() == b"{}"
            assert (len(up.lines), pool.idle) == (1, 1)

    run(main())


@pytest.mark.filterwarnings("default::ResourceWarning")
def test_a_certificate_that_is_not_trusted_is_a_connect_failure(certificate: Path) -> None:
    async def main() -> None:
        async with upstream(echo, server_ssl=serving_tls(certificate)) as (_, pool):
            got = await ask(pool)
            assert (got.cause, got.sent) == ("Connect", False)
            assert "certificate" in got.detail.lower()

    run(main())
