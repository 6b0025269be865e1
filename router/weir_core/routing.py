"""From a request to a decision: signals, the first matching rule, and the arm's draw.

Pure: the coin comes in as an argument, sessions are drawn by hash, so every router and every
restart draws a session alike, and a raise moves a session to the canary at most once.
"""

import functools
import hashlib
import re
from typing import Any

import cel
import msgspec

from weir_core.evidence import CANARY, STABLE
from weir_core.snapshot import FULL_BP, Behaviour, RoutePolicy, Rule

SIGNALS: dict[str, int | float | bool | str] = {
    "prompt_tokens": 0,
    "prompt_chars": 0,
    "messages": 0,
    "turns": 0,
    "has_tools": False,
    "has_schema": False,
    "has_images": False,
    "stream": False,
    "max_tokens": 0,
    "temperature": 1.0,
    "deadline_ms": 0,
    "model": "",
    "risk": "unknown",
    "task": "unknown",
    "user_tier": "unknown",
}
"""Every signal a rule may use, with a sample value that shows its type."""

UNKNOWN = "unknown"
"""What a declared signal reads when the caller declared nothing."""

_STRING = re.compile(r"""'([^'\\]*)'|"([^"\\]*)\"""")


class Chosen(msgspec.Struct, frozen=True, gc=False):
    """The tiers a request may use, first and last inclusive, and the rule that said so."""

    rule: str
    start: int
    end: int


class Rules:
    """The compiled rules of one behaviour. Build once per revision, evaluate per request."""

    __slots__ = ("_compiled", "_last", "names")

    def __init__(self, behaviour: Behaviour) -> None:
        self._compiled = tuple(_compile(rule) for rule in behaviour.rules)
        self._last = Chosen("", 0, len(behaviour.tiers) - 1)
        self.names = frozenset(
            name for rule in self._compiled for name in rule.program.variables() if name in SIGNALS
        )

    def choose(self, signals: dict[str, Any]) -> Chosen:
        """Return what the first matching rule says, or all tiers.

        `signals` holds at least those in `names`. A rule that fails to evaluate does not match.
        An undeclared risk counts as risky: a rule that starts at a higher tier matches when any
        risk that it names would make it match.
        """
        if not self._compiled:
            return self._last
        seen = {name: signals[name] for name in self.names}
        context = cel.Context(seen)
        for rule in self._compiled:
            if _true(rule.program, context) or _may_be_risky(rule, seen):
                return rule.chosen
        return self._last


class _CompiledRule(msgspec.Struct, frozen=True):
    chosen: Chosen
    program: Any
    risks: tuple[str, ...]


def _compile(rule: Rule) -> _CompiledRule:
    program = cel.compile(rule.when)
    risks: tuple[str, ...] = ()
    if rule.start > 0 and "risk" in program.variables():
        risks = tuple(single or double for single, double in _STRING.findall(rule.when))
    return _CompiledRule(Chosen(rule.name, rule.start, rule.end), program, risks)


def _may_be_risky(rule: _CompiledRule, seen: dict[str, Any]) -> bool:
    if not rule.risks or seen["risk"] != UNKNOWN:
        return False
    return any(_true(rule.program, cel.Context({**seen, "risk": risk})) for risk in rule.risks)


def _true(program: Any, context: Any) -> bool:
    try:
        return program.execute(context) is True
    except (RuntimeError, TypeError, ValueError, ArithmeticError, LookupError):
        return False


def draw(policy: RoutePolicy, *, session: str, coin: float) -> int:
    """Return the arm of a new request: CANARY with probability weight, else STABLE.

    `coin` is uniform in [0, 1) and decides only where there is no session. A session's place is
    fixed by its hash, so it goes to the canary when the weight passes that place, and stays.
    """
    if policy.canary is None or policy.weight_bp <= 0:
        return STABLE
    if policy.rollout.unit == "Session" and session:
        return CANARY if place(policy, session) < policy.weight_bp else STABLE
    return CANARY if coin * FULL_BP < policy.weight_bp else STABLE


def place(policy: RoutePolicy, session: str) -> float:
    """Return where a session stands in [0, 10,000): uniform over sessions, fixed per attempt."""
    assert policy.canary is not None
    key = _attempt_key(policy.uid, policy.canary.name, policy.attempt)
    digest = hashlib.blake2b(session.encode(), digest_size=8, key=key).digest()
    return int.from_bytes(digest, "big") / 2**64 * FULL_BP


@functools.lru_cache(maxsize=256)
def _attempt_key(uid: str, revision: str, attempt: int) -> bytes:
    """Return what makes the draws of one attempt independent of those of any other."""
    return hashlib.blake2b(f"{uid}/{revision}/{attempt}".encode(), digest_size=32).digest()
