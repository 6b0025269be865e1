"""Streams of nonsense: before the commit point they go on elsewhere, after it they end typed."""

import asyncio
from typing import Any

import openai
import pytest

from support.running import backend, plain, running, two_tiers, two_upstreams
from support.upstream import (
    CLOSE,
    DONE,
    STREAM_HEAD,
    USAGE,
    Script,
    Upstream,
    chunk,
    chunked,
    completion,
    upstream,
    whole,
    with_logprobs,
)
from weir_core.snapshot import Behaviour, Calibration, Check, Tier

ASK: dict[str, Any] = {"model": "assistant", "messages": [{"role": "user", "content": "hello"}]}
SURE = Check(
    name="sure",
    type="Confidence",
    min_probability=0.5,
    calibration=Calibration(method="Logprob", features=(("sum", 1.0),), intercept=1.0, digest="d"),
)
LOGPROBS = {"content": [{"token": "t", "logprob": -0.1, "top_logprobs": []}]}
GOOD = (chunk("small"), chunk(None, finish="stop"), USAGE, DONE)


def client(url: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0)


async def told(url: str, **changes: Any) -> tuple[str, dict[str, str], list[Any]]:
    """Return the text of a stream, its headers, its events."""
    async with client(url) as api:
        create = api.chat.completions.with_raw_response.create
        raw = await create(**(ASK | changes), stream=True)
        events = [event async for event in raw.parse()]
    parts = [choice.delta.content or "" for event in events for choice in event.choices]
    return "".join(parts), dict(raw.headers), events


def large(request: dict[str, Any]) -> Script:
    return chunked(chunk("large"), chunk(None, finish="stop"), USAGE, DONE)


HEAD = STREAM_HEAD.decode()
GZIP = HEAD.replace("transfer", "content-encoding: gzip\r\ntransfer").encode()
NONSENSE: list[Any] = [
    pytest.param(chunked(DONE), id="an end alone"),
    pytest.param(chunked(b"data: hello\n\n", DONE), id="no JSON"),
    pytest.param(chunked(b'data: {"error":{"message":"no"}}\n\n'), id="200 and an error"),
    pytest.param(chunked(b'data: {"id":"x","error":{}}\n\n'), id="an error with an id"),
    pytest.param(chunked(b'data: {"choices":null}\n\n', DONE), id="null choices"),
    pytest.param([GZIP, b"8\r\n\x1f\x8b\x08\0\n\n\xff\xff\r\n0\r\n\r\n"], id="gzip unasked"),
    pytest.param(whole(completion("whole")), id="a whole answer"),
    pytest.param(whole(b"<html>", kind="text/html"), id="a page"),
    pytest.param([STREAM_HEAD, b"zz\r\n"], id="half a chunk"),
    pytest.param([STREAM_HEAD, CLOSE], id="a head alone"),
    pytest.param([STREAM_HEAD, 3.0], id="silence after the head"),
    pytest.param([3.0], id="silence"),
]


def hasty(behaviour: Behaviour, ms: int = 300) -> Behaviour:
    """Return the behaviour with a first tier that has less than the whole time."""
    small, big = behaviour.tiers
    fields = {name: getattr(small, name) for name in small.__struct_fields__}
    fields["timeout_ms"] = ms
    names = behaviour.__struct_fields__
    rest = {name: getattr(behaviour, name) for name in names} | {"tiers": (Tier(**fields), big)}
    return Behaviour(**rest)


@pytest.mark.parametrize("commit", ["AfterVerify", "FirstToken"])
@pytest.mark.parametrize("script", NONSENSE)
def test_a_stream_of_nonsense_goes_on_elsewhere(script: Script, commit: str) -> None:
    async def scene() -> None:
        async with two_upstreams(lambda request: script, large) as (small, big):
            async with running(plain(hasty(two_tiers(small, big, commit=commit)))) as weir:
                text, headers, _ = await told(weir.url)

                assert text == "large"
                assert headers["x-weir-reason"].startswith("failed:")

    asyncio.run(scene())


BROKEN: list[Any] = [
    pytest.param([CLOSE], id="cut"),
    pytest.param([2.0], id="silent"),
    pytest.param([b'1d\r\ndata: {"error":{"code":"no"}}\n\n\r\n'], id="an error"),
    pytest.param([b"0\r\n\r\n"], id="ended without its end"),
    pytest.param([b"zz\r\n"], id="no chunk"),
]


@pytest.mark.parametrize("rest", BROKEN)
def test_a_stream_that_breaks_after_its_commit_ends_with_a_typed_error(rest: Script) -> None:
    async def scene() -> None:
        first = chunk("some")
        begun: Script = [STREAM_HEAD, b"%x\r\n%b\r\n" % (len(first), first), 0.05, *rest]
        async with two_upstreams(lambda request: begun, large) as (small, big):
            tiers = two_tiers(small, big, commit="FirstToken", deadline_ms=400)
            async with running(plain(tiers)) as weir, client(weir.url) as api:
                stream = await api.chat.completions.create(**ASK, stream=True)
                first_event = await anext(aiter(stream))
                assert first_event.choices[0].delta.content == "some"

                with pytest.raises(openai.APIError):
                    await anext(aiter(stream))
                assert big.asked == []

    asyncio.run(scene())


def test_an_end_and_then_silence_is_an_end() -> None:
    async def scene() -> None:
        events = b"".join(GOOD)
        begun: Script = [STREAM_HEAD, b"%x\r\n%b\r\n" % (len(events), events), 5.0]
        async with two_upstreams(lambda request: begun, large) as (small, big):
            async with running(plain(two_tiers(small, big))) as weir:
                text, _, _ = await asyncio.wait_for(told(weir.url), 2)

                assert text == "small"

    asyncio.run(scene())


def test_events_after_the_end_reach_nobody() -> None:
    """Also where each event is rewritten because Weir asked for logprobs."""

    async def scene() -> None:
        more = b'data: {"surplus":1}\n\n'
        said = chunk("small", logprobs=LOGPROBS)
        script = chunked(b"".join((said, chunk(None, finish="stop"), DONE, more)))
        async with two_upstreams(lambda request: script, large) as (small, big):
            async with running(plain(two_tiers(small, big, accept=(SURE,)))) as weir:
                text, headers, events = await told(weir.url)

                assert (text, headers["x-weir-tier"]) == ("small", "small")
                assert all(event.choices[0].logprobs is None for event in events)

    asyncio.run(scene())


def test_no_logprobs_are_asked_for_a_stream_that_goes_out_unverified() -> None:
    async def scene() -> None:
        def small_says(request: dict[str, Any]) -> Script:
            more = {"logprobs": LOGPROBS} if request.get("logprobs") else {}
            return chunked(chunk("small", **more), chunk(None, finish="stop"), DONE)

        async with two_upstreams(small_says, large) as (small, big):
            tiers = two_tiers(small, big, accept=(SURE,), commit="FirstToken")
            async with running(plain(tiers)) as weir:
                _, _, events = await told(weir.url)

                assert "logprobs" not in small.asked[0]
                assert all(event.choices[0].logprobs is None for event in events)

    asyncio.run(scene())


def test_the_last_answer_goes_out_as_its_own_tier_gave_it() -> None:
    """A later tier failed: its name, and its not asking for logprobs, are not the answer's."""

    async def scene() -> None:
        unsure = with_logprobs(completion("unsure"), [-9.0])
        down = lambda request: whole({}, status=500)
        async with two_upstreams(lambda request: whole(unsure), down) as (small, big):
            tiers = two_tiers(small, big, accept=(SURE,), on_exhausted="ReturnLast")
            async with running(plain(tiers)) as weir, client(weir.url) as api:
                raw = await api.chat.completions.with_raw_response.create(**ASK)

                assert raw.headers["x-weir-tier"] == "small"
                assert raw.parse().choices[0].logprobs is None

    asyncio.run(scene())


def priced(behaviour: Behaviour, small: Upstream, big: Upstream) -> Behaviour:
    """Return the behaviour where a request of 200 bytes may be asked once, hardly twice."""
    facts: dict[str, Any] = {"input_price_pico": 10, "output_price_pico": 10}
    fields = {name: getattr(behaviour, name) for name in behaviour.__struct_fields__}
    fields["tiers"] = (
        Tier(name="small", backend=backend("small", small, **facts), accept=(SURE,)),
        Tier(name="large", backend=backend("large", big, **facts)),
    )
    return Behaviour(**(fields | {"max_cost_pico": 4_000}))


def test_an_answer_that_does_not_say_what_it_cost_may_have_cost_it_all() -> None:
    async def scene() -> None:
        silent = completion("unsure")
        del silent["usage"]
        async with two_upstreams(lambda request: whole(silent), large) as (small, big):
            tiers = priced(two_tiers(small, big), small, big)
            async with running(plain(tiers)) as weir, client(weir.url) as api:
                with pytest.raises(openai.APIStatusError):
                    await api.chat.completions.create(**ASK)

                assert big.asked == []

    asyncio.run(scene())


def test_tool_calls_stream_through_and_are_checked() -> None:
    call = {"index": 0, "id": "c", "type": "function", "function": {"name": "pay", "arguments": ""}}
    tool = {"type": "function", "function": {"name": "pay", "parameters": {"required": ["sum"]}}}

    def calling(arguments: str) -> Script:
        parts = [{"index": 0, "function": {"arguments": part}} for part in arguments]
        events = [chunk(None, delta={"tool_calls": [one]}) for one in (call, *parts)]
        return chunked(*events, chunk(None, finish="tool_calls"), DONE)

    async def scene(arguments: str) -> str:
        shape = Check(name="shape", type="Schema")
        async with upstream(lambda r: calling(arguments)) as one:
            async with upstream(lambda r: calling('{"sum":2}')) as two:
                async with running(plain(two_tiers(one, two, accept=(shape,)))) as weir:
                    _, headers, events = await told(weir.url, tools=[tool])
        calls = [one for event in events for one in event.choices[0].delta.tool_calls or ()]
        assert calls[0].function.name == "pay"
        assert "".join(one.function.arguments for one in calls).startswith('{"sum"')
        return headers["x-weir-tier"]

    assert asyncio.run(scene('{"sum":1}')) == "small"
    assert asyncio.run(scene('{"all":1}')) == "large"
