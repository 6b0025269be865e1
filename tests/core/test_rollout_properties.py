"""What holds whatever happens, in whatever order."""

import json

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from support.rollouts import PROVE, A, B, C, hold, judged, pause, revision, trip, weight
from weir_core.commands import VERBS, Command
from weir_core.rollout import (
    Inputs,
    RolloutState,
    advance,
    brake,
    effective_alpha,
    evidence_key,
    policy_for,
    rebuild,
    rested,
    weight_order,
)
from weir_core.snapshot import Monitoring, RolloutPolicy
from weir_core.status import Observed, route_status

STEPS = st.sampled_from([
    weight(0), weight(0.5), weight(5), weight(25), weight(50), weight(100),
    hold(0, 30), hold(100), hold(20, 60), pause(), pause(30), PROVE,
])  # fmt: skip
POLICIES = st.builds(
    RolloutPolicy,
    steps=st.lists(STEPS, max_size=8).map(tuple),
    bake_ms=st.sampled_from([0, 60_000]),
    max_duration_ms=st.sampled_from([0, 300_000]),
    on_inconclusive=st.sampled_from(["Hold", "Promote", "RollBack"]),
    stable_revision=st.sampled_from(["", A.name, "cccccccccc"]),
    paused=st.booleans(),
    retry_token=st.sampled_from(["", "1", "2"]),
)
HOLDS = st.sampled_from([(), (), ("StableUnhealthy",), ("Objective/load", "OutcomesMissing")])
JUDGEMENTS = st.none() | st.builds(
    judged,
    st.sampled_from(["InsufficientData", "NoHarmYet", "NoHarmYet", "Safe", "Harm"]),
    st.integers(0, 500),
    holds=HOLDS,
)
TARGETS = st.sampled_from([None, A, B, C, revision("d")])
COMMANDS = st.sampled_from(VERBS)


class Rollouts(RuleBasedStateMachine):
    """Any inputs in any order, with restarts and lost status between."""

    @initialize(policy=POLICIES, first=st.booleans())
    def begin(self, policy, first):
        self.state = RolloutState()
        self.now_s = 1e6
        self.settled = 0
        self.told = {"target": A, "policy": RolloutPolicy()}
        if not first:
            self.walk(0.0, None)
            self.told["target"] = B
        self.told["policy"] = policy

    @rule(safe=st.booleans())
    def go_well(self, safe):
        """Let nothing stand in the way, so that the far end of a rollout is met often."""
        self.settled += 100
        self.told.update(routers_in_sync=True, capacity_bp=10_000, trips=())
        self.walk(60.0, judged("Safe" if safe else "NoHarmYet", self.settled))

    @rule()
    def let_go(self):
        policy = msgspec.structs.replace(self.told["policy"], paused=False, stable_revision="")
        self.told["policy"] = policy

    @rule(policy=POLICIES)
    def edit(self, policy):
        self.told["policy"] = policy

    @rule(wanted=TARGETS | st.just(B))
    def retarget(self, wanted):
        self.told["target"] = wanted

    @rule(
        in_sync=st.booleans(),
        capacity_bp=st.sampled_from([0, 500, 2_500, 9_000, 10_000]),
        boots=st.integers(0, 3),
    )
    def happen(self, in_sync, capacity_bp, boots):
        self.told.update(routers_in_sync=in_sync, capacity_bp=capacity_bp, unclean_boots=boots)

    @rule(attempt=st.integers(1, 3), letter=st.sampled_from("bcd"))
    def trip_somewhere(self, attempt, letter):
        self.told["trips"] = (trip(f"chat-{letter * 10}", attempt),)

    @rule()
    def forget_trips(self):
        self.told["trips"] = ()

    @rule(verb=COMMANDS, full=st.booleans(), age_s=st.sampled_from([0.0, 400.0]))
    def order(self, verb, full, age_s):
        revision = self.state.canary or B.name
        issued_s = self.now_s - age_s
        self.told["command"] = Command(verb=verb, revision=revision, issued_s=issued_s, full=full)

    @rule(after_s=st.sampled_from([0.0, 1.0, 30.0, 90.0, 1_000.0, -500.0]), judgement=JUDGEMENTS)
    def walk(self, after_s, judgement):
        self.now_s += after_s
        before = self.state
        objectives = self.told.get("objectives", "")
        key = evidence_key(before, route_uid="u", objectives=objectives)
        inputs = Inputs(judgement=judgement, judged=key, **self.told)
        result = advance(before, inputs, now_s=self.now_s)
        self.state = result.state
        again = advance(self.state, inputs, now_s=self.now_s)
        assert (again.state, again.transitions) == (self.state, ())
        self._check(before, inputs, {t.reason for t in result.transitions})

    def _check(self, before, inputs, reasons):
        after = self.state
        same = (before.canary, before.attempt) == (after.canary, after.attempt)
        grew = weight_order(before, after) == "raise"
        if grew and before.stable:
            assert inputs.routers_in_sync
            share = after.weight_bp if after.stable == before.stable else 10_000
            assert inputs.capacity_bp >= share
            assert inputs.target is not None
            assert not inputs.policy.paused
        if grew and same and before.live and not after.full and inputs.judgement is not None:
            assert inputs.judgement.holds == ()
        if same and before.live and after.live:
            assert after.step >= before.step
            assert after.restarts >= before.restarts
        if before.stage == "RolledBack" and same:
            assert after.weight_bp == 0
        if before.stage == "RolledBack" and after.live and after.canary == before.canary:
            assert after.attempt > before.attempt
        if before.weight_bp != after.weight_bp or before.stable != after.stable:
            assert reasons, "no change of traffic is silent"
        if inputs.judgement is not None and inputs.judgement.verdict == "Harm" and before.live:
            assert "RolledBack" in reasons

    @rule(objectives=st.sampled_from(["", "o"]))
    def edit_objectives(self, objectives):
        self.told["objectives"] = objectives

    @rule()
    def rest(self):
        before, self.state = self.state, rested(self.state, gap_s=300.0, now_s=self.now_s)
        assert weight_order(before, self.state) == "same"

    @rule()
    def restart(self):
        data = msgspec.json.encode(self.state)
        assert msgspec.json.decode(data, type=RolloutState) == self.state
        assert rebuild(self.state.records, self.state) == self.state

    @rule()
    def lose_the_status(self):
        before, self.state = self.state, rebuild(self.state.records)
        assert self.state.weight_bp == 0
        if before.stable:
            assert self.state.stable == before.stable

    @rule()
    def trip_here(self):
        if self.state.live:
            there = trip(self.state.canary, self.state.attempt)
            self.state = brake(self.state, there, now_s=self.now_s).state
            assert self.state.weight_bp == 0

    @invariant()
    def one_revision_is_stable(self):
        stables = [r.revision.name for r in self.state.records if r.outcome == "Stable"]
        assert stables == ([self.state.stable] if self.state.stable else [])

    @invariant()
    def weight_belongs_to_a_canary_under_way(self):
        state = self.state
        assert 0 <= state.weight_bp <= 10_000
        assert state.weight_bp == 0 or (state.live and state.canary != state.stable)

    @invariant()
    def nothing_that_tripped_gets_traffic(self):
        policy = policy_for(
            self.state,
            uid="u",
            namespace="llm",
            name="chat",
            model_names=(),
            monitoring=Monitoring(),
            rollout=self.told["policy"],
            brake_alpha=effective_alpha(
                self.told["policy"], self.state.attempt, restarts=self.state.restarts
            ),
        )
        if policy is not None and policy.weight_bp:
            assert policy.canary is not None
            assert (policy.canary.name, policy.attempt) not in policy.latched

    @invariant()
    def phases_tell_the_truth(self):
        state = self.state
        if state.phase == "Healthy":
            assert (state.canary, state.weight_bp) == ("", 0)
        if state.phase == "Degraded":
            assert state.weight_bp == 0

    @invariant()
    def the_status_is_always_told(self):
        target = self.told["target"]
        seen = Observed(policy=self.told["policy"], target=target.name if target else "")
        status = route_status(self.state, seen, now_s=self.now_s)
        assert json.loads(json.dumps(status, allow_nan=False)) == status


TestRollouts = Rollouts.TestCase
TestRollouts.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
