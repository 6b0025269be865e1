"""What a namespace's routes do next, from objects, reports and memory."""

import random

import msgspec
import pytest

from support.objects import backend, route, vllm
from support.thinking import NOW, SPACE, Space, deployment, edited, live, router_pod, serving, trip
from weir_core.figures import instant
from weir_core.history import find
from weir_operator.memory import labels_of
from weir_router.ledger import Ledger

COMMAND = "inference.weir.dev/command"


def test_first_revision_serves_at_once():
    space = Space()
    space.write(vllm(), route())
    thought, _ = space.walk()
    assert thought.state.stage == "Idle"
    assert thought.policy.stable.name == thought.state.stable
    assert [t.reason for t in thought.transitions] == ["RevisionCreated", "Promoted"]


def model_pod(identity, *, turned_s=0.0, waits="", unplaced=""):
    """Return a model server's pod that is not ready, since `turned_s` after it began."""
    container = {"name": "vllm", "started": True}
    if waits:
        container["state"] = {"waiting": {"reason": waits}}
    made = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "labels": {"inference.weir.dev/identity": identity}},
    }
    if unplaced:
        scheduled = {"type": "PodScheduled", "status": "False", "message": unplaced}
        return live(made, conditions=[scheduled])
    began_s = NOW - 600
    since = instant(began_s + turned_s)
    unready = {"type": "Ready", "status": "False", "lastTransitionTime": since}
    return live(
        made,
        containerStatuses=[container],
        startTime=instant(began_s),
        conditions=[unready],
    )


@pytest.mark.parametrize(
    ("pod", "why", "stalled"),
    [
        ({}, "its model loads", "False"),
        ({"unplaced": "0/3 nodes"}, "its pod waits for a node or a volume", "False"),
        ({"waits": "CrashLoopBackOff"}, "CrashLoopBackOff", "True"),
        ({"turned_s": 120.0}, "Connect", "True"),
    ],
)
def test_a_model_that_loads_is_no_outage_whatever_routers_meet_there(pod, why, stalled):
    space = Space()
    space.write(vllm(), route())
    thought, _ = space.walk()
    (identity,) = {tier.backend.identity for tier in thought.policy.stable.behaviour.tiers}
    space.put(model_pod(identity, **pod))
    space.report(ejected={identity: "Connect"})
    thought = space.think()
    told = {c["type"]: c for c in space.thinker.status(thought, now_s=NOW)["conditions"]}
    assert (told["Ready"]["status"], told["Ready"]["reason"]) == ("False", "NoHealthyBackend")
    assert f"(small: {why})" in told["Ready"]["message"]
    assert told["Stalled"]["status"] == stalled
    assert told["Reconciling"]["status"] == ("False" if stalled == "True" else "True")


@pytest.mark.parametrize(
    ("age_s", "why", "stalled"),
    [
        (None, "its model loads", "False"),
        (10, "its model loads", "False"),
        (60, "Connect", "True"),
    ],
)
def test_a_model_that_has_just_loaded_is_no_outage_before_routers_try_it_again(age_s, why, stalled):
    space = Space()
    space.write(vllm(), route())
    thought, _ = space.walk()
    (identity,) = {tier.backend.identity for tier in thought.policy.stable.behaviour.tiers}
    space.put(deployment(identity, ready=1))
    # A Deployment may tell of a ready pod before the pod itself does.
    since = instant(NOW - (age_s or 0))
    ready = {"type": "Ready", "status": str(age_s is not None), "lastTransitionTime": since}
    space.put(live(model_pod(identity), conditions=[ready]))
    space.report(ejected={identity: "Connect"})
    thought = space.think()
    told = {c["type"]: c for c in space.thinker.status(thought, now_s=NOW)["conditions"]}
    assert f"(small: {why})" in told["Ready"]["message"]
    assert told["Stalled"]["status"] == stalled


def test_backend_edit_is_a_canary_that_waits_for_its_replicas():
    space = serving()
    thought, identity = edited(space)
    assert thought.state.live
    waits, _ = space.walk()
    assert waits.policy.weight_bp == 0
    assert "NoCapacity" in waits.state.holds
    space.put(deployment(identity, ready=1))
    thought = space.think()
    assert thought.policy.weight_bp > 0
    assert thought.state.holds == ()


def test_no_raise_before_every_ready_router_obeys():
    space = serving()
    _, identity = edited(space)
    space.put(deployment(identity, ready=1))
    space.report(acks={})
    waits, _ = space.walk()
    assert waits.policy.weight_bp == 0
    assert "RoutersOutOfSync" in waits.state.holds


def test_half_of_stables_replicas_carry_half_of_the_weight():
    space = serving()
    stable = space.thinker.memories["assistant"].published.stable
    (old,) = {tier.backend.identity for tier in stable.behaviour.tiers}
    space.put(deployment(old, ready=4, replicas=4))
    space.write(
        route() | {"spec": {**route()["spec"], "rollout": {"steps": [{"setWeight": 60}]}}},
        generation=2,
    )
    space.walk()
    _, identity = edited(space)
    space.put(deployment(identity, ready=2, replicas=4))
    assert "NoCapacity" in space.think().state.holds
    space.put(deployment(identity, ready=3, replicas=4))
    assert space.think().policy.weight_bp == 6_000


def in_canary():
    space = serving()
    _, identity = edited(space)
    space.put(deployment(identity, ready=1))
    space.walk()
    thought, _ = space.walk()
    assert thought.policy.weight_bp == 500
    return space, thought.policy


def test_a_routers_trip_rolls_back_and_is_latched():
    space, policy = in_canary()
    space.report(trips=(trip(policy),))
    thought, order = space.walk()
    assert order == "lower"
    assert thought.state.stage == "RolledBack"
    assert thought.state.last_rollback.decided_by == "router/r1"
    assert (policy.canary.name, policy.attempt) in thought.policy.latched


def test_merged_evidence_of_three_routers_rolls_back():
    space, policy = in_canary()
    rng = random.Random(3)
    ledgers = {f"r{n}": Ledger(router=f"r{n}", boot="1") for n in range(3)}
    now_s = NOW
    for step in range(3_000):
        now_s += 0.02
        arm = int(rng.random() < 0.05)
        ledger = ledgers[f"r{step % 3}"]
        ticket = ledger.assign(policy, arm, "", now_s)
        ledger.settle(ticket, int(rng.random() < (0.6 if arm else 0.01)), now_s)
    for name, ledger in ledgers.items():
        space.report(name, tallies=ledger.tallies(now_s), as_of_s=now_s)
    thought, _ = space.walk(now_s=now_s + 1)
    assert thought.state.stage == "RolledBack"
    assert thought.state.last_rollback.suspect == "errors"
    assert thought.state.last_rollback.requests > 2_500


def test_the_share_that_a_canary_really_gets_is_told():
    space, policy = in_canary()
    ledger = Ledger(router="uid-Pod-r1", boot="1")
    for second in range(5):
        now_s = NOW + second
        for n in range(40):
            ledger.settle(ledger.assign(policy, int(n % 10 == 0), "", now_s), 0, now_s)
        space.report(tallies=ledger.tallies(now_s), as_of_s=now_s)
        thought, _ = space.walk(now_s=now_s)
    told = space.thinker.status(thought, now_s=now_s)["weight"]
    assert told == {"set": "5%", "actual": "10%"}


def test_a_canary_that_takes_anothers_place_begins_without_its_evidence():
    space, policy = in_canary()
    space.report(tallies=boot(policy, 1, NOW), as_of_s=NOW)
    thought, _ = space.walk()
    told = space.thinker.status(thought, now_s=NOW)
    assert told["evidence"]["assigned"]["canary"] == 1
    space.write(vllm(image="vllm:3"), generation=3)
    thought = space.think()
    told = space.thinker.status(thought, now_s=NOW)
    assert told["canary"]["revision"] not in ("", policy.canary.name)
    assert told["evidence"] == {"objectives": []}


def boot(policy, start, now_s):
    """Return what a router saw in its so-manieth start: one answer of the canary."""
    ledger = Ledger(router="uid-Pod-r1", boot=str(start))
    ledger.settle(ledger.assign(policy, 1, "", now_s), 0, now_s)
    return ledger.tallies(now_s)


def test_starts_of_a_router_that_are_over_are_summed_while_its_pod_lives():
    space, policy = in_canary()
    now_s = NOW
    for start in range(1, 13):
        space.report(start=start, tallies=boot(policy, start, now_s), as_of_s=now_s)
        space.walk(now_s=now_s)
        now_s += 40
    merged = space.thinker.memories["assistant"].merged
    assert len(merged.tallies) <= 3
    assert len(merged.retired_boots) == 1
    thought, _ = space.walk(now_s=now_s)
    assert thought.observed.judgement.assigned[1] == 12


def test_the_last_start_of_a_living_router_is_not_summed():
    space, policy = in_canary()
    space.report(start=2, tallies=boot(policy, 2, NOW))
    space.walk()
    space.walk(now_s=NOW + 5_000)
    assert space.thinker.memories["assistant"].merged.retired is None


def test_a_rollback_whose_verdict_was_lost_says_so():
    space, policy = in_canary()
    space.report(trips=(trip(policy),))
    space.walk()
    space.keep(status=False)
    space.restart()
    space.reports.clear()
    thought = space.think()
    (refused,) = [t for t in thought.transitions if t.reason == "AttemptRefused"]
    assert "rolled back in attempt 1 (its verdict was lost with the status)" in refused.message


def test_tallies_of_another_attempt_are_no_evidence():
    space, policy = in_canary()
    ledger = Ledger(router="r0", boot="1")
    for n in range(200):
        ticket = ledger.assign(policy, 1, "", NOW + n)
        ledger.settle(ticket, 1, NOW + n)
    (tally,) = ledger.tallies(NOW + 200)
    other = msgspec.structs.replace(tally, key=msgspec.structs.replace(tally.key, attempt=9))
    space.report(tallies=(other,))
    thought, _ = space.walk(now_s=NOW + 201)
    assert thought.state.live


def test_two_unclean_ends_of_routers_roll_back():
    space, _ = in_canary()
    space.report(unclean=1)
    assert space.walk()[0].state.live
    space.report(unclean=2)
    thought, _ = space.walk()
    assert thought.state.last_rollback.reason == "UncleanBoots"


def test_state_goes_on_where_it_was_after_a_restart():
    space, policy = in_canary()
    space.keep()
    space.restart()
    thought = space.think()
    assert thought.policy.canary == policy.canary
    assert thought.policy.weight_bp == 500
    assert thought.state.attempt == policy.attempt


@pytest.mark.parametrize("status", [True, False], ids=["records", "labels alone"])
def test_a_rolled_back_revision_stays_so_when_the_status_is_lost(status):
    space, policy = in_canary()
    space.report(trips=(trip(policy),))
    space.walk()
    space.keep(status=False)
    if status:
        space.keep()
        obj = space.cache.get("ModelRoute", SPACE, "assistant")
        space.put({key: value for key, value in obj.items() if key != "status"})
    space.restart()
    space.reports.clear()
    thought = space.think()
    assert thought.state.stable == policy.stable.name
    assert thought.state.stage == "RolledBack"
    assert thought.policy.weight_bp == 0


def test_a_route_applied_again_finds_its_history():
    space, policy = in_canary()
    space.report(trips=(trip(policy),))
    space.walk()
    space.keep()
    again = space.cache.get("ModelRoute", SPACE, "assistant")
    space.cache.drop({**again, "metadata": {**again["metadata"], "resourceVersion": "999"}})
    space.version = 1_000
    made = {key: value for key, value in again.items() if key != "status"}
    made["metadata"] = {**made["metadata"], "uid": "another"}
    space.put(made)
    space.restart()
    space.reports.clear()
    thought = space.think()
    assert thought.policy.stable.name == policy.stable.name
    assert thought.state.stage == "RolledBack"


def test_a_broken_route_keeps_its_last_good_revision_and_harms_nobody():
    space = serving()
    space.write(
        backend("other"), route("b", tiers=[{"name": "t", "backendRef": {"name": "other"}}])
    )
    space.walk("b")
    before = space.thinker.memories["assistant"].published
    broken = route()
    broken["spec"]["behaviour"]["tiers"][0]["backendRef"]["name"] = "nowhere"
    space.write(broken, generation=2)
    thought, order = space.walk()
    assert order == "same"
    assert thought.policy == before
    told = space.thinker.status(thought, now_s=NOW)
    conditions = {c["type"]: c for c in told["conditions"]}
    assert conditions["ResolvedRefs"]["status"] == "False"
    assert "nowhere" in conditions["ResolvedRefs"]["message"]
    assert space.think("b").policy is not None


def test_command_of_the_annotation_is_obeyed_once():
    space, policy = in_canary()
    obj = space.cache.get("ModelRoute", SPACE, "assistant")
    text = f"abort@{policy.canary.name}#{NOW:.0f}"
    annotated = {**obj, "metadata": {**obj["metadata"], "annotations": {COMMAND: text}}}
    space.put(annotated)
    thought, _ = space.walk(now_s=NOW + 1)
    assert thought.state.last_rollback.reason == "Aborted"
    again, _ = space.walk(now_s=NOW + 2)
    assert again.transitions == ()
    assert again.state.last_command.result == "Done"


def test_labels_tell_the_outcome():
    space, policy = in_canary()
    record = find(space.thinker.memories["assistant"].state.records, policy.canary.name)
    assert labels_of(record)["inference.weir.dev/outcome"] == "Canary"


def test_lost_body_of_stable_is_taken_from_what_routers_obey():
    space, policy = in_canary()
    space.keep()
    lost = space.cache.get("ModelRevision", SPACE, policy.stable.name)
    space.cache.drop({**lost, "metadata": {**lost["metadata"], "resourceVersion": "9999"}})
    space.restart()
    space.thinker.remember(space.world())
    memory = space.thinker.memories["assistant"]
    assert memory.state.stable != policy.stable.name
    memory.mend(policy)
    thought = space.think()
    assert thought.policy.stable == policy.stable
    assert thought.policy.canary.name == policy.canary.name
    assert thought.policy.weight_bp <= 500


def test_deaths_of_a_router_before_it_was_seen_are_not_the_canarys():
    space, _ = in_canary()
    space.put(router_pod("r2"))
    space.report("uid-Pod-r2", unclean=3, acks=space.reports["uid-Pod-r1"].acks)
    assert space.walk()[0].state.live
    space.report("uid-Pod-r2", unclean=5)
    assert space.walk()[0].state.last_rollback.reason == "UncleanBoots"


def test_a_route_of_the_same_name_and_another_uid_is_recalled_anew():
    space, _ = in_canary()
    again = space.cache.get("ModelRoute", SPACE, "assistant")
    space.put({**again, "metadata": {**again["metadata"], "uid": "another"}})
    space.think()
    assert space.thinker.memories["assistant"].uid == "another"
