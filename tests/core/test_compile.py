"""From resources to revisions: what is the same, what is new, and who is harmed by whom."""

import msgspec
import pytest

from support.objects import (
    PRICES,
    SURE,
    TIER,
    backend,
    calibration,
    compiled,
    reason,
    revision,
    route,
    vllm,
)
from weir_core.defaults import DEFAULTS
from weir_core.snapshot import Objective, Revision, Rule


def spoken(place, value):
    """Return a route's and a backend's objects with one field spoken differently."""
    objects = {"route": route(), "backend": backend(pricing=PRICES)}
    which, *path = place.split(".")
    at = objects[which]["spec"]
    for part in path[:-1]:
        at = at.setdefault(part, {})
    at[path[-1]] = value
    return objects["route"], objects["backend"]


# What stays the same.


@pytest.mark.parametrize(
    ("place", "one", "other"),
    [
        pytest.param("route.behaviour.deadline", "60s", "1m", id="a minute is sixty seconds"),
        pytest.param("backend.pricing.inputPerMillionTokens", "0.2", "0.20", id="0.2 is 0.20"),
        pytest.param(
            "route.behaviour.maxAttempts", None, 4, id="absent is the default of attempts"
        ),
        pytest.param(
            "route.behaviour.onExhausted",
            None,
            "ReturnError",
            id="absent is the default of exhausted",
        ),
        pytest.param(
            "route.behaviour.streaming", None, {"commit": "AfterVerify"}, id="absent is AfterVerify"
        ),
        pytest.param("route.behaviour.rules", None, [], id="no rules are an empty list"),
        pytest.param(
            "route.behaviour.tiers", [TIER], [{**TIER, "systemPrompt": ""}], id="no prompt is empty"
        ),
        pytest.param(
            "route.behaviour.fallback",
            {"causes": ["Timeout", "Connect"], "backendRefs": [{"name": "small"}]},
            {"causes": ["Connect", "Timeout", "Connect"], "backendRefs": [{"name": "small"}]},
            id="the order of failure causes is free",
        ),
        pytest.param(
            "route.behaviour.fallback",
            {"backendRefs": [{"name": "small"}]},
            {"causes": list(DEFAULTS.fallback_on), "backendRefs": [{"name": "small"}]},
            id="absent is every failure cause",
        ),
        pytest.param(
            "backend.capabilities",
            ["Tools", "Chat"],
            ["Chat", "Tools"],
            id="capabilities have no order",
        ),
        pytest.param(
            "backend.external.url",
            "http://small:8000",
            "http://small:8000/v1/",
            id="v1 is understood",
        ),
        pytest.param("backend.limits", None, {"maxInFlight": 3}, id="limits are neutral"),
        pytest.param("route.modelNames", ["a"], ["b"], id="model names are not behaviour"),
        pytest.param(
            "route.monitoring",
            None,
            {"monitors": [{"name": "a", "type": "Finish"}]},
            id="monitoring",
        ),
        pytest.param("route.rollout", None, {"alpha": "0.02"}, id="the rollout is not behaviour"),
    ],
)
def test_content_is_the_same(place, one, other):
    assert revision(*spoken(place, one)) == revision(*spoken(place, other))


def test_order_of_objects_is_free():
    assert revision(route(), backend()) == revision(backend(), route())


# What is new.


@pytest.mark.parametrize(
    ("place", "one", "other"),
    [
        pytest.param("route.behaviour.deadline", "30s", "31s", id="a deadline"),
        pytest.param("route.behaviour.maxAttempts", 4, 5, id="attempts"),
        pytest.param(
            "route.behaviour.tiers", [TIER], [{**TIER, "systemPrompt": "Hi"}], id="a system prompt"
        ),
        pytest.param(
            "route.behaviour.rules",
            [{"name": "a", "when": "true"}, {"name": "b", "when": "stream"}],
            [{"name": "b", "when": "stream"}, {"name": "a", "when": "true"}],
            id="the order of rules",
        ),
        pytest.param("backend.contextWindow", None, 8_192, id="a context window"),
        pytest.param("backend.pricing.inputPerMillionTokens", "0.2", "0.3", id="a price"),
        pytest.param("backend.capabilities", ["Chat"], ["Chat", "Tools"], id="a capability"),
        pytest.param("backend.external.url", "http://a", "http://b", id="a URL"),
        pytest.param("backend.model.servedName", "m", "n", id="a model's name"),
    ],
)
def test_content_is_new(place, one, other):
    assert revision(*spoken(place, one)).name != revision(*spoken(place, other)).name


def test_calibration_is_behaviour():
    tiers = [{**TIER, "accept": [SURE]}]
    small = backend(capabilities=["Chat", "Logprobs"])
    before = revision(route(tiers=tiers), small, calibration())
    after = revision(route(tiers=tiers), small, calibration(intercept=0.6))
    assert before.name != after.name


def test_notes_beside_a_calibration_are_not_behaviour():
    tiers = [{**TIER, "accept": [SURE]}]
    small = backend(capabilities=["Chat", "Logprobs"])
    before = revision(route(tiers=tiers), small, calibration())
    after = revision(route(tiers=tiers), small, calibration(certificate={"epsilon": 0.02}))
    assert before == after


# Names.


def test_name_is_the_route_and_ten_digits():
    stem, _, digits = revision(route(), backend()).name.rpartition("-")
    assert (stem, len(digits)) == ("assistant", 10)


def test_known_revision_keeps_its_name():
    old = msgspec.structs.replace(revision(route(), backend()), name="assistant-older")
    assert revision(route(), backend(), known={"default/assistant": (old,)}) is old


def test_known_content_of_older_code_does_not_matter():
    old = msgspec.structs.replace(revision(route(), backend()), name="assistant-old", content="{}")
    assert revision(route(), backend(), known={"default/assistant": (old,)}).name == old.name


def test_name_of_other_content_is_not_taken():
    new = revision(route(), backend())
    other = Revision(
        name=new.name, behaviour=revision(route(deadline="9s"), backend()).behaviour, content=""
    )
    named = revision(route(), backend(), known={"default/assistant": (other,)})
    assert named.name not in (new.name, "")


def test_revision_of_another_route_is_not_reused():
    old = msgspec.structs.replace(revision(route(), backend()), name="other-older")
    assert revision(route(), backend(), known={"default/other": (old,)}).name != old.name


# Facts.


def test_price_is_exact_pico_per_token():
    prices = {"inputPerMillionTokens": "0.05", "outputPerMillionTokens": "0.20"}
    facts = revision(route(), backend(pricing=prices)).behaviour.tiers[0].backend
    assert (facts.input_price_pico, facts.output_price_pico) == (50_000, 200_000)


def test_cost_of_a_request_is_exact_pico():
    behaviour = revision(route(budget={"maxCostPerRequest": "0.02"}), backend()).behaviour
    assert behaviour.max_cost_pico == 20_000_000_000


def test_rule_without_bounds_spans_all_tiers():
    tiers = [TIER, {"name": "large", "backendRef": {"name": "small"}}]
    rules = [{"name": "a", "when": " stream "}]
    behaviour = revision(route(tiers=tiers, rules=rules), backend()).behaviour
    assert behaviour.rules == (Rule(name="a", when="stream", start=0, end=1),)


def test_vllm_backend_is_reached_by_its_identity():
    facts = revision(route(), vllm(), cluster=True).behaviour.tiers[0].backend
    assert facts.url == f"http://{facts.identity}.default.svc:8000"


def test_limits_are_by_identity():
    limits = {"maxInFlight": 3, "queue": {"maxLength": 0, "maxWait": "0s"}}
    world = compiled(backend(limits=limits))
    (found,) = world.limits.values()
    assert (found.max_in_flight, found.queue_length, found.queue_wait_ms) == (3, 0, 0)


def test_older_identity_has_the_limits_of_its_backend():
    old = revision(route(), backend(external={"url": "http://old"}))
    world = compiled(
        route(), backend(limits={"maxInFlight": 3}), known={"default/assistant": (old,)}
    )
    assert world.limits[old.behaviour.tiers[0].backend.identity].max_in_flight == 3


def test_uid_is_the_key_where_kubernetes_gave_none():
    assert compiled(route(), backend()).routes["default/assistant"].uid == "default/assistant"


def test_stable_revision_is_passed_through():
    pinned = route()
    pinned["spec"]["rollout"] = {"stableRevision": "assistant-0123456789"}
    world = compiled(pinned, backend())
    assert world.routes["default/assistant"].rollout.stable_revision == "assistant-0123456789"


def test_route_without_monitoring_watches_errors():
    world = compiled(route(), backend())
    (objective,) = world.routes["default/assistant"].monitoring.objectives
    assert objective == Objective(name="errors", event="Error", share=2, negligible_rate=0.005)


def test_route_without_rollout_has_the_default_steps():
    policy = compiled(route(), backend()).routes["default/assistant"].rollout
    assert [step.kind for step in policy.steps] == [
        *("setWeight", "hold", "setWeight", "hold", "setWeight", "prove")
    ]


def test_default_floor_is_below_the_ceiling():
    watched = route()
    objectives = [{"name": "a", "event": "Error", "maxRate": "0.001"}]
    watched["spec"]["monitoring"] = {"objectives": objectives}
    world = compiled(watched, backend())
    (objective,) = world.routes["default/assistant"].monitoring.objectives
    assert 0 < objective.negligible_rate < objective.max_rate


def test_labels_have_a_window_and_no_floor():
    watched = route()
    labels = {"name": "thumbs", "event": "Feedback", "within": "10m"}
    watched["spec"]["monitoring"] = {"objectives": [{"name": "a", "event": "Error"}, labels]}
    world = compiled(watched, backend())
    (_, objective) = world.routes["default/assistant"].monitoring.objectives
    assert objective == Objective(name="thumbs", event="Feedback", within_ms=600_000)


def test_rollout_is_audited_no_less_than_the_time_outside():
    audited = route()
    audited["spec"]["monitoring"] = {"audits": {"percent": 2, "reference": "small"}}
    audits = compiled(audited, backend()).routes["default/assistant"].monitoring.audits
    assert audits.during_rollout_bp == audits.percent_bp == 200


# Problems.


def test_missing_backend_is_told_with_the_nearest():
    world = compiled(route(), backend("smal"))
    (problem,) = world.problems
    assert problem.sentence() == (
        "ModelRoute default/assistant: spec.behaviour.tiers[0].backendRef.name: saw 'small', "
        "wanted a ModelBackend in namespace default; did you mean 'smal'?"
    )


def test_missing_backend_is_an_unresolved_reference():
    assert reason(route()) == ("ResolvedRefs", "BackendNotFound")


def test_backend_of_another_namespace_is_not_found():
    other = backend()
    other["metadata"]["namespace"] = "other"
    assert reason(route(), other) == ("ResolvedRefs", "BackendNotFound")


def test_vllm_backend_needs_kubernetes():
    assert reason(route(), vllm()) == ("ResolvedRefs", "BackendNeedsKubernetes")


def test_confidence_needs_logprobs():
    tiers = [{**TIER, "accept": [SURE]}]
    assert reason(route(tiers=tiers), backend(), calibration()) == ("Accepted", "CapabilityMissing")


@pytest.mark.parametrize(
    ("carrier", "told"),
    [
        pytest.param(None, "CalibrationNotFound", id="no ConfigMap"),
        pytest.param({**calibration(), "data": {}}, "CalibrationNotFound", id="no key"),
        pytest.param(calibration("{"), "CalibrationInvalid", id="torn JSON"),
        pytest.param(calibration("[" * 5_000), "CalibrationInvalid", id="deep JSON"),
        pytest.param(calibration("{}"), "CalibrationInvalid", id="an empty object"),
        pytest.param(calibration(version=2), "CalibrationInvalid", id="a later version"),
        pytest.param(calibration(method="Margin"), "CalibrationInvalid", id="another method"),
        pytest.param(calibration(features={}), "CalibrationInvalid", id="no features"),
        pytest.param(calibration(features={"avg": 1}), "CalibrationInvalid", id="a feature"),
        pytest.param(calibration(intercept="1"), "CalibrationInvalid", id="a quoted weight"),
        pytest.param(calibration(intercept=float("nan")), "CalibrationInvalid", id="not a number"),
    ],
)
def test_calibration_is_refused(carrier, told):
    objects = [route(tiers=[{**TIER, "accept": [SURE]}]), backend(capabilities=["Logprobs"])]
    assert reason(*objects, *([carrier] if carrier else [])) == ("ResolvedRefs", told)


def test_all_problems_of_a_route_are_told():
    tiers = [{"name": name, "backendRef": {"name": name}} for name in ("a", "b")]
    assert len(compiled(route(tiers=tiers)).problems) == 2


def test_broken_route_harms_no_other():
    broken = route("broken", tiers=[{"name": "a", "backendRef": {"name": "hole"}}])
    assert list(compiled(broken, route(), backend()).routes) == ["default/assistant"]


def test_older_route_keeps_a_model_name():
    old = route("older", created="2026-01-01T00:00:00Z", models=["chat"])
    new = route("newer", created="2026-02-01T00:00:00Z", models=["mine", "chat"])
    world = compiled(new, old, backend())
    assert (list(world.routes), world.names) == (["default/older"], {"chat": "default/older"})


def test_conflict_names_the_holder():
    (problem,) = compiled(route("a", models=["x"]), route("b", models=["x"]), backend()).problems
    assert (problem.reason, problem.object) == ("Conflicted", "ModelRoute default/b")
    assert "default/a" in problem.seen


def test_loser_of_a_conflict_claims_nothing():
    routes = [route("a", models=["x"]), route("b", models=["x", "y"]), route("c", models=["y"])]
    assert list(compiled(*routes, backend()).routes) == ["default/a", "default/c"]


def test_broken_older_route_keeps_its_claim():
    broken = route("a", models=["x"], tiers=[{"name": "t", "backendRef": {"name": "hole"}}])
    assert compiled(broken, route("b", models=["x"]), backend()).routes == {}


def in_namespace(obj, namespace):
    return {**obj, "metadata": {**obj["metadata"], "namespace": namespace}}


@pytest.mark.parametrize(
    ("cluster", "names"),
    [
        pytest.param(
            True,
            {"one/assistant": "one/assistant", "two/assistant": "two/assistant"},
            id="a cluster has a space of names in each namespace",
        ),
        pytest.param(False, {"assistant": "one/assistant"}, id="standalone has one space"),
    ],
)
def test_model_names_are_claimed_in_a_space(cluster, names):
    objects = [in_namespace(one, ns) for ns in ("one", "two") for one in (route(), backend())]
    assert compiled(*objects, cluster=cluster).names == names


def test_nothing_compiles_to_nothing():
    assert compiled().routes == {}
