"""From the models of what people write to structural schemas, as Kubernetes demands them.

pydantic's own schema has $ref, anyOf with null and const, which the API server refuses, so the
models are walked here. What a scalar's form wants is said by a CEL rule with the very sentence
that `weir validate` says: a pattern would only be quoted back.
"""

import types
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from cel_rules import Rule, quoted
from pydantic import AfterValidator, BaseModel, BeforeValidator, WithJsonSchema
from pydantic.fields import FieldInfo
from static_rules import item_rules, list_rules, object_rules

from weir_core import forms
from weir_core.forms import FormError, as_regex

Schema = dict[str, Any]

MAX_TEXT = 4_096
"""Characters of a text that the model does not bound; the API server must know some bound."""
MAX_URL = 2_048
MAX_LABELS = 64
MAX_LABEL = 63

LONGEST = {forms.DURATION_PATTERN: 28, forms.DECIMAL_PATTERN: 25, forms.QUANTITY_PATTERN: 18}
"""Characters of the longest text that a pattern lets through."""

URL_PATTERN = r"^[Hh][Tt][Tt][Pp][Ss]?://[!-\"$-.0->A-\[\]-~]+(/[!-\"$->@-\[\]-~]*)?$"
"""No looser than it must be and no stricter than `as_base_url`, which is no pattern."""

PERCENT_PATTERN = r"^(0?[0-9]{1,2}(\.[0-9]{1,2})?|100(\.0{1,2})?)%$"
"""As in `forms`, and no more than 100."""

SETS = frozenset({"modelNames"})
"""Lists without an order; every other list is replaced as a whole, since order is behaviour."""


def schema_of(model: type[BaseModel], path: str, defaults: Mapping[str, str] | None) -> Schema:
    """Return the schema of an object at `path`, such as "spec.behaviour".

    `defaults` gives the default of a field, by its path, as a text for people; descriptions end
    with it and with the form of a value. None: descriptions are what the models say, no more.
    """
    properties, required, rules = {}, [], list(object_rules(model))
    for name, field in model.model_fields.items():
        told = field.alias or name
        below = f"{path}.{told}"
        kind, extras = _flat(field.annotation, field.metadata)
        schema = _schema(kind, extras, below, defaults, list_rules(model, told))
        said = field.description or _docstring(kind)
        assert said, f"{model.__name__}.{name} has no docstring"
        form = "" if defaults is None else _written_as(extras)
        default = (defaults or {}).get(below)
        properties[told] = {"description": _description(said, form, default), **schema}
        if "x-kubernetes-int-or-string" in schema:
            rules.append(_percent_rule(told, _wanted(extras)))
        if field.is_required():
            required.append(told)
    schema = {"type": "object"}
    if required:
        schema["required"] = required
    if properties:
        schema["properties"] = properties
    return _ruled(schema, rules)


def _flat(annotation: Any, metadata: Iterable[Any]) -> tuple[Any, list[Any]]:
    """Return a type without its None and its wrappings, and all that they say, innermost first."""
    extras = list(metadata)
    while True:
        origin = get_origin(annotation)
        if origin is Annotated:
            annotation, *inner = get_args(annotation)
            extras = [*_unpacked(inner), *extras]
        elif origin in (Union, types.UnionType):
            (annotation,) = (one for one in get_args(annotation) if one is not type(None))
        else:
            return annotation, extras


def _unpacked(metadata: Iterable[Any]) -> list[Any]:
    unpacked: list[Any] = []
    for one in metadata:
        unpacked += one.metadata if isinstance(one, FieldInfo) else [one]
    return unpacked


def _schema(
    kind: Any,
    extras: list[Any],
    path: str,
    defaults: Mapping[str, str] | None,
    rules: Iterable[Rule] = (),
) -> Schema:
    if get_origin(kind) is tuple:
        return _ruled(_list(kind, extras, path, defaults), rules)
    if get_origin(kind) is dict:
        return _map(kind)
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return schema_of(kind, path, defaults)
    return _scalar(kind, extras)


def _list(kind: Any, extras: list[Any], path: str, defaults: Mapping[str, str] | None) -> Schema:
    inner, inner_extras = _flat(get_args(kind)[0], ())
    name = path.rpartition(".")[2]
    schema: Schema = {"type": "array"}
    for one in extras:
        if isinstance(one, annotated_types.MinLen):
            schema["minItems"] = one.min_length
        if isinstance(one, annotated_types.MaxLen):
            schema["maxItems"] = one.max_length
    assert "maxItems" in schema, f"{path} has no bound"
    schema["x-kubernetes-list-type"] = "set" if name in SETS else "atomic"
    items = _schema(inner, inner_extras, f"{path}[]", defaults)
    schema["items"] = _ruled(items, item_rules(path))
    return schema


def _map(kind: Any) -> Schema:
    if get_args(kind)[1] is Any:
        return {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    values = {"type": "string", "maxLength": MAX_LABEL}
    return {"type": "object", "maxProperties": MAX_LABELS, "additionalProperties": values}


def _scalar(kind: Any, extras: list[Any]) -> Schema:
    if get_origin(kind) is Literal:
        return {"type": "string", "enum": list(get_args(kind))}
    if kind is bool:
        return {"type": "boolean"}
    form = next((one.json_schema for one in extras if isinstance(one, WithJsonSchema)), None)
    if form is not None:
        return _form(kind, dict(form), extras)
    if kind is int:
        return {"type": "integer", "format": "int64", **_bounds(extras)}
    assert kind is str, f"{kind} has no schema"
    schema = {"type": "string", "maxLength": MAX_TEXT, **_lengths(extras)}
    compiles = any(isinstance(one, AfterValidator) and one.func is as_regex for one in extras)
    return _ruled(
        schema, [Rule("''.matches(self) in [true, false]", "wanted an RE2 pattern")] * compiles
    )


def _form(kind: Any, form: Schema, extras: list[Any]) -> Schema:
    """Return the schema of a text (or percent) that is read into something else."""
    wanted = _wanted(extras)
    if form.get("x-kubernetes-int-or-string"):
        return {"x-kubernetes-int-or-string": True, "pattern": PERCENT_PATTERN}
    pattern = form.get("pattern", URL_PATTERN)
    longest = form.get("maxLength") or LONGEST.get(pattern, MAX_URL)
    fits, wanted = _within(kind, pattern, _bounds(extras), wanted)
    rule = Rule(f"self.matches({quoted(pattern)}){fits}", f"wanted {wanted}")
    return _ruled({"type": "string", "maxLength": longest}, [rule])


def _within(kind: Any, pattern: str, bounds: Schema, wanted: str) -> tuple[str, str]:
    """Return what CEL and people are told of the bounds of a form's value."""
    if not bounds:
        return "", wanted
    if pattern == forms.DURATION_PATTERN:
        assert bounds == {"exclusiveMinimum": True, "minimum": 0}, "a duration is above nothing"
        return " && self.matches('[1-9]')", f"{wanted}, above 0"
    assert kind is Decimal, f"{kind} has no bounds in CEL"
    fits, words = "", []
    if "minimum" in bounds:
        open_ = bounds.get("exclusiveMinimum")
        fits += f" && double(self) {'>' if open_ else '>='} {float(bounds['minimum'])}"
        words.append(f"{'above' if open_ else 'at least'} {bounds['minimum']}")
    if "maximum" in bounds:
        open_ = bounds.get("exclusiveMaximum")
        fits += f" && double(self) {'<' if open_ else '<='} {float(bounds['maximum'])}"
        words.append(f"{'below' if open_ else 'at most'} {bounds['maximum']}")
    return fits, f"{wanted}, {' and '.join(words)}"


def _percent_rule(field: str, wanted: str) -> Rule:
    """Return the rule of a percent, for the object that holds it.

    The API server takes the text of an int-or-string to be as long as a whole request. A rule at
    the field itself, or one that reads the text, would be too dear in a list of steps; that the
    text is whole is for its pattern.
    """
    value = f"self.{field}"
    inside = f"int({value}) >= 0 && int({value}) <= 100"
    return Rule(
        f"!has({value}) || (type({value}) == int ? {inside} : {value}.endsWith('%'))",
        f"wanted {wanted}",
        field=f".{field}",
    )


def _wanted(extras: Iterable[Any]) -> str:
    """Return what the core says when a form is given nothing at all."""
    for one in extras:
        if isinstance(one, BeforeValidator):
            try:
                one.func(None)  # type: ignore[call-arg]
            except FormError as error:
                return str(error)
    raise AssertionError(f"{extras} refuse nothing")


def _bounds(extras: Iterable[Any]) -> Schema:
    bounds: Schema = {}
    for one in extras:
        if isinstance(one, annotated_types.Ge):
            bounds["minimum"] = one.ge
        if isinstance(one, annotated_types.Gt):
            bounds |= {"minimum": one.gt, "exclusiveMinimum": True}
        if isinstance(one, annotated_types.Le):
            bounds["maximum"] = one.le
        if isinstance(one, annotated_types.Lt):
            bounds |= {"maximum": one.lt, "exclusiveMaximum": True}
    return bounds


def _lengths(extras: Iterable[Any]) -> Schema:
    lengths: Schema = {}
    for one in extras:
        if isinstance(one, annotated_types.MinLen):
            lengths["minLength"] = one.min_length
        if isinstance(one, annotated_types.MaxLen):
            lengths["maxLength"] = one.max_length
    return lengths


def _ruled(schema: Schema, rules: Iterable[Rule]) -> Schema:
    """Return the schema with these rules after those that it has."""
    written = [*schema.get("x-kubernetes-validations", ()), *(one.written() for one in rules)]
    return {**schema, "x-kubernetes-validations": written} if written else schema


def _docstring(kind: Any) -> str:
    """Return what a model, or the model of a list's items, says of itself."""
    if get_origin(kind) is tuple:
        kind, _ = _flat(get_args(kind)[0], ())
    is_model = isinstance(kind, type) and issubclass(kind, BaseModel)
    return " ".join((kind.__doc__ or "").split()) if is_model else ""


def _written_as(extras: Iterable[Any]) -> str:
    """Return the form of a value that its type does not tell, "" for names and plain texts."""
    extras = list(extras)
    form = next((one.json_schema for one in extras if isinstance(one, WithJsonSchema)), None)
    return _wanted(extras) if form is not None and "maxLength" not in form else ""


def _description(said: str, form: str, default: str | None) -> str:
    text = " ".join(said.split())
    text += f" Written as {form}." if form else ""
    return text + (f" Default: {default}." if default else "")
