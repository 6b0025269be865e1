"""Fields that cannot stand together."""

import pytest

from support.raw import BACKEND, NOTHING, ROUTE, VLLM, changed, problems_of


def test_names_of_models_are_unique():
    told = problems_of(changed(ROUTE, "spec.modelNames", ["a", "b", "a"]))
    assert told["spec.modelNames[2]"].seen == "'a' again"


CONFIDENCE = {"name": "c", "type": "Confidence", "method": "Logprob", "minProbability": "0.8"}


@pytest.mark.parametrize(
    ("check", "field", "wanted"),
    [
        pytest.param(
            {"name": "c", "type": "Finish", "mustMatch": "a"},
            "mustMatch",
            "no mustMatch with type Finish: it belongs to Pattern",
            id="a pattern on another check is refused",
        ),
        pytest.param(
            {"name": "c", "type": "Pattern"},
            "",
            "mustMatch, mustNotMatch",
            id="a pattern is needed",
        ),
        pytest.param(
            {"name": "c", "type": "Pattern", "mustMatch": "(a"},
            "mustMatch",
            "RE2",
            id="it compiles",
        ),
        pytest.param(
            {"name": "c", "type": "Pattern", "mustMatch": ""},
            "mustMatch",
            "1",
            id="it says something",
        ),
        pytest.param(CONFIDENCE, "calibrationRef", "requires", id="a calibration is needed"),
        pytest.param(
            {**CONFIDENCE, "calibrationRef": {"name": "c"}, "minProbability": "1.1"},
            "minProbability",
            "less than or equal to 1",
            id="a probability is at most one",
        ),
        pytest.param({"name": "c", "type": "Safety"}, "type", "one of", id="a type is known"),
    ],
)
def test_check_is_refused(check, field, wanted):
    told = problems_of(changed(ROUTE, "spec.behaviour.tiers.0.accept", [check]))
    place = f"spec.behaviour.tiers[0].accept[0].{field}".removesuffix(".")
    assert wanted in told[place].wanted


@pytest.mark.parametrize(
    "check",
    [
        pytest.param({"name": "c", "type": "Schema"}, id="a schema needs nothing more"),
        pytest.param(
            {"name": "c", "type": "Pattern", "mustMatch": "a", "mustNotMatch": "b"},
            id="a pattern may say both",
        ),
        pytest.param(
            {**CONFIDENCE, "calibrationRef": {"name": "cal", "key": "a.json"}},
            id="confidence with all it needs",
        ),
    ],
)
def test_check_is_read(check):
    assert not problems_of(changed(ROUTE, "spec.behaviour.tiers.0.accept", [check]))


@pytest.mark.parametrize(
    ("objective", "field", "wanted"),
    [
        pytest.param({"event": "Slow"}, "over", "duration", id="slow needs over"),
        pytest.param(
            {"event": "Error", "over": "1s"}, "over", "belongs to Slow", id="over needs slow"
        ),
        pytest.param({"event": "Harm"}, "", "audits", id="harm needs audits"),
        pytest.param({"event": "Harm"}, "", "Feedback", id="labels are another event"),
        pytest.param({"event": "Feedback"}, "within", "requires", id="labels need a window"),
        pytest.param(
            {"event": "Feedback", "within": "59s"}, "within", "1m to 24h", id="a minute at least"
        ),
        pytest.param(
            {"event": "Feedback", "within": "25h"}, "within", "1m to 24h", id="a day at most"
        ),
        pytest.param(
            {"event": "Feedback", "within": "often"}, "within", "1h30m", id="a window is a duration"
        ),
        pytest.param(
            {"event": "Error", "within": "5m"}, "within", "belongs to Feedback", id="nothing else"
        ),
        pytest.param(
            {"event": "Feedback", "within": "5m", "maxRate": "0.1"},
            "maxRate",
            "all answers labelled",
            id="labels have no ceiling",
        ),
        pytest.param(
            {"event": "Feedback", "within": "5m", "negligibleRate": "0.1"},
            "negligibleRate",
            "all answers labelled",
            id="labels have no floor",
        ),
        pytest.param(
            {"event": "Invalid", "monitor": "hole"}, "monitor", "'whole'", id="a monitor exists"
        ),
        pytest.param(
            {"event": "Error", "monitor": "whole"},
            "monitor",
            "Invalid",
            id="errors need no monitor",
        ),
        pytest.param(
            {"event": "Error", "maxRate": "0.01", "negligibleRate": "0.02"},
            "negligibleRate",
            "less than maxRate",
            id="the floor is below the ceiling",
        ),
        pytest.param({"event": "Error", "share": 0}, "share", "1", id="a share is positive"),
        pytest.param(
            {"event": "Error", "maxRatio": "0.9"}, "maxRatio", "1", id="a ratio is at least one"
        ),
    ],
)
def test_objective_is_refused(objective, field, wanted):
    told = problems_of(changed(ROUTE, "spec.monitoring.objectives", [{"name": "o", **objective}]))
    place = f"spec.monitoring.objectives[0].{field}".removesuffix(".")
    assert wanted in told[place].wanted


def test_monitored_event_needs_some_monitor():
    monitoring = {"objectives": [{"name": "o", "event": "Violation"}]}
    told = problems_of(changed(ROUTE, "spec.monitoring", monitoring))
    assert told["spec.monitoring.objectives[0]"].seen == "no monitors"


def test_some_objective_is_enforced():
    objectives = [{"name": "o", "event": "Error", "mode": "Observe"}]
    told = problems_of(changed(ROUTE, "spec.monitoring.objectives", objectives))
    assert told["spec.monitoring.objectives"].wanted == "at least one with mode Enforce"


LABELS = {"name": "thumbs", "event": "Feedback", "within": "10m"}


@pytest.mark.parametrize("event", ["Feedback", ["Feedback"]], ids=["an event", "no event"])
def test_labels_alone_promote_nothing_so_something_else_is_enforced(event):
    objectives = [{**LABELS, "event": event}, {"name": "o", "event": "Error", "mode": "Observe"}]
    told = problems_of(changed(ROUTE, "spec.monitoring.objectives", objectives))
    assert ("spec.monitoring.objectives" in told) == (event == "Feedback")


@pytest.mark.parametrize("within", ["1m", "24h", "1h30m"])
def test_labels_are_read(within):
    objectives = [{"name": "o", "event": "Error"}, {**LABELS, "within": within, "maxRatio": "2"}]
    assert not problems_of(changed(ROUTE, "spec.monitoring.objectives", objectives))


@pytest.mark.parametrize(
    ("steps", "field", "wanted"),
    [
        pytest.param([{"prove": {}}], "[0].prove", "above 0 and below 100%", id="prove at nothing"),
        pytest.param(
            [{"setWeight": 0}, {"prove": {}}, {"setWeight": 5}],
            "[1].prove",
            "above 0 and below 100%",
            id="prove at a weight of 0",
        ),
        pytest.param(
            [{"setWeight": 100}, {"prove": {}}], "[1].prove", "below 100%", id="prove at everything"
        ),
        pytest.param(
            [{"setWeight": 50}, {"setWeight": 5}], "[1].setWeight", "50%", id="weights rise"
        ),
        pytest.param([{"setWeight": 5}, {"hold": {}}], "[1].hold", "minRequests", id="a hold says"),
        pytest.param(
            [{"hold": {"minRequests": 9}}, {"setWeight": 5}], "[0].hold", "above 0", id="hold at 0"
        ),
        pytest.param([{"setWeight": 0}], "", "above 0 in some step", id="a last weight of nothing"),
        pytest.param([{"setWeight": 5, "prove": {}}], "[0]", "exactly one", id="two in one step"),
        pytest.param([{}], "[0]", "exactly one", id="none in a step"),
        pytest.param([{"pause": None}], "[0]", "exactly one", id="a null is none"),
        pytest.param([{"setWait": 5}], "[0].setWait", "'setWeight'", id="an unknown step"),
        pytest.param([], "", "at least 1", id="no steps"),
    ],
)
def test_steps_are_refused(steps, field, wanted):
    told = problems_of(changed(ROUTE, "spec.rollout.steps", steps))
    assert wanted in told[f"spec.rollout.steps{field}"].wanted


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param([{"setWeight": 100}], id="all at once"),
        pytest.param([{"setWeight": 0}, {"pause": {}}, {"setWeight": "0.5%"}], id="first warm up"),
        pytest.param([{"setWeight": 50}, {"prove": {}}, {"setWeight": 100}], id="prove, then all"),
    ],
)
def test_steps_are_read(steps):
    assert not problems_of(changed(ROUTE, "spec.rollout.steps", steps))


@pytest.mark.parametrize(
    ("base", "path", "value", "wanted"),
    [
        pytest.param(BACKEND, "spec.vllm", {"image": "x"}, "exactly one of", id="both sources"),
        pytest.param(BACKEND, "spec.external", NOTHING, "exactly one of", id="no source"),
        pytest.param(BACKEND, "spec.replicas", 2, "no replicas", id="replicas of a stranger"),
        pytest.param(
            BACKEND, "spec.external.url", "api.example", "a URL such as", id="a bare host"
        ),
        pytest.param(
            BACKEND, "spec.external.apiKeyRef", {"key": "../x"}, "file's name", id="a path as key"
        ),
        pytest.param(
            BACKEND, "spec.capabilities", ["Logprob"], "did you mean 'Logprobs'", id="a capability"
        ),
        pytest.param(
            BACKEND,
            "spec.pricing",
            {"inputPerMillionTokens": 0.05, "outputPerMillionTokens": "1"},
            'a decimal in quotes: "0.05"',
            id="a price as a float",
        ),
        pytest.param(VLLM, "spec.model.uri", NOTHING, "place of the weights", id="no weights"),
        pytest.param(VLLM, "spec.model.uri", "org/model", "hf://", id="weights of no scheme"),
        pytest.param(VLLM, "spec.vllm.sharedMemory", "2 GB", "512Mi", id="a quantity"),
    ],
)
def test_backend_is_refused(base, path, value, wanted):
    told = problems_of(changed(base, path, value))
    assert wanted in " | ".join(one.wanted for one in told.values())


def test_refused_flag_does_not_show_its_value():
    told = problems_of(changed(VLLM, "spec.vllm.args", ["--api-key=hush"]))
    assert "hush" not in told["spec.vllm.args[0]"].sentence()


@pytest.mark.parametrize(
    ("drain", "told"),
    [
        ({"preStopDelay": "15s", "gracePeriod": "20s"}, True),
        ({"preStopDelay": "15s", "gracePeriod": "20001ms"}, False),
        ({"gracePeriod": "20s"}, True),
        ({"preStopDelay": "115s"}, True),
        ({"preStopDelay": "soon", "gracePeriod": "1s"}, False),
    ],
)
def test_grace_that_the_delay_eats_up_is_told(drain, told):
    found = problems_of(changed(VLLM, "spec.vllm.drain", drain))
    assert ("spec.vllm.drain.gracePeriod" in found) == told
