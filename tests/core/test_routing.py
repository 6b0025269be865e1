"""From signals to tiers, and from a session to an arm."""

from hypothesis import given
from hypothesis import strategies as st

from support.routes import behaviour, policy, revision
from weir_core.evidence import CANARY, STABLE
from weir_core.routing import SIGNALS, Chosen, Rules, draw, place
from weir_core.snapshot import FULL_BP, RolloutPolicy, RoutePolicy, Rule


def rules(*some: Rule) -> Rules:
    return Rules(behaviour(rules=some))


def canary(weight_bp: int, *, unit: str = "Request", attempt: int = 1) -> RoutePolicy:
    return policy(
        canary=revision("assistant-0000000002"),
        attempt=attempt,
        weight_bp=weight_bp,
        rollout=RolloutPolicy(unit=unit),  # type: ignore[arg-type]
    )


HURRY = Rule(name="hurry", when="deadline_ms < 2000 && prompt_tokens < 500", start=0, end=0)
RISKY = Rule(name="risky", when="risk in ['medical', \"legal\"]", start=1, end=1)
CALM = Rule(name="calm", when="risk == 'none'", start=0, end=0)


def test_the_first_matching_rule_wins() -> None:
    seen = SIGNALS | {"deadline_ms": 100, "risk": "legal"}

    assert rules(HURRY, RISKY).choose(seen) == Chosen("hurry", 0, 0)


def test_without_a_match_all_tiers_are_open() -> None:
    seen = SIGNALS | {"deadline_ms": 9_000, "risk": "none"}

    assert rules(HURRY, RISKY).choose(seen) == Chosen("", 0, 1)


def test_an_undeclared_risk_counts_as_risky() -> None:
    assert rules(RISKY).choose(SIGNALS) == Chosen("risky", 1, 1)


def test_an_undeclared_risk_never_matches_a_rule_that_stays_small() -> None:
    assert rules(CALM).choose(SIGNALS) == Chosen("", 0, 1)


def test_an_undeclared_risk_keeps_the_other_terms_of_a_rule() -> None:
    both = Rule(name="both", when="risk == 'legal' && has_tools", start=1, end=1)

    assert rules(both).choose(SIGNALS) == Chosen("", 0, 1)


def test_a_rule_that_fails_to_evaluate_does_not_match() -> None:
    broken = Rule(name="broken", when="1 / prompt_tokens > 0", start=1, end=1)

    assert rules(broken).choose(SIGNALS) == Chosen("", 0, 1)


def test_only_signals_that_rules_use_are_wanted() -> None:
    assert rules(HURRY).names == {"deadline_ms", "prompt_tokens"}


def test_at_weight_zero_nothing_is_drawn_for_the_canary() -> None:
    assert draw(canary(0), session="", coin=0.0) == STABLE


@given(st.integers(1, FULL_BP))
def test_a_coin_below_the_weight_is_the_canary(weight_bp: int) -> None:
    share = weight_bp / FULL_BP

    assert draw(canary(weight_bp), session="", coin=share - 1e-9) == CANARY
    assert draw(canary(weight_bp), session="", coin=share + 1e-9) == STABLE


@given(st.text(max_size=40), st.lists(st.integers(0, FULL_BP), max_size=8))
def test_a_session_moves_to_the_canary_at_most_once_and_never_back(
    session: str, weights: list[int]
) -> None:
    """A rising weight, whatever the coin says."""
    arms = [
        draw(canary(weight, unit="Session"), session=session or "s", coin=0.0)
        for weight in sorted(weights)
    ]

    assert arms == sorted(arms)


def test_the_share_of_sessions_follows_the_weight() -> None:
    """4,000 sessions at 10 %: 400 give or take four standard deviations (19)."""
    route = canary(1_000, unit="Session")
    drawn = sum(draw(route, session=f"user-{n}", coin=0.0) for n in range(4_000))

    assert abs(drawn - 400) < 76


def test_another_attempt_draws_other_sessions() -> None:
    first, second = canary(1_000, unit="Session"), canary(1_000, unit="Session", attempt=2)

    assert place(first, "user-1") != place(second, "user-1")


def test_requests_without_a_session_are_drawn_by_the_coin() -> None:
    assert draw(canary(1_000, unit="Session"), session="", coin=0.05) == CANARY
