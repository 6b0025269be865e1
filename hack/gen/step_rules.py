"""What cannot be wrong with the steps of a rollout: weights that rise, waits that can end.

Weights rise, so that of zero comes first and that of all comes last. Between weights that are
written as texts no rule sees the order at a price that the API server pays.
"""

from cel_rules import ALL, ZERO, Rule, is_percent, most_items, places

from weir_core.route_spec import RolloutSpec

_PLACES = places(most_items(RolloutSpec, "steps"))


def _zero(step: str) -> str:
    return is_percent(f"{step}.setWeight", 0, ZERO)


def _all(step: str) -> str:
    return is_percent(f"{step}.setWeight", 100, ALL)


def _earlier(wanted: str) -> str:
    """Return CEL for whether some step before step `i` sets a weight that is wanted."""
    return f"{_PLACES}.exists(j, j < i && has(self[j].setWeight) && {wanted})"


def _no_step(wrong: str) -> str:
    return f"!{_PLACES}.exists(i, i < self.size() && {wrong})"


_NUMBERED = "has(self[{0}].setWeight) && type(self[{0}].setWeight) == int"
STEP_RULES = (
    Rule(
        _no_step(
            f"{_NUMBERED.format('i')}"
            f" && {_PLACES}.exists(j, j < i && {_NUMBERED.format('j')}"
            " && int(self[j].setWeight) >= int(self[i].setWeight))"
        ),
        "wanted each setWeight above the one before",
    ),
    Rule(
        f"self.exists(s, has(s.setWeight) && !{_zero('s')})",
        "wanted a setWeight above 0 in some step",
    ),
    Rule(
        _no_step(
            "has(self[i].prove) && (!"
            + _earlier(f"!{_zero('self[j]')} && !{_all('self[j]')}")
            + f" || {_earlier(_all('self[j]'))})"
        ),
        "wanted prove at a weight between 0 and 100%: elsewhere there is nothing to compare",
    ),
    Rule(
        _no_step(
            "has(self[i].hold) && has(self[i].hold.minRequests) && !"
            + _earlier(f"!{_zero('self[j]')}")
        ),
        "wanted hold with minRequests at a weight above 0: elsewhere no request ever comes",
    ),
)
