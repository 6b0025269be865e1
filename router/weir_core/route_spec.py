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
from weir_core.snapshot import CheckType, Event, FailureCause, Mode

Probability = Annotated[Number, Field(ge=0, le=1)]
Share = Annotated[int, Field(ge=1, le=1_000)]
MAX_TIERS = 8
MAX_PROMPT = 32_768
"""Characters of a tier's system prompt."""


class BackendRef(Form):
    """A ModelBackend of the same namespace."""

    name: ObjectName


class CalibrationRef(Form):
    """A key of a ConfigMap of the same namespace."""

    name: Subdomain
    key: FileName | None = None


class CheckSpec(Form):
    """A verifier of a tier: all must pass for its answer to be accepted."""

    name: Label
    type: CheckType
    must_match: Regex | None = None
    must_not_match: Regex | None = None
    method: Literal["Logprob"] | None = None
    min_probability: Probability | None = None
    """The calibrated probability of being right that an answer needs."""
    calibration_ref: CalibrationRef | None = None


class MonitorSpec(Form):
    """A measure of the answer that was served, the same in both arms."""

    name: Label
    type: Literal["Finish", "Schema", "Pattern"]
    must_match: Regex | None = None
    must_not_match: Regex | None = None


class TierSpec(Form):
    """One position of the cascade."""

    name: Label
    backend_ref: BackendRef
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
    when: str = Field(min_length=1, max_length=MAX_PATTERN)
    """A CEL expression over the request's signals."""
    start: Label | None = None
    """The first tier; absent, the cheapest."""
    end: Label | None = None
    """The last tier, included; absent, the last of all."""


class FallbackSpec(Form):
    """Where a request goes because a call failed."""

    causes: Listed[FailureCause] | None = Field(None, min_length=1, max_length=8)
    """Which failures; absent, all of them. Not `on`: YAML 1.1, and so kubectl, reads true."""
    backend_refs: Listed[BackendRef] = Field(min_length=1, max_length=8)


class StreamingSpec(Form):
    """When the first bytes of a stream may leave."""

    commit: Literal["AfterVerify", "FirstToken"]


class BudgetSpec(Form):
    """What one request may cost."""

    max_cost_per_request: Annotated[Number, Field(gt=0)]


class BehaviourSpec(Form):
    """The versioned part: any change is a new revision."""

    deadline_ms: SomeTime
    """One clock for all attempts, hedges and verification of a request."""
    max_attempts: int | None = Field(None, ge=1, le=16)
    budget: BudgetSpec | None = None
    tiers: Listed[TierSpec] = Field(min_length=1, max_length=MAX_TIERS)
    """Cheapest first."""
    rules: Listed[RuleSpec] | None = Field(None, max_length=32)
    fallback: FallbackSpec | None = None
    streaming: StreamingSpec | None = None
    on_exhausted: Literal["ReturnError", "ReturnLast"] | None = None


class AuditsSpec(Form):
    """Requests also answered by the reference tier, for comparison."""

    percent_bp: Percent | None = None
    during_rollout_bp: Percent | None = None
    reference: Label
    """A tier of the stable revision."""
    compare: Literal["Json", "Text"] | None = None


class ObjectiveSpec(Form):
    """One SLO that a canary is judged by."""

    name: Label
    event: Event
    monitor: Label | None = None
    """Of Invalid and Violation; absent, any monitor."""
    of: Literal["TimeToFirstToken", "Total"] | None = None
    over_ms: SomeTime | None = None
    share: Share | None = None
    max_ratio: Annotated[Number, Field(ge=1, le=100)] | None = None
    """The canary's rate may be this many times stable's."""
    max_rate: Annotated[Number, Field(gt=0, lt=1)] | None = None
    """A ceiling of the rate, whatever stable does."""
    negligible_rate: Annotated[Number, Field(ge=0, lt=1)] | None = None
    """A rate proven to be lower promotes, whatever the ratio."""
    mode: Mode | None = None


class MonitoringSpec(Form):
    """What is measured; the same for both arms."""

    monitors: Listed[MonitorSpec] | None = Field(None, max_length=16)
    audits: AuditsSpec | None = None
    objectives: Listed[ObjectiveSpec] | None = Field(None, min_length=1, max_length=16)


class AssignmentSpec(Form):
    """What is drawn for an arm: a session or a request."""

    unit: Literal["Session", "Request"]
    header: HeaderName | None = None
    """Carries the session's id."""


class HoldSpec(Form):
    """Waits for both."""

    min_requests: int | None = Field(None, ge=1, le=1_000_000_000)
    duration_ms: SomeTime | None = None


class PauseSpec(Form):
    """Waits for a time, or without one for a person."""

    duration_ms: SomeTime | None = None


class ProveSpec(Form):
    """Waits until the canary is proven no worse."""


class StepSpec(Form):
    """Exactly one of the four."""

    set_weight_bp: Percent | None = None
    hold: HoldSpec | None = None
    pause: PauseSpec | None = None
    prove: ProveSpec | None = None


class BakeSpec(Form):
    """The old revision keeps a part of the traffic for a while after promotion."""

    duration_ms: Duration | None = None
    holdback_bp: Percent | None = None


Alpha = Annotated[Number, Field(gt=0, le=Decimal("0.5"))]


class RolloutSpec(Form):
    """How a change of behaviour is let in."""

    assignment: AssignmentSpec | None = None
    steps: Listed[StepSpec] | None = Field(None, min_length=1, max_length=32)
    bake: BakeSpec | None = None
    alpha: Alpha | None = None
    """P(false rollback) of one attempt, over all objectives and all looks."""
    promote_alpha: Alpha | None = None
    promote_ratio: Annotated[Number, Field(gt=1, le=100)] | None = None
    max_duration_ms: SomeTime | None = None
    on_inconclusive: Literal["Hold", "Promote", "RollBack"] | None = None
    stable_revision: Label | None = None
    """Pins the stable revision by name."""
    paused: bool | None = None
    retry_token: str | None = Field(None, max_length=128)
    """A changed token tries a rolled back revision again."""


class RouteSpec(Form):
    """Which models clients may ask for, and how they are answered."""

    model_names: Listed[ModelName] = Field(min_length=1, max_length=16)
    behaviour: BehaviourSpec
    monitoring: MonitoringSpec | None = None
    rollout: RolloutSpec | None = None
