"""The client's waits: deadlines, the queue for a place, and the end of a pool."""

import asyncio
import gc
from typing import Any

import pytest

from support.http_upstream import Line, echo, ok, saying, upstream
from support.http_wire import run, until
from weir_core.snapshot import Limits
from weir_router.client import Answer, ClientLimits, Pool


async def ask(pool: Pool, body: bytes = b"{}", timeout_ms: int = 60_000) -> Any:
    """Return what the pool gives for a POST."""
    return await pool.fetch(b"POST", b"/v1/x", [], body, timeout_ms=timeout_ms)


async def begin(pool: Pool, timeout_ms: int = 60_000) -> Any:
    """Return the stream, or the failure, of a POST."""
    return await pool.open(b"POST", b"/v1/x", [], b"{}", timeout_ms=timeout_ms)


async def silent(line: Line) -> None:
    """Take the request and say nothing."""
    await line.asked()
    await line.closed()


# Deadlines.


@pytest.mark.parametrize(
    "script",
    [silent, saying(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf")],
    ids=["no-answer", "half-an-answer"],
)
def test_an_answer_later_than_the_deadline_is_a_timeout(script: Any) -> None:
    async def main() -> None:
        async with upstream(script) as (up, pool):
            got = await ask(pool, timeout_ms=80)
            assert (got.cause, got.sent) == ("Timeout", True)
            assert pool.in_flight == 0
            await until(lambda: up.open == 0)

    run(main())


def test_the_deadline_ends_a_stream_too() -> None:
    async def main() -> None:
        async with upstream(saying(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf")) as (
            _,
            pool,
        ):
            stream = await begin(pool, timeout_ms=80)
            assert await stream.read() == b"half"
            got = await stream.read()
            assert (got.cause, got.answered, pool.in_flight) == ("Timeout", True, 0)

    run(main())


def test_the_deadline_of_one_request_is_not_that_of_the_next() -> None:
    async def main() -> None:
        async def script(line: Line) -> None:
            for pause_s in (0, 0.25):
                _, body = await line.asked()
                await asyncio.sleep(pause_s)
                await line.say(ok(body))

        async with upstream(script) as (up, pool):
            await ask(pool, timeout_ms=100)
            assert isinstance(await ask(pool, timeout_ms=2_000), Answer)
            assert len(up.lines) == 1

    run(main())


# The queue.


def _few(**limits: int) -> ClientLimits:
    return ClientLimits(upstream=Limits(**limits))


async def _slowly(line: Line) -> None:
    while True:
        _, body = await line.asked()
        await asyncio.sleep(0.05)
        await line.say(ok(body))


def test_no_more_than_the_limit_are_in_flight() -> None:
    async def main() -> None:
        async with upstream(_slowly, limits=_few(max_in_flight=2)) as (up, pool):
            tasks = [asyncio.create_task(ask(pool)) for _ in range(6)]
            await asyncio.sleep(0.02)
            assert (pool.in_flight, pool.queued) == (2, 4)
            await asyncio.gather(*tasks)
            assert (len(up.lines), pool.in_flight, pool.queued) == (2, 0, 0)

    run(main())


def test_the_queue_is_served_in_order() -> None:
    async def main() -> None:
        done: list[int] = []

        async with upstream(_slowly, limits=_few(max_in_flight=1)) as (_, pool):

            async def one(number: int) -> None:
                await ask(pool)
                done.append(number)

            await asyncio.gather(*[one(number) for number in range(5)])
        assert done == [0, 1, 2, 3, 4]

    run(main())


def test_a_full_queue_is_an_overload() -> None:
    async def main() -> None:
        async with upstream(_slowly, limits=_few(max_in_flight=1, queue_length=1)) as (_, pool):
            got = await asyncio.gather(*[ask(pool) for _ in range(3)])
            assert [isinstance(one, Answer) for one in got] == [True, True, False]
            assert (got[2].cause, got[2].sent) == ("Overload", False)

    run(main())


@pytest.mark.parametrize(
    ("wait_ms", "timeout_ms", "cause"),
    [(60, 3_000, "Overload"), (3_000, 60, "Timeout")],
    ids=["queue-wait", "deadline"],
)
def test_a_wait_in_the_queue_has_an_end(wait_ms: int, timeout_ms: int, cause: str) -> None:
    async def main() -> None:
        limits = _few(max_in_flight=1, queue_wait_ms=wait_ms)
        async with upstream(silent, limits=limits) as (_, pool):
            first = asyncio.create_task(begin(pool))
            await asyncio.sleep(0)
            got = await ask(pool, timeout_ms=timeout_ms)
            assert (got.cause, got.sent, pool.queued) == (cause, False, 0)
            first.cancel()
            await asyncio.wait((first,))
            assert pool.in_flight == 0

    run(main())


def test_who_is_cancelled_in_the_queue_leaves_it() -> None:
    async def main() -> None:
        async with upstream(_slowly, limits=_few(max_in_flight=1)) as (_, pool):
            tasks = [asyncio.create_task(ask(pool)) for _ in range(4)]
            await asyncio.sleep(0.01)
            tasks[1].cancel()
            tasks[2].cancel()
            got = await asyncio.gather(*tasks, return_exceptions=True)
            assert [type(one) for one in got] == [
                Answer,
                asyncio.CancelledError,
                asyncio.CancelledError,
                Answer,
            ]
            assert (pool.in_flight, pool.queued) == (0, 0)

    run(main())


def test_a_place_given_to_who_is_cancelled_meanwhile_is_given_on() -> None:
    async def main() -> None:
        async with upstream(_slowly, limits=_few(max_in_flight=1)) as (_, pool):
            first = await begin(pool)
            tasks = [asyncio.create_task(ask(pool)) for _ in range(2)]
            await asyncio.sleep(0.01)
            first.close()
            tasks[0].cancel()
            assert isinstance(await tasks[1], Answer)
            assert pool.in_flight == 0

    run(main())


def test_a_stream_holds_its_place_until_its_end() -> None:
    async def main() -> None:
        async with upstream(echo, limits=_few(max_in_flight=1)) as (_, pool):
            stream = await begin(pool)
            await stream.read()
            assert isinstance(await ask(pool), Answer)

        async with upstream(silent_after_head, limits=_few(max_in_flight=1)) as (_, pool):
            stream = await begin(pool)
            assert pool.in_flight == 1
            stream.close()
            stream.close()
            assert pool.in_flight == 0

    run(main())


async def silent_after_head(line: Line) -> None:
    """Begin an answer and say no more."""
    await line.asked()
    await line.say(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n")
    await line.closed()


def test_new_limits_hold_from_the_next_request() -> None:
    async def main() -> None:
        async with upstream(_slowly, limits=_few(max_in_flight=1)) as (up, pool):
            await ask(pool)
            pool.limits = _few(max_in_flight=3)
            await asyncio.gather(*[ask(pool) for _ in range(3)])
            assert len(up.lines) == 3

    run(main())


# Closing.


def test_a_closed_pool_lets_requests_end_and_keeps_no_connection() -> None:
    async def main() -> None:
        async with upstream(_slowly) as (up, pool):
            await ask(pool)
            task = asyncio.create_task(ask(pool, b"in flight"))
            await asyncio.sleep(0.01)
            pool.close()
            assert (await task).body == b"in flight"
            await until(lambda: up.open == 0)

    run(main())


def test_aclose_ends_what_is_in_flight() -> None:
    async def main() -> None:
        async with upstream(silent) as (up, pool):
            task = asyncio.create_task(ask(pool))
            await until(lambda: up.open)
            await pool.aclose()
            assert (await task).cause == "BrokenStream"
            gc.collect()

    run(main())
