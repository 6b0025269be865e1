"""What people write of a route: behaviour (versioned), monitoring and rollout (not versioned).

Unions are one flat object with a `type`. Fields that stand together wrongly are found by
`crosscheck`; absent means the default of `compile`, and no default stands here.
"""

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import Field

from weir_core.forms import (
    MAX_PATTERN,
    Duration,
    FileName,
    Form,
    HeaderName,
    Label,
    Listed,
    ModelName,
    Number,
    ObjectName,
    Percent,
    Regex,
    SomeTime,
    Subdomain,
)
from weir_core.snapshot import CheckType, Commit, Event, FailureCause, Mode

Probability = Annotated[Number, Field(ge=0, le=1)]
Share = Annotated[int, Field(ge=1, le=1_000)]
MAX_TIERS = 8
MAX_PROMPT = 32_768
"""Characters of a tier's system prompt."""


class BackendRef(Form):
    """A ModelBackend of the same namespace."""

    name: ObjectName
    """The ModelBackend's name."""


class CalibrationRef(Form):
    """A key of a ConfigMap of the same namespace."""

    name: Subdomain
    """The ConfigMap's name."""
    key: FileName | None = None
    """The key in its data that holds the calibration."""


class CheckSpec(Form):
    """A verifier of a tier: all must pass for its answer to be accepted."""

    name: Label
    """What replies and metrics call the check; unique in its list."""
    type: CheckType
    """Finish: not cut off, not empty, no refusal. Schema: what response_format and tools ask for.
    Pattern: mustMatch and mustNotMatch. Confidence: a calibrated probability of being right."""
    must_match: Regex | None = None
    """Of Pattern: an RE2 pattern that has to be found in the answer."""
    must_not_match: Regex | None = None
    """Of Pattern: an RE2 pattern that must not be found in the answer."""
    method: Literal["Logprob"] | None = None
    """Of Confidence: what the probability is computed from."""
    min_probability: Probability | None = None
    """Of Confidence: the probability of being right that an answer needs."""
    calibration_ref: CalibrationRef | None = None
    """Of Confidence: where the calibration stands. Its bytes belong to the revision."""


class MonitorSpec(Form):
    """A measure of the answer that was served, the same in both arms."""

    name: Label
    """What objectives and metrics call the monitor; unique in its list."""
    type: Literal["Finish", "Schema", "Pattern"]
    """As of a tier's checks; what does not pass is Invalid or a Violation."""
    must_match: Regex | None = None
    """Of Pattern: an RE2 pattern that has to be found in the answer."""
    must_not_match: Regex | None = None
    """Of Pattern: an RE2 pattern that must not be found in the answer."""


class TierSpec(Form):
    """One position of the cascade."""

    name: Label
    """What rules, audits and replies call the tier; unique in its list."""
    backend_ref: BackendRef
    """The ModelBackend, of the same namespace, that answers."""
    timeout_ms: SomeTime | None = None
    """Bound of one call; absent, the route's deadline alone."""
    system_prompt: str | None = Field(None, max_length=MAX_PROMPT)
    """Put before the request's messages."""
    max_tokens: int | None = Field(None, ge=1, le=10_000_000)
    """Cap of the answer's tokens."""
    accept: Listed[CheckSpec] | None = Field(None, max_length=16)
    """Checks in the order they are made."""


class RuleSpec(Form):
    """Sends matching requests to a part of the tiers; the first match wins."""

    name: Label
    """What replies and `weir explain` call the rule; unique in its list."""
    when: str = Field(min_length=1, max_length=MAX_PATTERN)
    """A CEL expression over the request's signals, such as risk == 'legal' || prompt_tokens > 500.
    """
    start: Label | None = None
    """The first tier; absent, the cheapest."""
    end: Label | None = None
    """The last tier, included; absent, the last of all."""


class FallbackSpec(Form):
    """Where a request goes because a call failed."""

    causes: Listed[FailureCause] | None = Field(None, min_length=1, max_length=8)
    """Which failures; absent, all of them. Not `on`: YAML 1.1, and so kubectl, reads true."""
    backend_refs: Listed[BackendRef] = Field(min_length=1, max_length=8)
    """ModelBackends to ask instead, in this order."""


class StreamingSpec(Form):
    """When the first bytes of a stream may leave."""

    commit: Commit
    """AfterVerify: when the answer is accepted, so a tier's checks hold for streams too. Prefix:
    when its first tokens are accepted, the rest goes out unverified. FirstToken: at once."""
    prefix_tokens: int | None = Field(None, ge=1, le=1_024)
    """Of Prefix: how many tokens are held and judged."""


class BudgetSpec(Form):
    """What one request may cost."""

    max_cost_per_request: Annotated[Number, Field(gt=0)]
    """Bound of all calls of one request, in the currency of the backends' prices."""


class BehaviourSpec(Form):
    """The versioned part: any change is a new revision."""

    deadline_ms: SomeTime
    """One clock for all attempts, hedges and verification of a request."""
    max_attempts: int | None = Field(None, ge=1, le=16)
    """Calls that one request may cause, over all tiers and fallbacks."""
    budget: BudgetSpec | None = None
    """What one request may cost; absent, no bound."""
    tiers: Listed[TierSpec] = Field(min_length=1, max_length=MAX_TIERS)
    """Cheapest first."""
    rules: Listed[RuleSpec] | None = Field(None, max_length=32)
    """Which tiers a request may use, by its signals; the first match wins. No match: all tiers."""
    fallback: FallbackSpec | None = None
    """Where a request goes because a call failed; absent, to the next tier only."""
    streaming: StreamingSpec | None = None
    """When the first bytes of a stream may leave."""
    on_exhausted: Literal["ReturnError", "ReturnLast"] | None = None
    """What a client gets when no answer was accepted: an error, or the last answer there was."""


class AuditsSpec(Form):
    """Requests also answered by the reference tier, for comparison."""

    percent_bp: Percent | None = None
    """Share of requests audited while no canary is out."""
    during_rollout_bp: Percent | None = None
    """Share of requests audited while a canary is out."""
    reference: Label
    """A tier of the stable revision; its answer counts as right."""
    compare: Literal["Json", "Text"] | None = None
    """How answers are compared: as JSON values, or as text with equal whitespace."""


class ObjectiveSpec(Form):
    """One SLO that a canary is judged by."""

    name: Label
    """What verdicts and metrics call the objective; unique in its list."""
    event: Event
    """What is counted. Error: a failed call or reply. Slow: later than `over`. Invalid, Violation:
    a monitor did not pass. Escalated: a tier's answer was not accepted. Harm: an audit.
    Feedback: a label of /v1/feedback."""
    monitor: Label | None = None
    """Of Invalid and Violation; absent, any monitor."""
    of: Literal["TimeToFirstToken", "Total"] | None = None
    """Of Slow: which time is measured."""
    over_ms: SomeTime | None = None
    """Of Slow: the duration above which an answer is slow."""
    within_ms: SomeTime | None = None
    """Of Feedback: how long after its reply a label counts, 1m to 24h. A harmful one becomes
    evidence once all that was asked with it has had as long: after deadline + 2s + within."""
    share: Share | None = None
    """Part of alpha that this objective is given, relative to the sum of all in Enforce."""
    max_ratio: Annotated[Number, Field(ge=1, le=100)] | None = None
    """The canary's rate may be this many times stable's."""
    max_rate: Annotated[Number, Field(gt=0, lt=1)] | None = None
    """A ceiling of the rate, whatever stable does."""
    negligible_rate: Annotated[Number, Field(ge=0, lt=1)] | None = None
    """A rate proven to be lower promotes, whatever the ratio."""
    mode: Mode | None = None
    """Enforce rolls back, Hold only stops the steps, Observe only shows. Default: Enforce."""


class MonitoringSpec(Form):
    """What is measured; the same for both arms."""

    monitors: Listed[MonitorSpec] | None = Field(None, max_length=16)
    """Measures of the answers that were served."""
    audits: AuditsSpec | None = None
    """Requests also answered by a reference tier, for comparison; absent, none."""
    objectives: Listed[ObjectiveSpec] | None = Field(None, min_length=1, max_length=16)
    """The SLOs that a canary is judged by."""


class AssignmentSpec(Form):
    """What is drawn for an arm: a session or a request."""

    unit: Literal["Session", "Request"]
    """Session: all requests of one session have one arm. Request: each is drawn by itself."""
    header: HeaderName | None = None
    """Of Session: the request header that carries the session's id, in lower case."""


class HoldSpec(Form):
    """Waits for both."""

    min_requests: int | None = Field(None, ge=1, le=1_000_000_000)
    """Canary requests of this step whose outcome is known."""
    duration_ms: SomeTime | None = None
    """Time since the step began."""


class PauseSpec(Form):
    """Waits for a time, or without one for a person."""

    duration_ms: SomeTime | None = None
    """Time since the step began; absent, until `weir rollout resume`."""


class ProveSpec(Form):
    """Waits until the canary is proven no worse."""


class StepSpec(Form):
    """Exactly one of the four."""

    set_weight_bp: Percent | None = None
    """The canary's share of new requests; it rises from step to step."""
    hold: HoldSpec | None = None
    """Waits for requests, for a time, or for both."""
    pause: PauseSpec | None = None
    """Waits for a time, or without one for a person."""
    prove: ProveSpec | None = None
    """Waits until the canary is proven no worse."""


class BakeSpec(Form):
    """The old revision keeps a part of the traffic for a while after promotion."""

    duration_ms: Duration | None = None
    """How long it lasts; 0s is no bake."""
    holdback_bp: Percent | None = None
    """The part of the traffic that the old revision keeps."""


Alpha = Annotated[Number, Field(gt=0, le=Decimal("0.5"))]


class RolloutSpec(Form):
    """How a change of behaviour is let in."""

    assignment: AssignmentSpec | None = None
    """What is drawn for an arm: a session or a request."""
    steps: Listed[StepSpec] | None = Field(None, min_length=1, max_length=32)
    """How the canary's weight is raised and what is waited for in between, in this order."""
    bake: BakeSpec | None = None
    """What follows the steps: the old revision keeps a part of the traffic for a while."""
    alpha: Alpha | None = None
    """P(false rollback) of one attempt, over all objectives and all looks."""
    promote_alpha: Alpha | None = None
    """P(a canary that is promoteRatio times as bad is called proven), over all looks."""
    promote_ratio: Annotated[Number, Field(gt=1, le=100)] | None = None
    """A proof shows that the canary's rates are below this many times stable's."""
    max_duration_ms: SomeTime | None = None
    """Bound of the steps, counted from the first traffic and without the pauses of people."""
    on_inconclusive: Literal["Hold", "Promote", "RollBack"] | None = None
    """What follows when maxDuration passed and nothing was decided."""
    stable_revision: Label | None = None
    """Pins the stable revision by name."""
    paused: bool | None = None
    """Freezes the canary's weight; evidence and the brake go on."""
    retry_token: str | None = Field(None, max_length=128)
    """A changed token tries a rolled back revision again."""


class RouteSpec(Form):
    """Which models clients may ask for, and how they are answered."""

    model_names: Listed[ModelName] = Field(min_length=1, max_length=16)
    """What clients put in `model`; of two routes that claim one name the older has it."""
    behaviour: BehaviourSpec
    """How requests are answered. Versioned: any change is a new revision and is canaried."""
    monitoring: MonitoringSpec | None = None
    """What is measured of the answers that were served, the same for stable and canary."""
    rollout: RolloutSpec | None = None
    """How a change of behaviour is let in."""
