"""What was applied last and to which versions of objects, so that nothing is rendered in vain.

An object that is edited or deleted has another version, or none: then it is looked at again.
What did not come right is looked at again after a while, since its cause may be elsewhere.
"""

import time
from collections.abc import Callable, Container, Sequence

from weir_core.errors import Problem
from weir_operator.cache import Cache

AGAIN_S = 10.0
ROUTER = "weir-router"
"""The name that all of a namespace's router objects are noted by; no identity has it."""
Objects = Sequence[tuple[str, str]]
"""(kind, name) of each."""


class Applied:
    """Remembers by namespace and name. `clock` gives seconds that never go back."""

    def __init__(self, cache: Cache, clock: Callable[[], float] = time.monotonic) -> None:
        self._cache = cache
        self._clock = clock
        self._known: dict[str, dict[str, tuple[object, object, tuple[Problem, ...], float]]] = {}

    def alike(
        self, namespace: str, name: str, asked: object, objects: Objects
    ) -> tuple[Problem, ...] | None:
        """Return the problems found last, None where it must be applied again."""
        known = self._known.get(namespace, {}).get(name)
        if known is None or known[:2] != (asked, self._versions(namespace, objects)):
            return None
        whole = None not in self._versions(namespace, objects) and not known[2]
        return known[2] if whole or self._clock() - known[3] < AGAIN_S else None

    def note(
        self,
        namespace: str,
        name: str,
        asked: object,
        objects: Objects,
        problems: tuple[Problem, ...],
    ) -> None:
        """Take note of what was applied and what stands there now."""
        versions = self._versions(namespace, objects)
        known = self._known.setdefault(namespace, {})
        known[name] = asked, versions, problems, self._clock()

    def problems(self, namespace: str, name: str) -> tuple[Problem, ...]:
        """Return what did not come right last."""
        known = self._known.get(namespace, {}).get(name)
        return known[2] if known is not None else ()

    def keep(self, namespace: str, names: Container[str]) -> None:
        """Forget all of a namespace but its routers and these names."""
        known = self._known.get(namespace, {})
        for name in [name for name in known if name not in names and name != ROUTER]:
            del known[name]

    def forget(self, namespace: str) -> None:
        """Forget all of a namespace."""
        self._known.pop(namespace, None)

    def _versions(self, namespace: str, objects: Objects) -> list[str | None]:
        found = (self._cache.get(kind, namespace, name) for kind, name in objects)
        return [one["metadata"]["resourceVersion"] if one else None for one in found]
