"""The objects people write, read strictly: ModelRoute, ModelBackend, and calibrations.

`from_object` turns one object, from a file or from Kubernetes, into a typed resource or into all
of its problems at once. It refuses to know other objects: those meet in `compile`.
"""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError, model_validator

from weir_core.backend_spec import BackendSpec
from weir_core.crosscheck import backend_troubles, route_troubles
from weir_core.errors import Problem
from weir_core.forms import Form, Label, ObjectName, Subdomain, one_of
from weir_core.route_spec import RouteSpec

GROUP_VERSION = "inference.weir.dev/v1alpha1"
DEFAULT_NAMESPACE = "default"
MAX_DEPTH = 64
"""Levels of one object."""

_KEPT_BY_KUBERNETES = frozenset(
    {
        "annotations",
        "deletionGracePeriodSeconds",
        "deletionTimestamp",
        "finalizers",
        "generateName",
        "generation",
        "labels",
        "managedFields",
        "ownerReferences",
        "resourceVersion",
        "selfLink",
    }
)


class _Identified(Form):
    namespace: Label = DEFAULT_NAMESPACE
    uid: str = ""
    creation_timestamp: str = ""
    """RFC 3339 in UTC, so that text order is time order; "" outside Kubernetes."""

    @model_validator(mode="before")
    @classmethod
    def _drop_kept(cls, raw: object) -> object:
        if not isinstance(raw, dict):
            return raw
        kept = {"namespace", "uid", "creationTimestamp"}
        return {
            key: value
            for key, value in raw.items()
            if key not in _KEPT_BY_KUBERNETES and not (value is None and key in kept)
        }


class Metadata(_Identified):
    """What Weir needs of an object's metadata; the rest is Kubernetes' own."""

    name: ObjectName


class ConfigMapMetadata(_Identified):
    """As `Metadata`, with the longer names that Kubernetes allows."""

    name: Subdomain


class ModelBackend(Form):
    """A place that answers."""

    api_version: Literal["inference.weir.dev/v1alpha1"]
    kind: Literal["ModelBackend"]
    metadata: Metadata
    spec: BackendSpec
    status: Any = None


class ModelRoute(Form):
    """What clients ask for, how it is answered, and how changes are let in."""

    api_version: Literal["inference.weir.dev/v1alpha1"]
    kind: Literal["ModelRoute"]
    metadata: Metadata
    spec: RouteSpec
    status: Any = None


class ConfigMap(Form):
    """The carrier of calibrations."""

    api_version: Literal["v1"]
    kind: Literal["ConfigMap"]
    metadata: ConfigMapMetadata
    data: dict[str, str] | None = None
    binary_data: Any = None
    immutable: Any = None


Resource = ModelBackend | ModelRoute | ConfigMap

KINDS: Mapping[str, type[ModelBackend] | type[ModelRoute] | type[ConfigMap]] = {
    "ModelBackend": ModelBackend,
    "ModelRoute": ModelRoute,
    "ConfigMap": ConfigMap,
}
API_VERSIONS = {"ModelBackend": GROUP_VERSION, "ModelRoute": GROUP_VERSION, "ConfigMap": "v1"}

_CROSSCHECKS = {"ModelBackend": backend_troubles, "ModelRoute": route_troubles}


def key_of(resource: Resource) -> str:
    """Return "namespace/name"."""
    return f"{resource.metadata.namespace}/{resource.metadata.name}"


def title_of(resource: Resource) -> str:
    """Return how problems call the object: "ModelRoute llm/assistant"."""
    return f"{resource.kind} {key_of(resource)}"


def title_of_object(obj: object) -> str:
    """Return how problems call an object that may be anything."""
    raw = obj if isinstance(obj, Mapping) else {}
    found = raw.get("metadata")
    metadata = found if isinstance(found, Mapping) else {}
    return (
        f"{_word(raw.get('kind'), 'object')} "
        f"{_word(metadata.get('namespace'), DEFAULT_NAMESPACE)}/{_word(metadata.get('name'), '?')}"
    )


def _word(value: object, otherwise: str) -> str:
    return _brief(value) if isinstance(value, str) and value else otherwise


def from_object(obj: object) -> Resource | tuple[Problem, ...]:
    """Return the resource, or every problem of it, in the order of its fields.

    `obj` is plain data, as JSON or YAML gives it.
    """
    title = title_of_object(obj)
    if not isinstance(obj, dict):
        return (_problem(title, "", _seen(obj), "an object with apiVersion, kind and metadata"),)
    wrong = _wrong_kind(obj, title) or _wrong_data(obj, title)
    if wrong is not None:
        return (wrong,)
    kind = KINDS[obj["kind"]]
    problems = []
    resource: Resource | None = None
    try:
        resource = kind.model_validate(obj)
    except ValidationError as error:
        problems += [
            _translated(kind, title, one)
            for one in error.errors(include_url=False)
            if not _only_items_failed(one)
        ]
    if obj["kind"] in _CROSSCHECKS:
        told = {problem.field for problem in problems}
        problems += [
            _problem(title, trouble.field, trouble.seen, trouble.wanted)
            for trouble in _CROSSCHECKS[obj["kind"]](obj.get("spec"))
            if trouble.field not in told
        ]
    if problems or resource is None:
        return tuple(problems)
    return resource


def _wrong_kind(obj: dict[Any, Any], title: str) -> Problem | None:
    kind, version = obj.get("kind"), obj.get("apiVersion")
    if not isinstance(kind, str) or kind not in KINDS:
        return _problem(title, "kind", _seen(kind), one_of(kind, KINDS), reason="UnknownKind")
    if version != API_VERSIONS[kind]:
        return _problem(
            title, "apiVersion", _seen(version), API_VERSIONS[kind], reason="UnknownKind"
        )
    return None


def _wrong_data(obj: dict[Any, Any], title: str) -> Problem | None:
    """Return what is wrong with the object as plain data; free objects are checked by this alone.

    Works level by level, since deep data would break whatever recurses.
    """
    level: list[Any] = [obj]
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                if not all(isinstance(key, str) for key in value):
                    return _problem(title, "", "a key that is not a string", "keys in quotes")
                below += value.values()
            elif isinstance(value, list):
                below += value
            elif isinstance(value, float) and not math.isfinite(value):
                return _problem(title, "", str(value), "numbers that are finite")
        level = below
    if not level:
        return None
    return _problem(title, "", "deep nesting", f"at most {MAX_DEPTH} levels")


def _problem(title: str, field: str, seen: str, wanted: str, *, reason: str = "Invalid") -> Problem:
    return Problem(object=title, field=field, seen=seen, wanted=wanted, reason=reason)


def _only_items_failed(error: Any) -> bool:
    """Whether a list is called too short only because its items were refused (told beside it)."""
    return bool(error["type"] == "too_short" and len(error["input"]) >= error["ctx"]["min_length"])


def _translated(kind: type[BaseModel], title: str, error: Any) -> Problem:
    """Return pydantic's error as a problem that says what to do."""
    loc = error["loc"]
    return _problem(title, path_of(loc), *_seen_and_wanted(kind, loc, error))


def _seen_and_wanted(kind: type[BaseModel], loc: tuple[Any, ...], error: Any) -> tuple[str, str]:
    match error["type"]:
        case "extra_forbidden":
            return _seen(loc[-1]), one_of(loc[-1], _fields_at(kind, loc[:-1]), what="fields")
        case "missing":
            return "nothing", f"the field {loc[-1]}, which is required"
        case "literal_error":
            known = re.findall(r"'([^']*)'", error["ctx"]["expected"])
            return _seen(error["input"]), one_of(error["input"], known)
        case "value_error":
            return _seen(error["input"]), str(error["ctx"]["error"])
        case "too_short":
            return _seen(error["input"]), f"at least {error['ctx']['min_length']} items"
        case "too_long":
            return _seen(error["input"]), f"at most {error['ctx']['max_length']} items"
        case "model_type" | "dict_type":
            return _seen(error["input"]), "an object"
        case "tuple_type":
            return _seen(error["input"]), "a list"
        case "string_type":
            return _seen(error["input"]), "a string (in quotes, where it looks like a number)"
        case "int_type":
            return _seen(error["input"]), "an integer without quotes"
        case "bool_type":
            return _seen(error["input"]), "true or false without quotes"
    message = re.sub(r"Decimal\('([^']*)'\)", r"\1", error["msg"])
    message = message.removeprefix("Input should ").removeprefix("be ")
    return _seen(error["input"]), message[:1].lower() + message[1:]


def path_of(loc: tuple[int | str, ...]) -> str:
    """Return a path such as spec.behaviour.tiers[0].timeout."""
    path = ""
    for part in loc:
        path += f"[{part}]" if isinstance(part, int) else f".{part}"
    return path.removeprefix(".")


def _fields_at(kind: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """Return the fields, as people write them, that the form at `loc` knows."""
    form = kind
    for part in loc:
        if isinstance(part, int):
            continue
        field = next(f for name, f in form.model_fields.items() if (f.alias or name) == part)
        form = next(_forms_in(field.annotation))
    return [field.alias or name for name, field in form.model_fields.items()]


def _forms_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and get_origin(annotation) is None:
        if issubclass(annotation, BaseModel):
            yield annotation
        return
    for part in get_args(annotation):
        yield from _forms_in(part)


def _seen(value: object) -> str:
    match value:
        case None:
            return "nothing"
        case dict():
            return "an object"
        case list() | tuple():
            return f"a list of {len(value)}"
        case str():
            return f"'{_brief(value)}'" if value else "an empty string"
        case bool():
            return str(value).lower()
        case int() if value.bit_length() > 64:
            return "a huge number"
    return _brief(value)


def _brief(value: object) -> str:
    """Return one printable line of at most 60 characters."""
    text = " ".join(str(value).encode(errors="replace").decode().split())
    return text if len(text) <= 60 else f"{text[:57]}..."
