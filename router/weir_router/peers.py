"""A label that reached another router than the one that answered: brought there, asked once.

A reply's id says by its mark which router gave it, so one router is asked and not all. The mark
is a hash of that router's address, looked for among the addresses of the namespace's routers:
nobody can make a router call an address of his own choosing. The other router is asked at its
management address, at a path that knows its own replies alone, so no label goes further than
one step. The module refuses to know what a label proves (`labels`).
"""

import asyncio
import ipaddress
import re
from collections.abc import Awaitable, Callable
from hashlib import blake2b
from typing import Literal

import msgspec

from weir_core.snapshot import Limits
from weir_router.client import ClientLimits, Failure, Pool
from weir_router.resolve import Address, Resolver

Brought = Literal["taken", "unknown", "unreachable"]
"""What became of a label: the router that answered took it, no router has such a reply, or that
router could not be asked now."""

PATH = b"/weir/v1/label"
WAIT_MS = 2_000
"""Of one label, from its queue to the other router's answer."""
LOOKUP_S = 1.0
MOST = 64
"""Labels under way to other routers at one time; more are told to come back."""
LIMITS = ClientLimits(
    connect_timeout_ms=1_000,
    max_idle=4,
    max_header_bytes=4 << 10,
    max_body_bytes=16 << 10,
    upstream=Limits(max_in_flight=8, queue_length=MOST, queue_wait_ms=1_000),
)
_ID = re.compile(r"weir-([0-9a-f]{8})-[0-9a-f]{24}")


class Label(msgspec.Struct, frozen=True):
    """What one router asks another."""

    id: str
    harm: bool


def mark_of(address: str) -> str:
    """Return what the ids of a router's replies begin with. Raises ValueError for no IP address.

    It tells routers apart and hides nothing: who knows a cluster's addresses can try them all.
    """
    return blake2b(ipaddress.ip_address(address).packed, digest_size=4).hexdigest()


class Peers:
    """The other routers of a namespace, all found under one name; `mark` is this router's own.

    `counted` hears what became of each label that another router was asked for.
    """

    def __init__(
        self,
        name: Address,
        *,
        mark: str,
        counted: Callable[[Brought], None] = lambda brought: None,
        resolve: Callable[[str, int], Awaitable[list[Address]]] | None = None,
    ) -> None:
        self._name = name
        self._mark = mark
        self._counted = counted
        self._resolve = resolve or Resolver()
        self._pools: dict[Address, Pool] = {}
        self._busy = 0

    async def label(self, id: str, *, harm: bool) -> Brought:
        """Bring a label to the router whose mark the id has; it is asked at most once."""
        found = _ID.fullmatch(id)
        if found is None or found[1] == self._mark:
            return "unknown"
        if self._busy >= MOST:
            return self._told("unreachable")
        self._busy += 1
        try:
            return self._told(await self._bring(found[1], Label(id, harm)))
        finally:
            self._busy -= 1

    def close(self) -> None:
        """Close the connections to other routers."""
        for pool in self._pools.values():
            pool.close()
        self._pools.clear()

    def _told(self, brought: Brought) -> Brought:
        self._counted(brought)
        return brought

    async def _bring(self, mark: str, label: Label) -> Brought:
        try:
            async with asyncio.timeout(LOOKUP_S):
                addresses = await self._resolve(*self._name)
        except (OSError, TimeoutError):
            return "unreachable"
        self._forget_all_but(addresses)
        address = next((one for one in addresses if mark_of(one[0]) == mark), None)
        if address is None:
            return "unknown"
        pool = self._pools.get(address)
        if pool is None:
            pool = self._pools[address] = Pool(_url(address), limits=LIMITS)
        body = msgspec.json.encode(label)
        got = await pool.fetch(b"POST", PATH, b"", body, timeout_ms=WAIT_MS)
        if isinstance(got, Failure):
            return "unreachable"
        return _BY_STATUS.get(got.status, "unreachable")

    def _forget_all_but(self, addresses: list[Address]) -> None:
        for gone in self._pools.keys() - set(addresses):
            self._pools.pop(gone).close()


_BY_STATUS: dict[int, Brought] = {204: "taken", 404: "unknown"}


def _url(address: Address) -> str:
    host, port = address
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
