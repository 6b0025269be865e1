"""Brings to the cluster what a restarted operator must know: revisions first, then the status.

Every write carries the version of the object that was gathered, and what was not there is created
alone: a second operator, or a change that was not seen yet, makes it a conflict and the walk begins
again. So does whoever leads no more, between any two writes.
"""

import logging
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from weir_core.backend_status import BackendSeen, backend_news, backend_status
from weir_core.history import RevisionRecord
from weir_core.resources import title_of_object
from weir_core.revision_spec import record_status
from weir_core.rollout import Transition
from weir_operator.cache import Cache
from weir_operator.forgotten import forgettable
from weir_operator.gather import World
from weir_operator.kube import FIELD_MANAGER, Kube, KubeError, now_text
from weir_operator.memory import RouteMemory, labels_of, overtaken, stored, text_of
from weir_operator.revisions import route_revision
from weir_operator.think import Thought, revisions_of

Obj = dict[str, Any]

EVIDENCE_PACE_S = 15.0
"""Between two writes of a status in which only numbers moved."""
MAX_NOTE = 1_000
log = logging.getLogger("weir.operator")


def _always() -> bool:
    return True


class Persister:
    """Writes routes' memories and backends' statuses. Raises KubeError; after 409 walk again.

    `leads` is asked before every write: a process may stand still between any two.
    """

    def __init__(self, kube: Kube, cache: Cache, leads: Callable[[], bool] = _always) -> None:
        self._kube = kube
        self._cache = cache
        self._leads = leads

    async def save(
        self, world: World, thought: Thought, memory: RouteMemory, status: Obj, now_s: float
    ) -> None:
        """Write a route's revisions and status, where they differ from what stands there."""
        obj = self._as_thought_about(world.routes[thought.name], memory)
        records = thought.state.records
        changed = memory.saved is None or memory.saved != thought.state
        for record in records:
            if changed or not _tells(self._revision(world, record.revision.name), record):
                await self._save_record(world, obj, record)
        old = obj.get("status") or {}
        changed = changed or not text_of(old)
        evidence_s = now_s - memory.saved_s
        if not changed and not turned(old, status) and evidence_s < EVIDENCE_PACE_S:
            return
        await self._write(obj, memory, {**status, "rollout": stored(memory, thought.state)})
        memory.saved, memory.saved_s = thought.state, now_s
        memory.rebuilt = False

    async def save_status(
        self, world: World, thought: Thought, memory: RouteMemory, status: Obj
    ) -> bool:
        """Write a status though a revision is refused; return whether the state is in it.

        It is where the cluster has what it names, as after a rollback. Else what stood stays.
        """
        obj, state = self._as_thought_about(world.routes[thought.name], memory), thought.state
        named = filter(None, (state.stable, state.canary))
        is_whole = all(self._revision(world, name) for name in named)
        kept = (obj.get("status") or {}).get("rollout")
        rollout = stored(memory, state) if is_whole else kept
        await self._write(obj, memory, {**status, "rollout": rollout})
        return is_whole

    async def _write(self, obj: Obj, memory: RouteMemory, status: Obj) -> None:
        full = _pruned(status)
        if full != (obj.get("status") or {}):
            # Signed first: whether it arrived is not known where the answer is lost.
            memory.sign(text_of(full))
            await self._apply(with_status(obj, full), sub="status")
        memory.status = full

    async def save_backend(
        self,
        world: World,
        name: str,
        seen: BackendSeen,
        now_s: float,
        told: dict[str, tuple[object, float]],
    ) -> None:
        """Write a backend's status where it differs in more than numbers, or now and then.

        `told` is of the calls before: what the status says by backend, and when it was written.
        """
        obj = self._cache.get("ModelBackend", world.namespace, name)
        if obj is None:
            return
        before, before_s = told.get(name, (None, float("-inf")))
        known = seen, obj["metadata"]["resourceVersion"]
        is_due = time.monotonic() - before_s > EVIDENCE_PACE_S
        if before == known and not is_due:
            return
        old = obj.get("status") or {}
        status = backend_status(seen, now_s=now_s, old=old)
        if status == old:
            told[name] = known, time.monotonic()
            return
        if turned(old, status) or is_due:
            await self._apply(with_status(obj, status), sub="status")
            told[name] = None, time.monotonic()
            await self.tell(obj, backend_news(old, status))

    def _as_thought_about(self, obj: Obj, memory: RouteMemory) -> Obj:
        """Return the object to be written to: later than `obj` by this process's writes alone.

        The write must fail when anything else came after what was thought about.
        """
        now = self._cache.get("ModelRoute", obj["metadata"]["namespace"], obj["metadata"]["name"])
        same = now is not None and all(
            now["metadata"].get(field) == obj["metadata"].get(field)
            for field in ("uid", "generation", "annotations")
        )
        ours = now is not None and (now.get("status") or {}) == memory.status
        return now if now is not None and same and ours else obj

    def _revision(self, world: World, name: str) -> Obj | None:
        return self._cache.get("ModelRevision", world.namespace, name)

    async def _save_record(self, world: World, route: Obj, record: RevisionRecord) -> None:
        name = record.revision.name
        known = self._revision(world, name)
        users = [world.backends[one] for one in _backends(record) if one in world.backends]
        wanted = route_revision(
            route, name=name, content=record.revision.content, backends=users, known=known
        )
        wanted["metadata"]["labels"] |= labels_of(record)
        if known is None:
            known = await self._create(wanted)
        elif overtaken(known, record) is not None:
            raise KubeError(409, f"{title_of_object(known)}: rolled back by somebody else")
        elif not owned_alike(known, wanted):
            wanted["metadata"]["resourceVersion"] = known["metadata"]["resourceVersion"]
            known = await self._apply(wanted)
        status = _pruned(record_status(record))
        if (known.get("status") or {}) != status:
            await self._apply(with_status(known, status), sub="status")

    async def _create(self, obj: Obj) -> Obj:
        """Write what is not there. An apply would take over what another leader wrote meanwhile."""
        self._as_leader(obj)
        done = await self._kube.create(obj)
        self._cache.put(done)
        return done

    async def _apply(self, obj: Obj, *, sub: str = "") -> Obj:
        self._as_leader(obj)
        done = await self._kube.apply(obj, sub=sub)
        self._cache.put(done)
        return done

    def _as_leader(self, obj: Obj) -> None:
        if not self._leads():
            title = title_of_object(obj)
            raise KubeError(0, f"{title}: the lease is not fresh: nothing is written")

    async def forget(self, world: World, thought: Thought) -> None:
        """Delete the revisions of a route that it does not remember any more, nor must."""
        state = thought.state
        kept = {record.revision.name for record in state.records}
        kept |= {state.stable, state.canary, thought.observed.target}
        await self.drop(world, forgettable(revisions_of(world, thought.name), kept=kept))

    async def drop(self, world: World, revisions: Iterable[Obj]) -> None:
        """Delete these ModelRevisions."""
        for obj in revisions:
            self._as_leader(obj)
            meta = obj["metadata"]
            await self._kube.delete("ModelRevision", world.namespace, meta["name"], meta["uid"])

    async def tell(self, obj: Obj, transitions: Sequence[Transition]) -> None:
        """Write transitions as Events on an object; what cannot be written is logged."""
        for transition in transitions:
            try:
                await self._kube.create(event(obj, transition))
            except KubeError as error:
                told = {"reason": transition.reason, "error": str(error)}
                log.warning("event not written", extra=told)


def event(obj: Obj, transition: Transition) -> Obj:
    """Return an Event of the events.k8s.io API about an object."""
    meta, now = obj["metadata"], now_text(micro=True)
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {
            "name": f"{meta['name']}.{secrets.token_hex(8)}",
            "namespace": meta["namespace"],
        },
        "eventTime": now,
        "reportingController": "inference.weir.dev/operator",
        "reportingInstance": FIELD_MANAGER,
        "action": transition.reason,
        "reason": transition.reason,
        "regarding": {
            "apiVersion": obj["apiVersion"],
            "kind": obj["kind"],
            "name": meta["name"],
            "namespace": meta["namespace"],
            "uid": meta["uid"],
        },
        "note": transition.message[:MAX_NOTE],
        "type": "Warning" if transition.warning else "Normal",
    }


def _backends(record: RevisionRecord) -> list[str]:
    behaviour = record.revision.behaviour
    found = [tier.backend.name for tier in behaviour.tiers]
    found += [backend.name for backend in behaviour.fallback]
    return sorted(set(found))


def _tells(known: Obj | None, record: RevisionRecord) -> bool:
    """Return whether a revision on the cluster says of itself what is remembered of it."""
    if known is None:
        return False
    labels, status = known["metadata"].get("labels") or {}, known.get("status") or {}
    return labels_of(record).items() <= labels.items() and (
        status.get("outcome"),
        status.get("attempt"),
        status.get("tripped", 0),
    ) == (record.outcome, record.attempt, record.tripped)


def owned_alike(known: Obj, wanted: Obj) -> bool:
    """Return whether labels and owners are as wanted; the spec of a revision never changes."""
    have, want = known["metadata"], wanted["metadata"]
    owners = {ref["uid"] for ref in have.get("ownerReferences") or ()}
    labels = have.get("labels") or {}
    return owners == {ref["uid"] for ref in want.get("ownerReferences") or ()} and all(
        labels.get(key) == value for key, value in want["labels"].items()
    )


def turned(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Return whether more than numbers differs: what `kubectl wait` and people at a watch go by."""

    def told(status: Mapping[str, Any]) -> Any:
        conditions = status.get("conditions") or ()
        return (
            [(c.get("type"), c.get("status"), c.get("reason")) for c in conditions],
            [status.get(key) for key in ("phase", "verdict", "observedGeneration", "routers")],
            (status.get("step") or {}).get("progress"),
            (status.get("weight") or {}).get("set"),
        )

    return bool(told(old) != told(new))


def with_status(obj: Obj, status: Obj) -> Obj:
    """Return a status to be applied to the very version that was gathered."""
    meta = obj["metadata"]
    return {
        "apiVersion": obj["apiVersion"],
        "kind": obj["kind"],
        "metadata": {
            "name": meta["name"],
            "namespace": meta["namespace"],
            "resourceVersion": meta["resourceVersion"],
        },
        "status": status,
    }


def _pruned(value: Any) -> Any:
    """Return JSON values without nulls, which a structural schema does not take."""
    if isinstance(value, dict):
        return {key: _pruned(one) for key, one in value.items() if one is not None}
    if isinstance(value, list | tuple):
        return [_pruned(one) for one in value]
    return value
