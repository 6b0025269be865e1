"""What explain says of a request, without calling a model."""

import json
from typing import Any

from support.routes import policy, revision
from weir_core.snapshot import RolloutPolicy, Rule, Snapshot
from weir_router import table
from weir_router.explain import explain
from weir_router.plan import session_name

ROUTES = table.empty().next(
    Snapshot(
        version=(0, 1),
        routes=(
            policy(
                canary=revision("assistant-0000000002"),
                attempt=1,
                weight_bp=5_000,
                rollout=RolloutPolicy(unit="Session"),
            ),
        ),
    ),
    (),
)


def said(headers: dict[str, str] | None = None, **body: Any) -> dict[str, Any]:
    return explain(ROUTES, json.dumps({"model": "assistant"} | body).encode(), headers or {})


def test_a_tool_with_a_prompt_is_no_completion() -> None:
    tool = {"function": {"name": "ask", "parameters": {"properties": {"prompt": {}}}}}
    found = said(messages=[{"role": "user", "content": "hi"}], tools=[tool])

    assert found["route"] == "llm/assistant"


def test_a_prompt_is_a_completion() -> None:
    assert said(prompt="hi")["route"] == "llm/assistant"


def test_neither_messages_nor_a_prompt_is_told_as_the_chat_endpoint_does() -> None:
    assert said()["refused"]["why"] == "saw no messages"


def test_a_session_is_named_as_the_router_names_it() -> None:
    """Its header arrives as bytes; a long one is kept as its digest."""
    for name in ("mine", "mein Gespräch", "x" * 5_000):
        found = said({"X-Session-Id": name}, prompt="hi")

        assert found["session"] == session_name(name.encode())


def test_what_rules_saw_of_the_request_is_told() -> None:
    rule = Rule(name="long", when="prompt_chars > 4 && task == 'sum'", start=1, end=1)
    ruled = table.empty().next(
        Snapshot(version=(0, 1), routes=(policy(stable=revision(rules=(rule,))),)), ()
    )
    for text, matched in (("long enough", "long"), ("hi", "none matched: all tiers")):
        body = {"model": "assistant", "messages": [{"role": "user", "content": text}]}
        (arm,) = explain(ruled, json.dumps(body).encode(), {"x-weir-task": "sum"})["arms"]

        assert arm["seen"] == {"prompt_chars": len(text), "task": "sum"}
        assert arm["rule"] == matched


def test_where_no_rule_asks_nothing_was_seen() -> None:
    for arm in said(prompt="hi")["arms"]:
        assert (arm["seen"], arm["rule"]) == ({}, "none: all tiers")
