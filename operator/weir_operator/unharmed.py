"""gRPC's operations, awaited so that none is ever cancelled.

When the awaiter of a read or write is cancelled, the asyncio half of gRPC lets go of what its core
still works with: a leak, and by pull 43409 of grpc/grpc (issue 43360) perhaps worse.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Unharmed:
    """Operations under way, those too whose awaiter has gone: they end with their stream."""

    def __init__(self) -> None:
        self._open: set[asyncio.Task[Any]] = set()

    async def of(self, operation: Coroutine[Any, Any, T]) -> T:
        """Return an operation's result; when cancelled, leave it to its own end."""
        task = asyncio.ensure_future(operation)
        self._open.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._open.discard(task)
        if not task.cancelled():
            task.exception()

    async def over(self, within_s: float) -> None:
        """Wait for what is under way."""
        if self._open:
            await asyncio.wait(self._open, timeout=within_s)
