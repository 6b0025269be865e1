"""One answer of an upstream as its reader meets it: whole, in parts, or failed.

It refuses to know HTTP and sockets: a connection fills it (`connection`).
"""

import asyncio
from collections.abc import Callable
from typing import Protocol

import msgspec

from weir_core.snapshot import FailureCause


class Failure(msgspec.Struct, frozen=True):
    """Why there is no answer, or no whole one.

    `sent`: some of the request may have reached the upstream. `answered`: some byte came back.
    """

    cause: FailureCause
    detail: str
    sent: bool
    answered: bool


class Carrier(Protocol):
    """The connection that an answer arrives on."""

    loop: asyncio.AbstractEventLoop

    def resume(self) -> None:
        """Read on after a pause."""

    def fail(self, cause: FailureCause, detail: str) -> None:
        """End the answer, which is not complete, and the connection with it."""


class Stream:
    """One answer as it arrives. Read until b"" or a Failure, or close it.

    `complete`: all of it has arrived; some may still be unread.
    """

    __slots__ = (
        "_buffered",
        "_chunks",
        "_connection",
        "_loop",
        "_waiter",
        "complete",
        "failure",
        "headed_s",
        "headers",
        "on_done",
        "size",
        "status",
        "whole",
    )

    def __init__(self, *, whole: bool) -> None:
        self.whole = whole
        """Wanted in one piece: bounded in size instead of paused."""
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.headed_s = 0.0
        """When the head had come, of time.perf_counter; 0 before."""
        self.size = 0
        self.complete = False
        self.failure: Failure | None = None
        self.on_done: Callable[[], None] | None = None
        """Called once, when no more can arrive."""
        self._buffered = 0
        self._chunks: list[bytes] = []
        self._connection: Carrier | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def done(self) -> bool:
        """Return whether no more can arrive."""
        return self._connection is None

    async def ready(self) -> None:
        """Return when the head has come, or all if wanted whole, or it failed."""
        while not self.complete and self.failure is None:
            if self.headed_s and not self.whole:
                return
            await self._wait()

    async def read(self) -> bytes | Failure:
        """Return what has come since the last read, b"" at the proper end."""
        while not self._chunks:
            if self.failure is not None:
                return self.failure
            if self.complete:
                return b""
            await self._wait()
        return self.take()

    def take(self) -> bytes:
        """Return what has come and is not read yet, b"" for nothing."""
        chunks = self._chunks
        self._chunks, self._buffered = [], 0
        if self._connection is not None:
            self._connection.resume()
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def close(self) -> None:
        """Want no more: unless all has arrived, the upstream sees a disconnect."""
        if self._connection is not None:
            self._connection.fail("BrokenStream", "closed by the router")

    async def _wait(self) -> None:
        assert self._loop is not None
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        except asyncio.CancelledError:
            self.close()
            raise
        finally:
            self._waiter = None

    # The connection calls these.

    def attach(self, connection: Carrier) -> None:
        """Arrive on `connection` from now on."""
        self._connection = connection
        self._loop = connection.loop

    def detach(self) -> None:
        """Arrive no more."""
        self._connection = None
        done, self.on_done = self.on_done, None
        if done is not None:
            done()
        self.wake()

    def add(self, body: bytes) -> int:
        """Keep a part of the body; return how much is kept and not read."""
        self._chunks.append(body)
        self.size += len(body)
        self._buffered += len(body)
        return self._buffered

    def wake(self) -> None:
        """Let the reader look again."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
