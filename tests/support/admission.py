"""What the API server does with an object of a CRD, as far as Python can: fields, schema, CEL.

For fast tests; tests/e2e asks a real one the same. Not here: what CEL costs.
"""

import sys
from pathlib import Path

import cel
import jsonschema_rs

sys.path.insert(0, str(Path(__file__).parents[2] / "hack" / "gen"))

from crds import KINDS, crd_of
from current import stale_files, write_files

__all__ = ["CRDS", "SCHEMAS", "broken", "nodes", "refusals", "stale_files", "unknown_fields"]
__all__ += ["write_files"]

CRDS = {kind.kind: crd_of(kind) for kind in KINDS}
SCHEMAS = {
    kind: crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"] for kind, crd in CRDS.items()
}
OPEN = "x-kubernetes-preserve-unknown-fields"
RULES = "x-kubernetes-validations"


BLOCKING = frozenset({"type", "required", "enum", "maxLength", "maxItems", "maxProperties"})
"""Keywords whose errors keep the API server from asking the rules."""


def nodes(schema, path=""):
    """Give every schema below one, with its path."""
    yield path, schema
    for name, below in schema.get("properties", {}).items():
        yield from nodes(below, f"{path}.{name}")
    for name in ("items", "additionalProperties"):
        if name in schema:
            yield from nodes(schema[name], f"{path}[]")


def refusals(obj, old=None):
    """Return every reason not to take an object, as "path: sentence"; none means it is taken."""
    schema = SCHEMAS[obj["kind"]]
    unknown = [f"{path}: unknown field" for path in unknown_fields(schema, obj, "")]
    if unknown:
        return unknown
    errors = list(_VALIDATORS[obj["kind"]].iter_errors(obj))
    told = [f"{_place(error)}: {error.message}" for error in errors]
    if any(error.schema_path[-1] in BLOCKING for error in errors):
        return told
    return told + [sentence for _, sentence in broken(schema, obj, old, "")]


def unknown_fields(schema, value, path):
    """Give the paths that a schema does not know; kubectl refuses them, others drop them."""
    if isinstance(value, dict):
        known = schema.get("properties", {})
        opened = "additionalProperties" in schema or OPEN in schema or path == ".metadata"
        for name, below in value.items():
            if name in known:
                yield from unknown_fields(known[name], below, f"{path}.{name}")
            elif not opened:
                yield f"{path}.{name}"
    if isinstance(value, list):
        for place, one in enumerate(value):
            yield from unknown_fields(schema.get("items", {}), one, f"{path}[{place}]")


def broken(schema, value, old, path):
    """Give each rule that does not hold, as its CEL and its "path: sentence"."""
    for rule in schema.get(RULES, ()):
        if "oldSelf" in rule["rule"] and old is None:
            continue
        names = {"self": value} | ({"oldSelf": old} if old is not None else {})
        context = cel.Context(variables=names)
        try:
            holds = cel.evaluate(rule["rule"], context)
        except RuntimeError as error:
            # The API server refuses too where a rule cannot be evaluated.
            yield rule["rule"], f"{path}: {error}"
            continue
        if not holds:
            expression = rule.get("messageExpression")
            said = cel.evaluate(expression, context) if expression else rule["message"]
            yield rule["rule"], f"{path}{rule.get('fieldPath', '')}: {said}"
    if isinstance(value, dict):
        for name, below in schema.get("properties", {}).items():
            if name in value:
                before = old.get(name) if isinstance(old, dict) else None
                yield from broken(below, value[name], before, f"{path}.{name}")
    if isinstance(value, list):
        for place, one in enumerate(value):
            yield from broken(schema.get("items", {}), one, None, f"{path}[{place}]")


def _plain(schema):
    """Return a structural schema as plain JSON schema."""
    plain = {}
    for key, value in schema.items():
        if key == "properties":
            plain[key] = {name: _plain(one) for name, one in value.items()}
        elif key in ("items", "additionalProperties"):
            plain[key] = _plain(value)
        elif not key.startswith("x-kubernetes-") and key not in ("nullable", "format"):
            plain[key] = value
    if schema.get("exclusiveMinimum") is True:
        plain["exclusiveMinimum"] = plain.pop("minimum")
    if schema.get("exclusiveMaximum") is True:
        plain["exclusiveMaximum"] = plain.pop("maximum")
    if schema.get("x-kubernetes-int-or-string"):
        plain["type"] = ["integer", "string"]
    if schema.get("nullable"):
        plain["type"] = [schema["type"], "null"]
    if schema.get("x-kubernetes-list-type") == "set":
        plain["uniqueItems"] = True
    return plain


def _place(error):
    """Return where an error stands as the API server says it."""
    parts = list(error.instance_path)
    if error.schema_path[-1] == "required":
        parts.append(error.kind.property)
    if error.schema_path[-1] == "uniqueItems":
        items = error.instance
        parts.append(next(place for place, one in enumerate(items) if one in items[:place]))
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)


_VALIDATORS = {
    kind: jsonschema_rs.Draft4Validator(_plain(schema)) for kind, schema in SCHEMAS.items()
}
