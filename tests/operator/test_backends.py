"""Which model servers a namespace keeps, from objects and routes' memories."""

import msgspec
import pytest

from support.objects import route, vllm
from support.thinking import NOW, SPACE, Space, deployment, edited, live, serving, trip
from weir_core.resources import from_object
from weir_operator.admission import admitted
from weir_operator.backends import capacity_of, identities, seen_of, versions
from weir_operator.revisions import backend_revision
from weir_operator.standing import ROLLED_BACK_GRACE_S, Mark, decided, parked

GPU = {"resourceName": "nvidia.com/gpu", "count": 1, "nodeSelector": {"gpu": "l4"}}
BUDGET = {"startup": {"budget": "1m"}, "accelerator": GPU}
LATER = NOW + 10_000


def instant(at_s):
    from weir_core.figures import instant

    return instant(at_s)


def keep_identity(space, obj, name, *, made_s=NOW, mark=""):
    """Write the ModelRevision of an identity, as a walk does before its pods."""
    made = live(backend_revision(live(obj), identity=name, template={"spec": {}}))
    made["metadata"]["creationTimestamp"] = instant(made_s)
    if mark:
        made["metadata"]["annotations"] = {"inference.weir.dev/given-up": mark}
    space.put(made)


def pod(space, identity, name="p", *, unscheduled_s=None, unready_s=NOW):
    made = live(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": {"inference.weir.dev/identity": identity}},
        }
    )
    made["status"] = {
        "conditions": [
            {"type": "Ready", "status": "False", "lastTransitionTime": instant(unready_s)}
        ]
    }
    if unscheduled_s is not None:
        lacks = {
            "type": "PodScheduled",
            "status": "False",
            "message": "0/3 nodes: 3 Insufficient nvidia.com/gpu.",
            "lastTransitionTime": instant(unscheduled_s),
        }
        made["status"]["conditions"].append(lacks)
    space.put(made)


def decide(space, now_s=NOW):
    """Decide as a walk does, and return the identities by name."""
    world = admitted(space.world(), space.thinker.memories)
    compiled = space.thinker.compiled(world)
    wanted = identities(world, compiled, space.thinker.memories, now_s=now_s)
    return {one.name: one for one in decided(world, wanted, space.thinker.memories, now_s=now_s)}


def stable_of(space, name="assistant"):
    policy = space.thinker.memories[name].published
    (identity,) = {tier.backend.identity for tier in policy.stable.behaviour.tiers}
    return identity


def canary_on(space, **fields):
    """Edit the backend and return (old, new) identity, both known to the cluster."""
    old = stable_of(space)
    keep_identity(space, vllm(**BUDGET), old)
    _, new = edited(space, **{**BUDGET, **fields})
    keep_identity(space, vllm(image="vllm:2", **BUDGET), new, made_s=NOW + 1)
    return old, new


def accelerated():
    space = Space()
    space.write(vllm(**BUDGET), route())
    space.walk()
    space.put(deployment(stable_of(space)))
    space.walk()
    return space


def given_up():
    """Return a space whose canary found no room in time, its mark written."""
    space = accelerated()
    old, new = canary_on(space)
    space.put(deployment(new, ready=0))
    pod(space, new, unscheduled_s=NOW)
    found = decide(space, NOW + 61)[new]
    keep_identity(space, vllm(image="vllm:2", **BUDGET), new, made_s=NOW + 1, mark=found.mark)
    space.put(deployment(new, ready=0, replicas=0))
    return space, old, new, found


def test_canary_without_room_is_given_up_and_stable_is_not_touched():
    space = accelerated()
    old, new = canary_on(space)
    space.put(deployment(new, ready=0))
    pod(space, new, unscheduled_s=NOW)
    assert decide(space, NOW + 59)[new].reason == ""
    found = decide(space, NOW + 61)
    assert (found[new].reason, found[new].replicas) == ("NoCapacity", 0)
    assert "Insufficient nvidia.com/gpu" in found[new].message
    assert "scaled to 0" in found[new].message
    assert (found[old].reason, found[old].replicas) == ("", 1)


def test_what_was_given_up_stays_so_after_its_pods_are_gone_and_after_a_restart():
    space, _, new, before = given_up()
    pods = space.cache.get("Pod", SPACE, "p")
    space.cache.drop({**pods, "metadata": {**pods["metadata"], "resourceVersion": "999"}})
    space.version = 1_000
    space.keep()
    space.restart()
    space.reports.clear()
    space.think()
    found = decide(space, LATER)[new]
    assert (found.reason, found.replicas, found.mark) == ("NoCapacity", 0, before.mark)


@pytest.mark.parametrize("who", ["backend", "route", "attempt"])
def test_what_was_given_up_is_tried_again_when_somebody_asks(who):
    space, _, new, _ = given_up()
    memory = space.thinker.memories["assistant"]
    if who == "backend":
        space.write(vllm(image="vllm:2", **BUDGET), generation=3)
    elif who == "route":
        space.write(route(), generation=2)
    else:
        memory.state = msgspec.structs.replace(memory.state, attempt=memory.state.attempt + 1)
    found = decide(space, LATER)[new]
    assert (found.reason, found.replicas, found.mark) == ("", None, "")


def test_ready_replicas_that_serve_a_canary_stay_when_the_rest_finds_no_room():
    space = accelerated()
    _, new = canary_on(space)
    space.put(deployment(new, ready=1, replicas=2))
    space.walk()
    assert space.walk()[0].policy.weight_bp > 0
    pod(space, new, unscheduled_s=NOW)
    found = decide(space, NOW + 61)[new]
    assert found.reason == "NoCapacity"
    assert msgspec.json.decode(found.mark, type=Mark).keep == 1
    assert "1 of 2 replicas stay" in found.message


def test_a_server_that_never_gets_ready_is_given_up_past_budget_and_pull():
    space = accelerated()
    _, new = canary_on(space)
    space.put(deployment(new, ready=0))
    pod(space, new)
    assert decide(space, NOW + 600)[new].reason == ""
    assert decide(space, NOW + 661)[new].reason == "StartupFailed"


def test_the_routes_status_says_what_the_canary_lacks():
    space, _, new, found = given_up()
    world = msgspec.structs.replace(space.world(), parked=parked([found]))
    compiled = space.thinker.compiled(world)
    thought = space.thinker.think(world, compiled, "assistant", now_s=NOW)
    lacks = capacity_of(world, thought.state, compiled.routes[f"{SPACE}/assistant"].revision)
    assert lacks.weight_bp == 0
    assert new in lacks.message
    assert not lacks.loads
    told = str(space.thinker.status(thought, now_s=NOW))
    assert "Insufficient nvidia.com/gpu" in told


def test_a_canary_whose_model_loads_lacks_nothing_but_time():
    space = accelerated()
    _, new = canary_on(space)
    world = space.world()
    compiled = space.thinker.compiled(world)
    thought = space.thinker.think(world, compiled, "assistant", now_s=NOW)
    lacks = capacity_of(world, thought.state, compiled.routes[f"{SPACE}/assistant"].revision)
    assert lacks.loads
    assert lacks.message == f"0 of 1 replicas of {new} are ready: its model loads"


def other_route():
    tiers = [{"name": "t", "backendRef": {"name": "other"}}]
    return route("b", tiers=tiers)


def other_backend(image="vllm:1", **fields):
    made = vllm(image=image, **{**BUDGET, **fields})
    made["metadata"]["name"] = "other"
    return made


def two_canaries():
    """Return a space in which two routes' canaries want devices of one pool."""
    space = accelerated()
    space.write(other_backend(), other_route())
    space.walk("b")
    space.put(deployment(stable_of(space, "b")))
    _, first = canary_on(space)
    space.write(other_backend("vllm:2"), generation=2)
    thought, _ = space.walk("b")
    (second,) = {tier.backend.identity for tier in thought.policy.canary.behaviour.tiers}
    keep_identity(space, other_backend("vllm:2"), second, made_s=NOW + 2)
    return space, first, second


def test_of_two_canaries_in_one_pool_the_older_loads_first():
    space, first, second = two_canaries()
    found = decide(space)
    assert found[first].reason == ""
    assert (found[second].reason, found[second].replicas) == ("WaitsForPool", 0)
    assert first in found[second].message
    space.put(deployment(first, ready=1))
    assert decide(space)[second].reason == ""


def test_who_loads_keeps_its_replicas_though_an_older_one_comes_back():
    space, first, second = two_canaries()
    space.put(deployment(second, ready=0))
    found = decide(space)
    assert (found[second].reason, found[first].reason) == ("", "WaitsForPool")


def test_who_was_given_up_holds_nobody_up():
    space, first, second = two_canaries()
    space.put(deployment(first, ready=0))
    pod(space, first, unscheduled_s=NOW)
    assert decide(space)[second].reason == "WaitsForPool"
    found = decide(space, NOW + 61)
    assert (found[first].reason, found[second].reason) == ("NoCapacity", "")


def test_canaries_of_different_pools_load_at_once():
    space = accelerated()
    fields = {"accelerator": {**GPU, "nodeSelector": {"gpu": "h100"}}}
    space.write(other_backend(**fields))
    _, first = canary_on(space)
    found = decide(space)
    assert {one.reason for one in found.values()} == {""}
    assert len(found) == 3
    assert first in found


def rolled_back():
    space = serving()
    old = stable_of(space)
    keep_identity(space, vllm(), old)
    thought, new = edited(space)
    keep_identity(space, vllm(image="vllm:2"), new)
    space.put(deployment(new))
    space.report(trips=(trip(thought.policy),))
    space.walk()
    space.report(trips=())
    return space, old, new


def test_a_rolled_back_identity_gives_its_devices_back_after_a_while():
    space, old, new = rolled_back()
    assert decide(space, NOW + ROLLED_BACK_GRACE_S)[new].reason == ""
    found = decide(space, NOW + ROLLED_BACK_GRACE_S + 1)
    assert (found[new].reason, found[new].replicas) == ("RolledBack", 0)
    assert (found[old].reason, found[old].replicas) == ("", 1)


def test_a_retry_brings_a_rolled_back_identity_back():
    space, _, new = rolled_back()
    retried = route()
    retried["spec"]["rollout"] = {"steps": [{"setWeight": 5}], "retryToken": "again"}
    space.write(retried, generation=2)
    thought, _ = space.walk(now_s=LATER)
    assert thought.state.live
    assert decide(space, LATER)[new].reason == ""


def test_the_old_identity_stays_until_every_router_has_heard_of_the_promotion():
    space = serving()
    old = stable_of(space)
    keep_identity(space, vllm(), old)
    thought, new = edited(space)
    keep_identity(space, vllm(image="vllm:2"), new)
    memory = space.thinker.memories["assistant"]
    memory.state = msgspec.structs.replace(
        memory.state, stable=thought.state.canary, canary="", stage="Idle"
    )
    memory.version = (1, 99)
    assert decide(space)[old].replicas == 1
    space.report(acks={f"{SPACE}/assistant": (1, 99)})
    assert set(decide(space)) == {new}


def test_an_edit_scales_no_older_identity_down():
    space = serving()
    old = stable_of(space)
    keep_identity(space, vllm(), old)
    space.put(deployment(old, ready=5, replicas=5))
    edited(space)
    assert decide(space)[old].replicas == 5


def three_in_use():
    """Return a space of three routes: two stable at versions of their own, one with a canary."""
    space = serving()
    first = stable_of(space)
    keep_identity(space, vllm(), first)
    for number, name in ((2, "b"), (3, "c")):
        space.write(vllm(image=f"vllm:{number}"), generation=number)
        space.write(route(name))
        space.walk(name)
        keep_identity(
            space, vllm(image=f"vllm:{number}"), stable_of(space, name), made_s=NOW + number
        )
    # What "c" serves counts as its canary: it is not decided on.
    memory = space.thinker.memories["c"]
    stable = space.thinker.memories["assistant"].state.records[0]
    memory.state = msgspec.structs.replace(
        memory.state,
        canary=memory.state.stable,
        stable=stable.revision.name,
        stage="Steps",
        records=(*memory.state.records, stable),
    )
    return space, stable_of(space, "c")


def test_a_fourth_edit_waits_and_routes_go_on_with_the_one_before():
    space, third = three_in_use()
    space.write(vllm(image="vllm:4"), generation=4)
    world = admitted(space.world(), space.thinker.memories)
    assert third in world.waits["small"]
    compiled = space.thinker.compiled(world)
    assert compiled.identities[f"{SPACE}/small"] == third
    wanted = identities(world, compiled, space.thinker.memories, now_s=NOW)
    assert len(wanted) == 3
    told = seen_of(world, compiled, "small", wanted, space.thinker.memories)
    assert told.waits[0] == "PreviousEditInFlight"


def test_the_edit_begins_when_the_one_before_is_decided():
    space, _ = three_in_use()
    space.write(vllm(image="vllm:4"), generation=4)
    memory = space.thinker.memories["c"]
    memory.state = msgspec.structs.replace(memory.state, stage="RolledBack")
    world = admitted(space.world(), space.thinker.memories)
    assert world.waits == {}
    obj = vllm(image="vllm:4")
    assert world.backend("small").spec == from_object(live(obj)).spec


def decided_on(space, identity):
    """Return (undecided, promoted, rolled back) as the status of the backend is told them."""
    world = space.world()
    compiled = space.thinker.compiled(world)
    assert compiled.identities[f"{SPACE}/small"] == identity
    own = versions(identities(world, compiled, space.thinker.memories, now_s=NOW))["small"]
    seen = seen_of(world, compiled, "small", own, space.thinker.memories)
    return seen.undecided, seen.promoted, seen.rolled_back


def test_a_backend_is_promoted_when_its_newest_identity_is_stable_and_not_before():
    space = serving()
    old = stable_of(space)
    assert decided_on(space, old) == ((), ("assistant",), ())
    # Edited, and no walk has seen it yet: what is stable is not what the spec asks for.
    space.write(vllm(image="vllm:2"), generation=2)
    new = space.thinker.compiled(space.world()).identities[f"{SPACE}/small"]
    assert new != old
    assert decided_on(space, new) == (("assistant",), (), ())
    space.walk()
    assert decided_on(space, new) == (("assistant",), (), ())
    space.put(deployment(new))
    policy = space.walk()[0].policy
    space.report(trips=(trip(policy),))
    space.walk()
    assert decided_on(space, new) == ((), (), ("assistant",))
    space.write(vllm(), generation=3)
    space.walk()
    assert decided_on(space, old) == ((), ("assistant",), ())


def behind(**rolling):
    """Return what the status is told of an identity whose Deployment is rolling so."""
    space = serving()
    compiled = space.thinker.compiled(space.world())
    name = compiled.identities[f"{SPACE}/small"]
    rolled = deployment(name)
    rolled["metadata"]["generation"] = 2
    rolled["status"] |= rolling
    space.put(rolled)
    world = space.world()
    own = versions(identities(world, compiled, space.thinker.memories, now_s=NOW))["small"]
    (seen,) = seen_of(world, compiled, "small", own, {}).identities
    return seen.behind


@pytest.mark.parametrize(
    ("rolling", "wanted"),
    [
        ({"observedGeneration": 2, "replicas": 2, "updatedReplicas": 1}, 1),
        ({"observedGeneration": 2, "replicas": 1, "updatedReplicas": 1}, 0),
        ({"observedGeneration": 1, "replicas": 2, "updatedReplicas": 1}, 0),
    ],
    ids=["stuck", "done", "not begun"],
)
def test_replicas_from_before_an_edit_in_place_are_counted(rolling, wanted):
    assert behind(**rolling) == wanted


def test_a_server_that_was_scaled_to_0_is_not_ready_with_none_of_none():
    """As after a retry of what was given up, until its Deployment has heard of that."""
    space, _, new, _ = given_up()
    world = space.world()
    compiled = space.thinker.compiled(world)
    own = versions(identities(world, compiled, space.thinker.memories, now_s=NOW))["small"]
    told = seen_of(world, compiled, "small", own, space.thinker.memories)
    assert (told.newest.name, told.newest.ready, told.newest.wanted) == (new, 0, 1)
