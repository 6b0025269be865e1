"""Why: which revision, rule, tiers and checks a request would meet, without calling a model."""

from collections.abc import Collection
from typing import Any

from weir_core.evidence import CANARY, STABLE
from weir_core.routing import UNKNOWN, draw, place
from weir_core.snapshot import FULL_BP, Check, Tier
from weir_router import dialect
from weir_router.dialect import Refusal
from weir_router.plan import Given, choose, given, seen, session_name
from weir_router.table import ARM_NAMES, Route, Table


def explain(table: Table, body: bytes, headers: dict[str, str]) -> dict[str, Any]:
    """Return the decision for a chat request (or a completion, when it has a prompt)."""
    request = dialect.parse("chat", body)
    if isinstance(request, Refusal) and request.code == "missing_required_parameter":
        completion = dialect.parse("completion", body)
        request = request if isinstance(completion, Refusal) else completion
    if isinstance(request, Refusal):
        return _refused(request)
    route = table.by_model.get(request.body.model)
    if route is None:
        known = ", ".join(sorted(table.by_model)) or "none"
        message = f"no route serves {request.body.model!r}; known: {known}"
        return _refused(Refusal(404, "model_not_found", message))
    lower = {name.lower(): value for name, value in headers.items()}
    session = session_name(lower.get(route.policy.rollout.header.lower(), "").encode())
    declared = given([(name.encode(), value.encode()) for name, value in lower.items()])
    if isinstance(declared, Refusal):
        return _refused(declared)
    return {
        "route": route.key,
        "session": session,
        "sessionHeader": route.policy.rollout.header,
        "draw": _draw(route, session),
        "arms": [_arm(route, position, request, declared) for position in _positions(route)],
    }


def _refused(refusal: Refusal) -> dict[str, Any]:
    return {"refused": {"status": refusal.status, "code": refusal.code, "why": refusal.message}}


def _positions(route: Route) -> list[int]:
    return [STABLE, CANARY] if route.in_rollout else [STABLE]


def _draw(route: Route, session: str) -> str:
    if not route.in_rollout:
        return "stable: no canary has traffic"
    weight = f"{route.policy.weight_bp / 100:g}%"
    if route.policy.rollout.unit == "Session" and session:
        arm = ARM_NAMES[draw(route.policy, session=session, coin=0.0)]
        at = place(route.policy, session) / FULL_BP
        return f"{arm}: the session stands at {at:.1%}, the canary has the first {weight}"
    return f"canary with probability {weight}, else stable"


def _arm(route: Route, position: int, request: dialect.Request, declared: Given) -> dict[str, Any]:
    arm = route.arm(position)
    chosen, signals = choose(arm, request, declared), seen(arm, request, declared)
    known = {name: signals[name] for name in sorted(arm.rules.names)}
    tiers = arm.behaviour.tiers[chosen.start : chosen.end + 1]
    return {
        "arm": arm.name,
        "revision": arm.revision,
        "rule": _rule(chosen.rule, declared, known) if arm.behaviour.rules else "none: all tiers",
        "seen": known,
        "tiers": [_tier(tier, last=tier is tiers[-1]) for tier in tiers],
        "deadlineMs": min(arm.behaviour.deadline_ms, declared.deadline_ms or 10**9),
        "maxAttempts": arm.behaviour.max_attempts,
        "fallback": [backend.name for backend in arm.behaviour.fallback],
    }


def _rule(name: str, declared: Given, asked: Collection[str]) -> str:
    if not name:
        return "none matched: all tiers"
    unknown = " (no x-weir-risk: an undeclared risk counts as risky)"
    return name + (unknown if declared.risk == UNKNOWN and "risk" in asked else "")


def _tier(tier: Tier, *, last: bool) -> dict[str, Any]:
    refused = "an error, or the last answer (onExhausted)" if last else "the next tier"
    return {
        "tier": tier.name,
        "backend": tier.backend.name,
        "model": tier.backend.model,
        "accepts": [_check(check) for check in tier.accept] or ["everything"],
        "otherwise": refused if tier.accept else "nothing to refuse",
    }


def _check(check: Check) -> str:
    if check.type == "Confidence":
        return f"{check.name}: P(right) ≥ {check.min_probability:g}"
    if check.type == "Pattern":
        parts = [f"matches {check.must_match}" if check.must_match else ""]
        parts.append(f"lacks {check.must_not_match}" if check.must_not_match else "")
        return f"{check.name}: {' and '.join(part for part in parts if part)}"
    return f"{check.name}: {check.type}"
