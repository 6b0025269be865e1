"""What the front door refuses: two readings, too much, too slow. Always in OpenAI's shape."""

import asyncio
import json
from typing import Any

import pytest

from support.http_door import echo, serving
from support.http_wire import Got, post, run, until
from weir_router.cycle import Exchange
from weir_router.server import ServerLimits

LINE = b"POST /v1/x HTTP/1.1\r\n"
HOST = b"host: a\r\n"

MALFORMED = {
    "length-and-chunked": LINE + HOST + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n"
    b"0\r\n\r\n",
    "chunked-and-length": LINE + HOST + b"transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n"
    b"0\r\n\r\n",
    "two-lengths": LINE + HOST + b"content-length: 2\r\ncontent-length: 3\r\n\r\nabc",
    "a-length-list": LINE + HOST + b"content-length: 2, 2\r\n\r\nab",
    "a-negative-length": LINE + HOST + b"content-length: -2\r\n\r\nab",
    "identity-then-chunked": LINE + HOST + b"transfer-encoding: identity\r\n"
    b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "gzip-then-chunked": LINE + HOST + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked-twice": LINE + HOST + b"transfer-encoding: chunked\r\n"
    b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked-in-http-1.0": b"POST /v1/x HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "two-hosts": LINE + HOST + HOST + b"content-length: 0\r\n\r\n",
    "two-hosts-in-http-1.0": b"POST /v1/x HTTP/1.0\r\n" + HOST + HOST + b"\r\n",
    "no-host": LINE + b"content-length: 0\r\n\r\n",
    "not-http": b"\x16\x03\x01 tls hello",
    "http-2-preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "bare-line-feeds": b"POST /v1/x HTTP/1.1\nhost: a\n\n",
    "a-space-before-the-colon": LINE + b"host : a\r\n\r\n",
    "a-folded-header": LINE + HOST + b"x-a: 1\r\n 2\r\n\r\n",
    "a-nul-in-a-header": LINE + HOST + b"x-a: 1\x002\r\n\r\n",
    "a-bad-chunk-size": LINE + HOST + b"transfer-encoding: chunked\r\n\r\nzz\r\n",
    "a-chunk-longer-than-its-size": LINE
    + HOST
    + b"transfer-encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
    "an-unknown-method": b"BREW /v1/x HTTP/1.1\r\n" + HOST + b"\r\n",
    "a-url-of-nothing": b"POST http:// HTTP/1.1\r\n" + HOST + b"\r\n",
    "options-of-everything": b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n",
}


async def _refused(*asked: bytes, limits: ServerLimits | None = None, **given: Any) -> Got:
    """Return the one answer to `asked`, after which the connection is closed."""
    async with serving(limits=limits, **given) as served:
        wire = await served.wire()
        await wire.send(*asked)
        got = await wire.answer()
        assert await wire.rest() == b""
    assert got.headers["connection"] == "close"
    return got


def _code(got: Got) -> tuple[int, str]:
    error = json.loads(got.body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert error["param"] is None
    assert error["message"]
    return got.status, error["code"]


@pytest.mark.parametrize("asked", MALFORMED.values(), ids=MALFORMED.keys())
def test_what_has_two_readings_or_none_is_a_400_and_a_close(asked: bytes) -> None:
    assert _code(run(_refused(asked))) == (400, "bad_request")


def test_the_app_s_paths_are_guarded_too() -> None:
    asked = MALFORMED["two-hosts"].replace(b"/v1/x", b"/other")
    assert _code(run(_refused(asked))) == (400, "bad_request")


@pytest.mark.parametrize(
    "asked",
    [b"POST /v1/x HTTP/2.0\r\nhost: a\r\n\r\n", b"POST /v1/x\r\n\r\n"],
    ids=["http-2", "http-0.9"],
)
def test_another_version_than_1_is_a_505(asked: bytes) -> None:
    assert _code(run(_refused(asked))) == (505, "http_version")


def test_connect_is_a_405() -> None:
    asked = b"CONNECT b:443 HTTP/1.1\r\nhost: b\r\n\r\n"
    assert _code(run(_refused(asked))) == (405, "method_not_allowed")


def test_data_after_connection_close_is_no_request() -> None:
    async def main() -> None:
        queued: list[int] = []

        async def handler(exchange: Exchange) -> None:
            (connection,) = served.state.connections
            queued.append(len(connection.pipeline))
            await echo(exchange)

        async with serving({b"/v1/x": handler}) as served:
            wire = await served.wire()
            await wire.send(post("/v1/x", b"one", "connection: close") + post(body=b"two"))
            got = await wire.answer()
            assert await wire.rest() == b""
        assert (got.body, queued) == (b"one", [0])

    run(main())


def test_garbage_behind_a_request_is_refused_after_its_answer() -> None:
    async def main() -> None:
        async def late(exchange: Exchange) -> None:
            await asyncio.sleep(0.05)
            await echo(exchange)

        async with serving({b"/v1/x": late}) as served:
            wire = await served.wire()
            await wire.send(post(body=b"one") + post(body=b"two") + b"garbage\r\n\r\n")
            got = [await wire.answer() for _ in range(3)]
            assert await wire.rest() == b""
        assert [one.body for one in got[:2]] == [b"one", b"two"]
        assert _code(got[2]) == (400, "bad_request")

    run(main())


def test_a_refused_body_behind_a_request_is_refused_in_its_turn() -> None:
    async def main() -> None:
        async def late(exchange: Exchange) -> None:
            await asyncio.sleep(0.05)
            await echo(exchange)

        limits = ServerLimits(max_body_bytes=4)
        async with serving({b"/v1/x": late}, limits=limits) as served:
            wire = await served.wire()
            chunked = LINE + HOST + b"transfer-encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n"
            await wire.send(post(body=b"one") + chunked)
            got = [await wire.answer() for _ in range(2)]
            assert await wire.rest() == b""
        assert got[0].body == b"one"
        assert _code(got[1]) == (413, "body_too_large")

    run(main())


SMALL = ServerLimits(max_body_bytes=1000)


@pytest.mark.parametrize("path", [b"/v1/x", b"/other"], ids=["handler", "app"])
def test_a_length_over_the_limit_is_a_413_before_the_body(path: bytes) -> None:
    asked = b"POST " + path + b" HTTP/1.1\r\nhost: a\r\ncontent-length: 1001\r\n\r\n"
    assert _code(run(_refused(asked, limits=SMALL))) == (413, "body_too_large")


@pytest.mark.parametrize("path", [b"/v1/x", b"/other"], ids=["handler", "app"])
def test_a_chunked_body_over_the_limit_is_a_413_while_it_arrives(path: bytes) -> None:
    head = b"POST " + path + b" HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
    parts = [b"190\r\n" + bytes(400) + b"\r\n" for _ in range(3)]
    assert _code(run(_refused(head, *parts, limits=SMALL))) == (413, "body_too_large")


def test_an_app_whose_request_is_refused_midway_hears_of_it() -> None:
    async def main() -> None:
        heard: list[str] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            while heard[-1:] != ["http.disconnect"]:
                heard.append((await receive())["type"])

        limits = ServerLimits(max_body_bytes=1000, linger_s=60)
        async with serving(app=app, limits=limits) as served:
            wire = await served.wire()
            head = b"POST /other HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
            await wire.send(head, *[b"190\r\n" + bytes(400) + b"\r\n" for _ in range(3)])
            assert (await wire.answer()).status == 413
            await until(lambda: not served.state.tasks)
        assert heard[-1] == "http.disconnect"

    run(main())


def test_a_413_reaches_a_client_that_goes_on_sending() -> None:
    async def main() -> None:
        async with serving(limits=SMALL) as served:
            wire = await served.wire()
            await wire.send(LINE + HOST + b"content-length: 9000000\r\n\r\n")
            for _ in range(20):
                wire.writer.write(bytes(50_000))
                await asyncio.sleep(0.002)
            got = await wire.answer()
        assert got.status == 413

    run(main())


def test_a_body_of_just_the_limit_is_taken() -> None:
    async def main() -> None:
        async with serving(limits=SMALL) as served:
            wire = await served.wire()
            await wire.send(post(body=bytes(1000)))
            assert (await wire.answer()).status == 200

    run(main())


FEW = ServerLimits(max_header_bytes=2000)


@pytest.mark.parametrize(
    "parts",
    [
        (LINE + HOST + b"x-a: " + bytes(b"a" * 2100) + b"\r\n\r\n",),
        (LINE + HOST, *[b"x-a: " + bytes(b"a" * 400) + b"\r\n" for _ in range(6)]),
        (LINE + HOST + b"x-a: ", *[bytes(b"a" * 500) for _ in range(6)]),
        (b"POST /" + bytes(b"a" * 1000), *[bytes(b"a" * 500) for _ in range(6)]),
        (
            LINE + HOST + b"transfer-encoding: chunked\r\n\r\n0\r\nx-a: ",
            *[bytes(b"a" * 500) for _ in range(6)],
        ),
        (
            LINE + HOST + b"transfer-encoding: chunked\r\n\r\n1\r\na\r\n1;",
            *[bytes(b"a" * 500) for _ in range(6)],
        ),
    ],
    ids=["one", "many", "endless-value", "endless-url", "endless-trailer", "endless-extension"],
)
def test_more_header_bytes_than_the_cap_are_a_431(parts: tuple[bytes, ...]) -> None:
    assert _code(run(_refused(*parts, limits=FEW))) == (431, "headers_too_large")


def test_a_large_body_is_not_taken_for_a_large_header() -> None:
    async def main() -> None:
        async with serving(limits=FEW) as served:
            wire = await served.wire()
            asked = post(body=bytes(9000))
            await wire.send(asked[:5000], asked[5000:] + asked[:50], asked[50:])
            assert [(await wire.answer()).status for _ in range(2)] == [200, 200]

    run(main())


def test_no_more_is_read_while_a_request_waits_for_its_turn() -> None:
    async def main() -> None:
        paused: list[bool] = []

        async def handler(exchange: Exchange) -> None:
            (connection,) = served.state.connections
            paused.append(connection.flow.read_paused)
            await echo(exchange)

        async with serving({b"/v1/x": handler}) as served:
            wire = await served.wire()
            await wire.send(post() * 3)
            assert [(await wire.answer()).status for _ in range(3)] == [200] * 3
            assert not next(iter(served.state.connections)).flow.read_paused
        assert paused == [True, True, False]

    run(main())


def test_more_pipelined_requests_than_the_limit_are_refused() -> None:
    async def main() -> None:
        async with serving(limits=ServerLimits(max_pipelined=2)) as served:
            wire = await served.wire()
            await wire.send(post() * 9)
            got = [await wire.answer() for _ in range(4)]
            assert await wire.rest() == b""
        assert [one.status for one in got] == [200, 200, 200, 400]

    run(main())


HASTY = ServerLimits(header_timeout_s=0.15, body_timeout_s=0.15)


def test_a_slow_header_is_a_408() -> None:
    parts = [LINE, HOST, *[b"x-a: 1\r\n"] * 3]

    async def main() -> None:
        async with serving(limits=HASTY) as served:
            wire = await served.wire()
            began_s = asyncio.get_running_loop().time()
            for part in parts:
                await wire.send(part)
                await asyncio.sleep(0.02)
            got = await wire.answer()
            assert asyncio.get_running_loop().time() - began_s < 2
        assert _code(got) == (408, "request_timeout")

    run(main())


@pytest.mark.parametrize("path", ["/v1/x", "/other"], ids=["handler", "app"])
def test_a_slow_body_is_a_408(path: str) -> None:
    assert _code(run(_refused(post(path, b"12345")[:-2], limits=HASTY))) == (408, "request_timeout")


def test_a_body_s_time_does_not_run_while_its_turn_is_awaited() -> None:
    async def main() -> None:
        async def late(exchange: Exchange) -> None:
            await asyncio.sleep(0.4)
            await echo(exchange)

        async with serving({b"/v1/s": late, b"/v1/x": echo}, limits=HASTY) as served:
            wire = await served.wire()
            asked = post("/v1/x", b"second")
            await wire.send(post("/v1/s", b"first") + asked[:-3])
            first = await wire.answer()
            await wire.send(asked[-3:])
            second = await wire.answer()
        assert (first.body, second.body) == (b"first", b"second")

    run(main())


def test_a_pipelined_body_that_does_not_come_is_a_408_in_its_turn() -> None:
    async def main() -> None:
        async with serving(limits=HASTY) as served:
            wire = await served.wire()
            await wire.send(post(body=b"first") + post(body=b"second")[:-3])
            got = [await wire.answer() for _ in range(2)]
            assert await wire.rest() == b""
        assert got[0].body == b"first"
        assert _code(got[1]) == (408, "request_timeout")

    run(main())


def test_a_client_that_says_nothing_is_closed_without_a_word() -> None:
    async def main() -> None:
        async with serving(limits=HASTY) as served:
            wire = await served.wire()
            assert await wire.rest() == b""

    run(main())


def test_empty_lines_do_not_keep_a_connection() -> None:
    async def main() -> None:
        async with serving(limits=ServerLimits(header_timeout_s=0.15, keep_alive_s=0.15)) as served:
            silent, idle = await served.wire(), await served.wire()
            await idle.send(post())
            await idle.answer()
            for _ in range(12):
                silent.writer.write(b"\r\n")
                idle.writer.write(b"\r\n")
                await asyncio.sleep(0.01)
            await until(lambda: not served.state.connections)

    run(main())


def test_a_refused_client_that_never_leaves_is_cut_off() -> None:
    async def main() -> None:
        async with serving(limits=ServerLimits(linger_s=0.1)) as served:
            wire = await served.wire()
            await wire.send(MALFORMED["two-hosts"])
            await wire.answer()
            for _ in range(5):
                wire.writer.write(b"more")
                await asyncio.sleep(0.01)
            await until(lambda: not served.state.connections)

    run(main())


def test_more_than_limit_concurrency_is_a_503() -> None:
    async def main() -> None:
        async with serving(limit_concurrency=2) as served:
            first, second = await served.wire(), await served.wire()
            await first.send(post())
            await until(lambda: len(served.state.connections) == 2)
            await second.send(post("/other"))
            got = await second.answer()
            await second.rest()
        assert got.status == 503
        assert got.headers["retry-after"] in ("1", "2")
        assert b'"code":"overloaded"' in got.body

    run(main())
