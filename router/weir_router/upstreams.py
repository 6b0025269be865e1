"""The backends as this router reaches them: pools, keys, and which of them are down.

A backend with too many failures in a row is ejected for a while, so that requests go elsewhere
without spending an attempt on it; one probe at a time finds out whether it is back.
"""

import ssl
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec

from weir_core.snapshot import Backend, FailureCause, Limits
from weir_router.client import ClientLimits, Pool
from weir_router.resolve import Resolver

EJECT_AFTER = 5
"""Failures in a row that eject a backend."""
EJECT_MIN_S, EJECT_MAX_S = 1.0, 30.0
_EJECTING: frozenset[FailureCause] = frozenset(
    {"Connect", "Timeout", "ServerError", "BrokenStream"}
)


Turned = Callable[[Backend, str], None]
"""Hears of a backend that was ejected, and why, or is back ("")."""


class Ejection(msgspec.Struct, frozen=True, kw_only=True):
    """A backend that gets probes only; `since_s` is seconds since the epoch."""

    backend: Backend
    cause: str
    failures: int
    since_s: float


class Upstream:
    """One backend identity: its connections, its headers, its recent failures."""

    __slots__ = (
        "_cause",
        "_ejected_until_s",
        "_failures",
        "_key",
        "_keyless",
        "_probing",
        "_since_s",
        "_turned",
        "backend",
        "pool",
    )

    def __init__(
        self,
        backend: Backend,
        pool: Pool,
        key: Callable[[], bytes] | None,
        turned: Turned = lambda backend, why: None,
    ) -> None:
        self.backend = backend
        self.pool = pool
        self._key = key
        self._keyless = False
        self._turned = turned
        self._failures = 0
        self._ejected_until_s = 0.0
        self._probing = False
        self._cause = ""
        self._since_s = 0.0

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Return what a call carries beside its body's own."""
        key = self._key() if self._key is not None else b""
        return [(b"authorization", b"Bearer " + key)] if key else []

    @property
    def keyless(self) -> bool:
        """Whether the key that it wants is not there: it is not called without."""
        if self._key is None:
            return False
        keyless = not self._key()
        if keyless != self._keyless:
            self._keyless = keyless
            self._turned(self.backend, f"no key {self.backend.key!r}" if keyless else "")
        return keyless

    @property
    def ejection(self) -> Ejection | None:
        """Why and since when it gets probes only; None while it is well."""
        if self._failures < EJECT_AFTER:
            return None
        return Ejection(
            backend=self.backend,
            cause=self._cause,
            failures=self._failures,
            since_s=self._since_s,
        )

    def available(self, now_s: float) -> bool:
        """Return whether a call may be tried; an ejected backend lets one probe through."""
        if self.keyless:
            return False
        if self._failures < EJECT_AFTER:
            return True
        if now_s < self._ejected_until_s or self._probing:
            return False
        self._probing = True
        return True

    def back_in_s(self, now_s: float) -> float:
        """Return in how many seconds an ejected backend is tried again, 0 for one that is well."""
        if self.keyless:
            return EJECT_MAX_S
        if self._failures < EJECT_AFTER:
            return 0.0
        return max(self._ejected_until_s - now_s, 0.0)

    def succeeded(self) -> None:
        """Forget the failures: the backend answered."""
        if self._failures >= EJECT_AFTER:
            self._turned(self.backend, "")
        self._failures = 0
        self._probing = False

    def failed(self, cause: str, now_s: float, detail: str = "") -> None:
        """Count a failure in a row; the ejection doubles up to its bound."""
        self._probing = False
        if cause not in _EJECTING:
            return
        self._failures += 1
        self._cause = cause
        beyond = self._failures - EJECT_AFTER
        if beyond == 0:
            self._since_s = now_s
            self._turned(self.backend, f"{cause}: {detail}" if detail else cause)
        if beyond >= 0:
            self._ejected_until_s = now_s + min(EJECT_MIN_S * 2 ** min(beyond, 10), EJECT_MAX_S)

    def released(self) -> None:
        """The call was cancelled: it told nothing of the backend."""
        self._probing = False


class Keys:
    """API keys as files of one folder, re-read when they change; never logged.

    `whose` is how people know that folder.
    """

    def __init__(self, folder: Path | None, whose: str = "the folder that --keys names") -> None:
        self._folder = folder
        self.whose = whose
        self._read: dict[str, tuple[int, bytes]] = {}

    def get(self, name: str) -> bytes:
        """Return the key, b"" when there is no such file."""
        if not name or self._folder is None:
            return b""
        path = self._folder / name
        try:
            changed_ns = path.stat().st_mtime_ns
            known = self._read.get(name)
            if known is None or known[0] != changed_ns:
                self._read[name] = known = (changed_ns, path.read_bytes().strip())
        except OSError:
            return b""
        return known[1]


class Upstreams:
    """Every backend identity that the table names; pools of those gone are closed."""

    def __init__(self, keys: Keys, turned: Turned = lambda backend, why: None) -> None:
        self._keys = keys
        self._turned = turned
        self._by_identity: dict[str, Upstream] = {}
        self._resolver = Resolver()

    def get(self, backend: Backend) -> Upstream:
        """Return the upstream of a backend, made on first use."""
        found = self._by_identity.get(backend.identity)
        return found if found is not None else self._make(backend, Limits())

    def keep(self, backends: dict[str, Backend], limits: dict[str, Limits]) -> None:
        """Make what is new and close the pools of identities that are gone."""
        for identity, backend in backends.items():
            wanted = limits.get(identity, Limits())
            known = self._by_identity.get(identity)
            if known is None:
                self._make(backend, wanted)
            elif known.pool.limits.upstream != wanted:
                known.pool.limits = msgspec.structs.replace(known.pool.limits, upstream=wanted)
        for identity in [name for name in self._by_identity if name not in backends]:
            self._by_identity.pop(identity).pool.close()

    def ejected(self) -> tuple[Ejection, ...]:
        """Return the backends that are out now."""
        found = (upstream.ejection for upstream in self._by_identity.values())
        return tuple(one for one in found if one is not None)

    def out(self) -> dict[str, str]:
        """Return why a backend is not called, by identity: it is ejected, or its key is missing."""
        return {one.backend.identity: one.cause for one in self.ejected()} | {
            identity: f"no key {upstream.backend.key!r} in {self._keys.whose}"
            for identity, upstream in self._by_identity.items()
            if upstream.keyless
        }

    def _make(self, backend: Backend, limits: Limits) -> Upstream:
        context = ssl.create_default_context() if backend.url.startswith("https:") else None
        pool = Pool(
            backend.url,
            limits=ClientLimits(upstream=limits),
            ssl_context=context,
            resolve=self._resolver,
        )
        key = partial(self._keys.get, backend.key) if backend.key else None
        upstream = Upstream(backend, pool, key, self._turned)
        self._by_identity[backend.identity] = upstream
        return upstream

    def close(self) -> None:
        """Close every pool."""
        for upstream in self._by_identity.values():
            upstream.pool.close()
        self._by_identity.clear()
