"""Requests in OpenAI's dialect: read, refused, and changed for an upstream."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weir_router import dialect
from weir_router.dialect import Ask, Refusal, Request

CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def parsed(kind: dialect.Kind = "chat", **more: Any) -> Request:
    base = CHAT if kind == "chat" else {"model": "m", "prompt": "hi"}
    found = dialect.parse(kind, json.dumps(base | more).encode())
    assert isinstance(found, Request), found
    return found


def body(request: Request, **ask: Any) -> dict[str, Any]:
    made = dialect.upstream_body(request, Ask(**({"model": "up"} | ask)))
    return dict(msgspec.json.decode(made))


def test_unknown_fields_pass_through() -> None:
    extra = {"reasoning_effort": "low", "guided": {"a": [1, 2.50]}}

    assert body(parsed(**extra)).items() >= extra.items()


def test_the_model_is_the_upstreams_own() -> None:
    assert body(parsed())["model"] == "up"


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_a_cap_goes_where_the_client_put_its_own(field: str) -> None:
    assert body(parsed(**{field: 50}), max_tokens=8)[field] == 8


def test_logprobs_are_asked_for_without_lowering_what_the_client_wants() -> None:
    asked = body(parsed(logprobs=True, top_logprobs=5), logprobs=2)

    assert (asked["logprobs"], asked["top_logprobs"]) == (True, 5)


def test_completions_ask_for_logprobs_by_a_number() -> None:
    assert body(parsed("completion"), logprobs=2)["logprobs"] == 2


def test_a_stream_is_asked_for_its_usage() -> None:
    asked = body(parsed(stream=True), stream=True)

    assert asked["stream_options"] == {"include_usage": True}


def test_an_audit_of_a_stream_asks_for_a_whole_answer() -> None:
    asked = body(parsed(stream=True, stream_options={"include_usage": True}))

    assert asked.keys().isdisjoint({"stream", "stream_options"})


@pytest.mark.parametrize(
    ("messages", "wanted"),
    [
        pytest.param(
            [{"role": "user", "content": "hi"}],
            [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}],
            id="none there: put first",
        ),
        pytest.param(
            [{"role": "system", "content": "Own."}, {"role": "user", "content": "hi"}],
            [{"role": "system", "content": "Be brief.\n\nOwn."}, {"role": "user", "content": "hi"}],
            id="one there: put before it",
        ),
    ],
)
def test_the_tiers_prompt_comes_before_the_requests_own(messages: Any, wanted: Any) -> None:
    assert body(parsed(messages=messages), system_prompt="Be brief.")["messages"] == wanted


def test_a_completion_gets_the_prompt_in_front() -> None:
    assert body(parsed("completion"), system_prompt="Be brief.")["prompt"] == "Be brief.\n\nhi"


def test_signals_tell_the_shape_of_a_request() -> None:
    messages = [
        {"role": "system", "content": "abcd"},
        {"role": "user", "content": [{"type": "text", "text": "efgh"}, {"type": "image_url"}]},
    ]
    request = parsed(
        messages=messages,
        tools=[{"type": "function", "function": {"name": "f"}}],
        response_format={"type": "json_object"},
        max_tokens=9,
        stream=True,
        temperature=0,
    )

    assert dialect.signals(request, 700) == {
        "prompt_tokens": 2,
        "prompt_chars": 8,
        "messages": 2,
        "turns": 1,
        "has_tools": True,
        "has_schema": True,
        "has_images": True,
        "stream": True,
        "max_tokens": 9,
        "temperature": 0.0,
        "deadline_ms": 700,
        "model": "m",
    }


def test_a_wrong_type_names_its_field() -> None:
    refused = dialect.parse("chat", json.dumps(CHAT | {"max_tokens": "many"}).encode())

    assert isinstance(refused, Refusal)
    assert (refused.status, refused.param) == (400, "max_tokens")


@given(st.binary(max_size=60))
def test_no_bytes_make_it_raise(raw: bytes) -> None:
    assert isinstance(dialect.parse("chat", raw), Refusal | Request)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["model", "messages", "role", "content", "tools", "function", "n"]),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_no_json_makes_it_raise(value: Any) -> None:
    assert isinstance(dialect.parse("chat", json.dumps(value).encode()), Refusal | Request)
