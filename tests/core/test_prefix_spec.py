"""`streaming.commit: Prefix` as people write it."""

import msgspec
import pytest

from support.objects import SURE, backend, calibration, compiled, revision, route
from weir_core.canonical import canonical
from weir_core.resources import from_object


def tiers(*checks):
    return [
        {"name": "small", "backendRef": {"name": "small"}, "accept": list(checks)},
        {"name": "large", "backendRef": {"name": "large"}},
    ]


def streaming(**streaming):
    return revision(backend(), route(streaming=streaming)).behaviour


def troubles(**behaviour):
    """Return field, seen and wanted of each problem."""
    found = from_object(route(**behaviour))
    assert isinstance(found, tuple)
    return [(one.field, one.seen, one.wanted) for one in found]


def test_a_prefix_has_thirty_two_tokens_unless_said():
    assert streaming(commit="Prefix").prefix_tokens == 32
    assert streaming(commit="Prefix", prefixTokens=5).prefix_tokens == 5


def test_the_default_said_is_the_same_behaviour():
    said = streaming(commit="Prefix", prefixTokens=32)

    assert canonical(said) == canonical(streaming(commit="Prefix"))


@pytest.mark.parametrize("commit", ["AfterVerify", "FirstToken"])
def test_other_commits_have_no_prefix(commit):
    assert streaming(commit=commit).prefix_tokens == 0
    assert "prefix" not in canonical(streaming(commit=commit))


def test_behaviour_of_before_stays_the_same():
    plain = revision(backend(), route()).behaviour

    assert "prefix" not in canonical(plain)
    assert msgspec.json.decode(canonical(plain), type=type(plain)) == plain


def test_a_schema_cannot_judge_a_prefix():
    shape = {"name": "shape", "type": "Schema"}

    assert troubles(streaming={"commit": "Prefix"}, tiers=tiers(shape)) == [
        (
            "spec.behaviour.tiers[0].accept[0].type",
            "'Schema', which no prefix shows",
            "Finish, Pattern or Confidence, which streaming.commit Prefix can ask",
        )
    ]


def test_a_schema_judges_whole_answers():
    shape = {"name": "shape", "type": "Schema"}

    assert not isinstance(
        from_object(route(streaming={"commit": "AfterVerify"}, tiers=tiers(shape))), tuple
    )


def test_checks_that_can_judge_a_prefix_compile():
    checks = ({"name": "whole", "type": "Finish"}, SURE)
    able = backend(capabilities=["Chat", "Logprobs"])
    world = compiled(
        able,
        backend("large"),
        calibration(),
        route(streaming={"commit": "Prefix"}, tiers=tiers(*checks)),
    )

    assert world.problems == ()


def test_prefix_tokens_belong_to_prefix():
    assert troubles(streaming={"commit": "AfterVerify", "prefixTokens": 8}) == [
        (
            "spec.behaviour.streaming.prefixTokens",
            "8",
            "no prefixTokens: it belongs to commit Prefix",
        )
    ]


@pytest.mark.parametrize("tokens", [0, -1, 1_025, "8"])
def test_a_number_of_tokens_that_is_none_is_refused(tokens):
    ((field, _, _),) = troubles(streaming={"commit": "Prefix", "prefixTokens": tokens})

    assert field == "spec.behaviour.streaming.prefixTokens"
