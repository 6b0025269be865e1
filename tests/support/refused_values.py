"""Rows of objects with one value that is wrong by itself, and what every row is made of.

`field` is the path that the refusal names and `told` a part of its sentence. `by` says what finds
it: a rule (CEL), the schema, or the strict decoding of fields. The core refuses all of them too.
"""

from dataclasses import dataclass

from support.raw import BACKEND, NOTHING, ROUTE, VLLM, changed

RULE, SCHEMA, FIELDS = "rule", "schema", "fields"


@dataclass(frozen=True)
class Row:
    """One bad object: `base` with `changes`, by dotted path."""

    name: str
    base: dict
    changes: dict
    field: str
    told: str
    by: str = RULE

    @property
    def id(self):
        return self.name.replace(" ", "-")

    @property
    def object(self):
        obj = self.base
        for path, value in self.changes.items():
            obj = changed(obj, path, value)
        return obj


CONFIDENCE = {
    "name": "sure",
    "type": "Confidence",
    "method": "Logprob",
    "minProbability": "0.8",
    "calibrationRef": {"name": "cal"},
}
DURATION = "wanted a duration such as 1500ms, 6s or 1h30m"
DECIMAL = 'wanted a decimal in quotes, such as "0.05"'
PERCENT = 'wanted a percent from 0 to 100: an integer such as 5, or a string such as "0.5%"'


def route(name, path, value, told, *, field=None, by=RULE):
    return Row(name, ROUTE, {path: value}, field or written(path), told, by)


def backend(name, path, value, told, *, field=None, by=RULE, base=BACKEND):
    return Row(name, base, {path: value}, field or written(path), told, by)


def written(path):
    """Return a dotted path as refusals write it: tiers.0.name is tiers[0].name."""
    return "".join(f"[{part}]" if part.isdigit() else f".{part}" for part in path.split("."))[1:]


def check(name, check, field, told):
    at = "spec.behaviour.tiers.0.accept"
    where = f"spec.behaviour.tiers[0].accept[0]{field}"
    return Row(name, ROUTE, {at: [check]}, where, told)


FORMS = (
    route("a name too long", "metadata.name", "a" * 53, "at most 52 lower-case letters"),
    route("a name with dots", "metadata.name", "a.b", "lower-case letters, digits and dashes"),
    route("a model of two words", "spec.modelNames.0", "two words", "wanted a model's name"),
    route("a duration without unit", "spec.behaviour.deadline", "30", DURATION),
    route("a duration of days", "spec.behaviour.deadline", "1d", DURATION),
    route("no time at all", "spec.behaviour.deadline", "0s", "above 0"),
    route("a negative budget", "spec.behaviour.budget.maxCostPerRequest", "-1", DECIMAL),
    route("a budget of nothing", "spec.behaviour.budget.maxCostPerRequest", "0.0", "above 0"),
    route("a comma for a point", "spec.rollout.alpha", "0,01", DECIMAL),
    route("an alpha too large", "spec.rollout.alpha", "0.51", "above 0 and at most 0.5"),
    route("an alpha of nothing", "spec.rollout.promoteAlpha", "0", "above 0 and at most 0.5"),
    route("a ratio of one", "spec.rollout.promoteRatio", "1", "above 1 and at most 100"),
    route("a tier in capitals", "spec.behaviour.tiers.0.name", "Small", "at most 63"),
    route("a backend with a dot", "spec.behaviour.tiers.0.backendRef.name", "a.b", "at most 52"),
    route("a holdback above all", "spec.rollout.bake.holdback", 101, PERCENT),
    route("a holdback below none", "spec.rollout.bake.holdback", -1, PERCENT),
    route("a holdback without sign", "spec.rollout.bake.holdback", "5", PERCENT),
    route(
        "a header in capitals",
        "spec.rollout.assignment",
        {"unit": "Session", "header": "X-Session"},
        "a header's name in lower case",
        field="spec.rollout.assignment.header",
    ),
    backend("a bare host", "spec.external.url", "api.example", "wanted a URL such as"),
    backend("a url with a user", "spec.external.url", "http://me@host", "wanted a URL such as"),
    backend("a url with a query", "spec.external.url", "http://host/?a=b", "wanted a URL such as"),
    backend(
        "a path as key",
        "spec.external.apiKeyRef",
        {"key": "../x"},
        "a file's name",
        field="spec.external.apiKeyRef.key",
    ),
    backend("weights of no scheme", "spec.model.uri", "org/model", "hf://, oci://", base=VLLM),
    backend("a quantity of words", "spec.vllm.sharedMemory", "2 GB", "512Mi or 2Gi", base=VLLM),
    backend("a grace of no unit", "spec.vllm.drain.gracePeriod", "120", DURATION, base=VLLM),
)

NAMES = (
    check(
        "a calibration in capitals",
        {**CONFIDENCE, "calibrationRef": {"name": "Cal"}},
        ".calibrationRef.name",
        "at most 253",
    ),
    backend(
        "a claim in capitals",
        "spec.vllm.weightsCache",
        {"persistentVolumeClaim": {"claimName": "C"}},
        "at most 253",
        base=VLLM,
        field="spec.vllm.weightsCache.persistentVolumeClaim.claimName",
    ),
    backend(
        "a secret in capitals",
        "spec.vllm.huggingFaceToken",
        {"secretKeyRef": {"name": "S", "key": "token"}},
        "at most 253",
        base=VLLM,
        field="spec.vllm.huggingFaceToken.secretKeyRef.name",
    ),
    *(
        backend(
            f"a price of words for {field}",
            "spec.pricing",
            {"inputPerMillionTokens": "1", "outputPerMillionTokens": "1", field: "cheap"},
            DECIMAL,
            field=f"spec.pricing.{field}",
        )
        for field in ("inputPerMillionTokens", "outputPerMillionTokens")
    ),
    *(
        route(
            f"too large a share as {field}",
            "spec.monitoring.audits",
            {"reference": "large", field: 101},
            PERCENT,
            field=f"spec.monitoring.audits.{field}",
        )
        for field in ("percent", "duringRollout")
    ),
)

SHAPES = (
    route("no deadline", "spec.behaviour.deadline", NOTHING, "Required value", by=SCHEMA),
    route("a deadline as number", "spec.behaviour.deadline", 30, "of type string", by=SCHEMA),
    route("an alpha as float", "spec.rollout.alpha", 0.01, "of type string", by=SCHEMA),
    route("attempts as text", "spec.behaviour.maxAttempts", "4", "of type integer", by=SCHEMA),
    route(
        "attempts too many", "spec.behaviour.maxAttempts", 17, "less than or equal to 16", by=SCHEMA
    ),
    route("no tiers", "spec.behaviour.tiers", [], "at least 1 items", by=SCHEMA),
    route("no steps", "spec.rollout.steps", [], "at least 1 items", by=SCHEMA),
    route(
        "a repeated model",
        "spec.modelNames",
        ["a", "b", "a"],
        "Duplicate value",
        by=SCHEMA,
        field="spec.modelNames[2]",
    ),
    route(
        "models too many",
        "spec.modelNames",
        [f"m{i}" for i in range(17)],
        "at most 16 items",
        by=SCHEMA,
    ),
    route("a percent as float", "spec.rollout.bake.holdback", 0.5, "integer", by=SCHEMA),
    route("a percent of nonsense", "spec.rollout.bake.holdback", "x%", "should match", by=SCHEMA),
    route("a percent above all", "spec.rollout.bake.holdback", "100.5%", "should match", by=SCHEMA),
    route("an empty rule", "spec.behaviour.rules.0.when", "", "at least 1 chars", by=SCHEMA),
    route(
        "an unknown commit", "spec.behaviour.streaming.commit", "Never", '"FirstToken"', by=SCHEMA
    ),
    route(
        "a prompt too long",
        "spec.behaviour.tiers.0.systemPrompt",
        "x" * 32_769,
        "more than 32768",
        by=SCHEMA,
    ),
    backend(
        "an unknown capability",
        "spec.capabilities",
        ["Logprob"],
        '"Logprobs"',
        by=SCHEMA,
        field="spec.capabilities[0]",
    ),
    backend(
        "a price as float",
        "spec.pricing",
        {"inputPerMillionTokens": 0.05, "outputPerMillionTokens": "1"},
        "of type string",
        by=SCHEMA,
        field="spec.pricing.inputPerMillionTokens",
    ),
    route("an unknown field", "spec.behaviour.tiers.0.timout", "6s", "unknown field", by=FIELDS),
    route(
        "an unknown step",
        "spec.rollout.steps",
        [{"setWait": 5}],
        "unknown field",
        by=FIELDS,
        field="spec.rollout.steps[0].setWait",
    ),
)
