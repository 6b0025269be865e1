"""What is read and what is refused of single objects, and how that is told."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.raw import BACKEND, NOTHING, ROUTE, VLLM, changed, problems_of
from weir_core.errors import Problem
from weir_core.resources import GROUP_VERSION, from_object, key_of, title_of


def test_route_is_read():
    assert title_of(from_object(ROUTE)) == "ModelRoute llm/assistant"


def test_namespace_is_default_where_none_is_said():
    assert key_of(from_object(BACKEND)) == "default/small"


def test_durations_become_milliseconds():
    assert from_object(ROUTE).spec.behaviour.tiers[0].timeout_ms == 6_000


def test_decimals_stay_exact():
    assert from_object(ROUTE).spec.rollout.alpha == Decimal("0.01")


def test_fields_that_kubernetes_keeps_are_let_be():
    kept = {"resourceVersion": "7", "managedFields": [], "labels": {"a": "b"}, "generation": 3}
    obj = changed(ROUTE, "metadata", {"name": "assistant", "uid": "u1", **kept})
    assert from_object(obj).metadata.uid == "u1"


def test_creation_time_of_a_template_is_none():
    obj = changed(ROUTE, "metadata.creationTimestamp", None)
    assert from_object(obj).metadata.creation_timestamp == ""


def test_status_is_let_be():
    assert from_object({**ROUTE, "status": {"phase": "Healthy"}}).metadata.name == "assistant"


def test_null_is_absent():
    obj = changed(ROUTE, "spec.behaviour.maxAttempts", None)
    assert from_object(obj).spec.behaviour.max_attempts is None


def test_resource_does_not_change():
    with pytest.raises(ValueError, match="frozen"):
        from_object(ROUTE).spec.behaviour.deadline_ms = 5


def test_unknown_field_is_told_with_the_nearest():
    told = problems_of(changed(ROUTE, "spec.behaviour.tiers.0.timout", "6s"))
    assert told["spec.behaviour.tiers[0].timout"].sentence() == (
        "ModelRoute llm/assistant: spec.behaviour.tiers[0].timout: saw 'timout', "
        "wanted one of the known fields; did you mean 'timeout'?"
    )


def test_unlike_field_is_told_with_all():
    told = problems_of(changed(ROUTE, "spec.zebra", 1))
    assert told["spec.zebra"].wanted == "one of behaviour, modelNames, monitoring, rollout"


def test_all_problems_are_told_at_once():
    obj = changed(ROUTE, "spec.behaviour.tiers.0.timeout", 6)
    obj = changed(obj, "spec.behaviour.rules.0.start", "larg")
    obj = changed(obj, "spec.rollout.alpha", 0.01)
    assert set(problems_of(obj)) == {
        "spec.behaviour.tiers[0].timeout",
        "spec.behaviour.rules[0].start",
        "spec.rollout.alpha",
    }


def nested(levels):
    value = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    "path", ["kind", "metadata.name", "spec.replicas", "spec.vllm.podTemplate.a"]
)
def test_endless_nesting_is_a_problem(path):
    assert isinstance(from_object(changed(VLLM, path, nested(100_000))), tuple)


def test_list_of_one_bad_item_is_not_short():
    assert list(problems_of(changed(ROUTE, "spec.modelNames", ["a b"]))) == ["spec.modelNames[0]"]


def test_one_field_is_told_once():
    told = from_object(changed(BACKEND, "spec", None))
    assert [one.field for one in told] == ["spec"]


@pytest.mark.parametrize(
    ("obj", "wanted"),
    [
        pytest.param({"kind": "ModelRout"}, "did you mean 'ModelRoute'", id="a kind nearly known"),
        pytest.param({"kind": "Pod"}, "ConfigMap, ModelBackend, ModelRoute", id="an unlike kind"),
        pytest.param({}, "ConfigMap, ModelBackend, ModelRoute", id="no kind"),
        pytest.param({"kind": ["x"]}, "ConfigMap", id="a list as kind"),
        pytest.param({"kind": "ModelRoute", "apiVersion": "v1"}, GROUP_VERSION, id="a version"),
        pytest.param([], "an object with apiVersion", id="a list"),
        pytest.param("text", "an object with apiVersion", id="a text"),
    ],
)
def test_unknown_object_is_told(obj, wanted):
    (problem,) = from_object(obj)
    assert wanted in problem.wanted


@pytest.mark.parametrize(
    ("path", "value", "wanted"),
    [
        ("metadata.name", "Assistant", "lower-case"),
        ("metadata.name", "a" * 53, "at most 52"),
        ("metadata.name", NOTHING, "the field name, which is required"),
        ("metadata.nmae", "x", "did you mean 'name'"),
        ("spec.modelNames", [], "at least 1"),
        ("spec.modelNames", [f"m{i}" for i in range(17)], "at most 16"),
        ("spec.modelNames", "assistant", "a list"),
        ("spec.modelNames.0", "two words", "a model's name"),
        ("spec.behaviour.deadline", NOTHING, "the field deadline, which is required"),
        ("spec.behaviour.deadline", 30, "a duration such as 1500ms"),
        ("spec.behaviour.deadline", "0s", "greater than 0"),
        ("spec.behaviour.maxAttempts", "4", "an integer without quotes"),
        ("spec.behaviour.maxAttempts", True, "an integer"),
        ("spec.behaviour.maxAttempts", 17, "less than or equal to 16"),
        ("spec.behaviour.budget", {"maxCostPerRequest": 0.02}, 'a decimal in quotes: "0.02"'),
        ("spec.behaviour.tiers", [], "at least 1"),
        ("spec.behaviour.tiers.0.timeout", "31s", "at most the deadline, 30s"),
        ("spec.behaviour.tiers.0.systemPrompt", 5, "a string"),
        ("spec.behaviour.tiers.0.backendRef.name", "x_y", "lower-case"),
        ("spec.behaviour.tiers.0.backendRef.namespace", "x", "did you mean 'name'"),
        ("spec.behaviour.tiers.1.name", "small", "a name used once"),
        ("spec.behaviour.rules.0.when", "rsk == 'x'", "did you mean 'risk'"),
        ("spec.behaviour.rules.0.start", "larg", "did you mean 'large'"),
        ("spec.behaviour.rules.0.end", "small", "not after the rule's end"),
        ("spec.behaviour.fallback", {"backendRefs": []}, "at least 1"),
        (
            "spec.behaviour.fallback",
            {"causes": ["Timout"], "backendRefs": [{"name": "a"}]},
            "did you mean 'Timeout'",
        ),
        ("spec.behaviour.streaming", {"commit": "Later"}, "one of AfterVerify, FirstToken, Prefix"),
        ("spec.behaviour.onExhausted", "ReturnErr", "did you mean 'ReturnError'"),
        ("spec.monitoring.monitors.0.type", "Confidence", "one of Finish, Pattern, Schema"),
        ("spec.monitoring.audits", {"percent": 2, "reference": "lrge"}, "did you mean 'large'"),
        ("spec.monitoring.audits", {"reference": "large"}, "percent, duringRollout or both"),
        ("spec.monitoring.audits", {"percent": 101, "reference": "large"}, "from 0 to 100"),
        ("spec.rollout.alpha", "0.6", "less than or equal to 0.5"),
        ("spec.rollout.alpha", "0", "greater than 0"),
        ("spec.rollout.promoteRatio", "1", "greater than 1"),
        ("spec.rollout.paused", "yes", "true or false without quotes"),
        ("spec.rollout.onInconclusive", "hold", "did you mean 'Hold'"),
        ("spec.rollout.assignment", {"unit": "Request", "header": "x-id"}, "no header"),
        ("spec.rollout.assignment", {"unit": "Session", "header": "X-Id"}, "lower case"),
    ],
)
def test_route_is_refused(path, value, wanted):
    told = problems_of(changed(ROUTE, path, value))
    assert wanted in " | ".join(one.wanted for one in told.values())


def test_config_map_carries_texts():
    obj = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cal.v1"}}
    assert from_object({**obj, "data": {"a": "b"}}).data == {"a": "b"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda one: st.lists(one, max_size=4) | st.dictionaries(st.text(max_size=8), one, max_size=4),
    max_leaves=12,
)
PATHS = [
    "metadata",
    "metadata.name",
    "spec",
    "spec.modelNames",
    "spec.behaviour",
    "spec.behaviour.deadline",
    "spec.behaviour.tiers",
    "spec.behaviour.tiers.0.accept",
    "spec.behaviour.rules",
    "spec.behaviour.rules.0.when",
    "spec.behaviour.fallback",
    "spec.monitoring.objectives",
    "spec.monitoring.audits",
    "spec.rollout.steps",
]


@given(st.sampled_from(PATHS), JSON)
def test_no_value_anywhere_raises(path, value):
    read = from_object(changed(ROUTE, path, value))
    assert not isinstance(read, tuple) or all(isinstance(one, Problem) for one in read)


@given(JSON)
def test_no_object_raises(obj):
    from_object(obj)
