"""Objects that the API server must not take, each wrong in one way, and what it must say.

Here are values that cannot stand together, and all rows; see `Row` for what a row says.
"""

from support.raw import NOTHING, ROUTE, VLLM
from support.refused_values import (
    CONFIDENCE,
    FORMS,
    NAMES,
    PERCENT,
    SHAPES,
    Row,
    backend,
    check,
    route,
)
from weir_core.vllm_flags import OWNED_FLAGS

MONITORS = [{"name": "whole", "type": "Finish"}]


def without(obj, key):
    return {name: value for name, value in obj.items() if name != key}


def objective(name, objective, field, told, monitors=MONITORS):
    enforced = {"name": "errors", "event": "Error"}
    made = {"monitors": monitors, "objectives": [enforced, {"name": "o", **objective}]}
    where = f"spec.monitoring.objectives[1]{field}" if field.startswith(".") else field
    return Row(name, ROUTE, {"spec.monitoring": made}, where, told)


def steps(name, steps, told, field=""):
    return Row(name, ROUTE, {"spec.rollout.steps": steps}, f"spec.rollout.steps{field}", told)


TOGETHER = (
    backend(
        "both sources",
        "spec.vllm",
        {"image": "x"},
        "exactly one of vllm and external",
        field="spec",
    ),
    backend(
        "no source", "spec.external", NOTHING, "exactly one of vllm and external", field="spec"
    ),
    backend("replicas of a stranger", "spec.replicas", 2, "Weir runs no external backend"),
    backend(
        "no weights", "spec.model.uri", NOTHING, "vllm needs the place of the weights", base=VLLM
    ),
    *(
        backend(
            f"the flag {arg}",
            "spec.vllm.args",
            ["--max-model-len=9", arg],
            f"wanted no {flag}: {OWNED_FLAGS[flag]}",
            base=VLLM,
            field="spec.vllm.args[1]",
        )
        for arg, flag in (
            *((flag, flag) for flag in OWNED_FLAGS),
            ("--model=x", "--model"),
            ("--served_model_name=x", "--served-model-name"),
            ("--tensor-parallel", "--tensor-parallel-size"),
            ("-tp=2", "-tp"),
            ("--api-key=hush", "--api-key"),
            ("--shut", "--shutdown-timeout"),
            ("-_port=1", "--port"),
            ("--served-model-name.x=y", "--served-model-name"),
            ("-t", "-tp"),
            ("-t 4", "-tp"),
            ("-n2", "-n"),
            ("-n 2", "-n"),
            ("-r=1", "-r"),
            ("--ssl_ci=x", "--ssl-ciphers"),
        )
    ),
    backend(
        "a drain without time",
        "spec.vllm.drain",
        {"gracePeriod": "19s"},
        "wanted more than preStopDelay and 5s to end in",
        base=VLLM,
        field="spec.vllm.drain.gracePeriod",
    ),
    route(
        "a timeout above the deadline",
        "spec.behaviour.tiers.1.timeout",
        "31s",
        "saw timeout 31s, wanted at most the deadline, 30s",
        field="spec.behaviour.tiers",
    ),
    route(
        "a tier named again",
        "spec.behaviour.tiers.1.name",
        "small",
        "saw 'small' again, wanted each name once",
        field="spec.behaviour.tiers",
    ),
    route(
        "a start at no tier",
        "spec.behaviour.rules.0.start",
        "larg",
        "saw start 'larg', wanted the name of a tier",
        field="spec.behaviour.rules",
    ),
    route(
        "an end at no tier",
        "spec.behaviour.rules.0.end",
        "larg",
        "saw end 'larg', wanted the name of a tier",
        field="spec.behaviour.rules",
    ),
    route(
        "an end before the start",
        "spec.behaviour.rules.0.end",
        "small",
        "saw rule 'risky' start at a tier after its end",
        field="spec.behaviour.rules",
    ),
    route(
        "an audit against no tier",
        "spec.monitoring.audits",
        {"percent": 5, "reference": "larg"},
        "saw 'larg', wanted the name of a tier",
        field="spec.monitoring.audits.reference",
    ),
    route(
        "an audit of no request",
        "spec.monitoring.audits",
        {"percent": "0.0%", "reference": "large"},
        "percent, duringRollout or both above 0",
    ),
    route(
        "no objective enforced",
        "spec.monitoring.objectives",
        [{"name": "o", "event": "Error", "mode": "Observe"}],
        "at least one objective",
    ),
    route(
        "a header for requests",
        "spec.rollout.assignment",
        {"unit": "Request", "header": "x-id"},
        "header belongs to unit Session",
        field="spec.rollout.assignment.header",
    ),
    route(
        "prefix tokens of another commit",
        "spec.behaviour.streaming",
        {"commit": "AfterVerify", "prefixTokens": 8},
        "prefixTokens belongs to commit Prefix, not to AfterVerify",
        field="spec.behaviour.streaming.prefixTokens",
    ),
    Row(
        "a schema of a prefix",
        ROUTE,
        {
            "spec.behaviour.streaming": {"commit": "Prefix"},
            "spec.behaviour.tiers.0.accept": [{"name": "shape", "type": "Schema"}],
        },
        "spec.behaviour.tiers",
        "no check of type Schema with streaming.commit Prefix",
    ),
    route(
        "checks named alike",
        "spec.behaviour.tiers.0.accept",
        [{"name": "a", "type": "Finish"}, {"name": "a", "type": "Schema"}],
        "saw 'a' again",
    ),
    route("monitors named alike", "spec.monitoring.monitors", MONITORS * 2, "saw 'whole' again"),
)

CHECKS = (
    *(
        check(
            f"{field} on Schema",
            {"name": "c", "type": "Schema", field: CONFIDENCE.get(field, "x")},
            f".{field}",
            f"{field} belongs to type {kind}, not to Schema",
        )
        for field, kind in (
            ("mustNotMatch", "Pattern"),
            ("minProbability", "Confidence"),
            ("calibrationRef", "Confidence"),
        )
    ),
    route(
        "a pattern on another monitor",
        "spec.monitoring.monitors.0.mustNotMatch",
        "x",
        "mustNotMatch belongs to type Pattern, not to Finish",
    ),
    check(
        "a pattern on another check",
        {"name": "c", "type": "Finish", "mustMatch": "a"},
        ".mustMatch",
        "mustMatch belongs to type Pattern, not to Finish",
    ),
    check(
        "a pattern of nothing",
        {"name": "c", "type": "Pattern"},
        "",
        "type Pattern needs mustMatch, mustNotMatch or both",
    ),
    check(
        "a pattern that does not compile",
        {"name": "c", "type": "Pattern", "mustMatch": "(a"},
        ".mustMatch",
        "(a",
    ),
    check(
        "confidence without calibration",
        without(CONFIDENCE, "calibrationRef"),
        ".calibrationRef",
        "type Confidence needs calibrationRef",
    ),
    check(
        "confidence without bound",
        without(CONFIDENCE, "minProbability"),
        ".minProbability",
        "type Confidence needs minProbability",
    ),
    check(
        "confidence without method",
        without(CONFIDENCE, "method"),
        ".method",
        "type Confidence needs method",
    ),
    check(
        "a probability above one",
        {**CONFIDENCE, "minProbability": "1.1"},
        ".minProbability",
        "at least 0 and at most 1",
    ),
    check(
        "a method of Finish",
        {"name": "c", "type": "Finish", "method": "Logprob"},
        ".method",
        "method belongs to type Confidence, not to Finish",
    ),
)

OBJECTIVES = (
    *(
        objective(
            f"{field} of errors",
            {"event": "Error", field: value},
            f".{field}",
            f"{field} belongs to event {event}, not to Error",
        )
        for field, value, event in (("of", "Total", "Slow"), ("within", "1h", "Feedback"))
    ),
    objective(
        "a floor of one", {"event": "Error", "negligibleRate": "1"}, ".negligibleRate", "below 1"
    ),
    objective(
        "a floor of labels",
        {"event": "Feedback", "within": "1h", "negligibleRate": "0.1"},
        ".negligibleRate",
        "a rate needs all answers labelled",
    ),
    objective("slow without over", {"event": "Slow"}, ".over", "event Slow needs over"),
    objective(
        "over without slow",
        {"event": "Error", "over": "1s"},
        ".over",
        "over belongs to event Slow, not to Error",
    ),
    objective(
        "a rate above one", {"event": "Error", "maxRate": "1"}, ".maxRate", "above 0 and below 1"
    ),
    objective(
        "a ratio below one",
        {"event": "Error", "maxRatio": "0.9"},
        ".maxRatio",
        "at least 1 and at most 100",
    ),
    objective(
        "a floor above the ceiling",
        {"event": "Error", "maxRate": "0.01", "negligibleRate": "0.02"},
        ".negligibleRate",
        "saw 0.02, wanted less than maxRate, 0.01",
    ),
    objective(
        "a monitor that is none",
        {"event": "Invalid", "monitor": "hole"},
        "spec.monitoring.objectives",
        "saw monitor 'hole', wanted the name of one",
    ),
    objective(
        "a monitor of errors",
        {"event": "Error", "monitor": "whole"},
        ".monitor",
        "monitor belongs to event Invalid or Violation, not to Error",
    ),
    objective(
        "no monitor at all",
        {"event": "Violation"},
        "spec.monitoring.monitors",
        "needs a monitor: nothing else tells",
        monitors=[],
    ),
    objective(
        "harm without audits",
        {"event": "Harm"},
        "spec.monitoring.audits",
        "an objective of Harm needs audits",
    ),
    objective(
        "objectives named alike",
        {"name": "errors", "event": "Error"},
        "spec.monitoring.objectives",
        "saw 'errors' again",
    ),
    objective(
        "labels without a window", {"event": "Feedback"}, ".within", "event Feedback needs within"
    ),
    objective(
        "labels for a week", {"event": "Feedback", "within": "168h"}, ".within", "from 1m to 24h"
    ),
    objective(
        "a ceiling of labels",
        {"event": "Feedback", "within": "1h", "maxRate": "0.1"},
        ".maxRate",
        "a rate needs all answers labelled",
    ),
)

STEPS = (
    steps(
        "prove at nothing",
        [{"prove": {}}, {"setWeight": 5}],
        "saw [0].prove after no setWeight, wanted prove after a setWeight above 0 and below 100%",
    ),
    steps(
        "prove at a weight of 0",
        [{"setWeight": "0%"}, {"prove": {}}, {"setWeight": 5}],
        "saw [1].prove after setWeight 0, wanted prove after a setWeight above 0 and below 100%",
    ),
    steps(
        "prove at everything",
        [{"setWeight": 50}, {"setWeight": "100%"}, {"prove": {}}],
        "saw [2].prove after setWeight 100%, wanted prove after a setWeight above 0 and below",
    ),
    steps(
        "weights that fall",
        [{"setWeight": 50}, {"pause": {}}, {"setWeight": 5}],
        "saw [2].setWeight not above [0].setWeight, wanted each setWeight above the one before",
    ),
    steps(
        "weights that stay",
        [{"setWeight": 5}, {"setWeight": 5}],
        "saw [1].setWeight not above [0].setWeight, wanted each setWeight above the one before",
    ),
    steps(
        "hold at nothing",
        [{"hold": {"minRequests": 9}}, {"setWeight": 5}],
        "saw [0].hold.minRequests after no setWeight, wanted hold with minRequests after a",
    ),
    steps(
        "hold at a weight of 0",
        [{"setWeight": 0}, {"hold": {"minRequests": 9}}, {"setWeight": 5}],
        "saw [1].hold.minRequests after setWeight 0, wanted hold with minRequests after a",
    ),
    steps(
        "a hold of nothing",
        [{"setWeight": 5}, {"hold": {}}],
        "wanted minRequests, duration or both",
        "[1].hold",
    ),
    steps(
        "a last weight of nothing",
        [{"setWeight": 0}],
        "saw no setWeight but 0, wanted a setWeight above 0 in some step",
    ),
    steps(
        "no weight at all",
        [{"pause": {}}],
        "saw no setWeight, wanted a setWeight above 0 in some step",
    ),
    steps(
        "two in one step",
        [{"setWeight": 5}, {"setWeight": 50, "prove": {}}],
        "saw setWeight, prove, wanted exactly one of setWeight, hold",
        "[1]",
    ),
    steps(
        "none in a step",
        [{"setWeight": 5}, {}],
        "saw none, wanted exactly one of setWeight, hold",
        "[1]",
    ),
    steps("a weight above all", [{"setWeight": 101}], PERCENT, "[0].setWeight"),
    steps("a weight without sign", [{"setWeight": "5"}], PERCENT, "[0].setWeight"),
)

REFUSED = (*FORMS, *NAMES, *SHAPES, *TOGETHER, *CHECKS, *OBJECTIVES, *STEPS)
