"""Compiles the parts of a route that are not versioned: monitoring and rollout."""

from decimal import Decimal

from weir_core.defaults import DEFAULTS, NEGLIGIBLE_RATE
from weir_core.route_spec import (
    AuditsSpec,
    MonitoringSpec,
    MonitorSpec,
    ObjectiveSpec,
    RolloutSpec,
    StepSpec,
)
from weir_core.snapshot import Audits, Check, Monitoring, Objective, RolloutPolicy, Step


def monitoring_of(spec: MonitoringSpec | None) -> Monitoring:
    """Return what is measured; without a word of it, the errors."""
    if spec is None:
        return Monitoring(objectives=DEFAULTS.objectives)
    objectives = tuple(_objective(one) for one in spec.objectives or ())
    return Monitoring(
        monitors=tuple(_monitor(one) for one in spec.monitors or ()),
        audits=_audits(spec.audits) if spec.audits else None,
        objectives=objectives or DEFAULTS.objectives,
    )


def rollout_of(spec: RolloutSpec | None) -> RolloutPolicy:
    """Return how a change is let in."""
    spec = spec or RolloutSpec.model_validate({})
    bake, assignment = spec.bake, spec.assignment
    bake_ms = bake.duration_ms if bake else None
    holdback_bp = bake.holdback_bp if bake else None
    return RolloutPolicy(
        unit=assignment.unit if assignment else DEFAULTS.unit,
        header=(assignment and assignment.header) or DEFAULTS.header,
        steps=tuple(_step(one) for one in spec.steps or ()) or DEFAULTS.steps,
        bake_ms=DEFAULTS.bake_ms if bake_ms is None else bake_ms,
        holdback_bp=DEFAULTS.holdback_bp if holdback_bp is None else holdback_bp,
        alpha=_number(spec.alpha, DEFAULTS.alpha),
        promote_alpha=_number(spec.promote_alpha, DEFAULTS.promote_alpha),
        promote_ratio=_number(spec.promote_ratio, DEFAULTS.promote_ratio),
        max_duration_ms=spec.max_duration_ms or DEFAULTS.max_duration_ms,
        on_inconclusive=spec.on_inconclusive or DEFAULTS.on_inconclusive,
        stable_revision=spec.stable_revision or "",
        paused=spec.paused or False,
        retry_token=spec.retry_token or "",
    )


def _number(written: Decimal | None, default: float) -> float:
    return default if written is None else float(written)


def _monitor(spec: MonitorSpec) -> Check:
    return Check(
        name=spec.name,
        type=spec.type,
        must_match=spec.must_match or "",
        must_not_match=spec.must_not_match or "",
    )


def _audits(spec: AuditsSpec) -> Audits:
    """Return the audits; a rollout is audited no less than the time outside it."""
    percent_bp = spec.percent_bp or 0
    during_bp = percent_bp if spec.during_rollout_bp is None else spec.during_rollout_bp
    return Audits(
        reference=spec.reference,
        percent_bp=percent_bp,
        during_rollout_bp=during_bp,
        compare=spec.compare or DEFAULTS.compare,
    )


def _objective(spec: ObjectiveSpec) -> Objective:
    ceiling = _number(spec.max_rate, 0.0)
    floor = NEGLIGIBLE_RATE.get(spec.event, 0.0)
    return Objective(
        name=spec.name,
        event=spec.event,
        monitor=spec.monitor or "",
        of=spec.of or DEFAULTS.of,
        over_ms=spec.over_ms or 0,
        within_ms=spec.within_ms or 0,
        share=spec.share or DEFAULTS.share,
        max_ratio=_number(spec.max_ratio, DEFAULTS.max_ratio),
        max_rate=ceiling,
        negligible_rate=_number(
            spec.negligible_rate, min(floor, ceiling / 10) if ceiling else floor
        ),
        mode=spec.mode or "Enforce",
    )


def _step(spec: StepSpec) -> Step:
    if spec.set_weight_bp is not None:
        return Step(kind="setWeight", weight_bp=spec.set_weight_bp)
    if spec.hold is not None:
        return Step(
            kind="hold",
            min_requests=spec.hold.min_requests or 0,
            duration_ms=spec.hold.duration_ms or 0,
        )
    if spec.pause is not None:
        return Step(kind="pause", duration_ms=spec.pause.duration_ms or 0)
    return Step(kind="prove")
