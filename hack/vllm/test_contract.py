"""What the router takes for granted of an upstream, asked of a real vLLM through the router.

Run by `make vllm-test`, which serves the demo's large model as a pod of Weir's.
"""

import asyncio
import json
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest
from rendered import UPSTREAM

from support.running import Running, plain, running
from weir_core.snapshot import Behaviour, Calibration, Check, Tier

pytestmark = pytest.mark.usefixtures("pod")
URL = UPSTREAM.url
QUESTION = [
    {"role": "system", "content": "banking desk"},
    {"role": "user", "content": "I am still waiting on my card?"},
]
ALWAYS_SURE = Calibration(method="Logprob", features=(("sum", 0.0),), intercept=9.0, digest="d")
NEVER_SURE = Calibration(method="Logprob", features=(("sum", 0.0),), intercept=-9.0, digest="d")


@asynccontextmanager
async def weir(*checks: Check, **changes: Any) -> AsyncIterator[tuple[Running, openai.AsyncOpenAI]]:
    tiers = (
        Tier(name="first", backend=UPSTREAM, accept=checks),
        Tier(name="second", backend=UPSTREAM),
    )
    fields: dict[str, Any] = {"deadline_ms": 60_000, "max_attempts": 4, "tiers": tiers}
    async with (
        running(plain(Behaviour(**(fields | changes)))) as one,
        openai.AsyncOpenAI(base_url=one.url, api_key="none", max_retries=0) as api,
    ):
        yield one, api


def ask(**more: Any) -> dict[str, Any]:
    return {"model": "assistant", "messages": QUESTION, "temperature": 0, "max_tokens": 24} | more


def run(scene: Any) -> None:
    asyncio.run(scene())


def test_chat_answers_what_the_numpy_server_answers() -> None:
    async def scene() -> None:
        async with weir(Check(name="whole", type="Finish")) as (_, api):
            raw = await api.chat.completions.with_raw_response.create(**ask())
        reply = raw.parse()

        assert json.loads(reply.choices[0].message.content) == {"intent": "card_arrival"}
        assert raw.headers["x-weir-tier"] == "first"
        assert float(raw.headers["x-weir-cost"]) > 0

    run(scene)


def test_completions_answer() -> None:
    async def scene() -> None:
        async with weir() as (_, api):
            reply = await api.completions.create(
                model="assistant", prompt="where is my card", max_tokens=8, temperature=0
            )

        assert reply.choices[0].finish_reason in ("stop", "length")
        assert reply.usage is not None
        assert reply.usage.prompt_tokens > 0

    run(scene)


@pytest.mark.parametrize(
    ("calibration", "tier"),
    [pytest.param(ALWAYS_SURE, "first", id="sure"), pytest.param(NEVER_SURE, "second", id="not")],
)
def test_logprobs_steer_and_are_stripped(calibration: Calibration, tier: str) -> None:
    async def scene() -> None:
        sure = Check(name="sure", type="Confidence", min_probability=0.5, calibration=calibration)
        async with weir(sure) as (_, api):
            raw = await api.chat.completions.with_raw_response.create(**ask())

        assert raw.headers["x-weir-tier"] == tier
        assert raw.parse().choices[0].logprobs is None

    run(scene)


def test_logprobs_that_the_client_asked_for_come_through() -> None:
    async def scene() -> None:
        async with weir() as (_, api):
            reply = await api.chat.completions.create(**ask(logprobs=True, top_logprobs=2))
        logprobs = reply.choices[0].logprobs

        assert logprobs is not None
        assert logprobs.content is not None
        assert len(logprobs.content[0].top_logprobs) == 2

    run(scene)


@pytest.mark.parametrize("kind", ["chat", "completion"])
@pytest.mark.parametrize("checked", [False, True], ids=["relayed", "verified first"])
def test_streams_spell_the_answer(kind: str, checked: bool) -> None:
    async def scene() -> None:
        checks = (Check(name="whole", type="Finish"),) if checked else ()
        async with weir(*checks) as (_, api):
            if kind == "chat":
                events = await api.chat.completions.create(**ask(stream=True))
                parts = [choice.delta.content async for e in events for choice in e.choices]
            else:
                stream = await api.completions.create(
                    model="assistant", prompt="card", max_tokens=16, temperature=0, stream=True
                )
                parts = [choice.text async for event in stream for choice in event.choices]

        assert "".join(part or "" for part in parts)

    run(scene)


def test_a_stream_gives_usage_when_asked() -> None:
    async def scene() -> None:
        async with weir() as (_, api):
            events = await api.chat.completions.create(
                **ask(stream=True, stream_options={"include_usage": True})
            )
            last = [event async for event in events][-1]

        assert last.usage is not None
        assert last.usage.completion_tokens > 0

    run(scene)


def test_guided_json_is_obeyed_and_passes_the_schema_check() -> None:
    schema = {
        "type": "object",
        "properties": {"intent": {"type": "string", "maxLength": 40}},
        "required": ["intent"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}

    async def scene() -> None:
        async with weir(Check(name="format", type="Schema")) as (_, api):
            raw = await api.chat.completions.with_raw_response.create(
                **ask(response_format=wanted, max_tokens=64)
            )

        assert set(json.loads(raw.parse().choices[0].message.content or "")) == {"intent"}
        assert raw.headers["x-weir-tier"] == "first"

    run(scene)


def test_a_cut_off_answer_escalates() -> None:
    async def scene() -> None:
        async with weir(Check(name="whole", type="Finish")) as (_, api):
            raw = await api.chat.completions.with_raw_response.create(**ask(max_tokens=3))

        assert raw.headers["x-weir-reason"] == "escalated:whole"

    run(scene)


def test_what_vllm_refuses_is_the_clients_bad_request() -> None:
    """A prompt beyond the context window: vLLM's own 400, in its own words."""
    long = [{"role": "user", "content": "card " * 2_000}]

    async def scene() -> None:
        async with weir() as (_, api):
            with pytest.raises(openai.BadRequestError):
                await api.chat.completions.create(**ask(messages=long))

    run(scene)


def test_a_client_that_leaves_stops_the_generation() -> None:
    async def scene() -> None:
        async with weir() as (_, api):
            stream = await api.chat.completions.create(
                **ask(stream=True, max_tokens=200, extra_body={"ignore_eos": True})
            )
            await anext(aiter(stream))
            await stream.close()
            for _ in range(200):
                if _running() == 0:
                    return
                await asyncio.sleep(0.05)
        raise AssertionError("vLLM still generates")

    run(scene)


def _running() -> float:
    with urllib.request.urlopen(f"{URL}/metrics", timeout=5) as reply:
        text = reply.read().decode()
    rows = [line for line in text.splitlines() if line.startswith("vllm:num_requests_running")]
    return sum(float(row.rsplit(" ", 1)[1]) for row in rows)


def test_health_models_and_metrics_are_where_probes_look() -> None:
    with urllib.request.urlopen(f"{URL}/health", timeout=5) as reply:
        assert reply.status == 200
    with urllib.request.urlopen(f"{URL}/v1/models", timeout=5) as reply:
        assert [one["id"] for one in json.load(reply)["data"]] == ["large"]
    assert _running() >= 0
