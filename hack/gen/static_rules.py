"""What can be wrong with one object by itself, as CEL that the API server runs at every write.

Each rule is one that `weir_core.crosscheck` knows too; a test holds the two together. What a
rule cannot see (other objects, expressions) is told by the operator in condition Accepted.
"""

from collections.abc import Mapping

from cel_rules import (
    FORBIDDEN,
    REQUIRED,
    ZERO,
    Rule,
    belongs,
    first_wrong,
    is_percent,
    most_items,
    needs,
    places,
    quoted,
    unique_names,
)
from pydantic import BaseModel
from step_rules import ONE_KIND, STEP_RULES

from weir_core.backend_spec import BackendSpec, Drain
from weir_core.crosscheck import ENDING_MS, LEAST_WITHIN_MS, MOST_WITHIN_MS
from weir_core.defaults import DEFAULTS
from weir_core.forms import DECIMAL_PATTERN, DURATION_PATTERN
from weir_core.revision_spec import RevisionSpec
from weir_core.route_spec import (
    AssignmentSpec,
    AuditsSpec,
    BehaviourSpec,
    CheckSpec,
    HoldSpec,
    MonitoringSpec,
    MonitorSpec,
    ObjectiveSpec,
    RolloutSpec,
    RouteSpec,
    StepSpec,
    StreamingSpec,
    TierSpec,
)
from weir_core.vllm_flags import LEAST_SHORTENED, OWNED_FLAGS

_PATTERN = (
    belongs("mustMatch", "type", "Pattern"),
    belongs("mustNotMatch", "type", "Pattern"),
    Rule(
        "self.type != 'Pattern' || has(self.mustMatch) || has(self.mustNotMatch)",
        "type Pattern needs mustMatch, mustNotMatch or both",
    ),
)

_DURATION, _DECIMAL = quoted(DURATION_PATTERN), quoted(DECIMAL_PATTERN)
_TIERS, _RULES = most_items(BehaviourSpec, "tiers"), most_items(BehaviourSpec, "rules")
_OBJECTIVES = most_items(MonitoringSpec, "objectives")


def _too_slow(tier: str) -> str:
    return (
        f"has({tier}.timeout) && {tier}.timeout.matches({_DURATION})"
        f" && duration({tier}.timeout) > duration(self.deadline)"
    )


def _tier_of(field: str) -> Rule:
    """Say that a rule's first or last tier is one."""

    def lost(rule: str) -> str:
        return f"has({rule}.{field}) && !self.tiers.exists(t, t.name == {rule}.{field})"

    return Rule(
        f"!has(self.rules) || !self.rules.exists(r, {lost('r')})",
        f"wanted the name of a tier as {field} of each rule",
        field=".rules",
        expression=f"'saw {field} \\'' + {first_wrong('self.rules', _RULES, lost)}.{field}"
        " + '\\', wanted the name of a tier'",
    )


def _backwards(rule: str) -> str:
    """Whether a rule starts at a tier after its end."""
    each = places(_TIERS)
    before = f"{each}.exists(k, k < j && self.tiers[k].name == {rule}.end)"
    start = f"j < self.tiers.size() && self.tiers[j].name == {rule}.start"
    return f"has({rule}.start) && has({rule}.end) && {each}.exists(j, {start} && {before})"


def _nameless(objective: str) -> str:
    """Whether an objective names a monitor that is none."""
    return (
        f"{objective}.event in ['Invalid', 'Violation'] && has({objective}.monitor)"
        f" && !self.monitors.exists(m, m.name == {objective}.monitor)"
    )


_NO_AUDIT = " && ".join(
    f"(!has(self.{one}) || {is_percent(f'self.{one}', 0, ZERO)})"
    for one in ("percent", "duringRollout")
)


def _told(field: str, default_ms: int) -> str:
    """Return CEL for a duration that has a default."""
    return f"(has(self.{field}) ? duration(self.{field}) : duration('{default_ms}ms'))"


_NO_TIME = (
    f"{_told('gracePeriod', DEFAULTS.grace_period_ms)}"
    f" <= {_told('preStopDelay', DEFAULTS.pre_stop_delay_ms)} + duration('{ENDING_MS}ms')"
)
_NO_TIMES = " || ".join(
    f"(has(self.{one}) && !self.{one}.matches({_DURATION}))"
    for one in ("gracePeriod", "preStopDelay")
)

_OBJECT_RULES: Mapping[type[BaseModel], tuple[Rule, ...]] = {
    BackendSpec: (
        Rule("has(self.vllm) != has(self.external)", "wanted exactly one of vllm and external"),
        Rule(
            "!has(self.vllm) || has(self.model.uri)",
            "vllm needs the place of the weights, such as hf://org/model",
            field=".model.uri",
            reason=REQUIRED,
        ),
        Rule(
            "has(self.vllm) || !has(self.replicas)",
            "replicas belong to vllm: Weir runs no external backend",
            field=".replicas",
            reason=FORBIDDEN,
        ),
    ),
    Drain: (
        Rule(
            f"{_NO_TIMES} || !({_NO_TIME})",
            f"wanted more than preStopDelay and {ENDING_MS // 1000}s to end in",
            field=".gracePeriod",
        ),
    ),
    RouteSpec: (
        Rule(
            "!has(self.monitoring) || !has(self.monitoring.audits)"
            " || self.behaviour.tiers.exists(t, t.name == self.monitoring.audits.reference)",
            "wanted the name of a tier",
            field=".monitoring.audits.reference",
            expression="'saw \\'' + self.monitoring.audits.reference"
            " + '\\', wanted the name of a tier'",
        ),
    ),
    BehaviourSpec: (
        Rule(
            f"!self.deadline.matches({_DURATION}) || !self.tiers.exists(t, {_too_slow('t')})",
            "wanted no timeout of a tier above the deadline",
            field=".tiers",
            expression=f"'saw timeout ' + {first_wrong('self.tiers', _TIERS, _too_slow)}.timeout"
            " + ', wanted at most the deadline, ' + self.deadline",
        ),
        _tier_of("start"),
        _tier_of("end"),
        Rule(
            f"!has(self.rules) || !self.rules.exists(r, {_backwards('r')})",
            "wanted no rule that starts at a tier after its end",
            field=".rules",
            expression=f"'saw rule \\'' + {first_wrong('self.rules', _RULES, _backwards)}.name"
            " + '\\' start at a tier after its end'",
        ),
        Rule(
            "!has(self.streaming) || self.streaming.commit != 'Prefix'"
            " || !self.tiers.exists(t, has(t.accept) && t.accept.exists(c, c.type == 'Schema'))",
            "wanted no check of type Schema with streaming.commit Prefix: no prefix shows it",
            field=".tiers",
        ),
    ),
    StreamingSpec: (belongs("prefixTokens", "commit", "Prefix"),),
    CheckSpec: (
        *_PATTERN,
        *(belongs(one, "type", "Confidence") for one in ("method", "minProbability")),
        belongs("calibrationRef", "type", "Confidence"),
        *(needs(one, "type", "Confidence") for one in ("method", "minProbability")),
        needs("calibrationRef", "type", "Confidence"),
    ),
    MonitorSpec: _PATTERN,
    MonitoringSpec: (
        Rule(
            "!has(self.objectives) || (has(self.monitors) && self.monitors.size() > 0)"
            " || !self.objectives.exists(o, o.event in ['Invalid', 'Violation'])",
            "an objective of Invalid or Violation needs a monitor: nothing else tells",
            field=".monitors",
            reason=REQUIRED,
        ),
        Rule(
            "!has(self.objectives) || !has(self.monitors)"
            f" || !self.objectives.exists(o, {_nameless('o')})",
            "wanted the name of a monitor in each objective",
            field=".objectives",
            expression="'saw monitor \\'' + "
            f"{first_wrong('self.objectives', _OBJECTIVES, _nameless)}.monitor"
            " + '\\', wanted the name of one of spec.monitoring.monitors'",
        ),
        Rule(
            "!has(self.objectives) || has(self.audits)"
            " || !self.objectives.exists(o, o.event == 'Harm')",
            "an objective of Harm needs audits",
            field=".audits",
            reason=REQUIRED,
        ),
    ),
    AuditsSpec: (Rule(f"!({_NO_AUDIT})", "wanted percent, duringRollout or both above 0"),),
    ObjectiveSpec: (
        *(belongs(one, "event", "Slow") for one in ("of", "over")),
        belongs("monitor", "event", "Invalid", "Violation"),
        needs("over", "event", "Slow"),
        belongs("within", "event", "Feedback"),
        needs("within", "event", "Feedback"),
        Rule(
            f"!has(self.within) || !self.within.matches({_DURATION})"
            f" || (duration(self.within) >= duration('{LEAST_WITHIN_MS // 60_000}m')"
            f" && duration(self.within) <= duration('{MOST_WITHIN_MS // 3_600_000}h'))",
            "wanted a duration from 1m to 24h",
            field=".within",
            expression="'saw ' + self.within + ', wanted a duration from 1m to 24h'",
        ),
        *(
            Rule(
                f"self.event != 'Feedback' || !has(self.{one})",
                "belongs to other events: a rate needs all answers labelled, not some",
                field=f".{one}",
                reason=FORBIDDEN,
            )
            for one in ("maxRate", "negligibleRate")
        ),
        Rule(
            "!has(self.maxRate) || !has(self.negligibleRate)"
            f" || !self.maxRate.matches({_DECIMAL}) || !self.negligibleRate.matches({_DECIMAL})"
            " || double(self.negligibleRate) < double(self.maxRate)",
            "wanted less than maxRate",
            field=".negligibleRate",
            expression="'saw ' + self.negligibleRate"
            " + ', wanted less than maxRate, ' + self.maxRate",
        ),
    ),
    AssignmentSpec: (
        Rule(
            "self.unit != 'Request' || !has(self.header)",
            "header belongs to unit Session",
            field=".header",
            reason=FORBIDDEN,
        ),
    ),
    StepSpec: (ONE_KIND,),
    HoldSpec: (
        Rule(
            "has(self.minRequests) || has(self.duration)",
            "wanted minRequests, duration or both",
        ),
    ),
    RevisionSpec: (
        Rule(
            "self == oldSelf",
            "a revision never changes: edit the ModelRoute or ModelBackend that it is of",
            reason=FORBIDDEN,
        ),
    ),
}

_LIST_RULES: Mapping[tuple[type[BaseModel], str], tuple[Rule, ...]] = {
    **{
        (model, field): (unique_names(model, field),)
        for model, field in (
            (BehaviourSpec, "tiers"),
            (BehaviourSpec, "rules"),
            (TierSpec, "accept"),
            (MonitoringSpec, "monitors"),
        )
    },
    (MonitoringSpec, "objectives"): (
        unique_names(MonitoringSpec, "objectives"),
        Rule(
            "self.exists(o, o.event != 'Feedback' && (!has(o.mode) || o.mode == 'Enforce'))",
            "wanted at least one objective with mode Enforce, other than Feedback: labels prove no"
            " canary safe",
        ),
    ),
    (RolloutSpec, "steps"): STEP_RULES,
}

NAME = Rule(
    "self.metadata.name.size() <= 52 && !self.metadata.name.contains('.')",
    "wanted a name of at most 52 lower-case letters, digits and dashes: with ten digits more it"
    " names a Service",
    field=".metadata.name",
)
SAME_NAME = Rule(
    "self.metadata.name == self.spec.revision",
    "wanted metadata.name to be spec.revision",
    field=".metadata.name",
)


def object_rules(model: type[BaseModel]) -> tuple[Rule, ...]:
    """Return the rules of an object."""
    return _OBJECT_RULES.get(model, ())


def list_rules(model: type[BaseModel], field: str) -> tuple[Rule, ...]:
    """Return the rules of a list in an object."""
    return _LIST_RULES.get((model, field), ())


def item_rules(path: str) -> tuple[Rule, ...]:
    """Return the rules of each item of the list at `path`."""
    return tuple(map(_unowned, OWNED_FLAGS)) if path == "spec.vllm.args" else ()


def _unowned(flag: str) -> Rule:
    """Refuse a flag that Weir owns, in each spelling that vLLM reads."""
    return Rule(
        f"!self.matches({quoted(f'^{_spelled(flag)}{_END}')})",
        f"wanted no {flag}: {OWNED_FLAGS[flag]}",
        reason=FORBIDDEN,
    )


_END = r"([=.\s]|$)"
"""What a flag ends before: its value, a key of it, nothing."""


def _spelled(flag: str) -> str:
    """Return a pattern of a flag, of its beginnings, and of one letter with a number joined."""
    if flag.startswith("--"):
        return _shortened(flag)
    if len(flag) == 2:
        return f"{flag}[0-9]*"
    first = next(one for one in OWNED_FLAGS if one.startswith(flag[:2]))
    return f"{flag[:2]}({flag[2:]})?" if first == flag else flag


def _shortened(flag: str) -> str:
    """Return a pattern of a long flag and of its beginnings of at least four signs."""
    signs = ["[-_]" if sign == "-" else sign for sign in flag]
    signs[0] = "-"
    pattern = ""
    for sign in reversed(signs[LEAST_SHORTENED:]):
        pattern = f"({sign}{pattern})?"
    return "".join(signs[:LEAST_SHORTENED]) + pattern
