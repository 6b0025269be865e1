"""One timer for a deadline that moves."""

from collections.abc import Callable
from typing import Any

from weir_router.alarm import Alarm


class Timer:
    """What a loop gives for a call to come."""

    def __init__(self, at_s: float, call: Callable[[], None]) -> None:
        self.at_s = at_s
        self.call = call
        self.cancelled = False

    def cancel(self) -> None:
        """Do not call."""
        self.cancelled = True


class Clock:
    """The loop's time and timers, without a loop."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.timers: list[Timer] = []

    def time(self) -> float:
        """Return the time it is told."""
        return self.now_s

    def call_at(self, at_s: float, call: Callable[[], None]) -> Timer:
        """Call when `pass_to` reaches the time."""
        self.timers.append(Timer(at_s, call))
        return self.timers[-1]

    def pass_to(self, now_s: float) -> None:
        """Let the time pass, and the timers wake."""
        while due := [one for one in self.waiting() if one.at_s <= now_s]:
            first = min(due, key=lambda one: one.at_s)
            self.timers.remove(first)
            self.now_s = first.at_s
            first.call()
        self.now_s = now_s

    def waiting(self) -> list[Timer]:
        """Return the timers that will still wake."""
        return [one for one in self.timers if not one.cancelled]


def _alarm() -> tuple[Any, Alarm, list[float]]:
    clock: Any = Clock()
    rung: list[float] = []
    return clock, Alarm(clock, lambda: rung.append(clock.now_s)), rung


def test_it_rings_once_at_its_time() -> None:
    clock, alarm, rung = _alarm()
    alarm.set(5)
    clock.pass_to(100)
    assert rung == [5]


def test_a_later_time_moves_it() -> None:
    clock, alarm, rung = _alarm()
    alarm.set(5)
    clock.pass_to(1)
    alarm.set(9)
    clock.pass_to(100)
    assert rung == [9]


def test_an_earlier_time_moves_it() -> None:
    clock, alarm, rung = _alarm()
    alarm.set(50)
    alarm.set(5)
    clock.pass_to(100)
    assert rung == [5]


def test_a_cleared_alarm_rings_only_when_set_again() -> None:
    clock, alarm, rung = _alarm()
    alarm.set(5)
    alarm.clear()
    clock.pass_to(10)
    assert rung == []
    alarm.set(11)
    clock.pass_to(100)
    assert rung == [11]


def test_a_stopped_alarm_leaves_no_timer() -> None:
    clock, alarm, rung = _alarm()
    alarm.set(5)
    alarm.stop()
    assert clock.waiting() == []
    alarm.set(7)
    clock.pass_to(100)
    assert rung == [7]


def test_many_later_times_cost_one_timer() -> None:
    clock, alarm, _ = _alarm()
    for at_s in range(1_000):
        alarm.set(10 + at_s)
    assert len(clock.timers) == 1


def test_a_clock_tick_early_is_in_time() -> None:
    clock, alarm, rung = _alarm()
    alarm.set(5)
    clock.timers[0].at_s = 4.9997
    clock.pass_to(4.9998)
    assert rung == [4.9997]
