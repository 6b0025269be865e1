"""The client over real sockets: which bytes are an answer, and whose."""

import asyncio
from typing import Any

import pytest

from support.http_upstream import Line, Script, echo, ok, saying, saying_once, upstream
from support.http_wire import run, until
from weir_router.client import Answer, ClientLimits, Failure, Pool, Stream
from weir_router.headers import header_block

CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


async def ask(pool: Pool, body: bytes = b"{}", timeout_ms: int = 60_000, **given: Any) -> Any:
    """Return what the pool gives for a POST."""
    method, path = given.get("method", b"POST"), given.get("path", b"/v1/x")
    return await pool.fetch(method, path, given.get("headers", []), body, timeout_ms=timeout_ms)


async def begin(pool: Pool, timeout_ms: int = 60_000) -> Any:
    """Return the stream, or the failure, of a POST."""
    return await pool.open(b"POST", b"/v1/x", [], b"{}", timeout_ms=timeout_ms)


def answer_to(script: Script, **given: Any) -> Any:
    """Return what one POST to a scripted upstream gives."""

    async def main() -> Any:
        async with upstream(script, limits=given.pop("limits", None)) as (_, pool):
            return await ask(pool, **given)

    return run(main())


def test_an_answer_has_status_headers_and_body() -> None:
    got = answer_to(saying(b"HTTP/1.1 429 Slow\r\nX-A: 1\r\ncontent-length: 2\r\n\r\nno"))
    assert isinstance(got, Answer)
    assert (got.status, got.body) == (429, b"no")
    assert (b"x-a", b"1") in got.headers
    assert 0 < got.first_byte_s < 3


def test_a_request_is_one_whole_head_and_body() -> None:
    async def main() -> None:
        heads: list[bytes] = []

        async def script(line: Line) -> None:
            while True:
                head, body = await line.asked()
                heads.append(head + body)
                await line.say(ok(b""))

        async with upstream(script) as (up, _):
            pool = Pool(f"http://127.0.0.1:{up.port}/prefix/")
            await ask(pool, b"{}", headers=[(b"x-a", b"1")])
            await ask(pool, b"", method=b"GET", headers=header_block([(b"x-b", b"2")]))
            await pool.aclose()
            host = b"host: 127.0.0.1:%d\r\nuser-agent: weir\r\n" % up.port
        fixed = host + b"content-type: application/json\r\naccept-encoding: identity\r\n"
        first = b"POST /prefix/v1/x HTTP/1.1\r\n" + fixed + b"x-a: 1\r\ncontent-length: 2\r\n\r\n{}"
        assert heads == [first, b"GET /prefix/v1/x HTTP/1.1\r\n" + fixed + b"x-b: 2\r\n\r\n"]

    run(main())


def test_a_header_value_cannot_inject_another() -> None:
    block = header_block([(b"x-a", b"1\r\nx-evil: 2\n\0"), (b"x-b", b"3")])
    assert block == b"x-a: 1x-evil: 2\r\nx-b: 3\r\n"


@pytest.mark.parametrize("path", [b"/a b", b"/a\r\nx: y", b"a", b""])
def test_a_path_that_is_none_is_our_own_mistake(path: bytes) -> None:
    async def main() -> None:
        pool = Pool("http://127.0.0.1:1")
        with pytest.raises(ValueError, match="absolute path"):
            await ask(pool, path=path)
        assert pool.in_flight == 0

    run(main())


@pytest.mark.parametrize(
    "url", ["ftp://a", "http://", "http://u:p@a", "http://a?q=1", "http://a/#f", "a:80"]
)
def test_a_url_it_cannot_use_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="wanted"):
        Pool(url)


ANSWERS = {
    "chunked": (saying(CHUNKED + b"2\r\nab\r\n1;x=y\r\nc\r\n0\r\n\r\n"), b"abc"),
    "chunked-in-parts": (saying(CHUNKED, b"2\r", b"\na", b"b\r\n0", b"\r\n\r\n"), b"ab"),
    "chunked-with-a-trailer": (saying(CHUNKED + b"2\r\nab\r\n0\r\nx-t: 1\r\n\r\n"), b"ab"),
    "a-length": (saying(ok(b"abc")), b"abc"),
    "a-length-in-parts": (saying(*[ok(b"abc")[at : at + 9] for at in range(0, 50, 9)]), b"abc"),
    "an-empty-body": (saying(ok(b"")), b""),
    "ended-by-the-close": (saying_once(b"HTTP/1.1 200 OK\r\n\r\nab", b"c"), b"abc"),
    "nothing-ended-by-the-close": (saying_once(b"HTTP/1.1 200 OK\r\n\r\n"), b""),
    "http-1.0": (saying_once(b"HTTP/1.0 200 OK\r\n\r\nabc"), b"abc"),
    "http-1.0-with-a-length": (saying_once(b"HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\na"), b"a"),
    "connection-close": (saying_once(ok(b"abc", "connection: close")), b"abc"),
    "after-100": (saying(b"HTTP/1.1 100 Continue\r\n\r\n" + ok(b"abc")), b"abc"),
}


@pytest.mark.parametrize(("script", "body"), ANSWERS.values(), ids=ANSWERS.keys())
def test_a_body_is_what_its_framing_says(script: Script, body: bytes) -> None:
    got = answer_to(script)
    assert isinstance(got, Answer)
    assert (got.status, got.body) == (200, body)


@pytest.mark.parametrize(("script", "body"), ANSWERS.values(), ids=ANSWERS.keys())
def test_a_stream_s_parts_make_up_the_body(script: Script, body: bytes) -> None:
    async def main() -> None:
        async with upstream(script) as (_, pool):
            stream = await begin(pool)
            assert stream.status == 200
            got = [part async for part in _parts(stream)]
            assert stream.complete
            assert pool.in_flight == 0
        assert b"".join(got) == body

    run(main())


async def _parts(stream: Stream) -> Any:
    while part := await stream.read():
        assert isinstance(part, bytes), part
        yield part


def test_a_103_is_not_an_answer() -> None:
    """The parser completes a message for a 103; its connection must stay with its request."""

    async def main() -> None:
        async def script(line: Line) -> None:
            while True:
                _, body = await line.asked()
                await line.say(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n")
                await asyncio.sleep(0.02)
                await line.say(ok(body))

        async with upstream(script) as (up, pool):
            got = await asyncio.gather(*[ask(pool, b"%d" % number) for number in range(8)])
            assert [one.body for one in got] == [b"%d" % number for number in range(8)]
            assert len(up.lines) == 8

    run(main())


@pytest.mark.parametrize(
    ("status", "method"), [(204, b"POST"), (304, b"POST"), (200, b"HEAD")], ids=str
)
def test_an_answer_without_a_body_ends_with_its_head(status: int, method: bytes) -> None:
    script = saying(b"HTTP/1.1 %d X\r\ncontent-length: 5\r\n\r\n" % status)
    got = answer_to(script, method=method, timeout_ms=1_000)
    assert (got.status, got.body) == (status, b"")


def test_after_a_head_request_the_connection_is_not_used_again() -> None:
    async def main() -> None:
        async def script(line: Line) -> None:
            head, body = await line.asked()
            await line.say(ok(b"12345")[:-5] if head.startswith(b"HEAD") else ok(body))

        async with upstream(script) as (_, pool):
            await ask(pool, b"", method=b"HEAD")
            assert pool.idle == 0
            assert (await ask(pool, b"mine")).body == b"mine"

    run(main())


FAULTS = {
    "garbage": (saying(b"garbage\r\n\r\n"), "ServerError"),
    "length-and-chunked": (
        saying(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\na"),
        "ServerError",
    ),
    "chunked-and-length": (
        saying(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 1\r\n\r\na"),
        "ServerError",
    ),
    "two-lengths": (
        saying(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\na"),
        "ServerError",
    ),
    "identity-then-chunked": (
        saying(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: identity\r\ntransfer-encoding: chunked\r\n\r\n"
            b"0\r\n\r\n"
        ),
        "ServerError",
    ),
    "gzip-encoding": (
        saying(b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nabc"),
        "ServerError",
    ),
    "switched-protocols": (
        saying(b"HTTP/1.1 101 X\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n"),
        "ServerError",
    ),
    "a-plain-101": (saying(b"HTTP/1.1 101 X\r\n\r\n"), "ServerError"),
    "a-bad-chunk": (saying(CHUNKED + b"zz\r\n"), "ServerError"),
    "a-short-body": (saying_once(ok(b"abc")[:-1]), "BrokenStream"),
    "half-a-head": (saying_once(b"HTTP/1.1 200 OK\r\ncontent-le"), "BrokenStream"),
    "a-truncated-chunk": (saying_once(CHUNKED + b"5\r\nab"), "BrokenStream"),
    "no-last-chunk": (saying_once(CHUNKED + b"2\r\nab\r\n"), "BrokenStream"),
    "only-a-103": (saying_once(b"HTTP/1.1 103 Early\r\n\r\n"), "BrokenStream"),
}


@pytest.mark.parametrize(("script", "cause"), FAULTS.values(), ids=FAULTS.keys())
def test_what_is_no_whole_answer_is_a_failure(script: Script, cause: str) -> None:
    got = answer_to(script)
    assert isinstance(got, Failure)
    assert (got.cause, got.sent, got.answered) == (cause, True, True)
    assert got.detail.startswith("127.0.0.1:")


def test_a_stream_gives_what_came_before_it_broke() -> None:
    async def main() -> None:
        async with upstream(saying_once(CHUNKED + b"2\r\nab\r\n")) as (_, pool):
            stream = await begin(pool)
            first, second, third = [await stream.read() for _ in range(3)]
            assert pool.in_flight == 0
        assert first == b"ab"
        assert isinstance(second, Failure)
        assert (second.cause, second.answered, second is third) == ("BrokenStream", True, True)
        assert not stream.complete

    run(main())


FEW = ClientLimits(max_header_bytes=2_000, max_body_bytes=3_000)
MUCH = b"a" * 500
LARGE = {
    "one-header": saying(ok(b"", "x-a: " + "a" * 2_000)),
    "many-headers": saying(b"HTTP/1.1 200 OK\r\n", *[b"x-a: " + MUCH + b"\r\n"] * 5),
    "an-endless-header": saying(b"HTTP/1.1 200 OK\r\nx-a: ", *[MUCH] * 5),
    "an-endless-reason": saying(b"HTTP/1.1 200 ", *[MUCH] * 5),
    "many-103s": saying(b"HTTP/1.1 103 X\r\nx-a: %b\r\n\r\n" % MUCH * 5),
    "an-endless-trailer": saying(CHUNKED + b"0\r\nx-a: ", *[MUCH] * 5),
    "an-endless-extension": saying(CHUNKED + b"1\r\na\r\n1;", *[MUCH] * 6),
    "a-body": saying(ok(MUCH * 7)),
    "a-chunked-body": saying(CHUNKED + b"1f4\r\n" + MUCH + b"\r\n", *[b"1f4\r\n%b\r\n" % MUCH] * 6),
}


@pytest.mark.parametrize("script", LARGE.values(), ids=LARGE.keys())
def test_an_answer_over_its_bounds_is_a_failure(script: Script) -> None:
    got = answer_to(script, limits=FEW)
    assert isinstance(got, Failure)
    assert got.cause == "ServerError"


def test_a_body_of_just_the_bound_is_an_answer() -> None:
    got = answer_to(saying(ok(MUCH * 6)), limits=FEW)
    assert len(got.body) == 3_000


def test_one_read_gives_what_one_moment_brought() -> None:
    async def main() -> None:
        parts = (CHUNKED + b"1\r\na\r\n1\r\nb\r\n", b"1\r\nc\r\n1\r\nd\r\n0\r\n\r\n")

        async def script(line: Line) -> None:
            await line.asked()
            await line.say(parts[0])
            await asyncio.sleep(0.05)
            await line.say(parts[1])

        async with upstream(script) as (_, pool):
            stream = await begin(pool)
            got = [part async for part in _parts(stream)]
        assert got == [b"ab", b"cd"]

    run(main())


def test_a_slow_reader_of_a_stream_pauses_the_upstream() -> None:
    async def main() -> None:
        sent = 0

        async def script(line: Line) -> None:
            nonlocal sent
            await line.asked()
            await line.say(CHUNKED)
            for _ in range(256):
                await line.say(b"10000\r\n" + bytes(65_536) + b"\r\n")
                sent += 1
            await line.say(b"0\r\n\r\n")
            await line.closed()

        async with upstream(script) as (_, pool):
            stream = await begin(pool)
            await asyncio.sleep(0.2)
            assert sent < 250
            size = sum([len(part) async for part in _parts(stream)])
            assert size == 256 * 65_536
            assert pool.idle == 1

    run(main())


def test_a_large_request_reaches_an_upstream_that_reads_slowly() -> None:
    async def main() -> None:
        async def script(line: Line) -> None:
            line.writer.transport.pause_reading()  # type: ignore[attr-defined]
            await asyncio.sleep(0.1)
            line.writer.transport.resume_reading()  # type: ignore[attr-defined]
            await echo(line)

        body = bytes(range(256)) * 40_000
        async with upstream(script) as (_, pool):
            got = await ask(pool, body)
            assert got.body == body
            assert pool.idle == 1

    run(main())


def test_a_connection_with_half_a_request_written_is_not_used_again() -> None:
    async def main() -> None:
        async def script(line: Line) -> None:
            line.writer.transport.pause_reading()  # type: ignore[attr-defined]
            await line.say(b"HTTP/1.1 413 X\r\ncontent-length: 0\r\n\r\n")
            await asyncio.sleep(0.1)

        async with upstream(script) as (_, pool):
            got = await ask(pool, bytes(30_000_000))
            assert (got.status, pool.idle) == (413, 0)

    run(main())


def test_closing_a_stream_closes_its_connection() -> None:
    async def main() -> None:
        gone = asyncio.Event()

        async def script(line: Line) -> None:
            await line.asked()
            await line.say(CHUNKED + b"1\r\na\r\n")
            await line.closed()
            gone.set()

        async with upstream(script) as (_, pool):
            stream = await begin(pool)
            stream.close()
            assert pool.in_flight == 0
            await gone.wait()
            await stream.read()
            assert isinstance(await stream.read(), Failure)

    run(main())


@pytest.mark.parametrize("streaming", [False, True], ids=["fetch", "read"])
def test_cancelling_whoever_waits_closes_the_connection(streaming: bool) -> None:
    async def main() -> None:
        gone = asyncio.Event()

        async def script(line: Line) -> None:
            await line.asked()
            await line.say(CHUNKED)
            await line.closed()
            gone.set()

        async def wait(pool: Pool) -> None:
            if not streaming:
                await ask(pool)
                return
            stream = await begin(pool)
            await stream.read()

        async with upstream(script) as (up, pool):
            task = asyncio.create_task(wait(pool))
            await until(lambda: up.open)
            await asyncio.sleep(0.02)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await gone.wait()
            assert pool.in_flight == 0

    run(main())
