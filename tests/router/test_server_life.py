"""The front door while clients leave, readers are slow and the server shuts down."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.http_door import echo, serving
from support.http_tls import make_certificate, trusting
from support.http_wire import Wire, post, run, until
from weir_router.cycle import Exchange, Handler
from weir_router.server import ServerLimits

PROGRAM = Path(__file__).parents[1] / "support" / "http_program.py"


@pytest.mark.parametrize("started", [False, True], ids=["before-a-byte", "in-mid-stream"])
def test_a_client_that_leaves_is_told_once(started: bool) -> None:
    async def main() -> None:
        told: list[int] = []
        held: list[Exchange] = []

        async def handler(exchange: Exchange) -> None:
            held.append(exchange)
            exchange.on_gone = lambda: told.append(1)
            if started:
                exchange.start(200, [])
                exchange.write(b"x")
            await until(lambda: exchange.gone)
            await exchange.drain()
            exchange.write(b"nobody") if started else exchange.reply(200, [], b"nobody")

        async with serving({b"/v1/x": handler}) as served:
            wire = await served.wire()
            await wire.send(post())
            await until(lambda: held)
            await wire.close()
            await until(lambda: not served.state.tasks)
        assert told == [1]
        assert not held[0].complete

    run(main())


def test_a_client_that_leaves_after_the_answer_is_not_told() -> None:
    async def main() -> None:
        told: list[int] = []

        async def handler(exchange: Exchange) -> None:
            exchange.on_gone = lambda: told.append(1)
            exchange.reply(200, [], b"ok")

        async with serving({b"/v1/x": handler}) as served:
            wire = await served.wire()
            await wire.send(post())
            await wire.answer()
            await wire.close()
            await until(lambda: not served.state.connections)
        assert told == []

    run(main())


def test_requests_waiting_in_the_pipeline_are_dropped_with_their_client() -> None:
    async def main() -> None:
        begun: list[Exchange] = []

        async def handler(exchange: Exchange) -> None:
            begun.append(exchange)
            await until(lambda: exchange.gone)

        async with serving({b"/v1/x": handler}) as served:
            wire = await served.wire()
            await wire.send(post() + post("/other") + post())
            await until(lambda: begun)
            # Reading is paused, so the door learns of it by writing.
            await wire.close()
            connection = next(iter(served.state.connections))
            connection.transport.abort()
            await until(lambda: not served.state.tasks)
        assert len(begun) == 1

    run(main())


def test_drain_waits_for_a_slow_reader() -> None:
    async def main() -> None:
        waits: list[str] = []

        async def handler(exchange: Exchange) -> None:
            exchange.start(200, [])
            for _ in range(64):
                exchange.write(bytes(65_536))
                await exchange.drain()
            waits.append("done")
            exchange.end()

        async with serving({b"/v1/x": handler}) as served:
            wire = await served.wire()
            await wire.send(post())
            await wire.head()
            await asyncio.sleep(0.1)
            assert waits == []
            size = sum([len(chunk) async for chunk in wire.chunks()])
        assert (size, waits) == (64 * 65_536, ["done"])

    run(main())


def test_a_reader_that_takes_nothing_is_cut_off() -> None:
    async def main() -> None:
        async def handler(exchange: Exchange) -> None:
            exchange.start(200, [])
            while not exchange.gone:
                exchange.write(bytes(65_536))
                await exchange.drain()

        async with serving({b"/v1/x": handler}, limits=ServerLimits(stall_timeout_s=0.1)) as served:
            wire = await served.wire()
            await wire.send(post())
            await until(lambda: served.state.tasks)
            await until(lambda: not served.state.tasks)

    run(main())


def test_an_idle_connection_is_closed_after_keep_alive() -> None:
    async def main() -> None:
        async with serving(limits=ServerLimits(keep_alive_s=0.15)) as served:
            wire = await served.wire()
            loop = asyncio.get_running_loop()
            for _ in range(3):
                await wire.send(post())
                await wire.answer()
                await asyncio.sleep(0.08)
            began_s = loop.time()
            assert await wire.rest() == b""
            assert loop.time() - began_s < 2

    run(main())


async def _slow(exchange: Exchange) -> None:
    exchange.start(200, [])
    for number in range(6):
        exchange.write(b"%d" % number)
        await asyncio.sleep(0.05)
    exchange.end()


async def _late(exchange: Exchange) -> None:
    await asyncio.sleep(0.3)
    exchange.reply(200, [], b"late")


@pytest.mark.parametrize(
    ("handler", "body"), [(_slow, b"012345"), (_late, b"late")], ids=["stream", "whole"]
)
def test_sigterm_lets_a_request_in_flight_complete(handler: Handler, body: bytes) -> None:
    async def main() -> None:
        async with serving({b"/v1/x": handler, b"/v1/e": echo}, whole=True) as served:
            idle, silent, busy = [await served.wire() for _ in range(3)]
            await idle.send(post("/v1/e"))
            await idle.answer()
            await busy.send(post())
            await until(lambda: served.state.tasks)
            served.server.handle_exit(signal.SIGTERM, None)
            served.server._captured_signals.clear()  # Else uvicorn ends the tests' process.
            assert await idle.rest() == b""
            assert await silent.rest() == b""
            got = await busy.answer()
            assert await busy.rest() == b""
        assert (got.status, got.body) == (200, body)
        assert not served.state.connections

    run(main())


def test_a_shutdown_waits_for_a_body_in_flight() -> None:
    async def main() -> None:
        async with serving(whole=True) as served:
            wire = await served.wire()
            asked = post(body=b"0123456789")
            await wire.send(asked[:-5])
            await until(lambda: any(one.cycle for one in served.state.connections))
            served.server.should_exit = True
            await asyncio.sleep(0.15)
            await wire.send(asked[-5:])
            got = await wire.answer()
            assert await wire.rest() == b""
        assert (got.body, got.headers["connection"]) == (b"0123456789", "close")

    run(main())


def test_a_shutdown_answers_what_is_pipelined_and_takes_no_more() -> None:
    async def main() -> None:
        async with serving({b"/v1/x": _late}, whole=True) as served:
            wire = await served.wire()
            await wire.send(post() + post())
            await until(lambda: served.state.tasks)
            served.server.should_exit = True
            await asyncio.sleep(0.15)
            await wire.send(post())
            got = [await wire.answer(), await wire.answer()]
            assert await wire.rest() == b""
        assert [one.body for one in got] == [b"late", b"late"]
        assert got[1].headers["connection"] == "close"

    run(main())


def test_a_shutdown_that_waits_no_longer_ends_a_request_with_a_503() -> None:
    async def main() -> None:
        async def forever(exchange: Exchange) -> None:
            await asyncio.sleep(60)

        async with serving(
            {b"/v1/x": forever}, whole=True, timeout_graceful_shutdown=0.1
        ) as served:
            wire = await served.wire()
            await wire.send(post())
            await until(lambda: served.state.tasks)
            served.server.should_exit = True
            got = await wire.answer()
        assert got.status == 503

    run(main())


def test_a_process_that_gets_sigterm_in_mid_stream_ends_the_stream_first() -> None:
    with subprocess.Popen(
        [sys.executable, str(PROGRAM)], stdout=subprocess.PIPE, env={**os.environ}
    ) as program:
        assert program.stdout is not None
        port = int(program.stdout.readline())

        async def main() -> bytes:
            wire = await Wire.to(port)
            await wire.send(post())
            await wire.head()
            program.send_signal(signal.SIGTERM)
            body = b"".join([chunk async for chunk in wire.chunks()])
            await wire.close()
            return body

        assert run(main()) == b"0123456789"
        program.wait(5)


def test_the_app_hears_of_a_client_that_leaves() -> None:
    async def main() -> None:
        heard: list[str] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            heard.append((await receive())["type"])

        async with serving(app=app) as served:
            wire = await served.wire()
            await wire.send(post("/other"))
            await until(lambda: served.state.tasks)
            await wire.close()
            await until(lambda: not served.state.tasks)
        assert heard == ["http.disconnect"]

    run(main())


def test_the_front_door_speaks_tls(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)

    async def main() -> None:
        large = bytes(300_000)
        async with serving(ssl_certfile=str(certificate)) as served:
            wire = await Wire.to(served.port, trusting(certificate))
            await wire.send(post(body=large), post("/other", b"app"), b"nonsense\r\n\r\n")
            got = [await wire.answer() for _ in range(3)]
            assert await wire.rest() == b""
            await wire.close()
        assert [one.status for one in got] == [200, 200, 400]
        assert (got[0].body, got[1].body) == (large, b"app /other app")

    run(main())
