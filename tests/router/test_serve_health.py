"""Who may have a backend ejected, and how it comes back."""

import asyncio
import itertools
import logging
from typing import Any

import openai
import pytest

from support.http_wire import until
from support.running import Running, plain, running, two_tiers, two_upstreams
from support.upstream import CLOSE, STREAM_HEAD, Script, chunk, completion, whole
from weir_core.snapshot import Backend, Behaviour
from weir_router.process import told_to
from weir_router.telemetry import Metrics
from weir_router.upstreams import EJECT_AFTER, Keys, Upstream, Upstreams

ASK: dict[str, Any] = {"model": "assistant", "messages": [{"role": "user", "content": "hello"}]}


def says(text: str) -> Any:
    return lambda request: whole(completion(text))


def client(weir: Running) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=weir.url, api_key="none", max_retries=0)


def the_only(weir: Running, tier: int = 0) -> Upstream:
    behaviour: Behaviour = weir.router.table.by_model["assistant"].policy.stable.behaviour
    return weir.router._upstreams.get(behaviour.tiers[tier].backend)


def is_up(weir: Running) -> bool:
    return the_only(weir).available(weir.router.clock())


async def fails(api: openai.AsyncOpenAI, times: int, **changes: Any) -> None:
    for _ in range(times):
        with pytest.raises(openai.APIError):
            await api.chat.completions.create(**(ASK | changes))


def test_a_caller_in_a_hurry_ejects_no_backend() -> None:
    async def scene() -> None:
        slow = lambda request: [0.2, *whole(completion("late"))]
        async with two_upstreams(slow, slow) as (small, large):
            async with running(plain(two_tiers(small, large))) as weir, client(weir) as api:
                hurry = {"x-weir-deadline-ms": "5"}
                await fails(api, EJECT_AFTER + 2, extra_headers=hurry)

                assert is_up(weir)

    asyncio.run(scene())


def test_a_backend_that_is_silent_for_its_whole_time_is_ejected() -> None:
    async def scene() -> None:
        async with two_upstreams(lambda request: [5.0], says("l")) as (small, large):
            tiers = two_tiers(small, large, deadline_ms=40)
            async with running(plain(tiers)) as weir, client(weir) as api:
                await fails(api, EJECT_AFTER)

                assert not is_up(weir)

    asyncio.run(scene())


def test_a_stream_that_was_begun_and_ran_out_of_time_ejects_no_backend() -> None:
    """A caller who reads slowly holds his own stream up."""

    async def scene() -> None:
        first = chunk("word")
        begun: Script = [STREAM_HEAD, b"%x\r\n%b\r\n" % (len(first), first), 5.0]
        async with two_upstreams(lambda request: begun, says("l")) as (small, large):
            tiers = two_tiers(small, large, deadline_ms=60, commit="FirstToken")
            async with running(plain(tiers)) as weir, client(weir) as api:
                for _ in range(EJECT_AFTER + 1):
                    with pytest.raises(openai.APIError):
                        async for _event in await api.chat.completions.create(**ASK, stream=True):
                            pass

                assert is_up(weir)

    asyncio.run(scene())


def test_a_backend_that_hangs_up_on_everybody_is_ejected() -> None:
    async def scene() -> None:
        async with two_upstreams(lambda request: [CLOSE], says("l")) as (small, large):
            async with running(plain(two_tiers(small, large))) as weir, client(weir) as api:
                for _ in range(EJECT_AFTER):
                    await api.chat.completions.create(**ASK)

                assert not is_up(weir)

    asyncio.run(scene())


def test_an_ejected_backend_costs_no_attempt() -> None:
    async def scene() -> None:
        async with two_upstreams(lambda request: [CLOSE], says("large")) as (small, large):
            tiers = two_tiers(small, large, max_attempts=1)
            async with running(plain(tiers)) as weir, client(weir) as api:
                await fails(api, EJECT_AFTER)
                raw = await api.chat.completions.with_raw_response.create(**ASK)

                assert raw.headers["x-weir-tier"] == "large"
                assert raw.headers["x-weir-attempts"] == "1"

    asyncio.run(scene())


def test_a_probe_whose_caller_leaves_lets_the_next_one_try() -> None:
    async def scene() -> None:
        answers = itertools.chain([[CLOSE]] * EJECT_AFTER, [[5.0]], itertools.repeat(None))

        def small_says(request: dict[str, Any]) -> Script:
            return next(answers) or whole(completion("small"))

        async with two_upstreams(small_says, says("large")) as (small, large):
            async with running(plain(two_tiers(small, large))) as weir, client(weir) as api:
                for _ in range(EJECT_AFTER):
                    await api.chat.completions.create(**ASK)
                await asyncio.sleep(1.05)
                with pytest.raises(openai.APITimeoutError):
                    await api.with_options(timeout=0.2).chat.completions.create(**ASK)
                await until(lambda: small.disconnects == 1)
                reply = await api.chat.completions.create(**ASK)

                assert reply.choices[0].message.content == "small"

    asyncio.run(scene())


def test_an_upstream_is_probed_by_one_call_at_a_time() -> None:
    async def scene() -> None:
        async with two_upstreams(says("s"), says("l")) as (small, large):
            async with running(plain(two_tiers(small, large))) as weir:
                one = the_only(weir)
                for _ in range(EJECT_AFTER):
                    one.failed("Connect", 0.0)

                assert [one.available(0.5), one.available(2.0), one.available(2.0)] == [
                    False,
                    True,
                    False,
                ]
                one.released()
                assert one.available(2.0)

    asyncio.run(scene())


def test_an_ejection_says_why_and_whose(caplog: pytest.LogCaptureFixture) -> None:
    upstreams = Upstreams(Keys(None), told_to(Metrics()))
    one = upstreams.get(Backend(name="lost", identity="l", url="http://lost.invalid", model="m"))
    with caplog.at_level(logging.INFO, "weir"):
        for _ in range(EJECT_AFTER):
            one.failed("Connect", 0.0, "lost.invalid: no address for lost.invalid: no such name")
        one.succeeded()

    told = [(record.getMessage(), getattr(record, "why", "")) for record in caplog.records]
    assert told == [
        ("backend ejected", "Connect: lost.invalid: no address for lost.invalid: no such name"),
        ("backend is back", ""),
    ]
    assert {record.backend for record in caplog.records} == {"lost"}  # type: ignore[attr-defined]
