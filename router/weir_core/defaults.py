"""Every default of the API, each written once. Absent means this, whatever the schema allows.

A changed default under `behaviour` changes the content of every route that leaves it out, and so
starts a canary of each on upgrade; the golden test says so.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

import msgspec

from weir_core.snapshot import Commit, Event, FailureCause, Objective, Step


class Defaults(msgspec.Struct, frozen=True):
    """One line a default, with the field that it stands for."""

    # ModelBackend
    capabilities: tuple[str, ...] = ("Chat", "Completions")
    """spec.capabilities"""
    max_in_flight: int = 256
    """spec.limits.maxInFlight"""
    queue_length: int = 512
    """spec.limits.queue.maxLength"""
    queue_wait_ms: int = 30_000
    """spec.limits.queue.maxWait"""
    tensor: int = 1
    """spec.vllm.parallelism.tensor"""
    pipeline: int = 1
    """spec.vllm.parallelism.pipeline"""
    shared_memory: str = "2Gi"
    """spec.vllm.sharedMemory"""
    startup_budget_ms: int = 1_200_000
    """spec.vllm.startup.budget"""
    pre_stop_delay_ms: int = 15_000
    """spec.vllm.drain.preStopDelay"""
    grace_period_ms: int = 120_000
    """spec.vllm.drain.gracePeriod"""
    replicas: int = 1
    """spec.replicas"""

    # ModelRoute, behaviour
    max_attempts: int = 4
    """spec.behaviour.maxAttempts"""
    calibration_key: str = "calibration.json"
    """spec.behaviour.tiers[].accept[].calibrationRef.key"""
    fallback_on: tuple[FailureCause, ...] = (
        "BrokenStream",
        "Connect",
        "Overload",
        "ServerError",
        "Timeout",
    )
    """spec.behaviour.fallback.causes"""
    commit: Commit = "AfterVerify"
    """spec.behaviour.streaming.commit"""
    prefix_tokens: int = 32
    """spec.behaviour.streaming.prefixTokens"""
    on_exhausted: Literal["ReturnError", "ReturnLast"] = "ReturnError"
    """spec.behaviour.onExhausted"""

    # ModelRoute, monitoring
    compare: Literal["Json", "Text"] = "Text"
    """spec.monitoring.audits.compare; duringRollout defaults to percent, and percent to 0."""
    objectives: tuple[Objective, ...] = (
        Objective(name="errors", event="Error", share=2, negligible_rate=0.005),
    )
    """spec.monitoring.objectives"""
    of: Literal["TimeToFirstToken", "Total"] = "TimeToFirstToken"
    """spec.monitoring.objectives[].of"""
    share: int = 1
    """spec.monitoring.objectives[].share"""
    max_ratio: float = 1.0
    """spec.monitoring.objectives[].maxRatio"""

    # ModelRoute, rollout
    unit: Literal["Session", "Request"] = "Request"
    """spec.rollout.assignment.unit"""
    header: str = "x-session-id"
    """spec.rollout.assignment.header"""
    steps: tuple[Step, ...] = (
        Step(kind="setWeight", weight_bp=500),
        Step(kind="hold", min_requests=200),
        Step(kind="setWeight", weight_bp=2_500),
        Step(kind="hold", min_requests=200),
        Step(kind="setWeight", weight_bp=5_000),
        Step(kind="prove"),
    )
    """spec.rollout.steps"""
    bake_ms: int = 600_000
    """spec.rollout.bake.duration"""
    holdback_bp: int = 1_000
    """spec.rollout.bake.holdback"""
    alpha: float = 0.01
    """spec.rollout.alpha"""
    promote_alpha: float = 0.05
    """spec.rollout.promoteAlpha"""
    promote_ratio: float = 2.0
    """spec.rollout.promoteRatio"""
    max_duration_ms: int = 86_400_000
    """spec.rollout.maxDuration"""
    on_inconclusive: Literal["Hold", "Promote", "RollBack"] = "Hold"
    """spec.rollout.onInconclusive"""


DEFAULTS = Defaults()

NEGLIGIBLE_RATE: Mapping[Event, float] = MappingProxyType(
    {
        "Error": 0.005,
        "Slow": 0.02,
        "Invalid": 0.005,
        "Violation": 0.002,
        "Escalated": 0.02,
        "Harm": 0.01,
    }
)
"""spec.monitoring.objectives[].negligibleRate, by event, at most a tenth of maxRate.

Without a floor a healthy service that never fails could not be promoted; "0" turns it off.
"""
