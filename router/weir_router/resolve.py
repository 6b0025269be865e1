"""Addresses of names, looked up so that a name server that hangs harms nobody else.

The system's lookup blocks its thread until the name server answers or its own patience ends, half
a minute later. So each lookup has a thread of its own, one at a time for each name, shared by all
who wait for it, and the last good addresses stand in while there is no answer.
"""

import asyncio
import ipaddress
import socket
import threading
import time
from collections.abc import Callable

Address = tuple[str, int]
Look = Callable[[str, int], list[Address]]
"""The lookup itself, which may block. Raises OSError."""

FRESH_S = 1.0
"""So long addresses are not asked for again: a storm of connections is one lookup."""
KEPT_S = 3_600.0
"""So long the last good addresses may stand in for an answer."""
PATIENCE_S = 0.25
"""How long a lookup may take where addresses are at hand that may stand in."""
MOST_LOOKUPS = 32
"""At one time, each a thread. More names than that hang only with the name server itself."""
_GONE = frozenset((socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)))
"""The name server says that there is no such name: old addresses may be somebody else's now."""


def look(host: str, port: int) -> list[Address]:
    """Return the addresses of a name in the order the system prefers; blocks."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(str(address[0]), int(address[1])) for *_, address in found]


class _Name:
    """What is known of one name, and the lookup under way if there is one."""

    __slots__ = ("addresses", "began_s", "lookup", "since_s")

    def __init__(self) -> None:
        self.addresses: list[Address] = []
        self.since_s = 0.0
        self.lookup: asyncio.Future[list[Address]] | None = None
        self.began_s = 0.0


class Resolver:
    """Looks names up for the pools of one event loop; `look` and `clock` are for tests."""

    def __init__(self, look: Look = look, clock: Callable[[], float] = time.monotonic) -> None:
        self._look = look
        self._clock = clock
        self._names: dict[Address, _Name] = {}
        self._busy = 0

    async def __call__(self, host: str, port: int) -> list[Address]:
        """Return the addresses of a name, an address as it is. Raises OSError.

        Waits as long as the lookup takes where no address stands in: the caller bounds it.
        """
        if _is_address(host):
            return [(host, port)]
        name = self._names.setdefault((host, port), _Name())
        now_s = self._clock()
        age_s = now_s - name.since_s
        if name.addresses and age_s < FRESH_S:
            return name.addresses
        lookup = name.lookup or self._begin(host, port, name)
        kept = name.addresses if age_s < KEPT_S else []
        patience_s = max(name.began_s + PATIENCE_S - now_s, 0.0) if kept else None
        # Not the future itself: one who gives up waiting cancels nobody else's lookup.
        await asyncio.wait((lookup,), timeout=patience_s)
        if not lookup.done():
            return kept
        error = lookup.exception()
        if error is None:
            return lookup.result()
        if kept and not (isinstance(error, socket.gaierror) and error.errno in _GONE):
            return kept
        raise error

    def _begin(self, host: str, port: int, name: _Name) -> "asyncio.Future[list[Address]]":
        loop = asyncio.get_running_loop()
        lookup: asyncio.Future[list[Address]] = loop.create_future()
        if self._busy >= MOST_LOOKUPS:
            lookup.set_exception(OSError(f"{MOST_LOOKUPS} lookups of other names hang"))
            return lookup
        self._busy += 1
        name.lookup, name.began_s = lookup, self._clock()

        def ended(found: list[Address] | OSError) -> None:
            self._busy -= 1
            name.lookup = None
            if isinstance(found, list):
                name.addresses, name.since_s = found, self._clock()
                lookup.set_result(found)
            else:
                lookup.set_exception(found)
                lookup.exception()  # Perhaps nobody waits for it any more.

        def work() -> None:
            found: list[Address] | OSError
            try:
                found = self._look(host, port)
            except Exception as error:
                found = error if isinstance(error, OSError) else OSError(str(error))
            try:
                loop.call_soon_threadsafe(ended, found)
            except RuntimeError:
                return  # The loop has ended meanwhile.

        # A daemon: the process need not wait for a name server when it ends.
        thread = threading.Thread(target=work, name=f"lookup {host}", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            ended(OSError(str(error)))
        return lookup


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
