"""What became of each revision of a route: the memory that a lost status is rebuilt from.

A record mirrors one ModelRevision object: the revision's body and, beside it, its outcome. The
records are bounded; of a revision that fell out only its latch is kept, if it was ever rolled
back. Any other is unknown then, and its return is a new revision.
"""

from collections.abc import Iterable
from typing import Literal

import msgspec
from msgspec.structs import replace

from weir_core.evidence import ObjectiveJudgement
from weir_core.snapshot import Revision

MAX_RECORDS = 10
"""Revisions remembered per route, the stable one and the canary among them."""

MAX_LATCHES = 1_000
"""Rolled-back revisions remembered per route without their bodies."""

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


class Latch(msgspec.Struct, frozen=True, array_like=True):
    """What is kept of a revision that was ever rolled back, also when its body is forgotten.

    `attempt` and `tripped` are those of its record; `out` says that it was not let in again
    since. `reason` and all after it are of its last rollback.
    """

    name: str
    attempt: int
    tripped: int
    out: bool = True
    reason: str = ""
    decided_by: str = ""
    at_s: float = 0.0
    weight_bp: int = 0

    @property
    def outcome(self) -> Outcome:
        """What became of it, as a record says it."""
        return "RolledBack" if self.out else "Superseded"

    @property
    def rollback(self) -> Rollback:
        """Its last rollback, without the evidence."""
        return Rollback(
            revision=self.name,
            attempt=self.tripped,
            reason=self.reason,
            decided_by=self.decided_by,
            at_s=self.at_s,
            weight_bp=self.weight_bp,
        )


def named(name: str, called: str) -> bool:
    """Tell whether `called` means revision `name`: in full, or its ten digits alone."""
    return bool(called) and (name == called or name.endswith(f"-{called}"))


def find(records: Records, name: str) -> RevisionRecord | None:
    """Return the record of revision `name`."""
    return next((r for r in records if r.revision.name == name), None)


def remember(latched: tuple[Latch, ...], records: Iterable[RevisionRecord]) -> tuple[Latch, ...]:
    """Bring latches up to date with these records, newest last, within MAX_LATCHES."""
    today = {r.revision.name: _latch(r) for r in records if r.tripped}
    same = tuple(one for one in latched if today.get(one.name, one) == one)
    names = {one.name for one in same}
    return (*same, *(one for name, one in today.items() if name not in names))[-MAX_LATCHES:]


def _latch(record: RevisionRecord) -> Latch:
    why = record.rollback
    return Latch(
        name=record.revision.name,
        attempt=record.attempt,
        tripped=record.tripped,
        out=record.outcome == "RolledBack",
        reason=why.reason if why else record.reason,
        decided_by=why.decided_by if why else "",
        at_s=why.at_s if why else record.since_s,
        weight_bp=why.weight_bp if why else 0,
    )


def put(records: Records, record: RevisionRecord, *, keep: Iterable[str]) -> Records:
    """Add or replace one record, newest last, within MAX_RECORDS.

    Superseded revisions are forgotten first, then the oldest; the record itself and those that
    `keep` names stay.
    """
    name = record.revision.name
    others = tuple(r for r in records if r.revision.name != name)
    return bounded((*others, record), keep=(*keep, name))


def bounded(records: Records, *, keep: Iterable[str]) -> Records:
    """Return at most MAX_RECORDS of these, in their order, forgetting as `put` does."""
    kept = set(keep)
    expendable = sorted(
        (r for r in records if r.revision.name not in kept),
        key=lambda r: (r.outcome != "Superseded" or r.promoted_s is not None, r.since_s),
    )
    excess = max(0, len(records) - MAX_RECORDS)
    forgotten = {r.revision.name for r in expendable[:excess]}
    return tuple(r for r in records if r.revision.name not in forgotten)


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


def latches(records: Records, latched: tuple[Latch, ...] = ()) -> tuple[tuple[str, int], ...]:
    """Return the (revision, attempt) pairs that were rolled back: no snapshot may revive them."""
    known = tuple((r.revision.name, r.tripped) for r in records if r.tripped)
    forgotten = ((one.name, one.tripped) for one in latched)
    return (*known, *(pair for pair in forgotten if pair not in known))
