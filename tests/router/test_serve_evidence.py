"""What requests leave in the ledger and the load's counters, however they end."""

import asyncio
import itertools
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
from support.upstream import CLOSE, Script, chunk, chunked, completion, upstream, whole
from weir_core.evidence import ASSIGNED, SETTLED
from weir_core.snapshot import Audits, Check, Monitoring, Objective, Rule
from weir_router import reply
from weir_router.load import Bounds

ASK: dict[str, Any] = {"model": "assistant", "messages": [{"role": "user", "content": "hello"}]}
BODY = b'{"model":"assistant","messages":[{"role":"user","content":"x"}]%b}'
ERRORS = Monitoring(objectives=(Objective(name="errors", event="Error"),))
AUDITED = Monitoring(
    audits=Audits(reference="large", percent_bp=10_000, during_rollout_bp=10_000, compare="Text"),
    objectives=(Objective(name="quality", event="Harm"),),
)


def says(text: str) -> Any:
    return lambda request: whole(completion(text))


def client(weir: Running) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=weir.url, api_key="none", max_retries=0)


def counts(weir: Running) -> tuple[int, int]:
    """Return how many requests were assigned, and settled, over both arms."""
    tallies = weir.router.ledger.tallies(weir.router.clock())
    rows = [row.counts for tally in tallies for row in (*tally.epochs, *tally.cells)]
    sums = [sum(row[at] + row[at + 1] for row in rows) for at in (ASSIGNED, SETTLED)]
    return sums[0], sums[1]


def is_idle(weir: Running) -> bool:
    load = weir.router.load
    busy = load.in_flight + load.moving + load.audits + sum(load.escalating.values())
    return busy == 0 and not any(weir.router._in_canary.values())


def test_over_its_escalation_cap_the_canary_gets_no_request_and_nobody_counts() -> None:
    async def scene() -> None:
        async with two_upstreams(says("s"), says("l")) as (small, large):
            tiers = two_tiers(small, large)
            policy = with_canary(tiers, tiers, monitoring=ERRORS)
            bounds = Bounds(escalations_per_arm=1)
            async with running(policy, coin=alternating(), bounds=bounds) as weir:
                async with client(weir) as api:
                    weir.router.load.escalating["canary"] = 1
                    for _ in range(6):
                        await api.chat.completions.create(**ASK)
                    weir.router.load.escalating["canary"] = 0

                assert counts(weir) == (0, 0)

    asyncio.run(scene())


def test_a_request_that_made_the_router_stumble_is_settled_as_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stumbles(*args: Any) -> int:
        raise ZeroDivisionError

    async def scene() -> None:
        async with two_upstreams(says("s"), says("l")) as (small, large):
            tiers = two_tiers(small, large)
            policy = with_canary(tiers, tiers, monitoring=AUDITED)
            async with running(policy, coin=alternating()) as weir, client(weir) as api:
                # The only way in: nothing else is known to raise.
                monkeypatch.setattr(reply.Replier, "finish", stumbles)
                for _ in range(4):
                    with pytest.raises(openai.InternalServerError) as caught:
                        await api.chat.completions.create(**ASK)
                    assert caught.value.status_code == 503

                assert counts(weir) == (4, 4)
                await weir.router.auditor.drain()
                assert is_idle(weir)

    asyncio.run(scene())


def test_the_other_arm_of_an_audit_meets_what_the_caller_declared() -> None:
    """Without the declared risk it would begin higher up, and hide what the canary does."""

    async def scene() -> None:
        async with (
            two_upstreams(says("1"), says("1")) as (small, large),
            upstream(says("2")) as off,
        ):
            rule = Rule(name="risky", when="risk == 'legal'", start=1, end=1)
            stable = two_tiers(small, large, rules=(rule,))
            canary = two_tiers(off, large, rules=(rule,))
            policy = with_canary(stable, canary, monitoring=AUDITED, brake_alpha=0.0)
            async with running(policy, coin=lambda: 0.9) as weir, client(weir) as api:
                await api.chat.completions.create(**ASK, extra_headers={"x-weir-risk": "none"})
                await weir.router.auditor.drain()
                judged = weir.router.ledger.judge(policy, alpha=0.01, now_s=weir.router.clock())

                assert len(off.asked) == 1
                assert judged.objectives[0].failed == (0, 1)

    asyncio.run(scene())


def test_audits_that_are_to_begin_take_their_places() -> None:
    async def scene() -> None:
        slow = lambda request: [0.15, *whole(completion("1"))]
        async with two_upstreams(slow, says("1")) as (small, large):
            tiers = two_tiers(small, large)
            policy = with_canary(tiers, tiers, monitoring=AUDITED, brake_alpha=0.0)
            async with running(policy, bounds=Bounds(audits=2)) as weir, client(weir) as api:
                await asyncio.gather(*[api.chat.completions.create(**ASK) for _ in range(8)])
                await weir.router.auditor.drain()
                audits = weir.router.metrics.counters["weir_audits"]

                assert audits == {("llm/assistant", "shed"): 6, ("llm/assistant", "agreed"): 2}
                assert is_idle(weir)

    asyncio.run(scene())


def test_an_audit_of_a_text_nested_without_end_ends() -> None:
    async def scene() -> None:
        deep = "[" * 50_000
        audits = Audits(reference="large", percent_bp=10_000, compare="Json")
        monitoring = Monitoring(audits=audits, objectives=AUDITED.objectives)
        async with two_upstreams(says(deep), says("1")) as (small, large):
            tiers = two_tiers(small, large)
            policy = with_canary(tiers, tiers, monitoring=monitoring, weight_bp=0)
            async with running(policy) as weir, client(weir) as api:
                await api.chat.completions.create(**ASK)
                await weir.router.auditor.drain()
                counted = weir.router.metrics.counters["weir_audits"]

                assert counted == {("llm/assistant", "harm"): 1}
                assert is_idle(weir)

    asyncio.run(scene())


def test_an_answer_that_stable_gave_for_the_canary_is_no_audit_of_it() -> None:
    async def scene() -> None:
        async with two_upstreams(says("1"), says("1")) as (small, large):
            async with upstream(lambda request: [5.0]) as stuck:
                stable, canary = two_tiers(small, large), two_tiers(stuck, large)
                policy = with_canary(stable, canary, monitoring=AUDITED, weight_bp=9_999)
                async with running(policy) as weir, client(weir) as api:
                    asking = asyncio.create_task(api.chat.completions.create(**ASK))
                    await until(lambda: stuck.in_flight)
                    weir.obey(replace(policy, weight_bp=0))
                    reply = await asking
                    await weir.router.auditor.drain()

                    assert reply.choices[0].message.content == "1"
                    counted = weir.router.metrics.counters["weir_audits"]
                    assert counted == {("llm/assistant", "dropped"): 1}
                    assert is_idle(weir)

    asyncio.run(scene())


def nonsense() -> Any:
    """Return a script that is something else each time: good, slow, broken, refused."""
    kinds: list[Any] = [
        whole(completion("good")),
        whole(completion("half", finish="length")),
        whole({"error": {}}, status=500),
        [CLOSE],
        [0.02, *whole(completion("slow"))],
        whole(b"{"),
        chunked(chunk("a"), chunk("b", finish="stop"), b"data: [DONE]\n\n"),
        whole({"error": {"message": "no"}}, status=429),
        [0.3, CLOSE],
    ]
    turn = itertools.cycle(range(len(kinds)))
    return lambda request: kinds[next(turn)]


@pytest.mark.parametrize("more", [b"", b',"stream":true'], ids=["whole", "stream"])
def test_clients_that_leave_at_any_moment_leave_nothing_behind(more: bytes) -> None:
    """Each ticket is settled once, each counter is back at nothing, no upstream call goes on."""

    async def scene() -> None:
        async with two_upstreams(nonsense(), nonsense()) as (small, large):
            tiers = two_tiers(small, large, deadline_ms=500)
            monitoring = Monitoring(
                monitors=(Check(name="whole", type="Finish"),),
                audits=AUDITED.audits,
                objectives=(*ERRORS.objectives, *AUDITED.objectives),
            )
            policy = with_canary(tiers, tiers, monitoring=monitoring, brake_alpha=0.0)
            async with running(policy, coin=alternating()) as weir:
                await asyncio.gather(*[leaves(weir, 0.002 * turn, more) for turn in range(120)])
                await until(lambda: weir.router.load.in_flight == 0)
                await weir.router.auditor.drain()
                await until(lambda: small.in_flight + large.in_flight == 0)

                assert is_idle(weir)
                assigned, settled = counts(weir)
                assert assigned == settled
                assert assigned > 60

    async def leaves(weir: Running, after_s: float, more: bytes) -> None:
        wire = await Wire.to(weir.port)
        await wire.send(post("/v1/chat/completions", BODY % more))
        await asyncio.sleep(after_s)
        await wire.close()

    asyncio.run(asyncio.wait_for(scene(), 30))


def test_a_route_that_goes_in_mid_request_answers_it_and_its_audit() -> None:
    async def scene() -> None:
        slow: Script = [0.1, *whole(completion("kept"))]
        async with two_upstreams(lambda request: slow, says("kept")) as (small, large):
            tiers = two_tiers(small, large)
            policy = with_canary(tiers, tiers, monitoring=AUDITED)
            async with running(policy, coin=alternating()) as weir, client(weir) as api:
                asking = [api.chat.completions.create(**ASK) for _ in range(4)]
                waiting = [asyncio.ensure_future(one) for one in asking]
                await until(lambda: small.in_flight == 4)
                weir.obey()
                replies = await asyncio.gather(*waiting)
                await weir.router.auditor.drain()

                assert {one.choices[0].message.content for one in replies} == {"kept"}
                assert is_idle(weir)

    asyncio.run(scene())
