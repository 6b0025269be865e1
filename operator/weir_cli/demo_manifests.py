"""What the demo's team writes: its manifests, and the edits of them that it will try.

The same YAML that `weir serve` and kubectl take. The demo changes the product's behaviour in no
other way than by editing these files.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal

Verdict = Literal["Promoted", "RolledBack"]

ASSISTANT, SMALL, LARGE = "assistant", "small", "large"
"""The routes, by the model name that clients ask for."""
NAMESPACE = "default"
STRICTER = 0.02
"""How much surer than calibrated the good revision wants the small model to be."""
PROVEN = 20.0
"""1/promoteAlpha of the manifests: the evidence that promotes."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What ships with the models: what a token costs, what a sum of logprobs is worth.

    Prices are of a million tokens: one unit for each TFLOP of the model's arithmetic.
    """

    prices: Mapping[str, str]
    calibration: str
    min_probability: float


@dataclass(frozen=True, slots=True)
class Change:
    """One edit of one file, what it is to people, and what should come of it.

    `suspects` are the objectives that may be blamed for a rollback, none for a promotion.
    """

    name: str
    title: str
    route: str
    before: str
    after: str
    expected: Verdict
    suspects: tuple[str, ...] = ()

    @property
    def file(self) -> str:
        """Name of the file that is edited."""
        return f"{self.route}.yaml"


def facts() -> Facts:
    """Return the facts that the models' files hold. Raises KeyError for files of another kind."""
    models = _models()
    calibration = (files("weir_lab") / "data" / "calibration-small.json").read_text("utf8")
    return Facts(
        prices={name: f"{models[name]['flopsPerToken'] / 10**6:.6f}" for name in (SMALL, LARGE)},
        calibration=calibration,
        min_probability=float(json.loads(calibration)["recommended"]["minProbability"]),
    )


def parameters() -> dict[str, int]:
    """Return how many parameters each model has."""
    return {name: int(model["parameters"]) for name, model in _models().items()}


def _models() -> dict[str, Any]:
    text = (files("weir_lab") / "data" / "evaluation.json").read_text("utf8")
    models: dict[str, Any] = json.loads(text)["models"]
    return models


def changes(known: Facts) -> tuple[Change, ...]:
    """Return the edits in the order in which they are tried; each after the first is undone."""
    sure, stricter = known.min_probability, known.min_probability + STRICTER
    at, to = f'minProbability: "{sure:.3f}"', f'minProbability: "{stricter:.3f}"'
    return (
        Change(
            name="stricter threshold",
            title="the small model must be surer before its answer is taken",
            route=ASSISTANT,
            before=at,
            after=to,
            expected="Promoted",
        ),
        Change(
            name="broken in silence",
            title="5 levels a weight row: valid JSON, quick, and wrong",
            route=SMALL,
            before="backendRef: {name: small}",
            after="backendRef: {name: small-5-levels}",
            expected="RolledBack",
            suspects=("quality",),
        ),
        Change(
            name="broken in the cascade",
            title="the same model where its own doubt is heard",
            route=ASSISTANT,
            before="backendRef: {name: small}",
            after="backendRef: {name: small-5-levels}",
            expected="RolledBack",
            suspects=("escalations", "quality"),
        ),
        Change(
            name="format broken",
            title="maxTokens 8 cuts the JSON off",
            route=ASSISTANT,
            before="maxTokens: 64",
            after="maxTokens: 8",
            expected="RolledBack",
            suspects=("escalations", "format"),
        ),
        Change(
            name="accepts everything",
            title="threshold 0: the small model is always believed",
            route=ASSISTANT,
            before=to,
            after='minProbability: "0"',
            expected="RolledBack",
            suspects=("quality",),
        ),
    )


def manifests(known: Facts, urls: Mapping[str, str]) -> dict[str, str]:
    """Return the files by name. `urls` are of the model servers: small, large, small-5-levels."""
    backends = [
        _backend("small", SMALL, urls["small"], known),
        _backend("large", LARGE, urls["large"], known),
        _backend("small-5-levels", SMALL, urls["small-5-levels"], known),
    ]
    return {
        "models.yaml": "---\n".join(backends),
        "calibration.yaml": _calibration(known.calibration),
        "assistant.yaml": _ASSISTANT % {"sure": f"{known.min_probability:.3f}"} + _MONITORED,
        "small.yaml": _SMALL + _MONITORED,
        "large.yaml": _LARGE,
    }


def edited(text: str, change: Change) -> str:
    """Return the file's text after the edit. Raises ValueError if it does not fit, once."""
    if text.count(change.before) != 1:
        raise ValueError(f"{change.file}: saw {change.before!r} not once in {text!r}")
    return text.replace(change.before, change.after)


def _backend(name: str, model: str, url: str, known: Facts) -> str:
    return _BACKEND % {"name": name, "model": model, "url": url, "price": known.prices[model]}


def _calibration(text: str) -> str:
    indented = "\n".join(f"    {line}" for line in text.strip().splitlines())
    return f"{_CALIBRATION}{indented}\n"


def request(question: Mapping[str, Any]) -> dict[str, Any]:
    """Return a question's chat request as the demo's clients send it."""
    return {**question, "temperature": 0, "response_format": {"type": "json_object"}}


_BACKEND = """\
apiVersion: inference.weir.dev/v1alpha1
kind: ModelBackend
metadata: {name: %(name)s}
spec:
  model: {servedName: %(model)s}
  capabilities: [Chat, StructuredOutput, Logprobs]
  contextWindow: 256
  # One unit for each TFLOP of the model's arithmetic.
  pricing: {inputPerMillionTokens: "%(price)s", outputPerMillionTokens: "%(price)s"}
  external: {url: "%(url)s"}
"""

_CALIBRATION = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: small-cal}
data:
  calibration.json: |
"""

_ASSISTANT = """\
# Small first, verified; large when unsure.
apiVersion: inference.weir.dev/v1alpha1
kind: ModelRoute
metadata: {name: assistant}
spec:
  modelNames: [assistant]
  behaviour:
    deadline: 10s
    tiers:
    - name: small
      backendRef: {name: small}
      maxTokens: 64
      accept:
      - {name: whole, type: Finish}
      - {name: shape, type: Schema}
      - {name: sure, type: Confidence, method: Logprob, minProbability: "%(sure)s",
         calibrationRef: {name: small-cal}}
    - {name: large, backendRef: {name: large}}
"""

_SMALL = """\
# The small model answers everything; large steps in when it fails, and is what audits compare with.
apiVersion: inference.weir.dev/v1alpha1
kind: ModelRoute
metadata: {name: small}
spec:
  modelNames: [small]
  behaviour:
    deadline: 10s
    tiers:
    - {name: small, backendRef: {name: small}}
    - {name: large, backendRef: {name: large}}
"""

_LARGE = """\
apiVersion: inference.weir.dev/v1alpha1
kind: ModelRoute
metadata: {name: large}
spec:
  modelNames: [large]
  behaviour:
    deadline: 10s
    tiers:
    - {name: large, backendRef: {name: large}}
"""

_MONITORED = """\
  monitoring:
    monitors:
    - {name: json, type: Schema}
    audits: {duringRollout: 25, reference: large, compare: Json}
    objectives:
    - {name: errors, event: Error, share: 1, negligibleRate: "0.02"}
    - {name: format, event: Invalid, monitor: json, share: 1, negligibleRate: "0.02"}
    - {name: quality, event: Harm, share: 4, negligibleRate: "0.03"}
    - {name: escalations, event: Escalated, share: 2, maxRatio: "1.2"}
  rollout:
    steps:
    - {setWeight: 25}
    - {hold: {minRequests: 40}}
    - {setWeight: 50}
    - {prove: {}}
    bake: {duration: 1s}
    alpha: "0.01"
    promoteAlpha: "0.05"
    promoteRatio: "1.3"
"""
