"""What a backend's Events tell of its statuses, and what is applied again."""

import pytest
from msgspec.structs import replace

from support.objects import route, vllm
from support.thinking import NOW, SPACE, Space, deployment, live, router_pod
from weir_core.backend_status import BackendSeen, IdentitySeen, backend_news, backend_status
from weir_core.errors import Problem
from weir_operator.applied import AGAIN_S, Applied
from weir_operator.attention import AGE_S, Attention
from weir_operator.cache import Cache
from weir_operator.gather import Reader

LOADING = IdentitySeen(name="small-1", newest=True, wanted=1)
READY = replace(LOADING, ready=1)
NO_ROOM = replace(LOADING, reason="NoCapacity", message="no room within 20m")


def status(*identities, old=None, **fields):
    return backend_status(BackendSeen(identities=identities, **fields), now_s=NOW, old=old)


def news(*seen):
    """Return (reason, warning) of the Events over a row of statuses."""
    told, before = [], {}
    for one in seen:
        told += [(t.reason, t.warning) for t in backend_news(before, one)]
        before = one
    return told


def test_a_load_is_told_when_it_is_done():
    assert news(status(LOADING), status(READY), status(READY)) == [("ReplicasReady", False)]


def test_no_room_is_a_warning_told_once():
    row = status(LOADING), status(NO_ROOM), status(NO_ROOM)
    assert news(*row) == [("NoCapacity", True)]


def test_no_room_with_no_replicas_is_not_ready():
    told = {c["type"]: c for c in status(NO_ROOM)["conditions"]}
    assert (told["WorkloadReady"]["status"], told["WorkloadReady"]["reason"]) == (
        "False",
        "NoCapacity",
    )
    assert told["Ready"]["status"] == "False"


def test_an_edit_in_place_that_does_not_get_there_is_a_warning_though_the_pods_before_answer():
    reason, message = "CreateContainerConfigError", 'secret "absent" not found'
    stuck = status(replace(READY, behind=1, reason=reason, message=message))
    assert news(status(READY), stuck) == [("ReplicasReady", False), (reason, True)]
    told = {c["type"]: c for c in stuck["conditions"]}
    assert told["WorkloadReady"]["message"] == (
        f"1 of 1 replicas of small-1 are ready, 1 still as before the edit: {message}"
    )
    assert (told["Ready"]["status"], told["Reconciling"]["status"]) == ("True", "True")


def test_what_routes_decided_of_an_edit_is_an_event_of_the_backend():
    under_way, done = status(READY, undecided=("a",)), status(READY, promoted=("a",))
    assert news(under_way, done, done) == [("ReplicasReady", False), ("Promoted", False)]
    bad = status(READY, rolled_back=("a",))
    assert news(done, under_way, bad, bad)[1:] == [("RolledBack", True)]
    assert news(bad)[-1] == ("RolledBack", True)
    assert news(done) == [("ReplicasReady", False)], "what was well before is no news"


def by_type(told):
    return {c["type"]: (c["status"], c["reason"]) for c in told["conditions"]}


@pytest.mark.parametrize("reason", ["InvalidImageName", "ErrImageNeverPull"])
def test_what_no_waiting_mends_is_stalled(reason):
    told = by_type(status(replace(LOADING, reason=reason, message="it says")))
    assert told["Stalled"] == ("True", reason)
    assert told["Reconciling"][0] == "False"


@pytest.mark.parametrize("reason", ["", "Loading"])
def test_a_backend_is_not_degraded_while_a_canary_of_it_loads(reason):
    old = IdentitySeen(name="small-0", wanted=1, ready=1, routes=("a",))
    new = replace(LOADING, reason=reason, routes=("a",))
    assert by_type(status(old, new, undecided=("a",)))["Degraded"] == ("False", "AsWanted")
    out = by_type(status(replace(old, ready=0), new, undecided=("a",)))
    assert out["Degraded"] == ("True", "ReplicasMissing")
    lost = by_type(status(replace(new, reason="CrashLoopBackOff"), undecided=("a",)))
    assert lost["Degraded"] == ("True", "CrashLoopBackOff")
    assert by_type(status(new, promoted=("a",)))["Degraded"][0] == "True"


def test_how_long_a_load_took_is_kept_while_the_identity_is_the_same():
    first = status(replace(READY, load_s=72.4))
    assert first["lastLoadDuration"] == "1m12s"
    assert status(READY, old=first)["lastLoadDuration"] == "1m12s"
    assert status(replace(READY, name="small-2"), old=first)["lastLoadDuration"] == ""


def lacking(reason):
    return Problem(
        object="ModelBackend default/small",
        field="spec.vllm",
        seen="s",
        wanted="w",
        reason=reason,
        condition="WorkloadReady",
    )


def test_an_edit_that_waits_for_its_server_to_end_is_told_and_nothing_is_waited_for():
    waits = status(READY, problems=(lacking("EditDeferred"),))
    assert news(status(READY), waits)[1:] == [("EditDeferred", True)]
    told = {c["type"]: (c["status"], c["reason"]) for c in waits["conditions"]}
    assert told["WorkloadReady"] == ("False", "EditDeferred")
    assert told["Ready"] == ("True", "Loaded")
    assert told["Reconciling"] == ("False", "EditDeferred")
    assert told["Stalled"] == ("False", "NoAlarm")
    missing = status(replace(NO_ROOM, wanted=2, ready=1), problems=(lacking("EditDeferred"),))
    told = {c["type"]: c["reason"] for c in missing["conditions"]}
    assert told["WorkloadReady"] == "NoCapacity", "what its pods suffer from comes first"


def test_what_the_api_server_fails_at_comes_before_what_pods_suffer_from():
    failed = status(LOADING, problems=(lacking("NotApplied"),))
    told = {c["type"]: (c["status"], c["reason"]) for c in failed["conditions"]}
    assert told["WorkloadReady"] == told["Ready"] == ("False", "NotApplied")
    assert told["Reconciling"] == ("True", "NotApplied")
    assert told["Accepted"][0] == "True"


def test_a_waiting_edit_is_a_warning_though_the_one_before_answers():
    waits = status(READY, waits=("PreviousEditInFlight", "small-0 is still being tried"))
    assert news(status(READY), waits) == [
        ("ReplicasReady", False),
        ("PreviousEditInFlight", True),
    ]
    told = {c["type"]: c for c in waits["conditions"]}
    assert told["Ready"]["reason"] == "PreviousEditInFlight"


def test_a_foreign_object_is_told_of():
    problem = Problem(
        object="ModelBackend default/small",
        field="metadata.name",
        seen="one without the label",
        wanted="a free name",
        reason="ForeignObject",
    )
    assert ("ForeignObject", True) in news(status(problems=(problem,)))


# What a walk may pass over.


def objects():
    cache = Cache()
    made = live(deployment("small-1"), version=5)
    cache.put(made)
    return cache, made, (("Deployment", "small-1"),)


def test_what_was_applied_is_passed_over_until_it_changes():
    cache, made, names = objects()
    applied = Applied(cache)
    applied.note(SPACE, "small-1", "asked", names, ())
    assert applied.alike(SPACE, "small-1", "asked", names) == ()
    assert applied.alike(SPACE, "small-1", "asked otherwise", names) is None
    cache.put(live(made, version=6))
    assert applied.alike(SPACE, "small-1", "asked", names) is None


def test_a_deleted_object_is_applied_again():
    cache, made, names = objects()
    applied = Applied(cache)
    applied.note(SPACE, "small-1", "asked", names, ())
    cache.drop(live(made, version=7))
    assert applied.alike(SPACE, "small-1", "asked", names) is None


def test_a_refusal_is_tried_again_after_a_while():
    cache, _, names = objects()
    now = [0.0]
    applied = Applied(cache, clock=lambda: now[0])
    problem = Problem(object="ModelBackend default/small", field="spec", seen="x", wanted="y")
    applied.note(SPACE, "small-1", "asked", names, (problem,))
    assert applied.alike(SPACE, "small-1", "asked", names) == (problem,)
    now[0] = AGAIN_S
    assert applied.alike(SPACE, "small-1", "asked", names) is None


def test_an_object_is_read_once_for_each_generation():
    reader = Reader()
    (first,) = reader.read([live(vllm())])
    (same,) = reader.read([live(vllm(), version=9)])
    (new,) = reader.read([live(vllm(image="vllm:2"), generation=2)])
    assert same[1] is first[1]
    assert new[1].spec.vllm.image == "vllm:2"


class Walks:
    """A namespace of one route with the attention that its walks pay."""

    def __init__(self):
        self.space, self.attention = Space(), Attention()
        self.space.write(vllm(), route())
        for _ in range(3):
            self.walk()

    def walk(self, now_s=NOW):
        world = self.space.world()
        self.space.thinker.remember(world)
        compiled = self.space.thinker.compiled(world)
        memories = self.space.thinker.memories
        found = self.attention.of(world, compiled, memories, now_s=now_s)
        for name in found:
            thought, _ = self.space.walk(name, now_s) if self.fresh(name) else (None, None)
            thought = thought or self.space.think(name, now_s)
            memory = memories[name]
            self.attention.note(self.space.world(), compiled, memory, thought, now_s)
        return found

    def fresh(self, name):
        return self.space.thinker.memories[name].version == (0, 0)


def test_a_route_without_news_is_left_alone():
    walks = Walks()
    assert walks.walk() == []
    assert walks.walk(NOW + AGE_S) == ["assistant"]


def test_an_edit_a_command_and_a_new_router_are_news():
    walks = Walks()
    walks.space.write(route(deadline="20s"), generation=2)
    assert walks.walk() == ["assistant"]
    walks = Walks()
    obj = walks.space.cache.get("ModelRoute", SPACE, "assistant")
    noted = {**obj["metadata"], "annotations": {"inference.weir.dev/command": "pause@x#1"}}
    walks.space.put({**obj, "metadata": noted})
    assert walks.walk() == ["assistant"]
    walks = Walks()
    walks.space.put(router_pod("r2"))
    assert walks.walk() == ["assistant"]


def test_a_router_that_lags_keeps_the_route_in_mind():
    walks = Walks()
    walks.space.report(acks={})
    assert walks.walk() == ["assistant"]
    assert walks.walk() == ["assistant"]
    assert walks.attention.out_of_sync == 1
