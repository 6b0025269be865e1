"""All that routers obey, as frozen values: compiled revisions, splits and policies.

These are the compiled forms of what people write (`resources`). Money is an integer of pico
units of the route's currency (1e-12), time an integer of milliseconds, a share an integer of
basis points (1/10,000). A snapshot is self-contained: whoever holds one needs no other source.
It refuses to know how requests travel (`cascade`) and how evidence is judged (`sequential`).
"""

from typing import Literal

import msgspec

CheckType = Literal["Finish", "Schema", "Pattern", "Confidence"]
FailureCause = Literal["Connect", "Timeout", "Overload", "ServerError", "BrokenStream"]
Event = Literal["Error", "Slow", "Invalid", "Violation", "Escalated", "Harm", "Feedback"]
Mode = Literal["Enforce", "Hold", "Observe"]
Commit = Literal["AfterVerify", "Prefix", "FirstToken"]
StepKind = Literal["setWeight", "hold", "pause", "prove"]

FULL_BP = 10_000
"""All of the traffic, in basis points."""


class Backend(msgspec.Struct, frozen=True, kw_only=True):
    """The frozen facts of one backend identity, as a revision of a route holds them.

    `url` has scheme, host and port, with an optional path prefix and no trailing slash; the
    API path (`/v1/chat/completions`) is appended to it. `model` is the name the upstream serves.
    `key` names a file in the router's keys folder, "" for none. Prices are pico units a token.
    """

    name: str
    identity: str
    url: str
    model: str
    key: str = ""
    input_price_pico: int = 0
    output_price_pico: int = 0
    capabilities: tuple[str, ...] = ()
    context_window: int = 0


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How much one router sends to one backend at once; the rest queues, then overflows."""

    max_in_flight: int = 256
    queue_length: int = 512
    queue_wait_ms: int = 30_000


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """Logistic model from logprob features to P(answer right): intercept + Σ weight·feature.

    Features are of the natural-log token logprobs of the answer: sum, mean, min, q10, tokens,
    and margin_mean, margin_min (top two of each place; these need top_logprobs).
    """

    method: str
    features: tuple[tuple[str, float], ...]
    intercept: float
    digest: str


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """A verifier (steers) or a monitor (measures) of one answer.

    `must_match` and `must_not_match` are RE2 patterns of type Pattern, "" for none;
    `min_probability` and `calibration` belong to Confidence. No calibration: never passes.
    """

    name: str
    type: CheckType
    must_match: str = ""
    must_not_match: str = ""
    min_probability: float = 1.0
    calibration: Calibration | None = None


class Tier(msgspec.Struct, frozen=True, kw_only=True):
    """One position in the cascade. `timeout_ms` 0 is the route's deadline alone.

    `system_prompt` "" leaves the request's messages as they are; `max_tokens` 0 leaves its cap.
    """

    name: str
    backend: Backend
    timeout_ms: int = 0
    system_prompt: str = ""
    max_tokens: int = 0
    accept: tuple[Check, ...] = ()


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """A CEL expression over signals, and the positions of its first and last tier."""

    name: str
    when: str
    start: int
    end: int


class Behaviour(msgspec.Struct, frozen=True, kw_only=True):
    """The versioned part of a route. `max_cost_pico` 0 is no budget.

    `prefix_tokens` are held of a stream before they are judged; 0 unless `commit` is Prefix.
    """

    deadline_ms: int
    max_attempts: int
    max_cost_pico: int = 0
    tiers: tuple[Tier, ...]
    rules: tuple[Rule, ...] = ()
    fallback_on: tuple[FailureCause, ...] = ()
    fallback: tuple[Backend, ...] = ()
    commit: Commit = "AfterVerify"
    prefix_tokens: int = 0
    on_exhausted: Literal["ReturnError", "ReturnLast"] = "ReturnError"


class Revision(msgspec.Struct, frozen=True, kw_only=True):
    """Immutable compiled behaviour with a name given once (`<route>-<10 hex>`).

    `content` is the canonical JSON that sameness is decided by.
    """

    name: str
    behaviour: Behaviour
    content: str


class Objective(msgspec.Struct, frozen=True, kw_only=True):
    """One SLO. `monitor` names the monitor of Invalid and Violation, "" for any.

    `of` and `over_ms` belong to Slow; `within_ms`, counted from the reply, to Feedback.
    `max_rate` and `negligible_rate` are probabilities, 0 for none. `share` is an integer,
    normalised by the sum over the objectives in Enforce.
    """

    name: str
    event: Event
    monitor: str = ""
    of: Literal["TimeToFirstToken", "Total"] = "TimeToFirstToken"
    over_ms: int = 0
    share: int = 1
    max_ratio: float = 1.0
    max_rate: float = 0.0
    negligible_rate: float = 0.0
    mode: Mode = "Enforce"
    within_ms: int = 0


class Audits(msgspec.Struct, frozen=True, kw_only=True):
    """Share of requests also answered for comparison, by a coin drawn before the arm.

    `reference` names a tier of the stable revision; Json compares values, Text whitespace-
    normalised content.
    """

    reference: str
    percent_bp: int = 0
    during_rollout_bp: int = 0
    compare: Literal["Json", "Text"] = "Text"


class Monitoring(msgspec.Struct, frozen=True, kw_only=True):
    """What is measured of the served answer, the same in both arms."""

    monitors: tuple[Check, ...] = ()
    audits: Audits | None = None
    objectives: tuple[Objective, ...] = ()


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a rollout; `hold` waits for both its requests and its time.

    `pause` with duration_ms 0 waits for a person.
    """

    kind: StepKind
    weight_bp: int = 0
    min_requests: int = 0
    duration_ms: int = 0


class RolloutPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How a change of behaviour is let in. Not versioned.

    `unit` Session draws and counts sessions by the header `header`; requests without it are
    units of their own. `max_duration_ms` 0 is no bound.
    """

    unit: Literal["Session", "Request"] = "Request"
    header: str = "x-session-id"
    steps: tuple[Step, ...] = ()
    bake_ms: int = 0
    holdback_bp: int = 1_000
    alpha: float = 0.01
    promote_alpha: float = 0.05
    promote_ratio: float = 2.0
    max_duration_ms: int = 0
    on_inconclusive: Literal["Hold", "Promote", "RollBack"] = "Hold"
    stable_revision: str = ""
    paused: bool = False
    retry_token: str = ""


class RoutePolicy(msgspec.Struct, frozen=True, kw_only=True):
    """One route as routers obey it now.

    `weight_bp` is the canary's share of new requests; `attempt` counts the tries of this canary
    from 1; `brake_alpha` is the α of the router's own test, 0 for none. `latched` lists the
    (revision, attempt) pairs whose trips must never be undone by a snapshot.
    """

    uid: str
    namespace: str
    name: str
    model_names: tuple[str, ...]
    stable: Revision
    canary: Revision | None = None
    attempt: int = 0
    weight_bp: int = 0
    monitoring: Monitoring = Monitoring()
    rollout: RolloutPolicy = RolloutPolicy()
    brake_alpha: float = 0.0
    latched: tuple[tuple[str, int], ...] = ()


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """Everything one router obeys. Routers take only greater versions: (term, number)."""

    version: tuple[int, int] = (0, 0)
    routes: tuple[RoutePolicy, ...] = ()
    limits: dict[str, Limits] = {}
    """By backend identity; absent means the defaults of `Limits`."""
