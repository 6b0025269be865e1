"""What a person tells a rollout to do, and whether it may be obeyed at all.

A command names its revision and its time, so that a late or repeated one cannot hit another
rollout. In Kubernetes it is the annotation `inference.weir.dev/command`. What obeying means is
`rollout`'s business.
"""

import re
from typing import Literal, get_args

import msgspec

from weir_core.errors import Problem

MAX_AGE_S = 300.0
"""An older command is refused; so is one from further in the future, unless it lowers."""

Verb = Literal["promote", "abort", "pause", "resume", "retry"]
VERBS: tuple[Verb, ...] = get_args(Verb)
LOWERING: tuple[Verb, ...] = ("abort", "pause")
"""Verbs that can only make less of a canary."""

_FORM = re.compile(r"([a-z]+)(-full)?@([a-z0-9.-]{1,253})#(\d{1,12}(?:\.\d{1,6})?)")


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """One order for one revision (its name, or its ten digits). `full` belongs to promote."""

    verb: Verb
    revision: str
    issued_s: float
    full: bool = False


class Acknowledgement(msgspec.Struct, frozen=True, kw_only=True):
    """The last command and what came of it."""

    command: Command
    result: Literal["Done", "Refused"]
    message: str
    at_s: float


def parse_command(text: str, *, object: str = "") -> Command | Problem:
    """Read `abort@8d1aa4c0f2#1767225600`; `promote-full@…` is a promote in full."""
    match = _FORM.fullmatch(text.strip())
    verb = next((v for v in VERBS if match and v == match[1]), None)
    if match is None or verb is None or (match[2] and verb != "promote"):
        return Problem(
            object=object,
            field="metadata.annotations[inference.weir.dev/command]",
            seen=repr(text[:80]),
            wanted=f"<verb>@<revision>#<unix time> with a verb of {', '.join(VERBS)}",
            reason="CommandRefused",
        )
    return Command(
        verb=verb, revision=match[3], issued_s=float(match[4]), full=match[2] is not None
    )


def command_text(command: Command) -> str:
    """Return the annotation that `parse_command` reads."""
    verb = f"{command.verb}-full" if command.full else command.verb
    return f"{verb}@{command.revision}#{command.issued_s:.6f}".rstrip("0").rstrip(".")


def untimely(command: Command, *, mark_s: float, now_s: float, off_s: float = 0.0) -> str:
    """Return why a command comes at the wrong time, "" when it does not.

    `mark_s` is the time of the newest command that was weighed before. One that no clock of
    today could have given is of a clock that was wrong, and locks out nobody.

    What lowers is obeyed although clocks differ: also from the future, and if it is timely by the
    routers' clocks, which are `off_s` ahead. An old one is refused: it may be a repeated one.
    """
    age_s = now_s - command.issued_s
    lowers = command.verb in LOWERING
    if lowers:
        age_s = min(age_s, age_s + off_s)
    if age_s < -MAX_AGE_S and not lowers:
        return f"issued {-age_s:.0f} s in the future: do the clocks agree?"
    if age_s > MAX_AGE_S:
        return f"issued {age_s:.0f} s ago, {MAX_AGE_S:.0f} s is the limit: send it again"
    if command.issued_s <= mark_s <= now_s + MAX_AGE_S:
        return "not newer than the last command: send it again"
    return ""
