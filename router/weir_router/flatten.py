"""A JSON schema put flat: every reference found within it, nothing left that is not understood.

What reaches the checker is only what was read here, under references of one form: so what is
counted is what is checked, and nothing can lead out of the document. It refuses to know what a
schema may cost (`schema`).
"""

from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote, urljoin

Node = Any
"""JSON: a schema is an object or a boolean."""

MAX_NODES = 20_000
"""Schemas that are put flat; a place that a reference leads to is put apart, and so is what it
stands in."""
ONE = frozenset(
    [
        "additionalItems",
        "additionalProperties",
        "contains",
        "contentSchema",
        "else",
        "if",
        "items",
        "not",
        "propertyNames",
        "then",
        "unevaluatedItems",
        "unevaluatedProperties",
    ]
)
MANY = frozenset(["allOf", "anyOf", "items", "oneOf", "prefixItems"])
NAMED = frozenset(
    ["$defs", "definitions", "dependencies", "dependentSchemas", "patternProperties", "properties"]
)
DATA = frozenset(
    [
        "const",
        "contentEncoding",
        "contentMediaType",
        "dependentRequired",
        "enum",
        "exclusiveMaximum",
        "exclusiveMinimum",
        "format",
        "maxContains",
        "maxItems",
        "maxLength",
        "maxProperties",
        "maximum",
        "minContains",
        "minItems",
        "minLength",
        "minProperties",
        "minimum",
        "multipleOf",
        "pattern",
        "required",
        "type",
        "uniqueItems",
    ]
)
DEFINITIONS = frozenset({"$defs", "definitions"})
_OLD = ("draft-03", "draft-04", "draft-06", "draft-07")
"""There nothing beside a `$ref` counts."""


class Resource:
    """A schema with a URI of its own, and what its anchors name."""

    def __init__(self, uri: str, root: Node) -> None:
        self.uri = uri
        self.root = root
        self.anchors: dict[str, Node] = {}


def parts(node: dict[str, Node]) -> Iterator[tuple[str, Node]]:
    """Yield the schemas that stand within one, each with the keyword that it stands under."""
    for key, value in node.items():
        if key in MANY and isinstance(value, list):
            for one in value:
                yield key, one
        elif key in ONE:
            yield key, value
        elif key in NAMED and isinstance(value, dict):
            for one in value.values():
                if not isinstance(one, list):  # Names that a property asks for.
                    yield key, one


def flat(schema: Node) -> Node:
    """Return an equal schema where each reference reads `#/$defs/<number>`.

    In older drafts `#/definitions/<number>`. Raises ValueError where a reference leads nowhere
    within the schema, or where it depends on the way that led to it.
    """
    if not isinstance(schema, dict):
        if isinstance(schema, bool):
            return schema
        raise ValueError("a schema is an object or a boolean")
    return _Flattening(schema).run()


class _Flattening:
    """One schema on its way; `places` are those that references lead to, by number."""

    def __init__(self, root: dict[str, Node]) -> None:
        self._root = root
        draft = root.get("$schema")
        self._old = isinstance(draft, str) and any(one in draft for one in _OLD)
        self._id = "id" if isinstance(draft, str) and "draft-04" in draft else "$id"
        self._by_uri: dict[str, Resource] = {}
        self._by_node: dict[int, Resource] = {}
        self._moving: dict[str, list[Node]] = {}
        """What dynamic anchors name, by name."""
        self._numbers: dict[int, int] = {}
        self._places: list[tuple[Node, Resource]] = []
        self._nodes = 0

    def run(self) -> Node:
        key = "definitions" if self._old else "$defs"
        first = Resource("", self._root)
        self._add(first)
        self._index(self._root, first)
        top = self._emit(self._root, self._by_node[id(self._root)])
        found: dict[str, Node] = {}
        while len(found) < len(self._places):
            node, resource = self._places[len(found)]
            found[str(len(found))] = self._emit(node, resource)
        if "$schema" in self._root:
            top["$schema"] = self._root["$schema"]
        return {**top, key: found} if found else top

    # Reading: which URIs and anchors there are.

    def _index(self, node: Node, resource: Resource) -> None:
        if not isinstance(node, dict):
            return
        resource = self._entered(node, resource)
        for key, anchor in (("$anchor", node.get("$anchor")), ("$id", self._old_anchor(node))):
            if isinstance(anchor, str):
                self._name(resource, anchor, node, key)
        dynamic = node.get("$dynamicAnchor")
        if isinstance(dynamic, str):
            self._name(resource, dynamic, node, "$dynamicAnchor")
            self._moving.setdefault(dynamic, []).append(node)
        if node.get("$recursiveAnchor") is True:
            self._moving.setdefault("", []).append(node)
        for _, part in parts(node):
            self._index(part, resource)

    def _entered(self, node: dict[str, Node], resource: Resource) -> Resource:
        """Return the resource that a schema belongs to: its own where it has a URI."""
        uri = node.get(self._id)
        alone = self._old and "$ref" in node
        if not isinstance(uri, str) or alone or uri.startswith("#"):
            return resource
        own = Resource(urljoin(resource.uri, uri).partition("#")[0], node)
        self._add(own)
        return own

    def _add(self, resource: Resource) -> None:
        if resource.uri in self._by_uri and self._by_uri[resource.uri].root is not resource.root:
            raise ValueError("two schemas of one URI")
        self._by_uri[resource.uri] = resource
        self._by_node[id(resource.root)] = resource

    def _old_anchor(self, node: dict[str, Node]) -> str | None:
        uri = node.get(self._id)
        return uri[1:] if self._old and isinstance(uri, str) and uri[:1] == "#" else None

    @staticmethod
    def _name(resource: Resource, anchor: str, node: Node, key: str) -> None:
        if resource.anchors.setdefault(anchor, node) is not node:
            raise ValueError(f"two schemas of one {key}")

    # Resolving: where a reference leads.

    def _target(self, reference: str, resource: Resource) -> tuple[Node, Resource]:
        uri, _, fragment = reference.partition("#")
        found = self._by_uri.get(urljoin(resource.uri, uri)) if uri else resource
        if found is None:
            raise ValueError("a reference that leads out of the schema")
        fragment = unquote(fragment)
        if fragment and not fragment.startswith("/"):
            if fragment not in found.anchors:
                raise ValueError("a reference to an anchor that is not there")
            return found.anchors[fragment], found
        return self._pointed(found, fragment)

    def _pointed(self, resource: Resource, pointer: str) -> tuple[Node, Resource]:
        """Return where a JSON pointer leads; on its way it may enter another resource."""
        node: Any = resource.root
        for part in pointer.split("/")[1:]:
            name = part.replace("~1", "/").replace("~0", "~")
            try:
                node = node[int(name)] if isinstance(node, list) else node[name]
            except (LookupError, TypeError) as error:
                raise ValueError("a reference that leads nowhere") from error
            resource = self._by_node.get(id(node), resource)
        return node, resource

    def _moved(self, reference: str, resource: Resource) -> tuple[Node, Resource]:
        """Return where a dynamic reference leads: the same place from everywhere, or refuse."""
        node, home = self._target(reference, resource)
        anchor = unquote(reference.partition("#")[2])
        named = self._moving.get(anchor, [])
        if any(one is node for one in named) and len(named) > 1:
            raise ValueError("a dynamic reference that leads to several places")
        return node, home

    # Writing.

    def _emit(self, node: Node, resource: Resource) -> Node:
        if isinstance(node, bool):
            return node
        if not isinstance(node, dict):
            raise ValueError("a schema is an object or a boolean")
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise ValueError("too many schemas")
        resource = self._by_node.get(id(node), resource)
        references = self._references(node, resource)
        if references and self._old:
            return references[0]
        out = {key: self._under(key, value, resource) for key, value in node.items() if _kept(key)}
        if references:
            out |= references[0]
            if len(references) > 1:
                out["allOf"] = [*out.get("allOf", ()), *references[1:]]
        return out

    def _under(self, key: str, value: Node, resource: Resource) -> Node:
        if key in DATA:
            return value
        if key in MANY and isinstance(value, list):
            return [self._emit(one, resource) for one in value]
        if key in ONE:
            return self._emit(value, resource)
        if key in NAMED and isinstance(value, dict):
            return {
                name: one if isinstance(one, list) else self._emit(one, resource)
                for name, one in value.items()
            }
        raise ValueError(f"a wrong {key}")

    def _references(self, node: dict[str, Node], resource: Resource) -> list[dict[str, Node]]:
        found = []
        for key, resolve in (
            ("$ref", self._target),
            ("$dynamicRef", self._moved),
            ("$recursiveRef", self._moved),
        ):
            if key in node:
                if not isinstance(node[key], str):
                    raise ValueError(f"a {key} that is no text")
                found.append({"$ref": self._number(*resolve(node[key], resource))})
        return found

    def _number(self, node: Node, resource: Resource) -> str:
        number = self._numbers.get(id(node))
        if number is None:
            number = self._numbers[id(node)] = len(self._places)
            self._places.append((node, resource))
        return f"#/{'definitions' if self._old else '$defs'}/{number}"


def _kept(key: str) -> bool:
    """Whether a keyword is written: not definitions, which are where references lead."""
    return key in DATA or (key in ONE | MANY | NAMED and key not in DEFINITIONS)
