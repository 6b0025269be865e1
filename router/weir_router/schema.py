"""JSON schemas that requests bring: compiled, bounded, and shut in.

A schema is a client's: it may not make the router read a file or ask another machine, and what
it costs to check is bounded before anything is checked. It refuses to know what is checked.
"""

import functools
from typing import Any, NoReturn

import jsonschema_rs
import msgspec

from weir_router.flatten import flat, parts

MAX_BYTES = 128 << 10
MAX_UNFOLDED = 20_000
"""Objects of a schema with every reference put in place: what one value may be checked for."""
MAX_DEPTH = 200
MAX_PATTERNS = 256
PATTERN_BYTES = 1 << 20
"""Of one compiled pattern."""
_REGEX = jsonschema_rs.RegexOptions(size_limit=PATTERN_BYTES, dfa_size_limit=PATTERN_BYTES)


def compiled(schema: bytes) -> jsonschema_rs.Validator | None:
    """Return the compiled schema, None when it is none or costs too much to check."""
    return _compiled(schema) if len(schema) <= MAX_BYTES else None


def is_valid(schema: bytes, value: object) -> bool:
    """Return whether the value has the schema's shape; False for a schema that is none."""
    validator = compiled(schema)
    try:
        return validator is not None and validator.is_valid(value)
    except (ValueError, RecursionError):
        return False


@functools.lru_cache(maxsize=128)
def _compiled(schema: bytes) -> jsonschema_rs.Validator | None:
    try:
        value = flat(msgspec.json.decode(schema))
        _Unfolding(value).check()
        return jsonschema_rs.validator_for(value, pattern_options=_REGEX, retriever=_shut)
    except (ValueError, RecursionError, jsonschema_rs.ReferencingError):
        return None


def _shut(uri: str) -> NoReturn:
    """Retrieve nothing: only `$schema` could still lead away, to a dialect of its own."""
    raise ValueError("a schema that refers to another place")


class _Unfolding:
    """Counts a flat schema's objects, each as often as references lead there.

    Twenty definitions that each refer twice to the next are a million objects to check.
    """

    def __init__(self, root: Any) -> None:
        self._root = root
        self._known: dict[str, int] = {}
        self._open: set[str] = set()
        self._held: set[str] = set()
        self._free: set[str] = set()
        self._patterns = 0

    def check(self) -> None:
        """Raise ValueError when the schema is over one of the bounds."""
        self._count(self._root, 0)
        for node in (self._root, *self._places().values()):
            self._stay(node)

    def _places(self) -> dict[str, Any]:
        if not isinstance(self._root, dict):
            return {}
        found: dict[str, Any] = self._root.get("$defs") or self._root.get("definitions") or {}
        return found

    def _count(self, node: object, depth: int) -> int:
        if depth > MAX_DEPTH:
            raise ValueError("nested too deeply")
        if not isinstance(node, dict):
            return 1
        self._patterns += "pattern" in node
        self._patterns += len(node.get("patternProperties") or ())
        if self._patterns > MAX_PATTERNS:
            raise ValueError("too many patterns")
        total = 1 + sum(len(node[key]) for key in _LISTED if isinstance(node.get(key), list))
        total += sum(self._count(part, depth + 1) for _, part in parts(node))
        if "$ref" in node:
            total += self._referred(node["$ref"], depth)
        return self._bounded(total)

    def _referred(self, reference: str, depth: int) -> int:
        """Return the count of where a reference leads; one that is being counted is a loop.

        The checker itself walks a loop once for each value.
        """
        if reference in self._open:
            return 0
        if reference not in self._known:
            self._open.add(reference)
            self._known[reference] = self._count(self._target(reference), depth + 1)
            self._open.discard(reference)
        return self._known[reference]

    def _target(self, reference: str) -> Any:
        return self._places()[reference.rpartition("/")[2]]

    def _stay(self, node: object) -> None:
        """Raise ValueError where a schema leads back to itself and stays at the same value.

        It says nothing, and the checker would walk every way around: with six definitions that
        refer to each other two seconds, with seven for hours.
        """
        if not isinstance(node, dict):
            return
        reference = node.get("$ref")
        if reference is not None and reference not in self._free:
            if reference in self._held:
                raise ValueError("a schema that leads back to itself")
            self._held.add(reference)
            self._stay(self._target(reference))
            self._held.discard(reference)
            self._free.add(reference)
        for key, part in parts(node):
            if key in _STAYING:
                self._stay(part)

    @staticmethod
    def _bounded(count: int) -> int:
        if count > MAX_UNFOLDED:
            raise ValueError("too much to check")
        return count


_LISTED = ("enum", "required")
"""Keywords whose items are compared one by one."""
_STAYING = frozenset(
    ["allOf", "anyOf", "dependencies", "dependentSchemas", "else", "if", "not", "oneOf", "then"]
)
"""Keywords under which a schema is of the same value; under all others it is of a part of it."""
