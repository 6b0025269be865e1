"""`streaming.commit: Prefix` before two real language models, each in a process of its own."""

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from support.running import plain, running
from weir_core.snapshot import Backend, Behaviour, Calibration, Check, Tier
from weir_lab import questions
from weir_router.upstreams import Upstreams

QUESTIONS = questions.load()[:40]
PREFIX = 6
"""Of answers that have 8 to 12 tokens."""
LEAST = -0.94
"""Logprob: about half of the questions have a token less likely than that early on."""
SURE = Check(
    name="sure",
    type="Confidence",
    min_probability=0.5,
    calibration=Calibration(
        method="Logprob", features=(("min", 1.0),), intercept=-LEAST, digest="d"
    ),
)


@contextlib.contextmanager
def model_server(name: str) -> Iterator[str]:
    command = [sys.executable, "-m", "weir_lab.modelserver", "--model", name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split()[-1]
        finally:
            process.terminate()
            process.wait(10)


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, str]]:
    with model_server("small") as small, model_server("large") as large:
        yield {"small": small, "large": large}


def behaviour(servers: dict[str, str], accept: tuple[Check, ...] = (SURE,)) -> Behaviour:
    small, large = (
        Backend(name=name, identity=name, url=url, model=name) for name, url in servers.items()
    )
    return Behaviour(
        deadline_ms=20_000,
        max_attempts=2,
        tiers=(
            Tier(name="small", backend=small, accept=accept),
            Tier(name="large", backend=large),
        ),
        commit="Prefix",
        prefix_tokens=PREFIX,
    )


async def alone(url: str, name: str, number: int, **more: Any) -> Any:
    """Return what one model says to a question, asked without a router."""
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as api:
        body = QUESTIONS[number].body(name, **more)
        return (await api.chat.completions.create(**body)).choices[0]


async def streamed(api: openai.AsyncOpenAI, number: int) -> tuple[str, Any, list[Any]]:
    body = QUESTIONS[number].body("assistant")
    raw = await api.chat.completions.with_raw_response.create(**body, stream=True)
    events = [event async for event in raw.parse()]
    parts = [choice.delta.content or "" for event in events for choice in event.choices]
    return "".join(parts), raw.headers, events


def test_each_stream_is_one_models_answer_and_the_prefix_decides_whose(
    servers: dict[str, str],
) -> None:
    async def scene() -> None:
        tiers = []
        async with running(plain(behaviour(servers))) as weir:
            async with openai.AsyncOpenAI(base_url=weir.url, api_key="none", max_retries=0) as api:
                for number in range(len(QUESTIONS)):
                    text, headers, events = await streamed(api, number)
                    tier = headers["x-weir-tier"]
                    tiers.append(tier)
                    said = await alone(servers[tier], tier, number)
                    tokens = await alone(servers["small"], "small", number, logprobs=True)
                    held = tokens.logprobs.content[:PREFIX]

                    assert text == said.message.content
                    assert (min(one.logprob for one in held) >= LEAST) == (tier == "small")
                    assert all(
                        choice.logprobs is None for event in events for choice in event.choices
                    )
                    assert all(event.usage is None for event in events)
            assert weir.router.load.in_flight == 0
        assert 5 <= tiers.count("small") <= 35

    asyncio.run(scene())


def test_a_refused_prefix_holds_no_place_at_its_model(servers: dict[str, str]) -> None:
    """Each call that was cut off is closed, and each stream is the large model alone."""
    never = Check(name="never", type="Pattern", must_match="no answer says this")

    async def scene() -> None:
        async with running(plain(behaviour(servers, (never,)))) as weir:
            async with openai.AsyncOpenAI(base_url=weir.url, api_key="none", max_retries=0) as api:
                texts = await asyncio.gather(*(streamed(api, n) for n in range(20)))
            for number, (text, headers, _) in enumerate(texts):
                said = await alone(servers["large"], "large", number)
                assert headers["x-weir-reason"] == "escalated:never"
                assert text == said.message.content
            upstreams: Upstreams = weir.router._upstreams
            pools = [upstreams.get(tier.backend).pool for tier in behaviour(servers).tiers]
            assert [pool.in_flight for pool in pools] == [0, 0]

    asyncio.run(scene())
