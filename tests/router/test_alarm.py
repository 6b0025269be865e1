"""One timer for a deadline that moves."""

import asyncio

from support.http_wire import run
from weir_router.alarm import Alarm


async def _rings(*steps: tuple[float, float | None]) -> list[float]:
    """Return when an alarm rang, in seconds, given (moment, deadline or None for clear)."""
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    rung: list[float] = []
    alarm = Alarm(loop, lambda: rung.append(loop.time() - began_s))
    for moment_s, deadline_s in steps:
        await asyncio.sleep(max(0.0, began_s + moment_s - loop.time()))
        alarm.clear() if deadline_s is None else alarm.set(began_s + deadline_s)
    await asyncio.sleep(0.15)
    alarm.stop()
    return rung


def test_it_rings_once_at_its_time() -> None:
    rung = run(_rings((0, 0.05)))
    assert len(rung) == 1
    assert rung[0] >= 0.045


def test_a_later_time_moves_it() -> None:
    rung = run(_rings((0, 0.03), (0.01, 0.09)))
    assert len(rung) == 1
    assert rung[0] >= 0.085


def test_an_earlier_time_moves_it() -> None:
    rung = run(_rings((0, 5), (0.01, 0.03)))
    assert len(rung) == 1


def test_a_cleared_alarm_does_not_ring_until_set_again() -> None:
    assert run(_rings((0, 0.02), (0.01, None))) == []
    assert len(run(_rings((0, 0.02), (0.01, None), (0.05, 0.06)))) == 1
