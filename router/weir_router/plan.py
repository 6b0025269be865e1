"""What is known and decided of a request before its first call: headers, tiers, plan.

It refuses to know which arm a request gets (`serve`) and how its calls go (`walk`).
"""

import hashlib
from collections.abc import Iterable
from typing import Any

import msgspec

from weir_core.routing import UNKNOWN, Chosen
from weir_core.turns import Plan
from weir_router import dialect
from weir_router.dialect import Refusal, Request
from weir_router.table import Arm

MAX_SESSION = 128
"""Characters of a session's name that are kept; of a longer one, its digest is."""
MAX_TRACEPARENT = 128


class Given(msgspec.Struct, frozen=True, kw_only=True):
    """What the caller declared in headers; `deadline_ms` 0 is the route's own."""

    hops: int = 0
    deadline_ms: int = 0
    risk: str = UNKNOWN
    task: str = UNKNOWN
    user_tier: str = UNKNOWN


def session_name(value: bytes) -> str:
    """Return the name of a session, short however long the header is."""
    if len(value) <= MAX_SESSION:
        return value.decode("latin-1")
    return hashlib.blake2b(value, digest_size=16).hexdigest()


def traceparent(value: bytes) -> bytes:
    """Return the header as it goes on to upstreams, b"" for one that would get it refused."""
    return value if len(value) <= MAX_TRACEPARENT else b""


def given(headers: Iterable[tuple[bytes, bytes]]) -> Given | Refusal:
    """Return what the caller declared, or a 400 that names the bad header."""
    numbers = {b"x-weir-hops": 0, b"x-weir-deadline-ms": 0}
    words = {b"x-weir-risk": UNKNOWN, b"x-weir-task": UNKNOWN, b"x-weir-user-tier": UNKNOWN}
    for name, value in headers:
        if not name.startswith(b"x-weir-"):
            continue
        if name in numbers:
            if not value.isdigit() or len(value) > 9:
                seen = value[:40].decode("latin-1")
                name_text = name.decode()
                return Refusal(
                    400, "invalid_header", f"{name_text}: saw {seen!r}, wanted a whole number"
                )
            numbers[name] = int(value)
        elif name in words:
            words[name] = value[:100].decode("latin-1").strip() or UNKNOWN
    return Given(
        hops=numbers[b"x-weir-hops"],
        deadline_ms=numbers[b"x-weir-deadline-ms"],
        risk=words[b"x-weir-risk"],
        task=words[b"x-weir-task"],
        user_tier=words[b"x-weir-user-tier"],
    )


def choose(arm: Arm, request: Request, given: Given) -> Chosen:
    """Return the tiers that the arm's rules allow this request."""
    return arm.rules.choose(seen(arm, request, given))


def seen(arm: Arm, request: Request, given: Given) -> dict[str, Any]:
    """Return all that rules may ask of the request; nothing where the arm's ask nothing."""
    if not arm.rules.names:
        return {}
    known = dialect.signals(request, given.deadline_ms or arm.behaviour.deadline_ms)
    known.update(risk=given.risk, task=given.task, user_tier=given.user_tier)
    return known


def plan_for(
    arm: Arm,
    chosen: Chosen,
    *,
    request: Request,
    hops: int,
    deadline_ms: int,
    now_s: float,
) -> Plan:
    """Return the plan of a request under one arm; `deadline_ms` 0 is the arm's own.

    A byte-level tokeniser makes at most one token of a byte, and the JSON around a message is
    longer than any template's tokens for it: the body's size bounds the prompt's tokens.
    """
    behaviour = arm.behaviour
    within_ms = min(behaviour.deadline_ms, deadline_ms or behaviour.deadline_ms)
    return Plan(
        revision=arm.revision,
        behaviour=behaviour,
        start=chosen.start,
        end=chosen.end,
        deadline_s=now_s + within_ms / 1000,
        stream=bool(request.body.stream),
        prompt_tokens=request.size,
        max_tokens=request.max_tokens,
        hops=hops,
    )


def as_whole(request: Request) -> Request:
    """Return the request as one that takes its answer whole: audits never stream."""
    if not request.body.stream:
        return request
    return msgspec.structs.replace(request, body=msgspec.structs.replace(request.body, stream=None))
