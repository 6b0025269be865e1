"""What a person asks of a route by its annotation, and when that is weighed.

Pure. What it means to obey is the core's business (`obey`).
"""

from typing import Any

from msgspec.structs import replace

from weir_core.commands import MAX_AGE_S, Acknowledgement, Command, parse_command
from weir_core.errors import Problem
from weir_core.history import named
from weir_core.resources import title_of_object
from weir_core.rollout import RolloutState
from weir_operator.gather import World
from weir_operator.memory import RESUME_S, RouteMemory

Obj = dict[str, Any]

COMMAND = "inference.weir.dev/command"


def asked(
    world: World, memory: RouteMemory, name: str, now_s: float
) -> tuple[RolloutState, Command | None]:
    """Return the state to go on from, and the command that is to be weighed now, None for none."""
    found, state = _parsed(world.routes[name]), memory.state
    if not isinstance(found, Command):
        return state, None
    if memory.rebuilt and state.last_command is None and _is_over(state, found, now_s):
        why = "given before the status was lost"
        done = Acknowledgement(command=found, result="Done", message=why, at_s=now_s)
        state = replace(state, last_command=done)
    last = state.last_command
    is_weighed = last is not None and last.command == found
    return state, None if is_weighed or _must_wait(world, memory, found, now_s) else found


def _must_wait(world: World, memory: RouteMemory, command: Command, now_s: float) -> bool:
    """Return whether something is still to come that a command must not go before."""
    if command.verb == "retry":
        # After a loss it is not known yet that what it names was rolled back.
        return memory.rebuilt and not memory.state.canary
    if command.verb != "abort" or not memory.resuming or memory.overdue(now_s):
        return False
    # Routers may have set the canary to 0 while nobody heard them: that is to be told then.
    heard = {one.pod_uid for one in world.connected if one.alive}
    is_fresh = now_s - command.issued_s < MAX_AGE_S - 2 * RESUME_S
    return is_fresh and not world.routers <= heard


def _is_over(state: RolloutState, command: Command, now_s: float) -> bool:
    """Return whether a command was weighed before the status was lost, or came too late for it."""
    records = [r for r in state.records if named(r.revision.name, command.revision)]
    # A retry begins an attempt, so whatever became of its revision since is what came of it.
    obeyed = command.verb == "retry" and any(r.since_s >= command.issued_s for r in records)
    return obeyed or now_s - command.issued_s > MAX_AGE_S


def unreadable_command(obj: Obj) -> Problem | None:
    """Return what is wrong with the command that stands on a route, None for nothing."""
    found = _parsed(obj)
    return found if isinstance(found, Problem) else None


def _parsed(obj: Obj) -> Command | Problem | None:
    text = (obj["metadata"].get("annotations") or {}).get(COMMAND)
    return parse_command(text, object=title_of_object(obj)) if text else None
