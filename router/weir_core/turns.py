"""The words between the step machine and its shell: plan, actions, events.

Actions carry the id of a call; events name the call they are about and when it happened.
"""

from typing import Literal

import msgspec

from weir_core.snapshot import Backend, Behaviour, FailureCause

Cause = FailureCause | Literal["Rejected"]
"""Rejected: the upstream refused (4xx) a request that we had validated."""


class Plan(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What was decided before the first call. `deadline_s` is absolute, `end` inclusive.

    `prompt_tokens` is an upper bound, `max_tokens` what the client asked for (0: nothing).
    """

    revision: str
    behaviour: Behaviour
    start: int
    end: int
    deadline_s: float
    stream: bool = False
    prompt_tokens: int = 0
    max_tokens: int = 0
    hops: int = 0


# Actions.


class Call(msgspec.Struct, frozen=True, gc=False):
    """Send the request to `backend` as tier `tier` says; `max_tokens` 0 leaves the cap alone."""

    id: int
    tier: int
    backend: Backend
    timeout_ms: int
    max_tokens: int
    stream: bool


class Cancel(msgspec.Struct, frozen=True, gc=False):
    """Close the call `id`; its later events are ignored."""

    id: int


class Hold(msgspec.Struct, frozen=True, gc=False):
    """Gather what call `id` streams until so many tokens have come, or its end."""

    id: int
    tokens: int


class Verify(msgspec.Struct, frozen=True, gc=False):
    """Run the checks of tier `tier` on the answer of call `id`, or on its `prefix`."""

    id: int
    tier: int
    prefix: bool = False


class Commit(msgspec.Struct, frozen=True, gc=False):
    """Relay what call `id` sends from now on: nothing can be taken back after this."""

    id: int


class Reply(msgspec.Struct, frozen=True, gc=False):
    """End the request well: with the answer of call `id`."""

    id: int


class Fail(msgspec.Struct, frozen=True, gc=False):
    """End the request with an error: an HTTP status, OpenAI's error code, and why."""

    status: int
    code: str
    message: str


Action = Call | Cancel | Hold | Verify | Commit | Reply | Fail

# Events. Each names the call it is about; those of any other call are stale and ignored.


class FirstBytes(msgspec.Struct, frozen=True, gc=False):
    """The first event of a streamed answer has come."""

    id: int
    now_s: float


class Held(msgspec.Struct, frozen=True, gc=False):
    """As many tokens of a streamed answer have come as a `Hold` wanted; more will follow."""

    id: int
    now_s: float


class Answered(msgspec.Struct, frozen=True, gc=False):
    """A whole answer with a good status has come."""

    id: int
    now_s: float
    cost_pico: int


class Verified(msgspec.Struct, frozen=True, gc=False):
    """All checks ran; `refused_by` names the first that did not accept, "" if all did."""

    id: int
    now_s: float
    refused_by: str


class Failed(msgspec.Struct, frozen=True, gc=False):
    """The call gave no usable answer, for `cause`; `billed` when it may have cost money.

    Billed is what was sent and not refused: cut off, late or broken, the upstream may have worked
    to the end. Not billed is what never left, and what was answered with an error status.

    `may_move` False: the budget of moves (fallbacks, failure escalations) is used up now.
    `asked` False: the backend was not even tried, so that no attempt was spent.
    """

    id: int
    now_s: float
    cause: Cause
    status: int = 0
    billed: bool = False
    may_move: bool = True
    asked: bool = True


class ClientGone(msgspec.Struct, frozen=True, gc=False):
    """Nobody waits for the reply any more."""

    now_s: float


class Recalled(msgspec.Struct, frozen=True, gc=False):
    """The brake tripped: answer again as `plan` (stable's) says, if nothing is committed."""

    now_s: float
    plan: Plan


Event = FirstBytes | Held | Answered | Verified | Failed | ClientGone | Recalled
