"""Put flat, a schema says what it said before."""

from typing import Any

import jsonschema_rs
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from weir_router.flatten import flat

BASE = "https://example.com/root.json"
NAMES = ("a", "b", "c")
REFERENCES = st.sampled_from(
    [
        *(f"#/$defs/{name}" for name in NAMES),
        *(f"#{name}" for name in NAMES),
        *NAMES,
        "b#b",
        f"{BASE}#/$defs/a",
        "#",
        "#/properties/x",
        "c#/items",
    ]
)
PLAIN: list[dict[str, Any]] = [
    {"type": "integer"},
    {"type": "object"},
    {"minimum": 2},
    {"enum": [1, "x", {"$ref": "#/data"}]},
    {"required": ["x"]},
    {"maxItems": 1},
    {"title": "words"},
]


def schemas(inner: Any) -> Any:
    some = st.lists(inner, min_size=1, max_size=2)
    named = st.dictionaries(st.sampled_from(["x", "y"]), inner, min_size=1)
    return st.one_of(
        inner.map(lambda one: {"items": one}),
        inner.map(lambda one: {"not": one}),
        inner.map(lambda one: {"type": "object", "additionalProperties": one}),
        named.map(lambda some: {"properties": some, "unevaluatedProperties": False}),
        named.map(lambda some: {"properties": some, "description": "words"}),
        some.map(lambda some: {"allOf": some}),
        some.map(lambda some: {"anyOf": some}),
        some.map(lambda some: {"prefixItems": some, "unevaluatedItems": False}),
        st.tuples(inner, inner).map(lambda two: {"if": two[0], "then": two[1]}),
    )


SCHEMAS = st.recursive(
    st.one_of(st.booleans(), st.sampled_from(PLAIN), REFERENCES.map(lambda ref: {"$ref": ref})),
    schemas,
    max_leaves=5,
)
VALUES = st.recursive(
    st.sampled_from([0, 3, "x", None, {"$ref": "#/data"}]),
    lambda inner: st.one_of(
        st.lists(inner, max_size=2),
        st.dictionaries(st.sampled_from(["x", "y"]), inner, max_size=2),
    ),
    max_leaves=6,
)


def document(root: Any, definitions: list[Any], marks: list[dict[str, str]]) -> Any:
    """Return a schema with three definitions, each marked by anchor, URI or both."""
    marked = {
        name: {**one, **mark} if isinstance(one, dict) else one
        for name, one, mark in zip(NAMES, definitions, marks, strict=True)
    }
    return {"$id": BASE, "allOf": [root], "properties": {"x": True}, "$defs": marked}


MARKS = st.tuples(
    *(st.sampled_from([{}, {"$anchor": n}, {"$id": n}, {"$id": n, "$anchor": n}]) for n in NAMES)
)


def _shut(uri: str) -> Any:
    raise ValueError(uri)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(SCHEMAS, st.lists(SCHEMAS, min_size=3, max_size=3), MARKS, st.lists(VALUES, min_size=4))
@example(
    {"$ref": "b#b"},
    [True, {"type": "integer"}, True],
    ({}, {"$id": "b", "$anchor": "b"}, {}),
    [3, "x", None, {}],
)
def test_every_value_is_judged_as_before(
    root: Any, definitions: list[Any], marks: Any, values: list[Any]
) -> None:
    before = document(root, definitions, marks)
    try:
        after = flat(before)
    except ValueError:
        assume(False)
    told = str(after)
    assume(not any(_around(place, after, set()) for place in ("", *after.get("$defs", ()))))
    assert "$id" not in told
    assert "$anchor" not in told
    try:
        one = jsonschema_rs.validator_for(before, retriever=_shut)
    except (ValueError, jsonschema_rs.ReferencingError):
        assume(False)  # A definition that nothing refers to leads out.
    other = jsonschema_rs.validator_for(after, retriever=_shut)
    for value in values:
        assert one.is_valid(value) == other.is_valid(value), (before, after, value)


def _around(place: str, root: Any, held: set[str]) -> bool:
    """Whether a schema leads back to itself at one value: that says nothing."""

    def within(node: Any) -> bool:
        if not isinstance(node, dict):
            return False
        number = str(node.get("$ref", "/")).rpartition("/")[2]
        if number and (number in held or _around(number, root, {*held, number})):
            return True
        inner = [node[key] for key in ("not", "if", "then") if key in node]
        return any(within(one) for one in [*inner, *node.get("allOf", ()), *node.get("anyOf", ())])

    return within(root["$defs"][place] if place else root)


def test_only_what_is_understood_is_left() -> None:
    odd = {"type": "object", "x-vendor": {"$ref": "https://example.com/x"}, "$comment": "words"}

    assert flat(odd) == {"type": "object"}


def test_the_dialect_stays() -> None:
    dialect = "http://json-schema.org/draft-07/schema#"

    assert flat({"$schema": dialect, "type": "array"})["$schema"] == dialect


@pytest.mark.parametrize("odd", [None, 3, "x", [], {"items": 3}, {"properties": []}])
def test_what_is_no_schema_is_refused(odd: Any) -> None:
    with pytest.raises(ValueError):
        flat(odd)
