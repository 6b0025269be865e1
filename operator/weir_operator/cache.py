"""What the API server has last said of every object that Weir looks at.

Fed by the event streams, by whole lists, and by the answers to the operator's own writes; of two
versions of one object the later stays. It refuses to know what any of it means (`gather`).
"""

from collections.abc import Callable, Iterable
from typing import Any

Obj = dict[str, Any]
Name = tuple[str, str]
"""(namespace, name)."""
MAX_GONE = 10_000
"""Objects that are gone and whose last version is remembered against late events."""


def name_of(obj: Obj) -> Name:
    """Return (namespace, name) of an object."""
    meta = obj["metadata"]
    return meta.get("namespace", ""), meta["name"]


def version_of(obj: Obj) -> int:
    """Return the resourceVersion as a number: versions of one kind are ordered (KEP-5504)."""
    text = str(obj["metadata"].get("resourceVersion", "0"))
    return int(text) if text.isdigit() else 0


class Cache:
    """Objects by kind and name. `changed` hears the namespace of whatever is new."""

    def __init__(self, changed: Callable[[str], None] = lambda namespace: None) -> None:
        self._kinds: dict[str, dict[Name, Obj]] = {}
        self._gone: dict[tuple[str, Name], int] = {}
        self._listed: dict[tuple[str, str], int] = {}
        self._changed = changed

    def put(self, obj: Obj) -> None:
        """Take a version of an object, unless a later one is known."""
        name, version = name_of(obj), version_of(obj)
        known = self._kinds.setdefault(obj["kind"], {})
        old = known.get(name)
        if old is not None and version <= version_of(old):
            return
        if version <= self._gone.get((obj["kind"], name), -1):
            return
        known[name] = obj
        self._changed(name[0])

    def drop(self, obj: Obj) -> None:
        """Take note that an object is gone, as of the version that the event carries."""
        name, version = name_of(obj), version_of(obj)
        known = self._kinds.setdefault(obj["kind"], {})
        old = known.get(name)
        if old is None or version_of(old) > version:
            return
        self._lose(obj["kind"], name, version)

    def replace(self, kind: str, objects: Iterable[Obj], version: str, namespace: str = "") -> None:
        """Take a whole list of a kind (of one namespace, where one is given).

        One that is older than the list before it is of a cluster whose store was brought back from
        a backup: what was known beside it is no more.
        """
        listed = {name_of(obj): obj for obj in objects}
        as_of = int(version) if version.isdigit() else 0
        if 0 < as_of < self._listed.get((kind, namespace), 0):
            self._forget(kind, namespace)
        self._listed[kind, namespace] = as_of or self._listed.get((kind, namespace), 0)
        for obj in listed.values():
            self.put(obj)
        for name, obj in list(self._kinds.get(kind, {}).items()):
            here = namespace in ("", name[0])
            if name not in listed and here and version_of(obj) <= as_of:
                self._lose(kind, name, as_of)

    def _forget(self, kind: str, namespace: str) -> None:
        for name in [name for name in self._kinds.get(kind, {}) if namespace in ("", name[0])]:
            del self._kinds[kind][name]
            self._changed(name[0])
        for key in [key for key in self._gone if key[0] == kind and namespace in ("", key[1][0])]:
            del self._gone[key]

    def _lose(self, kind: str, name: Name, version: int) -> None:
        del self._kinds[kind][name]
        self._gone[kind, name] = version
        if len(self._gone) > MAX_GONE:
            self._gone.pop(next(iter(self._gone)))
        self._changed(name[0])

    def get(self, kind: str, namespace: str, name: str) -> Obj | None:
        """Return one object."""
        return self._kinds.get(kind, {}).get((namespace, name))

    def of(self, kind: str, namespace: str) -> list[Obj]:
        """Return all objects of a kind in a namespace, by name."""
        found = self._kinds.get(kind, {})
        return [obj for name, obj in sorted(found.items()) if name[0] == namespace]

    def namespaces(self, *kinds: str) -> set[str]:
        """Return the namespaces that have any object of these kinds."""
        return {name[0] for kind in kinds for name in self._kinds.get(kind, {})}
