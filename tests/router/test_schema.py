"""JSON schemas of clients: what they may refer to, and what they may cost."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from weir_router import schema


def raw(value: Any) -> bytes:
    return json.dumps(value).encode()


def folded(levels: int) -> dict[str, Any]:
    """Return definitions that each refer twice to the next: 2^levels objects to check."""
    definitions: dict[str, Any] = {
        f"a{level}": {"allOf": [{"$ref": f"#/$defs/a{level + 1}"}] * 2} for level in range(levels)
    }
    return {"$ref": "#/$defs/a0", "$defs": definitions | {f"a{levels}": {"type": "integer"}}}


def test_a_schema_asks_no_other_machine() -> None:
    asked = []

    class Door(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

    with HTTPServer(("127.0.0.1", 0), Door) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        found = schema.compiled(raw({"$ref": f"http://127.0.0.1:{server.server_port}/secret"}))
        server.shutdown()

    assert found is None
    assert asked == []


def test_a_schema_reads_no_file(tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_text('{"type": "integer"}')

    assert schema.compiled(raw({"$ref": (tmp_path / "secret.json").as_uri()})) is None


def test_a_schema_that_unfolds_without_bound_is_refused_before_it_is_checked() -> None:
    """It is a valid schema, and 3 has its shape; to find that out would take hours."""
    assert schema.is_valid(raw(folded(10)), 3)
    assert not schema.is_valid(raw(folded(40)), 3)


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(None, id="null"),
        pytest.param(5, id="a number"),
        pytest.param({"type": 7}, id="a wrong type"),
        pytest.param({"$ref": "#/$defs/none"}, id="a reference to nothing"),
        pytest.param({"pattern": "("}, id="half a pattern"),
        pytest.param(
            {"properties": {f"p{n}": {"pattern": "a"} for n in range(300)}}, id="patterns"
        ),
        pytest.param({"description": "x" * schema.MAX_BYTES}, id="too large"),
    ],
)
def test_what_is_no_schema_is_none(wrong: Any) -> None:
    assert schema.compiled(raw(wrong)) is None


def test_a_schema_nested_too_deeply_is_none() -> None:
    assert schema.compiled(b'{"not":' * 5_000 + b"{}" + b"}" * 5_000) is None


def test_a_schema_may_refer_to_itself() -> None:
    tree = raw({"type": "array", "items": {"$ref": "#"}})

    assert schema.is_valid(tree, [[], [[]]])
    assert not schema.is_valid(tree, [[1]])


def test_a_reference_may_be_escaped() -> None:
    odd = raw({"$ref": "#/$defs/a%20b~1c", "$defs": {"a b/c": {"type": "integer"}}})

    assert schema.is_valid(odd, 3)
    assert not schema.is_valid(odd, "3")


LOCAL: list[Any] = [
    pytest.param({"$ref": "#n", "$defs": {"n": {"$anchor": "n", "type": "integer"}}}, id="$anchor"),
    pytest.param(
        {"$dynamicRef": "#n", "$defs": {"n": {"$dynamicAnchor": "n", "type": "integer"}}},
        id="$dynamicRef",
    ),
    pytest.param(
        {"$dynamicRef": "#n", "$defs": {"n": {"$anchor": "n", "type": "integer"}}},
        id="$dynamicRef to an $anchor",
    ),
    pytest.param(
        {
            "$id": "https://example.com/root.json",
            "$ref": "number.json",
            "$defs": {"n": {"$id": "number.json", "type": "integer"}},
        },
        id="a relative $id",
    ),
    pytest.param(
        {
            "$id": "https://example.com/root.json",
            "$ref": "https://example.com/number.json#/$defs/whole",
            "$defs": {"n": {"$id": "number.json", "$defs": {"whole": {"type": "integer"}}}},
        },
        id="a pointer into another $id",
    ),
    pytest.param(
        {
            "$ref": "#/$defs/n",
            "$defs": {
                "n": {
                    "$id": "urn:n",
                    "$ref": "#/$defs/whole",
                    "$defs": {"whole": {"type": "integer"}},
                },
                "whole": {"type": "string"},
            },
        },
        id="a pointer within an embedded $id",
    ),
    pytest.param(
        {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "$ref": "#n",
            "definitions": {"n": {"$id": "#n", "type": "integer"}},
        },
        id="$id as an anchor, of old",
    ),
    pytest.param(
        {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "$ref": "#/definitions/n",
            "definitions": {"n": {"type": "integer"}},
            "type": "string",
        },
        id="nothing beside $ref counts, of old",
    ),
    pytest.param(
        {
            "$schema": "http://json-schema.org/draft-04/schema#",
            "id": "http://example.com/root",
            "allOf": [{"$ref": "n"}],
            "definitions": {"n": {"id": "n", "type": "integer"}},
        },
        id="id, of old",
    ),
    pytest.param(
        {
            "$schema": "https://json-schema.org/draft/2019-09/schema",
            "type": ["integer", "array"],
            "items": {"$recursiveRef": "#"},
        },
        id="$recursiveRef",
    ),
    pytest.param(
        {
            "$ref": "#/components/n",
            "components": {"n": {"type": "integer"}},
        },
        id="a place of no keyword",
    ),
    pytest.param(
        {
            "$ref": "#/$defs/a",
            "$dynamicRef": "#/$defs/b",
            "allOf": [{"maximum": 9}],
            "$defs": {"a": {"type": "integer"}, "b": {"minimum": 1}},
        },
        id="several references at one place",
    ),
]


@pytest.mark.parametrize("shape", LOCAL)
def test_a_schema_may_refer_to_any_place_within_itself(shape: dict[str, Any]) -> None:
    assert schema.is_valid(raw(shape), 3)
    assert not schema.is_valid(raw(shape), "3")


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param({"$ref": "#nowhere"}, id="an anchor that is not there"),
        pytest.param({"$ref": "https://example.com/n.json"}, id="another document"),
        pytest.param({"$ref": "n.json"}, id="a document beside"),
        pytest.param({"$id": "https://example.com/a", "$ref": "b"}, id="a document beside a URI"),
        pytest.param({"$dynamicRef": "https://example.com/n#n"}, id="elsewhere, dynamically"),
        pytest.param({"$schema": "https://example.com/dialect"}, id="a dialect of its own"),
        pytest.param({"$ref": 5}, id="no text"),
        pytest.param(
            {"$defs": {"a": {"$anchor": "n"}, "b": {"$anchor": "n"}}, "$ref": "#n"},
            id="an anchor twice",
        ),
        pytest.param(
            {"$defs": {"a": {"$id": "n"}, "b": {"$id": "n"}}, "$ref": "n"}, id="a URI twice"
        ),
        pytest.param(
            {
                "$dynamicAnchor": "n",
                "$defs": {"b": {"$id": "b", "$dynamicAnchor": "n"}},
                "items": {"$dynamicRef": "#n"},
            },
            id="a reference that depends on the way",
        ),
        pytest.param({"enum": [{"$ref": "#/x"}], "$ref": "#/enum/0"}, id="data as a schema"),
    ],
)
def test_a_reference_that_leads_out_or_nowhere_is_refused(shape: dict[str, Any]) -> None:
    assert schema.compiled(raw(shape)) is None


def test_what_looks_like_a_reference_in_data_is_data() -> None:
    data = {"$ref": "https://example.com/x", "$id": "y"}

    assert schema.is_valid(raw({"enum": [data]}), data)
    assert schema.is_valid(raw({"const": data}), data)
    assert schema.is_valid(raw({"properties": {"$ref": {"type": "integer"}}}), {"$ref": 3})
    assert not schema.is_valid(raw({"properties": {"$id": {"type": "integer"}}}), {"$id": "x"})


def test_a_count_cannot_be_led_astray_by_a_second_base() -> None:
    """Within an embedded URI the same pointers lead to what is dear, outside to what is cheap."""
    dear = folded(40)["$defs"]
    cheap: dict[str, Any] = {name: {} for name in dear}
    inner = {"$id": "urn:inner", "$ref": "#/$defs/a0", "$defs": dear}

    assert schema.compiled(raw({"$ref": "#/$defs/in", "$defs": {**cheap, "in": inner}})) is None


@pytest.mark.parametrize("count", [1, 2, 7])
@pytest.mark.parametrize("key", ["allOf", "anyOf", "oneOf"])
def test_a_schema_that_leads_back_to_itself_at_one_value_is_refused(key: str, count: int) -> None:
    """The checker walks every way around: seven definitions took it hours."""
    names = [f"a{n}" for n in range(count)]
    ways = [{"$ref": f"#/$defs/{name}"} for name in names]
    around: dict[str, Any] = {name: {key: [{"type": "integer"}, *ways]} for name in names}

    assert schema.compiled(raw({"$ref": "#/$defs/a0", "$defs": around})) is None


def test_a_union_may_hold_itself_deeply() -> None:
    """As trees of expressions do; the checker asks each value once for each definition."""
    sides = {"left": {"$ref": "#/$defs/e"}, "right": {"$ref": "#/$defs/e"}}
    kinds = [{"properties": {"op": {"const": op}, **sides}, "required": ["op"]} for op in "+-*/"]
    tree: dict[str, Any] = {"$defs": {"e": {"anyOf": [{"type": "integer"}, *kinds]}}}
    value: Any = 1
    for _ in range(60):
        value = {"op": "/", "left": value, "right": 2}

    assert schema.is_valid(raw({"$ref": "#/$defs/e", **tree}), value)
