"""The front door over real sockets: what is answered, in which order, on which connection."""

import asyncio
import logging
from typing import Any

import pytest

from support.http_door import echo, serving
from support.http_wire import post, run
from weir_router.cycle import Exchange


def test_a_model_path_is_answered_by_its_handler() -> None:
    async def main() -> None:
        seen: list[Exchange] = []

        async def handler(exchange: Exchange) -> None:
            seen.append(exchange)
            exchange.reply(201, [(b"x-a", b"1")], b"made")

        async with serving({b"/v1/x": handler}) as served:
            wire = await served.wire()
            await wire.send(post("/v1/x?a=b&c", b"hello", "X-Mixed: Case"))
            got = await wire.answer()
        assert (got.status, got.headers["x-a"], got.body) == (201, "1", b"made")
        assert got.headers["date"].endswith("GMT")
        asked = seen[0]
        assert (asked.method, asked.path, asked.query) == (b"POST", b"/v1/x", b"a=b&c")
        assert (asked.body, asked.client) == (b"hello", "127.0.0.1")
        assert (asked.header(b"x-mixed"), asked.header(b"x-none")) == (b"Case", b"")
        assert asked.complete
        assert not asked.gone

    run(main())


def test_another_path_reaches_the_app_on_the_same_connection() -> None:
    async def main() -> None:
        async with serving() as served:
            wire = await served.wire()
            await wire.send(post("/other", b"hi"), post("/v1/x", b"ours"), post("/more", b"!"))
            bodies = [(await wire.answer()).body for _ in range(3)]
        assert bodies == [b"app /other hi", b"ours", b"app /more !"]

    run(main())


@pytest.mark.parametrize("path", ["/v1/x", "/other"], ids=["handler", "app"])
@pytest.mark.parametrize("second", ["/v1/x", "/other"], ids=["then-handler", "then-app"])
def test_three_pipelined_requests_are_answered_in_order(path: str, second: str) -> None:
    async def main() -> None:
        async def slower_first(exchange: Exchange) -> None:
            await asyncio.sleep(0.03 / (1 + int(exchange.body)))
            exchange.reply(200, [], exchange.body)

        async with serving({b"/v1/x": slower_first}) as served:
            wire = await served.wire()
            asked = [post(path, b"0"), post(second, b"1"), post("/v1/x", b"2")]
            await wire.send(b"".join(asked))
            bodies = [(await wire.answer()).body[-1:] for _ in range(3)]
            total = served.state.total_requests
        assert bodies == [b"0", b"1", b"2"]
        assert total == 3

    run(main())


def test_a_pipelined_request_whose_body_comes_late_is_answered() -> None:
    async def main() -> None:
        async with serving() as served:
            wire = await served.wire()
            both = post(body=b"one") + post(body=b"two")
            await wire.send(both[:-2])
            first = await wire.answer()
            await wire.send(both[-2:])
            second = await wire.answer()
        assert (first.body, second.body) == (b"one", b"two")

    run(main())


def test_a_body_in_many_small_parts_is_one_body() -> None:
    async def main() -> None:
        async with serving() as served:
            wire = await served.wire()
            asked = post(body=b"0123456789")
            await wire.send(*[asked[at : at + 7] for at in range(0, len(asked), 7)])
            got = await wire.answer()
        assert got.body == b"0123456789"

    run(main())


def test_a_chunked_request_and_its_trailer_are_read() -> None:
    async def main() -> None:
        async with serving() as served:
            wire = await served.wire()
            head = b"POST /v1/x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: Chunked\r\n\r\n"
            await wire.send(head, b"3\r\nabc\r\n", b"2\r\nde\r\n0\r\nx-trailer: 1\r\n\r\n")
            got = await wire.answer()
            await wire.send(post(body=b"next"))
            after = await wire.answer()
        assert (got.body, after.body) == (b"abcde", b"next")

    run(main())


@pytest.mark.parametrize("path", ["/v1/x", "/other"], ids=["handler", "app"])
def test_expect_100_continue_is_answered_before_the_body(path: str) -> None:
    async def main() -> None:
        async with serving() as served:
            wire = await served.wire()
            asked = post(path, b"hello", "expect: 100-continue")
            await wire.send(asked[:-5])
            first = await wire.answer()
            await wire.send(asked[-5:])
            second = await wire.answer()
        assert first.status == 100
        assert second.body.endswith(b"hello")

    run(main())


def test_no_100_continue_comes_between_another_answer() -> None:
    async def main() -> None:
        async def stream(exchange: Exchange) -> None:
            exchange.start(200, [])
            for _ in range(3):
                exchange.write(b"part")
                await asyncio.sleep(0.02)
            exchange.end()

        async with serving({b"/v1/s": stream, b"/v1/x": echo}) as served:
            wire = await served.wire()
            asked = post("/v1/x", b"hello", "expect: 100-continue")
            await wire.send(post("/v1/s") + asked[:-5])
            got = [await wire.answer(), await wire.answer()]
            await wire.send(asked[-5:])
            last = await wire.answer()
        assert [one.status for one in got] == [200, 100]
        assert last.body == b"hello"

    run(main())


def test_no_100_continue_when_the_body_is_there_or_the_client_old() -> None:
    async def main() -> None:
        async with serving() as served:
            wire = await served.wire()
            await wire.send(post("/v1/x", b"hello", "expect: 100-continue"))
            assert (await wire.answer()).status == 200
            old = await served.wire()
            head = b"POST /v1/x HTTP/1.0\r\nexpect: 100-continue\r\ncontent-length: 1\r\n\r\n"
            await old.send(head, b"x")
            assert (await old.answer()).status == 200

    run(main())


def test_a_stream_comes_in_chunks_and_keeps_the_connection() -> None:
    async def main() -> None:
        async def stream(exchange: Exchange) -> None:
            exchange.start(200, [(b"content-type", b"text/event-stream")])
            for word in (b"one", b"", b"two"):
                exchange.write(word)
                await exchange.drain()
                await asyncio.sleep(0)
            exchange.end()

        async with serving({b"/v1/x": stream}) as served:
            wire = await served.wire()
            await wire.send(post() + post())
            got = [await wire.answer(), await wire.answer()]
        assert [one.body for one in got] == [b"onetwo", b"onetwo"]
        assert got[0].headers["transfer-encoding"] == "chunked"

    run(main())


def test_http_1_0_gets_a_stream_without_chunks_and_a_close() -> None:
    async def main() -> None:
        async def stream(exchange: Exchange) -> None:
            exchange.start(200, [])
            exchange.write(b"one")
            exchange.write(b"two")
            exchange.end()

        async with serving({b"/v1/x": stream}) as served:
            wire = await served.wire()
            await wire.send(b"POST /v1/x HTTP/1.0\r\ncontent-length: 1\r\n\r\nx")
            got = await wire.answer()
        assert got.headers["connection"] == "close"
        assert "transfer-encoding" not in got.headers
        assert got.body == b"onetwo"

    run(main())


@pytest.mark.parametrize(
    "asked",
    [
        b"POST /v1/x HTTP/1.0\r\ncontent-length: 2\r\n\r\nhi",
        b"POST /v1/x HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 2\r\n\r\nhi",
    ],
    ids=["http-1.0", "connection-close"],
)
def test_the_connection_closes_when_the_client_asks_for_it(asked: bytes) -> None:
    async def main() -> None:
        async with serving() as served:
            wire = await served.wire()
            await wire.send(asked)
            got = await wire.answer()
            rest = await wire.rest()
        assert (got.body, got.headers["connection"], rest) == (b"hi", "close", b"")

    run(main())


def test_an_absolute_url_finds_its_handler() -> None:
    async def main() -> None:
        async with serving() as served:
            wire = await served.wire()
            await wire.send(post("http://b:80/v1/x?q=1", b"abs"), post("http://b/other", b"app"))
            bodies = [(await wire.answer()).body for _ in range(2)]
        assert bodies == [b"abs", b"app /other app"]

    run(main())


def test_a_large_answer_arrives_whole() -> None:
    async def main() -> None:
        async with serving() as served:
            wire = await served.wire()
            body = bytes(range(256)) * 8192
            await wire.send(post(body=body))
            got = await wire.answer()
        assert got.body == body

    run(main())


def test_an_answer_header_cannot_inject_another() -> None:
    async def main() -> None:
        async def handler(exchange: Exchange) -> None:
            exchange.reply(200, [(b"x-a", b"1\r\nx-evil: 2\n\0")], b"ok")

        async with serving({b"/v1/x": handler}) as served:
            wire = await served.wire()
            await wire.send(post())
            got = await wire.answer()
        assert got.headers["x-a"] == "1x-evil: 2"
        assert "x-evil" not in got.headers

    run(main())


def test_no_content_means_no_body_and_no_length() -> None:
    async def main() -> None:
        async def handler(exchange: Exchange) -> None:
            exchange.reply(204, [], b"")

        async with serving({b"/v1/x": handler}) as served:
            wire = await served.wire()
            await wire.send(post(), post())
            got = [await wire.answer(), await wire.answer()]
        assert [one.status for one in got] == [204, 204]
        assert "content-length" not in got[0].headers

    run(main())


@pytest.mark.parametrize("method", ["GET", "PUT", "HEAD", "OPTIONS"])
def test_another_method_on_a_model_path_is_told_what_is_allowed(method: str) -> None:
    async def main() -> None:
        async with serving() as served:
            wire = await served.wire()
            await wire.send(f"{method} /v1/x HTTP/1.1\r\nhost: a\r\n\r\n".encode())
            status, headers = await wire.head()
            if method in ("GET", "PUT"):
                body = await wire.reader.readexactly(int(headers["content-length"]))
                assert b'"method_not_allowed"' in body
            await wire.send(post(body=b"still open"))
            after = await wire.answer()
        assert status == (204 if method == "OPTIONS" else 405)
        assert headers["allow"] == "POST, OPTIONS"
        assert after.body == b"still open"

    run(main())


def test_an_upgrade_that_nobody_offers_is_ignored() -> None:
    """Java's client asks for h2c with every first request, body included."""

    async def main() -> None:
        async with serving() as served:
            wire = await served.wire()
            upgrade = ("connection: Upgrade, HTTP2-Settings", "upgrade: h2c", "http2-settings: x")
            asked = post("/v1/x", b"hello", *upgrade)
            await wire.send(asked, asked[:-2], asked[-2:] + post(body=b"next"))
            bodies = [(await wire.answer()).body for _ in range(3)]
        assert bodies == [b"hello", b"hello", b"next"]

    run(main())


async def _answers_of(handler: Any, *asked: bytes, **door: Any) -> tuple[list[Any], bytes]:
    async with serving({b"/v1/x": handler}, door=door) as served:
        wire = await served.wire()
        await wire.send(*asked)
        got = [await wire.answer()]
        return got, b"" if got[0].headers.get("connection") != "close" else await wire.rest()


async def _raise(exchange: Exchange) -> None:
    raise RuntimeError("a secret of the request")


async def _forget(exchange: Exchange) -> None:
    """End without an answer."""


@pytest.mark.parametrize("handler", [_raise, _forget], ids=["raises", "does-not-answer"])
def test_a_failing_handler_is_a_503_and_one_log_line(
    handler: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "weir_router.server"):
        got, _ = run(_answers_of(handler, post()))
    assert got[0].status == 503
    assert got[0].headers["retry-after"] in ("1", "2")
    assert b'"type":"server_error"' in got[0].body
    assert [record.getMessage() for record in caplog.records] == ["handler failed"]
    assert "secret" not in str(vars(caplog.records[0]))


def test_the_crash_hook_says_what_is_answered() -> None:
    def crash(exchange: Exchange) -> Any:
        return 504, [(b"x-path", exchange.path)], b"later"

    got, _ = run(_answers_of(_raise, post(), crash=crash))
    assert (got[0].status, got[0].headers["x-path"], got[0].body) == (504, "/v1/x", b"later")


def test_a_crash_hook_that_fails_is_a_503_all_the_same() -> None:
    def crash(exchange: Exchange) -> Any:
        raise RuntimeError

    got, _ = run(_answers_of(_raise, post(), crash=crash))
    assert got[0].status == 503


@pytest.mark.parametrize(
    ("status", "headers"), [(999, []), (200, [(b"x-a", "text")])], ids=["status", "header"]
)
def test_an_answer_that_cannot_be_written_is_a_503(status: int, headers: Any) -> None:
    async def handler(exchange: Exchange) -> None:
        exchange.reply(status, headers, b"")

    got, _ = run(_answers_of(handler, post()))
    assert got[0].status == 503


def test_a_handler_failing_in_mid_stream_closes_the_connection() -> None:
    async def main() -> None:
        async def handler(exchange: Exchange) -> None:
            exchange.start(200, [])
            exchange.write(b"half")
            raise RuntimeError

        async with serving({b"/v1/x": handler}) as served:
            wire = await served.wire()
            await wire.send(post())
            await wire.head()
            rest = await wire.rest()
        assert rest == b"4\r\nhalf\r\n"

    run(main())


def test_the_access_log_is_off_unless_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "weir_router.server"):
        run(_answers_of(echo, post()))
        assert not caplog.records
        run(_answers_of(echo, post("/v1/x?key=secret"), access_log=True))
    record = vars(caplog.records[0])
    assert caplog.records[0].getMessage() == "request answered"
    assert [record[name] for name in ("client", "method", "path", "status")] == [
        "127.0.0.1",
        "POST",
        "/v1/x",
        200,
    ]
