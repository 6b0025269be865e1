"""Virtual time: an event loop that never waits, and clocks that follow it."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

EPOCH_S = 1_795_000_000.0


class VirtualLoop(asyncio.SelectorEventLoop):
    """Jumps to the next timer as soon as nothing is left to do now."""

    now_s = 1_000.0

    def time(self) -> float:
        return self.now_s

    def run_in_executor(
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> "asyncio.Future[Any]":
        """Do it now: a thread would take no time, or all of it."""
        done = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:
            done.set_exception(error)
        return done

    def _run_once(self) -> None:
        timers = [one for one in self._scheduled if not one.cancelled()]  # type: ignore[attr-defined]
        if not self._ready and timers:  # type: ignore[attr-defined]
            self.now_s = max(self.now_s, min(one.when() for one in timers))
        super()._run_once()  # type: ignore[misc]


def run(main: Coroutine[Any, Any, None], monkeypatch: Any) -> None:
    """Run to the end in a loop of its own, by which `time` goes meanwhile."""
    loop = VirtualLoop()
    monkeypatch.setattr(time, "monotonic", loop.time)
    monkeypatch.setattr(time, "time", lambda: EPOCH_S + loop.now_s)
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(main)
