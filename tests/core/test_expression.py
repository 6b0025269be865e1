"""Which CEL expressions may be rules."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weir_core.expression import expression_trouble
from weir_core.routing import SIGNALS


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("risk in ['medical', 'legal']", id="membership"),
        pytest.param("deadline_ms < 2000 && prompt_tokens < 500", id="comparison"),
        pytest.param("has_tools || has_schema", id="flags"),
        pytest.param("task.startsWith('code') && size(model) > 3", id="text functions"),
        pytest.param("temperature > 1.5", id="a double"),
        pytest.param("['a', 'b'].exists(k, k == user_tier)", id="a macro binds its own name"),
        pytest.param("10 / turns > 2", id="a division by zero on some samples only"),
        pytest.param("stream ? turns > 3 : turns > 5", id="a choice"),
        pytest.param("true", id="always"),
        pytest.param("task in ['all', 'map', 'filter']", id="words of macros in texts"),
    ],
)
def test_rule_is_fit(text):
    assert expression_trouble(text) is None


@pytest.mark.parametrize("name", sorted(SIGNALS))
def test_every_signal_may_be_used(name):
    assert expression_trouble(f"{name} == {name}") is None


@pytest.mark.parametrize(
    ("text", "seen", "wanted"),
    [
        pytest.param("rsk == 'a'", "'rsk'", "did you mean 'risk'", id="an unknown signal"),
        pytest.param("promptTokens > 1", "'promptTokens'", "prompt_tokens", id="camel case"),
        pytest.param("risk == ", "risk == ", "parses", id="a torn expression"),
        pytest.param("", "", "parses", id="an empty expression"),
        pytest.param("turns + 1", "gives", "true or false", id="a number"),
        pytest.param("risk", "gives", "true or false", id="a text"),
        pytest.param("stream && turns", "turns", "every request", id="a number behind and"),
        pytest.param("risk.foo == 'a'", "risk.foo", "every request", id="a field of a text"),
        pytest.param("turns > 'a'", "turns", "every request", id="a number above a text"),
        pytest.param(
            "task == 'x' && turns + 'a' == 'b'", "task", "every request", id="a hidden type error"
        ),
        pytest.param("matchs(risk, 'a')", "'matchs()'", "'matches'", id="an unknown function"),
        pytest.param(
            "task == 'x' && now() > 3", "'now()'", "a function", id="a clock behind a short circuit"
        ),
        pytest.param("(" * 17 + "true" + ")" * 17, "((", "16 brackets", id="deep brackets"),
        pytest.param("[[" * 400, "[[", "16 brackets", id="a stack of brackets"),
        pytest.param(
            "[1].all(a, [1].all(b, [1].all(turns, true)))",
            "all",
            "at most 2 loops",
            id="three loops",
        ),
        pytest.param("1 / 0 == 1", "1 / 0", "every sample", id="an error always"),
    ],
)
def test_rule_is_refused(text, seen, wanted):
    trouble = expression_trouble(text)
    assert trouble is not None
    assert seen in trouble.seen
    assert wanted in trouble.wanted


@given(st.text(max_size=60))
def test_no_text_raises(text):
    expression_trouble(text)


SIGNS = [*"()[]{}<+/%.,?:-!", "&&", "==", "in", "'a'", "1", "9223372036854775807", "2.5", "size"]


@given(st.lists(st.sampled_from([*SIGNALS, *SIGNS]), max_size=12))
def test_no_heap_of_tokens_raises(tokens):
    expression_trouble(" ".join(tokens))
