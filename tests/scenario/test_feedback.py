"""Labels of people over HTTP: from `/v1/feedback` to the brake, on a clock that the test moves."""

import asyncio
import json
from pathlib import Path
from typing import Any

import openai
import yaml

from support.http_wire import Wire, post
from support.objects import backend
from support.objects import route as a_route
from support.running import Running, alternating, running, two_tiers, two_upstreams, with_canary
from support.upstream import Script, completion, whole
from weir_core.snapshot import Monitoring, Objective, RoutePolicy
from weir_router.clock import steady_clock
from weir_router.folder import Folder
from weir_router.keeper import Keeper
from weir_router.ledger import Ledger
from weir_router.serve import Router
from weir_router.standing import StateFile
from weir_router.telemetry import Metrics
from weir_router.upstreams import Keys, Upstreams

ASK: dict[str, Any] = {"model": "assistant", "messages": [{"role": "user", "content": "hello"}]}
WITHIN_S = 60
LABELLED = Monitoring(
    objectives=(
        Objective(name="errors", event="Error"),
        Objective(name="thumbs", event="Feedback", within_ms=WITHIN_S * 1_000),
    )
)
DUE_S = 5 + 2 + 1 + WITHIN_S
"""The deadline and a little, the running second, and the window."""


class Clock:
    """The real one, and what the test adds."""

    def __init__(self) -> None:
        self._real = steady_clock()
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return self._real() + self.ahead_s


def good(request: dict[str, Any]) -> Script:
    return whole(completion("good"))


async def asked(weir: Running, count: int) -> list[tuple[str, str]]:
    """Return the arm and the id of each of some replies."""
    api = openai.AsyncOpenAI(base_url=weir.url, api_key="none", max_retries=0)
    async with api:
        raw = [await api.chat.completions.with_raw_response.create(**ASK) for _ in range(count)]
    return [(one.headers["x-weir-arm"], one.headers["x-request-id"]) for one in raw]


async def label(weir: Running, id: str, *, harm: bool = True) -> int:
    wire = await Wire.to(weir.port)
    body = json.dumps({"id": id, "harm": harm}).encode()
    await wire.send(post("/v1/feedback", body, "content-type: application/json"))
    got = await wire.answer()
    await wire.close()
    return got.status


def route(small: Any, large: Any) -> RoutePolicy:
    tiers = two_tiers(small, large)
    return with_canary(tiers, tiers, monitoring=LABELLED)


def test_a_canary_whose_answers_people_call_harmful_is_rolled_back() -> None:
    async def scene() -> None:
        clock = Clock()
        async with two_upstreams(good, good) as (small, large):
            policy = route(small, large)
            async with running(policy, coin=alternating(), clock=clock) as weir:
                replies = await asked(weir, 60)
                told = [await label(weir, id) for arm, id in replies if arm == "canary"]
                clock.ahead_s += WITHIN_S
                weir.router.brake()
                before = list(weir.trips)
                clock.ahead_s += DUE_S - WITHIN_S
                weir.router.brake()

                assert told == [204] * 30
                assert before == []
                assert [trip.suspect for trip in weir.trips] == ["thumbs"]
                assert {arm for arm, _ in await asked(weir, 10)} == {"stable"}

    asyncio.run(scene())


def test_a_canary_that_people_label_as_often_and_sooner_is_not() -> None:
    async def scene() -> None:
        clock = Clock()
        async with two_upstreams(good, good) as (small, large):
            policy = route(small, large)
            async with running(policy, coin=alternating(), clock=clock) as weir:
                replies = await asked(weir, 60)
                for wanted in ("canary", "stable"):
                    for arm, id in replies:
                        if arm == wanted:
                            await label(weir, id)
                    weir.router.brake()
                    clock.ahead_s += 50
                    weir.router.brake()
                clock.ahead_s += DUE_S
                weir.router.brake()
                judged = weir.router.ledger.judge(policy, alpha=0.01, now_s=clock())

                assert weir.trips == []
                assert judged.objectives[1].failed == (30, 30)

    asyncio.run(scene())


def test_what_became_of_labels_is_counted() -> None:
    async def scene() -> None:
        clock = Clock()
        async with two_upstreams(good, good) as (small, large):
            policy = route(small, large)
            async with running(policy, coin=alternating(), clock=clock) as weir:
                replies = dict(await asked(weir, 2))
                canary, stable = replies["canary"], replies["stable"]
                told = [await label(weir, canary), await label(weir, canary, harm=False)]
                clock.ahead_s += WITHIN_S + 1
                told += [await label(weir, stable), await label(weir, "weir-0")]

                assert told == [204, 204, 204, 404]
                key = "llm/assistant"
                assert weir.router.metrics.counters["weir_labels"] == {
                    (key, "canary", "held"): 1,
                    (key, "canary", "again"): 1,
                    (key, "stable", "late"): 1,
                }

    asyncio.run(scene())


def keeper_of(folder: Path, clock: Clock) -> tuple[Keeper, Router]:
    router = Router(
        name="test",
        ledger=Ledger(router="standalone", boot="boot-1"),
        upstreams=Upstreams(Keys(None)),
        metrics=Metrics(),
        clock=clock,
    )
    file = StateFile(folder / "state.json")
    keeper = Keeper(folder=Folder(folder, but=file.path), file=file, router=router, clock=clock)
    return keeper, router


def written(folder: Path, prompt: str) -> None:
    """Write the manifests: labels within a minute, half of the traffic at once."""
    one = a_route("assistant")
    one["spec"]["behaviour"]["tiers"][0]["systemPrompt"] = prompt
    labels = {"name": "thumbs", "event": "Feedback", "within": "1m"}
    objectives = [{"name": "errors", "event": "Error", "share": 2}, labels]
    one["spec"]["monitoring"] = {"objectives": objectives}
    one["spec"]["rollout"] = {"steps": [{"setWeight": 50}, {"prove": {}}]}
    (folder / "all.yaml").write_text(yaml.safe_dump_all([backend(), one]))


def test_labels_go_from_the_manifest_to_the_status(tmp_path: Path) -> None:
    async def scene() -> None:
        clock = Clock()
        written(tmp_path, "be kind")
        keeper, router = keeper_of(tmp_path, clock)
        keeper.start()
        written(tmp_path, "be rude")
        for _ in range(4):
            clock.ahead_s += 0.5
            await keeper.tick()
        policy = router.table.routes["default/assistant"].policy
        for arm in (0, 1) * 20:
            ticket = router.ledger.assign(policy, arm, "", clock())
            assert ticket is not None
            router.ledger.settle(ticket, 0, clock())
            router.ledger.label(ticket, bool(arm), clock())
        clock.ahead_s += policy.stable.behaviour.deadline_ms / 1_000 + 3 + WITHIN_S
        await keeper.tick()
        (status,) = keeper.statuses()["routes"].values()

        assert status["verdict"] == "Harm"
        assert status["lastRollback"]["suspect"] == "thumbs"
        (labels,) = [
            one for one in status["lastRollback"]["objectives"] if one["event"] == "Feedback"
        ]
        assert (labels["canary"], labels["stable"]) == ("20/20", "0/20")
        assert status["lastRollback"]["badServed"] == 20

    asyncio.run(scene())
