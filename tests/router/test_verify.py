"""The checks of one answer, and what they take for granted of it."""

import json
import math
from typing import Any

import pytest

from weir_core.snapshot import Calibration, Check
from weir_router import dialect
from weir_router.answer import Answer, Choice, FunctionCall, Usage
from weir_router.verify import confidence, first_refusal, logprobs_wanted, passes

FINISH = Check(name="whole", type="Finish")
SCHEMA = Check(name="format", type="Schema")
TOOL = {
    "type": "function",
    "function": {
        "name": "refund",
        "parameters": {
            "type": "object",
            "properties": {"amount": {"type": "integer"}},
            "required": ["amount"],
        },
    },
}


def request(**more: Any) -> dialect.Request:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **more}
    parsed = dialect.parse("chat", json.dumps(body).encode())
    assert isinstance(parsed, dialect.Request)
    return parsed


def answer(text: str = "", **choice: Any) -> Answer:
    one = Choice(**({"text": text, "finish": "stop"} | choice))
    return Answer(choices=(one,), usage=Usage(), raw=b"")


def calls(arguments: str, name: str = "refund") -> Answer:
    call = FunctionCall(name=name, arguments=arguments)
    return answer(finish="tool_calls", tool_calls=(call,))


@pytest.mark.parametrize(
    ("given", "passed"),
    [
        pytest.param(answer("hello"), True, id="a whole answer"),
        pytest.param(answer("hel", finish="length"), False, id="cut off"),
        pytest.param(answer("  \n"), False, id="blank"),
        pytest.param(answer("no", refusal="I won't"), False, id="refused in its own field"),
        pytest.param(
            answer("I'm sorry, but I can't help with that."), False, id="refused in words"
        ),
        pytest.param(answer("I cannot assist you"), False, id="cannot assist"),
        pytest.param(answer("We cannot help it: cards expire."), True, id="others cannot"),
        pytest.param(answer("odd", finish="content_filter"), False, id="filtered"),
        pytest.param(calls("{}"), True, id="a tool call needs no text"),
    ],
)
def test_finish_is_not_cut_off_not_empty_not_a_refusal(given: Answer, passed: bool) -> None:
    assert passes(FINISH, given, request()) is passed


def json_schema(schema: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}


@pytest.mark.parametrize(
    ("given", "asked", "passed"),
    [
        pytest.param(answer("x"), {}, True, id="nothing asked"),
        pytest.param(answer("x"), {"response_format": {"type": "text"}}, True, id="text asked"),
        pytest.param(answer("{}"), {"response_format": {"type": "json_object"}}, True, id="object"),
        pytest.param(answer("[]"), {"response_format": {"type": "json_object"}}, False, id="array"),
        pytest.param(answer('{"a'), {"response_format": {"type": "json_object"}}, False, id="half"),
        pytest.param(
            answer('{"a": 1}'),
            {"response_format": json_schema({"required": ["a"]})},
            True,
            id="as the schema says",
        ),
        pytest.param(
            answer('{"b": 1}'),
            {"response_format": json_schema({"required": ["a"]})},
            False,
            id="not as the schema says",
        ),
        pytest.param(
            answer("{}"), {"response_format": json_schema({"type": 7})}, False, id="no schema"
        ),
        pytest.param(calls('{"amount": 3}'), {"tools": [TOOL]}, True, id="good arguments"),
        pytest.param(calls('{"amount": "3"}'), {"tools": [TOOL]}, False, id="a wrong type"),
        pytest.param(calls("{"), {"tools": [TOOL]}, False, id="arguments that are no JSON"),
        pytest.param(calls("{}", "burn"), {"tools": [TOOL]}, False, id="a tool nobody offered"),
    ],
)
def test_schema_is_what_the_request_asked_for(
    given: Answer, asked: dict[str, Any], passed: bool
) -> None:
    assert passes(SCHEMA, given, request(**asked)) is passed


@pytest.mark.parametrize(
    ("text", "passed"),
    [
        pytest.param("ref 12 é", True, id="has what must be, lacks what must not"),
        pytest.param("ref é", False, id="lacks what must be"),
        pytest.param("ref 12 4111-1111", False, id="has what must not be"),
    ],
)
def test_pattern_wants_the_one_and_not_the_other(text: str, passed: bool) -> None:
    check = Check(name="p", type="Pattern", must_match=r"\d\d", must_not_match=r"\d{4}-\d{4}")

    assert passes(check, answer(text), request()) is passed


def test_a_pattern_looks_at_tool_arguments_too() -> None:
    check = Check(name="p", type="Pattern", must_not_match="4111")

    assert not passes(check, calls('{"card": "4111"}'), request(tools=[TOOL]))


def model(**features: float) -> Calibration:
    return Calibration(
        method="Logprob", features=tuple(features.items()), intercept=0.0, digest="d"
    )


@pytest.mark.parametrize(
    ("feature", "value"),
    [
        ("sum", -3.0),
        ("mean", -1.0),
        ("min", -2.0),
        ("q10", -2.0),
        ("tokens", 3.0),
        ("margin_mean", 2.0),
        ("margin_min", 1.0),
    ],
)
def test_each_feature_is_of_the_answers_logprobs(feature: str, value: float) -> None:
    choice = Choice(logprobs=(-0.5, -2.0, -0.5), margins=(1.0, 3.0))

    assert confidence(model(**{feature: 1.0}), choice) == pytest.approx(1 / (1 + math.exp(-value)))


@pytest.mark.parametrize(
    ("calibration", "choice"),
    [
        pytest.param(None, Choice(logprobs=(-0.1,)), id="no calibration"),
        pytest.param(model(sum=1.0), Choice(), id="no logprobs"),
        pytest.param(model(margin_min=1.0), Choice(logprobs=(-0.1,)), id="no margins"),
    ],
)
def test_an_unknown_confidence_is_none(calibration: Calibration | None, choice: Choice) -> None:
    assert confidence(calibration, choice) == 0.0


def test_a_hopeless_score_does_not_overflow() -> None:
    assert confidence(model(sum=1e6), Choice(logprobs=(-9.0,))) == 0.0


def test_the_first_check_that_refuses_is_named() -> None:
    assert first_refusal((FINISH, SCHEMA), answer(""), request()) == "whole"


def test_every_choice_must_pass() -> None:
    both = Answer(
        choices=(Choice(text="a", finish="stop"), Choice(text="", finish="stop")),
        usage=Usage(),
        raw=b"",
    )

    assert not passes(FINISH, both, request())


@pytest.mark.parametrize(
    ("features", "wanted"), [((), -1), (("sum",), 0), (("sum", "margin_min"), 2)]
)
def test_only_margins_need_top_logprobs(features: tuple[str, ...], wanted: int) -> None:
    checks = [FINISH]
    if features:
        calibration = model(**dict.fromkeys(features, 1.0))
        checks.append(Check(name="sure", type="Confidence", calibration=calibration))

    assert logprobs_wanted(checks) == wanted
