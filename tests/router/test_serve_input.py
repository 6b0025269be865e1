"""What no request may do to the router: a 500, a trace in the log, harm to other callers."""

import json
import logging
from typing import Any

import pytest

from support.http_wire import Got, Wire, post, run
from support.running import Running, plain, running, two_tiers, two_upstreams
from support.upstream import Script, completion, whole
from weir_core.snapshot import Behaviour, Check, Monitoring, Rule
from weir_router.cycle import Exchange
from weir_router.plan import MAX_SESSION, Given, given, session_name

CHAT = "/v1/chat/completions"
BODY = b'{"model":"assistant","messages":[{"role":"user","content":"x"%b}]%b}'
DEEP = b"[" * 50_000 + b"]" * 50_000
SCHEMA = Check(name="shape", type="Schema")


def says(text: str) -> Any:
    return lambda request: whole(completion(text))


async def send(weir: Running, path: str, body: bytes, *headers: str) -> Got:
    wire = await Wire.to(weir.port)
    await wire.send(post(path, body, *headers))
    got = await wire.answer()
    await wire.close()
    return got


def prompted(behaviour: Behaviour) -> Behaviour:
    small, large = behaviour.tiers
    fields = {name: getattr(small, name) for name in small.__struct_fields__}
    tiers = (type(small)(**(fields | {"system_prompt": "Be brief."})), large)
    return type(behaviour)(
        deadline_ms=behaviour.deadline_ms, max_attempts=behaviour.max_attempts, tiers=tiers
    )


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(BODY % (b"", b',"x":' + DEEP), id="nested beside"),
        pytest.param(BODY % (b',"x":' + DEEP, b""), id="nested in a message"),
        pytest.param(DEEP, id="nested alone"),
        pytest.param(
            BODY % (b"", b',"max_tokens":1' + b"0" * 5_000), id="a number of 5,000 digits"
        ),
        pytest.param(
            BODY
            % (
                b"",
                b',"response_format":{"type":"json_schema","json_schema":'
                b'{"name":"s","schema":{"$ref":"http://127.0.0.1:9/x"}}}',
            ),
            id="a schema elsewhere",
        ),
    ],
)
def test_a_body_of_nonsense_is_a_400(body: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async def scene() -> None:
        async with two_upstreams(says("s"), says("l")) as (small, large):
            async with running(plain(two_tiers(small, large))) as weir:
                got = await send(weir, CHAT, body)

                assert got.status == 400
                assert json.loads(got.body)["error"]["type"] == "invalid_request_error"

    with caplog.at_level(logging.INFO):
        run(scene())
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


@pytest.mark.parametrize(
    "more",
    [pytest.param(b',"x":1e999', id="no size"), pytest.param(b',"x":' + b"9" * 400, id="big")],
)
def test_what_weir_does_not_read_of_a_message_goes_on_as_it_came(more: bytes) -> None:
    """Also where a tier's own prompt is put before the messages."""

    async def scene() -> None:
        async with two_upstreams(says("s"), says("l")) as (small, large):
            async with running(plain(prompted(two_tiers(small, large)))) as weir:
                got = await send(weir, CHAT, BODY % (more, b""))

                assert got.status == 200
                assert small.asked[0]["messages"][0]["content"] == "Be brief."
                assert small.asked[0]["messages"][1]["content"] == "x"

    run(scene())


def test_a_number_that_no_machine_word_holds_meets_the_rules() -> None:
    async def scene() -> None:
        rule = Rule(name="long", when="max_tokens > 1000", start=1, end=1)
        async with two_upstreams(says("s"), says("l")) as (small, large):
            async with running(plain(two_tiers(small, large, rules=(rule,)))) as weir:
                got = await send(weir, CHAT, BODY % (b"", b',"max_tokens":1' + b"0" * 30))

                assert got.status == 200

    run(scene())


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("[" * 50_000 + "]" * 50_000, id="nested"),
        pytest.param("[" * 300 + "1" + "]" * 300, id="nested less"),
        pytest.param("1e999", id="a number of no size"),
    ],
)
def test_an_answer_nested_or_numbered_without_end_is_not_accepted(text: str) -> None:
    shape = b',"response_format":{"type":"json_schema","json_schema":{"name":"s","schema":%b}}'

    async def scene() -> None:
        async with two_upstreams(says(text), says("{}")) as (small, large):
            async with running(plain(two_tiers(small, large, accept=(SCHEMA,)))) as weir:
                got = await send(weir, CHAT, BODY % (b"", shape % b'{"type":"object"}'))

                assert json.loads(got.body)["choices"][0]["message"]["content"] == "{}"

    run(scene())


@pytest.mark.parametrize(
    "script",
    [
        pytest.param({"choices": None}, id="null choices"),
        pytest.param({"choices": [{}]}, id="an empty choice"),
        pytest.param({"choices": [{"message": None}]}, id="no message"),
        pytest.param(completion("s") | {"usage": {"prompt_tokens": -5}}, id="a negative usage"),
        pytest.param(completion("s") | {"usage": {"prompt_tokens": 10**400}}, id="a vast usage"),
        pytest.param(b'{"choices":' + DEEP + b"}", id="nested"),
    ],
)
def test_an_answer_that_is_none_is_a_failed_attempt(script: Any) -> None:
    async def scene() -> None:
        nonsense: Script = whole(script)
        async with two_upstreams(lambda request: nonsense, says("large")) as (small, large):
            async with running(plain(two_tiers(small, large, accept=(SCHEMA,)))) as weir:
                got = await send(weir, CHAT, BODY % (b"", b""))

                assert got.headers["x-weir-reason"] == "failed:ServerError"
                assert b"large" in got.body

    run(scene())


@pytest.mark.parametrize(
    ("body", "status"),
    [
        pytest.param(b"{", 400, id="half a JSON"),
        pytest.param(b"\xff", 400, id="no UTF-8"),
        pytest.param(b"[" * 5_000, 400, id="nested"),
        pytest.param(b"", 400, id="nothing"),
        pytest.param(b"[]", 400, id="a list"),
        pytest.param(b'{"id":5,"harm":true}', 400, id="a number"),
        pytest.param(b'{"id":"x","harm":1}', 400, id="no boolean"),
        pytest.param(b'{"id":"x","harm":true,"y":1}', 400, id="a field too many"),
        pytest.param(b'{"id":"\\ud800","harm":true}', 404, id="half a character"),
        pytest.param(b'{"id":"%b","harm":true}' % (b"z" * 9_999), 404, id="a long name"),
    ],
)
def test_feedback_that_is_none_is_told_in_the_same_words(body: bytes, status: int) -> None:
    async def scene() -> None:
        async with two_upstreams(says("s"), says("l")) as (small, large):
            async with running(plain(two_tiers(small, large))) as weir:
                kind = "content-type: application/json"
                got = await send(weir, "/v1/feedback", body, kind)

                assert got.status == status
                assert json.loads(got.body)["error"]["type"] == "invalid_request_error"
                assert len(got.body) < 1_000

    run(scene())


def test_replies_have_names_that_nobody_can_guess() -> None:
    async def scene() -> None:
        async with two_upstreams(says("s"), says("l")) as (small, large):
            async with running(plain(two_tiers(small, large))) as weir:
                got = [await send(weir, CHAT, BODY % (b"", b"")) for _ in range(3)]
                ends = {one.headers["x-request-id"].split("-")[-1] for one in got}

                assert len(ends) == 3
                assert all(len(end) >= 12 for end in ends)

    run(scene())


def test_a_long_session_name_is_kept_short_and_apart() -> None:
    one, other = session_name(b"a" * 60_000), session_name(b"a" * 59_999)

    assert len(one) <= MAX_SESSION
    assert one != other
    assert session_name(b"mine") == "mine"


def test_a_trace_that_upstreams_would_refuse_stays_here() -> None:
    async def scene() -> None:
        async with two_upstreams(says("s"), says("l")) as (small, large):
            async with running(plain(two_tiers(small, large))) as weir:
                await send(weir, CHAT, BODY % (b"", b""), "traceparent: 00-ab-cd-01")
                await send(weir, CHAT, BODY % (b"", b""), "traceparent: " + "0" * 20_000)

                assert [one.get("traceparent") for one in small.headers] == ["00-ab-cd-01", None]

    run(scene())


def test_an_empty_declaration_is_none() -> None:
    assert given([(b"x-weir-risk", b" "), (b"x-weir-task", b"chat")]) == Given(task="chat")


def test_a_client_that_left_before_its_turn_is_not_served() -> None:
    async def scene() -> None:
        async with two_upstreams(says("s"), says("l")) as (small, large):
            async with running(plain(two_tiers(small, large))) as weir:
                door: Any = None
                chat = weir.router.chat
                left = Exchange(door, chat, b"POST", CHAT.encode(), b"", [], "", True, False)
                left.body = BODY % (b"", b"")
                left.lose()
                await chat(left)

                assert small.asked == []

    run(scene())


def test_no_answer_is_ever_counted_as_less_than_nothing() -> None:
    """A negative usage neither gives budget back nor turns a counter round."""

    async def scene() -> None:
        owed = completion("s") | {"usage": {"prompt_tokens": 1, "completion_tokens": -(10**9)}}
        async with two_upstreams(lambda request: whole(owed), says("l")) as (small, large):
            monitoring = Monitoring(monitors=(SCHEMA,))
            tiers = two_tiers(small, large)
            async with running(plain(tiers, monitoring=monitoring)) as weir:
                got = await send(weir, CHAT, BODY % (b"", b""))

                assert not got.headers["x-weir-cost"].startswith("-")

    run(scene())
