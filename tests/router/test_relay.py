"""What a stream's bytes are on their way to the client."""

import json
from typing import Any

import pytest

from support.upstream import DONE, USAGE, chunk
from weir_router.relay import MAX_PRELUDE_BYTES, Relay


def relay(*, keep: bool = False) -> Relay:
    return Relay(strip_usage=True, keep=keep)


def test_events_pass_as_they_came_without_the_usage() -> None:
    one = relay()

    assert one.feed(chunk("a") + USAGE + DONE) == chunk("a") + DONE
    assert one.done
    assert one.usage.completion_tokens == 3


def test_nothing_passes_after_the_end() -> None:
    one = relay()

    assert one.feed(chunk("a") + DONE + chunk("b")) == chunk("a") + DONE
    assert one.feed(chunk("c")) == b""


@pytest.mark.parametrize("size", [1, 2, 7])
def test_an_event_may_come_in_pieces_and_with_carriage_returns(size: int) -> None:
    raw = (chunk("a") + DONE).replace(b"\n", b"\r\n")
    one = relay()
    out = b"".join(one.feed(raw[at : at + size]) for at in range(0, len(raw), size))

    assert out == chunk("a") + DONE


@pytest.mark.parametrize(
    "before", [pytest.param(b"event: chunk\n", id="event"), pytest.param(b": hi\n", id="comment")]
)
def test_other_fields_before_the_data_hide_nothing(before: bytes) -> None:
    one = relay()
    one.feed(before + chunk("a"))
    one.feed(before + DONE)

    assert one.started
    assert one.done


@pytest.mark.parametrize(
    "first",
    [
        pytest.param(DONE, id="[DONE]"),
        pytest.param(b"data: hello\n\n", id="no JSON"),
        pytest.param(b'data: {"object":"error","message":"no"}\n\n', id="an error of old"),
        pytest.param(b'data: {"id":"x","error":{"message":"no"}}\n\n', id="an error"),
        pytest.param(b'data: {"choices":null}\n\n', id="null choices"),
        pytest.param(b": still here\n\n" * (MAX_PRELUDE_BYTES // 8), id="endless comments"),
    ],
)
def test_a_first_event_that_is_no_completion_breaks_the_stream(first: bytes) -> None:
    one = relay()

    assert one.feed(first) == b""
    assert one.broken
    assert not one.started


@pytest.mark.parametrize(
    "later",
    [
        pytest.param(b'data: {"id":"x","error":{"message":"no"}}\n\n', id="after other fields"),
        pytest.param(b'data: {"error":"no"}\n\n', id="as a text"),
        pytest.param(b'event: error\ndata: {"error":{}}\n\n', id="named so"),
        pytest.param(b'data: {"usage":{"prompt_tokens":-5}}\n\n', id="a negative usage"),
    ],
)
def test_an_error_later_breaks_the_stream(later: bytes) -> None:
    one = relay()
    one.feed(chunk("a"))

    assert one.feed(later) == b""
    assert one.broken


def test_no_error_is_no_error() -> None:
    event = b'data: {"choices":[],"error":null,"note":"\\"error\\""}\n\n'
    one = relay()

    assert one.feed(event) == event
    assert not one.broken


def with_usage(event: bytes, usage: Any, *, first: bool = False, space: bool = False) -> bytes:
    """Return an event with a usage of this value, last or first."""
    fields = json.loads(event[5:])
    fields = {"usage": usage, **fields} if first else {**fields, "usage": usage}
    text = json.dumps(fields, separators=None if space else (",", ":"))
    return b"data: " + text.encode() + b"\n\n"


@pytest.mark.parametrize("first", [False, True], ids=["last", "first"])
@pytest.mark.parametrize("space", [False, True], ids=["tight", "spaced"])
def test_a_usage_of_null_reaches_only_who_asked_for_usage(first: bool, space: bool) -> None:
    """An upstream writes it into every chunk where usage is asked for."""
    sent = with_usage(chunk("a"), None, first=first, space=space)
    plain = json.loads(chunk("a")[5:])

    stripped = relay().feed(sent + sent)
    assert stripped.count(b"usage") == 0
    assert [json.loads(one[5:]) for one in stripped.split(b"\n\n")[:2]] == [plain, plain]
    assert Relay(strip_usage=False, keep=False).feed(sent) == sent


def test_a_usage_that_is_told_beside_a_choice_passes() -> None:
    sent = with_usage(chunk("a"), {"prompt_tokens": 2, "completion_tokens": 1})
    one = relay()

    assert one.feed(sent) == sent
    assert one.usage.prompt_tokens == 2


@pytest.mark.parametrize(
    "text", ['","usage":null}', '"usage":null', 'x, "usage": null}'], ids=["end", "bare", "spaced"]
)
def test_a_text_that_reads_like_a_usage_passes(text: str) -> None:
    sent = chunk(text)

    assert relay().feed(sent) == sent
    assert json.loads(sent[5:])["choices"][0]["delta"]["content"] == text


def test_other_fields_of_an_event_stay_where_its_usage_goes() -> None:
    sent = b"event: chunk\nid: 7\n" + with_usage(chunk("a"), None)

    got = relay().feed(sent)
    assert got.startswith(b"event: chunk\nid: 7\ndata: {")
    assert b"usage" not in got


def test_logprobs_that_only_weir_asked_for_are_taken_out() -> None:
    logprobs = {"content": [{"token": "a", "logprob": -0.1, "top_logprobs": []}]}
    one = Relay(strip_usage=True, strip_logprobs=True, keep=False)
    got = one.feed(with_usage(chunk("a", logprobs=logprobs), None) + chunk("b") + DONE)

    events = [json.loads(event[5:]) for event in got.split(b"\n\n")[:2]]
    assert events[0]["choices"][0]["logprobs"] is None
    assert "usage" not in events[0]
    assert got.endswith(DONE)
