"""JSON schemas that requests bring: compiled, bounded, and shut in.

A schema is a client's: it may not make the router read a file or ask another machine, and what
it costs to check is bounded before anything is checked. It refuses to know what is checked.
"""

import functools
from typing import Any, NoReturn
from urllib.parse import unquote

import jsonschema_rs
import msgspec

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
        value = msgspec.json.decode(schema)
        _Unfolding(value).count()
        return jsonschema_rs.validator_for(value, pattern_options=_REGEX, retriever=_shut)
    except (ValueError, RecursionError, jsonschema_rs.ReferencingError):
        return None


def _shut(uri: str) -> NoReturn:
    """Retrieve nothing: a reference leads to a place within the schema."""
    raise ValueError("a schema that refers to another place")


class _Unfolding:
    """Counts a schema's objects, each as often as references lead there.

    Twenty definitions that each refer twice to the next are a million objects to check.
    """

    def __init__(self, root: object) -> None:
        self._root = root
        self._known: dict[str, int] = {}
        self._open: set[str] = set()
        self._patterns = 0

    def count(self) -> int:
        """Return the count. Raises ValueError when it is over one of the bounds."""
        return self._count(self._root, 0)

    def _count(self, node: object, depth: int) -> int:
        if depth > MAX_DEPTH:
            raise ValueError("nested too deeply")
        if isinstance(node, list):
            return self._bounded(sum(self._count(one, depth + 1) for one in node))
        if not isinstance(node, dict):
            return 0
        self._patterns += "pattern" in node
        self._patterns += len(node.get("patternProperties") or ())
        if self._patterns > MAX_PATTERNS:
            raise ValueError("too many patterns")
        total = 1 + sum(self._count(one, depth + 1) for one in node.values())
        for key in ("$ref", "$dynamicRef"):
            if isinstance(node.get(key), str):
                total += self._referred(node[key], depth)
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
        """Return what a JSON pointer points at. Raises ValueError for any other reference."""
        if reference == "#":
            return self._root
        if not reference.startswith("#/"):
            raise ValueError("a reference that is no pointer into the schema")
        node: Any = self._root
        for part in unquote(reference[2:]).split("/"):
            name = part.replace("~1", "/").replace("~0", "~")
            try:
                node = node[int(name)] if isinstance(node, list) else node[name]
            except (LookupError, TypeError) as error:
                raise ValueError("a reference that leads nowhere") from error
        return node

    @staticmethod
    def _bounded(count: int) -> int:
        if count > MAX_UNFOLDED:
            raise ValueError("too much to check")
        return count
