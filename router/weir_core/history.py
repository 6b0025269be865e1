"""What became of each revision of a route: the memory that a lost status is rebuilt from.

A record mirrors one ModelRevision object: the revision's body and, beside it, its outcome. The
records are bounded; a revision that fell out is unknown, and its return is a new revision.
"""

from collections.abc import Iterable
from typing import Literal

import msgspec
from msgspec.structs import replace

from weir_core.evidence import ObjectiveJudgement
from weir_core.snapshot import Revision

MAX_RECORDS = 10
"""Revisions remembered per route, the stable one and the canary among them."""

Outcome = Literal["Canary", "Stable", "RolledBack", "Superseded"]


class Rollback(msgspec.Struct, frozen=True, kw_only=True):
    """Why an attempt ended at weight 0, with the evidence it was decided on.

    `reason` is Harm, UncleanBoots, Inconclusive, Aborted, or what the router's trip said.
    Logs are natural and finite; `requests` and `canary_requests` are settled ones.
    """

    revision: str
    attempt: int
    reason: str
    decided_by: str
    at_s: float
    suspect: str = ""
    log_e: float = 0.0
    threshold: float = 0.0
    weight_bp: int = 0
    requests: int = 0
    canary_requests: int = 0
    bad_served: int = 0
    objectives: tuple[ObjectiveJudgement, ...] = ()


class RevisionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One revision and what became of it.

    `attempt` is its latest, 0 when it never had to prove itself; `since_s` is when `outcome`
    came about. `promoted_s` is set while it counts as proven: it has been stable and was not
    rolled back since. `tripped` is the latest attempt that was rolled back, 0 for none.
    """

    revision: Revision
    outcome: Outcome
    since_s: float
    attempt: int = 0
    reason: str = ""
    promoted_s: float | None = None
    tripped: int = 0
    rollback: Rollback | None = None


Records = tuple[RevisionRecord, ...]


def named(name: str, called: str) -> bool:
    """Tell whether `called` means revision `name`: in full, or its ten digits alone."""
    return bool(called) and (name == called or name.endswith(f"-{called}"))


def find(records: Records, name: str) -> RevisionRecord | None:
    """Return the record of revision `name`."""
    return next((r for r in records if r.revision.name == name), None)


def put(records: Records, record: RevisionRecord, *, keep: Iterable[str]) -> Records:
    """Add or replace one record, newest last, within MAX_RECORDS.

    Superseded revisions are forgotten first, then the oldest; the record itself and those that
    `keep` names stay.
    """
    others = tuple(r for r in records if r.revision.name != record.revision.name)
    kept = {*keep, record.revision.name}
    expendable = sorted(
        (r for r in others if r.revision.name not in kept),
        key=lambda r: (r.outcome != "Superseded" or r.promoted_s is not None, r.since_s),
    )
    excess = max(0, len(others) + 1 - MAX_RECORDS)
    forgotten = {r.revision.name for r in expendable[:excess]}
    return (*(r for r in others if r.revision.name not in forgotten), record)


def agreed(records: Records, *, stable: str, canary: str) -> Records:
    """Make outcomes say what the rollout does: one Stable, at most one Canary.

    Writes of several objects may be torn by a crash. RolledBack is never undone here.
    """

    def outcome(record: RevisionRecord) -> Outcome:
        if record.revision.name == stable:
            return "Stable"
        if record.outcome == "RolledBack":
            return "RolledBack"
        return "Canary" if record.revision.name == canary else "Superseded"

    return tuple(r if r.outcome == outcome(r) else replace(r, outcome=outcome(r)) for r in records)


def latches(records: Records) -> tuple[tuple[str, int], ...]:
    """Return the (revision, attempt) pairs that were rolled back: no snapshot may revive them."""
    return tuple((r.revision.name, r.tripped) for r in records if r.tripped)
