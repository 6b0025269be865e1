"""Which of the named namespaces may be read: one whose Roles are gone harms no other one.

Nothing is known of such a namespace that was never read, so it is not walked: its routers keep
what they have. What was known of one stays known. Without named namespaces there is one, "".
"""

import asyncio
import logging
from collections.abc import Callable, Sequence

from weir_operator.kube import KubeError

FORBIDDEN = 403
log = logging.getLogger("weir.operator")


class Readable:
    """The namespaces that an operator was given; all are open until the API server refuses one.

    `opened` hears of one that was read whole after that.
    """

    def __init__(
        self,
        namespaces: Sequence[str],
        opened: Callable[[str], None] = lambda namespace: None,
    ) -> None:
        self._named = tuple(namespaces)
        self._closed: set[str] = set()
        self._unread: set[str] = set()
        self._opened = opened
        self._turned = asyncio.Event()

    @property
    def all(self) -> tuple[str, ...]:
        """Every namespace, ("",) for the whole cluster."""
        return self._named or ("",)

    @property
    def open(self) -> tuple[str, ...]:
        """Those that may be read."""
        return tuple(one for one in self.all if one not in self._closed)

    @property
    def closed(self) -> tuple[str, ...]:
        """Those that may not."""
        return tuple(one for one in self.all if one in self._closed)

    @property
    def named(self) -> bool:
        """Whether the operator was given namespaces by name."""
        return bool(self._named)

    def serves(self, namespace: str) -> bool:
        """Return whether a namespace is the operator's, and was read whole in this lead."""
        return (not self._named or namespace in self._named) and namespace not in self._unread

    def refused(self, namespace: str, error: KubeError, *, unread: bool = False) -> bool:
        """Take note of what a list of a namespace met; return whether that closes it.

        The cluster as a whole never closes: without it there is nothing to do but to wait. Nor
        does a kind that is not there (404): its CRD may be on its way.
        """
        if error.status != FORBIDDEN or not namespace:
            return False
        if namespace not in self._closed:
            wanted = "the Role and the RoleBinding of the chart in that namespace"
            told = {"namespace": namespace, "seen": str(error)[:300], "wanted": wanted}
            log.warning("namespace may not be read: it waits, the others do not", extra=told)
            self._closed.add(namespace)
            self._turn()
        if unread:
            self._unread.add(namespace)
        return True

    def reopen(self, namespace: str) -> None:
        """Take note that a namespace was read whole."""
        log.info("namespace may be read again", extra={"namespace": namespace})
        self._closed.discard(namespace)
        self._unread.discard(namespace)
        self._turn()
        self._opened(namespace)

    async def turned(self, known: Sequence[str]) -> None:
        """Wait until others are open than these."""
        while self.open == known:
            await self._turned.wait()

    async def until_open(self, namespace: str) -> None:
        """Wait until a namespace may be read."""
        while namespace in self._closed:
            await self._turned.wait()

    def _turn(self) -> None:
        before, self._turned = self._turned, asyncio.Event()
        before.set()
