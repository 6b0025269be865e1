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
