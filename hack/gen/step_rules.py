"""What cannot be wrong with the steps of a rollout: weights that rise, waits that can end.

Weights rise, so that of zero comes first and that of all comes last. Between weights that are
written as texts no rule sees the order at a price that the API server pays.
"""

from cel_rules import ALL, ZERO, Rule, is_percent, most_items, places, quoted

from weir_core.route_spec import RolloutSpec

KINDS = ("setWeight", "hold", "pause", "prove")
_MOST = most_items(RolloutSpec, "steps")
_PLACES = places(_MOST)
_NUMBERED = "has(self[{0}].setWeight) && type(self[{0}].setWeight) == int"


def _zero(step: str) -> str:
    return is_percent(f"{step}.setWeight", 0, ZERO)


def _all(step: str) -> str:
    return is_percent(f"{step}.setWeight", 100, ALL)


def _earlier(wanted: str = "true") -> str:
    """Return CEL for whether some step before step `i` sets a weight that is wanted."""
    return f"{_PLACES}.exists(j, j < i && has(self[j].setWeight) && {wanted})"


def _no_step(wrong: str, *, seen: str, wanted: str) -> Rule:
    """Refuse steps of which one is wrong; the first of them is told by its place.

    `wrong` and `seen` are CEL of step `i`: whether it is wrong, and what was seen of it.
    """
    places_of_wrong = f"{_PLACES}.filter(i, i < self.size() && {wrong})"
    return Rule(
        f"!{_PLACES}.exists(i, i < self.size() && {wrong})",
        f"wanted {wanted}",
        expression=f"{places_of_wrong}.map(i, {seen} + {quoted(f', wanted {wanted}')})[0]",
    )


def _at(place: str) -> str:
    """Return CEL for a place as people write it; of string() no size is known."""
    return f"[{', '.join(quoted(f'[{one}]') for one in range(_MOST))}][{place}]"


def _waits(field: str) -> str:
    """Return CEL for what was seen of a step that waits where no request or nothing comes."""
    weight = (
        f"{_earlier(_all('self[j]'))} ? 'setWeight 100%'"
        f" : {_earlier()} ? 'setWeight 0' : 'no setWeight'"
    )
    return f"'saw ' + {_at('i')} + '.{field} after ' + ({weight})"


_NOT_ABOVE = f"j < i && {_NUMBERED.format('j')} && int(self[j].setWeight) >= int(self[i].setWeight)"
STEP_RULES = (
    _no_step(
        f"{_NUMBERED.format('i')} && {_PLACES}.exists(j, {_NOT_ABOVE})",
        seen=f"'saw ' + {_at('i')} + '.setWeight not above ' + "
        f"{_at(f'{_PLACES}.filter(j, {_NOT_ABOVE})[0]')} + '.setWeight'",
        wanted="each setWeight above the one before",
    ),
    Rule(
        f"self.exists(s, has(s.setWeight) && !{_zero('s')})",
        "wanted a setWeight above 0 in some step",
        expression="(self.exists(s, has(s.setWeight)) ? 'saw no setWeight but 0'"
        " : 'saw no setWeight') + ', wanted a setWeight above 0 in some step'",
    ),
    _no_step(
        "has(self[i].prove) && (!"
        + _earlier(f"!{_zero('self[j]')} && !{_all('self[j]')}")
        + f" || {_earlier(_all('self[j]'))})",
        seen=_waits("prove"),
        wanted="prove after a setWeight above 0 and below 100%: elsewhere there is nothing to"
        " compare",
    ),
    _no_step(
        "has(self[i].hold) && has(self[i].hold.minRequests) && !"
        + _earlier(f"!{_zero('self[j]')}"),
        seen=_waits("hold.minRequests"),
        wanted="hold with minRequests after a setWeight above 0: elsewhere no request ever comes",
    ),
)
_KINDS_SEEN = " + ".join(f"(has(self.{one}) ? '{one}, ' : '')" for one in KINDS)
_ANY_SEEN = " || ".join(f"has(self.{one})" for one in KINDS)
ONE_KIND = Rule(
    f"[{', '.join(f'has(self.{one})' for one in KINDS)}].filter(x, x).size() == 1",
    f"wanted exactly one of {', '.join(KINDS)}",
    expression=f"'saw ' + ({_ANY_SEEN} ? '' : 'none, ') + {_KINDS_SEEN}"
    f" + 'wanted exactly one of {', '.join(KINDS)}'",
)
"""Of one step."""
