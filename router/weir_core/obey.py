"""What each command does to a rollout.

Whether it may be obeyed at all is asked here too, so that a refusal can say why. Every command
is acknowledged once, by its time; a refused one changes nothing else.
"""

from collections.abc import Callable

from msgspec.structs import replace

from weir_core import reasons
from weir_core.attempts import adopted, begun, rolled_back
from weir_core.commands import Acknowledgement, Command, Verb, command_text, untimely
from weir_core.gates import to_promoting
from weir_core.history import find, named
from weir_core.rollout_state import (
    Advance,
    Inputs,
    RolloutState,
    Transition,
    judgement_of,
    with_clock_at,
)

Deed = Callable[[RolloutState, Inputs, Command, float], Advance | str]
"""Returns what the command did, or why it was refused."""


def obey_command(state: RolloutState, inputs: Inputs, now_s: float) -> Advance | None:
    """Weigh a command that was not weighed before, and acknowledge it."""
    command, last = inputs.command, state.last_command
    if command is None or (last is not None and last.command == command):
        return None
    refusal = untimely(command, mark_s=state.command_mark_s, now_s=now_s, off_s=inputs.clock_off_s)
    if not refusal and not named(state.canary, command.revision):
        refusal = _misdirected(state, command)
    deed = refusal or DEEDS[command.verb](state, inputs, command, now_s)
    if isinstance(deed, str):
        return _acknowledged(Advance(state=state), command, deed, now_s, refused=True)
    return _acknowledged(deed, command, _done(state, command), now_s, refused=False)


def _misdirected(state: RolloutState, command: Command) -> str:
    current = f"the rollout is about {state.canary}" if state.canary else "no rollout is on"
    return f"it is for {command.revision}, and {current}"


def _done(state: RolloutState, command: Command) -> str:
    if command.verb == "abort" and not state.live:
        why = state.last_rollback
        return f"already rolled back by {why.decided_by}: {why.reason}" if why else "already so"
    full = " in full" if command.full else ""
    return f"{command.verb}{full} obeyed for {command.revision}"


def _acknowledged(
    after: Advance, command: Command, message: str, now_s: float, *, refused: bool
) -> Advance:
    state = replace(
        after.state,
        last_command=Acknowledgement(
            command=command,
            result="Refused" if refused else "Done",
            message=message,
            at_s=now_s,
        ),
        # A refused command must not shut the door on a good one, nor an old one open it again.
        command_mark_s=after.state.command_mark_s if refused else command.issued_s,
    )
    if not refused:
        return Advance(state=state, transitions=after.transitions)
    told = f"{command_text(command)} refused: {message}"
    transition = Transition(reason=reasons.COMMAND_REFUSED, message=told, warning=True)
    return Advance(state=state, transitions=(transition,))


def _promote(state: RolloutState, inputs: Inputs, command: Command, now_s: float) -> Advance | str:
    if not state.live:
        return f"{state.canary} was not let in: retry it"
    if inputs.policy.paused:
        return "paused by spec.rollout.paused: set it to false first"
    resumed = with_clock_at(replace(state, commanded_pause=False, inconclusive=False), now_s)
    if command.full:
        return _promote_in_full(resumed, now_s)
    blocked = state.stage == "Promoting" or (state.gate and state.gate.kind == "setWeight")
    if blocked:
        waits_for = ", ".join(state.holds) or "nothing"
        return f"it waits for {waits_for}, which is no step to skip (a promote in full may)"
    return Advance(state=replace(resumed, waived=True))


def _promote_in_full(state: RolloutState, now_s: float) -> Advance:
    if state.stage == "Bake":
        return Advance(state=replace(state, waived=True, full=True))
    message = f"a person promoted {state.canary} in full; the brake stays armed"
    skipped = Transition(reason=reasons.STEPS_SKIPPED, message=message)
    after = replace(to_promoting(state, now_s), full=True)
    return Advance(state=after, transitions=(skipped,))


def _abort(state: RolloutState, inputs: Inputs, command: Command, now_s: float) -> Advance | str:
    if state.stage == "RolledBack":
        return Advance(state=state)
    if not state.live:
        return f"{state.canary} has no traffic already"
    judgement = judgement_of(state, inputs)
    return rolled_back(state, reasons.ABORTED, now_s, judgement=judgement, decided_by="command")


def _pause(state: RolloutState, inputs: Inputs, command: Command, now_s: float) -> Advance | str:
    if not state.live:
        return f"{state.canary} has no traffic already"
    return Advance(state=replace(state, commanded_pause=True))


def _resume(state: RolloutState, inputs: Inputs, command: Command, now_s: float) -> Advance | str:
    at_pause = "Step" in state.pauses
    if not (state.commanded_pause or at_pause or state.inconclusive):
        others = ", ".join((*state.pauses, *state.holds))
        return f"no command paused it; it waits for {others}" if others else "it is not paused"
    if state.commanded_pause:
        # One resume lifts one pause: the step that a person must pass stays where it is.
        return Advance(state=replace(state, commanded_pause=False))
    after = replace(state, waived=state.waived or at_pause)
    return Advance(state=with_clock_at(after, now_s) if state.inconclusive else after)


def _retry(state: RolloutState, inputs: Inputs, command: Command, now_s: float) -> Advance | str:
    if state.live:
        return f"{state.canary} is under way in attempt {state.attempt}"
    record = find(state.records, state.canary)
    revision = record.revision if record else inputs.target
    wanted = inputs.target is None or inputs.target.name == state.canary
    if revision is None or not wanted or not named(revision.name, command.revision):
        return f"the spec no longer asks for {state.canary}"
    if not state.stable:
        return adopted(state, revision, now_s)
    return begun(state, revision, inputs, now_s)


DEEDS: dict[Verb, Deed] = {
    "promote": _promote,
    "abort": _abort,
    "pause": _pause,
    "resume": _resume,
    "retry": _retry,
}
