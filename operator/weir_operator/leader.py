"""Who acts: one operator at a time, by a Lease. Its transitions are the term of all versions."""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable

import msgspec

from weir_operator.kube import Kube, KubeError, Obj, now_text

log = logging.getLogger("weir.operator")


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """The lease's times, seconds. One attempt to renew gets an `answer` or is given up; a leader
    that could not renew for `fresh` persists no raise any more, for `duration` leads no more."""

    duration: int = 15
    renew: float = 3.0
    answer: float = 5.0
    fresh: float = 10.0


EPOCH_S = 1_577_836_800
"""Terms count seconds from here, 2020-01-01: an int32, as leaseTransitions is, lasts to 2088."""
AHEAD = 86_400
"""How much later than this clock a term may be that is believed to have been given."""


class Leader:
    """Holds the Lease, or waits for it. `term` grows with every change of holder.

    A lease of somebody else is taken over when it has not changed for its duration by this
    process's own clock, so clocks need not agree; one of an earlier process of the same pod at
    once. Every lead has a term of its own, the next one of this process too: versions must never
    be given twice. `wall` gives Unix seconds: a Lease that was deleted tells no term.
    """

    def __init__(
        self,
        kube: Kube,
        *,
        namespace: str,
        name: str,
        identity: str,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        pace: Pace = Pace(),  # noqa: B008 - frozen
    ) -> None:
        self._kube = kube
        self._namespace = namespace
        self._name = name
        self._pod = f"{identity}_"
        self._identity = ""
        self._clock = clock
        self._wall = wall
        self._pace = pace
        self._surpassed = 0
        self._deaf_until_s = float("-inf")
        self._renewed_s = float("-inf")
        self._seen: tuple[str, float] = ("", 0.0)
        self._latest = 0
        self.term = 0

    @property
    def leads(self) -> bool:
        """Whether this process may act now."""
        return self._clock() - self._renewed_s < self._pace.fresh

    async def acquire(self) -> None:
        """Wait until this process holds the Lease, in a term that nobody had before."""
        self._identity = self._pod + secrets.token_hex(5)
        while not await self._try():  # noqa: ASYNC110 - it asks a server, nobody rings.
            await asyncio.sleep(self._pace.renew)

    async def keep(self) -> None:
        """Renew until the Lease is lost, or was for a moment; returns then, and leads no more."""
        term = self.term
        while term == self.term > self._surpassed and not self._ran_out():
            await asyncio.sleep(self._pace.renew)
            await self._try()
        self._renewed_s = float("-inf")

    def surpass(self, term: int) -> None:
        """End this lead if somebody has obeyed a later term, and have the next one exceed it.

        Else no router would take what is published: a term was given that the Lease does not
        know of, since it was deleted, or restored, and clocks differ. The next term is above all
        that is believed, and for a day none is believed again: whoever forges terms ends one lead.
        """
        now_s = self._clock()
        if term <= max(self.term, self._surpassed) or now_s < self._deaf_until_s:
            return
        told = {"own": self.term, "seen": term}
        latest = self._first_term() + AHEAD
        if term > latest:
            log.warning("a term that none can have had", extra={**told, "latest": latest})
            return
        log.warning("a later term was obeyed: leads anew", extra=told)
        self._surpassed, self._deaf_until_s = latest, now_s + AHEAD

    def _first_term(self) -> int:
        """Return a term above all that a Lease which was deleted can have had, by this clock."""
        return max(1, int(self._wall() - EPOCH_S))

    def _next_term(self) -> int:
        # A Lease that was deleted since may have been of a later term than this clock gives.
        return max(self.term, self._latest, self._surpassed, self._first_term() - 1) + 1

    def _ran_out(self) -> bool:
        return self._clock() - self._renewed_s > self._pace.duration

    async def release(self) -> None:
        """Let the next one in at once."""
        try:
            async with asyncio.timeout(self._pace.answer):
                lease = await self._kube.get("Lease", self._namespace, self._name)
                if lease is not None and lease["spec"].get("holderIdentity") == self._identity:
                    lease["spec"]["holderIdentity"] = ""
                    await self._kube.replace(lease)
        except (KubeError, TimeoutError) as error:
            log.warning("lease not released", extra={"error": repr(error)})

    async def _try(self) -> bool:
        try:
            async with asyncio.timeout(self._pace.answer):
                return await self._asked()
        except TimeoutError:
            why = f"no answer within {self._pace.answer:g} s"
            log.warning("lease not renewed", extra={"error": why})
            return False

    async def _asked(self) -> bool:
        asked_s = self._clock()
        try:
            lease = await self._kube.get("Lease", self._namespace, self._name)
            at = int(lease["spec"].get("leaseTransitions") or 0) if lease is not None else 0
            self._latest = max(self._latest, at)
            if lease is None:
                lease = await self._kube.create(self._lease(transitions=self._next_term()))
            elif lease["spec"].get("holderIdentity") == self._identity:
                lease["spec"]["renewTime"] = now_text(micro=True)
                lease = await self._kube.replace(lease)
            elif self._is_free(lease):
                # After a restore of the cluster the Lease may be older than what routers obey.
                lease["spec"] = self._lease(transitions=self._next_term())["spec"]
                lease = await self._kube.replace(lease)
            else:
                self._renewed_s = float("-inf")  # Somebody else leads.
                return False
        except KubeError as error:
            if error.status != 409:
                log.warning("lease not renewed", extra={"error": str(error)})
            return False
        self.term = int(lease["spec"].get("leaseTransitions") or 0)
        self._renewed_s = asked_s
        return True

    def _is_free(self, lease: Obj) -> bool:
        spec = lease["spec"]
        holder = spec.get("holderIdentity") or ""
        if not holder or holder.startswith(self._pod):
            return True
        version = str(lease["metadata"]["resourceVersion"])
        if version != self._seen[0]:
            self._seen = (version, self._clock())
            return False
        return self._clock() - self._seen[1] > float(spec.get("leaseDurationSeconds") or 0)

    def _lease(self, *, transitions: int) -> Obj:
        now = now_text(micro=True)
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"namespace": self._namespace, "name": self._name},
            "spec": {
                "holderIdentity": self._identity,
                "leaseDurationSeconds": self._pace.duration,
                "acquireTime": now,
                "renewTime": now,
                "leaseTransitions": transitions,
            },
        }
