"""What the operator must remember of a route, as it stands in the cluster and in between.

The state of a rollout and the evidence's checkpoint stand in the route's status, the outcome of
each revision on its ModelRevision: lose either, and the other still keeps a rolled-back revision
from coming back as stable. Whatever cannot be read is as good as lost, never an error.
"""

import base64
import binascii
import logging
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from msgspec.structs import replace

from weir_core.errors import Problem
from weir_core.evidence import Judgement, Key, Merged
from weir_core.history import Records, RevisionRecord, find
from weir_core.revision_spec import record_of
from weir_core.rollout import RolloutState, Transition, recalled, remembered
from weir_core.snapshot import RoutePolicy

Obj = dict[str, Any]

OUTCOME, ATTEMPT = "inference.weir.dev/outcome", "inference.weir.dev/attempt"
"""Labels of a ModelRevision."""

MAX_CHECKPOINT = 200_000
"""Characters of a packed checkpoint; a larger one is left out and evidence begins anew."""
log = logging.getLogger("weir.operator")


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """The evidence of one key, and how often each router had died when first and last seen."""

    key: Key | None = None
    merged: Merged = Merged()
    unclean: dict[str, tuple[int, int]] = {}


class RouteMemory:
    """One route between two walks.

    `saved` is the state as it stands in the cluster, None while unknown; `published` what the
    routers were last told, with its version. `vanished` says since when a boot has no pod;
    `untold` are transitions that no Event tells yet.
    """

    def __init__(self, state: RolloutState, checkpoint: Checkpoint) -> None:
        self.state = state
        self.key = checkpoint.key
        self.merged = checkpoint.merged
        self.unclean = dict(checkpoint.unclean)
        self.saved: RolloutState | None = None
        self.saved_s = float("-inf")
        self.status: Obj = {}
        self.published: RoutePolicy | None = None
        self.version = (0, 0)
        self.uid = ""
        self.judgement: Judgement | None = None
        self.judged: Key | None = None
        self.vanished: dict[tuple[str, str], float] = {}
        self.untold: tuple[Transition, ...] = ()

    def mend(self, policy: RoutePolicy | None) -> None:
        """Take stable's body from what routers obey, where its ModelRevision was lost.

        Without it the spec's target would be the first revision, proven or not.
        """
        told = _parsed((self.status.get("rollout") or {}).get("state")) or {}
        stable = told.get("stable")
        if policy is None or not stable or policy.stable.name != stable:
            return
        if find(self.state.records, stable) is None:
            lost = RevisionRecord(
                revision=policy.stable, outcome="Stable", since_s=0.0, promoted_s=0.0
            )
            self.state = recalled(told, (*self.state.records, lost))

    def checkpoint(self) -> Checkpoint:
        """Return what a restart needs of the evidence."""
        return Checkpoint(key=self.key, merged=self.merged, unclean=self.unclean)


def recall(status: Mapping[str, Any] | None, records: Records) -> RouteMemory:
    """Return a route's memory from its status and its revisions' own records."""
    stored = (status or {}).get("rollout")
    stored = stored if isinstance(stored, Mapping) else {}
    memory = RouteMemory(
        recalled(_parsed(stored.get("state")), records),
        unpack(stored.get("checkpoint")),
    )
    memory.status = dict(status or {})
    return memory


def _parsed(text: object) -> Obj | None:
    try:
        return msgspec.json.decode(text, type=Obj) if isinstance(text, str) else None
    except msgspec.DecodeError:
        return None


def stored(memory: RouteMemory, state: RolloutState) -> Obj:
    """Return `status.rollout`: what a restarted operator goes on from in `state`."""
    packed = pack(memory.checkpoint()) if state.live else ""
    return {"state": msgspec.json.encode(remembered(state)).decode(), "checkpoint": packed}


def pack(checkpoint: Checkpoint) -> str:
    """Return a checkpoint as one short text, "" when it is too large to be kept."""
    text = base64.b64encode(zlib.compress(msgspec.json.encode(checkpoint), 6)).decode()
    if len(text) > MAX_CHECKPOINT:
        log.warning("evidence left out of a checkpoint", extra={"characters": len(text)})
        return pack(Checkpoint(unclean=checkpoint.unclean)) if checkpoint.key is not None else ""
    return text


def unpack(text: object) -> Checkpoint:
    """Return a checkpoint, an empty one from anything that is none."""
    if not isinstance(text, str) or not text:
        return Checkpoint()
    try:
        data = zlib.decompressobj().decompress(base64.b64decode(text, validate=True), 50_000_000)
        return msgspec.json.decode(data, type=Checkpoint)
    except (binascii.Error, zlib.error, ValueError) as error:
        log.warning("checkpoint unreadable", extra={"error": str(error)[:200]})
        return Checkpoint()


def records_of(revisions: Iterable[Obj]) -> Records:
    """Return what a route's ModelRevisions say of themselves, oldest first."""
    found = []
    for obj in revisions:
        record = record_of(obj)
        if isinstance(record, Problem):
            log.warning("revision unreadable", extra={"problem": record.sentence()[:300]})
        else:
            found.append(_by_labels(obj, record))
    return tuple(sorted(found, key=lambda record: (record.since_s, record.revision.name)))


def labels_of(record: RevisionRecord) -> dict[str, str]:
    """Return what is written on a revision beside its status, for restores that lose that."""
    return {OUTCOME: record.outcome, ATTEMPT: str(record.attempt)}


def _by_labels(obj: Obj, record: RevisionRecord) -> RevisionRecord:
    """Return the record as its labels tell it, where its status was lost."""
    if (obj.get("status") or {}).get("outcome"):
        return record
    labels = obj["metadata"].get("labels") or {}
    text = str(labels.get(ATTEMPT, "0"))
    attempt = int(text) if text.isdigit() and len(text) < 10 else 0
    if labels.get(OUTCOME) == "RolledBack":
        attempt = max(attempt, 1)
        return replace(record, outcome="RolledBack", attempt=attempt, tripped=attempt)
    if labels.get(OUTCOME) == "Stable":
        return replace(record, outcome="Stable", attempt=attempt, promoted_s=0.0)
    return replace(record, attempt=attempt)
