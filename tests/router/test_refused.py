"""What a client is told whose request no backend answered: who was asked, why, and when again."""

import asyncio
import json
import socket
from typing import Any

import pytest
from msgspec.structs import replace

from support.http_wire import Got, Wire, post, run, until
from support.routes import policy
from support.running import Running, backend, plain, revision, running, two_tiers, two_upstreams
from support.upstream import (
    CLOSE,
    DONE,
    STREAM_HEAD,
    Script,
    chunk,
    chunked,
    completion,
    upstream,
    whole,
)
from weir_core.snapshot import Backend, Behaviour, Limits, Snapshot, Tier
from weir_router.load import Bounds
from weir_router.upstreams import EJECT_AFTER

CHAT = "/v1/chat/completions"
SECRET = "my card is 4000-1234"
BODY = json.dumps({"model": "assistant", "messages": [{"role": "user", "content": SECRET}]})


async def send(weir: Running, body: str = BODY, *headers: str) -> Got:
    wire = await Wire.to(weir.port)
    await wire.send(post(CHAT, body.encode(), *headers))
    got = await wire.answer()
    await wire.close()
    return got


def told(got: Got) -> str:
    error = json.loads(got.body)["error"]
    assert SECRET not in error["message"]
    return str(error["message"])


def dead_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def says(script: Script) -> Any:
    return lambda request: script


def test_a_503_names_tiers_backends_and_causes_in_one_sentence() -> None:
    async def scene() -> None:
        async with two_upstreams(says(whole({}, status=500)), says([CLOSE])) as (small, large):
            async with running(plain(two_tiers(small, large))) as weir:
                got = await send(weir)
                id = got.headers["x-request-id"]

                assert got.status == 503
                assert told(got) == (
                    "the last call failed: BrokenStream; tried: small on small (ServerError: status"
                    " 500), large on large (BrokenStream: closed before an answer)"
                    f" (request {id})"
                )

    run(scene())


def test_a_backend_whose_name_is_not_known_is_named_with_it() -> None:
    async def scene() -> None:
        lost = Backend(
            name="lost", identity="l", url="http://no-such-name.invalid:8000/v9", model="m"
        )
        behaviour = Behaviour(
            deadline_ms=5_000, max_attempts=4, tiers=(Tier(name="only", backend=lost),)
        )
        async with running(plain(behaviour)) as weir:
            message = told(await send(weir))

            assert "only on lost (Connect: no address for no-such-name.invalid" in message
            assert "v9" not in message

    run(scene())


def test_a_refused_connection_tells_no_address() -> None:
    async def scene() -> None:
        async with two_upstreams(says([CLOSE]), says([CLOSE])) as (small, large):
            small.port = large.port = dead_port()
            async with running(plain(two_tiers(small, large))) as weir:
                message = told(await send(weir))

                assert "small on small (Connect: no connection: Connection refused)" in message
                assert "127.0.0.1" not in message

    run(scene())


def test_a_check_that_did_not_accept_is_named() -> None:
    async def scene() -> None:
        cut = whole(completion("cut", finish="length"))
        async with two_upstreams(says(cut), says(whole({}, status=500))) as (small, large):
            async with running(plain(two_tiers(small, large))) as weir:
                message = told(await send(weir))

                assert "small on small (not accepted by 'whole')" in message

    run(scene())


def test_a_stream_that_breaks_says_who_broke_it() -> None:
    first = chunk("some")
    broken: Script = [STREAM_HEAD, b"%x\r\n%b\r\n" % (len(first), first), 0.05, CLOSE]

    async def scene() -> None:
        async with two_upstreams(says(broken), says([CLOSE])) as (small, large):
            async with running(plain(two_tiers(small, large, commit="FirstToken"))) as weir:
                got = await send(weir, BODY[:-1] + ',"stream":true}')

                assert (
                    b"small on small (BrokenStream: closed in the middle of an answer)" in got.body
                )

    run(scene())


# When to come back.


def seconds(got: Got) -> int:
    assert got.status in (429, 503)
    after_s = int(got.headers["retry-after"])
    assert 1 <= after_s <= 30
    return after_s


def test_an_ejected_backend_is_waited_for() -> None:
    async def scene() -> None:
        async with two_upstreams(says([CLOSE]), says([CLOSE])) as (small, large):
            async with running(plain(two_tiers(small, large))) as weir:
                for _ in range(EJECT_AFTER + 4):
                    for up in (small, large):
                        tier = backend("small" if up is small else "large", up)
                        weir.router._upstreams.get(tier).failed("Connect", weir.router.clock())
                got = await send(weir)

                # Eight and more failures in a row: out for 16 s, told with half of it as spread.
                assert 14 <= seconds(got) <= 24
                assert "resting after failures" in told(got)

    run(scene())


def test_a_backend_whose_key_is_missing_is_not_called() -> None:
    async def scene() -> None:
        async with upstream(says(whole(completion("yes")))) as up:
            hosted = replace(backend("hosted", up), key="hosted")
            only = Tier(name="only", backend=hosted)
            behaviour = Behaviour(deadline_ms=5_000, max_attempts=4, tiers=(only,))
            async with running(plain(behaviour)) as weir:
                assert "only on hosted (no API key)" in told(await send(weir))
                assert up.asked == []

    run(scene())


def test_what_an_upstream_asks_for_is_passed_on() -> None:
    limit = whole({"error": {"message": "slow down"}}, status=429)
    limit[0] = limit[0].replace(b"\r\n", b"\r\nretry-after: 12\r\n", 1)  # type: ignore[union-attr]

    async def scene() -> None:
        async with two_upstreams(says(limit), says(limit)) as (small, large):
            async with running(plain(two_tiers(small, large))) as weir:
                got = await send(weir)

                assert got.status == 429
                assert 12 <= seconds(got) <= 18

    run(scene())


def test_the_backend_that_is_back_first_is_waited_for() -> None:
    limit = whole({}, status=429)
    limit[0] = limit[0].replace(b"\r\n", b"\r\nretry-after: 19\r\n", 1)  # type: ignore[union-attr]

    async def scene() -> None:
        async with two_upstreams(says(limit), says([CLOSE])) as (small, large):
            async with running(plain(two_tiers(small, large))) as weir:
                assert seconds(await send(weir)) <= 2

    run(scene())


def test_a_full_queue_is_waited_for() -> None:
    """One place and one in the queue; each answer takes 0.3 s."""

    async def scene() -> None:
        slow = lambda request: [0.3, *whole(completion("late"))]
        async with two_upstreams(slow, slow) as (small, _large):
            only = backend("small", small)
            behaviour = Behaviour(
                deadline_ms=5_000, max_attempts=1, tiers=(Tier(name="small", backend=only),)
            )
            route = policy(stable=revision("assistant-1", behaviour))
            async with running(route) as weir:
                narrow = Limits(max_in_flight=1, queue_length=1, queue_wait_ms=5_000)
                weir.router.apply(
                    Snapshot(version=(0, 99), routes=(route,), limits={only.identity: narrow})
                )
                busy = [asyncio.create_task(send(weir)) for _ in range(2)]
                pool = weir.router._upstreams.get(only).pool
                await until(lambda: pool.in_flight == 1 and pool.queued == 1)
                got = await send(weir)

                assert seconds(got) <= 3
                assert "Overload: the queue is full" in told(got)
                assert [one.status for one in await asyncio.gather(*busy)] == [200, 200]

    run(scene())


def test_a_full_router_says_when() -> None:
    async def scene() -> None:
        slow = lambda request: [0.5, *whole(completion("late"))]
        async with two_upstreams(slow, slow) as (small, large):
            async with running(plain(two_tiers(small, large)), bounds=Bounds(in_flight=1)) as weir:
                first = asyncio.create_task(send(weir))
                await until(lambda: weir.router.load.in_flight == 1)

                assert seconds(await send(weir)) <= 2
                assert (await first).status == 200

    run(scene())


# What a reply costs.


@pytest.mark.parametrize("commit", ["AfterVerify", "FirstToken"])
def test_a_stream_has_no_cost_header(commit: str) -> None:
    """Its cost is not known when its head goes out; 0 would be a lie."""
    events = chunked(chunk("small"), chunk(None, finish="stop"), DONE)

    async def scene() -> None:
        async with two_upstreams(says(events), says(events)) as (small, large):
            async with running(plain(two_tiers(small, large, commit=commit))) as weir:
                got = await send(weir, BODY[:-1] + ',"stream":true}')

                assert got.status == 200
                assert got.headers["x-weir-attempts"] == "1"
                assert "x-weir-cost" not in got.headers

    run(scene())


def test_a_whole_reply_has_its_cost() -> None:
    async def scene() -> None:
        reply = says(whole(completion("s")))
        async with two_upstreams(reply, reply) as (small, _large):
            dear = backend("small", small, input_price_pico=10**6, output_price_pico=10**6)
            behaviour = Behaviour(
                deadline_ms=5_000, max_attempts=1, tiers=(Tier(name="small", backend=dear),)
            )
            async with running(plain(behaviour)) as weir:
                got = await send(weir)

                assert float(got.headers["x-weir-cost"]) == pytest.approx(10 * 1e-6)

    run(scene())
