"""The model endpoints over real sockets: what a client gets for what the upstreams do."""

import asyncio
import json
from typing import Any

import openai
import pytest

from support.running import plain, running, two_tiers, two_upstreams
from support.upstream import (
    CLOSE,
    DONE,
    STREAM_HEAD,
    USAGE,
    Script,
    chunk,
    chunked,
    completion,
    whole,
    with_logprobs,
)
from weir_core.snapshot import Calibration, Check

ASK: dict[str, Any] = {"model": "assistant", "messages": [{"role": "user", "content": "hello"}]}
SURE = Check(
    name="sure",
    type="Confidence",
    min_probability=0.5,
    calibration=Calibration(method="Logprob", features=(("sum", 1.0),), intercept=1.0, digest="d"),
)


def says(text: str) -> Any:
    return lambda request: whole(completion(text))


def client(url: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0)


async def ask(url: str, **changes: Any) -> Any:
    async with client(url) as api:
        raw = await api.chat.completions.with_raw_response.create(**(ASK | changes))
        return raw.headers, raw.parse()


def test_the_small_model_answers_what_it_is_trusted_with() -> None:
    async def scene() -> None:
        async with two_upstreams(says("small"), says("large")) as (small, large):
            async with running(plain(two_tiers(small, large))) as weir:
                headers, reply = await ask(weir.url)

        assert reply.choices[0].message.content == "small"
        assert headers["x-weir-tier"] == "small"
        assert headers["x-weir-attempts"] == "1"
        assert small.asked[0]["model"] == "small"
        assert large.asked == []

    asyncio.run(scene())


def test_an_answer_cut_off_goes_on_to_the_large_model() -> None:
    async def scene() -> None:
        cut = lambda request: whole(completion("half of", finish="length"))
        async with two_upstreams(cut, says("large")) as (small, large):
            async with running(plain(two_tiers(small, large))) as weir:
                headers, reply = await ask(weir.url)

        assert reply.choices[0].message.content == "large"
        assert headers["x-weir-tier"] == "large"
        assert headers["x-weir-reason"] == "escalated:whole"

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("logprob", "tier"),
    [pytest.param(-0.1, "small", id="sure"), pytest.param(-3.0, "large", id="unsure")],
)
def test_confidence_decides_and_its_logprobs_are_stripped(logprob: float, tier: str) -> None:
    async def scene() -> None:
        small_says = with_logprobs(completion("small"), [logprob])
        async with two_upstreams(lambda request: whole(small_says), says("large")) as (s, g):
            async with running(plain(two_tiers(s, g, accept=(SURE,)))) as weir:
                headers, reply = await ask(weir.url)

        assert headers["x-weir-tier"] == tier
        assert reply.choices[0].logprobs is None
        assert s.asked[0]["logprobs"] is True

    asyncio.run(scene())


def test_logprobs_that_the_client_asked_for_stay() -> None:
    async def scene() -> None:
        small_says = with_logprobs(completion("small"), [-0.1])
        async with two_upstreams(lambda request: whole(small_says), says("large")) as (s, g):
            async with running(plain(two_tiers(s, g, accept=(SURE,)))) as weir:
                _, reply = await ask(weir.url, logprobs=True)

        assert reply.choices[0].logprobs.content[0].logprob == -0.1

    asyncio.run(scene())


NONSENSE: list[Any] = [
    pytest.param(whole(b'{"choices": [{"mess'), id="half a JSON"),
    pytest.param(whole(b"<html>", kind="text/html"), id="a wrong content type"),
    pytest.param(whole({"error": {"message": "no"}}), id="200 with an error body"),
    pytest.param(whole({"choices": []}), id="no choices"),
    pytest.param(whole({"error": {}}, status=500), id="a server error"),
    pytest.param(whole({"error": {}}, status=401), id="our key refused"),
    pytest.param([b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{", CLOSE], id="cut short"),
    pytest.param([b"nonsense\r\n\r\n", CLOSE], id="no HTTP"),
    pytest.param([CLOSE], id="hangs up"),
    pytest.param([b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 20_000, 0.2, CLOSE], id="endless headers"),
]


@pytest.mark.parametrize("script", NONSENSE)
def test_nonsense_is_a_failed_attempt_and_the_request_goes_on(script: Script) -> None:
    async def scene() -> None:
        async with two_upstreams(lambda request: script, says("large")) as (small, large):
            async with running(plain(two_tiers(small, large))) as weir:
                headers, reply = await ask(weir.url)

        assert reply.choices[0].message.content == "large"
        assert headers["x-weir-reason"].startswith("failed:")

    asyncio.run(scene())


@pytest.mark.parametrize(
    "prefix",
    [
        pytest.param(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n", id="a 103 before"),
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n", id="a 100 before"),
    ],
)
def test_an_interim_answer_is_ignored(prefix: bytes) -> None:
    async def scene() -> None:
        answer = whole(completion("small"))
        script = [prefix + item if isinstance(item, bytes) else item for item in answer]
        async with two_upstreams(lambda request: script, says("large")) as (small, large):
            async with running(plain(two_tiers(small, large))) as weir:
                found = await asyncio.gather(*[ask(weir.url) for _ in range(8)])

        assert {reply.choices[0].message.content for _, reply in found} == {"small"}

    asyncio.run(scene())


def test_surplus_bytes_touch_no_other_caller() -> None:
    async def scene() -> None:
        counts = iter(range(1_000))

        def surplus(request: dict[str, Any]) -> Script:
            said = request["messages"][0]["content"]
            answer = whole(completion(said))
            extra = whole(completion("somebody else's"))[0] if next(counts) % 2 else b""
            return [answer[0] + extra] if isinstance(answer[0], bytes) else answer

        async with two_upstreams(surplus, says("large")) as (small, large):
            async with running(plain(two_tiers(small, large))) as weir:
                for number in range(12):
                    text = f"question {number}"
                    _, reply = await ask(weir.url, messages=[{"role": "user", "content": text}])
                    assert reply.choices[0].message.content in (text, "large")

    asyncio.run(scene())


# Streams.


async def stream(url: str, **changes: Any) -> list[Any]:
    async with client(url) as api:
        found = await api.chat.completions.create(**(ASK | changes), stream=True)
        return [event async for event in found]


def text_of(events: list[Any]) -> str:
    parts = [choice.delta.content or "" for event in events for choice in event.choices]
    return "".join(parts)


def streams(*words: str) -> Any:
    events = [chunk(word) for word in words]
    return lambda request: chunked(*events, chunk(None, finish="stop"), USAGE, DONE)


def test_a_checked_stream_is_verified_and_then_relayed() -> None:
    async def scene() -> None:
        async with two_upstreams(streams("sm", "all"), streams("large")) as (small, large):
            async with running(plain(two_tiers(small, large))) as weir:
                events = await stream(weir.url)

        assert text_of(events) == "small"
        assert all(event.choices for event in events)
        assert small.asked[0]["stream_options"] == {"include_usage": True}

    asyncio.run(scene())


def test_a_stream_cut_before_its_commit_goes_on_to_the_large_model() -> None:
    async def scene() -> None:
        cut: Script = [STREAM_HEAD, b"5\r\ndata:\r\n", CLOSE]
        async with two_upstreams(lambda request: cut, streams("lar", "ge")) as (small, large):
            async with running(plain(two_tiers(small, large))) as weir:
                events = await stream(weir.url)

        assert text_of(events) == "large"

    asyncio.run(scene())


def test_a_stream_cut_after_its_commit_ends_with_an_error_event() -> None:
    async def scene() -> None:
        first = chunk("lar")
        cut: Script = [STREAM_HEAD, b"%x\r\n%b\r\n" % (len(first), first), 0.05, CLOSE]
        unsure = lambda request: whole(completion("", finish="length"))
        async with two_upstreams(unsure, lambda request: cut) as (small, large):
            async with running(plain(two_tiers(small, large))) as weir:
                with pytest.raises(openai.APIError, match="broke after its first byte"):
                    await stream(weir.url)

    asyncio.run(scene())


def test_a_client_that_leaves_cancels_the_upstream_call() -> None:
    async def scene() -> None:
        slow = lambda request: [5.0, *whole(completion("late"))]
        async with two_upstreams(slow, says("large")) as (small, large):
            async with running(plain(two_tiers(small, large))) as weir:
                with pytest.raises(openai.APITimeoutError):
                    async with client(weir.url) as api:
                        await api.with_options(timeout=0.2).chat.completions.create(**ASK)
                for _ in range(100):
                    if small.disconnects:
                        break
                    await asyncio.sleep(0.01)
                assert small.disconnects == 1
                assert large.asked == []

    asyncio.run(scene())


# Errors as the SDK sees them.


@pytest.mark.parametrize(
    ("script", "error"),
    [
        pytest.param(whole({}, status=503), openai.InternalServerError, id="nothing healthy"),
        pytest.param(whole({}, status=429), openai.RateLimitError, id="told to slow down"),
        pytest.param(
            whole({"error": {"message": "bad"}}, status=400), openai.BadRequestError, id="refused"
        ),
    ],
)
def test_the_sdk_gets_its_own_exceptions(script: Script, error: type[Exception]) -> None:
    async def scene() -> None:
        async with two_upstreams(lambda r: script, lambda r: script) as (small, large):
            async with running(plain(two_tiers(small, large))) as weir:
                with pytest.raises(error):
                    await ask(weir.url)

    asyncio.run(scene())


def test_a_deadline_is_a_504() -> None:
    async def scene() -> None:
        slow = lambda request: [5.0]
        async with two_upstreams(slow, slow) as (small, large):
            async with running(plain(two_tiers(small, large, deadline_ms=200))) as weir:
                with pytest.raises(openai.InternalServerError) as caught:
                    await ask(weir.url)

        assert caught.value.status_code == 504

    asyncio.run(scene())


def test_an_unknown_model_is_a_404() -> None:
    async def scene() -> None:
        async with two_upstreams(says("s"), says("l")) as (small, large):
            async with running(plain(two_tiers(small, large))) as weir:
                with pytest.raises(openai.NotFoundError) as caught:
                    await ask(weir.url, model="other")

        assert caught.value.code == "model_not_found"

    asyncio.run(scene())


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"{", id="half a JSON"),
        pytest.param(b"[]", id="no object"),
        pytest.param(b"\xff", id="no UTF-8"),
        pytest.param(json.dumps(ASK | {"messages": "hi"}).encode(), id="messages as text"),
        pytest.param(json.dumps(ASK | {"messages": []}).encode(), id="no message"),
        pytest.param(json.dumps({"model": "assistant"}).encode(), id="nothing asked"),
        pytest.param(json.dumps(ASK | {"temperature": "hot"}).encode(), id="a wrong type"),
        pytest.param(json.dumps(ASK | {"stream": 1}).encode(), id="a number for a boolean"),
        pytest.param(
            json.dumps(
                ASK
                | {
                    "response_format": {
                        "type": "json_schema",
                        "json_schema": {"name": "s", "schema": {"type": 7}},
                    }
                }
            ).encode(),
            id="a schema that is none",
        ),
    ],
)
def test_a_bad_body_is_a_400_that_says_what_was_wanted(body: bytes) -> None:
    async def scene() -> None:
        async with two_upstreams(says("s"), says("l")) as (small, large):
            async with running(plain(two_tiers(small, large))) as weir:
                async with client(weir.url) as api:
                    with pytest.raises(openai.BadRequestError) as caught:
                        await api.post("/chat/completions", cast_to=object, content=body)

        assert caught.value.type == "invalid_request_error"

    asyncio.run(scene())


def test_the_sdk_lists_the_models() -> None:
    async def scene() -> list[str]:
        async with two_upstreams(says("s"), says("l")) as (small, large):
            async with running(plain(two_tiers(small, large))) as weir:
                async with client(weir.url) as api:
                    listed = [model.id async for model in api.models.list()]
                    one = await api.models.retrieve("assistant")
                    with pytest.raises(openai.NotFoundError):
                        await api.models.retrieve("other")
                    return [*listed, one.id]

    assert asyncio.run(scene()) == ["assistant", "assistant"]
