"""Streams whose first tokens are judged before any goes out (`streaming.commit: Prefix`)."""

import asyncio
import json
from typing import Any

import pytest

from support.http_wire import Wire, post, run, until
from support.running import Running, plain, running, two_tiers, two_upstreams
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
)
from weir_core.snapshot import Calibration, Check, Monitoring
from weir_router.upstreams import EJECT_AFTER

CHAT = "/v1/chat/completions"
WHOLE = Check(name="whole", type="Finish")
CALM = Check(name="calm", type="Pattern", must_not_match="panic")
POLITE = Check(name="polite", type="Pattern", must_match="please")
SURE = Check(
    name="sure",
    type="Confidence",
    min_probability=0.5,
    calibration=Calibration(method="Logprob", features=(("min", 1.0),), intercept=1.0, digest="d"),
)
WORDS = ("one ", "two ", "three ", "four ", "five ")


def framed(*events: bytes) -> list[bytes]:
    return [b"%x\r\n%b\r\n" % (len(event), event) for event in events]


def told(*words: str, finish: str = "stop", **more: Any) -> list[bytes]:
    """Return the events of a whole stream of these words."""
    return [*(chunk(word, **more) for word in words), chunk(None, finish=finish), USAGE, DONE]


def large(request: dict[str, Any]) -> Script:
    return chunked(*told("large")) if request.get("stream") else whole(completion("large"))


def logprobs(value: float) -> dict[str, Any]:
    return {"logprobs": {"content": [{"token": "t", "logprob": value, "top_logprobs": []}]}}


async def ask(weir: Running, **more: Any) -> Wire:
    wire = await Wire.to(weir.port)
    messages = [{"role": "user", "content": "hello"}]
    body = {"model": "assistant", "messages": messages, "stream": True, **more}
    await wire.send(post(CHAT, json.dumps(body).encode()))
    return wire


async def reply(weir: Running, **more: Any) -> tuple[str, dict[str, str], list[Any]]:
    """Return text, headers and events of a stream that ends well."""
    wire = await ask(weir, **more)
    got = await wire.answer()
    await wire.close()
    assert got.status == 200, got.body
    data = [event.removeprefix(b"data: ") for event in got.body.split(b"\n\n") if event]
    assert data[-1] == b"[DONE]", got.body
    events = [json.loads(event) for event in data[:-1]]
    parts = [part["delta"].get("content") or "" for event in events for part in event["choices"]]
    return "".join(parts), got.headers, events


def scene(
    small: Any, body: Any, *, accept: tuple[Check, ...] = (WHOLE,), tokens: int = 3, **changes: Any
) -> None:
    """Run `body(weir, small, large)` where the small tier's streams are held for some tokens."""

    async def main() -> None:
        script = small if callable(small) else lambda request: small
        async with two_upstreams(script, large) as (one, two):
            monitoring = changes.pop("monitoring", Monitoring())
            tiers = two_tiers(
                one, two, accept=accept, commit="Prefix", prefix_tokens=tokens, **changes
            )
            async with running(plain(tiers, monitoring=monitoring)) as weir:
                await body(weir, one, two)

    run(main())


def test_an_accepted_prefix_goes_out_while_the_rest_is_still_to_come() -> None:
    go = asyncio.Event()
    rest = framed(*told(*WORDS[3:]))
    small: Script = [STREAM_HEAD, *framed(*map(chunk, WORDS[:3])), go, *rest, b"0\r\n\r\n"]

    async def body(weir: Running, one: Any, two: Any) -> None:
        wire = await ask(weir)
        status, headers = await wire.head()
        chunks = wire.chunks()
        first = b""
        while first.count(b"data:") < 3:
            first += await anext(chunks)
        assert (status, headers["x-weir-tier"]) == (200, "small")
        assert b"three " in first
        assert not go.is_set()
        go.set()
        later = b"".join([part async for part in chunks])
        await wire.close()

        assert first + later == b"".join([*map(chunk, WORDS), chunk(None, finish="stop"), DONE])
        assert two.asked == []

    scene(small, body)


def test_a_refused_prefix_escalates_and_nothing_of_it_was_sent() -> None:
    stuck = asyncio.Event()
    small: Script = [STREAM_HEAD, *framed(chunk("do "), chunk("not "), chunk("panic")), stuck]

    async def body(weir: Running, one: Any, two: Any) -> None:
        text, headers, _ = await reply(weir)

        assert text == "large"
        assert headers["x-weir-reason"] == "escalated:calm"
        assert headers["x-weir-attempts"] == "2"
        await until(lambda: one.disconnects == 1)
        ends = {
            labels[1:]: n for labels, n in weir.router.metrics.counters["weir_attempts"].items()
        }
        assert ends == {("small", "cut"): 1, ("large", "answered"): 1}
        assert weir.router.load.escalating == {"stable": 0, "canary": 0}

    scene(small, body, accept=(CALM,))


def test_nothing_goes_out_before_there_are_enough_tokens() -> None:
    go = asyncio.Event()
    begun: Script = [STREAM_HEAD, *framed(chunk("one "), chunk("two ")), go]
    small: Script = [*begun, *framed(*told("panic")), b"0\r\n\r\n"]

    async def body(weir: Running, one: Any, two: Any) -> None:
        wire = await ask(weir)
        await until(lambda: one.in_flight == 1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(wire.reader.read(1)), 0.2)
        await wire.close()
        await until(lambda: weir.router.load.in_flight == 0)

    scene(small, body, accept=(CALM,))


@pytest.mark.parametrize(
    ("events", "tier"),
    [
        pytest.param(told("short"), "small", id="accepted"),
        pytest.param(told("short", finish="length"), "large", id="cut off"),
        pytest.param(told(), "large", id="empty"),
    ],
)
def test_an_answer_shorter_than_the_prefix_is_judged_as_a_whole(
    events: list[bytes], tier: str
) -> None:
    async def body(weir: Running, one: Any, two: Any) -> None:
        text, headers, _ = await reply(weir)

        assert headers["x-weir-tier"] == tier
        assert text == ("short" if tier == "small" else "large")

    scene(chunked(*events), body, tokens=32)


@pytest.mark.parametrize(
    ("words", "check", "tier"),
    [
        pytest.param(("I'm sorry, ", "I can't ", "help "), WHOLE, "large", id="a refusal"),
        pytest.param((" ", "\n", " "), WHOLE, "large", id="whitespace"),
        pytest.param(("do ", "please ", "come "), POLITE, "small", id="matches within"),
        pytest.param(("do ", "come ", "in "), POLITE, "large", id="may match later"),
        pytest.param(("do ", "come ", "in "), CALM, "small", id="does not match so far"),
    ],
)
def test_what_a_prefix_shows(words: tuple[str, ...], check: Check, tier: str) -> None:
    async def body(weir: Running, one: Any, two: Any) -> None:
        text, headers, _ = await reply(weir)

        assert headers["x-weir-tier"] == tier
        assert text == ("".join(words) + "please" if tier == "small" else "large")

    scene(chunked(*told(*words, "please")), body, accept=(check,))


def test_a_schema_is_never_met_by_a_prefix() -> None:
    """The API refuses it; a snapshot that says so all the same escalates."""

    async def body(weir: Running, one: Any, two: Any) -> None:
        assert (await reply(weir))[0] == "large"

    scene(chunked(*told(*WORDS)), body, accept=(Check(name="shape", type="Schema"),))


@pytest.mark.parametrize(("value", "tier"), [(-0.1, "small"), (-3.0, "large")])
def test_confidence_is_of_the_prefixs_logprobs(value: float, tier: str) -> None:
    """What comes after the prefix may be as unsure as it likes."""
    held = [chunk(word, **logprobs(value)) for word in WORDS[:3]]
    later = [chunk(word, **logprobs(-9.0)) for word in WORDS[3:]]
    small = chunked(*held, *later, chunk(None, finish="stop"), USAGE, DONE)

    async def body(weir: Running, one: Any, two: Any) -> None:
        text, headers, events = await reply(weir)

        assert headers["x-weir-tier"] == tier
        assert one.asked[0]["logprobs"] is True
        assert text == ("".join(WORDS) if tier == "small" else "large")
        parts = [part for event in events for part in event["choices"]]
        assert all(part.get("logprobs") is None for part in parts)

    scene(small, body, accept=(SURE,))


def test_logprobs_that_the_client_asked_for_stay() -> None:
    small = chunked(*told(*WORDS, **logprobs(-0.1)))

    async def body(weir: Running, one: Any, two: Any) -> None:
        _, _, events = await reply(weir, logprobs=True)

        assert [bool(event["choices"][0].get("logprobs")) for event in events] == [True] * 5 + [
            False
        ]

    scene(small, body, accept=(SURE,))


@pytest.mark.parametrize("pieces", [1, 7, 100_000], ids=["bytes", "sevens", "at once"])
def test_a_prefix_is_the_same_however_the_stream_arrives(pieces: int) -> None:
    """Panic is the fourth word, and three are judged."""
    events = b"".join(told("one ", "two ", "three ", "panic"))
    parts = [events[at : at + pieces] for at in range(0, len(events), pieces)]

    async def body(weir: Running, one: Any, two: Any) -> None:
        text, headers, _ = await reply(weir)

        assert text == "one two three panic"
        assert headers["x-weir-tier"] == "small"

    scene([STREAM_HEAD, *framed(*parts), b"0\r\n\r\n"], body, accept=(CALM,))


def test_several_tokens_in_one_event_are_several_tokens() -> None:
    three = {"logprobs": {"content": [{"token": "t", "logprob": -0.1, "top_logprobs": []}] * 3}}
    stuck = asyncio.Event()
    small: Script = [STREAM_HEAD, *framed(chunk("one two three", **three)), stuck]

    async def body(weir: Running, one: Any, two: Any) -> None:
        wire = await ask(weir)
        status, _ = await wire.head()

        assert status == 200
        await wire.close()
        await until(lambda: weir.router.load.in_flight == 0)

    scene(small, body, accept=(SURE,))


@pytest.mark.parametrize(("second", "tier"), [("calm ", "small"), ("panic ", "large")])
def test_every_choice_is_judged(second: str, tier: str) -> None:
    """The second choice comes after the first is long enough."""
    more = [chunk(second, index=1) for _ in range(3)]
    ends = [chunk(None, finish="stop", index=index) for index in (0, 1)]
    small = chunked(*map(chunk, WORDS), *more, *ends, DONE)

    async def body(weir: Running, one: Any, two: Any) -> None:
        _, headers, _ = await reply(weir, n=2)

        assert headers["x-weir-tier"] == tier

    scene(small, body, accept=(CALM,))


@pytest.mark.parametrize(
    "rest",
    [
        pytest.param([CLOSE], id="cut"),
        pytest.param([b"0\r\n\r\n"], id="ended without its end"),
        pytest.param(framed(b'data: {"error":{"message":"no"}}\n\n'), id="an error"),
        pytest.param([5.0], id="silent"),
    ],
)
def test_a_stream_that_breaks_while_it_is_held_goes_on_elsewhere(rest: Script) -> None:
    small: Script = [STREAM_HEAD, *framed(chunk("one ")), *rest]

    async def body(weir: Running, one: Any, two: Any) -> None:
        text, headers, _ = await reply(weir)

        assert text == "large"
        assert headers["x-weir-reason"].startswith("failed:")

    async def main() -> None:
        async with two_upstreams(lambda request: small, large) as (one, two):
            tiers = two_tiers(one, two, accept=(WHOLE,), commit="Prefix", prefix_tokens=3)
            first, last = tiers.tiers
            fields = {name: getattr(first, name) for name in first.__struct_fields__}
            hasty = type(first)(**(fields | {"timeout_ms": 300}))
            names = {name: getattr(tiers, name) for name in tiers.__struct_fields__}
            async with running(plain(type(tiers)(**(names | {"tiers": (hasty, last)})))) as weir:
                await body(weir, one, two)

    run(main())


def test_the_refused_stream_is_served_where_the_route_wants_the_last_answer() -> None:
    """One attempt only: nobody else can be asked."""

    async def body(weir: Running, one: Any, two: Any) -> None:
        text, headers, _ = await reply(weir)

        assert text == "do not panic now"
        assert headers["x-weir-reason"] == "escalated:calm"
        assert two.asked == []

    small = chunked(*told("do ", "not ", "panic ", "now"))
    scene(small, body, accept=(CALM,), on_exhausted="ReturnLast", max_attempts=1)


def test_a_refused_prefix_ejects_no_backend() -> None:
    """It answered, only not well enough."""
    small = chunked(*told("panic ", "and ", "panic ", "again"))

    async def body(weir: Running, one: Any, two: Any) -> None:
        for _ in range(EJECT_AFTER + 2):
            assert (await reply(weir))[0] == "large"

        assert len(one.asked) == EJECT_AFTER + 2

    scene(small, body, accept=(CALM,))


def test_monitors_see_the_whole_stream() -> None:
    """Also what came after the commit."""
    small = chunked(*told("a ", "calm ", "start ", "then ", "panic"))
    watch = Monitoring(monitors=(CALM,))

    async def body(weir: Running, one: Any, two: Any) -> None:
        text, _, _ = await reply(weir)

        assert text == "a calm start then panic"
        assert list(weir.router.metrics.counters["weir_monitor_failures"].values()) == [1]

    scene(small, body, monitoring=watch)


def test_usage_that_nobody_asked_for_stays_out_on_both_sides_of_the_commit() -> None:
    def nulls(event: bytes) -> bytes:
        return event.replace(b"}\n\n", b', "usage": null}\n\n') if b"choices" in event else event

    events = [nulls(chunk(word)) for word in WORDS]

    async def body(weir: Running, one: Any, two: Any) -> None:
        text, _, told_events = await reply(weir)

        assert text == "".join(WORDS)
        assert not any("usage" in event for event in told_events)

    scene(chunked(*events, chunk(None, finish="stop"), USAGE, DONE), body)


def test_whole_answers_are_judged_as_wholes() -> None:
    cut = whole(completion("cut", finish="length"))

    async def body(weir: Running, one: Any, two: Any) -> None:
        wire = await ask(weir, stream=False)
        got = await wire.answer()
        await wire.close()

        assert json.loads(got.body)["choices"][0]["message"]["content"] == "large"

    scene(cut, body)
