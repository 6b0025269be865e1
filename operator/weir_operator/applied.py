"""What was applied last and to which versions of objects, so that nothing is rendered in vain.

An object that is edited or deleted has another version, or none: then it is looked at again.
What did not come right is looked at again after a while, since its cause may be elsewhere. What
the API server fails at is tried again ever more slowly, and told when that lasts.
"""

import time
from collections.abc import Callable, Container, Sequence
from typing import NamedTuple

from weir_core.errors import Problem
from weir_operator.cache import Cache

AGAIN_S = 10.0
RETRY_S, RETRY_MAX_S = 0.2, 10.0
LASTING_S = 5.0
"""What heals sooner is not told: a conflict, a leader of the API's that changed."""
ROUTER = "weir-router"
"""The name that all of a namespace's router objects are noted by; no identity has it."""
Objects = Sequence[tuple[str, str]]
"""(kind, name) of each."""


class _Noted(NamedTuple):
    asked: object
    versions: object
    problems: tuple[Problem, ...]
    at_s: float
    whole: bool


class _Failing(NamedTuple):
    problem: Problem
    since_s: float
    next_s: float
    pause_s: float


class Applied:
    """Remembers by namespace and name. `clock` gives seconds that never go back."""

    def __init__(self, cache: Cache, clock: Callable[[], float] = time.monotonic) -> None:
        self._cache = cache
        self._clock = clock
        self._known: dict[str, dict[str, _Noted]] = {}
        self._failing: dict[str, dict[str, _Failing]] = {}

    def alike(
        self, namespace: str, name: str, asked: object, objects: Objects
    ) -> tuple[Problem, ...] | None:
        """Return the problems found last, None where it must be applied again."""
        known = self._known.get(namespace, {}).get(name)
        if known is None or known[:2] != (asked, self._versions(namespace, objects)):
            return None
        return known.problems if known.whole or self._clock() - known.at_s < AGAIN_S else None

    def note(
        self,
        namespace: str,
        name: str,
        asked: object,
        objects: Objects,
        problems: tuple[Problem, ...],
        *,
        whole: bool = True,
    ) -> None:
        """Take note of what was applied and what stands there now; `whole` unless some waits."""
        versions = self._versions(namespace, objects)
        known = self._known.setdefault(namespace, {})
        whole = whole and None not in versions and not problems
        known[name] = _Noted(asked, versions, problems, self._clock(), whole)

    def failed(self, namespace: str, name: str, problem: Problem) -> float:
        """Take note that something was not applied, or not whole; return how long it rests now."""
        failing, now_s = self._failing.setdefault(namespace, {}), self._clock()
        before = failing.get(name)
        pause_s = min(2 * before.pause_s, RETRY_MAX_S) if before else RETRY_S
        since_s = before.since_s if before else now_s
        failing[name] = _Failing(problem, since_s, now_s + pause_s, pause_s)
        return pause_s

    def rests(self, namespace: str, name: str) -> bool:
        """Return whether something that failed must not be tried again yet."""
        failing = self._failing.get(namespace, {}).get(name)
        return failing is not None and self._clock() < failing.next_s

    def came_right(self, namespace: str, name: str) -> None:
        """Take note that nothing failed this time."""
        self._failing.get(namespace, {}).pop(name, None)

    def problems(self, namespace: str, name: str) -> tuple[Problem, ...]:
        """Return what did not come right last, and what has failed for a while."""
        known = self._known.get(namespace, {}).get(name)
        failing = self._failing.get(namespace, {}).get(name)
        found = known.problems if known is not None else ()
        if failing is None or self._clock() - failing.since_s <= LASTING_S:
            return found
        return (*found, failing.problem)

    def keep(self, namespace: str, names: Container[str]) -> None:
        """Forget all of a namespace but its routers and these names."""
        known, failing = self._known.get(namespace, {}), self._failing.get(namespace, {})
        for name in known.keys() | failing.keys():
            if name not in names and name != ROUTER:
                known.pop(name, None)
                failing.pop(name, None)

    def forget(self, namespace: str) -> None:
        """Forget all of a namespace."""
        self._known.pop(namespace, None)
        self._failing.pop(namespace, None)

    def _versions(self, namespace: str, objects: Objects) -> list[str | None]:
        found = (self._cache.get(kind, namespace, name) for kind, name in objects)
        return [one["metadata"]["resourceVersion"] if one else None for one in found]
