"""Audits over real sockets: who is asked again, what counts as harm, what it costs."""

import asyncio
from typing import Any

import openai
import pytest

from support.running import Running, plain, running, two_tiers, two_upstreams, with_canary
from support.upstream import Script, Upstream, completion, upstream, whole
from weir_core.snapshot import Audits, Behaviour, Monitoring, Objective
from weir_router.answer import Answer, Choice, Usage
from weir_router.audit import differs

ASK: dict[str, Any] = {"model": "assistant", "messages": [{"role": "user", "content": "hello"}]}
ALWAYS = Monitoring(
    audits=Audits(reference="large", percent_bp=10_000, during_rollout_bp=10_000, compare="Json"),
    objectives=(Objective(name="quality", event="Harm"),),
)


def says(text: str) -> Any:
    return lambda request: whole(completion(text))


def down(request: dict[str, Any]) -> Script:
    return whole({"error": {"message": "down"}}, status=500)


async def ask(weir: Running, times: int = 1, **changes: Any) -> list[str]:
    async with openai.AsyncOpenAI(base_url=weir.url, api_key="none", max_retries=0) as api:
        found = []
        for _ in range(times):
            reply = await api.chat.completions.create(**(ASK | changes))
            found.append(reply.choices[0].message.content or "")
    await weir.router.auditor.drain()
    return found


def audits(weir: Running) -> dict[str, int]:
    counted = weir.router.metrics.counters["weir_audits"]
    return {labels[1]: count for labels, count in counted.items()}


def unchecked(small: Upstream, large: Upstream) -> Behaviour:
    return two_tiers(small, large)


def test_a_served_answer_is_compared_with_the_reference() -> None:
    async def scene() -> None:
        async with two_upstreams(says('{"a": 1}'), says('{"a": 2}')) as (small, large):
            async with running(plain(unchecked(small, large), monitoring=ALWAYS)) as weir:
                assert await ask(weir) == ['{"a": 1}']
                assert audits(weir) == {"harm": 1}
                assert len(large.asked) == 1

    asyncio.run(scene())


def test_an_answer_of_the_reference_itself_is_not_asked_for_again() -> None:
    cut = lambda request: whole(completion("half", finish="length"))

    async def scene() -> None:
        async with two_upstreams(cut, says("whole")) as (small, large):
            async with running(plain(unchecked(small, large), monitoring=ALWAYS)) as weir:
                assert await ask(weir) == ["whole"]
                assert audits(weir) == {"agreed": 1}
                assert len(large.asked) == 1

    asyncio.run(scene())


def test_during_a_rollout_both_arms_answer_and_pairs_are_counted() -> None:
    """Stable's small agrees with large, the canary's does not: canary-only harms."""

    async def scene() -> None:
        async with (
            two_upstreams(says("1"), says("1")) as (small, large),
            upstream(says("2")) as off,
        ):
            policy = with_canary(
                unchecked(small, large), unchecked(off, large), monitoring=ALWAYS, brake_alpha=0.0
            )
            async with running(policy) as weir:
                assert await ask(weir, times=5) == ["1"] * 5
                found = weir.router.ledger.judge(
                    policy, alpha=0.01, now_s=weir.router.clock()
                ).objectives[0]

                assert len(off.asked) == 5
                assert found.failed == (0, 5)
                assert found.log_e > 0

    asyncio.run(scene())


def test_enough_harms_trip_the_brake_whatever_the_weight() -> None:
    async def scene() -> None:
        async with (
            two_upstreams(says("1"), says("1")) as (small, large),
            upstream(says("2")) as off,
        ):
            policy = with_canary(
                unchecked(small, large), unchecked(off, large), monitoring=ALWAYS, weight_bp=100
            )
            async with running(policy) as weir:
                await ask(weir, times=30)
                weir.router.brake()

                assert [trip.suspect for trip in weir.trips] == ["quality"]

    asyncio.run(scene())


def test_an_audit_that_fails_is_dropped_and_harms_nobody() -> None:
    async def scene() -> None:
        same = two_upstreams(says("1"), says("1"))
        async with same as (small, large), upstream(down) as off:
            canary = two_tiers(off, off)
            policy = with_canary(unchecked(small, large), canary, monitoring=ALWAYS)
            async with running(policy) as weir:
                assert await ask(weir) == ["1"]
                assert audits(weir) == {"dropped": 1}

    asyncio.run(scene())


def test_a_reference_that_is_down_drops_the_audit() -> None:
    async def scene() -> None:
        async with two_upstreams(says("1"), down) as (small, large):
            async with running(plain(unchecked(small, large), monitoring=ALWAYS)) as weir:
                assert await ask(weir) == ["1"]
                assert audits(weir) == {"dropped": 1}

    asyncio.run(scene())


def test_the_cost_of_audits_is_counted_apart() -> None:
    async def scene() -> None:
        async with two_upstreams(says("1"), says("1")) as (small, large):
            tiers = two_tiers(small, large)
            priced = [
                type(tier)(
                    name=tier.name,
                    backend=type(tier.backend)(
                        name=tier.backend.name,
                        identity=tier.backend.identity,
                        url=tier.backend.url,
                        model=tier.backend.model,
                        output_price_pico=price,
                    ),
                    accept=tier.accept,
                )
                for tier, price in zip(tiers.tiers, (10, 100), strict=True)
            ]
            policy = plain(two_tiers(small, large, tiers=tuple(priced)), monitoring=ALWAYS)
            async with running(policy) as weir:
                await ask(weir)
                counters = weir.router.metrics.counters["weir_audit_cost"]

                assert counters == {("llm/assistant",): 300}
                assert weir.router.metrics.totals("llm/assistant")["small"]["costPico"] == 30

    asyncio.run(scene())


def said(text: str) -> Answer:
    return Answer(choices=(Choice(text=text, finish="stop"),), usage=Usage(), raw=b"")


@pytest.mark.parametrize(
    ("compare", "mine", "reference", "harm"),
    [
        pytest.param("Json", '{"a": 1, "b": 2}', '{"b":2,"a":1}', False, id="the same value"),
        pytest.param("Json", '{"a": 1}', '{"a": 2}', True, id="another value"),
        pytest.param("Json", '{"a": 1', '{"a": 1}', True, id="half a JSON"),
        pytest.param("Json", '"x"', "x", True, id="a JSON text and a bare one"),
        pytest.param("Text", "a  b\n", "a b", False, id="other white space"),
        pytest.param("Text", "a b", "a c", True, id="other words"),
    ],
)
def test_harm_is_to_say_something_else(compare: Any, mine: str, reference: str, harm: bool) -> None:
    assert differs(said(mine), said(reference), Audits(reference="l", compare=compare)) is harm


def test_audits_in_flight_are_dropped_at_the_end() -> None:
    """Also those whose request ends only now; one that has not begun to run is dropped as well."""

    async def scene() -> None:
        hangs = lambda request: [5.0]
        async with two_upstreams(says("1"), hangs) as (small, large):
            tiers = unchecked(small, large)
            policy = with_canary(tiers, tiers, monitoring=ALWAYS)
            async with running(policy) as weir:
                async with openai.AsyncOpenAI(
                    base_url=weir.url, api_key="none", max_retries=0
                ) as api:
                    await asyncio.gather(*(api.chat.completions.create(**ASK) for _ in range(5)))
                    await weir.router.auditor.stop()
                    assert audits(weir) == {"dropped": 5}
                    await api.chat.completions.create(**ASK)

                assert audits(weir) == {"dropped": 6}
                assert weir.router.load.audits == 0

    asyncio.run(scene())


def test_audits_that_end_in_time_are_not_dropped() -> None:
    async def scene() -> None:
        late = lambda request: [0.1, *whole(completion("1"))]
        async with two_upstreams(says("1"), late) as (small, large):
            async with running(plain(unchecked(small, large), monitoring=ALWAYS)) as weir:
                async with openai.AsyncOpenAI(
                    base_url=weir.url, api_key="none", max_retries=0
                ) as api:
                    await api.chat.completions.create(**ASK)
                await weir.router.auditor.stop(5.0)

                assert audits(weir) == {"agreed": 1}

    asyncio.run(scene())
