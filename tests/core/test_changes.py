"""What one behaviour does otherwise than another."""

import pytest
from msgspec.structs import fields, replace

from support.routes import LARGE, SMALL, SPARE, behaviour
from weir_core.canonical import canonical
from weir_core.changes import Change, changes, listed, summed_up
from weir_core.snapshot import Backend, Behaviour, Calibration, Check, Rule, Tier

SURE = Check(name="sure", type="Confidence", min_probability=0.85)
RULE = Rule(name="hurry", when="deadline_ms < 2000", start=0, end=1)
CALIBRATION = Calibration(method="Logprob", features=(("mean", 2.5),), intercept=0.5, digest="d")


def whole(*, backend=SMALL, check=SURE, rule=RULE, tier=None, **changed):
    small = Tier(name="small", backend=backend, accept=(check,))
    tiers = (replace(small, **(tier or {})), Tier(name="large", backend=LARGE))
    return behaviour(**{"tiers": tiers, "rules": (rule,), **changed})


def told(changed):
    return [one.sentence() for one in changes(whole(), changed)]


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        (whole(deadline_ms=1_500), "deadline: 30s → 1500ms"),
        (whole(max_attempts=2), "maxAttempts: 4 → 2"),
        (whole(max_cost_pico=2 * 10**10), 'budget.maxCostPerRequest: none → "0.02"'),
        (whole(fallback=(SPARE,)), "fallback.backendRefs: none → spare"),
        (
            whole(fallback_on=("Connect", "Timeout")),
            "fallback.causes: none → Connect, Timeout",
        ),
        (whole(commit="FirstToken"), "streaming.commit: AfterVerify → FirstToken"),
        (whole(prefix_tokens=32), "streaming.prefixTokens: none → 32"),
        (whole(on_exhausted="ReturnLast"), "onExhausted: ReturnError → ReturnLast"),
        (whole(tier={"timeout_ms": 6_000}), "tiers[small].timeout: none → 6s"),
        (whole(tier={"max_tokens": 64}), "tiers[small].maxTokens: none → 64"),
        (whole(tier={"accept": ()}), "tiers[small].accept: sure → none"),
        (
            whole(check=replace(SURE, min_probability=0.8)),
            'tiers[small].accept[sure].minProbability: "0.85" → "0.8"',
        ),
        (
            whole(check=replace(SURE, min_probability=0.0)),
            'tiers[small].accept[sure].minProbability: "0.85" → "0"',
        ),
        (
            whole(check=replace(SURE, min_probability=1.0)),
            'tiers[small].accept[sure].minProbability: "0.85" → "1"',
        ),
        (
            whole(check=replace(SURE, min_probability=0.00001)),
            'tiers[small].accept[sure].minProbability: "0.85" → "0.00001"',
        ),
        (
            whole(check=replace(SURE, must_match="^yes")),
            'tiers[small].accept[sure].mustMatch: none → "^yes"',
        ),
        (
            whole(check=replace(SURE, must_not_match="no$")),
            'tiers[small].accept[sure].mustNotMatch: none → "no$"',
        ),
        (
            whole(check=replace(SURE, type="Schema")),
            "tiers[small].accept[sure].type: Confidence → Schema",
        ),
        (whole(rules=()), "rules: hurry → none"),
        (
            whole(rule=replace(RULE, when="stream")),
            'rules[hurry].when: "deadline_ms < 2000" → "stream"',
        ),
        (whole(rule=replace(RULE, end=0)), "rules[hurry].end: large → small"),
        (whole(rule=replace(RULE, start=1)), "rules[hurry].start: small → large"),
        (
            whole(backend=replace(SMALL, input_price_pico=50_000)),
            'backends[small].pricing.inputPerMillionTokens: "0.00001" → "0.05"',
        ),
        (
            whole(backend=replace(SMALL, output_price_pico=0)),
            'backends[small].pricing.outputPerMillionTokens: "0.00002" → none',
        ),
        (
            whole(backend=replace(SMALL, capabilities=("Tools", "Chat"))),
            "backends[small].capabilities: none → Chat, Tools",
        ),
        (
            whole(backend=replace(SMALL, context_window=0)),
            "backends[small].contextWindow: 4096 → none",
        ),
        (whole(backend=replace(SMALL, key="k")), "backends[small].apiKeyRef: none → k"),
        (
            whole(backend=replace(SMALL, model="t", identity="small-2")),
            "backends[small].model: s → t",
        ),
        (
            whole(backend=replace(SMALL, url="http://b", identity="small-2")),
            "backends[small].url: http://127.0.0.1:1 → http://b",
        ),
    ],
)
def test_a_change_is_told_by_the_path_of_the_spec(changed, sentence):
    assert told(changed) == [sentence]


def test_another_name_is_told_wherever_it_is_used():
    assert told(whole(tier={"name": "tiny"})) == [
        "tiers: small, large → tiny, large",
        "rules[hurry].start: small → tiny",
    ]


def test_another_backend_is_told_by_the_reference_alone():
    assert told(whole(backend=SPARE)) == ["tiers[small].backendRef: small → spare"]


def test_an_edit_of_a_backend_that_weir_runs_is_another_identity():
    one, two = (
        replace(SMALL, identity=f"small-{n}", url=f"http://small-{n}.llm.svc:8000") for n in "ab"
    )
    found = changes(whole(backend=one), whole(backend=two))
    assert [one.sentence() for one in found] == ["backends[small].identity: small-a → small-b"]


def test_a_calibration_is_told_by_its_digest():
    (one,) = changes(whole(), whole(check=replace(SURE, calibration=CALIBRATION)))
    assert one.path == "tiers[small].accept[sure].calibration"
    assert (one.before, one.after.partition(" ")[0]) == ("none", "Logprob")
    other = replace(CALIBRATION, intercept=0.6)
    again = changes(
        whole(check=replace(SURE, calibration=CALIBRATION)),
        whole(check=replace(SURE, calibration=other)),
    )
    assert len(again) == 1


def test_a_prompt_is_never_repeated():
    (one,) = changes(whole(), whole(tier={"system_prompt": "Be discreet."}))
    assert one.sentence().startswith("tiers[small].systemPrompt: none → 12 characters, ")
    assert "discreet" not in one.sentence()


def test_long_texts_that_begin_alike_are_told_apart():
    one, two = ("x" * 100 + end for end in "ab")
    (found,) = changes(whole(rule=replace(RULE, when=one)), whole(rule=replace(RULE, when=two)))
    assert found.before != found.after
    assert len(found.after) < 100


def test_equal_behaviours_have_no_changes():
    assert changes(whole(), whole()) == ()


OTHER = {
    Behaviour: {
        "deadline_ms": 1,
        "max_attempts": 1,
        "max_cost_pico": 1,
        "tiers": (Tier(name="large", backend=LARGE), Tier(name="small", backend=SMALL)),
        "rules": (),
        "fallback_on": ("Connect",),
        "fallback": (SPARE,),
        "commit": "FirstToken",
        "prefix_tokens": 1,
        "on_exhausted": "ReturnLast",
    },
    Tier: {
        "name": "other",
        "backend": SPARE,
        "timeout_ms": 1,
        "system_prompt": "p",
        "max_tokens": 1,
        "accept": (),
    },
    Check: {
        "name": "other",
        "type": "Finish",
        "must_match": "m",
        "must_not_match": "m",
        "min_probability": 0.1,
        "calibration": CALIBRATION,
    },
    Rule: {"name": "other", "when": "stream", "start": 1, "end": 0},
    Backend: {
        "name": "other",
        "identity": "other-1",
        "url": "http://other",
        "model": "other",
        "key": "other",
        "input_price_pico": 1,
        "output_price_pico": 1,
        "capabilities": ("Chat",),
        "context_window": 1,
    },
}
"""Another value of every field."""
KNOWN_BY_OTHERS = {(Backend, "identity")}
"""Of an external backend the identity follows from its URL and model."""


@pytest.mark.parametrize("kind", OTHER, ids=lambda kind: kind.__name__)
def test_no_field_can_change_unseen(kind):
    """A field that is added must be told of, or it is missed here."""
    places = {Tier: "tier", Check: "check", Rule: "rule", Backend: "backend"}
    first = {Check: SURE, Rule: RULE, Backend: SMALL}.get(kind)
    for field in fields(kind):
        if (kind, field.name) in KNOWN_BY_OTHERS:
            continue
        value = {field.name: OTHER[kind][field.name]}
        if kind is Behaviour:
            changed = whole(**value)
        else:
            changed = whole(**{places[kind]: value if kind is Tier else replace(first, **value)})
        assert canonical(changed) != canonical(whole())
        assert changes(whole(), changed), field.name


def _many(count):
    return tuple(Change(path=f"p{at}", before="a", after="b") for at in range(count))


def test_many_changes_are_counted():
    assert listed(_many(3), most=2) == ["p0: a → b", "p1: a → b", "and 1 more"]
    assert listed(_many(2), most=2) == ["p0: a → b", "p1: a → b"]


def test_a_sentence_of_changes_is_short_and_never_empty():
    assert summed_up(_many(2)) == "p0: a → b; p1: a → b"
    assert summed_up(_many(40), most=30) == "p0: a → b; p1: a → b; and 38 more"
    assert summed_up(_many(40), most=1) == "p0: a → b; and 39 more"
    assert summed_up(()) == ""
