"""The text that sameness is decided by."""

import json

from hypothesis import given
from hypothesis import strategies as st

from weir_core.canonical import behaviour_of, canonical
from weir_core.snapshot import Backend, Behaviour, Check, Tier


def test_default_is_left_out():
    assert "commit" not in canonical(behaviour())


def test_keys_are_sorted():
    keys = list(json.loads(canonical(behaviour())))
    assert keys == sorted(keys)


def test_a_later_field_with_a_default_changes_nothing():
    class Later(Behaviour, frozen=True, kw_only=True):
        hedge_ms: int = 0

    now = behaviour()
    fields = {name: getattr(now, name) for name in now.__struct_fields__}
    assert canonical(Later(**fields)) == canonical(now)


def behaviour(**changes):
    facts = Backend(name="b", identity="b-1", url="http://b", model="m")
    base = {"deadline_ms": 9, "max_attempts": 4, "tiers": (Tier(name="t", backend=facts),)}
    return Behaviour(**{**base, **changes})


CHECKS = st.builds(
    Check,
    name=st.text(max_size=3),
    type=st.sampled_from(["Finish", "Pattern"]),
    must_match=st.text(max_size=3),
    min_probability=st.floats(0, 1),
)
TIERS = st.builds(
    Tier,
    name=st.text(max_size=3),
    backend=st.builds(
        Backend,
        name=st.just("b"),
        identity=st.just("b-1"),
        url=st.just("http://b"),
        model=st.text(max_size=3),
        input_price_pico=st.integers(0, 10**12),
        capabilities=st.sampled_from([(), ("Chat",), ("Chat", "Tools")]),
    ),
    timeout_ms=st.integers(0, 3),
    system_prompt=st.text(max_size=3),
    accept=st.lists(CHECKS, max_size=2).map(tuple),
)
BEHAVIOURS = st.builds(
    behaviour,
    tiers=st.lists(TIERS, min_size=1, max_size=3).map(tuple),
    commit=st.sampled_from(["AfterVerify", "FirstToken"]),
    max_cost_pico=st.integers(0, 10**15),
)


@given(BEHAVIOURS)
def test_content_tells_the_whole_behaviour(one):
    assert behaviour_of(canonical(one)) == one


@given(BEHAVIOURS, BEHAVIOURS)
def test_equal_content_is_equal_behaviour(one, other):
    assert (canonical(one) == canonical(other)) == (one == other)
