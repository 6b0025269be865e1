"""Which ModelRevisions of routes the cluster need not keep any more.

Pure. A status may be lost at any time, and then they are all that tells of what was rolled back:
so they go late, but they do go. It refuses to know what a route remembers besides (`memory`).
"""

from collections.abc import Iterable, Set
from typing import Any

from weir_core.errors import Problem
from weir_core.history import MAX_RECORDS
from weir_core.revision_spec import record_of
from weir_operator.gather import World
from weir_operator.memory import OUTCOME

Obj = dict[str, Any]

MAX_ROLLED_BACK = MAX_RECORDS
"""Rolled-back revisions kept of one route beside those that it remembers."""
ORPHANED_S = 86_400.0
"""The revisions of a route that is gone wait so long for it to be applied again."""
MAX_ORPHANS = 1_000
"""Revisions of routes that are gone, kept in one namespace."""


def forgettable(revisions: Iterable[Obj], *, kept: Set[str]) -> list[Obj]:
    """Return which revisions of one route may go; `kept` are names that stay.

    The newest rolled-back ones stay too, and what today's code cannot read.
    """
    others = [obj for obj in revisions if obj["metadata"]["name"] not in kept]
    rolled_back = sorted(filter(_is_rolled_back, others), key=_dated, reverse=True)
    stay = {obj["metadata"]["uid"] for obj in rolled_back[:MAX_ROLLED_BACK]}
    return [
        obj
        for obj in others
        if obj["metadata"]["uid"] not in stay and not isinstance(record_of(obj), Problem)
    ]


class Orphans:
    """Since when each revision of one namespace is of a route that is gone."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}

    def over(self, world: World, now_s: float) -> list[Obj]:
        """Return those that nobody came back for, and the oldest of too many.

        A restarted operator begins to count anew.
        """
        found = [obj for obj in world.revisions.values() if _is_orphan(obj, world)]
        found.sort(key=_dated, reverse=True)
        uids = [obj["metadata"]["uid"] for obj in found]
        self._since = {uid: self._since.get(uid, now_s) for uid in uids}
        return [
            obj
            for place, (uid, obj) in enumerate(zip(uids, found, strict=True))
            if place >= MAX_ORPHANS or now_s - self._since[uid] > ORPHANED_S
        ]


def _is_orphan(obj: Obj, world: World) -> bool:
    spec = obj.get("spec") or {}
    gone = (spec.get("of") or {}).get("name") not in world.routes
    return gone and spec.get("kind") == "Route" and not obj["metadata"].get("deletionTimestamp")


def _is_rolled_back(obj: Obj) -> bool:
    labels, status = obj["metadata"].get("labels") or {}, obj.get("status") or {}
    return "RolledBack" in (labels.get(OUTCOME), status.get("outcome"))


def _dated(obj: Obj) -> tuple[str, str]:
    """Return when a revision's outcome came about, as text that sorts by time."""
    meta, status = obj["metadata"], obj.get("status") or {}
    when = status.get("transitionTime") or meta.get("creationTimestamp") or ""
    return str(when), meta["name"]
