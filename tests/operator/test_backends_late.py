"""What a router that does not take a promotion may still call: who is waited for, and how long."""

import pytest
from msgspec.structs import replace

from support.objects import vllm
from support.thinking import NOW, SPACE, deployment, edited, live, serving
from weir_core.wire import Nack, Report
from weir_operator.backends import LEFT_BEHIND_S, identities
from weir_operator.inbox import Connected
from weir_operator.memory import NEVER, Checkpoint, RouteMemory
from weir_operator.revisions import backend_revision

KEY = f"{SPACE}/assistant"
OLD, NEW = (1, 98), (1, 99)
OVERDUE_S = LEFT_BEHIND_S + 30 + 1


class Promoted:
    """A namespace whose canary was promoted, with a sidecar beside its router."""

    def __init__(self):
        self.space = space = serving()
        policy = space.thinker.memories["assistant"].published
        (self.old,) = {tier.backend.identity for tier in policy.stable.behaviour.tiers}
        self.keep(vllm(), self.old)
        thought, self.new = edited(space)
        self.keep(vllm(image="vllm:2"), self.new)
        space.put(deployment(self.new))
        self.memory = space.thinker.memories["assistant"]
        self.memory.state = replace(
            self.memory.state, stable=thought.state.canary, canary="", stage="Idle"
        )
        self.memory.version = NEW
        self.router(NEW)
        self.sidecar(OLD)

    def keep(self, obj, name):
        self.space.put(live(backend_revision(live(obj), identity=name, template={"spec": {}})))

    def router(self, acked):
        self.space.report(acks={KEY: acked})

    def sidecar(self, acked, *, nack="", alive=True):
        nacks = {KEY: Nack(NEW, nack)} if nack else {}
        report = Report(start=1, as_of_s=NOW, acks={KEY: acked}, nacks=nacks)
        self.beside = Connected(
            pod_uid="s1", pod_name="app-1", sidecar=True, report=report, seen_s=NOW, alive=alive
        )

    def kept(self, now_s=NOW):
        """Return the identities that should run."""
        world = self.space.world()
        world = replace(world, connected=(*world.connected, self.beside))
        compiled = self.space.thinker.compiled(world)
        found = identities(world, compiled, self.space.thinker.memories, now_s=now_s)
        return {one.name for one in found}

    @property
    def told(self):
        return [one for one in self.memory.untold if one.reason == "SidecarsLeftBehind"]


@pytest.mark.parametrize("nack", ["", "it cannot be compiled here"], ids=["silent", "refusing"])
def test_a_sidecar_that_takes_nothing_new_is_waited_for_a_while_only(nack):
    ring = Promoted()
    ring.sidecar(OLD, nack=nack)
    assert ring.kept() == {ring.old, ring.new}
    assert ring.kept(NOW + OVERDUE_S - 2) == {ring.old, ring.new}
    assert not ring.told
    assert ring.kept(NOW + OVERDUE_S) == {ring.new}
    (told,) = ring.told
    assert told.warning
    assert ring.old in told.message
    assert f"app-1{f' (refused: {nack})' if nack else ''}; they" in told.message
    ring.kept(NOW + 2 * OVERDUE_S)
    assert len(ring.told) == 1


def test_a_router_of_the_deployment_is_waited_for_as_long_as_it_runs():
    ring = Promoted()
    ring.router(OLD)
    ring.kept()
    assert ring.kept(NOW + 100 * OVERDUE_S) == {ring.old, ring.new}
    assert not ring.told


def test_a_sidecar_that_follows_late_is_not_left_behind():
    """It had taken something in between: its time begins anew."""
    ring = Promoted()
    ring.kept()
    ring.sidecar((1, 97))
    assert ring.kept(NOW + OVERDUE_S) == {ring.old, ring.new}
    ring.sidecar(NEW)
    assert ring.kept(NOW + OVERDUE_S) == {ring.new}
    ring.sidecar(OLD)
    assert ring.kept(NOW + 2 * OVERDUE_S) == {ring.old, ring.new}
    assert not ring.told


def test_a_sidecar_that_is_gone_holds_nothing_back():
    ring = Promoted()
    ring.sidecar(OLD, alive=False)
    assert ring.kept() == {ring.new}


def test_nobody_is_left_behind_who_was_told_nothing():
    ring = Promoted()
    ring.memory.version = NEVER
    ring.router(NEVER)
    ring.kept()
    assert ring.kept(NOW + OVERDUE_S) == {ring.old, ring.new}


def test_a_router_whose_stream_broke_after_it_had_heard_is_not_waited_for():
    ring = Promoted()
    ring.sidecar(NEW)
    world = ring.space.world()
    lost = tuple(replace(one, alive=False) for one in world.connected)
    ring.space.world = lambda: replace(world, connected=lost)
    assert ring.kept() == {ring.new}


def test_what_another_route_still_waits_for_is_not_told_to_go():
    ring = Promoted()
    ring.kept()
    other = ring.space.thinker.memories["other"] = RouteMemory(ring.memory.state, Checkpoint())
    other.version = (1, 50)
    ring.space.report(acks={KEY: NEW, f"{SPACE}/other": (1, 49)})
    assert ring.kept(NOW + OVERDUE_S) == {ring.old, ring.new}
    assert not ring.told
