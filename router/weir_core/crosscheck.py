"""Fields that are each well formed and yet cannot stand together.

Works on the raw object, not on the typed form, and passes over whatever has the wrong shape:
so these problems are told at once with those of single fields (which `resources` tells).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, get_args

import msgspec

from weir_core.defaults import DEFAULTS
from weir_core.expression import expression_trouble
from weir_core.forms import FormError, as_basis_points, as_decimal, as_duration_ms, one_of
from weir_core.snapshot import FULL_BP, CheckType, Event
from weir_core.vllm_flags import OWNED_FLAGS, flag_of, owned_flag

Raw = Mapping[str, Any]
Named = list[tuple[str, Raw]]
"""Objects of a list, each with its path."""


class Trouble(msgspec.Struct, frozen=True):
    """What is wrong, at the path `field` of the object."""

    field: str
    seen: str
    wanted: str


_CHECK_FIELDS = {
    "Pattern": {"mustMatch", "mustNotMatch"},
    "Confidence": {"method", "minProbability", "calibrationRef"},
}
_VARIANTS = frozenset({*get_args(CheckType), *get_args(Event)})
_EVENT_FIELDS = {
    "Slow": {"of", "over"},
    "Invalid": {"monitor"},
    "Violation": {"monitor"},
    "Feedback": {"within"},
}
ENDING_MS = 5_000
"""Of the grace period: what is left for a server to end by itself."""
LEAST_WITHIN_MS, MOST_WITHIN_MS = 60_000, 86_400_000
"""How long after its reply a request may be labelled."""


def backend_troubles(spec: object) -> Iterator[Trouble]:
    """Find what cannot stand together in a backend's spec."""
    raw = _object(spec)
    sources = [name for name in ("vllm", "external") if raw.get(name) is not None]
    if len(sources) != 1:
        seen = " and ".join(sources) or "neither"
        yield Trouble("spec", seen, "exactly one of vllm and external")
    if "vllm" in sources:
        if _child(raw, "model").get("uri") is None:
            yield Trouble("spec.model.uri", "nothing", "the place of the weights, for vllm")
        yield from _vllm(_child(raw, "vllm"))
    elif raw.get("replicas") is not None:
        wanted = "no replicas: only a vllm backend is run by Weir"
        yield Trouble("spec.replicas", _said(raw["replicas"]), wanted)


def route_troubles(spec: object) -> Iterator[Trouble]:
    """Find what cannot stand together in a route's spec."""
    raw = _object(spec)
    behaviour, monitoring = _child(raw, "behaviour"), _child(raw, "monitoring")
    yield from _repeated_texts(raw.get("modelNames"), "spec.modelNames")
    yield from _behaviour(behaviour)
    yield from _monitoring(monitoring, behaviour)
    yield from _steps(_child(raw, "rollout"))
    assignment = _child(_child(raw, "rollout"), "assignment")
    if assignment.get("unit") == "Request" and assignment.get("header") is not None:
        field = "spec.rollout.assignment.header"
        yield Trouble(field, _said(assignment["header"]), "no header with unit Request")


def _vllm(raw: Raw) -> Iterator[Trouble]:
    """Find flags that Weir owns, and a drain that has no time."""
    args = [arg if isinstance(arg, str) else "" for arg in _items(raw.get("args"))]
    for place, flag in enumerate(map(flag_of, args)):
        owned = owned_flag(flag)
        if owned is not None:
            wanted = f"no {owned}: {OWNED_FLAGS[owned]}"
            yield Trouble(f"spec.vllm.args[{place}]", f"'{flag}'", wanted)
    yield from _drain(_child(raw, "drain"))


def _drain(raw: Raw) -> Iterator[Trouble]:
    delay_ms = _told_ms(raw.get("preStopDelay"), DEFAULTS.pre_stop_delay_ms)
    grace_ms = _told_ms(raw.get("gracePeriod"), DEFAULTS.grace_period_ms)
    if delay_ms is None or grace_ms is None or grace_ms > delay_ms + ENDING_MS:
        return
    wanted = f"more than preStopDelay, {delay_ms / 1000:g}s, and {ENDING_MS // 1000}s to end in"
    yield Trouble("spec.vllm.drain.gracePeriod", f"{grace_ms / 1000:g}s", wanted)


def _told_ms(value: object, default_ms: int) -> int | None:
    """Return a duration, the default where none is told, None where its form is wrong."""
    read: int | None = default_ms if value is None else _read(as_duration_ms, value)
    return read


def _behaviour(raw: Raw) -> Iterator[Trouble]:
    at = "spec.behaviour"
    tiers, rules = _named(raw, "tiers", at), _named(raw, "rules", at)
    yield from _repeated_names(tiers)
    yield from _repeated_names(rules)
    deadline_ms = _read(as_duration_ms, raw.get("deadline"))
    for path, tier in tiers:
        timeout_ms = _read(as_duration_ms, tier.get("timeout"))
        if timeout_ms and deadline_ms and timeout_ms > deadline_ms:
            wanted = f"at most the deadline, {raw['deadline']}"
            yield Trouble(f"{path}.timeout", _said(tier["timeout"]), wanted)
        checks = _named(tier, "accept", path)
        yield from _repeated_names(checks)
        for check_path, check in checks:
            yield from _check(check_path, check)
    for path, rule in rules:
        yield from _rule(path, rule, [tier.get("name") for _, tier in tiers])
    yield from _streaming(f"{at}.streaming", _child(raw, "streaming"), tiers)


def _streaming(path: str, raw: Raw, tiers: Named) -> Iterator[Trouble]:
    """Find checks that cannot judge the first tokens of an answer."""
    if raw.get("commit") != "Prefix":
        if raw.get("prefixTokens") is not None:
            wanted = "no prefixTokens: it belongs to commit Prefix"
            yield Trouble(f"{path}.prefixTokens", _said(raw["prefixTokens"]), wanted)
        return
    for tier_path, tier in tiers:
        for check_path, check in _named(tier, "accept", tier_path):
            if check.get("type") == "Schema":
                wanted = "Finish, Pattern or Confidence, which streaming.commit Prefix can ask"
                yield Trouble(f"{check_path}.type", "'Schema', which no prefix shows", wanted)


def _rule(path: str, rule: Raw, tiers: list[object]) -> Iterator[Trouble]:
    if isinstance(rule.get("when"), str):
        trouble = expression_trouble(rule["when"])
        if trouble is not None:
            yield Trouble(f"{path}.when", trouble.seen, trouble.wanted)
    places: dict[str, int] = {"start": 0, "end": len(tiers) - 1}
    for field in ("start", "end"):
        name = rule.get(field)
        if not isinstance(name, str):
            continue
        if name not in tiers:
            yield Trouble(f"{path}.{field}", _said(name), f"a tier: {_one_of(name, tiers)}")
            return
        places[field] = tiers.index(name)
    if places["start"] > places["end"]:
        seen = f"'{rule.get('start')}' after '{rule.get('end')}'"
        yield Trouble(f"{path}.start", seen, "a tier that is not after the rule's end")


def _check(path: str, raw: Raw) -> Iterator[Trouble]:
    kind = raw.get("type")
    yield from _foreign_fields(path, raw, "type", _CHECK_FIELDS)
    if kind == "Pattern" and raw.get("mustMatch") is None and raw.get("mustNotMatch") is None:
        yield Trouble(path, "neither", "mustMatch, mustNotMatch or both, with type Pattern")
    if kind == "Confidence":
        for field in ("method", "minProbability", "calibrationRef"):
            if raw.get(field) is None:
                wanted = f"the field {field}, which type Confidence requires"
                yield Trouble(f"{path}.{field}", "nothing", wanted)


def _foreign_fields(
    path: str, raw: Raw, chooser: str, owners: Mapping[str, set[str]]
) -> Iterator[Trouble]:
    """Find fields that belong to another variant of a flat union."""
    kind = raw.get(chooser)
    if not isinstance(kind, str) or kind not in _VARIANTS:
        return
    for field in sorted(set().union(*owners.values()) - owners.get(kind, set())):
        if raw.get(field) is not None:
            having = " or ".join(one for one, fields in owners.items() if field in fields)
            wanted = f"no {field} with {chooser} {kind}: it belongs to {having}"
            yield Trouble(f"{path}.{field}", _said(raw[field]), wanted)


def _monitoring(raw: Raw, behaviour: Raw) -> Iterator[Trouble]:
    at = "spec.monitoring"
    monitors, objectives = _named(raw, "monitors", at), _named(raw, "objectives", at)
    yield from _repeated_names(monitors)
    yield from _repeated_names(objectives)
    for path, monitor in monitors:
        yield from _check(path, monitor)
    tiers = [tier.get("name") for _, tier in _named(behaviour, "tiers", "")]
    audits = _child(raw, "audits")
    reference = audits.get("reference")
    if isinstance(reference, str) and reference not in tiers:
        wanted = f"a tier: {_one_of(reference, tiers)}"
        yield Trouble(f"{at}.audits.reference", f"'{reference}'", wanted)
    names = [monitor.get("name") for _, monitor in monitors]
    for path, objective in objectives:
        yield from _objective(path, objective, names, audited=_audited(audits))
    if audits and not _audited(audits):
        wanted = "percent, duringRollout or both above 0"
        yield Trouble(f"{at}.audits", "no requests to audit", wanted)
    yield from _enforced(f"{at}.objectives", [objective for _, objective in objectives])


def _objective(path: str, raw: Raw, monitors: list[object], *, audited: bool) -> Iterator[Trouble]:
    event, monitor = raw.get("event"), raw.get("monitor")
    yield from _foreign_fields(path, raw, "event", _EVENT_FIELDS)
    if event == "Slow" and raw.get("over") is None:
        yield Trouble(f"{path}.over", "nothing", "the duration above which an answer is Slow")
    if event in ("Invalid", "Violation"):
        if not monitors:
            yield Trouble(path, "no monitors", f"a monitor: nothing else tells {event}")
        elif isinstance(monitor, str) and monitor not in monitors:
            wanted = f"a monitor: {_one_of(monitor, monitors)}"
            yield Trouble(f"{path}.monitor", f"'{monitor}'", wanted)
    if event == "Harm" and not audited:
        wanted = "spec.monitoring.audits with a percent above 0, or event Feedback for labels"
        yield Trouble(path, "no audits", wanted)
    if event == "Feedback":
        yield from _feedback(path, raw)
    ceiling = _read(as_decimal, raw.get("maxRate"))
    floor = _read(as_decimal, raw.get("negligibleRate"))
    if ceiling is not None and floor is not None and floor >= ceiling:
        wanted = f"less than maxRate, {ceiling}"
        yield Trouble(f"{path}.negligibleRate", _said(raw["negligibleRate"]), wanted)


def _feedback(path: str, raw: Raw) -> Iterator[Trouble]:
    """Find what labels cannot show: a window that is none, rates of those who gave no label."""
    within = raw.get("within")
    within_ms = _read(as_duration_ms, within)
    if within is None:
        wanted = "how long after its reply a label counts, which event Feedback requires"
        yield Trouble(f"{path}.within", "nothing", wanted)
    elif within_ms is not None and not LEAST_WITHIN_MS <= within_ms <= MOST_WITHIN_MS:
        yield Trouble(f"{path}.within", _said(within), "a duration from 1m to 24h")
    for field in ("maxRate", "negligibleRate"):
        if raw.get(field) is not None:
            wanted = f"no {field} with event Feedback: a rate needs all answers labelled, not some"
            yield Trouble(f"{path}.{field}", _said(raw[field]), wanted)


def _enforced(path: str, objectives: list[Raw]) -> Iterator[Trouble]:
    """Find that nothing gates a promotion; labels do not, for few people give any."""
    enforced = [one.get("event") for one in objectives if one.get("mode") in (None, "Enforce")]
    if objectives and not enforced:
        yield Trouble(path, "none in Enforce", "at least one with mode Enforce")
    elif enforced and all(event == "Feedback" for event in enforced):
        wanted = "one of another event with mode Enforce: labels prove no canary safe"
        yield Trouble(path, "only Feedback in Enforce", wanted)


def _audited(audits: Raw) -> bool:
    """Whether any request is audited; a share of the wrong form counts, it is told elsewhere."""
    written = [audits[one] for one in ("percent", "duringRollout") if audits.get(one) is not None]
    return any(_read(as_basis_points, one) != 0 for one in written)


def _steps(rollout: Raw) -> Iterator[Trouble]:
    """Find steps that wait for what cannot come, and weights that do not rise."""
    weight_bp, before_bp = 0, -1
    steps = _named(rollout, "steps", "spec.rollout")
    for path, step in steps:
        kinds = [name for name, value in step.items() if value is not None]
        if len(kinds) != 1:
            seen = " and ".join(map(str, kinds)) or "none"
            yield Trouble(path, seen, "exactly one of setWeight, hold, pause, prove")
            continue
        if kinds != ["setWeight"]:
            yield from _waiting(path, str(kinds[0]), _object(step[kinds[0]]), weight_bp)
            continue
        read_bp = _read(as_basis_points, step["setWeight"])
        if read_bp is None:
            return
        if read_bp <= before_bp:
            wanted = f"more than the weight before, {before_bp / 100:g}%"
            yield Trouble(f"{path}.setWeight", _said(step["setWeight"]), wanted)
        weight_bp = before_bp = read_bp
    if steps and weight_bp == 0:
        wanted = "a setWeight above 0 in some step"
        yield Trouble("spec.rollout.steps", "a last weight of 0", wanted)


def _waiting(path: str, kind: str, raw: Raw, weight_bp: int) -> Iterator[Trouble]:
    seen = f"a weight of {weight_bp / 100:g}%"
    if kind == "prove" and not 0 < weight_bp < FULL_BP:
        wanted = "a weight above 0 and below 100%: elsewhere there is nothing to compare"
        yield Trouble(f"{path}.prove", seen, wanted)
    if kind == "hold" and not raw:
        yield Trouble(f"{path}.hold", "neither", "minRequests, duration or both")
    if kind == "hold" and raw.get("minRequests") is not None and weight_bp == 0:
        yield Trouble(f"{path}.hold", seen, "a weight above 0, or no request ever comes")


def _repeated_names(items: Named) -> Iterator[Trouble]:
    seen: set[str] = set()
    for path, item in items:
        name = item.get("name")
        if isinstance(name, str) and name in seen:
            yield Trouble(f"{path}.name", f"'{name}' again", "a name used once in this list")
        elif isinstance(name, str):
            seen.add(name)


def _repeated_texts(value: object, path: str) -> Iterator[Trouble]:
    texts = _items(value)
    for place, text in enumerate(texts):
        if isinstance(text, str) and text in texts[:place]:
            yield Trouble(f"{path}[{place}]", f"'{text}' again", "each name once")


def _one_of(name: str, known: Iterable[object]) -> str:
    return one_of(name, [one for one in known if isinstance(one, str)])


def _said(value: object) -> str:
    match value:
        case str():
            return f"'{value[:60]}'"
        case bool() | int() | float():
            return "a number" if abs(value) > 1e12 else str(value)
    return "a value"


def _read(reader: Callable[[object], Any], value: object) -> Any:
    """Return the value read, None where its form is wrong (that is told elsewhere)."""
    try:
        return reader(value)
    except FormError:
        return None


def _object(value: object) -> Raw:
    return value if isinstance(value, Mapping) else {}


def _child(raw: Raw, name: str) -> Raw:
    return _object(raw.get(name))


def _items(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _named(raw: Raw, name: str, at: str) -> Named:
    items = _items(raw.get(name))
    return [
        (f"{at}.{name}[{place}]", item)
        for place, item in enumerate(items)
        if isinstance(item, Mapping)
    ]
