"""What one behaviour does otherwise than another, field by field, as the spec names them.

For people who want to know what a canary changes before they read what it does. Told of the
compiled behaviours, so a change of a calibration's bytes or of a backend shows too, and another
way to write the same does not. Prompts are told by length and digest alone.
"""

from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal

import msgspec

from weir_core.canonical import hex_of
from weir_core.snapshot import Backend, Behaviour, Check, Rule, Tier

NONE = "none"
"""Stands for a field that is not set."""

LONGEST = 60
"""Characters of a text that are shown; of a longer one its begin and a digest."""

PICO = Decimal(10) ** -12
PICO_PER_MILLION = Decimal(10) ** -6
"""Price units of a million tokens, for one pico unit a token."""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One field that differs, such as tiers[small].accept[sure].minProbability."""

    path: str
    before: str
    after: str

    def sentence(self) -> str:
        """Return it in one line."""
        return f"{self.path}: {self.before} → {self.after}"


def changes(old: Behaviour, new: Behaviour) -> tuple[Change, ...]:
    """Return what differs, in the order of the spec; nothing for equal behaviours.

    Of a tier, check or rule that only one of them has, the list of names tells; of a backend
    that only one of them calls, the references do.
    """
    before, after = dict(_told(old)), dict(_told(new))
    return tuple(
        Change(path=path, before=before[path], after=text)
        for path, text in after.items()
        if before.get(path, text) != text
    )


def listed(found: Sequence[Change], *, most: int) -> list[str]:
    """Return one line a change, at most so many; the rest are counted."""
    told = [one.sentence() for one in found[:most]]
    return [*told, f"and {len(found) - most} more"] if len(found) > most else told


def summed_up(found: Sequence[Change], *, most: int = 160) -> str:
    """Return the changes in one line of about `most` characters, "" for none."""
    shown: list[str] = []
    for one in found:
        if shown and len("; ".join((*shown, one.sentence()))) > most:
            break
        shown.append(one.sentence())
    more = len(found) - len(shown)
    return "; ".join((*shown, f"and {more} more") if more else shown)


Told = Iterator[tuple[str, str]]
"""Path and value; equal values have equal texts, different ones different texts."""


def _told(behaviour: Behaviour) -> Told:
    yield "deadline", _time(behaviour.deadline_ms)
    yield "maxAttempts", str(behaviour.max_attempts)
    yield "budget.maxCostPerRequest", _decimal(behaviour.max_cost_pico * PICO)
    yield "tiers", _names(tier.name for tier in behaviour.tiers)
    for tier in behaviour.tiers:
        yield from _tier(f"tiers[{tier.name}]", tier)
    yield "rules", _names(rule.name for rule in behaviour.rules)
    for rule in behaviour.rules:
        yield from _rule(f"rules[{rule.name}]", rule, behaviour.tiers)
    yield "fallback.causes", _names(behaviour.fallback_on)
    yield "fallback.backendRefs", _names(backend.name for backend in behaviour.fallback)
    yield "streaming.commit", behaviour.commit
    yield "streaming.prefixTokens", str(behaviour.prefix_tokens or NONE)
    yield "onExhausted", behaviour.on_exhausted
    for backend in (*(tier.backend for tier in behaviour.tiers), *behaviour.fallback):
        yield from _backend(f"backends[{backend.name}]", backend)


def _tier(at: str, tier: Tier) -> Told:
    yield f"{at}.backendRef", tier.backend.name
    yield f"{at}.timeout", _time(tier.timeout_ms)
    yield f"{at}.systemPrompt", _hidden(tier.system_prompt)
    yield f"{at}.maxTokens", str(tier.max_tokens or NONE)
    yield f"{at}.accept", _names(check.name for check in tier.accept)
    for check in tier.accept:
        yield from _check(f"{at}.accept[{check.name}]", check)


def _check(at: str, check: Check) -> Told:
    yield f"{at}.type", check.type
    yield f"{at}.mustMatch", _short(check.must_match)
    yield f"{at}.mustNotMatch", _short(check.must_not_match)
    yield f"{at}.minProbability", f'"{_written(Decimal(repr(check.min_probability)))}"'
    found = check.calibration
    yield f"{at}.calibration", f"{found.method} {hex_of(repr(found))}" if found else NONE


def _rule(at: str, rule: Rule, tiers: Sequence[Tier]) -> Told:
    yield f"{at}.when", _short(rule.when)
    yield f"{at}.start", tiers[rule.start].name
    yield f"{at}.end", tiers[rule.end].name


def _backend(at: str, backend: Backend) -> Told:
    # The address of a workload of ours is made of its identity; else the other way round.
    ours = backend.identity in backend.url
    yield f"{at}.identity", backend.identity if ours else NONE
    yield f"{at}.url", NONE if ours else backend.url
    yield f"{at}.model", backend.model
    yield f"{at}.apiKeyRef", backend.key or NONE
    for name, pico in (
        ("inputPerMillionTokens", backend.input_price_pico),
        ("outputPerMillionTokens", backend.output_price_pico),
    ):
        yield f"{at}.pricing.{name}", _decimal(pico * PICO_PER_MILLION)
    yield f"{at}.capabilities", _names(sorted(backend.capabilities))
    yield f"{at}.contextWindow", str(backend.context_window or NONE)


# Values as people write them.


def _names(names: Iterable[str]) -> str:
    return ", ".join(names) or NONE


def _time(ms: int) -> str:
    if not ms:
        return NONE
    return f"{ms // 1_000}s" if ms % 1_000 == 0 else f"{ms}ms"


def _decimal(value: Decimal) -> str:
    return f'"{_written(value)}"' if value else NONE


def _written(value: Decimal) -> str:
    """Return a decimal without an exponent and without zeros that say nothing."""
    return f"{value.normalize():f}"


def _short(text: str) -> str:
    if len(text) <= LONGEST:
        return f'"{text}"' if text else NONE
    return f'"{text[: LONGEST - 20]}…" ({_hidden(text)})'


def _hidden(text: str) -> str:
    return f"{len(text):,} characters, {hex_of(text)}" if text else NONE
