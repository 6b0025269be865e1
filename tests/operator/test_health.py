"""The health protocol as a client of any language speaks it."""

import asyncio
import contextlib

import grpc
import pytest
from grpc import aio

from support.feeds import NAMES, Operator, operating
from support.http_wire import run
from weir_operator.health import MAX_WATCHERS


async def _health(operator: Operator, request: bytes) -> bytes:
    options = (("grpc.ssl_target_name_override", NAMES[0]),)
    credentials = grpc.ssl_channel_credentials(operator.bundle)
    target = f"ipv4:127.0.0.1:{operator.port}"
    async with aio.secure_channel(target, credentials, options=options) as channel:
        return bytes(await channel.unary_unary("/grpc.health.v1.Health/Check")(request))


@pytest.mark.parametrize("request_", [b"", b"\n\x09weir.Feed"], ids=["the whole", "the feed"])
def test_health_says_that_it_serves(request_: bytes) -> None:
    async def scene() -> None:
        async with operating() as operator:
            assert await _health(operator, request_) == b"\x08\x01"

    run(scene())


@pytest.mark.parametrize("request_", [b"\n\x04nope", b"\x0a\x7fx", b"\x10\x01"])
def test_health_of_another_service_is_not_found(request_: bytes) -> None:
    async def scene() -> None:
        async with operating() as operator:
            with pytest.raises(aio.AioRpcError) as caught:
                await _health(operator, request_)

            assert caught.value.code() == grpc.StatusCode.NOT_FOUND

    run(scene())


def test_watched_health_tells_when_the_feed_stops() -> None:
    async def scene() -> None:
        async with operating() as operator:
            options = (("grpc.ssl_target_name_override", NAMES[0]),)
            credentials = grpc.ssl_channel_credentials(operator.bundle)
            target = f"ipv4:127.0.0.1:{operator.port}"
            async with aio.secure_channel(target, credentials, options=options) as channel:
                call = channel.unary_stream("/grpc.health.v1.Health/Watch")(b"")
                assert await call.read() == b"\x08\x01"
                stopping = asyncio.create_task(operator.feed.stop(3))
                assert await call.read() == b"\x08\x02"
                call.cancel()
                await stopping

    run(scene())


def test_only_so_many_may_watch() -> None:
    async def scene() -> None:
        async with operating() as operator:
            options = (("grpc.ssl_target_name_override", NAMES[0]),)
            credentials = grpc.ssl_channel_credentials(operator.bundle)
            target = f"ipv4:127.0.0.1:{operator.port}"
            async with aio.secure_channel(target, credentials, options=options) as channel:
                watch = channel.unary_stream("/grpc.health.v1.Health/Watch")
                calls = [watch(b"") for _ in range(MAX_WATCHERS)]
                for call in calls:
                    assert await call.read() == b"\x08\x01"
                with pytest.raises(aio.AioRpcError, match="too many watch"):
                    await watch(b"").read()
                calls[0].cancel()
                again = b""
                while not again:
                    with contextlib.suppress(aio.AioRpcError):
                        again = await watch(b"").read()

    run(scene())
