"""What may be told at once of a change, beside what routers hold."""

from msgspec.structs import replace

from support.routes import policy, revision
from weir_operator.publish import kept, lowered, lowers

A, X, Y = (revision(f"assistant-{letter * 10}") for letter in "axy")
STABLE = policy(stable=A)
X_25 = replace(STABLE, canary=X, attempt=1, weight_bp=2_500)
X_50 = replace(X_25, weight_bp=5_000)
Y_5 = replace(STABLE, canary=Y, attempt=1, weight_bp=500)
LATCHED = ((X.name, 1),)


def test_a_replaced_canary_keeps_nothing():
    assert kept(X_25, Y_5).weight_bp == 0
    assert kept(X_25, Y_5).canary == X


def test_a_raise_alone_changes_nothing_of_what_is_held():
    assert kept(X_25, X_50) == X_25
    assert lowered(X_25, X_50) == X_25


def test_a_latch_comes_with_what_is_held():
    later = replace(STABLE, latched=LATCHED)
    assert kept(X_25, later).latched == LATCHED
    assert kept(X_25, later).weight_bp == 0


def test_the_latches_of_both_are_kept():
    held = replace(X_25, latched=(("assistant-old", 3),))
    assert set(kept(held, replace(STABLE, latched=LATCHED)).latched) == {*LATCHED, *held.latched}
    assert set(lowered(held, replace(Y_5, latched=LATCHED)).latched) == {*LATCHED, *held.latched}


def test_another_attempt_of_a_canary_is_another_canary():
    again = replace(X_25, attempt=2)
    assert kept(X_25, again).weight_bp == 0
    assert lowered(X_25, again).weight_bp == 0


def test_a_promotion_takes_nothing_from_the_canary():
    assert kept(X_25, policy(stable=X)) == X_25
    assert lowered(X_25, policy(stable=X)) == X_25


def test_an_unknown_stable_revision_leaves_what_is_held_without_its_canary():
    assert lowered(X_25, policy(stable=Y)) == replace(X_25, weight_bp=0)


def test_nothing_wanted_leaves_what_is_held_without_its_canary():
    assert lowered(X_25, None) == replace(X_25, weight_bp=0)


def test_an_edit_beside_a_raise_is_told_without_the_raise():
    edited = replace(X_50, model_names=("other",))
    assert lowered(X_25, edited) == replace(X_25, model_names=("other",))


def test_less_weight_or_more_latches_are_lowerings():
    assert lowers(X_50, X_25)
    assert lowers(X_25, replace(X_25, latched=LATCHED))
    assert not lowers(replace(X_25, latched=LATCHED), replace(X_25, latched=LATCHED))
    assert not lowers(X_25, X_25)
