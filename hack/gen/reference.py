"""crds/README.md: every field with its type, default, limits and meaning, from the schemas."""

from collections.abc import Iterator
from typing import Any

from crds import KINDS, Kind, root_schema
from default_texts import default_texts
from structural import Schema

INTRODUCTION = """\
# The API, field by field

Written by `hack/gen/current.py --write` from the models in `router/weir_core`. Do not edit.

    kubectl apply --server-side -f crds/
    kubectl explain modelroute.spec.behaviour.tiers

The group is `inference.weir.dev/v1alpha1`; `kubectl get inference` lists objects of all kinds.

- A field without a default has none; one in **bold** is required where what holds it is there.
  `[]` stands for each item of a list.
- A *duration* is a text such as `1500ms`, `6s` or `1h30m`; a *decimal* is a text in quotes such as
  `"0.05"`; a *percent* is an integer such as `5` or a text such as `"0.5%"`.
- No default is ever written into an object: absent means the default of the Weir that reads it.
- Lists are replaced as a whole by server-side apply, since their order is behaviour; `modelNames`
  is a set.
- The API server refuses what is wrong with one object by itself. What needs other objects (a
  missing backend, a model name that another route has), an expression (`when`) or the order of
  weights written as texts is told in conditions `Accepted` and `ResolvedRefs`, and beforehand by
  `weir validate`.
"""

DURATION, DECIMAL, PERCENT = "a duration", "a decimal", "a percent"


def reference() -> str:
    """Return the whole file."""
    return "\n".join([INTRODUCTION, *(_chapter(kind) for kind in KINDS)])


def _chapter(kind: Kind) -> str:
    schema = root_schema(kind, None)
    parts = [f"## {kind.kind} (`{kind.short}`)\n", f"{kind.told}\n"]
    columns = ", ".join([*(name.upper() for name in kind.columns), "AGE"])
    wide = ", ".join(name.upper() for name in kind.wide)
    parts.append(f"Columns: {columns}; with `-o wide` also {wide}.\n")
    for part in ("spec", "status"):
        parts.append(f"### {kind.kind} {part}\n")
        parts.append(_table(schema["properties"][part], part))
    rules = [*_rules("metadata.name", schema), *_cross(schema["properties"]["spec"], "spec")]
    parts.append(f"### {kind.kind}: what the API server refuses\n")
    parts.append("\n".join(f"- {rule}" for rule in rules) + "\n")
    return "\n".join(parts)


def _table(schema: Schema, path: str) -> str:
    defaults = default_texts()
    if path == "status":
        rows = [(at, _type(one), one["description"]) for at, one, _ in _fields(schema, path)]
        head = "| field | type | meaning |\n|---|---|---|"
        lines = [f"| `{at}` | {kind} | {_cell(told)} |" for at, kind, told in rows]
        return "\n".join([head, *lines]) + "\n"
    head = "| field | type | default | limits | meaning |\n|---|---|---|---|---|"
    lines = []
    for at, one, required in _fields(schema, path):
        name = f"**`{at}`**" if required else f"`{at}`"
        default = defaults.get(at, "")
        lines.append(
            f"| {name} | {_type(one)} | {_cell(default)} | {_cell(_limits(one))} "
            f"| {_cell(one['description'])} |"
        )
    return "\n".join([head, *lines]) + "\n"


def _fields(schema: Schema, path: str) -> Iterator[tuple[str, Schema, bool]]:
    """Give every field below `path`, with its path, and whether it is required."""
    for name, one in schema.get("properties", {}).items():
        below = f"{path}.{name}"
        yield below, one, name in schema.get("required", ())
        yield from _fields(one, below)
        yield from _fields(one.get("items", {}), f"{below}[]")


def _type(schema: Schema) -> str:
    if schema.get("x-kubernetes-int-or-string"):
        return "percent"
    if schema["type"] == "array":
        return f"list of {_type(schema['items'])}s"
    if "additionalProperties" in schema:
        return "map of strings"
    form = _form(schema)
    if schema["type"] == "string" and form.startswith((DURATION, DECIMAL)):
        return form.split()[1].rstrip(",")
    return str(schema["type"])


def _limits(schema: Schema) -> str:
    """Return what a value must keep to, in words."""
    if schema.get("type") == "array":
        items = f"{schema.get('minItems', 0)} to {schema['maxItems']} items"
        inner = _limits(schema["items"])
        return (
            f"{items}; each {inner}"
            if inner and "enum" not in schema["items"]
            else items + (f"; {inner}" if inner else "")
        )
    if "enum" in schema:
        return ", ".join(f"`{one}`" for one in schema["enum"])
    if "maxProperties" in schema:
        return f"at most {schema['maxProperties']}"
    if schema.get("x-kubernetes-int-or-string"):
        return "0 to 100%"
    form = _form(schema)
    if form:
        bound = form.partition("1h30m, ")[2] or form.partition('"0.05", ')[2]
        return bound if form.startswith((DURATION, DECIMAL)) else form
    if schema.get("type") == "integer":
        return f"{schema['minimum']} to {schema['maximum']:,}"
    if schema.get("type") == "string":
        return f"{schema.get('minLength', 0)} to {schema['maxLength']:,} characters"
    return ""


def _form(schema: Schema) -> str:
    """Return what a text's own rule wants, "" when it has none."""
    rules = schema.get("x-kubernetes-validations", [])
    is_text = schema.get("type") == "string" and len(rules) == 1
    return str(rules[0]["message"]).removeprefix("wanted ") if is_text else ""


def _cross(schema: Schema, path: str) -> Iterator[str]:
    """Give the rules between fields; those of single values stand in the table."""
    if schema.get("type") in ("object", "array"):
        yield from _rules(path, schema)
    for name, one in schema.get("properties", {}).items():
        yield from _cross(one, f"{path}.{name}")
    if "items" in schema:
        below = schema["items"]
        yield from _cross(below, f"{path}[]")
        if below.get("type") == "string" and len(below.get("x-kubernetes-validations", ())) > 1:
            yield from _rules(f"{path}[]", below)


def _rules(path: str, schema: Schema) -> Iterator[str]:
    for rule in schema.get("x-kubernetes-validations", ()):
        field = rule.get("fieldPath", "")
        told = rule["message"]
        yield f"`{path}{field}`: {told}"


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|")
