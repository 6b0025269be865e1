"""Upstream answers read whole or from their streams, and what the client gets of them."""

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.upstream import DONE, USAGE, chunk, completion, with_logprobs
from weir_router import answer
from weir_router.answer import FunctionCall, Usage
from weir_router.relay import MAX_EVENT_BYTES, Relay


def raw(reply: dict[str, Any]) -> bytes:
    return json.dumps(reply).encode()


def stream(*events: bytes) -> bytes:
    return b"".join(events)


def test_a_whole_answer_is_read() -> None:
    found = answer.read("chat", raw(completion("hello")), logprobs=False)

    assert found is not None
    assert found.choices[0].text == "hello"
    assert found.choices[0].finish == "stop"
    assert found.usage == Usage(7, 3)


def test_logprobs_and_margins_are_read_when_wanted() -> None:
    reply = with_logprobs(completion("hi"), [-0.5])
    tops = [{"token": "a", "logprob": -0.5}, {"token": "b", "logprob": -2.5}]
    reply["choices"][0]["logprobs"]["content"][0]["top_logprobs"] = tops
    found = answer.read("chat", raw(reply), logprobs=True)

    assert found is not None
    assert (found.choices[0].logprobs, found.choices[0].margins) == ((-0.5,), (2.0,))


def test_a_completion_has_logprobs_of_its_own_shape() -> None:
    logprobs = {"token_logprobs": [None, -1.0], "top_logprobs": [None, {"a": -1.0, "b": -4.0}]}
    reply = {"choices": [{"text": "hi", "finish_reason": "stop", "logprobs": logprobs}]}
    found = answer.read("completion", raw(reply), logprobs=True)

    assert found is not None
    assert (found.choices[0].text, found.choices[0].logprobs) == ("hi", (-1.0,))
    assert found.choices[0].margins == (3.0,)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'{"choices": []}', b'{"choices": 7}', b'{"error": {}}', b"\xff\xfe"],
)
def test_what_is_no_completion_is_none(body: bytes) -> None:
    assert answer.read("chat", body, logprobs=False) is None


@given(st.binary(max_size=80))
def test_no_bytes_make_reading_raise(body: bytes) -> None:
    answer.read("chat", body, logprobs=True)
    answer.read_stream("chat", b"data: " + body + b"\n\n", logprobs=True)


def test_a_stream_is_put_together() -> None:
    events = stream(chunk("he"), chunk("llo"), chunk(None, finish="stop"), USAGE, DONE)
    found = answer.read_stream("chat", events, logprobs=False)

    assert found is not None
    assert (found.choices[0].text, found.choices[0].finish) == ("hello", "stop")
    assert found.usage == Usage(7, 3)


def test_streamed_tool_calls_are_put_together_by_their_index() -> None:
    def part(index: int, **function: str) -> bytes:
        delta = {"tool_calls": [{"index": index, "function": function}]}
        return b"data: " + raw({"choices": [{"index": 0, "delta": delta}]}) + b"\n\n"

    events = stream(
        part(0, name="refund", arguments='{"a":'), part(1, name="close"), part(0, arguments=" 1}")
    )
    found = answer.read_stream("chat", events, logprobs=False)

    assert found is not None
    assert found.choices[0].tool_calls == (
        FunctionCall("refund", '{"a": 1}'),
        FunctionCall("close", ""),
    )


def test_stripping_logprobs_leaves_the_rest() -> None:
    reply = with_logprobs(completion("hi"), [-0.5]) | {"odd": {"kept": 1.50}}
    stripped = json.loads(answer.without_logprobs(raw(reply)))

    assert stripped["choices"][0]["logprobs"] is None
    assert stripped["odd"] == {"kept": 1.5}


def test_a_buffered_stream_goes_out_as_the_client_asked() -> None:
    noisy = chunk("hi", logprobs={"content": []})
    out = answer.stream_for_client(
        stream(noisy, USAGE, DONE), strip_logprobs=True, strip_usage=True
    )

    assert b'"logprobs":null' in out
    assert b"usage" not in out
    assert out.endswith(DONE)


def test_a_buffered_stream_tells_no_usage_of_null_unasked() -> None:
    told = json.dumps({**json.loads(chunk("hi")[5:]), "usage": None}).encode()
    sent = stream(b"data: " + told + b"\n\n", USAGE, DONE)

    asked = answer.stream_for_client(sent, strip_logprobs=False, strip_usage=False)
    unasked = answer.stream_for_client(sent, strip_logprobs=False, strip_usage=True)
    assert asked == sent
    assert unasked == chunk("hi") + DONE


# The relay.


def relayed(*chunks: bytes, strip_usage: bool = True, keep: bool = False) -> tuple[Relay, bytes]:
    relay = Relay(strip_usage=strip_usage, keep=keep)
    return relay, b"".join(relay.feed(one) for one in chunks)


EVENTS = stream(chunk("he"), chunk("llo"), chunk(None, finish="stop"), DONE)


@given(st.lists(st.integers(0, len(EVENTS)), max_size=8))
def test_a_stream_passes_as_it_came_however_it_is_cut(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(EVENTS)]
    parts = [EVENTS[a:b] for a, b in itertools.pairwise(edges)]
    relay, out = relayed(*parts)

    assert out == EVENTS
    assert relay.done


def test_usage_that_weir_asked_for_is_read_and_left_out() -> None:
    relay, out = relayed(stream(chunk("hi"), USAGE, DONE))

    assert out == stream(chunk("hi"), DONE)
    assert relay.usage == Usage(7, 3)


def test_usage_that_the_client_asked_for_stays() -> None:
    _, out = relayed(stream(chunk("hi"), USAGE, DONE), strip_usage=False)

    assert USAGE in out


def test_comments_do_not_start_a_stream() -> None:
    relay, out = relayed(b": waiting\n\n")

    assert not relay.started
    assert out == b": waiting\n\n"


@pytest.mark.parametrize(
    "events",
    [
        pytest.param(stream(chunk("hi"), b'data: {"error": {"message": "x"}}\n\n'), id="an error"),
        pytest.param(stream(chunk("hi"), b'data: {"usage"\n\n'), id="half a JSON"),
        pytest.param(b"data: " + b"x" * (MAX_EVENT_BYTES + 1), id="an endless event"),
    ],
)
def test_a_broken_stream_says_so(events: bytes) -> None:
    relay, _ = relayed(events)

    assert relay.broken


def test_carriage_returns_frame_events_too() -> None:
    relay, out = relayed(EVENTS.replace(b"\n", b"\r\n"))

    assert out == EVENTS
    assert relay.done
