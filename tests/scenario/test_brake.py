"""The router's own brake, with no control loop at all: only the data plane is alive here."""

import asyncio
import json
from typing import Any

import openai
import pytest

from support.http_wire import Wire, post, until
from support.running import (
    Running,
    alternating,
    replace,
    running,
    two_tiers,
    two_upstreams,
    with_canary,
)
from support.upstream import DONE, STREAM_HEAD, Script, chunk, chunked, completion, upstream, whole
from weir_core.snapshot import Check, Monitoring, Objective, Rule
from weir_router.process import brake

ASK: dict[str, Any] = {"model": "assistant", "messages": [{"role": "user", "content": "hello"}]}
ERRORS = Monitoring(objectives=(Objective(name="errors", event="Error"),))


def good(request: dict[str, Any]) -> Script:
    return whole(completion("good"))


def bad(request: dict[str, Any]) -> Script:
    return whole({"error": {"message": "broken"}}, status=500)


async def arm_of(api: openai.AsyncOpenAI) -> tuple[str, str]:
    raw = await api.chat.completions.with_raw_response.create(**ASK)
    said = json.loads(raw.content)["choices"][0]["message"]["content"]
    return raw.headers["x-weir-arm"], said


def client(url: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0)


async def _in_turn(api: openai.AsyncOpenAI, count: int) -> list[str]:
    return [(await arm_of(api))[0] for _ in range(count)]


def test_a_bad_canary_gets_no_request_after_the_trip() -> None:
    """The brake looks by its own clock; nothing else of the control plane runs."""

    async def scene() -> None:
        async with two_upstreams(good, good) as (small, large), upstream(bad) as broken:
            stable, canary = two_tiers(small, large), two_tiers(broken, large)
            policy = with_canary(stable, canary, monitoring=ERRORS)
            async with running(policy, coin=alternating()) as weir, client(weir.url) as api:
                looking = asyncio.create_task(brake(weir.router))
                before = await _in_turn(api, 60)
                asked = len(broken.asked)
                after = await _in_turn(api, 40)
                looking.cancel()

                assert "canary" in before
                assert len(weir.trips) == 1
                assert weir.trips[0].suspect == "errors"
                assert set(after) == {"stable"}
                assert len(broken.asked) == asked

    asyncio.run(scene())


def test_a_good_canary_keeps_its_share() -> None:
    async def scene() -> None:
        async with two_upstreams(good, good) as (small, large):
            tiers = two_tiers(small, large)
            policy = with_canary(tiers, tiers, monitoring=ERRORS)
            async with running(policy, coin=alternating()) as weir, client(weir.url) as api:
                arms = await _in_turn(api, 60)
                weir.router.brake()

                assert arms.count("canary") == 30
                assert weir.trips == []

    asyncio.run(scene())


def test_canary_requests_in_flight_are_answered_by_stable_when_the_brake_trips() -> None:
    """Ten hang in the canary when others' failures trip the brake."""

    async def scene() -> None:
        def hangs(request: dict[str, Any]) -> Script:
            if request["messages"][0]["content"] == "wait":
                return [10.0]
            return bad(request)

        async with two_upstreams(good, good) as (small, large), upstream(hangs) as broken:
            stable, canary = two_tiers(small, large), two_tiers(broken, large)
            policy = with_canary(stable, canary, monitoring=ERRORS, weight_bp=9_000)
            async with running(policy) as weir, client(weir.url) as api:
                waiting = [asyncio.create_task(_wait(api)) for _ in range(10)]
                while broken.in_flight < 10:
                    await asyncio.sleep(0.01)
                weir.router._coin = alternating(0.5, 0.95)
                await _until_tripped(api, weir)
                answers = await asyncio.wait_for(asyncio.gather(*waiting), 3)

                assert answers == [("stable", "good")] * 10

    async def _wait(api: openai.AsyncOpenAI) -> tuple[str, str]:
        messages: Any = [{"role": "user", "content": "wait"}]
        raw = await api.chat.completions.with_raw_response.create(
            model="assistant", messages=messages
        )
        said = json.loads(raw.content)["choices"][0]["message"]["content"]
        return raw.headers["x-weir-arm"], said

    async def _until_tripped(api: openai.AsyncOpenAI, weir: Running) -> None:
        for _ in range(200):
            await arm_of(api)
            weir.router.brake()
            if weir.trips:
                return
        raise AssertionError("the brake did not trip")

    asyncio.run(scene())


def test_no_snapshot_raises_what_the_brake_has_stopped() -> None:
    async def scene() -> None:
        async with two_upstreams(good, good) as (small, large), upstream(bad) as broken:
            policy = with_canary(
                two_tiers(small, large), two_tiers(broken, large), monitoring=ERRORS
            )
            async with running(policy, coin=alternating()) as weir, client(weir.url) as api:
                await _in_turn(api, 60)
                weir.router.brake()
                weir.obey(policy)
                arms = await _in_turn(api, 10)

                assert set(arms) == {"stable"}

    asyncio.run(scene())


# A recall, at every moment of a request.

NEVER = Check(name="never", type="Pattern", must_match="no answer says this")
CHUNK = chunk("some ")


def begun(*rest: bytes | float) -> Script:
    return [STREAM_HEAD, b"%x\r\n%b\r\n" % (len(CHUNK), CHUNK), *rest]


def stable_says(request: dict[str, Any]) -> Script:
    if request.get("stream"):
        return chunked(chunk("good"), chunk(None, finish="stop"), DONE)
    return good(request)


MOMENTS: list[Any] = [
    pytest.param(False, [[5.0]], {}, id="in its first call"),
    pytest.param(True, [[5.0]], {}, id="before a stream's head"),
    pytest.param(True, [[STREAM_HEAD, 5.0]], {}, id="after a stream's head"),
    pytest.param(True, [begun(5.0)], {}, id="in a stream that is not committed"),
    pytest.param(False, [good({}), [5.0]], {"accept": (NEVER,)}, id="in an escalation"),
    pytest.param(False, [bad({}), [5.0]], {}, id="going elsewhere after a failure"),
    pytest.param(False, [[5.0]], {"max_attempts": 1}, id="in its only attempt"),
    pytest.param(False, [bad({}), [5.0]], {"max_attempts": 2}, id="in its last attempt"),
]


@pytest.mark.parametrize(("stream", "scripts", "changes"), MOMENTS)
def test_a_recalled_request_is_answered_by_stable(
    stream: bool, scripts: list[Script], changes: dict[str, Any]
) -> None:
    async def scene() -> None:
        left = list(scripts)
        stuck = lambda request: left.pop(0)
        async with two_upstreams(stable_says, stable_says) as (small, large):
            async with two_upstreams(stuck, stuck) as (one, two):
                canary = two_tiers(one, two, **changes)
                stable = two_tiers(small, large, max_attempts=changes.get("max_attempts", 4))
                policy = with_canary(stable, canary, monitoring=ERRORS, weight_bp=9_999)
                async with running(policy) as weir, client(weir.url) as api:
                    asking = asyncio.create_task(_said(api, stream))
                    await until(lambda: not left and one.in_flight + two.in_flight)
                    await asyncio.sleep(0.05)
                    weir.obey(replace(policy, weight_bp=0))
                    arm, text = await asyncio.wait_for(asking, 3)

                    assert (arm, text) == ("stable", "good")
                    await until(lambda: one.in_flight + two.in_flight == 0)
                    assert weir.router.load.escalating == {"stable": 0, "canary": 0}
                    assert weir.router.load.moving == 0

    async def _said(api: openai.AsyncOpenAI, stream: bool) -> tuple[str, str]:
        raw = await api.chat.completions.with_raw_response.create(**ASK, stream=stream)
        if not stream:
            return raw.headers["x-weir-arm"], raw.parse().choices[0].message.content or ""
        events = [event async for event in raw.parse()]
        text = "".join(event.choices[0].delta.content or "" for event in events)
        return raw.headers["x-weir-arm"], text

    asyncio.run(asyncio.wait_for(scene(), 8))


def test_a_committed_stream_is_not_recalled() -> None:
    async def scene() -> None:
        rest = chunk("words", finish="stop") + DONE
        slow = lambda request: begun(0.3, b"%x\r\n%b\r\n0\r\n\r\n" % (len(rest), rest))
        async with two_upstreams(stable_says, stable_says) as (small, large):
            async with upstream(slow) as one:
                canary = two_tiers(one, one, commit="FirstToken")
                stable = two_tiers(small, large)
                policy = with_canary(stable, canary, monitoring=ERRORS, weight_bp=9_999)
                async with running(policy) as weir, client(weir.url) as api:
                    stream = await api.chat.completions.create(**ASK, stream=True)
                    weir.obey(replace(policy, weight_bp=0))
                    events = [event async for event in stream]

                    text = "".join(event.choices[0].delta.content or "" for event in events)
                    assert text == "some words"
                    assert small.asked == []

    asyncio.run(scene())


def test_a_client_that_leaves_as_its_request_is_recalled_is_not_served() -> None:
    async def scene() -> None:
        async with two_upstreams(stable_says, stable_says) as (small, large):
            async with upstream(lambda request: [5.0]) as one:
                policy = with_canary(two_tiers(small, large), two_tiers(one, one), weight_bp=9_999)
                async with running(policy) as weir:
                    wire = await Wire.to(weir.port)
                    body = json.dumps(ASK).encode()
                    await wire.send(post("/v1/chat/completions", body))
                    await until(lambda: one.in_flight)
                    (walk,) = next(iter(weir.router._in_canary.values()))
                    weir.obey(replace(policy, weight_bp=0))
                    walk.gone()  # As the connection would say in the same turn of the loop.
                    await until(lambda: weir.router.load.in_flight == 0)

                    assert small.asked == []
                    await wire.close()

    asyncio.run(scene())


def test_a_recalled_request_keeps_what_its_caller_declared() -> None:
    async def scene() -> None:
        rule = Rule(name="risky", when="risk == 'legal'", start=1, end=1)
        async with two_upstreams(stable_says, bad) as (small, large):
            async with upstream(lambda request: [5.0]) as one:
                stable = two_tiers(small, large, rules=(rule,))
                policy = with_canary(stable, two_tiers(one, one), weight_bp=9_999)
                async with running(policy) as weir, client(weir.url) as api:
                    none = {"x-weir-risk": "none"}
                    create = api.chat.completions.with_raw_response.create
                    asking = asyncio.create_task(create(**ASK, extra_headers=none))
                    await until(lambda: one.in_flight)
                    weir.obey(replace(policy, weight_bp=0))

                    assert (await asking).headers["x-weir-tier"] == "small"

    asyncio.run(scene())
