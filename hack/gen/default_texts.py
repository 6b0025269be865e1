"""Every default as a text for people, by kind and path: read from `weir_core.defaults` itself.

Its docstrings name the fields that they stand for, so none can be told wrongly or forgotten.
"""

import ast
import inspect
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import msgspec

from weir_core import defaults
from weir_core.defaults import DEFAULTS, NEGLIGIBLE_RATE, Defaults
from weir_core.figures import percent
from weir_core.snapshot import Objective, Step

_UNITS = ((3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms"))

WORDS = {
    "spec.monitoring.audits.percent": "0",
    "spec.monitoring.audits.duringRollout": "percent",
    "spec.behaviour.tiers[].accept": "none, any answer is accepted",
    "spec.rollout.paused": "false",
}
"""Defaults that are no value of `Defaults`."""


def default_texts() -> Mapping[str, str]:
    """Return the default of each field that has one, by its path; lists are `tiers[]`."""
    body = ast.parse(inspect.getsource(Defaults)).body[0]
    assert isinstance(body, ast.ClassDef)
    texts = dict(WORDS)
    for field, said in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            name, path = field.target.id, _said(said).partition(";")[0]
            texts[path] = _text(name, getattr(DEFAULTS, name))
    rates = ", ".join(f"{event} {_number(rate)}" for event, rate in NEGLIGIBLE_RATE.items())
    path = "spec.monitoring.objectives[].negligibleRate"
    assert path in inspect.getsource(defaults)
    return texts | {path: f"{rates}; at most a tenth of maxRate"}


def _said(node: ast.stmt) -> str:
    assert isinstance(node, ast.Expr), "a default says which field it stands for"
    assert isinstance(node.value, ast.Constant), "a default says which field it stands for"
    return str(node.value.value)


def _text(name: str, value: Any) -> str:
    if name.endswith("_ms"):
        return _duration(value)
    if name.endswith("_bp"):
        return percent(value)
    if isinstance(value, tuple):
        return ", ".join(_text("", one) for one in value)
    if isinstance(value, Step):
        return _step(value)
    if isinstance(value, Objective):
        return _objective(value)
    return _number(value) if isinstance(value, float) else str(value)


def _number(value: float) -> str:
    return f"{Decimal(repr(value)).normalize():f}"


def _duration(value_ms: int) -> str:
    size, unit = next((size, unit) for size, unit in _UNITS if value_ms % size == 0)
    return f"{value_ms // size}{unit}"


def _step(step: Step) -> str:
    if step.kind == "setWeight":
        return f"setWeight {percent(step.weight_bp)}"
    return f"hold {step.min_requests} requests" if step.kind == "hold" else step.kind


def _objective(objective: Objective) -> str:
    """Return an objective's name with what differs from an objective's own defaults."""
    plain = Objective(name="", event=objective.event)
    changed = [
        f"{_camel(field.name)} {_text('', getattr(objective, field.name))}"
        for field in msgspec.structs.fields(objective)
        if field.name not in ("name", "event")
        and getattr(objective, field.name) != getattr(plain, field.name)
    ]
    return f"{objective.name} ({', '.join((f'event {objective.event}', *changed))})"


def _camel(name: str) -> str:
    return re.sub("_(.)", lambda found: found[1].upper(), name)
