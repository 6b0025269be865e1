"""What the operator must remember of a route, as it stands in the cluster and in between.

The state of a rollout and the evidence's checkpoint stand in the route's status, the outcome of
each revision on its ModelRevision: lose either, and the other still keeps a rolled-back revision
from coming back as stable. Whatever cannot be read is as good as lost, never an error.
"""

import base64
import binascii
import logging
import zlib
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import msgspec
from msgspec.structs import replace

from weir_core.errors import Problem
from weir_core.evidence import Judgement, Key, Merged
from weir_core.history import Latch, Records, RevisionRecord, find
from weir_core.merging import fits
from weir_core.outlook import Marks
from weir_core.revision_spec import record_of
from weir_core.rollout import RolloutState, Transition, rebuild, recalled, remembered
from weir_core.rollout_state import known_of
from weir_core.snapshot import RoutePolicy
from weir_core.status import MAX_OBJECTIVES
from weir_core.wire import Routed, Version

Obj = dict[str, Any]

OUTCOME, ATTEMPT = "inference.weir.dev/outcome", "inference.weir.dev/attempt"
"""Labels of a ModelRevision."""

MAX_CHECKPOINT = 200_000
"""Characters of a packed checkpoint; a larger one is left out and evidence begins anew."""

NEVER: Version = (0, 0)
"""The version of what was told to nobody."""
MAX_SENT = 8
"""Forms of one route that routers may still have, and that are remembered."""
MAX_TEXTS = 8
GONE = ""
"""Stands in `unclean` for all router pods that are no more."""
RESUME_S = 10.0
"""After a restart a router that is not heard holds back an edit no longer, only raises."""
log = logging.getLogger("weir.operator")


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """The evidence of one key, and how often each router had died when first and last seen.

    `objectives` is their count, which the rows were laid out for; None was written before it was.
    """

    key: Key | None = None
    merged: Merged = Merged()
    unclean: dict[str, tuple[int, int]] = {}
    objectives: int | None = None


class RouteMemory:
    """One route between two walks.

    `saved` is the state as it stands in the cluster, None while unknown; `texts` are stored states
    that this process wrote or recalled, and `rebuilt` says that there was none. `goal` is what
    routers should obey, `published` what they were last told, with its version; `sent` holds that
    by version. While `resuming` it is not known what they obey; `stood` is the version that the
    cluster's snapshot gave. `refused` is a goal that the routers `refused_by`, (pod uid, start),
    do not take, for a `refusal`; `tried` are versions lowered for them. `vanished` says since when
    a boot is over; `marks` count what the arms got lately; `untold` are transitions that no Event
    tells yet. `lagging` are sidecars that do not obey it: by pod uid, at which version they are and
    since when; `let_go` are model servers that went though these may call them.
    """

    def __init__(self, state: RolloutState, checkpoint: Checkpoint) -> None:
        self.state = state
        self.key = checkpoint.key
        self.merged = checkpoint.merged
        self.objectives = checkpoint.objectives
        self.unclean = dict(checkpoint.unclean)
        self.saved: RolloutState | None = None
        self.saved_s = float("-inf")
        self.status: Obj = {}
        self.texts: tuple[str, ...] = ()
        self.rebuilt = False
        self.uid = ""
        self.goal: RoutePolicy | None = None
        self.published: RoutePolicy | None = None
        self.version = NEVER
        self.sent: dict[Version, RoutePolicy] = {}
        self.resuming = True
        self.resuming_since_s: float | None = None
        self.stood = NEVER
        self.refused: RoutePolicy | None = None
        self.refused_by: frozenset[tuple[str, int]] = frozenset()
        self.refusal = ""
        self.tried: frozenset[Version] = frozenset()
        self.judgement: Judgement | None = None
        self.judged: Key | None = None
        self.marks = Marks()
        self.vanished: dict[tuple[str, str], float] = {}
        self.untold: tuple[Transition, ...] = ()
        self.lagging: dict[str, tuple[tuple[int, ...], float]] = {}
        self.let_go: frozenset[str] = frozenset()

    @property
    def routed(self) -> Routed:
        """What the feed hands out. Without a policy routers keep what they have, or have none."""
        return Routed(version=self.version, policy=self.published)

    def told(self, policy: RoutePolicy, version: Version) -> None:
        """Take note that routers are told this."""
        self.published, self.version = policy, version
        self.sent = dict([*self.sent.items(), (version, policy)][-MAX_SENT:])

    def overdue(self, now_s: float) -> bool:
        """Return whether routers had their time to be heard after a restart."""
        since_s = self.resuming_since_s
        return self.resuming and since_s is not None and now_s - since_s > RESUME_S

    def resume(self, routed: Routed) -> None:
        """Go on from what the cluster's snapshot says that routers obey."""
        if routed.policy is not None:
            self.stood = routed.version
            self.told(routed.policy, routed.version)
            self.mend(routed.policy)

    def mend(self, policy: RoutePolicy) -> None:
        """Take stable's body from what routers obey, where its ModelRevision was lost."""
        told = _parsed(text_of(self.status)) or {}
        stable = told.get("stable")
        if not stable or policy.stable.name != stable:
            return
        if find(self.state.records, stable) is None:
            lost = RevisionRecord(
                revision=policy.stable, outcome="Stable", since_s=0.0, promoted_s=0.0
            )
            self.state = recalled(told, (*self.state.records, lost))

    def knows(self, text: str) -> bool:
        """Return whether a stored state is one that this process wrote or recalled, or none."""
        return not text or text in self.texts

    def sign(self, text: str) -> None:
        """Take note of a stored state as one of this process."""
        if text and text not in self.texts:
            self.texts = (*self.texts, text)[-MAX_TEXTS:]

    def take_over(self, other: "RouteMemory") -> None:
        """Go on from what somebody else wrote; what was rolled back here stays rolled back."""
        known = {record.revision.name: record for record in other.state.records}
        for record in self.state.records:
            theirs = known.get(record.revision.name)
            if record.tripped > (theirs.tripped if theirs else 0):
                known[record.revision.name] = record
        self.state = recalled(_parsed(text_of(other.status)), tuple(known.values()))
        if self.key != other.key:
            self.key, self.merged, self.vanished = other.key, other.merged, {}
        self.status, self.saved = other.status, None
        self.resuming, self.resuming_since_s = True, None
        self.rebuilt = other.rebuilt
        for text in other.texts:
            self.sign(text)

    def heed(self, obj: Obj) -> bool:
        """Take in that somebody else rolled a revision back; return whether that was news."""
        name = obj["metadata"]["name"]
        record = overtaken(obj, known_of(self.state, name)) if _claimed(obj) else None
        if record is None:
            return False
        others = tuple(r for r in self.state.records if r.revision.name != name)
        self.state, self.saved = rebuild((*others, record), self.state), None
        return True

    def deaths(self, unclean: Mapping[str, int], pods: Collection[str]) -> int:
        """Return how often routers died, as far as was ever told; it never falls.

        `unclean` is what they report by pod. Of pods that are neither heard nor among `pods` only
        the sum is kept.
        """
        for uid, seen in unclean.items():
            # What a router went through before it was seen here is not of this canary.
            first, last = self.unclean.get(uid, (seen, seen))
            self.unclean[uid] = first, max(last, seen)
        for uid in self.unclean.keys() - unclean.keys() - {GONE, *pods}:
            first, last = self.unclean.pop(uid)
            _, before = self.unclean.get(GONE, (0, 0))
            self.unclean[GONE] = 0, before + last - first
        return sum(last - first for first, last in self.unclean.values())

    def checkpoint(self) -> Checkpoint:
        """Return what a restart needs of the evidence."""
        return Checkpoint(
            key=self.key, merged=self.merged, unclean=self.unclean, objectives=self.objectives
        )


def recall(status: Mapping[str, Any] | None, records: Records) -> RouteMemory:
    """Return a route's memory from its status and its revisions' own records."""
    rollout = (status or {}).get("rollout")
    rollout = rollout if isinstance(rollout, Mapping) else {}
    told = _parsed(text_of(status or {}))
    memory = RouteMemory(recalled(told, records), unpack(rollout.get("checkpoint")))
    memory.status = dict(status or {})
    known = told is not None and any(told.get(one) for one in ("stable", "canary", "lost"))
    memory.rebuilt = bool(records) and not known
    memory.sign(text_of(memory.status))
    return memory


def text_of(status: Mapping[str, Any]) -> str:
    """Return the stored state of a status as it stands there, "" for none."""
    rollout = status.get("rollout")
    text = rollout.get("state") if isinstance(rollout, Mapping) else None
    return text if isinstance(text, str) else ""


def _parsed(text: str) -> Obj | None:
    try:
        return msgspec.json.decode(text, type=Obj) if text else None
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
        return _fitting(msgspec.json.decode(data, type=Checkpoint))
    except (binascii.Error, zlib.error, ValueError) as error:
        log.warning("checkpoint unreadable", extra={"error": str(error)[:200]})
        return Checkpoint()


def _fitting(checkpoint: Checkpoint) -> Checkpoint:
    """Return a checkpoint without evidence whose rows another release laid out."""
    merged, count = checkpoint.merged, checkpoint.objectives
    tallies = (*merged.tallies, *((merged.retired,) if merged.retired else ()))
    counts = range(MAX_OBJECTIVES + 1) if count is None else (count,)
    if any(all(fits(tally, one) for tally in tallies) for one in counts):
        return checkpoint
    log.warning("evidence of another release's layout left out of a checkpoint")
    return Checkpoint(unclean=checkpoint.unclean)


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


def heeded(memories: Mapping[str, RouteMemory], revisions: Iterable[Obj]) -> set[str]:
    """Have memories take in what somebody else rolled back; return whose news it is."""
    found = set()
    for obj in revisions:
        spec = obj.get("spec") or {}
        memory = memories.get((spec.get("of") or {}).get("name", ""))
        if spec.get("kind") == "Route" and memory is not None and memory.heed(obj):
            log.warning("rolled back by another", extra={"revision": obj["metadata"]["name"]})
            found.add(spec["of"]["name"])
    return found


def overtaken(obj: Obj, known: RevisionRecord | Latch | None) -> RevisionRecord | None:
    """Return what a ModelRevision says where it was rolled back in an attempt that `known` is
    not beyond and does not know to be rolled back; None where it tells no such news."""
    tripped, attempt = (known.tripped, known.attempt) if known else (0, 0)
    if _claimed(obj) <= tripped:
        return None
    record = next(iter(records_of([obj])), None)
    is_news = record is not None and record.tripped > tripped and record.attempt >= attempt
    return record if is_news else None


def _claimed(obj: Obj) -> int:
    """Return the latest attempt that was rolled back, as a ModelRevision seems to say."""
    status, labels = obj.get("status") or {}, obj["metadata"].get("labels") or {}
    if "RolledBack" in (status.get("outcome"), labels.get(OUTCOME)):
        return max(_int(status.get("tripped")), _int(status.get("attempt")), _attempt(labels), 1)
    return _int(status.get("tripped"))


def _int(value: object) -> int:
    return value if isinstance(value, int) else 0


def _attempt(labels: Mapping[str, Any]) -> int:
    text = str(labels.get(ATTEMPT, "0"))
    return int(text) if text.isdecimal() and len(text) < 10 else 0


def labels_of(record: RevisionRecord) -> dict[str, str]:
    """Return what is written on a revision beside its status, for restores that lose that."""
    return {OUTCOME: record.outcome, ATTEMPT: str(record.attempt)}


def _by_labels(obj: Obj, record: RevisionRecord) -> RevisionRecord:
    """Return the record as its labels tell it, where its status was lost or is behind them.

    Labels are written first: who was killed in between left a canary that was rolled back.
    """
    labels = obj["metadata"].get("labels") or {}
    attempt = _attempt(labels)
    is_torn = labels.get(OUTCOME) == "RolledBack" and record.outcome == "Canary"
    is_behind = is_torn and attempt >= record.attempt > record.tripped
    if (obj.get("status") or {}).get("outcome") and not is_behind:
        return record
    if labels.get(OUTCOME) == "RolledBack":
        attempt = max(attempt, 1)
        return replace(record, outcome="RolledBack", attempt=attempt, tripped=attempt)
    if labels.get(OUTCOME) == "Stable":
        return replace(record, outcome="Stable", attempt=attempt, promoted_s=0.0)
    return replace(record, attempt=attempt)
