"""The router's own brake, with no control loop at all: only the data plane is alive here."""

import asyncio
import json
from typing import Any

import openai

from support.running import alternating, running, two_tiers, two_upstreams, with_canary
from support.upstream import Script, completion, upstream, whole
from weir_core.snapshot import Monitoring, Objective
from weir_router.standalone import brake

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

    async def _until_tripped(api: openai.AsyncOpenAI, weir: Any) -> None:
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
