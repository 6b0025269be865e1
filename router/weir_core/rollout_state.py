"""The nouns of a rollout: where it stands, what it is told, what came of it.

Apart from the verbs (`attempts`, `gates`, `rollout`) so that each of those can be read alone.
All of it survives JSON.
"""

from collections.abc import Iterable
from typing import Literal

import msgspec
from msgspec.structs import replace

from weir_core import reasons
from weir_core.commands import Acknowledgement, Command
from weir_core.evidence import Judgement, Key, Trip
from weir_core.history import (
    Latch,
    Records,
    RevisionRecord,
    Rollback,
    find,
    put,
    remember,
)
from weir_core.snapshot import FULL_BP, Revision, RolloutPolicy, Step

Phase = Literal["Healthy", "Progressing", "Paused", "Degraded"]
Pause = Literal["Spec", "Step", "Command"]
Stage = Literal["Idle", "Steps", "Promoting", "Bake", "RolledBack", "Refused"]
"""Idle: stable serves everything and is wanted. Promoting: the steps are over, the raise into
the bake waits for its permission. RolledBack and Refused: `canary` names what must not serve;
Refused has no stable revision beside it."""

LIVE: tuple[Stage, ...] = ("Steps", "Promoting", "Bake")


class RolloutState(msgspec.Struct, frozen=True, kw_only=True):
    """Where the rollout of one route stands.

    Until the bake ends `stable` is the old revision and `canary` the new one, also at 90 %.
    `step` counts from 0; `gate` is the step that is waited on, as it stood when it began, and
    `waived` says that a person let it pass. `step_settled` is the attempt's settled canary
    requests when the gate began, None while unknown. maxDuration counts from `clock_s`, which
    is set by the first traffic and moved on by the pauses of people. `full` says that a person
    promoted in full: holds of evidence stop it no more, the brake does. `boots_before` is the
    count of unclean boots at the first traffic. `restarts` counts how often the attempt's
    evidence began afresh. `command_mark_s` is the time of the newest command weighed;
    `retry_token` the last token seen, None while unknown. `latched` outlives the records. `lost`
    names a stable revision whose body is nowhere any more: nothing takes its place by itself.
    """

    stable: str = ""
    canary: str = ""
    attempt: int = 0
    stage: Stage = "Idle"
    weight_bp: int = 0
    step: int = 0
    gate: Step | None = None
    waived: bool = False
    proved: bool = False
    full: bool = False
    since_s: float = 0.0
    step_since_s: float = 0.0
    step_settled: int | None = 0
    clock_s: float | None = None
    paused_since_s: float | None = None
    commanded_pause: bool = False
    pauses: tuple[Pause, ...] = ()
    holds: tuple[str, ...] = ()
    inconclusive: bool = False
    boots_before: int | None = None
    objectives: str = ""
    restarts: int = 0
    refusal: str = ""
    last_rollback: Rollback | None = None
    last_command: Acknowledgement | None = None
    command_mark_s: float = 0.0
    retry_token: str | None = None
    records: Records = ()
    latched: tuple[Latch, ...] = ()
    lost: str = ""

    @property
    def live(self) -> bool:
        """Whether a canary is under way."""
        return self.stage in LIVE

    @property
    def frozen(self) -> bool:
        """Whether anything but the step itself keeps the weight where it is."""
        by_people = any(pause != "Step" for pause in self.pauses)
        return by_people or bool(self.holds) or self.inconclusive

    @property
    def begins(self) -> bool:
        """Whether nothing but routers or models that load keep it from its first traffic."""
        waits = {reasons.ROUTERS_OUT_OF_SYNC, reasons.NO_CAPACITY}.issuperset(self.holds)
        return self.live and waits and not (self.weight_bp or self.pauses or self.inconclusive)

    @property
    def phase(self) -> Phase:
        """The one word for all of it."""
        if self.stage in ("RolledBack", "Refused"):
            return "Degraded"
        if self.stage == "Idle":
            return "Healthy"
        stands = (self.pauses or self.frozen) and not self.begins
        return "Paused" if stands else "Progressing"


class Inputs(msgspec.Struct, frozen=True, kw_only=True):
    """All that a rollout is told at once; level-triggered, so the same may be told again.

    `target` None: the spec has a problem, what serves goes on serving. `objectives` is the
    fingerprint of today's objectives; `judgement` counts only when `judged` names the state's
    canary and attempt and these objectives. `trips` of other attempts change nothing.
    `unclean_boots` never falls; its rise since the canary's first traffic counts.
    `routers_in_sync`: every ready router acknowledged the last snapshot and, after a restart
    of the control plane, reported. `capacity_bp` is the largest weight that the target's
    backends could carry now; `capacity_message` says what they lack, and `capacity_loads` that
    it will come: they load, and nothing is wrong with them.
    `clock_off_s` is how far most routers' clocks are ahead of the one that `now_s` is of, 0 while
    they agree; until `clock_known`, which a first report makes it, nothing that is timed ends.
    """

    target: Revision | None
    policy: RolloutPolicy
    objectives: str = ""
    judgement: Judgement | None = None
    judged: Key | None = None
    trips: tuple[Trip, ...] = ()
    command: Command | None = None
    unclean_boots: int = 0
    routers_in_sync: bool = True
    capacity_bp: int = FULL_BP
    capacity_message: str = ""
    capacity_loads: bool = False
    clock_off_s: float = 0.0
    clock_known: bool = True


class Transition(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happened: a CamelCase reason, one sentence with the numbers."""

    reason: str
    message: str
    warning: bool = False


class Advance(msgspec.Struct, frozen=True, kw_only=True):
    """The state after some transitions, oldest first."""

    state: RolloutState
    transitions: tuple[Transition, ...] = ()


def idle(state: RolloutState) -> RolloutState:
    """Return the state with nothing of an attempt left in it."""
    return RolloutState(
        stable=state.stable,
        since_s=state.since_s,
        objectives=state.objectives,
        last_rollback=state.last_rollback,
        last_command=state.last_command,
        command_mark_s=state.command_mark_s,
        retry_token=state.retry_token,
        records=state.records,
        latched=state.latched,
        lost=state.lost,
    )


def known_of(state: RolloutState, name: str) -> RevisionRecord | Latch | None:
    """Return what became of revision `name`: its record, its latch when the body is forgotten."""
    forgotten = next((one for one in state.latched if one.name == name), None)
    return find(state.records, name) or forgotten


def with_record(
    state: RolloutState, record: RevisionRecord, *, keep: Iterable[str]
) -> RolloutState:
    """Add or replace one record as `put` does, and latch what it or those before it tell."""
    return replace(
        state,
        records=put(state.records, record, keep=keep),
        latched=remember(state.latched, (*state.records, record)),
    )


def judgement_of(state: RolloutState, inputs: Inputs) -> Judgement | None:
    """Return the judgement if it is about this canary, this attempt and today's objectives."""
    about = inputs.judged
    if about is None or not state.live or about.objectives != inputs.objectives:
        return None
    return inputs.judgement if (about.revision, about.attempt) == tried(state) else None


def tried(state: RolloutState) -> tuple[str, int]:
    """Return what latches and evidence are keyed by: the canary and its attempt."""
    return state.canary, state.attempt


def with_clock_at(state: RolloutState, now_s: float) -> RolloutState:
    """Give the attempt a whole maxDuration again."""
    start_s = now_s if state.paused_since_s is None else state.paused_since_s
    return state if state.clock_s is None else replace(state, clock_s=start_s)


def clocked_s(state: RolloutState, now_s: float) -> float:
    """Return how much of maxDuration is used: time with traffic, less the pauses of people."""
    if state.clock_s is None:
        return 0.0
    end_s = now_s if state.paused_since_s is None else state.paused_since_s
    return max(0.0, end_s - state.clock_s)


def rested(state: RolloutState, *, gap_s: float, now_s: float) -> RolloutState:
    """Return the state after `gap_s` seconds, up to now, in which the route was not served.

    They are of no hold, timed pause or bake, and not of maxDuration. A shell tells them once:
    after a restart, and when a route is back in the configuration.
    """
    if not state.live or gap_s <= 0:
        return state

    def later(since_s: float | None) -> float | None:
        return None if since_s is None else min(since_s + gap_s, now_s)

    return replace(
        state,
        step_since_s=min(state.step_since_s + gap_s, now_s),
        clock_s=later(state.clock_s),
        paused_since_s=later(state.paused_since_s),
    )


def believed(state: RolloutState, now_s: float) -> RolloutState:
    """Return the state with nothing ahead of now: a clock that was set back began no step later.

    What was used of maxDuration before a pause stays used.
    """
    mark_s = state.clock_s if state.paused_since_s is None else state.paused_since_s
    ahead_s = max(0.0, 0.0 if mark_s is None else mark_s - now_s)
    if not ahead_s and max(state.since_s, state.step_since_s) <= now_s:
        return state
    return replace(
        state,
        since_s=min(state.since_s, now_s),
        step_since_s=min(state.step_since_s, now_s),
        clock_s=None if state.clock_s is None else state.clock_s - ahead_s,
        paused_since_s=None if state.paused_since_s is None else min(state.paused_since_s, now_s),
    )
